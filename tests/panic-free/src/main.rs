//! Everything that a device does with a blob, with all operators, and a panic handler that cannot link: a panic that the optimiser
//! could not exclude is a link error that names `a_panic_is_reachable`.
#![no_std]
#![no_main]

use core::hint::black_box;
use tucano::backend::Scalar;
use tucano::{AllOps, Arena, Error, Model, Observer, Session, Step};

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    unsafe extern "C" {
        fn a_panic_is_reachable() -> !;
    }
    // SAFETY: there is no such function, which is the point: this must not link.
    unsafe { a_panic_is_reachable() }
}

// On hosts `memcpy` and its like are the C library's.
#[cfg(not(target_os = "none"))]
#[link(name = "c")]
unsafe extern "C" {}

/// The hosts' `core` is built to unwind and names this; nothing here does.
#[cfg(not(target_os = "none"))]
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

struct Times(u32);

impl Observer for Times {
    fn before(&mut self, step: &Step<'_>) {
        self.0 = self.0.wrapping_add(u32::from(step.op()));
    }

    fn after(&mut self, _: &Step<'_>, output: &[u8]) {
        self.0 = self.0.wrapping_add(output.iter().map(|&byte| u32::from(byte)).fold(0, u32::wrapping_add));
    }
}

fn use_all(blob: &[u8], arena: &mut [u8], state: &mut [u8]) -> Result<u32, Error> {
    let needs = tucano::blob::requirements(blob)?;
    let mut seen = needs.operations().fold(0, |sum: u32, op| sum.wrapping_add(u32::from(op)));
    let model = Model::<AllOps>::load_known(blob, &Model::<AllOps>::load(blob)?.blob().fingerprint())?;
    model.blob().verify_weights()?;
    let session = Session::new(&model, Scalar);
    #[cfg(feature = "control")]
    black_box(arena[model.arena_bytes()]);
    session.input_mut(arena, 0)?.fill(1);
    session.input_i8_mut(arena, 0)?.fill(1);
    session.input_f32_mut(arena, 0)?.fill(1.0);
    session.run(arena, state)?;
    let mut times = Times(0);
    session.run_observed(arena, state, &mut times)?;
    let mut cursor = session.start();
    while session.step(&mut cursor, arena, state)? {}
    seen = seen.wrapping_add(times.0);
    seen = seen.wrapping_add(session.output(arena, 0)?.len() as u32);
    seen = seen.wrapping_add(session.output_i8(arena, 0)?.len() as u32);
    Ok(seen.wrapping_add(session.output_f32(arena, 0)?.len() as u32))
}

/// The entry that C start-up code calls, and the linker keeps.
#[unsafe(no_mangle)]
pub extern "C" fn main() -> i32 {
    let (blob, mut arena, mut state) = (Arena::<1024>::new(), Arena::<1024>::new(), Arena::<1024>::new());
    match use_all(black_box(&blob), black_box(&mut arena), black_box(&mut state)) {
        Ok(seen) => black_box(seen).cast_signed(),
        Err(error) => black_box(error).value.cast_signed(),
    }
}
