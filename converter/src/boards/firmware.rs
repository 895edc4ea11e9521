//! Builds the firmware in `boards/qemu` for a board and a model's list of operators.

use super::toolchain::Toolchain;
use super::{Board, Error};
use crate::emit::{backend_type, declare_kernels, fingerprint_text};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tucano::backend::spec::select::Isa;
use tucano::blob::Fingerprint;

/// The compiler's optimisation of everything but `core`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum OptLevel {
    /// Speed.
    #[default]
    #[value(name = "3")]
    Three,
    /// Size.
    #[value(name = "s")]
    S,
    /// Size, above all.
    #[value(name = "z")]
    Z,
}

impl OptLevel {
    /// As cargo spells it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Three => "3",
            Self::S => "s",
            Self::Z => "z",
        }
    }
}

/// A firmware program, and what it is built from.
#[derive(Clone, Debug)]
pub enum Program {
    /// Runs any blob with these operators, reports through semihosting.
    Harness {
        /// The runtime's names of the operators that get linked.
        ops: Vec<String>,
        /// Whether regions are.
        tiles: bool,
        /// The kernels that are; `None`: all.
        kernels: Option<Vec<&'static str>>,
    },
    /// Only the runtime and buffers of one model: what a product would flash. Its panic handler cannot link, so that linking
    /// proves that nothing can panic.
    Minimal {
        /// The runtime's names of the operators that get linked.
        ops: Vec<String>,
        /// Whether regions are.
        tiles: bool,
        /// The kernels that are; `None`: all.
        kernels: Option<Vec<&'static str>>,
        /// Bytes of the model's arena.
        arena_bytes: usize,
        /// Bytes of the model's state.
        state_bytes: usize,
        /// Bytes of the blob.
        blob_bytes: usize,
        /// That of the blob, for `Model::load_known`; `None`: the program validates the blob, by `Model::load`.
        fingerprint: Option<Fingerprint>,
    },
    /// Runs a blob of these operators with damaged structure and without validation, on all kernels.
    Mutants {
        /// The runtime's names of the operators that get linked.
        ops: Vec<String>,
        /// Whether regions are.
        tiles: bool,
    },
    /// Compares the board's backend with scalar code on random layers.
    Differential,
    /// Compares the board's backend with scalar code on random layers of floats.
    Floats,
    /// Compares the board's backend with definitions on random operators without weights.
    Elementwise,
}

impl Program {
    fn bin(&self) -> &'static str {
        match self {
            Self::Harness { .. } => "harness",
            Self::Minimal { .. } => "minimal",
            Self::Mutants { .. } => "mutants",
            Self::Differential => "differential",
            Self::Floats => "floats",
            Self::Elementwise => "elementwise",
        }
    }

    /// The source that the firmware includes.
    fn source(&self, isa: Isa) -> String {
        let (ops, tiles, kernels) = match self {
            Self::Harness { ops, tiles, kernels } | Self::Minimal { ops, tiles, kernels, .. } => {
                (ops.as_slice(), *tiles, kernels.as_deref())
            }
            Self::Mutants { ops, tiles } => (ops.as_slice(), *tiles, None),
            Self::Differential | Self::Floats | Self::Elementwise => (&[][..], false, None),
        };
        let (arena_bytes, state_bytes, blob_bytes, fingerprint) = match self {
            Self::Minimal { arena_bytes, state_bytes, blob_bytes, fingerprint, .. } => {
                (*arena_bytes, *state_bytes, *blob_bytes, fingerprint.as_ref())
            }
            _ => (0, 0, 0, None),
        };
        let fingerprint = fingerprint
            .map_or_else(|| "None".into(), |fingerprint| format!("Some({})", fingerprint_text(fingerprint)));
        let tiles = if tiles { "; tiles" } else { "" };
        format!(
            "tucano::op_set! {{\n    /// The model's operators.\n    pub struct Ops {{ {}{tiles} }}\n}}\n{}\
             /// The board's backend.\npub type Backend = {};\n\
             /// Its token, if the core has what it needs.\npub fn backend() -> Option<Backend> {{\n    Backend::detect()\n}}\n\
             /// Bytes of the arena.\npub const ARENA_BYTES: usize = {arena_bytes};\n\
             /// Bytes of the state.\npub const STATE_BYTES: usize = {state_bytes};\n\
             /// Bytes of the blob.\npub const BLOB_BYTES: usize = {blob_bytes};\n\
             /// That of the blob; none: it is validated.\n\
             pub const FINGERPRINT: Option<tucano::blob::Fingerprint> = {fingerprint};\n",
            ops.join(", "),
            kernels.map(declare_kernels).unwrap_or_default(),
            backend_type(isa, kernels.is_some()),
        )
    }
}

