//! Damages a blob's structure at random and runs it on the core's kernels without validation, with a fingerprint that is forged for it: no
//! fault, no panic, and no write outside of the arena and the state.
//!
//! The blob lies at `_blob`. The file `inputs` holds its number of bytes, the number of cases, and a seed, each a word. The console gets
//! `ended N`, how many ran to the end, `passed over N`, how many were not run because they could take long, and, if all is right, `done`.
#![no_std]
#![no_main]

use tucano::blob::{Fingerprint, crc32};
use tucano::{Model, Session};
use tucano_boards_qemu::program::{Ops, backend};
use tucano_boards_qemu::random::{Noise, Pool};
use tucano_boards_qemu::semihosting::{self, File};
use tucano_boards_qemu::{memory, rounds, say};

/// A case is passed over whose steps' loops may have so many times more rounds than those of the blob.
const MOST_WORK: u64 = 4;
/// Fields that are damaged, at most.
const FIELDS: usize = 4;
/// Values that decide something.
const EDGES: [u32; 16] =
    [0, 1, 2, 3, 4, 16, 127, 128, 255, 256, 0x7FFF, 0x8000, 0xFFFF, 0x7FFF_FFFF, 0x8000_0000, u32::MAX];

#[unsafe(no_mangle)]
extern "C" fn main() -> ! {
    // SAFETY: the only call.
    let free = unsafe { memory::free() };
    match run(free) {
        Some(()) => {
            say!("done");
            semihosting::exit(0)
        }
        None => semihosting::exit(2),
    }
}

fn run(free: &mut [u8]) -> Option<()> {
    let file = File::open(c"inputs")?;
    let mut words = [0u32; 3];
    for word in &mut words {
        let mut bytes = [0; 4];
        file.read(&mut bytes).then_some(())?;
        *word = u32::from_le_bytes(bytes);
    }
    let [length, cases, seed] = words;
    let original = memory::blob(length as usize);
    let undamaged = Model::<Ops>::load(original).ok()?;
    let (fingerprint, most) = (undamaged.blob().fingerprint(), MOST_WORK * rounds::of_model(&undamaged));
    let mut pool = Pool(free);
    let copy = pool.take(original.len());
    copy.copy_from_slice(original);
    let header = undamaged.blob().header();
    // With room for what the header's damage may ask for.
    let mut arena = pool.guarded(2 * header.arena_bytes as usize + 64);
    let mut state = pool.guarded(2 * header.state_bytes as usize + 64);
    let (mut ended, mut passed) = (0u32, 0u32);
    let mut noise = Noise::new(seed);
    for case in 0..cases {
        let before = noise.state;
        let structure = fingerprint.structure as usize;
        copy[..structure].copy_from_slice(&original[..structure]);
        damage(&mut copy[..structure], &mut noise);
        let crc = crc32(&[&copy[..structure]]);
        let model = Model::<Ops>::load_known(copy, &Fingerprint { crc, ..fingerprint }).ok()?;
        if rounds::of_model(&model) > most {
            passed += 1;
            continue;
        }
        let session = Session::new(&model, backend()?);
        let room = arena.inner();
        // A multiple of 64.
        let at = room.as_ptr().align_offset(64);
        let (arena_bytes, state_bytes) =
            (model.arena_bytes().min(room.len() - at), model.state_bytes().min(64));
        let buffer = &mut room[at..at + arena_bytes];
        if let Ok(input) = session.input_mut(buffer, 0) {
            input.iter_mut().for_each(|byte| *byte = noise.next() as u8);
        }
        ended += u32::from(session.run(buffer, &mut state.inner()[..state_bytes]).is_ok());
        let beside = room[..at].iter().chain(&room[at + arena_bytes..]).all(|&byte| byte == 0xA5);
        if !(beside && arena.is_whole() && state.is_whole() && copy[structure..] == original[structure..]) {
            say!("case {case}, noise {before:#x}: bytes outside of the arena changed");
            return None;
        }
        arena.inner().fill(0xA5);
    }
    say!("ended {ended}");
    say!("passed over {passed}");
    Some(())
}

/// Writes some fields of one, two or four bytes.
fn damage(structure: &mut [u8], noise: &mut Noise) {
    for _ in 0..noise.count(1, FIELDS) {
        let width = [1, 2, 4, 4][noise.below(4)];
        let at = noise.below(structure.len() / width) * width;
        let from = noise.below(structure.len() / width) * width;
        let mut word = [0; 4];
        word[..width].copy_from_slice(&structure[at..at + width]);
        let value = match noise.below(4) {
            0 => EDGES[noise.below(EDGES.len())],
            1 => noise.next() << 3,
            2 => u32::from_le_bytes(word).wrapping_add_signed(noise.within(-17, 17)),
            _ => {
                word[..width].copy_from_slice(&structure[from..from + width]);
                u32::from_le_bytes(word)
            }
        };
        structure[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
    }
}

tucano_boards_qemu::ends!(reported);
