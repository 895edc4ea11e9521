//! Runs a model on samples that the host feeds, and reports: the protocol is in converter/src/boards/emulator.rs.
#![no_std]
#![no_main]

use core::fmt::Display;
use tucano::{Model, Session};
use tucano_boards_qemu::memory::{self, StackGauge};
use tucano_boards_qemu::program::{Backend, Ops, backend};
use tucano_boards_qemu::semihosting::{self, File};
use tucano_boards_qemu::{counter, say};

/// How often the counter is read to learn what reading costs.
const READINGS: u32 = 256;
/// The stack is watched so deep, bytes.
const WATCHED: usize = 64 * 1024;

#[unsafe(no_mangle)]
extern "C" fn main() -> ! {
    // SAFETY: the only call.
    let free = unsafe { memory::free() };
    counter::start();
    match run(free) {
        Ok(()) => {
            say!("calibration {}", counter::calibrate());
            let before = counter::ticks();
            for _ in 0..READINGS {
                core::hint::black_box(counter::ticks());
            }
            say!("overhead {}", counter::ticks() - before);
            say!("done");
            semihosting::exit(0)
        }
        Err(Failure) => semihosting::exit(2),
    }
}

/// The reason was said.
struct Failure;

fn explain<T, E: Display>(result: Result<T, E>, what: &str) -> Result<T, Failure> {
    result.map_err(|error| {
        say!("error {what}: {error}");
        Failure
    })
}

/// Opens the inputs and reads what stands before them: bytes of the blob, number of samples.
fn open_inputs() -> Result<(File, [usize; 2]), Failure> {
    let file = explain(File::open(c"inputs").ok_or("cannot be opened"), "inputs")?;
    let mut counts = [0; 2];
    for count in &mut counts {
        let mut bytes = [0; 4];
        read(&file, &mut bytes)?;
        *count = u32::from_le_bytes(bytes) as usize;
    }
    Ok((file, counts))
}

fn read(file: &File, buffer: &mut [u8]) -> Result<(), Failure> {
    explain(file.read(buffer).then_some(()).ok_or("the file ends early"), "inputs")
}

/// Puts the next sample where the model takes it.
fn feed(file: &File, session: &Session<'_, Ops, Backend>, arena: &mut [u8]) -> Result<(), Failure> {
    for k in 0..session.model().inputs() {
        read(file, explain(session.input_mut(arena, k), "input")?)?;
    }
    Ok(())
}

fn run(free: &mut [u8]) -> Result<(), Failure> {
    let (inputs, [blob_bytes, samples]) = open_inputs()?;
    let model = explain(Model::<Ops>::load(memory::blob(blob_bytes)), "load")?;
    let name = <Backend as tucano::backend::Backend>::NAME;
    let backend = explain(backend().ok_or("the core lacks an extension that it needs"), name)?;
    let session = Session::new(&model, backend);
    say!("backend {name}");

    let have = free.len();
    let (arena, rest) =
        explain(free.split_at_mut_checked(model.arena_bytes().next_multiple_of(64)).ok_or(have), "arena in")?;
    let state = explain(rest.get_mut(..model.state_bytes()).ok_or(have), "arena and state in")?;
    let used = state.as_ptr_range().end as usize;

    // All samples first: a trace of the executed instructions ends at the second mark.
    let outputs = explain(File::create(c"outputs").ok_or("cannot be created"), "outputs")?;
    let mut deepest = 0;
    state.fill(0);
    for sample in 0..samples {
        feed(&inputs, &session, arena)?;
        let gauge = StackGauge::paint(used, WATCHED);
        let before = counter::ticks();
        // SAFETY: returns at once.
        unsafe { mark_begin() };
        let result = session.run(arena, state);
        // SAFETY: as above.
        unsafe { mark_end() };
        let after = counter::ticks();
        deepest = deepest.max(explain(gauge.deepest().ok_or("overflowed into the arena"), "stack")?);
        explain(result, "run")?;
        for k in 0..model.outputs() {
            let bytes = explain(session.output(arena, k), "output")?;
            explain(outputs.write(bytes).then_some(()).ok_or("cannot be written"), "outputs")?;
        }
        say!("sample {sample} {}", after - before);
    }
    say!("stack {deepest}");

    // The first sample again, step by step.
    let (inputs, _) = open_inputs()?;
    state.fill(0);
    feed(&inputs, &session, arena)?;
    let mut cursor = session.start();
    while cursor.next() < model.step_count() {
        let first = cursor.next();
        let before = counter::ticks();
        let more = session.step(&mut cursor, arena, state);
        let after = counter::ticks();
        explain(more, "step")?;
        // The steps of a region run in turns: the first stands for all.
        for step in first..cursor.next() {
            let ticks = if step == first { after - before } else { 0 };
            let kernel =
                model.step(step).map_or("", |step| <Backend as tucano::backend::Backend>::kernel(&step));
            say!("step {step} {ticks} {kernel}");
        }
    }
    Ok(())
}

/// Where a trace of the executed instructions begins to count. Assembly, so that it is neither inlined nor merged with the other mark.
#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn mark_begin() {
    core::arch::naked_asm!("bx lr")
}

/// Where it ends.
#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn mark_end() {
    core::arch::naked_asm!("bx lr")
}

tucano_boards_qemu::ends!(reported);
