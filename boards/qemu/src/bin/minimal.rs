//! The runtime, one model's operators and buffers, and nothing else: what code size is measured on. Its panic handler calls a
//! function that does not exist: that this links proves that no panic can be reached.
#![no_std]
#![no_main]

use core::hint::black_box;
use tucano::arena::Arena;
use tucano::{Model, Session};
use tucano_boards_qemu::memory;
use tucano_boards_qemu::program::{ARENA_BYTES, BLOB_BYTES, FINGERPRINT, Ops, STATE_BYTES, backend};

static mut ARENA: Arena<ARENA_BYTES> = Arena([0; ARENA_BYTES]);
static mut STATE: Arena<STATE_BYTES> = Arena([0; STATE_BYTES]);

#[unsafe(no_mangle)]
extern "C" fn main() -> ! {
    let (arena, state) = (&raw mut ARENA, &raw mut STATE);
    // SAFETY: `main` runs once, and nothing else names the two buffers.
    let (arena, state) = unsafe { (&mut *arena, &mut *state) };
    loop {
        let _ = black_box(infer(black_box(&mut arena.0), black_box(&mut state.0)));
    }
}

/// What a product does: load, fill the input, run, read the output.
fn infer(arena: &mut [u8], state: &mut [u8]) -> Option<u8> {
    let blob = memory::blob(BLOB_BYTES);
    let model = match &FINGERPRINT {
        Some(known) => Model::<Ops>::load_known(blob, known),
        None => Model::<Ops>::load(blob),
    };
    let model = model.ok()?;
    let session = Session::new(&model, backend()?);
    session.input_mut(arena, 0).ok()?.fill(black_box(1));
    session.run(arena, state).ok()?;
    black_box(session.output(arena, 0).ok()?).first().copied()
}

#[unsafe(no_mangle)]
extern "C" fn fault() {}

#[unsafe(no_mangle)]
extern "C" fn tick() {}

unsafe extern "C" {
    fn a_panic_is_reachable() -> !;
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    // SAFETY: never runs: it does not link.
    unsafe { a_panic_is_reachable() }
}
