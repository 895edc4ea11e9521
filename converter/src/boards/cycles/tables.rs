//! Cycles of each core, and what its pipeline saves or adds between neighbours.
//!
//! All figures are for memory without wait states, instructions and data alike: flash wait states, caches, prefetch and bus contention
//! are not modelled. Where a manual gives a range, the table says what is taken.
//!
//! Cortex-M7 has no table: it issues two instructions a cycle by rules that Arm does not publish as cycles. Neither has Cortex-M33: its
//! manual (Arm 100230) states no cycles of instructions. No figure is better than a guess.

use super::decode::{Class, Instruction, Pipe};

/// Cycles of a core's instructions.
#[derive(Debug)]
pub struct Table {
    /// How the figures come about, in one sentence.
    pub model: &'static str,
    multiply: u32,
    multiply_accumulate: u32,
    multiply_long: u32,
    multiply_accumulate_long: u32,
    divide: u32,
    /// A load of one register that nothing is saved on.
    load: u32,
    store: u32,
    /// A store whose address is the sum of two registers.
    store_indexed: u32,
    /// What transfers of several registers or words take beside a cycle each.
    transfer_start: u32,
    /// What reloading the pipeline adds to any taken branch.
    refill: u32,
    /// What BL adds besides.
    call: u32,
    /// What a load of PC adds besides.
    load_branch: u32,
    barrier: u32,
    system_register: u32,
    float_multiply_accumulate: u32,
    float_divide: u32,
    neighbours: Neighbours,
}

/// What neighbours do to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Neighbours {
    /// Nothing.
    Independent,
    /// A load or store right behind a load of one register saves a cycle. An address that is made from the result of the data processing
    /// right before costs one.
    PipelinedLoads,
    /// Vector instructions occupy their pipe for two cycles; the next one of another pipe starts a cycle later.
    Beats,
}

impl Table {
    /// The table of the core, by its name in the list of boards.
    pub fn of(core: &str) -> Option<&'static Self> {
        match core {
            "Cortex-M0" => Some(&CORTEX_M0),
            "Cortex-M3" => Some(&CORTEX_M3),
            "Cortex-M4F" => Some(&CORTEX_M4),
            "Cortex-M55" => Some(&CORTEX_M55),
            _ => None,
        }
    }
}

/// Arm DDI 0432 (Cortex-M0 Technical Reference Manual), table 3-1: loads and stores 2, of N registers 1 + N, POP with PC 4 + N, a taken
/// branch 3, BL 4, barriers and MRS 4. MULS takes 1 or 32: the fast multiplier is taken.
pub static CORTEX_M0: Table = Table {
    model: "Arm DDI 0432, fast multiplier, no wait states",
    multiply: 1,
    multiply_accumulate: 1,
    multiply_long: 1,
    multiply_accumulate_long: 1,
    divide: 1,
    load: 2,
    store: 2,
    store_indexed: 2,
    transfer_start: 1,
    refill: 2,
    call: 1,
    load_branch: 1,
    barrier: 4,
    system_register: 4,
    float_multiply_accumulate: 1,
    float_divide: 1,
    neighbours: Neighbours::Independent,
};

/// Arm DDI 0337 (Cortex-M3 Technical Reference Manual), tables of instruction timings and of load and store timings: MUL 1, MLA and MLS 2,
/// loads 2, of N registers 1 + N, stores 1 with a constant offset and 2 with an index. Ranges by operands: SMULL and UMULL 3 to 5 (taken: 4),
/// SMLAL and UMLAL 4 to 7 (taken: 6), division 2 to 12 (taken: 7). A taken branch adds 1 to 3 (taken: 2).
pub static CORTEX_M3: Table = Table {
    model: "Arm DDI 0337, pipelined loads, 3 cycles a taken branch, 4 a long product, 6 accumulated, 7 a division, no wait states",
    multiply: 1,
    multiply_accumulate: 2,
    multiply_long: 4,
    multiply_accumulate_long: 6,
    divide: 7,
    load: 2,
    store: 1,
    store_indexed: 2,
    transfer_start: 1,
    refill: 2,
    call: 0,
    load_branch: 0,
    barrier: 1,
    system_register: 2,
    float_multiply_accumulate: 1,
    float_divide: 1,
    neighbours: Neighbours::PipelinedLoads,
};

