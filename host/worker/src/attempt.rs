//! One task of the queue, from its claim to the report.
//!
//! Every step may be the last one before a crash. What is on this machine says how far
//! it came: the run keeps its name, its folder and its output until the queue took the
//! report, so whoever comes next goes on from there.

use std::sync::Arc;
use std::time::Duration;

use taskwright_control::port::{OutputError, Stream};
use taskwright_model::{Outcome, Task, TaskKey, TaskState};
use taskwright_queue::port::ReportedEnd;
use taskwright_queue::{Cause, NewLogEntry, WorkerId};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::end;
use crate::folder::{Folder, Written};
use crate::lines::{self, Splitter};
use crate::port::{Assignment, QueueError, WorkQueue};
use crate::runs::{Runs, StartError};
use crate::template::{Template, Templates, run_name};

/// Bytes of a stream that are read at once.
const PIECE_BYTES: usize = 256 * 1024;
/// Lines, and bytes of them, that are handed over at once.
const MOST_LINES: usize = 1000;
const MOST_LINE_BYTES: usize = 1024 * 1024;
/// Output is looked at no more often: a line a time would be a request a line.
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);
/// How long one look waits for news.
const LOOK_TIME: Duration = Duration::from_secs(10);
/// The pauses between tries to reach the queue.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Tries to start a run while this machine is too busy to take it.
const MOST_STARTS: u32 = 10;
/// How long the end of a run that is stopped is waited for.
const STOP_TIME: Duration = Duration::from_secs(120);

/// What every attempt is given.
pub(crate) struct Around {
    pub(crate) worker: WorkerId,
    pub(crate) queue: Arc<dyn WorkQueue>,
    pub(crate) runs: Runs,
    pub(crate) templates: Arc<Templates>,
}

/// How an attempt was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// The queue has its end.
    Reported,
    /// It was not ours any more: stopped, and nothing of it is left.
    Gone,
}

/// A growing pause.
struct Pause(Duration);

impl Pause {
    fn new() -> Self {
        Self(FIRST_PAUSE)
    }

    async fn pass(&mut self) {
        sleep(self.0).await;
        self.0 = self.0.saturating_mul(2).min(LONGEST_PAUSE);
    }
}

impl Around {
    /// Carries out an attempt, or goes on with it. `gone` is cancelled once it is not ours.
    pub(crate) async fn carry_out(
        &self,
        assignment: &Assignment,
        gone: &CancellationToken,
    ) -> Left {
        let name = run_name(assignment.task, assignment.attempt);
        let Some(template) = self.templates.of(&assignment.problem) else {
            let error = format!(
                "worker {} has no template for the problem {}",
                self.worker, assignment.problem
            );
            return self.report(assignment, infrastructure(error), gone).await;
        };
        let place = template.place();
        let folder = self.runs.folder(&name, place);
        let started = tokio::select! {
            started = self.start(&name, assignment, template, &folder) => started,
            () = gone.cancelled() => Err("it was taken away before it started".to_owned()),
        };
        let left = match started {
            Ok(key) => {
                let mut output = Output::of(self, assignment, key.clone(), folder.clone());
                let ended = tokio::select! {
                    ended = output.follow() => ended,
                    () = gone.cancelled() => None,
                };
                let left = match ended {
                    Some(outcome) => {
                        let most = self.runs.largest_result();
                        let reading = folder.clone();
                        let written = blocking(move || reading.result(most)).await;
                        let written = written.unwrap_or_else(Written::Unusable);
                        let end = end::of(&outcome, written);
                        self.report(assignment, end, gone).await
                    }
                    None => Left::Gone,
                };
                self.clear_away(&key).await;
                left
            }
            Err(error) => self.report(assignment, infrastructure(error), gone).await,
        };
        let _nothing_to_tell = blocking(move || folder.remove()).await;
        left
    }

