//! Vector table and reset: sets up RAM and the floating-point unit, then calls the program's `main`.

use core::arch::naked_asm;

unsafe extern "C" {
    static mut _data_start: u32;
    static mut _data_end: u32;
    static _data_load: u32;
    static mut _bss_start: u32;
    static mut _bss_end: u32;
    fn _stack_top();
    fn main() -> !;
    /// Of the program: every fault and unexpected exception.
    fn fault();
    /// Of the program: the system timer.
    fn tick();
}

/// An entry of the vector table.
#[derive(Clone, Copy)]
#[repr(C)]
pub union Vector {
    handler: unsafe extern "C" fn(),
    none: u32,
}

const FAULT: Vector = Vector { handler: fault };
const NONE: Vector = Vector { none: 0 };

/// The first 16 words of flash; the boards raise no interrupts beyond them.
#[used]
#[unsafe(link_section = ".vectors")]
pub static VECTORS: [Vector; 16] = [
    Vector { handler: _stack_top },
    Vector { handler: reset },
    FAULT,
    FAULT,
    FAULT,
    FAULT,
    FAULT,
    FAULT,
    NONE,
    NONE,
    NONE,
    FAULT,
    FAULT,
    NONE,
    FAULT,
    Vector { handler: tick },
];

/// Entry point. Sets the stack pointer by itself, for loaders that jump to the entry without reading the vector table.
///
/// # Safety
/// Only the core calls it, once, after reset.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn reset() {
    naked_asm!("ldr r0, ={top}", "mov sp, r0", "bl {start}", "udf #0", top = sym _stack_top, start = sym start)
}

/// Enables coprocessors 10 and 11 (floating point and Helium) where there are any, fills `.data` and `.bss`.
unsafe extern "C" fn start() -> ! {
    const COPROCESSOR_ACCESS: *mut u32 = 0xE000_ED88 as *mut u32;
    // SAFETY: runs before any Rust code that reads a static; the linker script states the bounds of both sections, word-aligned.
    // The register exists on every core that this ABI is built for.
    unsafe {
        if cfg!(target_abi = "eabihf") {
            COPROCESSOR_ACCESS.write_volatile(COPROCESSOR_ACCESS.read_volatile() | 0xF << 20);
            core::arch::asm!("dsb", "isb");
        }
        let mut source = &raw const _data_load;
        let mut target = &raw mut _data_start;
        while target < &raw mut _data_end {
            target.write_volatile(source.read_volatile());
            target = target.add(1);
            source = source.add(1);
        }
        target = &raw mut _bss_start;
        while target < &raw mut _bss_end {
            target.write_volatile(0);
            target = target.add(1);
        }
        main()
    }
}
