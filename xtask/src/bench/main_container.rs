//! A main container for (h), made by `unshare` of util-linux: namespaces of its own, a root file
//! system with busybox, and a first process that knows its name and waits.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use taskwright_test_containerd::images;

use super::Skipped;
use super::place::Place;

/// The variable by which a sidecar finds its main container.
const VARIABLE: &str = "SANDBOX_MAIN_CONTAINER";
/// What every process in there is given.
const SEARCH_PATH: &str = "PATH=/bin";
const LONGEST_START: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(5);

/// Changes the root: `$1` is a busybox of the machine, `$2` the new root, `$3` the variable. The
/// first process waits for the end of its input, which is held by whoever made the container.
const ENTER: &str = r#"
set -e
"$1" mount -o bind "$2" "$2"
"$1" mount -t proc proc "$2/proc"
cd "$2"
"$1" pivot_root . old
"/old$1" umount -l /old
exec /bin/busybox env -i PATH=/bin "$3" /bin/cat
"#;

/// A main container. Dropped, everything in it is dead.
#[derive(Debug)]
pub(super) struct MainContainer {
    maker: Child,
    /// Its first process, as this machine sees it.
    pub(super) pid: i32,
}

impl MainContainer {
    pub(super) fn start(busybox: &Path, place: &Place, name: &str) -> anyhow::Result<Self> {
        let root = place.path("main-container");
        images::busybox_tree(busybox, &["true", "cat"], &root)?;
        // Where the machine's root is for a moment.
        fs::create_dir(root.join("old"))?;
        let variable = format!("{VARIABLE}={name}");
        let spawned = Command::new("unshare")
            .args(["--mount", "--pid", "--net", "--uts", "--ipc"])
            .args(["--fork", "--kill-child"])
            .arg(busybox)
            .args(["sh", "-c", ENTER, "main-container"])
            .args([busybox, &root])
            .arg(&variable)
            .stdin(Stdio::piped())
            .spawn();
        let maker = match spawned {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                bail!(Skipped("no `unshare` (package util-linux)".to_owned()))
            }
            other => other.context("start `unshare`")?,
        };
        let mut container = Self { maker, pid: 0 };
        container.pid = container.first_process(&variable)?;
        Ok(container)
    }

    /// The environment of what is run in there.
    pub(super) fn environment(&self) -> &'static str {
        SEARCH_PATH
    }

    /// Waits for the last step, which alone sets the variable.
    fn first_process(&mut self, variable: &str) -> anyhow::Result<i32> {
        let begun = Instant::now();
        let maker = self.maker.id();
        loop {
            let children = fs::read_to_string(format!("/proc/{maker}/task/{maker}/children"));
            let child = children.unwrap_or_default().trim().parse::<i32>().ok();
            if let Some(pid) = child {
                let variables = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
                if variables
                    .split(|byte| *byte == 0)
                    .any(|one| one == variable.as_bytes())
                {
                    return Ok(pid);
                }
            }
            if let Some(status) = self.maker.try_wait()? {
                bail!("the main container ended at its start with {status}");
            }
            ensure!(
                begun.elapsed() < LONGEST_START,
                "the main container does not start"
            );
            std::thread::sleep(LOOK);
        }
    }
}

impl Drop for MainContainer {
    fn drop(&mut self) {
        // `--kill-child`: the first process ends with its maker, and all others with that.
        let _ = self.maker.kill();
        let _ = self.maker.wait();
    }
}
