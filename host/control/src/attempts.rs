//! Calls to strategies, one after the other for each attempt.
//!
//! An attempt that waits costs one entry in a map and no future: a future
//! exists only while a call is under way. Ends of units come straight here
//! from the supervisor, so that a short task's second call does not wait for
//! the commit of its first. What a call said goes to the dispatcher as a
//! [`Fact`]; nothing here writes state.

use std::collections::{HashMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use parking_lot::Mutex;
use taskwright_model::{
    AttemptNumber, Event, Fault, Outcome, ProcessIdentity, Remarks, Task, TaskId, UnitName,
};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::message::Fact;
use crate::port::{
    Step, Stepped, Strategies, StrategyError, StrategyEvent, StrategyTask, UnitReport, Units,
};

/// Events of one attempt that wait for a call to return. More means that something floods.
const MOST_WAITING: usize = 64;
/// How often an event is offered again when the machine, not the plugin, failed.
const MOST_OFFERS: u32 = 5;
/// A strategy that wants to be asked again at once would make a busy loop.
const SHORTEST_WAKE: Duration = Duration::from_millis(10);
/// How long a strategy that rests is waited for. Meanwhile nothing is lost, and a stop that takes
/// too long is carried out without it.
const MOST_REST: Duration = Duration::from_secs(300);
/// The pause between two offers.
const OFFER_PAUSE: Duration = Duration::from_secs(1);

/// The attempts under way.
pub struct Attempts {
    entries: Mutex<HashMap<TaskId, Entry>>,
    strategies: Arc<dyn Strategies>,
    units: Arc<dyn Units>,
    /// Unbounded, because what is so cannot be refused. It stays short: each attempt has at most
    /// one call under way, attempts are bounded, and while the store refuses the dispatcher keeps
    /// only the newest of what supersedes itself.
    facts: mpsc::UnboundedSender<Fact>,
    runtime: Handle,
}

struct Entry {
    attempt: AttemptNumber,
    task: Arc<Task>,
    state: Arc<[u8]>,
    waiting: VecDeque<Job>,
    /// Whether a future is working on `waiting`.
    busy: bool,
    started: bool,
    /// Units whose end was told: ends are reported at least once, told exactly once.
    ended_units: Vec<UnitName>,
    /// The shortest grace of which a stop was told: repeats that end nothing sooner are not.
    told_grace: Option<Duration>,
    wake: Option<AbortHandle>,
}

impl Entry {
    /// Whether this is the first that is heard of this unit's end, which is noted.
    fn is_first_end(&mut self, unit: &UnitName) -> bool {
        let first = !self.ended_units.contains(unit);
        if first {
            self.ended_units.push(unit.clone());
        }
        first
    }
}

#[derive(Clone)]
enum Job {
    Start,
    Event(StrategyEvent),
}

/// What becomes of an attempt after a call.
enum Next {
    /// It waits, or goes on with the next job.
    GoOn,
    /// It is over.
    Over,
    /// The dispatcher ended it while the call was under way.
    Forgotten,
}

impl Attempts {
    /// No attempts yet. Calls run on `runtime`, facts go to `facts`.
    #[must_use]
    pub fn new(
        strategies: Arc<dyn Strategies>,
        units: Arc<dyn Units>,
        facts: mpsc::UnboundedSender<Fact>,
        runtime: Handle,
    ) -> Self {
        Self {
            entries: Mutex::default(),
            strategies,
            units,
            facts,
            runtime,
        }
    }

    /// Starts an attempt.
    pub fn start(self: &Arc<Self>, task: Arc<Task>, attempt: AttemptNumber) {
        self.adopt(task.clone(), attempt, false);
        self.push(task.id, attempt, Job::Start);
    }

    /// Takes over an attempt that is under way already, after a restart.
    pub fn adopt(&self, task: Arc<Task>, attempt: AttemptNumber, started: bool) {
        let state = task
            .attempt()
            .map_or_else(|| [].into(), |attempt| attempt.strategy_state.clone());
        let id = task.id;
        let entry = Entry {
            attempt,
            task,
            state,
            waiting: VecDeque::new(),
            busy: false,
            started,
            ended_units: Vec::new(),
            told_grace: None,
            wake: None,
        };
        self.entries.lock().insert(id, entry);
    }

    /// Tells an attempt's strategy of an event. Nothing happens if the attempt is over.
    pub fn tell(self: &Arc<Self>, task: TaskId, attempt: AttemptNumber, event: StrategyEvent) {
        self.push(task, attempt, Job::Event(event));
    }

    /// Takes the end of a unit. One that no attempt waits for goes to the dispatcher, which
    /// knows whether it may be released.
    pub fn report(self: &Arc<Self>, report: UnitReport) {
        {
            let mut entries = self.entries.lock();
            let entry = entries
                .get_mut(&report.task)
                .filter(|entry| entry.attempt == report.attempt);
            let Some(entry) = entry else {
                drop(entries);
                let _ = self.facts.send(Fact::StrayUnit {
                    task: report.task,
                    attempt: report.attempt,
                });
                return;
            };
            if !entry.is_first_end(&report.unit) {
                return;
            }
        }
        let (unit, end) = (report.unit, report.ended);
        self.tell(
            report.task,
            report.attempt,
            StrategyEvent::Exited { unit, end },
        );
    }

    /// Forgets an attempt that the dispatcher ended by itself.
    pub fn forget(&self, task: TaskId, attempt: AttemptNumber) {
        let mut entries = self.entries.lock();
        if entries
            .get(&task)
            .is_some_and(|entry| entry.attempt == attempt)
            && let Some(wake) = entries.remove(&task).and_then(|entry| entry.wake)
        {
            wake.abort();
        }
    }

    fn push(self: &Arc<Self>, id: TaskId, attempt: AttemptNumber, job: Job) {
        let mut entries = self.entries.lock();
        let Some(entry) = entries
            .get_mut(&id)
            .filter(|entry| entry.attempt == attempt)
        else {
            return;
        };
        if let Job::Event(StrategyEvent::StopRequested { grace }) = &job {
            if entry.told_grace.is_some_and(|told| told <= *grace) {
                return;
            }
            entry.told_grace = Some(*grace);
        }
        // An end is told exactly once, so dropping one would leave its attempt waiting for
        // ever; how many there can be is bounded by the units.
        let may_drop = matches!(&job, Job::Event(StrategyEvent::Woke));
        if may_drop && entry.waiting.len() >= MOST_WAITING {
            tracing::warn!(task = %id, "too many events wait for the strategy; one was dropped");
            return;
        }
        entry.waiting.push_back(job);
        if !entry.busy {
            entry.busy = true;
            let this = self.clone();
            self.runtime
                .spawn(async move { this.work(id, attempt).await });
        }
    }

    /// Works off what waits for one attempt, then parks it.
    async fn work(self: Arc<Self>, id: TaskId, attempt: AttemptNumber) {
        while let Some((task, state, job)) = self.next_job(id, attempt) {
            let task = StrategyTask { task, attempt };
            // A call that panics must not leave its attempt busy for ever.
            let called = AssertUnwindSafe(self.call(&task, state, job))
                .catch_unwind()
                .await;
            let called = called.unwrap_or_else(|_| {
                let message = "the call to the strategy panicked; see the daemon's log".to_owned();
                Err(StrategyError::Host { message })
            });
            match called {
                Ok(stepped) => match self.take_step(id, attempt, stepped) {
                    Next::GoOn => {}
                    Next::Over => return,
                    Next::Forgotten => {
                        // The attempt was ended while the call was under way, and what the
                        // call started since has nobody who would ever stop it.
                        self.terminate(id, attempt).await;
                        return;
                    }
                },
                Err(error) => {
                    self.give_up(id, attempt, error).await;
                    return;
                }
            }
        }
    }

    fn next_job(&self, id: TaskId, attempt: AttemptNumber) -> Option<(Arc<Task>, Arc<[u8]>, Job)> {
        let mut entries = self.entries.lock();
        let entry = entries
            .get_mut(&id)
            .filter(|entry| entry.attempt == attempt)?;
        let job = entry.waiting.pop_front();
        if job.is_none() {
            entry.busy = false;
        }
        job.map(|job| (entry.task.clone(), entry.state.clone(), job))
    }

    /// One call, offered again a few times when the machine could not do its part: an end or a
    /// stop must not be lost because the supervisor was away for a moment.
    async fn call(
        &self,
        task: &StrategyTask,
        state: Arc<[u8]>,
        job: Job,
    ) -> Result<Stepped, StrategyError> {
        // Nothing is wrong with a task that runs: it is not ended because the machine is slow.
        let may_wait = matches!(
            job,
            Job::Event(StrategyEvent::Recovered | StrategyEvent::Woke)
        );
        let is_event = matches!(job, Job::Event(_));
        let mut offers = 1;
        let mut rested = Duration::ZERO;
        let mut told = None;
        loop {
            let called = match &job {
                Job::Start => self.strategies.start(task.clone()).await,
                Job::Event(event) => {
                    let (state, event) = (state.clone(), event.clone());
                    self.strategies.on_event(task.clone(), state, event).await
                }
            };
            match called {
                Err(StrategyError::Resting { after, .. }) if rested < MOST_REST => {
                    let pause = after.clamp(SHORTEST_WAKE, OFFER_PAUSE);
                    rested += pause;
                    tokio::time::sleep(pause).await;
                }
                Err(StrategyError::Host { message })
                    if is_event && (offers < MOST_OFFERS || may_wait) =>
                {
                    // It may go on for days: what is new is told, not that it goes on.
                    if told.as_ref() != Some(&message) {
                        let task = task.task.id;
                        tracing::warn!(%task, %message, "an event is offered again until it is taken");
                        told = Some(message);
                    }
                    offers = offers.saturating_add(1);
                    tokio::time::sleep(OFFER_PAUSE).await;
                }
                other => return other,
            }
        }
    }

    /// Takes what a call said.
    fn take_step(
        self: &Arc<Self>,
        id: TaskId,
        attempt: AttemptNumber,
        Stepped {
            step,
            process,
            ended,
            remarks,
        }: Stepped,
    ) -> Next {
        let mut entries = self.entries.lock();
        let Some(entry) = entries
            .get_mut(&id)
            .filter(|entry| entry.attempt == attempt)
        else {
            return Next::Forgotten;
        };
        let (running, state, wake_after) = match step {
            Step::Done(outcome) => {
                // Short as it was, it ran.
                let ran = !entry.started && process.is_some();
                let started =
                    ran.then(|| started(attempt, process, entry.state.clone(), remarks.clone()));
                if let Some(wake) = entries.remove(&id).and_then(|entry| entry.wake) {
                    wake.abort();
                }
                let ended = Event::AttemptEnded {
                    attempt,
                    outcome,
                    remarks,
                };
                match started {
                    Some(started) => self.tell_loop(Fact::Ran {
                        task: id,
                        started,
                        ended,
                    }),
                    None => self.say(id, ended),
                }
                return Next::Over;
            }
            Step::Wait {
                running,
                state,
                wake_after,
            } => (running, state, wake_after),
        };
        let changed = entry.state != state || remarks != Remarks::default();
        entry.state = state.clone();
        if let Some(old) = entry.wake.take() {
            old.abort();
        }
        if let Some(after) = wake_after {
            let this = self.clone();
            let wake = self.runtime.spawn(async move {
                tokio::time::sleep(after.max(SHORTEST_WAKE)).await;
                this.tell(id, attempt, StrategyEvent::Woke);
            });
            entry.wake = Some(wake.abort_handle());
        }
        for (unit, end) in ended {
            if entry.is_first_end(&unit) {
                let event = StrategyEvent::Exited { unit, end };
                entry.waiting.push_back(Job::Event(event));
            }
        }
        if running && !entry.started {
            entry.started = true;
            self.say(id, started(attempt, process, state, remarks));
        } else if changed {
            let strategy_state = state;
            self.say(
                id,
                Event::Progressed {
                    attempt,
                    strategy_state,
                    remarks,
                },
            );
        }
        Next::GoOn
    }

    /// Ends an attempt whose strategy gave no answer. What it started must not go on unseen.
    async fn give_up(&self, id: TaskId, attempt: AttemptNumber, error: StrategyError) {
        self.forget(id, attempt);
        self.terminate(id, attempt).await;
        let outcome = match error {
            StrategyError::Plugin { runtime, message }
            | StrategyError::Resting {
                runtime, message, ..
            } => Outcome::PluginFault { runtime, message },
            StrategyError::Host { message } => Outcome::Infrastructure {
                fault: Fault::Machine,
                message,
            },
        };
        self.say(
            id,
            Event::AttemptEnded {
                attempt,
                outcome,
                remarks: Remarks::default(),
            },
        );
    }

    /// Kills what an attempt started. Tried a few times: the supervisor may be away for a moment.
    async fn terminate(&self, id: TaskId, attempt: AttemptNumber) {
        for _ in 0..MOST_OFFERS {
            let Err(message) = self.units.terminate(id, attempt).await else {
                return;
            };
            tracing::error!(task = %id, %message, "what an attempt started could not be ended");
            tokio::time::sleep(OFFER_PAUSE).await;
        }
    }

    fn say(&self, task: TaskId, event: Event) {
        self.tell_loop(Fact::Event { task, event });
    }

    fn tell_loop(&self, fact: Fact) {
        // A closed channel means that the daemon goes down; the journal and the supervisor
        // know enough to go on from here.
        let _ = self.facts.send(fact);
    }
}

fn started(
    attempt: AttemptNumber,
    process: Option<ProcessIdentity>,
    strategy_state: Arc<[u8]>,
    remarks: Remarks,
) -> Event {
    Event::Started {
        attempt,
        process,
        strategy_state,
        remarks,
    }
}
