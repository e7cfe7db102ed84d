//! A private directory for one test, and every process that belongs to it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::cli::{self, Finished};
use crate::network::{self, Machine};
use crate::processes::{self, Process};
use crate::{SOON, binary, containerd, eventually, reaper};

/// The variable that every task of a daemon in this home carries, so that it is found
/// wherever it hides.
const MARK: &str = "E2E_HOME";

/// A private directory. Dropped, it ends every process that belongs to it and is removed.
#[derive(Debug)]
pub struct Home {
    directory: TempDir,
}

impl Default for Home {
    fn default() -> Self {
        Self::new()
    }
}

impl Home {
    /// A fresh one, with a short path: Unix sockets go in there.
    ///
    /// # Panics
    /// When there is no room for one.
    #[must_use]
    pub fn new() -> Self {
        match tempfile::Builder::new().prefix("tw-").tempdir() {
            Ok(directory) => Self { directory },
            Err(error) => panic!("make a directory for a test: {error}"),
        }
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The data directory of the daemon in this home.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.path().join("data")
    }

    /// Writes a file into the home and answers with its path.
    ///
    /// # Panics
    /// When it cannot be written.
    #[must_use]
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        if let Err(error) = std::fs::write(&path, content) {
            panic!("write {path:?}: {error}");
        }
        path
    }

    /// What to put into `--task-env`, so that tasks are found.
    #[must_use]
    pub fn mark(&self) -> String {
        format!("{MARK}={}", self.path().display())
    }

    /// The program, with an environment that holds nothing of ours.
    #[must_use]
    pub fn command(&self, program: &Path) -> Command {
        self.at_home(Command::new(program))
    }

    /// The same, on a machine of a network.
    #[must_use]
    pub fn command_on(&self, machine: &Machine, program: &Path) -> Command {
        let mut command = network::command(&machine.namespace());
        command.arg(program);
        self.at_home(command)
    }

    fn at_home(&self, mut command: Command) -> Command {
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.path())
            .current_dir(self.path())
            .stdin(Stdio::null());
        command
    }

    /// Runs `taskwright` with these words to its end.
    ///
    /// # Panics
    /// When it does not end within [`SOON`].
    #[must_use]
    pub fn taskwright(&self, words: &[&str]) -> Finished {
        let mut command = self.command(binary::taskwright());
        command.args(words);
        cli::finish(&mut command, b"", SOON)
    }

    /// Every living process of a task of this home.
    #[must_use]
    pub fn task_processes(&self) -> Vec<Process> {
        processes::with_variable(&self.mark())
    }

    /// Every living process of the program itself in this home: daemons, supervisors.
    #[must_use]
    pub fn own_processes(&self) -> Vec<Process> {
        let mark = self.mark();
        let mut found = processes::holding(self.path());
        // The containerd of the run holds the logs of every test's containers open.
        found.retain(|process| {
            !containerd::is_of_the_run(process.pid)
                && !processes::environment(process.pid).contains(&mark)
        });
        found
    }

    /// Kills all of them, and waits until they are dead.
    pub fn clear(&self) {
        let everything = || {
            let mut all = self.own_processes();
            all.extend(self.task_processes());
            all
        };
        // Twice in a row: a guardian may have forked the next supervisor between two looks.
        let mut empty_looks = 0;
        eventually(SOON, "the processes of a test are dead", || {
            let left = everything();
            for process in &left {
                reaper::send(process.pid, Signal::KILL);
            }
            empty_looks = if left.is_empty() { empty_looks + 1 } else { 0 };
            empty_looks == 2
        });
        self.remove_groups();
    }

    /// How the cgroups of this home's tasks are called: by a checksum of its supervisor's
    /// directory.
    ///
    /// # Panics
    /// When no daemon was started in it yet.
    #[must_use]
    pub fn groups_name(&self) -> String {
        match self.data().canonicalize() {
            Ok(data) => groups_name(&data),
            Err(error) => panic!("find the data directory of a test: {error}"),
        }
    }

    /// Removes the cgroups that a killed supervisor could not remove.
    fn remove_groups(&self) {
        let Ok(data) = self.data().canonicalize() else {
            return;
        };
        let name = groups_name(&data);
        for mount in [
            "/sys/fs/cgroup",
            "/sys/fs/cgroup/unified",
            "/sys/fs/cgroup/freezer",
        ] {
            let base = Path::new(mount).join(&name);
            for group in std::fs::read_dir(&base).into_iter().flatten().flatten() {
                // Files in there cannot be removed, and need not be.
                let _only_groups = std::fs::remove_dir(group.path());
            }
            let _not_there = std::fs::remove_dir(base);
        }
    }
}

fn groups_name(data: &Path) -> String {
    use std::os::unix::ffi::OsStrExt as _;
    let state = data.join(".taskwright/supervisor");
    let checksum = crc32fast::hash(state.as_os_str().as_bytes());
    format!("taskwright-{checksum:08x}")
}

impl Drop for Home {
    fn drop(&mut self) {
        // A failed test must not fail twice, which would end all the others.
        if std::thread::panicking() {
            for process in self.own_processes().iter().chain(&self.task_processes()) {
                reaper::send(process.pid, Signal::KILL);
            }
        } else {
            self.clear();
        }
    }
}
