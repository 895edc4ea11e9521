//! The memory behind the linker's symbols: the model, the free RAM under the stack, and a gauge of how deep the stack got.

unsafe extern "C" {
    static _blob: u8;
    static mut _free_start: u8;
    static _stack_least: u8;
    static _stack_top: u8;
}

/// What an untouched word of the stack holds.
const PAINT: u32 = 0xA5C3_3C5A;

/// The model's bytes. The header, which must lie in memory, states how many there are.
pub fn blob(bytes: usize) -> &'static [u8] {
    // SAFETY: the emulator's loader (or the flasher) put that many bytes there before reset, and nobody writes them. The host
    // checks that they end before the memory does.
    unsafe { core::slice::from_raw_parts(&raw const _blob, bytes) }
}

/// The stack pointer.
#[inline(always)]
fn stack_pointer() -> usize {
    let here: usize;
    // SAFETY: reads a register.
    unsafe { core::arch::asm!("mov {}, sp", out(reg) here, options(nomem, nostack, preserves_flags)) };
    here
}

/// All RAM between the statics and the least stack. To be called once: the program's `main` does, first of all.
///
/// # Safety
/// A second call would hand out the same memory again.
pub unsafe fn free() -> &'static mut [u8] {
    let start = &raw mut _free_start;
    let end = stack_pointer() - (&raw const _stack_least) as usize;
    // SAFETY: the linker script puts nothing between its `_free_start` and the stack, and the caller asks once.
    unsafe { core::slice::from_raw_parts_mut(start, end.saturating_sub(start as usize)) }
}

/// All RAM behind the statics, to its last byte: for a program whose stack is a static. To be called once, first of all.
///
/// # Safety
/// The stack pointer has left the end of RAM, and a second call would hand out the same memory again.
pub unsafe fn all() -> &'static mut [u8] {
    let start = &raw mut _free_start;
    let end = &raw const _stack_top as usize;
    // SAFETY: the linker script puts nothing between its `_free_start` and the end of RAM, the stack lies elsewhere, and the caller asks once.
    unsafe { core::slice::from_raw_parts_mut(start, end.saturating_sub(start as usize)) }
}

/// Measures the stack below the point where it was painted.
pub struct StackGauge {
    bottom: *mut u32,
    top: *mut u32,
}

impl StackGauge {
    /// Paints the stack up to just under the caller's frame: `depth` bytes, but not below `bottom`, the end of what else is in use.
    #[inline(never)]
    pub fn paint(bottom: usize, depth: usize) -> Self {
        let top = stack_pointer() - 16;
        let bottom = bottom.max(top.saturating_sub(depth)).next_multiple_of(4);
        let gauge = Self { bottom: bottom as *mut u32, top: top as *mut u32 };
        let mut word = gauge.bottom;
        while word < gauge.top {
            // SAFETY: RAM under the stack pointer, which nothing uses; an interrupt may, and then paints over what was read.
            unsafe {
                word.write_volatile(PAINT);
                word = word.add(1);
            }
        }
        gauge
    }

    /// Bytes that were in use at the deepest point, below the painted top; `None` when it reached the bottom: the stack overflowed.
    #[inline(never)]
    pub fn deepest(&self) -> Option<usize> {
        let mut word = self.bottom;
        // SAFETY: the words that `paint` wrote.
        while word < self.top && unsafe { word.read_volatile() } == PAINT {
            word = word.wrapping_add(1);
        }
        (word != self.bottom).then(|| self.top as usize - word as usize)
    }
}
