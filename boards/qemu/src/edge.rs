//! Ends of memory: where the byte behind the last one faults, so that a kernel that reads or writes behind its operands is found.

use core::ops::Range;

unsafe extern "C" {
    static _flash_start: u8;
    static _flash_length: u8;
    static _flash_end: u8;
}

/// Bytes before an end that tests use.
const BYTES: usize = 96 << 10;
/// From the access of a probe to where it goes on after a fault.
const PROBE: u32 = 6;

/// Memory up to an end.
#[derive(Clone, Copy)]
pub struct Edge {
    start: usize,
    end: usize,
}

/// The ends of RAM and of the code's memory.
pub struct Ends {
    found: [Edge; 2],
    count: usize,
}

impl Ends {
    /// Those whose last byte can be read and written, and the byte behind cannot. `free` reaches to the end of RAM.
    ///
    /// The machines mps2-an385, an386 and an500 answer behind their memories; there the memory protection unit closes what lies behind.
    pub fn find(free: &mut [u8]) -> Self {
        let Range { start, end } = free.as_ptr_range();
        let [flash, flash_bytes, code_end] =
            [&raw const _flash_start, &raw const _flash_length, &raw const _flash_end]
                .map(|symbol| symbol as usize);
        let mut ends = Self { found: [Edge { start: 0, end: 0 }; 2], count: 0 };
        for (region, (start, end)) in
            [(start as usize, end as usize), (code_end, flash + flash_bytes)].into_iter().enumerate()
        {
            let edge = Edge { start: start.max(end.saturating_sub(BYTES)), end };
            if !edge.is_one() {
                edge.close(region as u32);
            }
            if edge.is_one() {
                ends.found[ends.count] = edge;
                ends.count += 1;
            }
        }
        ends
    }

    /// All of them.
    pub fn all(&self) -> &[Edge] {
        &self.found[..self.count]
    }
}

impl Edge {
    fn is_one(&self) -> bool {
        let faults = |at: usize| {
            let at = at as *mut u8;
            // SAFETY: the last byte of memory that nobody uses, or one behind: `resume` goes on after the fault.
            unsafe { [read(at), write(at)] }
        };
        self.end > self.start && faults(self.end - 1) == [0, 0] && faults(self.end) == [1, 1]
    }

    /// Forbids all access to the 64 KiB behind, by a region of an Armv7-M memory protection unit.
    fn close(&self, region: u32) {
        const TYPE: *const u32 = 0xE000_ED90 as *const u32;
        const CONTROL: *mut u32 = 0xE000_ED94 as *mut u32;
        const NUMBER: *mut u32 = 0xE000_ED98 as *mut u32;
        const BASE: *mut u32 = 0xE000_ED9C as *mut u32;
        const ATTRIBUTES: *mut u32 = 0xE000_EDA0 as *mut u32;
        // Size 2^16, no access, nothing executed; elsewhere the default map holds.
        const CLOSED: u32 = 1 << 28 | 15 << 1 | 1;
        const ENABLED: u32 = 1 << 2 | 1;
        // SAFETY: the unit's registers, which read as zero where there is none; nobody uses what lies behind the memory.
        unsafe {
            if TYPE.read_volatile() != 0 {
                NUMBER.write_volatile(region);
                BASE.write_volatile(self.end as u32);
                ATTRIBUTES.write_volatile(CLOSED);
                CONTROL.write_volatile(ENABLED);
                core::arch::asm!("dsb", "isb");
            }
        }
    }

    /// Where the memory ends.
    pub fn end(&self) -> usize {
        self.end
    }

    /// Reads or writes the byte behind, which faults.
    pub fn pass(&self, write: bool) {
        let behind = self.end as *mut u8;
        // SAFETY: there is no memory.
        unsafe {
            if write {
                behind.write_volatile(0);
            } else {
                behind.read_volatile();
            }
        }
    }

    /// The free RAM without what lies before the end, and that.
    pub fn beside<'a>(&self, free: &'a mut [u8]) -> (&'a mut [u8], &'a mut [u8]) {
        if free.as_ptr_range().end as usize == self.end {
            return free.split_at_mut(free.len().saturating_sub(self.end - self.start));
        }
        // SAFETY: memory, as `find` saw, behind the code, where nothing else lies; who holds the free RAM holds it too.
        (free, unsafe { core::slice::from_raw_parts_mut(self.start as *mut u8, self.end - self.start) })
    }
}

/// Reads a byte; 1 if that faults. Three instructions of two bytes, then where it goes on after a fault.
#[unsafe(naked)]
unsafe extern "C" fn read(at: *mut u8) -> u32 {
    core::arch::naked_asm!("ldrb r1, [r0]", "movs r0, #0", "bx lr", "movs r0, #1", "bx lr")
}

/// Writes a byte; 1 if that faults. As [`read`].
#[unsafe(naked)]
unsafe extern "C" fn write(at: *mut u8) -> u32 {
    core::arch::naked_asm!("strb r0, [r0]", "movs r0, #0", "bx lr", "movs r0, #1", "bx lr")
}

/// Lets a probe go on that faulted; false if the fault is none of a probe. `frame` is what the core pushed.
///
/// # Safety
/// Only an exception handler calls it.
pub unsafe extern "C" fn resume(frame: *mut u32) -> bool {
    // SAFETY: the core pushed eight words there; the seventh is the faulting instruction's address.
    unsafe {
        let place = frame.add(6);
        let address = place.read_volatile();
        let probes = [read as *const () as u32, write as *const () as u32];
        if !probes.iter().any(|probe| probe & !1 == address) {
            return false;
        }
        place.write_volatile(address + PROBE);
        // Of a fault that was meant nothing stays in the fault status, whose bits are cleared by writing them.
        let status = 0xE000_ED28 as *mut u32;
        status.write_volatile(status.read_volatile());
    }
    true
}