/// The least stack that the linker leaves room for, bytes. The harness keeps as much below its own frames out of the arena's reach.
const LEAST_STACK: u32 = 2048;
/// What the harness keeps for the stack in all, bytes.
pub const HARNESS_STACK: u64 = LEAST_STACK as u64 + 512;

/// The repository that this program was built in.
fn repository() -> &'static Path {
    let converter = Path::new(env!("CARGO_MANIFEST_DIR"));
    converter.parent().unwrap_or(converter)
}

fn target_folder() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => PathBuf::from(folder).join("boards"),
        None => repository().join("target/boards"),
    }
}

/// Builds (or finds freshly built) a program for a board; gives the path of its ELF file.
pub fn build(
    board: &Board,
    program: &Program,
    opt_level: OptLevel,
    toolchain: &Toolchain,
) -> Result<PathBuf, Error> {
    let sources = repository().join("boards/qemu");
    if !sources.join("Cargo.toml").is_file() {
        return Err(Error::Sources { folder: sources });
    }
    let target_folder = target_folder();
    let io = |path: &Path| {
        let path = path.to_path_buf();
        move |source| Error::Io { path, source }
    };
    let source = program.source(board.kernels.isa());
    let mut key = String::new();
    for byte in &Sha256::digest(&source)[..8] {
        let _ = write!(key, "{byte:02x}");
    }
    let generated = target_folder.join("generated").join(board.name);
    fs::create_dir_all(&generated).map_err(io(&generated))?;
    // Cargo leaves one file a program: from the build to the copy nobody else may build.
    let lock = File::create(target_folder.join("firmware.lock")).map_err(io(&target_folder))?;
    lock.lock().map_err(io(&target_folder))?;
    let program_file = target_folder.join("generated").join(format!("{key}.rs"));
    write_if_new(&program_file, &source).map_err(io(&program_file))?;
    let memory_file = generated.join("memory.x");
    write_if_new(&memory_file, &memory_map(board)).map_err(io(&memory_file))?;

    let output = toolchain
        .cargo_build(board.target)
        .args(["--quiet", "--bin", program.bin()])
        .current_dir(&sources)
        .env("CARGO_TARGET_DIR", &target_folder)
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", opt_level.name())
        .env("TUCANO_MEMORY", &generated)
        .env("TUCANO_PROGRAM", &program_file)
        .stdin(Stdio::null())
        .output()
        .map_err(|source| Error::Io { path: "cargo".into(), source })?;
    if !output.status.success() {
        return Err(Error::Build {
            board: board.name,
            program: program.bin(),
            opt_level: opt_level.name(),
            messages: String::from_utf8_lossy(&output.stderr).into_owned(),
        });
    }
    let built = target_folder.join(board.target).join("release").join(program.bin());
    let kept = generated.join(format!("{}-{}-{key}.elf", program.bin(), opt_level.name()));
    fs::copy(&built, &kept).map_err(io(&built))?;
    Ok(kept)
}

/// Unchanged files keep their time, or cargo would build again.
fn write_if_new(path: &Path, text: &str) -> std::io::Result<()> {
    if fs::read_to_string(path).is_ok_and(|old| old == text) { Ok(()) } else { fs::write(path, text) }
}

/// The linker's view of a board.
fn memory_map(board: &Board) -> String {
    let model = match board.model {
        Some(region) => format!("{:#x}", region.origin),
        None => "(_flash_end + 63) & ~63".into(),
    };
    format!(
        "MEMORY\n{{\n  FLASH (rx) : ORIGIN = {:#x}, LENGTH = {:#x}\n  RAM (rwx) : ORIGIN = {:#x}, LENGTH = {:#x}\n}}\n\
         _stack_least = {LEAST_STACK};\n_blob = {model};\n",
        board.flash.origin, board.flash.length, board.ram.origin, board.ram.length
    )
}
