//! Programs that `cargo xtask test` unpacked for tests, or somebody named.

use std::path::{Path, PathBuf};

use crate::binary;

pub use taskwright_test_containerd::program::{BUBBLEWRAP, Program, REGISTRY};

/// Where it is, or why there is none.
///
/// # Errors
/// The reason, for whoever skips a test.
pub fn find(wanted: Program) -> Result<PathBuf, String> {
    if let Some(reason) = std::env::var_os(wanted.none) {
        return Err(reason.to_string_lossy().into_owned());
    }
    if let Some(named) = std::env::var_os(wanted.variable) {
        return Ok(named.into());
    }
    // target/debug/taskwright
    let target = binary::taskwright().parent().and_then(Path::parent);
    let unpacked = target.and_then(|dir| wanted.find(&dir.join(wanted.folder)));
    unpacked.ok_or_else(|| {
        let folder = wanted.folder;
        format!("nothing is in {folder}: `cargo xtask programs` unpacks it")
    })
}
