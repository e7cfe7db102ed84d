//! What is told while a task is waited for: on a terminal one line of how it is and since when,
//! and everywhere a note whenever policies begin to hold it.

use std::convert::Infallible;
use std::io::{IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::client::Client;
use crate::client::wire::TaskView;
use crate::output;
use crate::units::human_duration;

/// How often the line is renewed, and the first pause where there is none.
const PERIOD: Duration = Duration::from_millis(500);
/// The longest pause between two looks where there is no line: a thousand commands that wait
/// shall not keep the daemon busy.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// What erases the line.
const ERASE: &str = "\r\x1b[K";

/// How long there is a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    /// Until the task runs: its output has the terminal from there on.
    Running,
    /// Until it has ended.
    Ended,
}

/// The line, and the right to write it.
pub(crate) struct Progress {
    /// Off in a pipe, and for good once the task prints.
    on: AtomicBool,
    /// Whether there is a line to erase.
    drawn: AtomicBool,
    until: Until,
    quiet: bool,
    /// The hold that was told last.
    held: Mutex<Option<String>>,
}

impl Progress {
    /// A line if standard error is a terminal, and notes, unless somebody asked for quiet.
    pub(crate) fn new(quiet: bool, until: Until) -> Self {
        Self {
            on: AtomicBool::new(!quiet && std::io::stderr().is_terminal()),
            drawn: AtomicBool::new(false),
            until,
            quiet,
            held: Mutex::default(),
        }
    }

    /// Notes alone: the terminal belongs to what the task prints.
    pub(crate) fn without_line() -> Self {
        let progress = Self::new(false, Until::Running);
        progress.end();
        progress
    }

    /// Says that policies hold the task, and what to do about it, once for each time they do.
    pub(crate) fn tell_of_hold(&self, task: TaskView<'_>) {
        let mut told = self.held.lock();
        let holds = task.hold_id();
        if *told == holds {
            return;
        }
        *told = holds;
        if let Some(hold) = task.hold() {
            self.erase();
            output::note(&format!("taskwright: {hold}"));
        }
    }

    fn erase(&self) {
        if self.drawn.swap(false, Ordering::Relaxed) {
            write(ERASE);
        }
    }

    /// Erases the line; it does not come back.
    pub(crate) fn end(&self) {
        self.on.store(false, Ordering::Relaxed);
        self.erase();
    }

    /// Renews the line as long as there is one, and looks whether the task is held. Never ends by
    /// itself: it is dropped.
    pub(crate) async fn watch(&self, client: &Client, name: &str) -> Infallible {
        let begun = Instant::now();
        let mut pause = PERIOD;
        if self.quiet {
            return std::future::pending().await;
        }
        loop {
            if self.on.load(Ordering::Relaxed) {
                tokio::time::sleep(PERIOD).await;
            } else {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            // A daemon that does not answer is told by whoever needs the answer.
            let Ok(task) = client.get(name).await else {
                continue;
            };
            let task = TaskView(&task);
            self.tell_of_hold(task);
            let over = self.until == Until::Running && task.is_running();
            if over || task.is_ended() {
                self.end();
            } else if self.on.load(Ordering::Relaxed) {
                self.drawn.store(true, Ordering::Relaxed);
                let waited = human_duration(begun.elapsed());
                write(&format!(
                    "{ERASE}task {name}: {} for {waited}",
                    task.state()
                ));
            }
        }
    }
}

fn write(text: &str) {
    let mut err = std::io::stderr().lock();
    // A terminal that is gone takes the line with it.
    let _ = err.write_all(text.as_bytes()).and_then(|()| err.flush());
}