    async fn start(
        &self,
        name: &str,
        assignment: &Assignment,
        template: &Template,
        folder: &Folder,
    ) -> Result<TaskKey, String> {
        let key = Runs::named(name).map_err(|error| error.to_string())?;
        if self.runs.get(&key).is_some() {
            return Ok(key);
        }
        let inside = Runs::inside(folder, name, template.place());
        let task = template.task(name, assignment, self.worker.as_str(), inside.as_ref());
        let spec = self.runs.read(&task).map_err(|error| error.to_string())?;
        if inside.is_some() {
            let user = spec.confinement.user.as_ref();
            let owner = user.map(|user| (user.uid, user.gid));
            let (folder, parameters) = (folder.clone(), assignment.parameters.clone());
            let made = blocking(move || folder.make(&parameters, owner)).await?;
            made.map_err(|error| format!("its folder could not be made: {error}"))?;
        }
        let mut pause = Pause::new();
        for _ in 1..MOST_STARTS {
            match self.runs.start(&key, spec.clone()).await {
                Ok(()) => return Ok(key),
                Err(StartError::Refused(why)) => return Err(why),
                Err(StartError::Later(why)) => {
                    tracing::warn!(worker = %self.worker, task = %assignment.task, why,
                        "a claimed task could not be started yet");
                    pause.pass().await;
                }
            }
        }
        let started = self.runs.start(&key, spec).await;
        started.map(|()| key).map_err(|error| error.to_string())
    }

    /// Tells the queue, as often as it takes.
    async fn report(
        &self,
        assignment: &Assignment,
        end: ReportedEnd,
        gone: &CancellationToken,
    ) -> Left {
        let mut pause = Pause::new();
        loop {
            let (task, attempt) = (assignment.task, assignment.attempt);
            let told = self.queue.report(&self.worker, task, attempt, end.clone());
            match told.await {
                Ok(()) => return Left::Reported,
                Err(QueueError::Away(why)) => {
                    tracing::warn!(worker = %self.worker, %task, why, "a report waits for the queue");
                }
                Err(error) => {
                    tracing::warn!(worker = %self.worker, %task, %error, "a report came too late");
                    return Left::Gone;
                }
            }
            tokio::select! {
                () = pause.pass() => {}
                () = gone.cancelled() => return Left::Gone,
            }
        }
    }

    /// Stops what runs and removes every trace.
    pub(crate) async fn clear_away(&self, key: &TaskKey) {
        let until = Instant::now() + STOP_TIME;
        let mut pause = Pause::new();
        while let Some(task) = self.runs.get(key).filter(|_| Instant::now() < until) {
            if task.deleting_since.is_none()
                && let Err(error) = self.runs.delete(key).await
            {
                tracing::debug!(%error, run = %key, "a run could not be removed yet");
            }
            pause.pass().await;
        }
    }
}

fn infrastructure(error: String) -> ReportedEnd {
    ReportedEnd::Failed {
        error,
        document: None,
        cause: Cause::Infrastructure,
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| error.to_string())
}

/// The output of a run, on its way to the queue.
struct Output<'a> {
    around: &'a Around,
    assignment: &'a Assignment,
    key: TaskKey,
    folder: Folder,
    streams: [Source; 2],
    /// Whether lines are still handed over.
    open: bool,
}

struct Source {
    stream: Stream,
    name: &'static str,
    /// How far it was read.
    read: u64,
    splitter: Splitter,
}

impl<'a> Output<'a> {
    fn of(around: &'a Around, assignment: &'a Assignment, key: TaskKey, folder: Folder) -> Self {
        let [out, err] = folder.handed_over();
        let source = |stream, name, read| Source {
            stream,
            name,
            read,
            splitter: Splitter::default(),
        };
        Self {
            around,
            assignment,
            key,
            folder,
            streams: [
                source(Stream::Stdout, "stdout", out),
                source(Stream::Stderr, "stderr", err),
            ],
            open: true,
        }
    }

    /// Hands over what is printed until the run has ended; `None`: it is gone.
    async fn follow(&mut self) -> Option<Outcome> {
        loop {
            // Looked at before reading: what was printed before the end is then surely read.
            let task = self.around.runs.get(&self.key)?;
            let ended = outcome(&task);
            if let Err(error) = self.hand_over(ended.is_some()).await {
                self.give_up(&error);
            }
            if let Some(outcome) = ended {
                return Some(outcome);
            }
            let ends = self.streams.each_ref().map(|source| source.read);
            tokio::select! {
                () = self.around.runs.grown(&self.key, ends, LOOK_TIME), if self.open => {
                    sleep(BETWEEN_LOOKS).await;
                }
                waited = self.around.runs.wait(&self.key, LOOK_TIME) => {
                    if waited.is_err() {
                        // Too many wait: looked at again a little later.
                        sleep(LOOK_TIME / 10).await;
                    }
                }
            }
        }
    }

