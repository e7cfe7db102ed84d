//! House rules that no compiler knows.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::shell::root;

/// A file longer than this has a second subject.
const MOST_LINES: usize = 800;
const WORD: &str = "unsafe";
/// The only places where `unsafe` may stand (docs/adr/0003).
const UNSAFE_PLACES: [&str; 2] = ["host/native/src/sys", "host/engine/src/cache.rs"];

/// Looks at every Rust file of the house.
pub(crate) fn check() -> Result<()> {
    let mut faults = Vec::new();
    for folder in ["host", "tests", "xtask", "plugins", "examples"] {
        for path in rust_files(&root().join(folder))? {
            look_at(&path, &mut faults)?;
        }
    }
    for manifest in manifests()? {
        look_at_lints(&manifest, &mut faults)?;
    }
    if faults.is_empty() {
        return Ok(());
    }
    bail!(
        "house rules (xtask/src/rules.rs):\n  {}",
        faults.join("\n  ")
    )
}

fn look_at(path: &Path, faults: &mut Vec<String>) -> Result<()> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let name = path
        .strip_prefix(root())
        .unwrap_or(path)
        .display()
        .to_string();
    let lines = text.lines().count();
    if lines > MOST_LINES {
        faults.push(format!(
            "{name} has {lines} lines: look for the second subject"
        ));
    }
    // The first screen tells the story.
    let has_head = text.starts_with("//!") || text.starts_with("#![");
    if !has_head && !text.is_empty() {
        faults.push(format!("{name} does not say at its head what it is for"));
    }
    for (index, line) in text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        let at = index + 1;
        if code.trim_start().starts_with("#[allow(") || code.trim_start().starts_with("#![allow(") {
            faults.push(format!("{name}:{at}: `allow`; say `expect` with a reason"));
        }
        let says_unsafe = ["{", "fn", "impl"]
            .iter()
            .any(|next| code.contains(&format!("{WORD} {next}")));
        if says_unsafe && !UNSAFE_PLACES.iter().any(|place| name.starts_with(place)) {
            faults.push(format!("{name}:{at}: unsafe outside of its places"));
        }
    }
    Ok(())
}

/// Every member takes the workspace's lints; the two with unsafe code keep tables of their own.
fn look_at_lints(manifest: &Path, faults: &mut Vec<String>) -> Result<()> {
    let text = fs::read_to_string(manifest)?;
    let name = manifest
        .strip_prefix(root())
        .unwrap_or(manifest)
        .display()
        .to_string();
    let own_table = ["host/native", "host/engine"]
        .iter()
        .any(|place| name.starts_with(place));
    let wanted = if own_table {
        "unsafe_code = \"deny\""
    } else {
        "[lints]\nworkspace = true"
    };
    if !text.contains(wanted) {
        faults.push(format!("{name} lacks `{}`", wanted.replace('\n', " ")));
    }
    Ok(())
}

fn manifests() -> Result<Vec<PathBuf>> {
    let mut found = vec![
        root().join("tests/Cargo.toml"),
        root().join("xtask/Cargo.toml"),
        root().join("xtask/containerd/Cargo.toml"),
    ];
    for entry in fs::read_dir(root().join("host"))? {
        let manifest = entry?.path().join("Cargo.toml");
        if manifest.is_file() {
            found.push(manifest);
        }
    }
    Ok(found)
}

fn rust_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                if !path.ends_with("target") {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    Ok(found)
}
