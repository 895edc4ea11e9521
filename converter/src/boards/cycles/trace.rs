//! What the emulator logs under `-d in_asm,exec,nochain`: each block of instructions when it is translated, and a line whenever one starts.
//!
//! A block is known by the address of its translation on the host. Its instructions are decoded from their bytes, not from the
//! disassembly beside them, which does not know MVE. The log counts from the end of the block at one mark to the block at another.

use super::decode::{Instruction, decode};
use super::tables::Account;
use std::collections::HashMap;
use std::io::BufRead;

/// Where counting starts and ends: addresses of the harness's two marks.
#[derive(Clone, Copy, Debug)]
pub struct Marks {
    /// A function that runs right before.
    pub begin: u32,
    /// A function that runs right after.
    pub end: u32,
}

/// Translated instructions that stand one after the other.
#[derive(Debug)]
struct Block {
    start: u32,
    /// The address behind it.
    end: u32,
    instructions: Vec<Instruction>,
}

/// Why a log could not be counted.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The log broke off or cannot be read.
    #[error("the emulator's trace ended before the mark: {0}")]
    Ended(String),
    /// Not the format of the log that is known.
    #[error("the emulator's trace has an unexpected line: {0}")]
    Line(String),
}

/// Counts the executed instructions between the marks.
///
/// # Errors
/// A log that ends before the second mark, or is not in the known format.
pub fn count(mut log: impl BufRead, marks: Marks, account: &mut Account) -> Result<(), TraceError> {
    let mut trace =
        Trace { account, marks, blocks: HashMap::new(), translated: None, running: None, counting: false };
    let mut line = Vec::new();
    loop {
        line.clear();
        match log.read_until(b'\n', &mut line) {
            Ok(0) => return Err(TraceError::Ended("it says no more".into())),
            Ok(_) if trace.line(&line)? => return Ok(()),
            Ok(_) => {}
            Err(error) => return Err(TraceError::Ended(error.to_string())),
        }
    }
}

/// The state between lines.
struct Trace<'a> {
    account: &'a mut Account,
    marks: Marks,
    /// By the translation's address on the host.
    blocks: HashMap<u64, Block>,
    /// Where the block starts that was translated last, and its halfwords, until it runs.
    translated: Option<(u32, Vec<u16>)>,
    /// The block that started last, and how many of its instructions run.
    running: Option<(u64, usize)>,
    counting: bool,
}

impl Trace<'_> {
    /// Takes a line; true at the second mark.
    fn line(&mut self, line: &[u8]) -> Result<bool, TraceError> {
        let refuse = || TraceError::Line(String::from_utf8_lossy(line).trim_end().into());
        if let Some(rest) = line.strip_prefix(b"Trace ") {
            return self.start(rest).ok_or_else(refuse);
        }
        if line.starts_with(b"IN:") {
            self.translated = None;
        } else if line.starts_with(b"0x") {
            self.translate(line).ok_or_else(refuse)?;
        } else if line.starts_with(b"Stopped execution") {
            // The block started, and left before its first instruction.
            let open = line.iter().position(|byte| *byte == b'[').ok_or_else(refuse)?;
            let address = hexadecimal(&line[open + 1..]).ok_or_else(refuse)? as u32;
            if self.block().is_some_and(|(block, _)| block.start == address) {
                self.running = None;
            }
        } else if line.starts_with(b"cpu_io_recompile") {
            // The block leaves before the instruction at this address, which then runs alone.
            let word = line.trim_ascii_end().rsplit(|byte| *byte == b' ').next().unwrap_or_default();
            let address = hexadecimal(word).ok_or_else(refuse)? as u32;
            let before = self.block().map(|(block, _)| block.instructions_before(address));
            if let (Some((_, count)), Some(before)) = (&mut self.running, before) {
                *count = before;
            }
        }
        Ok(false)
    }

    /// The block that started last.
    fn block(&self) -> Option<(&Block, usize)> {
        let (key, count) = self.running?;
        Some((self.blocks.get(&key)?, count))
    }

    /// `0x00000048:  4802       ldr ...`: an instruction, or half of one that the disassembler does not know, of the block.
    fn translate(&mut self, line: &[u8]) -> Option<()> {
        let address = hexadecimal(line.get(2..)?)? as u32;
        let codes = line.get(13..22)?;
        let (_, halfwords) = self.translated.get_or_insert_with(|| (address, Vec::new()));
        for code in codes.split(|byte| *byte == b' ').filter(|code| !code.is_empty()) {
            halfwords.push((code.len() == 4).then(|| hexadecimal(code))?? as u16);
        }
        Some(())
    }

    /// `0: 0x7f3ea8000100 [00800408/00000048/00000110/ff020200] name`: a block starts. True at the second mark.
    fn start(&mut self, line: &[u8]) -> Option<bool> {
        let pointer = line.windows(2).position(|pair| pair == b"0x")?;
        let key = hexadecimal(&line[pointer + 2..])?;
        let open = pointer + line[pointer..].iter().position(|byte| *byte == b'/')?;
        let address = hexadecimal(&line[open + 1..])? as u32;
        self.finish(address);
        if self.translated.as_ref().is_some_and(|(start, _)| *start == address) {
            let (start, halfwords) = self.translated.take()?;
            self.blocks.insert(key, Block::decode(start, &halfwords)?);
        }
        let block = self.blocks.get(&key).filter(|block| block.start == address)?;
        self.running = Some((key, block.instructions.len()));
        Some(self.counting && address == self.marks.end)
    }

    /// Counts the block that ran before the one at this address.
    fn finish(&mut self, next: u32) {
        let Some((key, count)) = self.running.take() else { return };
        let Some(block) = self.blocks.get(&key) else { return };
        if self.counting {
            let complete = count == block.instructions.len();
            for (index, instruction) in block.instructions[..count].iter().enumerate() {
                let taken = complete && index + 1 == count && next != block.end;
                self.account.execute(*instruction, taken);
            }
        }
        self.counting |= block.start == self.marks.begin;
    }
}

