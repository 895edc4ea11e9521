//! Helpers shared by the cross-crate tests.

use std::path::{Path, PathBuf};

/// The zoo of real models, or `None`, said loudly, if it is not on this machine. It is looked for in the folder that the
/// variable `TUCANO_ZOO` names, else in `../shared/zoo` beside the repository.
pub fn zoo() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/zoo");
    let path = std::env::var_os("TUCANO_ZOO").map_or_else(beside, PathBuf::from);
    if path.is_dir() {
        return Some(path);
    }
    eprintln!("*** ZOO ABSENT: {} is no folder; tests on real models are SKIPPED ***", path.display());
    None
}