/// Arm DDI 0439 (Cortex-M4 Technical Reference Manual), tables of the instruction set, of load and store timings and of the floating-point
/// unit; TI SWCU192 repeats them. As Cortex-M3, but all products 1; VMLA and VFMA 3, VDIV and VSQRT 14. Division 2 to 12 (taken: 7). A
/// taken branch adds 1 to 3 (taken: 2).
pub static CORTEX_M4: Table = Table {
    model: "Arm DDI 0439, pipelined loads, 3 cycles a taken branch, 7 a division, no wait states",
    multiply: 1,
    multiply_accumulate: 1,
    multiply_long: 1,
    multiply_accumulate_long: 1,
    divide: 7,
    load: 2,
    store: 1,
    store_indexed: 2,
    transfer_start: 1,
    refill: 2,
    call: 0,
    load_branch: 0,
    barrier: 1,
    system_register: 2,
    float_multiply_accumulate: 3,
    float_divide: 14,
    neighbours: Neighbours::PipelinedLoads,
};

/// An estimate: Arm publishes no table. The pipes and the two cycles of a vector instruction are those of LLVM's scheduling model
/// (`llvm/lib/Target/ARM/ARMScheduleM55.td`): a vector instruction occupies its pipe for two cycles, the next instruction starts one
/// cycle after it unless it wants the same pipe. A taken branch adds LLVM's 3. LE ends a trip for nothing, because the core remembers the
/// loop's end; leaving the loop costs a cycle. Everything else takes a cycle, or one a register. Not modelled: waiting for results, two
/// 16-bit instructions in one cycle, and the time of gathering loads and scattering stores beyond two cycles.
pub static CORTEX_M55: Table = Table {
    model: "estimate after LLVM's ARMScheduleM55: vector instructions 2 cycles, overlapping by 1 with the next of another pipe, \
            4 cycles a taken branch, loop ends free, no waiting for results, no wait states",
    multiply: 1,
    multiply_accumulate: 1,
    multiply_long: 1,
    multiply_accumulate_long: 1,
    divide: 7,
    load: 1,
    store: 1,
    store_indexed: 1,
    transfer_start: 0,
    refill: 3,
    call: 0,
    load_branch: 0,
    barrier: 1,
    system_register: 1,
    float_multiply_accumulate: 1,
    float_divide: 16,
    neighbours: Neighbours::Beats,
};

/// Counts the cycles of instructions in the order of their execution.
#[derive(Debug)]
pub struct Account {
    table: &'static Table,
    cycles: u64,
    instructions: u64,
    /// The instruction before.
    last: Option<Instruction>,
    /// When the pipes for memory, integers and products can start the next vector.
    free: [u64; 3],
}

impl Account {
    /// Nothing executed.
    pub fn new(table: &'static Table) -> Self {
        Self { table, cycles: 0, instructions: 0, last: None, free: [0; 3] }
    }

    /// Cycles so far.
    pub fn cycles(&self) -> u64 {
        // The last vector's second half.
        self.free.iter().fold(self.cycles, |cycles, free| cycles.max(*free))
    }

    /// Instructions so far.
    pub fn instructions(&self) -> u64 {
        self.instructions
    }

    /// An instruction was executed. `taken`: the next one does not stand behind it.
    pub fn execute(&mut self, instruction: Instruction, taken: bool) {
        self.instructions += 1;
        self.cycles += match instruction.class {
            Class::Vector(pipe) => self.vector(pipe),
            class => {
                u64::from(self.cost(class, taken).saturating_sub(self.saved(instruction)))
                    + u64::from(self.stalled(instruction))
            }
        };
        self.last = Some(instruction);
    }

