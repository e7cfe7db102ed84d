//! What `/proc` says. A zombie is dead: it holds nothing and does nothing.

use std::path::{Path, PathBuf};

/// A living process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its pid.
    pub pid: u32,
    /// Its parent's pid.
    pub parent: u32,
    /// When it was started, in clock ticks since boot: with the pid, its identity.
    pub start_ticks: u64,
    /// The short name that `ps` shows.
    pub name: String,
}

/// Every living process.
#[must_use]
pub fn living() -> Vec<Process> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(look)
        .collect()
}

/// The process with this pid, unless it is dead.
#[must_use]
pub fn look(pid: u32) -> Option<Process> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // PID (NAME) STATE PPID ... and the name may hold anything.
    let (head, tail) = stat.rsplit_once(')')?;
    let name = head.split_once('(')?.1.to_owned();
    let fields: Vec<&str> = tail.split_whitespace().collect();
    if matches!(*fields.first()?, "Z" | "X" | "x") {
        return None;
    }
    Some(Process {
        pid,
        parent: fields.get(1)?.parse().ok()?,
        start_ticks: fields.get(19)?.parse().ok()?,
        name,
    })
}

/// Whether a process with this pid lives.
#[must_use]
pub fn is_alive(pid: u32) -> bool {
    look(pid).is_some()
}

/// Whether a process stands still, because a signal stopped it.
#[must_use]
pub fn is_stopped(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(')').map(|(_, tail)| tail.trim_start());
    state.is_some_and(|state| state.starts_with('T'))
}

/// Every living process whose environment at its start held `variable`, as `NAME=VALUE`.
#[must_use]
pub fn with_variable(variable: &str) -> Vec<Process> {
    let mut found = living();
    found.retain(|process| environment(process.pid).iter().any(|one| one == variable));
    found
}

/// The environment a process was started with.
#[must_use]
pub fn environment(pid: u32) -> Vec<String> {
    let bytes = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    words(&bytes)
}

/// The words of a process's command line.
#[must_use]
pub fn command_line(pid: u32) -> Vec<String> {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    words(&bytes)
}

fn words(bytes: &[u8]) -> Vec<String> {
    bytes
        .split(|byte| *byte == 0)
        .filter(|word| !word.is_empty())
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .collect()
}

/// Every living process that has to do with `directory`: by its command line, its working
/// directory or a file it holds open.
#[must_use]
pub fn holding(directory: &Path) -> Vec<Process> {
    let mut found = living();
    found.retain(|process| holds(process.pid, directory));
    found
}

fn holds(pid: u32, directory: &Path) -> bool {
    let root = PathBuf::from(format!("/proc/{pid}"));
    let below =
        |link: &Path| std::fs::read_link(link).is_ok_and(|target| target.starts_with(directory));
    if below(&root.join("cwd")) {
        return true;
    }
    let named = directory.to_string_lossy();
    if command_line(pid)
        .iter()
        .any(|word| word.contains(named.as_ref()))
    {
        return true;
    }
    let descriptors = std::fs::read_dir(root.join("fd"));
    descriptors.is_ok_and(|all| all.flatten().any(|one| below(&one.path())))
}

/// The resident memory of a process now, in bytes.
///
/// # Panics
/// It is not there.
#[must_use]
pub fn resident(pid: u32) -> u64 {
    memory(pid, "VmRSS:")
}

/// The most memory that was ever resident of it, in bytes.
///
/// # Panics
/// It is not there.
#[must_use]
pub fn peak(pid: u32) -> u64 {
    memory(pid, "VmHWM:")
}

fn memory(pid: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or_else(|| panic!("/proc/{pid}/status has no {name}")) * 1024
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use std::process::Command;

    use super::*;
    use crate::reaper::{Owned, shell_code};
    use crate::{SOON, eventually};

    #[test]
    fn a_zombie_is_dead() {
        let mut child = Owned::spawn(&mut Command::new("true")).unwrap();
        // Nobody has taken its status away yet.
        eventually(SOON, "the child is dead", || !is_alive(child.pid()));
        assert!(Path::new(&format!("/proc/{}", child.pid())).exists());
        assert_eq!(shell_code(child.wait(SOON)), 0);
    }

    #[test]
    fn a_process_is_found_by_its_variable_and_its_directory() {
        let directory = tempfile::tempdir().unwrap();
        let variable = format!("E2E_TEST={}", directory.path().display());
        let (name, value) = variable.split_once('=').unwrap();
        let mut command = Command::new("sleep");
        command.arg("60").env(name, value).current_dir(&directory);
        let child = Owned::spawn(&mut command).unwrap();
        let pids = |found: Vec<Process>| found.iter().map(|one| one.pid).collect::<Vec<u32>>();
        // A moment between its exec and the kernel's note of where its variables lie, and its
        // environment reads as empty.
        eventually(SOON, "the child is found by its variable", || {
            pids(with_variable(&variable)) == [child.pid()]
        });
        assert_eq!(pids(holding(directory.path())), [child.pid()]);
    }

    #[test]
    fn orphans_are_taken_away() {
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 0.1 & echo $!"]);
        let finished = crate::cli::finish(&mut command, b"", SOON).expect(0);
        let orphan: u32 = finished.stdout.trim().parse().unwrap();
        eventually(SOON, "the orphan is gone, zombie and all", || {
            !Path::new(&format!("/proc/{orphan}")).exists()
        });
    }
}
