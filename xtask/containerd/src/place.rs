//! The folder of one containerd, and every name that is derived from it.
//!
//! Names outside of the folder carry a digest of its path, so that two folders never meet.

use std::path::{Component, Path, PathBuf};

use anyhow::{Result, ensure};
use sha2::{Digest, Sha256};

/// A socket's path has 107 bytes at most; the longest of ours adds 22 to the folder's.
const LONGEST: usize = 80;

/// Where one containerd lives. Making one touches nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    dir: PathBuf,
    digest: [u8; 32],
}

impl Place {
    /// The place in this folder, which need not exist yet.
    ///
    /// # Errors
    /// When the path is not absolute, too long for sockets, or holds what configuration files
    /// would have to quote.
    pub fn new(dir: impl Into<PathBuf>) -> Result<Self> {
        let dir: PathBuf = dir.into();
        // Components drop a slash at the end, so one folder has one digest.
        let dir: PathBuf = dir.components().collect();
        let text = dir.to_str().unwrap_or_default();
        ensure!(
            dir.is_absolute() && !dir.components().any(|part| part == Component::ParentDir),
            "the folder of containerd must be an absolute path without `..`, and {} is not",
            dir.display()
        );
        ensure!(
            dir.parent().is_some(),
            "the folder of containerd cannot be the root of all"
        );
        ensure!(
            text.len() <= LONGEST,
            "the path {text} has {} bytes; with more than {LONGEST} no socket fits below it",
            text.len()
        );
        let plain = |letter: char| letter.is_ascii_alphanumeric() || "/._-+@".contains(letter);
        ensure!(
            !text.is_empty() && text.chars().all(plain),
            "the path {} holds more than letters, digits and /._-+@",
            dir.display()
        );
        let digest = Sha256::digest(text.as_bytes()).into();
        Ok(Self { dir, digest })
    }

    /// The place in this folder or, if its path is too long or too odd, in a short one below
    /// the machine's directory for temporary files.
    ///
    /// # Errors
    /// When that one does not fit either.
    pub fn near(dir: &Path) -> Result<Self> {
        Self::new(dir).or_else(|_unfit| {
            let digest = hex(&Sha256::digest(dir.as_os_str().as_encoded_bytes()));
            let short = digest.get(..8).unwrap_or(&digest);
            Self::new(std::env::temp_dir().join(format!("taskwright-{short}")))
        })
    }

    /// The folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where containerd answers, also to CRI calls.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir.join("containerd.sock")
    }

    /// The unpacked packages.
    #[must_use]
    pub fn programs(&self) -> PathBuf {
        self.dir.join("rt")
    }

    /// A program of them, by its path as a package has it: `usr/bin/ctr`.
    #[must_use]
    pub fn program(&self, path: &str) -> PathBuf {
        self.programs().join(path)
    }

    /// The static busybox.
    #[must_use]
    pub fn busybox(&self) -> PathBuf {
        let merged = self.program("usr/bin/busybox");
        if merged.exists() {
            merged
        } else {
            self.program("bin/busybox")
        }
    }

    /// The images as archives.
    #[must_use]
    pub fn images(&self) -> PathBuf {
        self.dir.join("images")
    }

    /// What containerd and the network plugins are told.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.dir.join("etc")
    }

    /// Which address stands for which registry: a folder for each, and `_default`.
    #[must_use]
    pub fn registries(&self) -> PathBuf {
        self.config().join("certs.d")
    }

    /// What lasts longer than containerd's life, for containerd; not for us.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.dir.join("lib")
    }

    /// What containerd keeps while it lives.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.dir.join("run")
    }

    /// What containerd writes about itself, since its last start.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.dir.join("containerd.log")
    }

    /// Which process is the containerd of this folder.
    #[must_use]
    pub fn pid_file(&self) -> PathBuf {
        self.dir.join("containerd.pid")
    }

    /// The directories outside of the folder that were not there before.
    #[must_use]
    pub fn made_outside(&self) -> PathBuf {
        self.dir.join("made-outside")
    }

    /// The bridge of its pods. An interface's name has 15 letters at most.
    #[must_use]
    pub fn bridge(&self) -> String {
        format!("tw{}", self.short())
    }

    /// The network of its pods, which is also how cached results of network plugins begin.
    #[must_use]
    pub fn network(&self) -> String {
        format!("taskwright-{}", self.short())
    }

    /// A cgroup for pods of tests: what is left in it is killed and removed at a stop.
    #[must_use]
    pub fn cgroup(&self) -> String {
        format!("taskwright-cri-{}", self.short())
    }

    /// The first three numbers of the addresses of its pods.
    #[must_use]
    pub fn subnet(&self) -> String {
        let [first, second, ..] = self.digest;
        format!("10.{}.{}", 100 + u16::from(first) % 100, second)
    }

    fn short(&self) -> String {
        let digest = hex(&self.digest);
        digest.get(..8).unwrap_or_default().to_owned()
    }
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _never_fails = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    #[test]
    fn sockets_fit_below_the_longest_folder() {
        let longest = format!("/{}", "a".repeat(LONGEST - 1));
        let place = Place::new(&longest).unwrap();
        let ttrpc = format!("{}.ttrpc", place.socket().display());
        assert!(ttrpc.len() < 108, "{}", ttrpc.len());
        assert!(Place::new(format!("{longest}b")).is_err());
        assert!(place.bridge().len() <= 15);
    }

    #[test]
    fn one_folder_has_one_set_of_names() {
        let names = |dir: &str| {
            let place = Place::new(dir).unwrap();
            [place.bridge(), place.network(), place.cgroup()]
        };
        assert_eq!(names("/tmp/one"), names("/tmp//one/"));
        assert_ne!(names("/tmp/one"), names("/tmp/two"));
    }

    #[test]
    fn what_no_configuration_could_hold_is_refused() {
        for dir in [
            "",
            "relative",
            "/",
            "/a/../b",
            "/with space",
            "/with\"quote",
        ] {
            assert!(Place::new(dir).is_err(), "{dir:?}");
        }
    }

    #[test]
    fn a_long_path_gives_way_to_a_short_one() {
        let long = format!("/{}", "a".repeat(200));
        let place = Place::near(Path::new(&long)).unwrap();
        assert!(place.dir().starts_with(std::env::temp_dir()));
        assert_eq!(place, Place::near(Path::new(&long)).unwrap());
        assert_eq!(
            Place::near(Path::new("/tmp/short")).unwrap().dir(),
            Path::new("/tmp/short")
        );
    }
}
