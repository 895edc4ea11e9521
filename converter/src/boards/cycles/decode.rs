//! What kind of instruction stands in a Thumb encoding: as much as a table of cycles distinguishes.
//!
//! Covers ARMv6-M, ARMv7E-M with floating point, and ARMv8.1-M with MVE (Arm DDI 0403, DDI 0553). Encodings that no table tells from
//! data processing are [`Class::Data`]. Encodings are taken to be valid: the emulated core has executed them.

/// The general register that holds the stack pointer.
const SP: u32 = 13;
/// The program counter.
const PC: u32 = 15;

/// The kind of an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Arithmetic, logic, moves, extensions, saturation, hints, IT.
    Data,
    /// 32-bit product.
    Multiply,
    /// MLA, MLS, and all products of halves and high words of the DSP extension.
    MultiplyAccumulate,
    /// 64-bit product.
    MultiplyLong,
    /// 64-bit product added to 64 bits.
    MultiplyAccumulateLong,
    /// Division.
    Divide,
    /// Load of one register.
    Load,
    /// Store of one register.
    Store {
        /// The address is the sum of two registers.
        indexed: bool,
    },
    /// LDM, LDRD, POP of so many registers.
    LoadMany(u32),
    /// STM, STRD, PUSH of so many registers.
    StoreMany(u32),
    /// Loads so many registers, the program counter among them.
    LoadBranch(u32),
    /// Any branch but those of the other classes; conditional ones too.
    Branch,
    /// BL.
    Call,
    /// TBB, TBH.
    TableBranch,
    /// DMB, DSB, ISB.
    Barrier,
    /// MRS, MSR.
    SystemRegister,
    /// DLS, WLS and their predicated forms.
    LoopStart,
    /// LE, LETP.
    LoopEnd,
    /// Floating-point arithmetic and moves of one cycle.
    Float,
    /// Two core registers to or from floating-point registers.
    FloatPair,
    /// VMLA, VFMA and their kin.
    FloatMultiplyAccumulate,
    /// VDIV, VSQRT.
    FloatDivide,
    /// VLDR, VLDM, VPOP of so many words.
    FloatLoad(u32),
    /// VSTR, VSTM, VPUSH of so many words.
    FloatStore(u32),
    /// An instruction of MVE.
    Vector(Pipe),
}

/// What executes an instruction of MVE on Cortex-M55 (LLVM, `ARMScheduleM55.td`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pipe {
    /// Loads and stores.
    Memory,
    /// Additions, shifts, logic, minima, narrowing.
    Integer,
    /// Products, sums across lanes, comparisons, all floating point.
    Multiply,
    /// The integer or the multiply pipe.
    Either,
    /// Predicates: one cycle.
    Control,
}

/// An instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Bytes of the encoding.
    pub bytes: u32,
    /// Its kind.
    pub class: Class,
    /// General registers that it writes, a bit each, where it is data processing or a load of one register; a base that it updates.
    pub writes: u16,
    /// General registers that its address is made of, a bit each.
    pub address: u16,
}

impl Instruction {
    const fn new(class: Class) -> Self {
        Self { bytes: 4, class, writes: 0, address: 0 }
    }

    const fn data(target: u32) -> Self {
        Self::new(Class::Data).writing(target)
    }

    const fn writing(mut self, register: u32) -> Self {
        self.writes |= 1 << register;
        self
    }

    const fn at(mut self, register: u32) -> Self {
        self.address |= 1 << register;
        self
    }

    /// A load of one register, or a store.
    const fn transfer(load: bool, indexed: bool, register: u32) -> Self {
        if load { Self::new(Class::Load).writing(register) } else { Self::new(Class::Store { indexed }) }
    }

    const fn transfer_many(load: bool, registers: u32) -> Self {
        let count = registers.count_ones();
        Self::new(match (load, registers & 1 << PC != 0) {
            (false, _) => Class::StoreMany(count),
            (true, false) => Class::LoadMany(count),
            (true, true) => Class::LoadBranch(count),
        })
    }
}

