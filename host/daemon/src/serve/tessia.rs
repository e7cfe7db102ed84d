//! Keeps the files of the Tessia task runner beside its tasks: `<id>.result` and `output.log`.
//!
//! An observer of the feed and nothing more: what it does not get done changes no task. Files
//! are in the task's own directory, or under the work root if there is one (`task-<id>/`).
//! After a restart it begins again with what is on record, so that an end that came while the
//! daemon was away is written, too.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use taskwright_api::tessia::exit_code;
use taskwright_control::Control;
use taskwright_control::port::Stream;
use taskwright_control::request::Selector;
use taskwright_model::{Happening, Namespace, Task, TaskId, TaskKey, TaskState};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::places::Places;
use super::units::blocking;
use crate::tessia::log::OutputLog;
use crate::tessia::result::ResultFile;
use crate::tessia::{HEARTBEAT, time};

/// Tasks whose `output.log` grows with their output. That of others does with their heartbeat:
/// looking for output costs a little, and there may be thousands.
const MOST_LIVE: usize = 64;
/// Ends that are written at a time.
const MOST_WRITERS: usize = 8;
/// Bytes of one step from a stream to `output.log`.
const PIECE_BYTES: usize = 256 * 1024;
/// Lines of the feed that are read at once.
const MOST_LINES: usize = 500;

/// Where the files of a task are.
#[derive(Clone, Debug)]
pub(crate) struct Homes {
    places: Places,
    work_root: Option<PathBuf>,
}

impl Homes {
    /// Beside the tasks' own files, or under `work_root`.
    pub(crate) fn new(places: Places, work_root: Option<PathBuf>) -> Self {
        Self { places, work_root }
    }

    fn of(&self, key: &TaskKey) -> PathBuf {
        match &self.work_root {
            Some(root) => root.join(format!("task-{}", key.name)),
            None => self.places.task(key),
        }
    }

    /// Makes the directory, where it is not that of the task anyway.
    fn make(&self, key: &TaskKey) -> io::Result<PathBuf> {
        let directory = self.of(key);
        if self.work_root.is_some() {
            use std::os::unix::fs::DirBuilderExt as _;
            let mut builder = std::fs::DirBuilder::new();
            builder.recursive(true).mode(0o700).create(&directory)?;
        }
        Ok(directory)
    }
}

/// What every part of the work is given.
struct Shared {
    control: Control,
    homes: Homes,
    /// The most bytes of an `output.log`.
    output_cap: u64,
    live: Arc<Semaphore>,
    /// Ends that are written at a time.
    writers: Semaphore,
}

/// Keeps the files until the daemon ends.
pub(crate) async fn keep(control: Control, homes: Homes, output_cap: u64) {
    let shared = Arc::new(Shared {
        control,
        homes,
        output_cap,
        live: Arc::new(Semaphore::new(MOST_LIVE)),
        writers: Semaphore::new(MOST_WRITERS),
    });
    Keeper {
        shared,
        watched: HashMap::new(),
        work: JoinSet::new(),
    }
    .run()
    .await;
}

struct Keeper {
    shared: Arc<Shared>,
    /// Told when a task has ended, by the task.
    watched: HashMap<TaskId, CancellationToken>,
    work: JoinSet<()>,
}

impl Keeper {
    async fn run(mut self) {
        let control = self.shared.control.clone();
        let mut position = control.feed_position();
        let mut after = *position.borrow_and_update();
        self.catch_up();
        loop {
            tokio::select! {
                changed = position.changed() => if changed.is_err() { return },
                Some(_) = self.work.join_next() => continue,
            }
            let newest = *position.borrow_and_update();
            while after < newest {
                let lines = control.feed(after, None, MOST_LINES).await;
                let Some(last) = lines.iter().flatten().last().map(|line| line.sequence) else {
                    // The store lost them, or says no: what is on record says the same.
                    after = newest;
                    self.catch_up();
                    break;
                };
                after = last;
                for line in lines.into_iter().flatten() {
                    if line.key.namespace == Namespace::tessia() {
                        self.hear(line.task, &line.key, &line.happening);
                    }
                }
            }
        }
    }

    /// Everything that is on record, whatever was done about it already.
    fn catch_up(&mut self) {
        let selector = Selector {
            namespace: Some(Namespace::tessia()),
            ..Selector::default()
        };
        for task in self.shared.control.list(&selector, None, usize::MAX).tasks {
            match task.state {
                TaskState::Ended { .. } => self.end(&task),
                TaskState::Running { .. } | TaskState::Stopping { .. } => self.watch(task),
                TaskState::Pending { .. } | TaskState::Starting { .. } => {}
            }
        }
    }

