//! One container's log, followed until its end is carried over.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::follow::{Follower, Progress};
use super::notice::{Notices, Watch};
use crate::messages::ReopenContainerLogRequest;
use crate::rpc::{RpcError, Runtime};

/// A log longer than this is rotated.
pub(crate) const MOST_LOG_BYTES: u64 = 8 * 1024 * 1024;
/// Pieces carried over in one go on a thread that may block.
const PIECES: usize = 16;
/// A log that nobody tells to be closed counts as written to its end when it was quiet so long.
const QUIET: Duration = Duration::from_millis(250);
/// Between two looks at a log that is watched: a safety net.
const WATCHED_PAUSE: Duration = Duration::from_secs(120);
/// Between two looks at a log that is not.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Between two looks at a log whose end is awaited.
const SHORT_PAUSE: Duration = Duration::from_millis(20);
/// Between two tries to write output that cannot be written, or to have a log begun anew.
const FAILURE_PAUSE: Duration = Duration::from_secs(1);

/// What a pump is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Follow,
    Finish,
}

/// The handle of a pump. The pump itself is a task of the host.
pub(crate) struct Pump {
    order: watch::Sender<Order>,
    finished: watch::Receiver<bool>,
}

/// What a pump needs.
pub(crate) struct Source {
    pub(crate) follower: Follower,
    pub(crate) container: String,
    pub(crate) runtime: Runtime,
    pub(crate) notices: Arc<Notices>,
    /// Set before the container starts, so that its log is seen to be closed; `None` for one that
    /// is found running.
    pub(crate) watch: Option<Watch>,
}

impl Pump {
    /// A pump and the future that does its work.
    pub(crate) fn new(source: Source) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (order, orders) = watch::channel(Order::Follow);
        let (finish, finished) = watch::channel(false);
        let work = async move {
            let mut source = source;
            let mut run = Run {
                watch: source.watch.take(),
                source: Some(source),
                orders,
                watched_part: false,
                quiet_since: Instant::now(),
                reopen_at: Instant::now(),
                pause: SHORT_PAUSE,
                failing: false,
            };
            run.run().await;
            finish.send_replace(true);
        };
        (Self { order, finished }, work)
    }

    /// The container has ended: resolves when its whole log is carried over, or after `at_most`.
    /// Whether it is.
    pub(crate) async fn finish(&self, at_most: Duration) -> bool {
        self.order.send_replace(Order::Finish);
        let mut finished = self.finished.clone();
        let all = finished.wait_for(|finished| *finished);
        matches!(tokio::time::timeout(at_most, all).await, Ok(Ok(_)))
    }
}

struct Run {
    /// Away only while a blocking thread has it.
    source: Option<Source>,
    orders: watch::Receiver<Order>,
    watch: Option<Watch>,
    /// Whether the watch is on a part that was rotated away.
    watched_part: bool,
    quiet_since: Instant,
    reopen_at: Instant,
    pause: Duration,
    failing: bool,
}

impl Run {
    async fn run(&mut self) {
        loop {
            self.reopen_if_due().await;
            let carried = self.on_disk(carry).await;
            match carried {
                Some(Ok(Progress::Some)) => {
                    self.quiet_since = Instant::now();
                    self.pause = SHORT_PAUSE;
                    self.failing = false;
                    self.rotate_if_long().await;
                }
                Some(Ok(at @ (Progress::End | Progress::NoLog))) => {
                    self.failing = false;
                    if self.step_at_end(at).await {
                        return;
                    }
                }
                Some(Err(error)) => {
                    if !self.failing {
                        tracing::warn!(container = self.container(), %error,
                            "a container's output cannot be carried over; it is tried again");
                    }
                    self.failing = true;
                    tokio::time::sleep(FAILURE_PAUSE).await;
                }
                // The blocking thread is gone: the whole program ends.
                None => return,
            }
        }
    }

