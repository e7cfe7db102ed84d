//! Small and read-only file systems, where that is permitted.

use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// A mounted tmpfs. Dropped, it is unmounted.
#[derive(Debug)]
pub struct Tmpfs {
    path: PathBuf,
}

impl Tmpfs {
    /// Mounts one of this size at a directory, which is made if missing.
    ///
    /// # Errors
    /// A sentence that says why that is not possible here.
    pub fn mount(path: &Path, bytes: u64) -> Result<Self, String> {
        std::fs::create_dir_all(path).map_err(|error| error.to_string())?;
        let options = format!("size={bytes},mode=0700");
        mount(
            Some("tmpfs"),
            path,
            Some("tmpfs"),
            MsFlags::MS_NODEV | MsFlags::MS_NOSUID,
            Some(options.as_str()),
        )
        .map_err(|error| format!("a tmpfs cannot be mounted: {error}"))?;
        Ok(Self {
            path: path.to_owned(),
        })
    }

    /// Makes it read-only.
    ///
    /// # Errors
    /// A sentence that says why that is not possible here.
    pub fn make_read_only(&self) -> Result<(), String> {
        let flags =
            MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | MsFlags::MS_NODEV | MsFlags::MS_NOSUID;
        mount(None::<&str>, &self.path, None::<&str>, flags, None::<&str>)
            .map_err(|error| format!("a tmpfs cannot be made read-only: {error}"))
    }

    /// Makes it that large.
    ///
    /// # Errors
    /// A sentence that says why that is not possible here.
    pub fn resize(&self, bytes: u64) -> Result<(), String> {
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_NODEV | MsFlags::MS_NOSUID;
        let options = format!("size={bytes}");
        mount(
            None::<&str>,
            &self.path,
            None::<&str>,
            flags,
            Some(options.as_str()),
        )
        .map_err(|error| format!("a tmpfs cannot be resized: {error}"))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Detached: whoever still has a file open there is about to die anyway.
        let _gone_with_its_directory = umount2(&self.path, MntFlags::MNT_DETACH);
    }
}