    fn hear(&mut self, id: TaskId, key: &TaskKey, happening: &Happening) {
        let control = &self.shared.control;
        let task = || control.get(key).filter(|task| task.id == id);
        match happening {
            Happening::Running(_) => task().into_iter().for_each(|task| self.watch(task)),
            Happening::Ended(_) => match task() {
                Some(task) => self.end(&task),
                // Removed already: nobody writes any more.
                None => self.leave(id),
            },
            Happening::Removed => {
                self.leave(id);
                self.remove(key.clone());
            }
            _ => {}
        }
    }

    fn watch(&mut self, task: Arc<Task>) {
        if self.watched.contains_key(&task.id) {
            return;
        }
        let ended = CancellationToken::new();
        self.watched.insert(task.id, ended.clone());
        let shared = self.shared.clone();
        self.work.spawn(async move {
            match shared.follow(&task, &ended).await {
                Ok(Followed::ToItsEnd) => return,
                Ok(Followed::NotYet) => {}
                Err(why) => shared.tell(&task, &why),
            }
            // Its end is written nevertheless, if it can be.
            ended.cancelled().await;
            if let Err(why) = shared.write_end_once(&task).await {
                shared.tell(&task, &why);
            }
        });
    }

    fn leave(&mut self, id: TaskId) {
        if let Some(ended) = self.watched.remove(&id) {
            ended.cancel();
        }
    }

    /// Whoever follows it writes its end; where nobody does, it is written now.
    fn end(&mut self, task: &Arc<Task>) {
        if let Some(ended) = self.watched.remove(&task.id) {
            ended.cancel();
            return;
        }
        let (shared, task) = (self.shared.clone(), task.clone());
        self.work.spawn(async move {
            if let Err(why) = shared.write_end_once(&task).await {
                shared.tell(&task, &why);
            }
        });
    }

    /// The task's own directory went with it; one under the work root goes now.
    fn remove(&mut self, key: TaskKey) {
        let homes = &self.shared.homes;
        if homes.work_root.is_none() {
            return;
        }
        let directory = homes.of(&key);
        self.work.spawn_blocking(move || {
            if let Err(error) = std::fs::remove_dir_all(&directory)
                && error.kind() != io::ErrorKind::NotFound
            {
                tell(&key, &error.to_string());
            }
        });
    }
}

fn tell(key: &TaskKey, why: &str) {
    tracing::warn!(task = %key, why, "the result file and output.log of a task could not be written");
}

/// What came of following a task.
enum Followed {
    /// Everything was written.
    ToItsEnd,
    /// It had no directory yet.
    NotYet,
}

/// How far the streams of a task were taken over.
#[derive(Default)]
struct Read([u64; 2]);

const STREAMS: [Stream; 2] = [Stream::Stdout, Stream::Stderr];

impl Shared {
    /// Tells of what could not be written, unless the task is gone, and with it its directory.
    fn tell(&self, task: &Task, why: &str) {
        let now = self.control.get(&task.key);
        let stays = |now: &Arc<Task>| now.id == task.id && now.deleting_since.is_none();
        if now.as_ref().is_some_and(stays) {
            tell(&task.key, why);
        }
    }

    /// Writes the files of a task that runs until it has ended.
    async fn follow(
        &self,
        task: &Arc<Task>,
        ended: &CancellationToken,
    ) -> Result<Followed, String> {
        let Some((result, mut log)) = self.begin(task).await? else {
            return Ok(Followed::NotYet);
        };
        let mut read = Read::default();
        let live = self.live.clone().try_acquire_owned().ok();
        let mut beat = Instant::now() + HEARTBEAT;
        loop {
            // Looked at before reading: what was printed before the end is then surely read.
            let over = ended.is_cancelled();
            log = self.take_over(&task.key, &mut read, log).await?;
            if over {
                self.finish(task, result, log).await?;
                return Ok(Followed::ToItsEnd);
            }
            tokio::select! {
                () = ended.cancelled() => {}
                () = tokio::time::sleep_until(beat) => {
                    beat += HEARTBEAT;
                    log = self.say_alive(task, &result, log).await?;
                }
                () = self.grown(&task.key, &read), if live.is_some() => {}
            }
        }
    }

