//! Tasks that the original runner left under the work root: read, told of, never changed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{DirEntry, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use parking_lot::Mutex;
use taskwright_api::{LeftState, LeftTask, LeftTasks};

use crate::tessia::result::{Process, ResultFile, read_time};

/// The most tasks that are taken up. Further ones are left alone.
const MOST: usize = 10_000;
/// The most bytes of the list of forgotten ones that are read.
const MOST_FORGOTTEN_BYTES: usize = 1 << 20;
/// How long what was read of a task that runs is good for.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Tasks that were found when the daemon started.
pub(crate) struct LeftOver {
    found: Mutex<Found>,
    /// Where it is kept which of them were forgotten, an id on each line.
    forgotten: PathBuf,
}

struct Found {
    tasks: BTreeMap<String, (PathBuf, LeftTask)>,
    looked_at: Instant,
}

impl LeftOver {
    /// Looks into a work root. Files that we wrote ourselves are none of these, and neither is
    /// what the file `forgotten` lists.
    pub(crate) fn find(work_root: &Path, forgotten: PathBuf) -> Self {
        let text = std::fs::read_to_string(&forgotten).unwrap_or_default();
        let text = text.get(..MOST_FORGOTTEN_BYTES).unwrap_or(&text);
        let gone: BTreeSet<&str> = text.lines().collect();
        let entries = std::fs::read_dir(work_root).into_iter().flatten().flatten();
        let found = entries.filter_map(|entry| found(&entry));
        let found = found
            .filter(|(id, _)| !gone.contains(id.as_str()))
            .take(MOST);
        let tasks: BTreeMap<_, _> = found.collect();
        if !tasks.is_empty() {
            tracing::info!(
                tasks = tasks.len(),
                work_root = %work_root.display(),
                "another runner left tasks: they are listed, and nothing of them is changed"
            );
        }
        let looked_at = Instant::now();
        Self {
            found: Mutex::new(Found { tasks, looked_at }),
            forgotten,
        }
    }
}

impl Found {
    /// What still ran may have ended since.
    fn look_again(&mut self) {
        if self.looked_at.elapsed() < LOOK_AGAIN {
            return;
        }
        self.looked_at = Instant::now();
        for (directory, task) in self.tasks.values_mut() {
            if task.state == LeftState::Running {
                *task = judged(directory, &task.id).unwrap_or(LeftTask {
                    state: LeftState::Lost,
                    ..task.clone()
                });
            }
        }
    }
}

impl LeftTasks for LeftOver {
    fn all(&self) -> Vec<LeftTask> {
        let mut found = self.found.lock();
        found.look_again();
        let mut tasks: Vec<LeftTask> = found.tasks.values().map(|(_, task)| task.clone()).collect();
        tasks.sort_by_key(|task| task.started_at);
        tasks
    }

    fn get(&self, id: &str) -> Option<LeftTask> {
        let mut found = self.found.lock();
        found.look_again();
        found.tasks.get(id).map(|(_, task)| task.clone())
    }

    fn forget(&self, id: &str) -> bool {
        let mut found = self.found.lock();
        let known = found.tasks.remove(id).is_some();
        if known && let Err(error) = note(&self.forgotten, id) {
            tracing::warn!(%error, id, "a task of another runner is forgotten until the next start only");
        }
        known
    }
}

/// Adds a line to the list of what was forgotten.
fn note(list: &Path, id: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options.append(true).create(true).mode(0o600).open(list)?;
    writeln!(file, "{id}")
}

/// The task of a directory `task-<id>`, if another runner wrote its result file.
fn found(entry: &DirEntry) -> Option<(String, (PathBuf, LeftTask))> {
    let name = entry.file_name();
    let id = name.to_str()?.strip_prefix("task-")?;
    let is_id = !id.is_empty() && id.len() <= 64 && id.bytes().all(|c| c.is_ascii_alphanumeric());
    if !is_id || !entry.file_type().ok()?.is_dir() {
        return None;
    }
    let directory = entry.path();
    let task = judged(&directory, id)?;
    Some((id.to_owned(), (directory, task)))
}

/// What its file says of it; `None`: there is none, or it is ours.
fn judged(directory: &Path, id: &str) -> Option<LeftTask> {
    let read = match ResultFile::read(directory, id) {
        Ok(None) => return None,
        Ok(Some(file)) if file.is_ours() => return None,
        Ok(Some(file)) => file,
        // What cannot be read says nothing of an end.
        Err(_) => {
            return Some(LeftTask {
                id: id.to_owned(),
                state: LeftState::Lost,
                exit_code: None,
                started_at: None,
                updated_at: None,
                finished_at: None,
            });
        }
    };
    let at = |text: &str| {
        let at = read_time(text)?;
        Some(taskwright_model::Timestamp::from_millis(
            at.as_millisecond(),
        ))
    };
    Some(LeftTask {
        id: id.to_owned(),
        state: read.judge(Timestamp::now(), Process::of(read.process_id)),
        exit_code: read.exit_code,
        started_at: at(&read.started_at),
        updated_at: at(&read.updated_at),
        finished_at: read.finished_at.as_deref().and_then(at),
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    fn write(root: &Path, id: &str, text: &str) {
        let directory = root.join(format!("task-{id}"));
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join(format!("{id}.result")), text).unwrap();
    }

    #[test]
    fn what_another_runner_left_is_told_in_order_and_forgotten() {
        let root = tempfile::tempdir().unwrap();
        let file = |id: &str, start: &str, rest: &str| {
            let text = format!(
                r#"{{"task_id": "{id}", "process_id": 0, "started_at": "{start}",
                    "updated_at": "{start}"{rest}}}"#
            );
            write(root.path(), id, &text);
        };
        let end = r#", "finished_at": "2022-01-25T10:00:00+00:00", "exit_code": -3"#;
        file("bbbb0002", "2022-01-25T09:00:00+00:00", end);
        file("aaaa0001", "2022-01-25T09:30:00+00:00", "");
        write(root.path(), "cccc0003", "{");
        let now = Timestamp::now();
        let ours = ResultFile::running("dddd0004", 1, now, now);
        std::fs::create_dir(root.path().join("task-dddd0004")).unwrap();
        ours.write(&root.path().join("task-dddd0004")).unwrap();
        std::fs::create_dir(root.path().join("task-empty")).unwrap();
        std::fs::write(root.path().join("task-file"), "").unwrap();

        let list = root.path().join("forgotten");
        let left = LeftOver::find(root.path(), list.clone());
        let told: Vec<_> = left
            .all()
            .into_iter()
            .map(|task| (task.id, task.state, task.exit_code))
            .collect();
        let one = |id: &str, state, code| (id.to_owned(), state, code);
        assert_eq!(
            told,
            [
                one("cccc0003", LeftState::Lost, None),
                one("bbbb0002", LeftState::Exited, Some(-3)),
                one("aaaa0001", LeftState::Lost, None),
            ]
        );
        assert!(left.forget("aaaa0001") && !left.forget("aaaa0001"));
        assert!(left.get("aaaa0001").is_none());
        let again = LeftOver::find(root.path(), list.clone());
        assert_eq!(again.all().len(), 2, "it stays forgotten");
        let none = LeftOver::find(&root.path().join("none"), list);
        assert!(none.all().is_empty());
    }
}
