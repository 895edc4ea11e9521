//! The host runner for C: `include/tucano.h` says what each function does.
//!
//! Pointers come from the caller, who answers for what the header asks: that they are valid for the lengths given, and that one thread at a time uses a
//! runner. Null is an error, never undefined. Nothing unwinds into C: a panic becomes a status.

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

use tucano::blob::DType;
use tucano::host::{OpenError, Runner, Terminal};
use tucano::{Error, ErrorKind};

/// A runner with its backend's name as C wants it.
#[derive(Debug)]
pub struct TucanoRunner {
    runner: Runner,
    backend: CString,
}

/// `tucano_status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub enum Status {
    /// Done.
    Ok = 0,
    /// A pointer that must not be null is.
    Null = 1,
    /// The blob is not sound.
    Blob = 2,
    /// This machine has no backend of that name.
    Backend = 3,
    /// There is no such input or output.
    Terminal = 4,
    /// Wrong length, or a number that is not finite.
    Data = 5,
    /// The run failed.
    Run = 6,
    /// A fault of the library.
    Panic = 7,
}

/// `tucano_terminal`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[repr(C)]
pub struct Description {
    rank: u32,
    shape: [u32; 4],
    elements: u32,
    bytes: u32,
    dtype: u32,
    scale: f32,
    zero_point: i32,
}

const INPUT: u32 = 0;
const OUTPUT: u32 = 1;

thread_local! {
    static MESSAGE: RefCell<CString> = RefCell::new(CString::default());
}

/// Why a call fails.
struct Fault(Status, String);

impl Fault {
    fn null(what: &str) -> Self {
        Self(Status::Null, format!("{what} is null"))
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let status = match error.kind {
            ErrorKind::InputLength | ErrorKind::NotFinite | ErrorKind::InputCount => Status::Data,
            ErrorKind::NoSuchTerminal | ErrorKind::TerminalType => Status::Terminal,
            _ => Status::Run,
        };
        Self(status, error.to_string())
    }
}

/// Runs the body of a function; whatever goes wrong becomes a status and a message.
fn guarded(body: impl FnOnce() -> Result<(), Fault>) -> Status {
    let outcome = catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<&str>().map(|text| (*text).to_string());
        let said = said.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        Err(Fault(Status::Panic, format!("a fault of the library: {said}")))
    });
    let (status, text) = match outcome {
        Ok(()) => (Status::Ok, String::new()),
        Err(Fault(status, text)) => (status, text),
    };
    let text = CString::new(text.replace('\0', " ")).unwrap_or_default();
    MESSAGE.with(|message| *message.borrow_mut() = text);
    status
}

/// A shared reference to what the caller points at.
///
/// # Safety
/// `pointer` is null or valid for the duration of the call, and no other thread changes what it points at.
unsafe fn shared<'a, T>(pointer: *const T, what: &str) -> Result<&'a T, Fault> {
    // SAFETY: the caller of this function answers for it.
    unsafe { pointer.as_ref() }.ok_or_else(|| Fault::null(what))
}

/// An exclusive reference to what the caller points at.
///
/// # Safety
/// As [`shared`], and nothing else uses what it points at.
unsafe fn exclusive<'a, T>(pointer: *mut T, what: &str) -> Result<&'a mut T, Fault> {
    // SAFETY: the caller of this function answers for it.
    unsafe { pointer.as_mut() }.ok_or_else(|| Fault::null(what))
}

/// The caller's array; null is fine for none.
///
/// # Safety
/// `pointer` is null or valid for `length` elements for the duration of the call.
unsafe fn array<'a, T>(pointer: *const T, length: usize, what: &str) -> Result<&'a [T], Fault> {
    match (pointer.is_null(), length) {
        (_, 0) => Ok(&[]),
        (true, _) => Err(Fault::null(what)),
        // SAFETY: not null, and the caller of this function answers for the length.
        (false, _) => Ok(unsafe { std::slice::from_raw_parts(pointer, length) }),
    }
}

/// As [`array`], to be written.
///
/// # Safety
/// As [`array`], and nothing else uses it.
unsafe fn array_mut<'a, T>(pointer: *mut T, length: usize, what: &str) -> Result<&'a mut [T], Fault> {
    match (pointer.is_null(), length) {
        (_, 0) => Ok(&mut []),
        (true, _) => Err(Fault::null(what)),
        // SAFETY: not null, and the caller of this function answers for the length.
        (false, _) => Ok(unsafe { std::slice::from_raw_parts_mut(pointer, length) }),
    }
}

