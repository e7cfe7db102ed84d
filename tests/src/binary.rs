//! Where the program under test is.
//!
//! Cargo tells a test only about binaries of its own package, so the daemon must have been
//! built before (`cargo xtask test` does); it then lies beside this test's own directory.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The variable that names another binary to test.
pub const VARIABLE: &str = "TASKWRIGHT_BIN";

/// The `taskwright` to test.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn taskwright() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(find)
}

fn find() -> PathBuf {
    if let Some(named) = std::env::var_os(VARIABLE) {
        let path = PathBuf::from(named);
        assert!(
            path.is_file(),
            "{VARIABLE} names {path:?}, which is no file"
        );
        return path;
    }
    // target/debug/deps/suite-0123456789abcdef
    let own = std::env::current_exe().unwrap_or_default();
    let beside = own
        .parent()
        .and_then(Path::parent)
        .map(|profile| profile.join("taskwright"));
    match beside {
        Some(path) if path.is_file() => path,
        other => panic!(
            "no binary at {other:?}: run `cargo xtask test`, or `cargo build -p taskwright` \
             first, or name one in {VARIABLE}"
        ),
    }
}
