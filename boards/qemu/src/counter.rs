//! Executed instructions, read from the system timer. Under `-icount shift=0` the emulator advances time by 1 ns an instruction, so a
//! tick is a fixed number of instructions, which the table of boards states and [`calibrate`] proves.

use core::sync::atomic::{AtomicU32, Ordering};

const CONTROL: *mut u32 = 0xE000_E010 as *mut u32;
const RELOAD: *mut u32 = 0xE000_E014 as *mut u32;
const CURRENT: *mut u32 = 0xE000_E018 as *mut u32;
const PERIOD: u32 = 1 << 24;

static WRAPS: AtomicU32 = AtomicU32::new(0);

/// Starts the timer at the core's clock, with an interrupt at each wrap.
pub fn start() {
    // SAFETY: the system timer's registers, at these addresses on every Cortex-M; nothing else uses them.
    unsafe {
        RELOAD.write_volatile(PERIOD - 1);
        CURRENT.write_volatile(0);
        CONTROL.write_volatile(0b111);
    }
}

/// The timer's interrupt, called by the program's `tick`.
pub fn wrapped() {
    // One writer: a load and a store are enough, and ARMv6-M has nothing else.
    WRAPS.store(WRAPS.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
}

/// Ticks since [`start`].
pub fn ticks() -> u64 {
    loop {
        let wraps = WRAPS.load(Ordering::Relaxed);
        // SAFETY: as in `start`.
        let current = unsafe { CURRENT.read_volatile() };
        if WRAPS.load(Ordering::Relaxed) == wraps {
            return u64::from(wraps) * u64::from(PERIOD) + u64::from((PERIOD - current) % PERIOD);
        }
    }
}

/// Instructions that [`calibrate`] executes.
pub const CALIBRATION: u32 = 2_000_000;

/// Ticks that a loop of [`CALIBRATION`] instructions takes.
pub fn calibrate() -> u64 {
    let before = ticks();
    // SAFETY: registers and flags only. Two instructions a trip.
    unsafe {
        core::arch::asm!("2:", "subs {trips}, #1", "bne 2b", trips = inout(reg) CALIBRATION / 2 => _, options(nomem, nostack));
    }
    ticks() - before
}
