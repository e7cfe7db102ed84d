//! One worker: register, hear, claim, and attempts beside each other.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use taskwright_model::TaskId;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use crate::attempt::Around;
use crate::port::{Answer, Assignment, Entry, Introduction, QueueError, Standing, WorkQueue};
use crate::runs::Runs;
use crate::template::{Templates, of_run_name};

/// How a worker behaves.
#[derive(Clone, Debug)]
pub struct Habits {
    /// How often it says that it is alive.
    pub heartbeat: Duration,
    /// The pause after a claim that could not be made.
    pub poll: Duration,
    /// How long one claim waits for a task.
    pub claim_wait: Duration,
}

impl Default for Habits {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(15),
            poll: Duration::from_secs(5),
            claim_wait: Duration::from_secs(30),
        }
    }
}

/// The longest pause between tries to reach the queue.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A claim that brought nothing and took less did not wait: the next one does not follow at once.
const WAITED: Duration = Duration::from_millis(500);

/// A worker, ready to work.
pub struct Worker {
    /// Who it is.
    pub who: Introduction,
    /// Its queue.
    pub queue: Arc<dyn WorkQueue>,
    /// What it runs tasks by.
    pub runs: Runs,
    /// What it runs for which problem.
    pub templates: Arc<Templates>,
    /// How it behaves.
    pub habits: Habits,
    /// How it stands, if it has registered already.
    pub registered: Option<Standing>,
}

/// Why a worker works no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was told to: what it held came to its end.
    Drained,
    /// Somebody else goes by its name. What it held was taken from it.
    NameTaken,
}

/// Orders to a worker, and what it is doing.
pub struct Orders {
    /// Cancelled: take no further task, and go.
    pub drain: CancellationToken,
    /// The tasks it holds.
    pub doing: watch::Sender<Vec<TaskId>>,
}

/// A task that the worker holds.
struct Held {
    /// Since when it knows: the queue's word from before says nothing about it.
    since: Instant,
    gone: CancellationToken,
}

struct AtWork<'a> {
    around: Arc<Around>,
    orders: &'a Orders,
    held: HashMap<(TaskId, u32), Held>,
    work: JoinSet<(TaskId, u32)>,
    revision: u64,
    /// Tasks that the queue says are ours, of which no claim told us.
    unknown: Vec<TaskId>,
}

impl Worker {
    /// Works until told to end. Dropping it leaves what runs running; the next worker of this
    /// name goes on with that.
    pub async fn work(&self, orders: &Orders) -> Ended {
        let around = Arc::new(Around {
            worker: self.who.id.clone(),
            queue: self.queue.clone(),
            runs: self.runs.clone(),
            templates: self.templates.clone(),
        });
        let mut at_work = AtWork {
            around,
            orders,
            held: HashMap::new(),
            work: JoinSet::new(),
            revision: 0,
            unknown: Vec::new(),
        };
        match self.enter(&mut at_work).await {
            Some(()) => self.serve(&mut at_work).await,
            None => Ended::Drained,
        }
    }

    /// Registers, and goes on with what is left of an earlier life. `None`: it was told to end, and
    /// the queue does not answer.
    async fn enter(&self, at_work: &mut AtWork<'_>) -> Option<()> {
        let id = &self.who.id;
        let orders = at_work.orders;
        let drain = &orders.drain;
        let standing = match &self.registered {
            Some(standing) => standing.clone(),
            None => self.come_back(drain).await?,
        };
        at_work.revision = standing.revision;
        let mut ours = Vec::new();
        for task in &standing.running {
            // What was claimed and never begun is begun now.
            let found = self.keep_asking(drain, || self.queue.assignment(*task));
            ours.extend(found.await?);
        }
        for run in self.runs.of_worker(id) {
            let name = of_run_name(run.key.name.as_str());
            let stays = ours.iter().any(|one| name == Some((one.task, one.attempt)));
            if !stays {
                tracing::info!(worker = %id, run = %run.key.name, "what ran for the queue before is not its any more");
                self.stop_stray(at_work, run.key.clone());
            }
        }
        for assignment in ours {
            tracing::info!(worker = %id, task = %assignment.task, "goes on with a task of before");
            at_work.take(assignment);
        }
        Some(())
    }

