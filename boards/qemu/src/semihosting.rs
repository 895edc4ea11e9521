//! Arm semihosting: console, files and exit through the emulator. Paths are relative to the folder that the emulator runs in.

use core::fmt;

const OPEN: u32 = 0x01;
const WRITE0: u32 = 0x04;
const WRITE: u32 = 0x05;
const READ: u32 = 0x06;
const EXIT_EXTENDED: u32 = 0x20;
const APPLICATION_EXIT: u32 = 0x20026;

/// # Safety
/// `argument` points at what the operation's page of the semihosting specification asks for.
unsafe fn call(operation: u32, argument: *const u32) -> u32 {
    let mut result = operation;
    // SAFETY: the debugger answers in r0, changes no other register, and touches only the memory that the argument names.
    unsafe { core::arch::asm!("bkpt 0xab", inout("r0") result, in("r1") argument, options(nostack)) };
    result
}

/// An open file of the host.
pub struct File(u32);

impl File {
    /// Opens for reading. The path ends with a zero byte.
    pub fn open(path: &core::ffi::CStr) -> Option<Self> {
        Self::open_mode(path, 1)
    }

    /// Creates or empties, for writing.
    pub fn create(path: &core::ffi::CStr) -> Option<Self> {
        Self::open_mode(path, 5)
    }

    fn open_mode(path: &core::ffi::CStr, mode: u32) -> Option<Self> {
        let block = [path.as_ptr() as u32, mode, path.count_bytes() as u32];
        // SAFETY: a path, its mode and its length; all live during the call.
        let handle = unsafe { call(OPEN, block.as_ptr()) };
        (handle != u32::MAX).then_some(Self(handle))
    }

    /// Fills the whole buffer; false when the file ends before.
    pub fn read(&self, buffer: &mut [u8]) -> bool {
        let block = [self.0, buffer.as_mut_ptr() as u32, buffer.len() as u32];
        // SAFETY: handle, exclusive buffer, its length. The result is the number of bytes that were not read.
        unsafe { call(READ, block.as_ptr()) == 0 }
    }

    /// Writes the whole buffer; false when the host could not.
    pub fn write(&self, buffer: &[u8]) -> bool {
        let block = [self.0, buffer.as_ptr() as u32, buffer.len() as u32];
        // SAFETY: handle, buffer, its length. The result is the number of bytes that were not written.
        unsafe { call(WRITE, block.as_ptr()) == 0 }
    }
}

/// Ends the emulator with this exit code.
pub fn exit(code: u32) -> ! {
    let block = [APPLICATION_EXIT, code];
    loop {
        // SAFETY: a reason and a code.
        unsafe { call(EXIT_EXTENDED, block.as_ptr()) };
    }
}

/// The emulator's console.
pub struct Console;

impl fmt::Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for piece in text.as_bytes().chunks(63) {
            let mut line = [0u8; 64];
            for (to, from) in line.iter_mut().zip(piece) {
                *to = *from;
            }
            // SAFETY: text that ends with a zero byte: a piece is shorter than the buffer.
            unsafe { call(WRITE0, line.as_ptr().cast()) };
        }
        Ok(())
    }
}

/// Prints a line on the console.
#[macro_export]
macro_rules! say {
    ($($part:tt)*) => {{
        let _ = ::core::fmt::Write::write_fmt(&mut $crate::semihosting::Console, format_args!("{}\n", format_args!($($part)*)));
    }};
}