impl Block {
    fn decode(start: u32, mut halfwords: &[u16]) -> Option<Self> {
        let mut instructions = Vec::new();
        let mut end = start;
        while !halfwords.is_empty() {
            let instruction = decode(halfwords)?;
            halfwords = halfwords.get(instruction.bytes as usize / 2..)?;
            end = end.wrapping_add(instruction.bytes);
            instructions.push(instruction);
        }
        Some(Self { start, end, instructions })
    }

    /// How many of its instructions stand before an address.
    fn instructions_before(&self, address: u32) -> usize {
        let mut at = self.start;
        let before = |instruction: &&Instruction| {
            let stands_before = at < address;
            at = at.wrapping_add(instruction.bytes);
            stands_before
        };
        self.instructions.iter().take_while(before).count()
    }
}

/// The number that a text begins with.
fn hexadecimal(text: &[u8]) -> Option<u64> {
    let digit = |byte: &u8| (*byte as char).to_digit(16);
    let mut digits = text.iter().map_while(digit).peekable();
    digits.peek()?;
    digits.try_fold(0u64, |value, digit| value.checked_mul(16)?.checked_add(digit.into()))
}

#[cfg(test)]
mod tests {
    use super::{Marks, TraceError, count};
    use crate::boards::cycles::tables::{Account, CORTEX_M4};

    const MARKS: Marks = Marks { begin: 0x100, end: 0x110 };
    /// The marks' translations, and a loop of four instructions, the third of which the disassembler splits.
    const TRANSLATED: &str = "\
----------------
IN: mark_begin
0x00000100:  4770       bx       lr

Trace 0: 0x7f01 [00800408/00000100/00000110/ff020200] mark_begin
----------------
IN: loop
0x00000200:  6808       ldr      r0, [r1]
0x00000202:  f04f 0001  mov.w    r0, #1
0x00000206:  eef2       .byte    0xf2, 0xee
0x00000208:  0f04       lsrs     r4, r0, #0x1c
0x0000020a:  d1f9       bne      #0x200

Trace 0: 0x7f02 [00800408/00000200/00000110/ff020200] loop
";
    const AGAIN: &str = "Trace 0: 0x7f02 [00800408/00000200/00000110/ff020200] \n";
    const END: &str = "\
----------------
IN:
0x00000110:  4770       bx       lr

Trace 0: 0x7f03 [00800408/00000110/00000110/ff020200]
";

    /// Instructions and cycles.
    fn counted(log: &str) -> Result<(u64, u64), TraceError> {
        let mut account = Account::new(&CORTEX_M4);
        count(log.as_bytes(), MARKS, &mut account)?;
        Ok((account.instructions(), account.cycles()))
    }

    #[test]
    fn blocks_count_as_often_as_they_start() {
        // The vector has no cost that is its own on this core but its beats.
        let (instructions, once) = counted(&[TRANSLATED, END].concat()).unwrap();
        assert_eq!(instructions, 4);
        let (instructions, twice) = counted(&[TRANSLATED, AGAIN, END].concat()).unwrap();
        assert_eq!((instructions, twice), (8, 2 * once));
    }

    #[test]
    fn a_branch_to_the_next_address_is_not_taken() {
        let next = END.replace("00000110", "0000020c").replace("0x7f03", "0x7f04");
        let (instructions, cycles) = counted(&[TRANSLATED, &next, END].concat()).unwrap();
        let taken = counted(&[TRANSLATED, END].concat()).unwrap();
        // Another BX, which costs three cycles; the branch before it costs two less.
        assert_eq!((instructions, cycles), (taken.0 + 1, taken.1 + 3 - 2));
    }

    #[test]
    fn what_did_not_run_does_not_count() {
        let twice = counted(&[TRANSLATED, AGAIN, END].concat()).unwrap();
        let stopped = "Stopped execution of TB chain before 0x7f02 [00000200] loop\n";
        let stopped_once = counted(&[TRANSLATED, AGAIN, stopped, AGAIN, END].concat()).unwrap();
        assert_eq!(stopped_once, twice);
        let rewound = "cpu_io_recompile: rewound execution of TB to 00000206\n";
        let (instructions, _) = counted(&[TRANSLATED, rewound, END].concat()).unwrap();
        assert_eq!(instructions, 2);
    }

    #[test]
    fn broken_logs_are_refused() {
        assert!(matches!(counted(TRANSLATED), Err(TraceError::Ended(_))));
        let unknown = AGAIN.replace("7f02", "7f09");
        assert!(matches!(counted(&[TRANSLATED, &unknown].concat()), Err(TraceError::Line(_))));
        assert!(matches!(counted("Trace 0: nothing\n"), Err(TraceError::Line(_))));
        assert!(matches!(counted("IN:\n0x00000100:  OBJD\n"), Err(TraceError::Line(_))));
    }
}