/// Decodes the instruction that the halfwords begin with; `None` if they end within it.
pub fn decode(halfwords: &[u16]) -> Option<Instruction> {
    let first = u32::from(*halfwords.first()?);
    if first >> 11 < 0b11101 {
        return Some(Instruction { bytes: 2, ..narrow(first) });
    }
    Some(wide(first, u32::from(*halfwords.get(1)?)))
}

/// 16-bit encodings.
fn narrow(code: u32) -> Instruction {
    let low = code & 7;
    let middle = code >> 8 & 7;
    match code >> 12 {
        0 | 1 => Instruction::data(low),
        2 | 3 if code >> 11 == 0b00101 => Instruction::new(Class::Data),
        2 | 3 => Instruction::data(middle),
        4 if code & 0x0C00 == 0 => match code >> 6 & 15 {
            // TST, CMP, CMN.
            8 | 10 | 11 => Instruction::new(Class::Data),
            13 => Instruction::new(Class::Multiply).writing(low),
            _ => Instruction::data(low),
        },
        4 if code & 0x0C00 == 0x0400 => match (code >> 8 & 3, low | code >> 4 & 8) {
            (1, _) => Instruction::new(Class::Data),
            (3, _) | (_, PC) => Instruction::new(Class::Branch),
            (_, target) => Instruction::data(target),
        },
        4 => Instruction::transfer(true, false, middle),
        5 => Instruction::transfer(code >> 9 & 7 >= 3, true, low).at(code >> 3 & 7).at(code >> 6 & 7),
        6..=8 => Instruction::transfer(code & 0x0800 != 0, false, low).at(code >> 3 & 7),
        9 => Instruction::transfer(code & 0x0800 != 0, false, middle).at(SP),
        10 => Instruction::data(middle),
        11 => match code >> 8 & 15 {
            0 => Instruction::data(SP),
            1 | 3 | 9 | 11 => Instruction::new(Class::Branch),
            2 | 10 => Instruction::data(low),
            4 | 5 => Instruction::transfer_many(false, code & 0x1FF),
            // The bit of LR stands for PC.
            12 | 13 => Instruction::transfer_many(true, code & 0xFF | (code & 0x100) << 7),
            _ => Instruction::new(Class::Data),
        },
        12 => Instruction::transfer_many(code & 0x0800 != 0, code & 0xFF),
        // UDF, SVC.
        13 if code >> 9 == 0b110_1111 => Instruction::new(Class::Data),
        _ => Instruction::new(Class::Branch),
    }
}

/// 32-bit encodings.
fn wide(first: u32, second: u32) -> Instruction {
    let target = second >> 8 & 15;
    let load = first & 0x10 != 0;
    if first & 0xEC00 == 0xEC00 {
        return Instruction::new(coprocessor(first, second));
    }
    match first >> 8 {
        0xE8 | 0xE9 if first & 0x40 == 0 => Instruction::transfer_many(load, second),
        0xE8 if first & 0xFFF0 == 0xE8D0 && second & 0xFFE0 == 0xF000 => Instruction::new(Class::TableBranch),
        // Exclusive and ordered accesses.
        0xE8 if first & 0x0120 == 0 => Instruction::transfer(load, false, second >> 12).at(first & 15),
        0xE8 | 0xE9 => Instruction::transfer_many(load, 0b11).at(first & 15),
        0xEA | 0xEB => Instruction::data(target),
        0xF0..=0xF7 if second & 0x8000 == 0 => Instruction::data(target),
        0xF0..=0xF7 => Instruction::new(branch(first, second)),
        0xF8 | 0xF9 => single(first, second),
        0xFA => Instruction::data(target),
        // 0xFB: the others are coprocessors'.
        _ => multiply(first, second),
    }
}

/// Branches, loops, barriers and system registers.
fn branch(first: u32, second: u32) -> Class {
    match second & 0xD000 {
        0xD000 => Class::Call,
        0xC000 => match second & 0xF801 {
            0xE801 => Class::Vector(Pipe::Control),
            0xC001 if first & 15 == 15 => Class::LoopEnd,
            _ => Class::LoopStart,
        },
        0x8000 if first & 0x0380 == 0x0380 => match first >> 4 & 0x3F {
            0x3B => Class::Barrier,
            0x3A => Class::Data,
            _ => Class::SystemRegister,
        },
        _ => Class::Branch,
    }
}