    /// Writes the files of a task that has ended, if nobody did.
    async fn write_end_once(&self, task: &Arc<Task>) -> Result<(), String> {
        // After a restart there may be a hundred thousand.
        let _turn = self.writers.acquire().await;
        if self.ended(task).is_none() {
            return Ok(());
        }
        let (homes, key) = (self.homes.clone(), task.key.clone());
        let known = move || ResultFile::read(&homes.of(&key), key.name.as_str());
        let known = blocking(known).await?;
        if matches!(
            known,
            Ok(Some(ResultFile {
                finished_at: Some(_),
                ..
            }))
        ) {
            return Ok(());
        }
        let Some((result, log)) = self.begin(task).await? else {
            return Ok(());
        };
        let log = self.take_over(&task.key, &mut Read::default(), log).await?;
        self.finish(task, result, log).await
    }

    /// The files as they are at the start; `None` where a task has no directory, because nothing
    /// of it was ever started.
    async fn begin(&self, task: &Arc<Task>) -> Result<Option<(ResultFile, OutputLog)>, String> {
        let attempt = task.attempts.last();
        let started = attempt.and_then(|attempt| attempt.started_at);
        let started = started.or(attempt.map(|attempt| attempt.launched_at));
        let started = time(started.unwrap_or(task.submitted_at));
        let process = attempt.and_then(|attempt| attempt.process);
        let process = process.map_or(0, |process| process.pid);
        let name = task.key.name.as_str();
        let result = ResultFile::running(name, process, started, Timestamp::now());
        let (homes, key, cap) = (self.homes.clone(), task.key.clone(), self.output_cap);
        let writing = move || {
            let directory = homes.make(&key)?;
            let log = match OutputLog::begin(&directory, cap, started) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                other => other?,
            };
            result.write(&directory)?;
            Ok(Some((result, log)))
        };
        blocking(writing).await?.map_err(told)
    }

    /// Everything that was printed since the last look.
    async fn take_over(
        &self,
        key: &TaskKey,
        read: &mut Read,
        mut log: OutputLog,
    ) -> Result<OutputLog, String> {
        loop {
            let mut news = false;
            for (stream, offset) in STREAMS.into_iter().zip(&mut read.0) {
                let outputs = self.control.outputs();
                let chunk = outputs.read(key.clone(), stream, *offset, PIECE_BYTES);
                let chunk = chunk.await.map_err(|error| error.to_string())?;
                if chunk.bytes.is_empty() {
                    continue;
                }
                news = true;
                *offset = chunk.offset + chunk.bytes.len() as u64;
                let adding = move || log.add(&chunk.bytes).map(|()| log);
                log = blocking(adding).await?.map_err(told)?;
            }
            if !news {
                return Ok(log);
            }
        }
    }

    /// Resolves when there is more to take over.
    async fn grown(&self, key: &TaskKey, read: &Read) {
        let outputs = self.control.outputs();
        let streams = STREAMS.into_iter().zip(read.0);
        let grown = streams.map(|(stream, end)| outputs.grown(key.clone(), stream, end, HEARTBEAT));
        futures::future::select_all(grown).await;
    }

    /// When a task ended and with which code; `None` where nobody needs to know any more, because
    /// it is being removed: a new file would be in the way of that.
    fn ended(&self, task: &Task) -> Option<(Timestamp, i32)> {
        let now = self.control.get(&task.key)?;
        match &now.state {
            TaskState::Ended { at, outcome }
                if now.id == task.id && now.deleting_since.is_none() =>
            {
                Some((time(*at), exit_code(outcome)))
            }
            _ => None,
        }
    }

    async fn say_alive(
        &self,
        task: &Arc<Task>,
        result: &ResultFile,
        mut log: OutputLog,
    ) -> Result<OutputLog, String> {
        let directory = self.homes.of(&task.key);
        let result = result.clone().alive(Timestamp::now());
        let writing = move || {
            log.say(Timestamp::now(), "Still running")?;
            result.write(&directory).map(|()| log)
        };
        blocking(writing).await?.map_err(told)
    }

    /// The last line, and then the result: who reads that it finished finds all of the output.
    async fn finish(
        &self,
        task: &Arc<Task>,
        result: ResultFile,
        mut log: OutputLog,
    ) -> Result<(), String> {
        let Some((at, code)) = self.ended(task) else {
            return Ok(());
        };
        let directory = self.homes.of(&task.key);
        let writing = move || {
            log.say(at, crate::tessia::log::last_words(code))?;
            result.finished(at, code).write(&directory)
        };
        blocking(writing).await?.map_err(told)
    }
}

fn told(error: io::Error) -> String {
    error.to_string()
}
