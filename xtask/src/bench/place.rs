//! A private directory of one benchmark, and the processes that live in it.
//!
//! A process belongs to a place if its command line, its environment or its working
//! directory names it: so the daemon, its supervisor and the tasks are found after
//! whatever went wrong, and nothing else is ever touched.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long processes may take to be gone once they are killed. The machine's init may take
/// its time to reap them, but a dead process counts as gone.
const LONGEST_DEATH: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(5);
/// What the kernel counts processor time in: the same on every machine that Linux tells of it.
const TICKS_PER_SECOND: f64 = 100.0;

/// Where the places of one run are; removed with everything in it when dropped.
///
/// Not before: some file systems (ext4 without a journal) search past every recently deleted
/// inode for a new one, so what one benchmark removes would slow the next one's tasks down.
/// For the same reason places are spread over the disk, apart from what others deleted.
#[derive(Debug)]
pub(super) struct Home {
    root: PathBuf,
    places: AtomicU32,
}

impl Home {
    /// A new directory below `parent`.
    pub(super) fn new(parent: &Path) -> anyhow::Result<Self> {
        let root = parent.join(format!("run-{}", std::process::id()));
        make(&root)?;
        let root = fs::canonicalize(root)?;
        // "Top of a hierarchy" to ext4. Others have no such flag, and need none.
        let _ = Command::new("chattr")
            .arg("+T")
            .arg(&root)
            .stderr(Stdio::null())
            .status();
        Ok(Self {
            root,
            places: AtomicU32::new(0),
        })
    }

    /// A new place in it.
    pub(super) fn place(&self) -> anyhow::Result<Place> {
        let number = self.places.fetch_add(1, Ordering::Relaxed);
        // A name of its own in every run: ext4 finds a spot on the disk by a hash of it. As many
        // digits as there ever are: no name begins with another.
        let run = std::process::id();
        let root = self.root.join(format!("place-{run}-{number:04}"));
        make(&root)?;
        Ok(Place { root })
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

fn make(directory: &Path) -> anyhow::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .with_context(|| format!("make {}", directory.display()))
}

/// The directory of one benchmark.
#[derive(Debug)]
pub(super) struct Place {
    root: PathBuf,
}

impl Place {
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// What a process is marked with by its environment, if it hands that on.
    pub(super) fn mark(&self) -> (&'static str, &Path) {
        ("XTASK_BENCH_PLACE", &self.root)
    }

    /// The living processes of this place. Those of `program` alone, if one is given.
    pub(super) fn processes(&self, program: Option<&Path>) -> Vec<i32> {
        let inside =
            |pid: &i32| self.holds(*pid) && program.is_none_or(|program| runs(*pid, program));
        all_processes().filter(inside).collect()
    }

    /// Ends every process of this place.
    pub(super) fn clear(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + LONGEST_DEATH;
        loop {
            let left = self.processes(None);
            if left.is_empty() {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "{} processes of a benchmark do not end",
                left.len()
            );
            for pid in left {
                // It may have ended by itself since it was listed.
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn holds(&self, pid: i32) -> bool {
        let root = self.root.as_os_str().as_bytes();
        let names_it = |file| {
            let bytes = fs::read(proc_file(pid, file)).unwrap_or_default();
            bytes.windows(root.len()).any(|window| window == root)
        };
        let lives_in_it =
            || fs::read_link(proc_file(pid, "cwd")).is_ok_and(|cwd| cwd.starts_with(&self.root));
        pid != std::process::id() as i32
            && (lives_in_it() || names_it("cmdline") || names_it("environ"))
            && is_alive(pid)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What is still wrong here was reported when it went wrong.
        let _ = self.clear();
    }
}

/// Whether a process is there and is no zombie.
pub(super) fn is_alive(pid: i32) -> bool {
    stat_fields(pid).is_ok_and(|fields| fields.first().is_some_and(|state| state != "Z"))
}

/// Waits until a process is dead.
pub(super) fn wait_for_death(pid: i32, longest: Duration) -> anyhow::Result<()> {
    let deadline = Instant::now() + longest;
    while is_alive(pid) {
        ensure!(
            Instant::now() < deadline,
            "process {pid} did not end within {longest:?}"
        );
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

/// Memory of a process that no file holds, in bytes: what it costs the machine.
pub(super) fn own_memory(pid: i32) -> io::Result<u64> {
    let status = fs::read_to_string(proc_file(pid, "status"))?;
    let kib = |line: &str| {
        line.split_whitespace()
            .nth(1)
            .and_then(|word| word.parse::<u64>().ok())
    };
    let own = |line: &&str| line.starts_with("RssAnon:") || line.starts_with("RssShmem:");
    Ok(status.lines().filter(own).filter_map(kib).sum::<u64>() * 1024)
}

/// Processor time that a process has used, in seconds.
pub(super) fn processor_seconds(pid: i32) -> io::Result<f64> {
    let fields = stat_fields(pid)?;
    let number = |index: usize| fields.get(index).and_then(|word| word.parse::<u64>().ok());
    // Fields 14 and 15 of the whole line: in its own code, and in the kernel for it.
    let ticks = number(11).unwrap_or(0) + number(12).unwrap_or(0);
    Ok(ticks as f64 / TICKS_PER_SECOND)
}

/// The fields of `stat` from the third on, the state: the name before it may hold anything.
fn stat_fields(pid: i32) -> io::Result<Vec<String>> {
    let stat = fs::read_to_string(proc_file(pid, "stat"))?;
    let after_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    Ok(after_name.split(' ').map(str::to_owned).collect())
}

fn runs(pid: i32, program: &Path) -> bool {
    fs::read_link(proc_file(pid, "exe")).is_ok_and(|exe| exe == program)
}

fn all_processes() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| OsStr::to_str(&entry.file_name())?.parse().ok())
}

fn proc_file(pid: i32, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/{name}"))
}
