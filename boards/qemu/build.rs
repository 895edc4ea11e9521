//! Takes from the environment what differs between builds, so that compiler flags (and with them a built `core`) stay the same:
//!
//! - `TUCANO_MEMORY`: folder with the board's `memory.x`,
//! - `TUCANO_PROGRAM`: file with the operator list and buffer sizes that `src/program.rs` includes.

fn main() {
    println!("cargo:rerun-if-env-changed=TUCANO_MEMORY");
    println!("cargo:rerun-if-env-changed=TUCANO_PROGRAM");
    println!("cargo:rerun-if-changed=link.x");
    let Ok(memory) = std::env::var("TUCANO_MEMORY") else {
        panic!("TUCANO_MEMORY is not set: build this crate with `tucano boards build`");
    };
    println!("cargo:rerun-if-changed={memory}/memory.x");
    let here = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    // Cores with the DSP extension, or with Helium, have `tucano::backend::ThumbDsp`.
    println!("cargo:rustc-check-cfg=cfg(has_thumb_dsp)");
    let target = std::env::var("TARGET").unwrap_or_default();
    if target.starts_with("thumbv7em") || target.starts_with("thumbv8m.main") {
        println!("cargo:rustc-cfg=has_thumb_dsp");
    }
    println!("cargo:rustc-link-arg-bins=-L{memory}");
    println!("cargo:rustc-link-arg-bins=-T{here}/link.x");
}