    /// Everything there is was carried over. Whether that was all.
    async fn step_at_end(&mut self, at: Progress) -> bool {
        let Some(source) = &self.source else {
            return true;
        };
        let finishing = *self.orders.borrow() == Order::Finish;
        let rotated = source.follower.is_rotated();
        let successor = source.follower.has_successor();
        let closed = self.watch.as_ref().is_some_and(Watch::is_closed);
        let over = closed || self.quiet_since.elapsed() >= QUIET;
        if over && successor {
            // What was written between the last look and the close is there now.
            if let Some(Ok(Progress::Some)) = self.on_disk(carry).await {
                return false;
            }
            if let Some(Err(error)) = self.on_disk(Follower::turn).await {
                tracing::warn!(container = self.container(), %error,
                    "a rotated log cannot be put away; it is tried again");
                tokio::time::sleep(FAILURE_PAUSE).await;
            }
            self.watch = None;
            self.quiet_since = Instant::now();
            return false;
        }
        if finishing && (over || at == Progress::NoLog) {
            return !matches!(self.on_disk(carry).await, Some(Ok(Progress::Some)));
        }
        if self.watch_if_not() {
            return false;
        }
        self.wait(finishing || rotated).await;
        false
    }

    /// Whether a watch was set just now: what was written before it must be looked for.
    fn watch_if_not(&mut self) -> bool {
        let Some(source) = &self.source else {
            return false;
        };
        let rotated = source.follower.is_rotated();
        if self.watch.is_some() && self.watched_part == rotated {
            return false;
        }
        if self.watch.is_some() {
            // Renamed meanwhile: the watch went along.
            self.watched_part = rotated;
            return false;
        }
        let path = source.follower.path();
        self.watch = source.notices.watch(&path, &source.container);
        self.watched_part = rotated;
        self.watch.is_some()
    }

    async fn wait(&mut self, soon: bool) {
        let longest = match (soon, self.watch.is_some()) {
            (true, _) => SHORT_PAUSE,
            (false, true) => WATCHED_PAUSE,
            (false, false) => self.pause,
        };
        self.pause = (self.pause * 3 / 2).min(LONGEST_PAUSE);
        let watch = &self.watch;
        let rung = async {
            match watch {
                Some(watch) => watch.rung().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = rung => {}
            changed = self.orders.changed() => {
                if changed.is_err() {
                    // Nobody can order anything any more: the host drops us soon.
                    tokio::time::sleep(longest).await;
                }
            }
            () = tokio::time::sleep(longest) => {}
        }
    }

    async fn rotate_if_long(&mut self) {
        let Some(source) = &self.source else {
            return;
        };
        if source.follower.is_rotated() || source.follower.length() <= MOST_LOG_BYTES {
            return;
        }
        if self.watch.is_none() {
            self.watch_if_not();
        }
        if let Some(Err(error)) = self.on_disk(Follower::rotate).await {
            tracing::warn!(container = self.container(), %error, "a log cannot be rotated");
        }
        self.watched_part = true;
        self.reopen_at = Instant::now();
    }

    /// Tells the runtime to begin a new log where the old one was renamed. Also done after a
    /// crash in between.
    async fn reopen_if_due(&mut self) {
        let Some(source) = &self.source else {
            return;
        };
        let follower = &source.follower;
        if !follower.is_rotated() || follower.has_successor() || Instant::now() < self.reopen_at {
            return;
        }
        let request = ReopenContainerLogRequest {
            container_id: source.container.clone(),
        };
        match source.runtime.call(request).await {
            Ok(_) => {}
            // It has ended: what was renamed is all there will be.
            Err(RpcError::Said { .. }) => {}
            Err(error) => {
                tracing::warn!(
                    container = source.container,
                    error = error.words(),
                    "a log could not be begun anew; it is tried again"
                );
            }
        }
        self.reopen_at = Instant::now() + FAILURE_PAUSE;
        self.quiet_since = Instant::now();
    }

    /// Does something with the follower on a thread that may block; `None` when there are no
    /// such threads any more.
    async fn on_disk<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Follower) -> T + Send + 'static,
    ) -> Option<T> {
        let mut source = self.source.take()?;
        let done = tokio::task::spawn_blocking(move || {
            let done = work(&mut source.follower);
            (source, done)
        });
        let (source, done) = done.await.ok()?;
        self.source = Some(source);
        Some(done)
    }

    fn container(&self) -> &str {
        self.source.as_ref().map_or("", |source| &source.container)
    }
}

/// Some pieces; the last one's fate.
fn carry(follower: &mut Follower) -> std::io::Result<Progress> {
    let mut any = false;
    for _ in 0..PIECES {
        match follower.carry()? {
            Progress::Some => any = true,
            at @ (Progress::End | Progress::NoLog) if !any => return Ok(at),
            Progress::End | Progress::NoLog => break,
        }
    }
    Ok(Progress::Some)
}
