//! What a reader of a task has seen, and what comes next.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use taskwright_model::TaskId;
use taskwright_queue::{LogEntry, QueuedTask, StoreError};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::Seat;
use crate::problem::Problem;
use crate::room::Taken;
use crate::state::ApiState;

/// About as much of lines as is read at a time, in bytes; one line may weigh a megabyte more.
const PAGE_BYTES: usize = 256 * 1024;
/// How long after a look the next one follows at the soonest: a task that changes a thousand
/// times in a second is not read as often.
const SOONEST: Duration = Duration::from_millis(50);
/// How often it is looked again though nobody told: notices may be lost.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// How far a reader has come: the revision of the last state it saw, and the number of the last
/// line. 0 is before everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) revision: u64,
    pub(super) line: u64,
}

impl Position {
    /// Reads what a stream gave out, or the number of a line alone.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (revision, line) = text.split_once('.').unwrap_or(("0", text));
        let number = |text: &str| {
            let plain = text.bytes().all(|byte| byte.is_ascii_digit());
            let number = text.parse::<u64>().ok()?;
            (plain && number <= u64::MAX / 2).then_some(number)
        };
        Some(Self {
            revision: number(revision)?,
            line: number(line)?,
        })
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.revision, self.line)
    }
}

/// Something that a reader has not seen.
#[derive(Debug)]
pub(super) enum News {
    /// Where the task is now.
    State(Box<QueuedTask>),
    /// A line.
    Line(LogEntry),
}

/// What comes next on a stream. After anything but news, nothing does.
#[derive(Debug)]
pub(super) enum Next {
    /// News, and how far whoever saw it has come.
    News(Position, News),
    /// The task has ended, and all of it was told.
    Over,
    /// The daemon goes down.
    GoingDown,
    /// The store does not answer, or too much is under way.
    Failed(Problem),
}

/// Reads a task for one stream.
pub(super) struct Watcher {
    state: Arc<ApiState>,
    task: TaskId,
    seat: Seat,
    /// As far as everything in `ready` leads.
    at: Position,
    /// At most a page of lines and a state, and the room that they take among all streams.
    ready: VecDeque<(Position, News)>,
    room: Taken,
    /// The revision that was read last.
    read: Option<u64>,
    /// Whether that was its end, which is told after its last line.
    ended: bool,
    looked: Option<Instant>,
    over: bool,
}

impl Watcher {
    /// Takes a place and a first look. A task that is not there, or a store that does not answer,
    /// is told before a stream begins.
    pub(super) async fn begin(
        state: Arc<ApiState>,
        task: TaskId,
        at: Position,
    ) -> Result<Self, Problem> {
        let seat = state.queue_api.live.sit(task)?;
        let mut watcher = Self {
            state,
            task,
            seat,
            at,
            ready: VecDeque::new(),
            room: Taken::default(),
            read: None,
            ended: false,
            looked: None,
            over: false,
        };
        watcher.look().await?;
        Ok(watcher)
    }

    /// Whether everything was seen already and nothing will come.
    pub(super) fn has_nothing_more(&self) -> bool {
        self.over && self.ready.is_empty()
    }

    /// Everything from here on. Ends after whatever is not news.
    pub(super) fn stream(self) -> impl Stream<Item = Next> + Send {
        futures::stream::unfold(Some(self), |watcher| async {
            let mut watcher = watcher?;
            let next = watcher.next().await;
            let goes_on = matches!(next, Next::News(..));
            Some((next, goes_on.then_some(watcher)))
        })
    }

    async fn next(&mut self) -> Next {
        let shutdown = self.state.shutdown.clone();
        loop {
            if let Some((position, news)) = self.ready.pop_front() {
                return Next::News(position, news);
            }
            self.room = Taken::default();
            if self.over {
                return Next::Over;
            }
            let soonest = self.looked.map_or_else(Instant::now, |at| at + SOONEST);
            tokio::select! {
                () = shutdown.cancelled() => return Next::GoingDown,
                () = self.wait(soonest) => {}
            }
            if let Err(problem) = self.look().await {
                return Next::Failed(problem);
            }
        }
    }

    /// Until there may be something new.
    async fn wait(&mut self, soonest: Instant) {
        let until = soonest + LOOK_AGAIN;
        // Nobody to tell is the same as nothing told.
        if let Ok(Err(_)) = timeout_at(until, self.seat.news.changed()).await {
            sleep_until(until).await;
        }
        sleep_until(soonest).await;
    }

    /// Reads what is new, a bounded part of it.
    async fn look(&mut self) -> Result<(), Problem> {
        let live = self.state.queue_api.live.clone();
        let _looking = live.look().await;
        let mut at = self.at;
        let mut news = Vec::new();
        // What is told from now on is another look's.
        self.seat.news.mark_unchanged();
        self.looked = Some(Instant::now());
        let store = self.state.queue.store();
        let gone = || StoreError::NoSuchTask(self.task);
        let revision = store.task_revision(self.task).await?.ok_or_else(gone)?;
        if self.read != Some(revision) {
            let task = store.task(self.task).await?.ok_or_else(gone)?;
            self.read = Some(task.revision);
            self.ended = task.status.is_ended();
            if !self.ended && task.revision != at.revision {
                at.revision = task.revision;
                news.push((at, News::State(Box::new(task))));
            }
        }
        let part = store.logs_after(self.task, at.line, PAGE_BYTES).await?;
        for line in part.lines {
            at.line = line.sequence;
            news.push((at, News::Line(line)));
        }
        let over = self.ended && !part.more;
        if over && Some(at.revision) != self.read {
            // Read once more rather than held while its lines are told: it may weigh more than
            // all of them, and does not change any more.
            let task = store.task(self.task).await?.ok_or_else(gone)?;
            at.revision = task.revision;
            news.push((at, News::State(Box::new(task))));
        }
        let bytes = news.iter().map(|(_, one)| one.bytes()).sum();
        self.state.queue_api.live.take_room(&mut self.room, bytes)?;
        self.ready.extend(news);
        self.at = at;
        self.over = over;
        // There is more of it than a page: no pause, and nobody has to tell.
        if part.more {
            self.looked = None;
            self.seat.news.mark_changed();
        }
        Ok(())
    }
}

impl News {
    /// About as much as it holds in memory.
    fn bytes(&self) -> usize {
        match self {
            Self::Line(line) => line.message.len() + line.context.as_str().len(),
            Self::State(task) => {
                let documents = [&task.result, &task.error_document].into_iter().flatten();
                let documents: usize = documents.map(|json| json.as_str().len()).sum();
                documents + task.parameters.as_str().len()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_read_as_they_are_given_out() {
        let position = Position {
            revision: 3,
            line: 17,
        };
        assert_eq!(position.to_string(), "3.17");
        assert_eq!(Position::parse("3.17"), Some(position));
        let line = Position {
            revision: 0,
            line: 17,
        };
        assert_eq!(Position::parse("17"), Some(line));
        for bad in [
            "",
            ".",
            "3.",
            ".3",
            "+1",
            "1.-2",
            "x",
            "1.2.3",
            "18446744073709551615",
        ] {
            assert_eq!(Position::parse(bad), None, "{bad:?}");
        }
    }
}