fn terminals(runner: &Runner, direction: u32) -> Result<&[Terminal], Fault> {
    match direction {
        INPUT => Ok(runner.inputs()),
        OUTPUT => Ok(runner.outputs()),
        other => Err(Fault(Status::Terminal, format!("direction {other} is neither input nor output"))),
    }
}

fn terminal(runner: &Runner, direction: u32, index: usize) -> Result<(&Terminal, u16), Fault> {
    let all = terminals(runner, direction)?;
    let found = all.get(index).zip(u16::try_from(index).ok());
    found.ok_or_else(|| Fault(Status::Terminal, format!("no terminal {index}: there are {}", all.len())))
}

fn right_length(given: usize, wanted: usize) -> Result<(), Fault> {
    match given == wanted {
        true => Ok(()),
        false => Err(Fault(Status::Data, format!("length {given} should be {wanted}"))),
    }
}

/// `tucano_message`.
#[unsafe(no_mangle)]
pub extern "C" fn tucano_message() -> *const c_char {
    MESSAGE.with(|message| message.borrow().as_ptr())
}

/// `tucano_open`.
///
/// # Safety
/// `blob` is valid for `length` bytes, `backend` null or a string that ends with a zero, `runner` valid to be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tucano_open(
    blob: *const u8,
    length: usize,
    backend: *const c_char,
    runner: *mut *mut TucanoRunner,
) -> Status {
    guarded(|| {
        // SAFETY: the header asks for a place to write to.
        let place = unsafe { exclusive(runner, "runner") }?;
        *place = std::ptr::null_mut();
        // SAFETY: the header asks for `length` bytes.
        let blob = unsafe { array(blob, length, "blob") }?;
        let opened = if backend.is_null() {
            Runner::new(blob).map_err(OpenError::Blob)
        } else {
            // SAFETY: not null, and the header asks for a string that ends with a zero.
            let name = unsafe { CStr::from_ptr(backend) };
            Runner::with_backend(blob, &name.to_string_lossy())
        };
        let opened = opened.map_err(|error| {
            let status = if matches!(error, OpenError::Blob(_)) { Status::Blob } else { Status::Backend };
            Fault(status, error.to_string())
        })?;
        let backend = CString::new(opened.backend()).unwrap_or_default();
        *place = Box::into_raw(Box::new(TucanoRunner { runner: opened, backend }));
        Ok(())
    })
}

/// `tucano_close`.
///
/// # Safety
/// `runner` is null or came from `tucano_open`, and is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tucano_close(runner: *mut TucanoRunner) {
    if !runner.is_null() {
        guarded(|| {
            // SAFETY: not null, and the header asks for a runner that `tucano_open` boxed and nobody uses again.
            drop(unsafe { Box::from_raw(runner) });
            Ok(())
        });
    }
}

/// `tucano_backend`.
///
/// # Safety
/// `runner` is null or came from `tucano_open`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tucano_backend(runner: *const TucanoRunner) -> *const c_char {
    // SAFETY: the header asks for null or a runner.
    unsafe { runner.as_ref() }.map_or(std::ptr::null(), |runner| runner.backend.as_ptr())
}

/// `tucano_count`.
///
/// # Safety
/// `runner` is null or came from `tucano_open`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tucano_count(runner: *const TucanoRunner, direction: u32) -> usize {
    let mut count = 0;
    guarded(|| {
        // SAFETY: the header asks for null or a runner.
        let runner = unsafe { shared(runner, "runner") }?;
        count = terminals(&runner.runner, direction)?.len();
        Ok(())
    });
    count
}

