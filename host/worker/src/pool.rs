//! The workers inside a daemon: start, stop, scale.
//!
//! Orders say what is wanted; one keeper makes it so, whatever comes in between. A
//! worker that is not wanted any more finishes what it holds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use taskwright_model::TaskId;
use taskwright_queue::WorkerId;
use taskwright_queue::pool::{InternalWorkers, MOST_INTERNAL, Member, MemberState, PoolStatus};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::names::Names;
use crate::port::{Introduction, Standing, WorkQueue};
use crate::runs::Runs;
use crate::template::Templates;
use crate::worker::{Ended, Habits, Orders, Worker};

/// The pause after an id could not be had.
const PAUSE: Duration = Duration::from_secs(2);

/// What the workers of a daemon have in common.
#[derive(Clone)]
pub struct Setup {
    /// Who they are, but for their ids.
    pub who: Introduction,
    /// Their queue.
    pub queue: Arc<dyn WorkQueue>,
    /// What they run tasks by.
    pub runs: Runs,
    /// What they run for which problem.
    pub templates: Arc<Templates>,
    /// How they behave.
    pub habits: Habits,
}

/// The workers of a daemon. Clones share them.
#[derive(Clone)]
pub struct Pool(Arc<Shared>);

struct Shared {
    has_templates: bool,
    wanted: Mutex<Wanted>,
    changed: Notify,
    members: Mutex<BTreeMap<WorkerId, Seen>>,
}

#[derive(Clone, Copy)]
struct Wanted {
    count: usize,
    running: bool,
}

/// A worker, as others see it.
struct Seen {
    doing: watch::Receiver<Vec<TaskId>>,
    drain: CancellationToken,
}

impl Pool {
    /// The most workers of a daemon.
    pub const MOST: usize = MOST_INTERNAL;

    /// A pool of `count` workers that does not work yet.
    #[must_use]
    pub fn new(setup: &Setup, count: usize, running: bool) -> Self {
        Self(Arc::new(Shared {
            has_templates: !setup.templates.is_empty(),
            wanted: Mutex::new(Wanted {
                count: count.min(Self::MOST),
                running,
            }),
            changed: Notify::new(),
            members: Mutex::default(),
        }))
    }

    /// Keeps as many workers as are wanted. Dropped, it leaves what they run running.
    pub async fn keep(self, setup: Setup, names: Names) {
        let mut keeper = Keeper {
            pool: self,
            setup,
            names,
            work: JoinSet::new(),
        };
        loop {
            let full = keeper.level().await;
            tokio::select! {
                () = keeper.pool.0.changed.notified() => {}
                () = sleep(PAUSE), if !full => {}
                Some(ended) = keeper.work.join_next() => {
                    if let Ok((id, ended)) = ended {
                        keeper.ended(&id, ended);
                    }
                }
            }
        }
    }

    fn order(&self, order: impl FnOnce(&mut Wanted)) {
        order(&mut self.0.wanted.lock());
        self.0.changed.notify_one();
    }
}

impl InternalWorkers for Pool {
    fn status(&self) -> PoolStatus {
        let wanted = *self.0.wanted.lock();
        let members = self.0.members.lock();
        let members = members.iter().map(|(id, seen)| {
            let current = seen.doing.borrow().last().copied();
            let state = match current {
                _ if seen.drain.is_cancelled() => MemberState::Draining,
                Some(_) => MemberState::Busy,
                None => MemberState::Idle,
            };
            Member {
                id: id.clone(),
                state,
                current,
            }
        });
        PoolStatus {
            running: wanted.running,
            wanted: wanted.count,
            members: members.collect(),
            has_templates: self.0.has_templates,
        }
    }

    fn scale(&self, count: usize) -> usize {
        let before = self.0.wanted.lock().count;
        self.order(|wanted| wanted.count = count.min(Self::MOST));
        before
    }

    fn start(&self) {
        self.order(|wanted| wanted.running = true);
    }

    fn stop(&self) {
        self.order(|wanted| wanted.running = false);
    }
}

struct Keeper {
    pool: Pool,
    setup: Setup,
    names: Names,
    work: JoinSet<(WorkerId, Ended)>,
}

impl Keeper {
    /// Begins and drains workers until there are as many as are wanted; answers whether there are.
    async fn level(&mut self) -> bool {
        loop {
            let wanted = *self.pool.0.wanted.lock();
            let wanted = if wanted.running { wanted.count } else { 0 };
            let working = {
                let members = self.pool.0.members.lock();
                let working: Vec<_> = members
                    .values()
                    .filter(|seen| !seen.drain.is_cancelled())
                    .map(|seen| seen.drain.clone())
                    .collect();
                working
            };
            if working.len() >= wanted {
                // The last ones go.
                working
                    .iter()
                    .skip(wanted)
                    .for_each(CancellationToken::cancel);
                return true;
            }
            let queue = self.setup.queue.clone();
            match self.names.take(&*queue, &self.setup.who, 1).await {
                Ok((id, registered)) => self.begin(id, registered),
                Err(error) => {
                    tracing::warn!(%error, "no id for a worker of this daemon could be had");
                    return false;
                }
            }
        }
    }

    fn begin(&mut self, id: WorkerId, registered: Option<Standing>) {
        let drain = CancellationToken::new();
        let (doing, seen) = watch::channel(Vec::new());
        let orders = Orders {
            drain: drain.clone(),
            doing,
        };
        let worker = Worker {
            who: Introduction {
                id: id.clone(),
                ..self.setup.who.clone()
            },
            queue: self.setup.queue.clone(),
            runs: self.setup.runs.clone(),
            templates: self.setup.templates.clone(),
            habits: self.setup.habits.clone(),
            registered,
        };
        let mut members = self.pool.0.members.lock();
        members.insert(id.clone(), Seen { doing: seen, drain });
        self.work.spawn(async move {
            let ended = worker.work(&orders).await;
            (id, ended)
        });
    }

    fn ended(&mut self, id: &WorkerId, ended: Ended) {
        self.pool.0.members.lock().remove(id);
        match ended {
            Ended::Drained => self.names.free(id),
            Ended::NameTaken => {
                tracing::warn!(
                    worker = %id,
                    "somebody else registered under the id of a worker of this daemon, which goes on under another"
                );
                self.names.forget(id);
            }
        }
    }
}
