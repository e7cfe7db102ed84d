//! One line on the terminal while a task is waited for: how it is, and since when. Nothing in a
//! pipe.

use std::convert::Infallible;
use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::client::Client;
use crate::client::wire::TaskView;
use crate::units::human_duration;

/// How often the line is renewed.
const PERIOD: Duration = Duration::from_millis(500);
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
#[derive(Clone)]
pub(crate) struct Progress {
    /// Off in a pipe, and for good once the task prints.
    on: Arc<AtomicBool>,
    /// Whether there is a line to erase.
    drawn: Arc<AtomicBool>,
    until: Until,
}

impl Progress {
    /// A line if standard error is a terminal and nobody asked for quiet.
    pub(crate) fn new(quiet: bool, until: Until) -> Self {
        let on = !quiet && std::io::stderr().is_terminal();
        Self {
            on: Arc::new(AtomicBool::new(on)),
            drawn: Arc::default(),
            until,
        }
    }

    /// Erases the line; it does not come back.
    pub(crate) fn end(&self) {
        self.on.store(false, Ordering::Relaxed);
        if self.drawn.swap(false, Ordering::Relaxed) {
            write(ERASE);
        }
    }

    /// Renews the line as long as there is one. Never ends by itself after that: it is dropped.
    pub(crate) async fn watch(&self, client: &Client, name: &str) -> Infallible {
        let begun = Instant::now();
        while self.on.load(Ordering::Relaxed) {
            tokio::time::sleep(PERIOD).await;
            // A daemon that does not answer is told by whoever needs the answer.
            let Ok(task) = client.get(name).await else {
                continue;
            };
            let task = TaskView(&task);
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
        std::future::pending().await
    }
}

fn write(text: &str) {
    let mut err = std::io::stderr().lock();
    // A terminal that is gone takes the line with it.
    let _ = err.write_all(text.as_bytes()).and_then(|()| err.flush());
}
