//! `<id>.result`: how a task is, as one JSON object.
//!
//! Written whole at the start, every minute, and at the end. What the original runner wrote is
//! read again, and judged: a task whose file is stale and whose process is gone is lost.

use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use taskwright_api::LeftState;

use super::{HEARTBEAT, iso, open_plain, replace};

/// The largest file that is read, in bytes.
const MOST_BYTES: u64 = 64 * 1024;
/// So long after its last heartbeat a task counts as silent: three of them, so that one that
/// comes late is no end.
const STALE: Duration = HEARTBEAT.saturating_mul(3);
/// How far the start of a process may be from the time at which its task says it began.
const SAME_START: Duration = Duration::from_secs(60);
/// The key of `status` by which our own files are known.
const RUNNER: &str = "runner";

/// The contract's object: these keys and no others.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ResultFile {
    pub(crate) task_id: String,
    /// 0 where the task has no process of its own.
    pub(crate) process_id: i64,
    pub(crate) started_at: String,
    pub(crate) updated_at: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) finished_at: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) exit_code: Option<i64>,
    /// Free: here it says who wrote the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    status: Option<Value>,
}

impl ResultFile {
    /// A task that runs.
    pub(crate) fn running(id: &str, process: u32, started: Timestamp, now: Timestamp) -> Self {
        Self {
            task_id: id.to_owned(),
            process_id: process.into(),
            started_at: iso(started),
            updated_at: iso(now),
            finished_at: None,
            exit_code: None,
            status: Some(json!({ RUNNER: "taskwright" })),
        }
    }

    /// The same, still running.
    pub(crate) fn alive(self, now: Timestamp) -> Self {
        Self {
            updated_at: iso(now),
            ..self
        }
    }

    /// The same, ended.
    pub(crate) fn finished(self, at: Timestamp, exit_code: i32) -> Self {
        Self {
            updated_at: iso(at),
            finished_at: Some(iso(at)),
            exit_code: Some(exit_code.into()),
            ..self
        }
    }

    /// Where it belongs.
    pub(crate) fn path(directory: &Path, id: &str) -> PathBuf {
        directory.join(format!("{id}.result"))
    }

    /// Writes it into `directory`.
    ///
    /// # Errors
    /// What the file system says.
    pub(crate) fn write(&self, directory: &Path) -> io::Result<()> {
        let text = serde_json::to_vec(self)?;
        replace(&Self::path(directory, &self.task_id), &text)
    }

    /// Reads the file of the task `id`. `None`: there is no such file.
    ///
    /// # Errors
    /// When it is there and is not what it should be.
    pub(crate) fn read(directory: &Path, id: &str) -> io::Result<Option<Self>> {
        let path = Self::path(directory, id);
        let file = match open_plain(&path, OpenOptions::new().read(true)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let mut text = String::new();
        file.take(MOST_BYTES).read_to_string(&mut text)?;
        let read: Self = serde_json::from_str(&text)?;
        if read.task_id == id {
            return Ok(Some(read));
        }
        let sentence = format!("it is of the task {:?}", read.task_id);
        Err(io::Error::new(io::ErrorKind::InvalidData, sentence))
    }

    /// Whether we wrote it.
    pub(crate) fn is_ours(&self) -> bool {
        let runner = self.status.as_ref().and_then(|status| status.get(RUNNER));
        runner.and_then(Value::as_str) == Some("taskwright")
    }

    /// What became of the task of another runner, with what is known of its process.
    pub(crate) fn judge(&self, now: Timestamp, process: Process) -> LeftState {
        let started = read_time(&self.started_at);
        let same = match (process, started) {
            (Process::Gone, _) => false,
            // A number is used again; the moment of the start is not.
            (Process::Since(since), Some(started)) => {
                started.duration_since(since).unsigned_abs() <= SAME_START
            }
            (Process::Since(_), None) => false,
        };
        let stale = read_time(&self.updated_at)
            .is_none_or(|updated| now.duration_since(updated).as_secs_f64() > STALE.as_secs_f64());
        match self.finished_at {
            Some(_) => LeftState::Exited,
            None if same || !stale => LeftState::Running,
            None => LeftState::Lost,
        }
    }
}

/// A time of a result file. Python leaves microseconds out where there are none.
pub(crate) fn read_time(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

/// What is known of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Process {
    /// There is none of this number.
    Gone,
    /// It began then.
    Since(Timestamp),
}

impl Process {
    /// The process of this number, as `/proc` has it now.
    pub(crate) fn of(pid: i64) -> Self {
        started(pid).map_or(Self::Gone, Self::Since)
    }
}

/// When a process began: field 22 of `/proc/PID/stat`, in clock ticks since the boot.
fn started(pid: i64) -> Option<Timestamp> {
    if pid <= 0 {
        return None;
    }
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name of the program stands in parentheses and may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    // A zombie has ended, whether or not anybody asked how.
    if fields.next()? == "Z" {
        return None;
    }
    let ticks: i64 = fields.nth(18)?.parse().ok()?;
    let machine = std::fs::read_to_string("/proc/stat").ok()?;
    let boot = machine
        .lines()
        .find_map(|line| line.strip_prefix("btime "))?;
    let boot: i64 = boot.trim().parse().ok()?;
    let a_second = i64::try_from(rustix::param::clock_ticks_per_second()).ok()?;
    Timestamp::from_second(boot + ticks / a_second.max(1)).ok()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use jiff::SignedDuration;

    use super::*;

    fn now() -> Timestamp {
        "2026-01-01T12:00:00Z".parse().unwrap()
    }

    fn before(seconds: i64) -> Timestamp {
        now() - SignedDuration::from_secs(seconds)
    }

    #[test]
    fn what_is_written_is_read_and_is_the_contracts() {
        let folder = tempfile::tempdir().unwrap();
        let running = ResultFile::running("0000aaaa", 7, before(90), before(30));
        running.write(folder.path()).unwrap();
        let read = ResultFile::read(folder.path(), "0000aaaa");
        assert_eq!(read.unwrap(), Some(running.clone()));
        assert!(running.is_ours());
        running.finished(now(), -1).write(folder.path()).unwrap();
        let text = std::fs::read_to_string(folder.path().join("0000aaaa.result")).unwrap();
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value.get("exit_code"), Some(&json!(-1)));
        let at = value.get("finished_at").unwrap().as_str().unwrap();
        assert_eq!(read_time(at), Some(now()));
        assert!(at.contains(".000000") && at.len() == 32, "{at}");
        let names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(names.len(), 1, "nothing is left beside it");
        assert_eq!(ResultFile::read(folder.path(), "other").unwrap(), None);
    }