    /// What an instruction takes by itself.
    fn cost(&self, class: Class, taken: bool) -> u32 {
        let table = self.table;
        let refill = if taken { table.refill } else { 0 };
        let many = |count: u32| (table.transfer_start + count).max(1);
        match class {
            Class::Data | Class::Float | Class::LoopStart if !taken => 1,
            Class::Data | Class::Float | Class::LoopStart | Class::Branch => 1 + refill,
            Class::Multiply => table.multiply,
            Class::MultiplyAccumulate => table.multiply_accumulate,
            Class::MultiplyLong => table.multiply_long,
            Class::MultiplyAccumulateLong => table.multiply_accumulate_long,
            Class::Divide => table.divide,
            Class::Load => table.load,
            Class::Store { indexed: false } => table.store,
            Class::Store { indexed: true } => table.store_indexed,
            Class::LoadMany(count) | Class::StoreMany(count) => many(count),
            Class::FloatLoad(count) | Class::FloatStore(count) => many(count),
            Class::LoadBranch(count) => many(count) + if taken { refill + table.load_branch } else { 0 },
            Class::Call => 1 + refill + table.call,
            Class::TableBranch => 2 + refill,
            Class::Barrier => table.barrier,
            Class::SystemRegister => table.system_register,
            Class::LoopEnd => u32::from(!taken),
            Class::FloatPair => 2,
            Class::FloatMultiplyAccumulate => table.float_multiply_accumulate,
            Class::FloatDivide => table.float_divide,
            Class::Vector(_) => 0,
        }
    }

    /// The cycle that a load or an indexed store saves behind a load.
    fn saved(&self, instruction: Instruction) -> u32 {
        let pipelined = matches!(instruction.class, Class::Load | Class::Store { indexed: true });
        match self.last {
            Some(last) if self.table.neighbours == Neighbours::PipelinedLoads && pipelined => {
                u32::from(last.class == Class::Load && last.writes & instruction.address == 0)
            }
            _ => 0,
        }
    }

    /// The cycle that an address waits for the result before.
    fn stalled(&self, instruction: Instruction) -> bool {
        self.table.neighbours == Neighbours::PipelinedLoads
            && self.last.is_some_and(|last| {
                let computes = !matches!(last.class, Class::Load | Class::Store { .. });
                computes && last.writes & instruction.address != 0
            })
    }

    /// Cycles until the next instruction can start.
    fn vector(&mut self, pipe: Pipe) -> u64 {
        let [memory, integer, product] = &mut self.free;
        let free = match pipe {
            Pipe::Control => return 1,
            Pipe::Memory => memory,
            Pipe::Integer => integer,
            Pipe::Multiply => product,
            Pipe::Either if *integer <= *product => integer,
            Pipe::Either => product,
        };
        let start = self.cycles.max(*free);
        *free = start + 2;
        start + 1 - self.cycles
    }
}

#[cfg(test)]
mod tests {
    use super::{Account, CORTEX_M0, CORTEX_M3, CORTEX_M4, CORTEX_M55, Table};
    use crate::boards::cycles::decode::decode;

    /// Cycles of instructions that run one after the other; of the last one the branch is taken.
    fn cycles(table: &'static Table, taken: bool, mut halfwords: &[u16]) -> u64 {
        let mut account = Account::new(table);
        while let Some(instruction) = decode(halfwords) {
            halfwords = &halfwords[instruction.bytes as usize / 2..];
            account.execute(instruction, taken && halfwords.is_empty());
        }
        account.cycles()
    }

    const LDR_R0_R1: u16 = 0x6808;
    const LDR_R2_R3: u16 = 0x681A;
    const LDR_R3_R0: u16 = 0x6803;
    const STR_R0_R1: u16 = 0x6008;
    const STR_R0_R1_R2: u16 = 0x5088;
    const ADDS_R1: u16 = 0x3104;
    const MULS: u16 = 0x4351;
    const BNE: u16 = 0xD1FE;
    const BX_LR: u16 = 0x4770;
    const PUSH_3: u16 = 0xB530;
    const POP_2_PC: u16 = 0xBD30;
    const LDM_3: u16 = 0xC80E;

