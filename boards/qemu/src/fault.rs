//! The fault report: which exception, where, and the fault registers; then the emulator ends with exit code 3.

use crate::{say, semihosting};

/// Exit code after a fault.
pub const EXIT: u32 = 3;

/// Reports and ends. `frame` is what the core pushed: r0-r3, r12, lr, pc, xpsr.
///
/// # Safety
/// Only an exception handler calls it, with the stack pointer as it found it.
pub unsafe extern "C" fn report(frame: *const u32) -> ! {
    // SAFETY: system control registers, readable on every core; ARMv6-M reads the fault status as zero.
    let [control, configurable, hard, memory_address, bus_address] =
        [0xE000_ED04, 0xE000_ED28, 0xE000_ED2C, 0xE000_ED34, 0xE000_ED38]
            .map(|register: usize| unsafe { (register as *const u32).read_volatile() });
    // The frame may itself lie outside RAM (a stack overflow): then reading it locks up the core, which the host sees as a time-out.
    say!(
        "fault exception={} cfsr={configurable:#010x} hfsr={hard:#010x} mmfar={memory_address:#010x} bfar={bus_address:#010x} sp={:#010x}",
        control & 0x1FF,
        frame as u32,
    );
    // SAFETY: the core pushed eight words there.
    let [lr, pc] = [5, 6].map(|word| unsafe { frame.add(word).read_volatile() });
    say!("fault pc={pc:#010x} lr={lr:#010x}");
    semihosting::exit(EXIT)
}

/// A handler of faults that lets probes of [`edge`](crate::edge) go on, and passes the faulting code's stack of any other to [`report`].
///
/// # Safety
/// Only the core calls it.
#[unsafe(naked)]
pub unsafe extern "C" fn handler() {
    core::arch::naked_asm!(
        "mov r0, sp",
        // Two words keep the stack aligned to eight bytes.
        "push {{r4, lr}}",
        "bl {resume}",
        "pop {{r4}}",
        "pop {{r1}}",
        "cmp r0, #0",
        "beq 1f",
        "bx r1",
        "1:",
        "mov r0, sp",
        "bl {report}",
        "udf #0",
        resume = sym crate::edge::resume,
        report = sym report,
    )
}

/// What start-up and the compiler ask of a program with a console: where faults go, what a wrapped counter does, how a panic ends. `reported`: a fault
/// ends the program; `probed`: [`handler`] takes it.
#[macro_export]
macro_rules! ends {
    (reported) => {
        /// Passes the faulting code's stack on, before anything else is pushed there.
        #[unsafe(naked)]
        #[unsafe(no_mangle)]
        unsafe extern "C" fn fault() {
            core::arch::naked_asm!("mov r0, sp", "bl {report}", "udf #0", report = sym $crate::fault::report)
        }
        $crate::ends!();
    };
    (probed) => {
        #[unsafe(naked)]
        #[unsafe(no_mangle)]
        unsafe extern "C" fn fault() {
            core::arch::naked_asm!("ldr r0, ={handler}", "bx r0", handler = sym $crate::fault::handler)
        }
        $crate::ends!();
    };
    () => {
        #[unsafe(no_mangle)]
        extern "C" fn tick() {
            $crate::counter::wrapped();
        }

        #[panic_handler]
        fn panic(info: &core::panic::PanicInfo) -> ! {
            $crate::say!("panic {info}");
            $crate::semihosting::exit(4)
        }
    };
}