    #[test]
    fn what_is_no_result_is_an_error_and_no_link_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.result");
        let other = ResultFile::running("b", 7, now(), now());
        let further = serde_json::to_string(&other).unwrap();
        let further = further.replace('{', "{\"more\": 1, ");
        for text in ["", "{}", &serde_json::to_string(&other).unwrap(), &further] {
            std::fs::write(&path, text).unwrap();
            assert!(ResultFile::read(folder.path(), "a").is_err(), "{text}");
        }
        let target = folder.path().join("target");
        std::fs::write(&target, "kept").unwrap();
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(&target, &path).unwrap();
        std::os::unix::fs::symlink(&target, folder.path().join(".a.result.new")).unwrap();
        assert!(ResultFile::read(folder.path(), "a").is_err());
        let ours = ResultFile::running("a", 7, now(), now());
        ours.write(folder.path()).unwrap();
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "kept");
        assert!(ResultFile::read(folder.path(), "a").unwrap().is_some());
    }

    #[test]
    fn a_stale_file_of_a_process_that_is_gone_is_lost() {
        let file = |updated: i64| ResultFile::running("a", 7, before(600), before(updated));
        let since = |seconds| Process::Since(before(seconds));
        for (updated, process, state) in [
            (10, Process::Gone, LeftState::Running),
            (170, Process::Gone, LeftState::Running),
            (190, Process::Gone, LeftState::Lost),
            // Another process got the number.
            (190, since(300), LeftState::Lost),
            (190, since(601), LeftState::Running),
        ] {
            let judged = file(updated).judge(now(), process);
            assert_eq!(judged, state, "{updated} {process:?}");
        }
        let finished = file(500).finished(before(400), 0);
        assert_eq!(finished.judge(now(), Process::Gone), LeftState::Exited);
        let unreadable = ResultFile {
            updated_at: "yesterday".to_owned(),
            ..file(1)
        };
        assert_eq!(unreadable.judge(now(), Process::Gone), LeftState::Lost);
    }

    #[test]
    fn a_process_is_known_by_its_start() {
        let own = Process::of(std::process::id().into());
        let Process::Since(since) = own else {
            unreachable!("this process runs: {own:?}");
        };
        let age = Timestamp::now().duration_since(since).as_secs();
        assert!((-2..3600).contains(&age), "{age}");
        assert_eq!(Process::of(0), Process::Gone);
        assert_eq!(Process::of(i64::from(i32::MAX)), Process::Gone);
    }

    #[test]
    fn times_of_the_original_are_read() {
        for text in [
            "2022-01-25T10:15:30.123456+01:00",
            "2022-01-25T10:15:30+00:00",
        ] {
            assert!(read_time(text).is_some(), "{text}");
        }
    }
}
