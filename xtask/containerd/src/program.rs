//! Programs of the distribution, downloaded and unpacked as containerd is and never installed: a
//! registry, to which the tests of packaging push and from which they pull, and bubblewrap, by
//! which a script makes a sandbox.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::command::{self, LOCAL};
use crate::packages::{Apt, files, remove};

/// A program that tests need.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// The package that holds it.
    package: &'static str,
    /// Where it stands in there.
    path: &'static str,
    /// Where it is unpacked, in cargo's target directory.
    pub folder: &'static str,
    /// The variable that tells tests where it is.
    pub variable: &'static str,
    /// The variable that tells tests why there is none.
    pub none: &'static str,
}

/// The registry that others run.
pub const REGISTRY: Program = Program {
    package: "docker-registry",
    path: "usr/bin/docker-registry",
    folder: "taskwright/docker-registry",
    variable: "TASKWRIGHT_TEST_REGISTRY",
    none: "TASKWRIGHT_TEST_REGISTRY_NONE",
};

/// The maker of sandboxes that `examples/scripts/bwrap.rhai` runs.
pub const BUBBLEWRAP: Program = Program {
    package: "bubblewrap",
    path: "usr/bin/bwrap",
    folder: "taskwright/bubblewrap",
    variable: "TASKWRIGHT_TEST_BWRAP",
    none: "TASKWRIGHT_TEST_BWRAP_NONE",
};

impl Program {
    /// It, unpacked below `dir` unless it is there. One at a time does that.
    ///
    /// # Errors
    /// When it cannot be had, with what to do.
    pub fn ensure(&self, dir: &Path) -> Result<PathBuf> {
        let package = self.package;
        fs::create_dir_all(dir)?;
        let folder = fs::File::open(dir)?;
        folder.lock()?;
        let program = self.below(dir);
        if !program.is_file() {
            unpack(package, dir, &dir.join(PROGRAMS)).with_context(|| {
                format!("get the package {package}, as `apt-get download {package}` would")
            })?;
        }
        ensure!(
            program.is_file(),
            "the package {package} lacks {}",
            self.path
        );
        Ok(program)
    }

    /// It, if it was unpacked below `dir`.
    #[must_use]
    pub fn find(&self, dir: &Path) -> Option<PathBuf> {
        Some(self.below(dir)).filter(|program| program.is_file())
    }

    fn below(&self, dir: &Path) -> PathBuf {
        dir.join(PROGRAMS).join(self.path)
    }
}

const PROGRAMS: &str = "programs";

fn unpack(package: &str, dir: &Path, programs: &Path) -> Result<()> {
    // What is half done is never taken for whole.
    let (fresh, debs) = (dir.join("programs.part"), dir.join("debs"));
    remove(&fresh)?;
    remove(&debs)?;
    fs::create_dir_all(&fresh)?;
    fs::create_dir_all(&debs)?;
    Apt::of_the_machine(dir).fetch(&[package], &debs)?;
    for deb in files(&debs)? {
        let mut unpack = Command::new("dpkg-deb");
        command::run(unpack.arg("-x").arg(&deb).arg(&fresh), LOCAL)?;
    }
    remove(programs)?;
    fs::rename(&fresh, programs)?;
    remove(&debs)?;
    remove(&dir.join("apt"))
}
