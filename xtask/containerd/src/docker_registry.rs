//! A registry program of the distribution, downloaded and unpacked as containerd is: the tests of
//! packaging push to it and pull from it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::command::{self, LOCAL};
use crate::packages::{Apt, files, remove};

/// The variable that tells tests where the program is.
pub const VARIABLE: &str = "TASKWRIGHT_TEST_REGISTRY";
/// The variable that tells tests why there is none.
pub const NONE: &str = "TASKWRIGHT_TEST_REGISTRY_NONE";
/// Where it is unpacked, in cargo's target directory.
pub const FOLDER: &str = "taskwright/docker-registry";
const PACKAGE: &str = "docker-registry";
const PROGRAM: &str = "programs/usr/bin/docker-registry";

/// The program, unpacked below this folder unless it is there. One at a time does that.
///
/// # Errors
/// When it cannot be had, with what to do.
pub fn ensure(dir: &Path) -> Result<PathBuf> {
    fs::create_dir_all(dir)?;
    let folder = fs::File::open(dir)?;
    folder.lock()?;
    let program = dir.join(PROGRAM);
    if !program.is_file() {
        unpack(dir, &dir.join("programs")).with_context(|| {
            format!("get the package {PACKAGE}, as `apt-get download {PACKAGE}` would")
        })?;
    }
    ensure!(program.is_file(), "the package {PACKAGE} lacks {PROGRAM}");
    Ok(program)
}

/// The program, if it was unpacked below this folder.
#[must_use]
pub fn find(dir: &Path) -> Option<PathBuf> {
    Some(dir.join(PROGRAM)).filter(|program| program.is_file())
}

fn unpack(dir: &Path, programs: &Path) -> Result<()> {
    // What is half done is never taken for whole.
    let (fresh, debs) = (dir.join("programs.part"), dir.join("debs"));
    remove(&fresh)?;
    remove(&debs)?;
    fs::create_dir_all(&fresh)?;
    fs::create_dir_all(&debs)?;
    Apt::of_the_machine(dir).fetch(&[PACKAGE], &debs)?;
    for deb in files(&debs)? {
        let mut unpack = Command::new("dpkg-deb");
        command::run(unpack.arg("-x").arg(&deb).arg(&fresh), LOCAL)?;
    }
    remove(programs)?;
    fs::rename(&fresh, programs)?;
    remove(&debs)?;
    remove(&dir.join("apt"))
}