/// Loads and stores of one register.
fn single(first: u32, second: u32) -> Instruction {
    let (load, register, base) = (first & 0x10 != 0, second >> 12, first & 15);
    if load && register == PC {
        // Loads of bytes and halfwords to PC are hints.
        let word = first & 0x60 == 0x40;
        return Instruction::new(if word { Class::LoadBranch(1) } else { Class::Data });
    }
    let long_offset = first & 0x80 != 0 || base == PC;
    let indexed = !long_offset && second & 0x0800 == 0;
    let mut found = Instruction::transfer(load, indexed, register);
    if base != PC {
        found = found.at(base);
    }
    if indexed {
        found = found.at(second & 15);
    } else if !long_offset && second & 0x0100 != 0 {
        found = found.writing(base);
    }
    found
}

/// Multiplication and division.
fn multiply(first: u32, second: u32) -> Instruction {
    let (high, low) = (second >> 8 & 15, second >> 12);
    let operation = first >> 4 & 15;
    match operation {
        0 if second & 0xF0F0 == 0xF000 => Instruction::new(Class::Multiply).writing(high),
        0..=7 => Instruction::new(Class::MultiplyAccumulate).writing(high),
        9 | 11 => Instruction::new(Class::Divide).writing(high),
        8 | 10 => Instruction::new(Class::MultiplyLong).writing(high).writing(low),
        _ => Instruction::new(Class::MultiplyAccumulateLong).writing(high).writing(low),
    }
}

/// Floating point and MVE.
fn coprocessor(first: u32, second: u32) -> Class {
    let unit = second >> 8 & 15;
    let load = first & 0x10 != 0;
    match first >> 8 {
        0xEF | 0xFF => Class::Vector(element_pipe(first, second)),
        0xEE | 0xFE if unit >= 14 => Class::Vector(lane_pipe(first, second)),
        // VDUP.
        0xEE if unit == 11 && first & 0xA0 == 0xA0 && second & 0x10 != 0 => Class::Vector(Pipe::Integer),
        0xEE if second & 0x10 != 0 => Class::Float,
        0xEE => match first & 0xB0 {
            0x00 | 0x10 | 0x90 | 0xA0 => Class::FloatMultiplyAccumulate,
            0x80 => Class::FloatDivide,
            0xB0 if first & 15 == 1 && second & 0xC0 == 0xC0 => Class::FloatDivide,
            _ => Class::Float,
        },
        0xFE => Class::Float,
        _ if unit < 9 => Class::Vector(Pipe::Multiply),
        _ if unit >= 14 && first & 0xFFA0 == 0xEC00 => {
            Class::Vector(if load { Pipe::Either } else { Pipe::Multiply })
        }
        // System registers of the unit.
        _ if second & 0x1F80 == 0x0F80 => Class::Data,
        _ if unit >= 14 => Class::Vector(Pipe::Memory),
        _ if first & 0xFFE0 == 0xEC40 => Class::FloatPair,
        _ => {
            let one = if unit == 11 { 2 } else { 1 };
            let words = if first & 0x0120 == 0x0100 { one } else { second & 0xFF };
            if load { Class::FloatLoad(words) } else { Class::FloatStore(words) }
        }
    }
}

/// MVE with prefix 0xEF or 0xFF: two vectors, shifts and moves by constants.
fn element_pipe(first: u32, second: u32) -> Pipe {
    let operation = second >> 8 & 15;
    let product = match (first & 0x80 != 0, operation) {
        (false, 9) => second & 0x10 != 0,
        (false, 11..) => true,
        (false, _) => false,
        // A constant: VMOV, unless an odd operation below 12 (VORR, VBIC) or inverted (VMVN).
        (true, _) if first & 0x38 == 0 && second & 0x90 == 0x10 => {
            let logic = operation < 12 && operation & 1 != 0;
            !logic && (second & 0x20 == 0 || operation == 14)
        }
        (true, 12..) => true,
        // Signs, rounding, conversion of floating point.
        (true, _) if second & 0x10 == 0 => match first & 0x33 {
            0x31 => operation == 7,
            0x32 => second & 0x0C00 == 0x0400,
            0x33 => true,
            _ => false,
        },
        (true, _) => false,
    };
    if product { Pipe::Multiply } else { Pipe::Integer }
}