    /// Registers. What it held before stays with it.
    async fn come_back(&self, drain: &CancellationToken) -> Option<Standing> {
        let known = self.keep_asking(drain, || self.queue.standing(&self.who.id));
        let entry = if known.await?.is_some() {
            Entry::Resumed
        } else {
            Entry::Anew
        };
        self.keep_asking(drain, || self.queue.register(self.who.clone(), entry))
            .await
    }

    fn stop_stray(&self, at_work: &AtWork<'_>, key: taskwright_model::TaskKey) {
        let around = at_work.around.clone();
        tokio::spawn(async move {
            around.clear_away(&key).await;
            let name = key.name.as_str().to_owned();
            let places = around.templates.iter().map(crate::Template::place);
            let folders: Vec<_> = places
                .map(|place| around.runs.folder(&name, place))
                .collect();
            let removing = tokio::task::spawn_blocking(move || {
                folders.iter().for_each(crate::folder::Folder::remove);
            });
            let _nothing_to_tell = removing.await;
        });
    }

    /// Registers once more: nothing that it held is its own any more.
    async fn register(&self, at_work: &mut AtWork<'_>) -> Option<()> {
        at_work.lose_all();
        let orders = at_work.orders;
        let drain = &orders.drain;
        let standing =
            self.keep_asking(drain, || self.queue.register(self.who.clone(), Entry::Anew));
        at_work.revision = standing.await?.revision;
        Some(())
    }

    /// Asks until there is an answer. A queue that refuses is asked again, too: only people can
    /// mend that, and the log tells them. `None`: it was told to end meanwhile.
    async fn keep_asking<'a, T>(
        &'a self,
        drain: &CancellationToken,
        ask: impl Fn() -> Answer<'a, T>,
    ) -> Option<T> {
        let mut pause = self.habits.poll.min(Duration::from_secs(1));
        loop {
            match ask().await {
                Ok(answer) => return Some(answer),
                Err(error) => {
                    tracing::warn!(worker = %self.who.id, %error, "the queue did not answer a worker");
                }
            }
            tokio::select! {
                () = drain.cancelled() => return None,
                () = sleep(pause) => {}
            }
            pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
        }
    }

    async fn serve(&self, at_work: &mut AtWork<'_>) -> Ended {
        let mut beat = interval(self.habits.heartbeat);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut claim: Option<(Instant, Answer<'_, Option<Assignment>>)> = None;
        let mut not_before = Instant::now();
        loop {
            let draining = at_work.orders.drain.is_cancelled();
            if draining {
                // Its answer may be on the way. The record says so, and the next heartbeat asks.
                if at_work.held.is_empty() && claim.is_none() {
                    let left = self.queue.heartbeat(&self.who.id, true).await;
                    let holds = left.is_ok_and(|standing| !standing.running.is_empty());
                    if !holds {
                        return Ended::Drained;
                    }
                }
            } else if claim.is_none()
                && at_work.held.len() < self.who.parallel as usize
                && !self.templates.is_empty()
                && Instant::now() >= not_before
            {
                let wait = self.habits.claim_wait;
                claim = Some((Instant::now(), self.queue.claim(&self.who.id, wait)));
            }
            tokio::select! {
                () = at_work.orders.drain.cancelled(), if !draining => {
                    // A claim that waits is given up; if it just got one, the next heartbeat
                    // tells, and it is begun and ended in order.
                    claim = None;
                }
                answer = answer(&mut claim) => {
                    let begun = claim.take().map_or_else(Instant::now, |(begun, _)| begun);
                    match answer {
                        Ok(Some(assignment)) => at_work.take(assignment),
                        Ok(None) if begun.elapsed() < WAITED.min(self.habits.claim_wait) => {
                            not_before = Instant::now() + self.habits.poll;
                        }
                        Ok(None) => {}
                        Err(QueueError::Unknown) => {
                            if self.register(at_work).await.is_none() {
                                return Ended::Drained;
                            }
                        }
                        Err(error) => {
                            tracing::warn!(worker = %self.who.id, %error, "a claim could not be made");
                            not_before = Instant::now() + self.habits.poll;
                        }
                    }
                }
                Some(ended) = at_work.work.join_next() => {
                    if let Ok(ended) = ended {
                        at_work.forget(ended);
                    }
                }
                _ = beat.tick() => {
                    let asked = Instant::now();
                    match self.queue.heartbeat(&self.who.id, false).await {
                        Ok(standing) => {
                            if standing.revision != at_work.revision {
                                at_work.lose_all();
                                // Each is stopped before its name is given up.
                                while at_work.work.join_next().await.is_some() {}
                                return Ended::NameTaken;
                            }
                            let strange = at_work.compare(&standing, asked, claim.is_some());
                            if !strange.is_empty() {
                                // What it would still answer may be one of these, and come when
                                // that is over: it would be begun again.
                                claim = None;
                            }
                            for task in strange {
                                self.take_up(at_work, task).await;
                            }
                        }
                        Err(QueueError::Unknown) => {
                            if self.register(at_work).await.is_none() {
                                return Ended::Drained;
                            }
                        }
                        Err(error) => {
                            tracing::warn!(worker = %self.who.id, %error, "a heartbeat was not heard");
                        }
                    }
                }
                () = sleep_until_opt(not_before), if claim.is_none() && !draining => {}
            }
        }
    }

    /// Begins a task that is ours by the record though no claim told us: its answer was lost.
    async fn take_up(&self, at_work: &mut AtWork<'_>, task: TaskId) {
        match self.queue.assignment(task).await {
            Ok(Some(assignment)) => {
                tracing::info!(worker = %self.who.id, %task, "takes up a task whose claim was not answered");
                at_work.take(assignment);
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(worker = %self.who.id, %task, %error, "a task could not be looked up");
            }
        }
    }
}

