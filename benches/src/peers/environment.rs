//! What the peers need: a Python environment of pinned versions, a program with the peers that are Rust crates, a processor to run on; and what
//! machine this is. All is kept in `target/peers`.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The folder `benches/peers`.
#[must_use]
pub fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("peers")
}

/// The folder that everything built or written goes to.
#[must_use]
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/peers")
}

/// Runs a command to its end; its output is seen only if it fails.
fn done(command: &mut Command, help: &str) -> Result<(), String> {
    let program = command.get_program().to_os_string();
    let failed = |what: &str| format!("{}: {what}\n{help}", program.display());
    let output = command.output().map_err(|error| failed(&error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    let text = [output.stdout, output.stderr].concat();
    Err(failed(&format!("{}\n{}", output.status, String::from_utf8_lossy(&text))))
}

/// The Python of the environment, which is built if it is not there or holds other versions.
///
/// # Errors
/// What to install.
pub fn python() -> Result<PathBuf, String> {
    let read = |path: &Path| std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
    let requirements = sources().join("requirements.txt");
    let wanted = read(&requirements)?;
    let venv = folder().join("venv");
    let (python, built) = (venv.join("bin/python"), venv.join("requirements.txt"));
    if std::fs::read(&built).is_ok_and(|found| found == wanted) && python.exists() {
        return Ok(python);
    }
    eprintln!("building {}", venv.display());
    done(
        Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv),
        "the peers need Python 3.10 or newer with its module venv: install python3 and python3-venv",
    )?;
    done(
        Command::new(&python)
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"])
            .arg(&requirements),
        "the peers are installed from PyPI (benches/peers/requirements.txt): connect this machine to it, or name a mirror in PIP_INDEX_URL",
    )?;
    std::fs::write(&built, wanted).map_err(|error| format!("{}: {error}", built.display()))?;
    Ok(python)
}

/// The program with the peers that are Rust crates, built with the versions of its own lock file.
///
/// # Errors
/// What the build says.
pub fn rust() -> Result<PathBuf, String> {
    let target = folder().join("rust");
    let program = target.join("release/tucano-peers");
    eprintln!("building {}", program.display());
    done(
        Command::new(env!("CARGO"))
            .args(["build", "--release", "--locked", "--manifest-path"])
            .arg(sources().join("rust/Cargo.toml"))
            .arg("--target-dir")
            .arg(&target),
        "the peers tract and rten are built from crates.io: connect this machine to it",
    )?;
    Ok(program)
}

/// The last processor that this process may use.
#[must_use]
pub fn processor() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let last = list.and_then(|list| list.trim().rsplit([',', '-']).next()?.parse().ok());
    last.unwrap_or(0)
}

/// What machine this is.
#[derive(Clone, Debug, PartialEq)]
pub struct Machine {
    /// The processor's name, family and model.
    pub processor: String,
    /// Vector extensions.
    pub extensions: Vec<String>,
    /// Processors.
    pub processors: usize,
    /// Processes that want to run, mean of the last minute: above 1 the figures are disturbed.
    pub load: f64,
}

impl Machine {
    /// This one, as Linux describes it.
    #[must_use]
    pub fn here() -> Self {
        let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let field = |key: &str| {
            let line =
                text.lines().find(|line| line.split(':').next().is_some_and(|name| name.trim() == key));
            line.and_then(|line| line.split(':').nth(1)).unwrap_or("unknown").trim().to_string()
        };
        let vector = ["avx", "fma", "f16c", "amx", "asimd", "sve"];
        let is_vector = |flag: &&str| vector.iter().any(|prefix| flag.starts_with(prefix));
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        Self {
            processor: format!(
                "{}, family {} model {}",
                field("model name"),
                field("cpu family"),
                field("model")
            ),
            extensions: field("flags").split_whitespace().filter(is_vector).map(String::from).collect(),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            load: load.split_whitespace().next().and_then(|load| load.parse().ok()).unwrap_or(0.0),
        }
    }
}
