//! Proof that a device cannot panic: `tests/panic-free` uses the whole runtime with all operators, and links only if the optimiser
//! could exclude every panic. The boards prove it for their targets; here it is the host's, at the levels that firmware is built with.

use std::path::Path;
use std::process::{Command, Output};

fn build(level: &str, more: &[&str]) -> Output {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("panic-free");
    Command::new(env!("CARGO"))
        .args(["build", "--release", "--manifest-path"])
        .arg(crate_dir.join("Cargo.toml"))
        .args(more)
        .env("CARGO_TARGET_DIR", Path::new(env!("CARGO_TARGET_TMPDIR")).join("panic-free"))
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", level)
        .output()
        .unwrap()
}

#[test]
fn no_panic_is_reachable() {
    for level in ["3", "s", "z"] {
        let output = build(level, &[]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "at opt-level {level}:\n{said}");
    }
    let control = build("3", &["--features", "control"]);
    let said = String::from_utf8_lossy(&control.stderr);
    assert!(
        !control.status.success() && said.contains("a_panic_is_reachable"),
        "the control must not link:\n{said}"
    );
}
