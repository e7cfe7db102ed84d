//! Whether the machine was restarted since a daemon last worked in this data directory.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// The kernel's word for this boot (`random(4)`).
const KERNEL: &str = "/proc/sys/kernel/random/boot_id";

/// What is known of the last boot.
#[derive(Debug)]
pub(crate) struct Boot {
    path: PathBuf,
    present: Option<String>,
    /// Another boot saw us last, or none: nothing that ran then runs now.
    pub(crate) rebooted: bool,
    /// Whether any boot saw us.
    pub(crate) known: bool,
}

impl Boot {
    /// Compares the kernel's boot with the one on record.
    pub(crate) fn detect(path: PathBuf) -> Self {
        Self::compare(path, read(Path::new(KERNEL)))
    }

    fn compare(path: PathBuf, present: Option<String>) -> Self {
        // A boot that is not on record is another one: in a new directory there is nothing that
        // this could be wrong about. Where the kernel does not tell, the supervisor's log says
        // what it can.
        let last = read(&path);
        let rebooted = present.is_some() && last != present;
        Self {
            path,
            present,
            rebooted,
            known: last.is_some(),
        }
    }

    /// Puts this boot on record. To be done once all that the last one left was dealt with:
    /// whoever is interrupted before that must find the same again.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn remember(&self) -> anyhow::Result<()> {
        let Some(present) = &self.present else {
            return Ok(());
        };
        let fresh = self.path.with_extension("tmp");
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        options
            .open(&fresh)
            .and_then(|mut file| {
                file.write_all(present.as_bytes())?;
                file.sync_all()
            })
            .and_then(|()| std::fs::rename(&fresh, &self.path))
            .and_then(|()| sync_parent(&self.path))
            .with_context(|| format!("write {}", self.path.display()))
    }
}

fn sync_parent(path: &Path) -> std::io::Result<()> {
    path.parent()
        .map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

fn read(path: &Path) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    #[test]
    fn another_boot_is_noticed_until_it_is_remembered() {
        let path = std::env::temp_dir().join(format!("taskwright-boot-{}", std::process::id()));
        let detect = |id: &str| Boot::compare(path.clone(), Some(id.to_owned()));
        assert!(detect("one").rebooted, "nothing is on record yet");
        detect("one").remember().unwrap();
        assert!(!detect("one").rebooted);
        assert!(detect("two").rebooted);
        assert!(detect("two").rebooted, "as long as it was not remembered");
        detect("two").remember().unwrap();
        assert!(!detect("two").rebooted);
        std::fs::remove_file(&path).unwrap();
    }
}