    #[test]
    fn cortex_m0_is_a_sum() {
        let all = [LDR_R0_R1, LDR_R2_R3, STR_R0_R1_R2, ADDS_R1, MULS, LDM_3];
        assert_eq!(cycles(&CORTEX_M0, false, &all), 2 + 2 + 2 + 1 + 1 + 4);
        assert_eq!(cycles(&CORTEX_M0, false, &[BNE]), 1);
        assert_eq!(cycles(&CORTEX_M0, true, &[BNE]), 3);
        assert_eq!(cycles(&CORTEX_M0, true, &[BX_LR]), 3);
        assert_eq!(cycles(&CORTEX_M0, true, &[0xF000, 0xF800]), 4, "bl");
        assert_eq!(cycles(&CORTEX_M0, true, &[PUSH_3, POP_2_PC]), 4 + 7);
    }

    #[test]
    fn loads_pipeline_on_cortex_m4() {
        assert_eq!(cycles(&CORTEX_M4, false, &[LDR_R0_R1]), 2);
        assert_eq!(cycles(&CORTEX_M4, false, &[LDR_R0_R1, LDR_R2_R3]), 3, "N + 1");
        assert_eq!(cycles(&CORTEX_M4, false, &[LDR_R0_R1, LDR_R3_R0]), 4, "the address is loaded");
        assert_eq!(cycles(&CORTEX_M4, false, &[LDR_R2_R3, STR_R0_R1]), 3);
        assert_eq!(cycles(&CORTEX_M4, false, &[LDR_R0_R1, STR_R0_R1]), 3);
        assert_eq!(
            cycles(&CORTEX_M4, false, &[STR_R0_R1_R2, LDR_R2_R3]),
            4,
            "nothing behind an indexed store"
        );
        assert_eq!(cycles(&CORTEX_M4, false, &[LDM_3, LDR_R2_R3]), 6, "nothing beside several registers");
        assert_eq!(
            cycles(&CORTEX_M4, false, &[ADDS_R1, LDR_R0_R1]),
            4,
            "the address is computed right before"
        );
        assert_eq!(cycles(&CORTEX_M4, false, &[ADDS_R1, LDR_R2_R3]), 3);
        assert_eq!(cycles(&CORTEX_M4, true, &[PUSH_3, POP_2_PC]), 4 + 6);
        assert_eq!(cycles(&CORTEX_M4, true, &[BNE]), 3);
    }

    #[test]
    fn products_by_core() {
        let smlal = [0xFBC2, 0x0103];
        let mla = [0xFB01, 0x3002];
        let udiv = [0xFBB1, 0xF0F2];
        assert_eq!([&CORTEX_M3, &CORTEX_M4].map(|table| cycles(table, false, &smlal)), [6, 1]);
        assert_eq!([&CORTEX_M3, &CORTEX_M4].map(|table| cycles(table, false, &mla)), [2, 1]);
        assert_eq!([&CORTEX_M3, &CORTEX_M4].map(|table| cycles(table, false, &udiv)), [7, 7]);
    }

    #[test]
    fn vectors_overlap_with_other_pipes() {
        const VLDR: [u16; 2] = [0xEC90, 0x1E04];
        const VADD: [u16; 2] = [0xEF22, 0x0844];
        const VMUL: [u16; 2] = [0xEF22, 0x0954];
        const VSTR: [u16; 2] = [0xEC81, 0x1E00];
        let m55 = |codes: &[[u16; 2]]| cycles(&CORTEX_M55, false, codes.as_flattened());
        assert_eq!(m55(&[VLDR]), 2);
        assert_eq!(m55(&[VLDR, VADD, VMUL, VSTR]), 5);
        assert_eq!(m55(&[VLDR, VLDR, VADD, VSTR]), 6);
        assert_eq!(m55(&[VMUL; 4]), 8);
        assert_eq!(m55(&[VLDR, VMUL, VLDR, VMUL]), 5);
        let trip = |taken| {
            let mut account = Account::new(&CORTEX_M55);
            for code in [VLDR, VMUL, [0xF00F, 0xC007]] {
                account.execute(decode(&code).unwrap(), taken);
            }
            account.cycles()
        };
        assert_eq!(trip(true), 3, "a loop's end is free");
    }

    #[test]
    fn cores_without_published_cycles_have_no_table() {
        assert!(Table::of("Cortex-M7").is_none() && Table::of("Cortex-M33").is_none());
        assert!(crate::boards::BOARDS.iter().filter(|board| Table::of(board.core).is_some()).count() >= 5);
    }
}
