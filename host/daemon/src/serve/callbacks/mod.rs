//! Ends of queued tasks, told to whoever submitted them with a `callback_url`.
//!
//! The store keeps each until it was heard or given up, keeps it from other daemons while one
//! tells it, and spaces the tries; so an end is told at least once, whichever daemon is killed.
//!
//! | module | about |
//! |---|---|
//! | [`policy`] | who may be told, and what an answer means |
//! | `rest` | receivers that did not answer a moment ago |
//! | `send` | one request |

pub(crate) mod policy;
mod rest;
mod send;

use std::sync::Arc;
use std::time::Duration;

use taskwright_api::aiopslab::{CallbackDocument, callback_document};
use taskwright_queue::port::{Callback, Notice, Notices};
use taskwright_queue::{Json, LogLevel, NewLogEntry, Queue};
use tokio::sync::Semaphore;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use self::policy::{After, CallbackPolicy, Target};
use self::rest::Rests;

/// Callbacks under way at a time.
const MOST_AT_ONCE: u32 = 32;
/// How often, at least, it is looked for callbacks that are due: tries come due without a notice.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// How often at the most.
const SOONEST: Duration = Duration::from_millis(100);
/// The pause after the store did not answer.
const AFTER_FAILURE: Duration = Duration::from_secs(5);

/// What is held in memory of all that are under way, in KiB, and of one while it is made: a task
/// with its parameters and its result, and the document with both.
const MOST_HELD: u32 = 128 << 10;
const LARGEST: u32 = 32 << 10;

/// Tells callbacks.
pub(crate) struct Callbacks {
    pub(crate) queue: Queue,
    pub(crate) policy: Arc<CallbackPolicy>,
    /// What bodies are signed with.
    pub(crate) secret: Option<Arc<[u8]>>,
}

impl Callbacks {
    /// Tells what is due until the daemon goes down. What is under way then is told again, by
    /// whoever is there.
    pub(crate) async fn deliver(self, shutdown: CancellationToken) {
        // What another daemon may tell is not taken here only to be refused.
        if !self.policy.is_open() {
            return;
        }
        let this = Arc::new(Teller {
            callbacks: self,
            rests: Rests::default(),
            room: Semaphore::new(MOST_HELD as usize),
        });
        let mut notices = this.callbacks.queue.store().notices();
        let mut under_way = JoinSet::new();
        while !shutdown.is_cancelled() {
            while under_way.try_join_next().is_some() {}
            let pause = this.take_up(&mut under_way).await;
            let full = under_way.len() >= MOST_AT_ONCE as usize;
            let again = Instant::now() + LOOK_AGAIN;
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = under_way.join_next(), if !under_way.is_empty() => {}
                () = wait(&mut notices, again), if !full => {}
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = sleep(pause) => {}
            }
        }
    }
}

/// Tells callbacks, and knows how it went.
struct Teller {
    callbacks: Callbacks,
    rests: Rests,
    room: Semaphore,
}

impl Teller {
    /// Begins to tell what is due, as far as there is room; answers how long to wait then.
    async fn take_up(self: &Arc<Self>, under_way: &mut JoinSet<()>) -> Duration {
        let taken = u32::try_from(under_way.len()).unwrap_or(MOST_AT_ONCE);
        let free = MOST_AT_ONCE.saturating_sub(taken);
        if free == 0 {
            return Duration::ZERO;
        }
        match self.callbacks.queue.store().callbacks_due(free).await {
            Ok(due) => {
                for callback in due {
                    let this = self.clone();
                    under_way.spawn(async move { this.tell(callback).await });
                }
                SOONEST
            }
            Err(error) => {
                tracing::warn!(%error, "callbacks that are due could not be read");
                AFTER_FAILURE
            }
        }
    }

    async fn tell(&self, callback: Callback) {
        let Callbacks { queue, policy, .. } = &self.callbacks;
        let store = queue.store();
        let Ok(mut room) = self.room.acquire_many(LARGEST).await else {
            return;
        };
        let task = match store.task(callback.task).await {
            Ok(Some(task)) => task,
            Ok(None) => return self.done(&callback, "gone").await,
            Err(error) => {
                tracing::warn!(task = %callback.task, %error, "a callback could not be told");
                return;
            }
        };
        let ended_for = task
            .completed_at
            .map_or(Duration::ZERO, |at| queue.now().since(at));
        let answer = match policy.target(&callback.url) {
            Ok(target) => {
                let document = callback_document(&task, callback.tries);
                drop(task);
                match document {
                    Ok(document) => {
                        let held = document.body.len().div_ceil(1024);
                        drop(room.split(room.num_permits().saturating_sub(held)));
                        self.ask(&callback, &target, document).await
                    }
                    Err(error) => Err(error.to_string()),
                }
            }
            // Another daemon of this queue may be allowed to.
            Err(_) if !CallbackPolicy::is_late(ended_for) => return,
            Err(why) => Err(format!("its address {why}")),
        };
        match policy.after(answer, callback.tries, ended_for) {
            After::Heard => self.done(&callback, "heard").await,
            After::Again(why) => {
                count("failed");
                let (task, attempt) = (callback.task, callback.tries);
                tracing::info!(%task, attempt, "a callback was not heard and is tried again: {why}");
            }
            After::GivenUp(why) => {
                tracing::warn!(task = %callback.task, "a callback is given up: {why}");
                self.note(&callback, &why).await;
                self.done(&callback, "given-up").await;
            }
        }
    }

    async fn ask(
        &self,
        callback: &Callback,
        target: &Target,
        document: CallbackDocument,
    ) -> Result<hyper::StatusCode, String> {
        let Callbacks { policy, secret, .. } = &self.callbacks;
        let shown = target.shown();
        if !self.rests.may_be_asked(&shown, Instant::now()) {
            return Err(format!("{shown}: it did not answer a moment ago"));
        }
        let secret = secret.as_deref();
        let sent = send::post(policy, target, document, callback.tries, secret).await;
        self.rests.answered(&shown, sent.is_ok(), Instant::now());
        sent.map_err(|why| format!("{shown}: {why}"))
    }

    /// Whoever looks at the task's lines sees that nobody was told.
    async fn note(&self, callback: &Callback, why: &str) {
        let line = NewLogEntry {
            at: None,
            level: LogLevel::Warning,
            message: format!("The callback was given up: {why}"),
            context: Json::empty_object(),
        };
        if let Err(error) = self
            .callbacks
            .queue
            .store()
            .append_logs(callback.task, None, vec![line])
            .await
        {
            tracing::warn!(task = %callback.task, %error, "a line could not be kept");
        }
    }

    async fn done(&self, callback: &Callback, result: &'static str) {
        count(result);
        let store = self.callbacks.queue.store();
        if let Err(error) = store.callback_done(callback.task).await {
            // It is told once more, which receivers know by its id.
            tracing::warn!(task = %callback.task, %error, "a callback could not be taken off the record");
        }
    }
}

fn count(result: &'static str) {
    metrics::counter!("taskwright_queue_callbacks_total", "result" => result).increment(1);
}

/// Until something changed, or for so long.
async fn wait(notices: &mut Notices, until: Instant) {
    loop {
        match timeout_at(until, notices.recv()).await {
            Ok(Ok(Notice::Work)) => {}
            Ok(Ok(Notice::Task(_) | Notice::Anything) | Err(RecvError::Lagged(_))) | Err(_) => {
                return;
            }
            Ok(Err(RecvError::Closed)) => {
                tokio::time::sleep_until(until).await;
                return;
            }
        }
    }
}