/// `tucano_describe`.
///
/// # Safety
/// `runner` came from `tucano_open`, `description` is valid to be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tucano_describe(
    runner: *const TucanoRunner,
    direction: u32,
    index: usize,
    description: *mut Description,
) -> Status {
    guarded(|| {
        // SAFETY: the header asks for a runner and a place to write to.
        let (runner, place) = unsafe { (shared(runner, "runner")?, exclusive(description, "terminal")?) };
        let (terminal, _) = terminal(&runner.runner, direction, index)?;
        let dtype = match terminal.tensor.dtype {
            DType::F32 => 0,
            DType::I8 => 1,
            DType::I16 => 2,
            _ => 3,
        };
        let elements = terminal.elements();
        *place = Description {
            rank: terminal.contract.rank.into(),
            shape: terminal.contract.shape,
            elements: elements as u32,
            bytes: (elements * terminal.tensor.dtype.bytes()) as u32,
            dtype,
            scale: terminal.scale(),
            zero_point: terminal.tensor.zero_point,
        };
        Ok(())
    })
}

/// `tucano_set_input`.
///
/// # Safety
/// `runner` came from `tucano_open`, `data` is valid for `elements` numbers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tucano_set_input(
    runner: *mut TucanoRunner,
    index: usize,
    data: *const f32,
    elements: usize,
) -> Status {
    guarded(|| {
        // SAFETY: the header asks for a runner of this thread's own and `elements` numbers.
        let (runner, data) = unsafe { (exclusive(runner, "runner")?, array(data, elements, "data")?) };
        let (terminal, k) = terminal(&runner.runner, INPUT, index)?;
        let terminal = terminal.clone();
        Ok(terminal.store(data, runner.runner.input_mut(k)?)?)
    })
}

/// `tucano_set_input_raw`.
///
/// # Safety
/// `runner` came from `tucano_open`, `data` is valid for `bytes` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tucano_set_input_raw(
    runner: *mut TucanoRunner,
    index: usize,
    data: *const u8,
    bytes: usize,
) -> Status {
    guarded(|| {
        // SAFETY: the header asks for a runner of this thread's own and `bytes` bytes.
        let (runner, data) = unsafe { (exclusive(runner, "runner")?, array(data, bytes, "data")?) };
        let (_, k) = terminal(&runner.runner, INPUT, index)?;
        let place = runner.runner.input_mut(k)?;
        right_length(bytes, place.len())?;
        place.copy_from_slice(data);
        Ok(())
    })
}

/// `tucano_invoke`.
///
/// # Safety
/// `runner` came from `tucano_open`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tucano_invoke(runner: *mut TucanoRunner) -> Status {
    guarded(|| {
        // SAFETY: the header asks for a runner of this thread's own.
        let runner = unsafe { exclusive(runner, "runner") }?;
        runner.runner.invoke().map_err(|error| Fault(Status::Run, error.to_string()))
    })
}

/// `tucano_get_output`.
///
/// # Safety
/// `runner` came from `tucano_open`, `data` is valid for `elements` numbers to be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tucano_get_output(
    runner: *const TucanoRunner,
    index: usize,
    data: *mut f32,
    elements: usize,
) -> Status {
    guarded(|| {
        // SAFETY: the header asks for a runner and room for `elements` numbers.
        let (runner, data) = unsafe { (shared(runner, "runner")?, array_mut(data, elements, "data")?) };
        let (terminal, k) = terminal(&runner.runner, OUTPUT, index)?;
        right_length(elements, terminal.elements())?;
        data.copy_from_slice(&terminal.fetch(runner.runner.output(k)?)?);
        Ok(())
    })
}

/// `tucano_get_output_raw`.
///
/// # Safety
/// `runner` came from `tucano_open`, `data` is valid for `bytes` bytes to be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tucano_get_output_raw(
    runner: *const TucanoRunner,
    index: usize,
    data: *mut u8,
    bytes: usize,
) -> Status {
    guarded(|| {
        // SAFETY: the header asks for a runner and room for `bytes` bytes.
        let (runner, data) = unsafe { (shared(runner, "runner")?, array_mut(data, bytes, "data")?) };
        let (_, k) = terminal(&runner.runner, OUTPUT, index)?;
        let found = runner.runner.output(k)?;
        right_length(bytes, found.len())?;
        data.copy_from_slice(found);
        Ok(())
    })
}

/// `tucano_reset`.
///
/// # Safety
/// `runner` came from `tucano_open`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tucano_reset(runner: *mut TucanoRunner) -> Status {
    guarded(|| {
        // SAFETY: the header asks for a runner of this thread's own.
        unsafe { exclusive(runner, "runner") }?.runner.reset();
        Ok(())
    })
}