/// MVE with prefix 0xEE or 0xFE: products, sums, comparisons, predicates, narrowing, a vector and a general register.
fn lane_pipe(first: u32, second: u32) -> Pipe {
    let (reducing, widest, odd) = (first & 0x80 != 0, first & 0x30 == 0x30, first & 1 != 0);
    let (form, last) = (second >> 4 & 7, second & 1 != 0);
    let (vectors, unsigned, top) = (form & 0b101 == 0, first & 0x1000 != 0, second & 0x1000 != 0);
    let integer = if second & 0x0100 == 0 {
        let shift_or_narrow = widest && odd && vectors;
        let by_register = odd && top && form == 0b110 && (widest || unsigned);
        !reducing && (shift_or_narrow || by_register)
    } else if reducing {
        let extreme = first & 0xF0 == 0xE0;
        let difference = first & 0xC0 == 0x80 && last;
        form & 0b100 != 0 || extreme || difference
    } else if odd {
        if first & 0xFFBF == 0xFE31 && second & 0x1FFF == 0x0F4D {
            return Pipe::Control;
        }
        let select = unsigned && widest && vectors && !top && last;
        select || (!unsigned && !vectors)
    } else {
        let doubling = widest && (if vectors { last } else { form == 0b110 });
        let float = widest && form == 0b100;
        !(doubling || float)
    };
    if integer { Pipe::Integer } else { Pipe::Multiply }
}

#[cfg(test)]
mod tests {
    use super::Class::*;
    use super::{Class, Pipe, decode};

