//! Finds a compiler for a bare-metal target, in this order:
//!
//! 1. **precompiled**: the active toolchain has the target's `core`, or `rustup target add` gets it;
//! 2. **from source**: a toolchain with the library's sources builds `core` itself (Debian's `rustc-web cargo-web rust-web-src`, where
//!    rustup cannot download).
//!
//! `TUCANO_BOARDS_TOOLCHAIN=precompiled` or `source` allows only that way.

use super::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// How to call cargo for one target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toolchain {
    cargo: PathBuf,
    rustc: PathBuf,
    /// Build `core` from source, and link with this.
    source: Option<PathBuf>,
    /// For people: what was chosen.
    pub description: String,
}

impl Toolchain {
    /// The first way that works for this target.
    pub fn find(target: &str) -> Result<Self, Error> {
        let only = std::env::var("TUCANO_BOARDS_TOOLCHAIN").unwrap_or_default();
        let found = match only.as_str() {
            "precompiled" => precompiled(target),
            "source" => from_source(),
            _ => precompiled(target).or_else(from_source),
        };
        found.ok_or_else(|| Error::Toolchain { target: target.into() })
    }

    /// A `cargo build` for the target, without what the environment says about other builds.
    pub fn cargo_build(&self, target: &str) -> Command {
        let mut command = Command::new(&self.cargo);
        // A build under `cargo test` or `cargo run` inherits settings that were meant for the host.
        for name in [
            "RUSTFLAGS",
            "CARGO_ENCODED_RUSTFLAGS",
            "RUSTC_WRAPPER",
            "CARGO_BUILD_TARGET",
            "LD_LIBRARY_PATH",
            "RUSTC_BOOTSTRAP",
        ] {
            command.env_remove(name);
        }
        command.env("RUSTC", &self.rustc).args(["build", "--release", "--target", target]);
        if let Some(linker) = &self.source {
            let variable = format!("CARGO_TARGET_{}_LINKER", target.to_uppercase().replace(['-', '.'], "_"));
            command.env(variable, linker).env("RUSTC_BOOTSTRAP", "1").arg("-Zbuild-std=core");
        }
        command
    }
}

fn precompiled(target: &str) -> Option<Toolchain> {
    let sysroot = sysroot("rustc".as_ref())?;
    let installed = || sysroot.join("lib/rustlib").join(target).join("lib").is_dir();
    if !installed() {
        // A closed network must not hold the caller up for longer than this.
        let add = Command::new("timeout")
            .args(["90", "rustup", "target", "add", target])
            .stderr(Stdio::null())
            .status();
        if !add.is_ok_and(|status| status.success()) || !installed() {
            return None;
        }
    }
    Some(Toolchain {
        cargo: "cargo".into(),
        rustc: "rustc".into(),
        source: None,
        description: format!("{}, precompiled core", version("rustc".as_ref())?),
    })
}

fn from_source() -> Option<Toolchain> {
    let linker = linker()?;
    [("rustc", "cargo"), ("/usr/bin/rustc", "/usr/bin/cargo")].into_iter().find_map(|(rustc, cargo)| {
        let sysroot = sysroot(rustc.as_ref())?;
        if !sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs").is_file() {
            return None;
        }
        Some(Toolchain {
            cargo: cargo.into(),
            rustc: rustc.into(),
            description: format!("{}, core from source", version(rustc.as_ref())?),
            source: Some(linker.clone()),
        })
    })
}

fn sysroot(rustc: &Path) -> Option<PathBuf> {
    printed(Command::new(rustc).args(["--print", "sysroot"])).map(PathBuf::from)
}

/// `rustc 1.95.0`.
fn version(rustc: &Path) -> Option<String> {
    let text = printed(Command::new(rustc).arg("--version"))?;
    Some(text.split_whitespace().take(2).collect::<Vec<_>>().join(" "))
}

fn printed(command: &mut Command) -> Option<String> {
    let output = command.stderr(Stdio::null()).output().ok()?;
    output.status.success().then_some(())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}

/// LLVM's linker: the one of a toolchain, else one of the system's.
fn linker() -> Option<PathBuf> {
    let of_toolchains = ["rustc", "/usr/bin/rustc"]
        .into_iter()
        .filter_map(|rustc| sysroot(rustc.as_ref()))
        .flat_map(|sysroot| {
            let hosts = std::fs::read_dir(sysroot.join("lib/rustlib")).into_iter().flatten().flatten();
            hosts.map(|host| host.path().join("bin/rust-lld")).collect::<Vec<_>>()
        });
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let of_system = ["rust-lld", "ld.lld", "ld.lld-22", "ld.lld-19"]
        .into_iter()
        .flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
    of_toolchains.chain(of_system).find(|candidate| candidate.is_file())
}
