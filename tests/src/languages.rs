//! The toolchains of other languages than Rust: where they are, or why there is none.
//!
//! `cargo xtask test` makes them and says where by a variable; by hand, `cargo xtask languages`.

use std::path::{Path, PathBuf};

/// Names the folder of the toolchains.
const FOLDER: &str = "TASKWRIGHT_TEST_LANGUAGES";

/// The folder with the toolchain of a language. Where there is none, this says that the test is
/// skipped, and why.
///
/// # Panics
/// In CI, when nobody tried to make one.
#[must_use]
pub fn toolchain(language: &str) -> Option<PathBuf> {
    let Some(all) = std::env::var_os(FOLDER) else {
        let is_ci = std::env::var_os("CI").is_some_and(|value| value == "true");
        assert!(!is_ci, "in CI {FOLDER} must say where toolchains are");
        crate::tell_skipped(&format!(
            "{FOLDER} is not set: `cargo xtask languages` makes toolchains and says where"
        ));
        return None;
    };
    let place = Path::new(&all).join(language);
    if place.join("made").exists() {
        return Some(place);
    }
    let why = std::fs::read_to_string(place.join("not-made"));
    let why = why.unwrap_or_else(|error| format!("nobody made it: {error}"));
    crate::tell_skipped(&format!("no toolchain of {language}: {why}"));
    None
}