    /// Encodings, their kind, and what an assembler makes them from (`llvm-mc`).
    #[rustfmt::skip]
    const ENCODINGS: &[(&[u16], Class, &str)] = &[
        (&[0x1888], Data, "adds r0, r1, r2"),
        (&[0x2B01], Data, "cmp r3, #1"),
        (&[0x4351], Multiply, "muls r1, r2, r1"),
        (&[0x46F7], Branch, "mov pc, lr"),
        (&[0x4770], Branch, "bx lr"),
        (&[0x4798], Branch, "blx r3"),
        (&[0x4902], Load, "ldr r1, [pc, #8]"),
        (&[0x5688], Load, "ldrsb r0, [r1, r2]"),
        (&[0x5088], Store { indexed: true }, "str r0, [r1, r2]"),
        (&[0x70C8], Store { indexed: false }, "strb r0, [r1, #3]"),
        (&[0x9A02], Load, "ldr r2, [sp, #8]"),
        (&[0xB002], Data, "add sp, #8"),
        (&[0xB120], Branch, "cbz r0, #8"),
        (&[0xB248], Data, "sxtb r0, r1"),
        (&[0xB530], StoreMany(3), "push {r4, r5, lr}"),
        (&[0xBC30], LoadMany(2), "pop {r4, r5}"),
        (&[0xBD30], LoadBranch(3), "pop {r4, r5, pc}"),
        (&[0xBF08], Data, "it eq"),
        (&[0xC80E], LoadMany(3), "ldm r0!, {r1, r2, r3}"),
        (&[0xC006], StoreMany(2), "stm r0!, {r1, r2}"),
        (&[0xD004], Branch, "beq #8"),
        (&[0xE004], Branch, "b #8"),
        (&[0xF000, 0xF804], Call, "bl #8"),
        (&[0xF000, 0xB9F4], Branch, "b.w #1000"),
        (&[0xF040, 0x81F4], Branch, "bne.w #1000"),
        (&[0xE898, 0x0207], LoadMany(4), "ldm.w r8, {r0, r1, r2, r9}"),
        (&[0xE8BD, 0x8110], LoadBranch(3), "pop.w {r4, r8, pc}"),
        (&[0xE92D, 0x4070], StoreMany(4), "stmdb sp!, {r4, r5, r6, lr}"),
        (&[0xE9D2, 0x0102], LoadMany(2), "ldrd r0, r1, [r2, #8]"),
        (&[0xE8E2, 0x0102], StoreMany(2), "strd r0, r1, [r2], #8"),
        (&[0xE8DF, 0xF000], TableBranch, "tbb [pc, r0]"),
        (&[0xE8DF, 0xF010], TableBranch, "tbh [pc, r0, lsl #1]"),
        (&[0xE851, 0x0F00], Load, "ldrex r0, [r1]"),
        (&[0xEB01, 0x00C2], Data, "add.w r0, r1, r2, lsl #3"),
        (&[0xF240, 0x40D2], Data, "movw r0, #1234"),
        (&[0xF301, 0x0007], Data, "ssat r0, #8, r1"),
        (&[0xFA2F, 0xF091], Data, "sxtb16 r0, r1, ror #8"),
        (&[0xEAC1, 0x4002], Data, "pkhbt r0, r1, r2, lsl #16"),
        (&[0xF8D1, 0x0064], Load, "ldr.w r0, [r1, #100]"),
        (&[0xF851, 0x0B04], Load, "ldr r0, [r1], #4"),
        (&[0xF851, 0x0022], Load, "ldr.w r0, [r1, r2, lsl #2]"),
        (&[0xF841, 0x0022], Store { indexed: true }, "str.w r0, [r1, r2, lsl #2]"),
        (&[0xF801, 0x0B01], Store { indexed: false }, "strb r0, [r1], #1"),
        (&[0xF8D0, 0xF000], LoadBranch(1), "ldr pc, [r0]"),
        (&[0xF890, 0xF000], Data, "pld [r0]"),
        (&[0xFB09, 0xF80A], Multiply, "mul r8, r9, r10"),
        (&[0xFB01, 0x3002], MultiplyAccumulate, "mla r0, r1, r2, r3"),
        (&[0xFB01, 0x3012], MultiplyAccumulate, "mls r0, r1, r2, r3"),
        (&[0xFB21, 0x3002], MultiplyAccumulate, "smlad r0, r1, r2, r3"),
        (&[0xFB51, 0x3012], MultiplyAccumulate, "smmlar r0, r1, r2, r3"),
        (&[0xFB21, 0xF002], MultiplyAccumulate, "smuad r0, r1, r2"),
        (&[0xFB11, 0x3002], MultiplyAccumulate, "smlabb r0, r1, r2, r3"),
        (&[0xFB82, 0x0103], MultiplyLong, "smull r0, r1, r2, r3"),
        (&[0xFBA2, 0x0103], MultiplyLong, "umull r0, r1, r2, r3"),
        (&[0xFBC2, 0x0103], MultiplyAccumulateLong, "smlal r0, r1, r2, r3"),
        (&[0xFBC2, 0x01C3], MultiplyAccumulateLong, "smlald r0, r1, r2, r3"),
        (&[0xFBE2, 0x0163], MultiplyAccumulateLong, "umaal r0, r1, r2, r3"),
        (&[0xFB91, 0xF0F2], Divide, "sdiv r0, r1, r2"),
        (&[0xFBB1, 0xF0F2], Divide, "udiv r0, r1, r2"),
        (&[0xF3BF, 0x8F4F], Barrier, "dsb sy"),
        (&[0xF3EF, 0x8010], SystemRegister, "mrs r0, primask"),
        (&[0xF3AF, 0x8000], Data, "nop.w"),
        (&[0xEE30, 0x0A81], Float, "vadd.f32 s0, s1, s2"),
        (&[0xEE20, 0x0A81], Float, "vmul.f32 s0, s1, s2"),
        (&[0xEE00, 0x0A81], FloatMultiplyAccumulate, "vmla.f32 s0, s1, s2"),
        (&[0xEEA0, 0x0A81], FloatMultiplyAccumulate, "vfma.f32 s0, s1, s2"),
        (&[0xEE80, 0x0A81], FloatDivide, "vdiv.f32 s0, s1, s2"),
        (&[0xEEB1, 0x0AE0], FloatDivide, "vsqrt.f32 s0, s1"),
        (&[0xEE00, 0x0A10], Float, "vmov s0, r0"),
        (&[0xEC51, 0x0B10], FloatPair, "vmov r0, r1, d0"),
        (&[0xEEBD, 0x0AE0], Float, "vcvt.s32.f32 s0, s1"),
        (&[0xEEF1, 0xFA10], Float, "vmrs apsr_nzcv, fpscr"),
        (&[0xED90, 0x0A01], FloatLoad(1), "vldr s0, [r0, #4]"),
        (&[0xED90, 0x0B01], FloatLoad(2), "vldr d0, [r0, #4]"),
        (&[0xED2D, 0x8B04], FloatStore(4), "vpush {d8, d9}"),
        (&[0xECB0, 0x0A03], FloatLoad(3), "vldmia r0!, {s0, s1, s2}"),
        (&[0xF041, 0xE001], LoopStart, "dls lr, r1"),
        (&[0xF001, 0xE001], LoopStart, "dlstp.8 lr, r1"),
        (&[0xF00F, 0xC005], LoopEnd, "le lr, #-8"),
        (&[0xF01F, 0xC005], LoopEnd, "letp lr, #-8"),
        (&[0xF000, 0xE801], Vector(Pipe::Control), "vctp.8 r0"),
        (&[0xECB0, 0x1E10], Vector(Pipe::Memory), "vldrb.u8 q0, [r0], #16"),
        (&[0xED90, 0x0E88], Vector(Pipe::Memory), "vldrb.s16 q0, [r0, #8]"),
        (&[0xFC90, 0x0F43], Vector(Pipe::Memory), "vldrw.u32 q0, [r0, q1, uxtw #2]"),
        (&[0xFD92, 0x1E01], Vector(Pipe::Memory), "vldrw.u32 q0, [q1, #4]"),
        (&[0xED81, 0x1E00], Vector(Pipe::Memory), "vstrb.8 q0, [r1]"),
        (&[0xED98, 0x0F02], Vector(Pipe::Memory), "vldrh.s32 q0, [r0, #4]"),
        (&[0xEDC0, 0x8F80], Data, "vstr vpr, [r0]"),
        (&[0xEC81, 0x0F04], Vector(Pipe::Memory), "vstrb.32 q0, [r1, q2]"),
        (&[0xFC90, 0x1E00], Vector(Pipe::Memory), "vld20.8 {q0, q1}, [r0]"),
        (&[0xFCA0, 0x1E61], Vector(Pipe::Memory), "vst43.8 {q0, q1, q2, q3}, [r0]!"),
        (&[0xEEF0, 0x0F22], Vector(Pipe::Multiply), "vmladava.s8 r0, q0, q1"),
        (&[0xEEF0, 0x0E02], Vector(Pipe::Multiply), "vmladav.s16 r0, q0, q1"),
        (&[0xFEF0, 0x0F22], Vector(Pipe::Multiply), "vmladava.u8 r0, q0, q1"),
        (&[0xEE80, 0x0E22], Vector(Pipe::Multiply), "vmlaldava.s16 r0, r1, q0, q1"),
        (&[0xEE80, 0x0F02], Vector(Pipe::Multiply), "vrmlaldavh.s32 r0, r1, q0, q1"),
        (&[0xEEF9, 0x0F00], Vector(Pipe::Multiply), "vaddv.s32 r0, q0"),
        (&[0xEEF1, 0x0F20], Vector(Pipe::Multiply), "vaddva.s8 r0, q0"),
        (&[0xEE89, 0x0F00], Vector(Pipe::Multiply), "vaddlv.s32 r0, r1, q0"),
        (&[0xEF22, 0x0954], Vector(Pipe::Multiply), "vmul.i32 q0, q1, q2"),
        (&[0xEE13, 0x1E62], Vector(Pipe::Multiply), "vmul.i16 q0, q1, r2"),
        (&[0xEE23, 0x0E42], Vector(Pipe::Multiply), "vmla.s32 q0, q1, r2"),
        (&[0xEE23, 0x1E42], Vector(Pipe::Multiply), "vmlas.s32 q0, q1, r2"),
        (&[0xEF22, 0x0B44], Vector(Pipe::Multiply), "vqdmulh.s32 q0, q1, q2"),
        (&[0xFF22, 0x0B44], Vector(Pipe::Multiply), "vqrdmulh.s32 q0, q1, q2"),
        (&[0xFE23, 0x0E62], Vector(Pipe::Multiply), "vqrdmulh.s32 q0, q1, r2"),
        (&[0xEE03, 0x0E05], Vector(Pipe::Multiply), "vmulh.s8 q0, q1, q2"),
        (&[0xEE03, 0x0E04], Vector(Pipe::Multiply), "vmullb.s8 q0, q1, q2"),
        (&[0xEE12, 0x0E04], Vector(Pipe::Multiply), "vqdmladh.s16 q0, q1, q2"),
        (&[0xEE32, 0x0F05], Vector(Pipe::Multiply), "vqdmullb.s16 q0, q1, q2"),
        (&[0xFE21, 0x1F03], Vector(Pipe::Multiply), "vcmp.s32 gt, q0, q1"),
        (&[0xFE21, 0x0F41], Vector(Pipe::Multiply), "vcmp.i32 eq, q0, r1"),
        (&[0xFE21, 0x1FCF], Vector(Pipe::Multiply), "vcmp.s32 lt, q0, zr"),
        (&[0xFE21, 0x0F83], Vector(Pipe::Multiply), "vcmp.u32 hi, q0, q1"),
        (&[0xEF80, 0x0050], Vector(Pipe::Multiply), "vmov.i32 q0, #0"),
        (&[0xEF02, 0x0D44], Vector(Pipe::Multiply), "vadd.f32 q0, q1, q2"),
        (&[0xEF02, 0x0C54], Vector(Pipe::Multiply), "vfma.f32 q0, q1, q2"),
        (&[0xEC01, 0x0F00], Vector(Pipe::Multiply), "vmov r0, r1, q0[2], q0[0]"),
        (&[0xEC11, 0x0F00], Vector(Pipe::Either), "vmov q0[2], q0[0], r0, r1"),
        (&[0xEF22, 0x0844], Vector(Pipe::Integer), "vadd.i32 q0, q1, q2"),
        (&[0xEE23, 0x0F42], Vector(Pipe::Integer), "vadd.i32 q0, q1, r2"),
        (&[0xEE23, 0x1F42], Vector(Pipe::Integer), "vsub.i32 q0, q1, r2"),
        (&[0xEF02, 0x0054], Vector(Pipe::Integer), "vqadd.s8 q0, q1, q2"),
        (&[0xEE02, 0x0F62], Vector(Pipe::Integer), "vqadd.s8 q0, q1, r2"),
        (&[0xEE02, 0x0F42], Vector(Pipe::Integer), "vhadd.s8 q0, q1, r2"),
        (&[0xEF02, 0x0144], Vector(Pipe::Integer), "vrhadd.s8 q0, q1, q2"),
        (&[0xEF02, 0x0644], Vector(Pipe::Integer), "vmax.s8 q0, q1, q2"),
        (&[0xEEE2, 0x0F02], Vector(Pipe::Integer), "vmaxv.s8 r0, q1"),
        (&[0xEEEA, 0x0F82], Vector(Pipe::Integer), "vminv.s32 r0, q1"),
        (&[0xEE82, 0x0F05], Vector(Pipe::Integer), "vabav.s8 r0, q1, q2"),
        (&[0xFFB1, 0x0342], Vector(Pipe::Integer), "vabs.s8 q0, q1"),
        (&[0xEE33, 0x0E83], Vector(Pipe::Integer), "vmaxa.s8 q0, q1"),
        (&[0xEF24, 0x0442], Vector(Pipe::Integer), "vshl.s32 q0, q1, q2"),
        (&[0xEF24, 0x0542], Vector(Pipe::Integer), "vrshl.s32 q0, q1, q2"),
        (&[0xEE3B, 0x1E61], Vector(Pipe::Integer), "vrshl.s32 q0, r1"),
        (&[0xFE39, 0x1E61], Vector(Pipe::Integer), "vshl.u32 q0, r1"),
        (&[0xEFBD, 0x0052], Vector(Pipe::Integer), "vshr.s32 q0, q1, #3"),
        (&[0xEFA3, 0x0552], Vector(Pipe::Integer), "vshl.i32 q0, q1, #3"),
        (&[0xEE9D, 0x0F42], Vector(Pipe::Integer), "vqshrnb.s32 q0, q1, #3"),
        (&[0xFE8D, 0x1FC3], Vector(Pipe::Integer), "vrshrnt.i16 q0, q1, #3"),
        (&[0xEEA3, 0x0FC1], Vector(Pipe::Integer), "vshlc q0, r1, #3"),
        (&[0xEEA8, 0x0F42], Vector(Pipe::Integer), "vmovlb.s8 q0, q1"),
        (&[0xFE35, 0x0E83], Vector(Pipe::Integer), "vmovnb.i32 q0, q1"),
        (&[0xEE33, 0x1E03], Vector(Pipe::Integer), "vqmovnt.s16 q0, q1"),
        (&[0xEE31, 0x0E83], Vector(Pipe::Integer), "vqmovunb.s16 q0, q1"),
        (&[0xEF22, 0x0154], Vector(Pipe::Integer), "vorr q0, q1, q2"),
        (&[0xEF80, 0x0151], Vector(Pipe::Integer), "vorr.i32 q0, #1"),
        (&[0xEF80, 0x0071], Vector(Pipe::Integer), "vmvn.i32 q0, #1"),
        (&[0xFF02, 0x0154], Vector(Pipe::Integer), "veor q0, q1, q2"),
        (&[0xFFB0, 0x00C2], Vector(Pipe::Integer), "vrev32.8 q0, q1"),
        (&[0xEEE0, 0x1B10], Vector(Pipe::Integer), "vdup.8 q0, r1"),
        (&[0xEE03, 0x0F6E], Vector(Pipe::Integer), "vidup.u8 q0, r2, #1"),
        (&[0xEE03, 0x0F62], Vector(Pipe::Integer), "viwdup.u8 q0, r2, r3, #1"),
        (&[0xEE32, 0x0F04], Vector(Pipe::Integer), "vadc.i32 q0, q1, q2"),
        (&[0xFE22, 0x0F04], Vector(Pipe::Integer), "vcadd.i32 q0, q1, q2, #90"),
        (&[0xFE03, 0x1E62], Vector(Pipe::Integer), "vbrsr.8 q0, q1, r2"),
        (&[0xFE33, 0x0F05], Vector(Pipe::Integer), "vpsel q0, q1, q2"),
        (&[0xFE31, 0x0F4D], Vector(Pipe::Control), "vpnot"),
    ];