    fn give_up(&mut self, why: &str) {
        self.open = false;
        tracing::warn!(
            worker = %self.around.worker, task = %self.assignment.task, why,
            "the output of a task is not handed over any more"
        );
    }

    async fn hand_over(&mut self, last: bool) -> Result<(), String> {
        if !self.open {
            return Ok(());
        }
        loop {
            let mut lines = Vec::new();
            let mut news = false;
            for source in &mut self.streams {
                let chunk = self
                    .around
                    .runs
                    .output(&self.key, source.stream, source.read, PIECE_BYTES)
                    .await;
                let chunk = match chunk {
                    Ok(chunk) => chunk,
                    Err(OutputError::Replaced(why)) => return Err(why),
                    Err(OutputError::Unreadable(why)) => return Err(why),
                };
                if chunk.bytes.is_empty() {
                    continue;
                }
                news = true;
                let attempt = self.assignment.attempt;
                if chunk.offset > source.read {
                    let left_out = chunk.offset - source.read;
                    let message = format!("{left_out} bytes of {} were not kept", source.name);
                    lines.push(lines::note(message, attempt));
                }
                source.read = chunk.offset + chunk.bytes.len() as u64;
                let whole = source.splitter.take(&chunk.bytes);
                lines.extend(entries(whole, source.name, attempt));
            }
            if last && !news {
                for source in &mut self.streams {
                    let rest = source.splitter.finish();
                    lines.extend(entries(rest, source.name, self.assignment.attempt));
                }
            }
            let any = !lines.is_empty();
            for batch in batches(lines) {
                self.send(batch).await?;
            }
            if any {
                self.remember().await?;
            }
            if !news {
                return Ok(());
            }
        }
    }

    async fn send(&self, lines: Vec<NewLogEntry>) -> Result<(), String> {
        let mut pause = Pause::new();
        loop {
            let Assignment { task, attempt, .. } = *self.assignment;
            let sent = self
                .around
                .queue
                .log(&self.around.worker, task, attempt, lines.clone());
            match sent.await {
                Ok(()) => return Ok(()),
                // Its output is in its files meanwhile.
                Err(QueueError::Away(_)) => pause.pass().await,
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    async fn remember(&self) -> Result<(), String> {
        let offsets = self
            .streams
            .each_ref()
            .map(|source| source.read.saturating_sub(source.splitter.waiting() as u64));
        let folder = self.folder.clone();
        let remembered = blocking(move || folder.remember(offsets)).await?;
        remembered.map_err(|error| error.to_string())
    }
}

/// Blank lines say nothing, and are left out.
fn entries(
    lines: impl IntoIterator<Item = String>,
    stream: &'static str,
    attempt: u32,
) -> impl Iterator<Item = NewLogEntry> {
    let said = lines.into_iter().filter(|line| !line.trim().is_empty());
    said.map(move |line| lines::entry(&line, stream, attempt))
}

/// Parts of bounded size.
fn batches(lines: Vec<NewLogEntry>) -> Vec<Vec<NewLogEntry>> {
    let mut batches = Vec::new();
    let (mut batch, mut bytes) = (Vec::new(), 0);
    for line in lines {
        let size = line.message.len() + line.context.as_str().len();
        if batch.len() >= MOST_LINES || (bytes + size > MOST_LINE_BYTES && !batch.is_empty()) {
            batches.push(std::mem::take(&mut batch));
            bytes = 0;
        }
        bytes += size;
        batch.push(line);
    }
    if !batch.is_empty() {
        batches.push(batch);
    }
    batches
}

fn outcome(task: &Task) -> Option<Outcome> {
    match &task.state {
        TaskState::Ended { outcome, .. } => Some(outcome.clone()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    //! What is handed over at once.
    use super::*;

    #[test]
    fn batches_are_bounded_in_lines_and_bytes() {
        let short = vec![lines::entry("x", "stdout", 1); MOST_LINES * 2 + 1];
        let sizes: Vec<usize> = batches(short).iter().map(Vec::len).collect();
        assert_eq!(sizes, [MOST_LINES, MOST_LINES, 1]);
        let long = vec![lines::entry(&"x".repeat(lines::LONGEST_LINE), "stdout", 1); 40];
        for batch in batches(long) {
            let bytes: usize = batch.iter().map(|line| line.message.len()).sum();
            assert!(bytes <= MOST_LINE_BYTES);
        }
        assert!(batches(Vec::new()).is_empty());
    }
}