async fn answer(
    claim: &mut Option<(Instant, Answer<'_, Option<Assignment>>)>,
) -> Result<Option<Assignment>, QueueError> {
    match claim {
        Some((_, claim)) => claim.await,
        None => std::future::pending().await,
    }
}

/// Wakes up for the next claim; not at all if its time is over already.
async fn sleep_until_opt(at: Instant) {
    if at <= Instant::now() {
        std::future::pending::<()>().await;
    }
    tokio::time::sleep_until(at).await;
}

impl AtWork<'_> {
    fn take(&mut self, assignment: Assignment) {
        let name = (assignment.task, assignment.attempt);
        if self.held.contains_key(&name) {
            return;
        }
        // An earlier attempt of ours at the same task was given up by the queue.
        let earlier = self.held.iter().filter(|((task, _), _)| *task == name.0);
        earlier.for_each(|(_, held)| held.gone.cancel());
        let gone = CancellationToken::new();
        let (around, token) = (self.around.clone(), gone.clone());
        self.work.spawn(async move {
            around.carry_out(&assignment, &token).await;
            name
        });
        let since = Instant::now();
        self.held.insert(name, Held { since, gone });
        self.tell();
    }

    fn forget(&mut self, name: (TaskId, u32)) {
        self.held.remove(&name);
        self.tell();
    }

    fn tell(&self) {
        let mut tasks: Vec<TaskId> = self.held.keys().map(|(task, _)| *task).collect();
        tasks.sort();
        self.orders.doing.send_replace(tasks);
    }

    fn lose_all(&mut self) {
        for held in self.held.values() {
            held.gone.cancel();
        }
    }

    /// Gives up what is not ours any more by the queue's answer to a question of then; answers
    /// which tasks are ours, twice in a row, without our knowing.
    fn compare(&mut self, standing: &Standing, asked: Instant, claiming: bool) -> Vec<TaskId> {
        for ((task, _), held) in &self.held {
            if held.since < asked && !standing.running.contains(task) {
                held.gone.cancel();
            }
        }
        let known = |task: &TaskId| self.held.keys().any(|(held, _)| held == task);
        let strange: Vec<TaskId> = standing
            .running
            .iter()
            .copied()
            .filter(|task| !known(task))
            .collect();
        // The answer to a claim may be on its way.
        let sure = strange
            .iter()
            .copied()
            .filter(|task| !claiming || self.unknown.contains(task))
            .collect();
        self.unknown = strange;
        sure
    }
}