    #[test]
    fn encodings_are_classified() {
        for (halfwords, class, text) in ENCODINGS {
            let found = decode(halfwords).map(|instruction| (instruction.class, instruction.bytes as usize));
            assert_eq!(found, Some((*class, 2 * halfwords.len())), "{text}");
        }
    }

    #[test]
    fn half_an_instruction_is_none() {
        assert_eq!(decode(&[]), None);
        assert_eq!(decode(&[0xF04F]), None);
    }

    #[test]
    fn registers_are_those_of_the_text() {
        let registers = |halfwords: &[u16]| {
            let found = decode(halfwords).unwrap();
            (found.writes, found.address)
        };
        assert_eq!(registers(&[0x1888]), (1 << 0, 0), "adds r0, r1, r2");
        assert_eq!(registers(&[0x5688]), (1 << 0, 1 << 1 | 1 << 2), "ldrsb r0, [r1, r2]");
        assert_eq!(registers(&[0x9A02]), (1 << 2, 1 << 13), "ldr r2, [sp, #8]");
        assert_eq!(registers(&[0xF851, 0x0B04]), (1 << 0 | 1 << 1, 1 << 1), "ldr r0, [r1], #4");
        assert_eq!(registers(&[0xF851, 0x0022]), (1 << 0, 1 << 1 | 1 << 2), "ldr.w r0, [r1, r2, lsl #2]");
        assert_eq!(registers(&[0xFB81, 0x0203]), (1 << 0 | 1 << 2, 0), "smull r0, r2, r1, r3");
    }
}
