//! Starts whose child is on its way to its program, or waits for others that are.
//!
//! A child that enters a container can be stopped there by whoever is root in it, between any two
//! of its steps. So nobody waits for it here: it is kept with what it was started from, the loop
//! goes on, and what it says is looked at as everything else. It has a bounded time, and so many
//! are on their way at once at most; the others wait, those into one process not for those into
//! another. A start that is stopped or purged meanwhile is given up at once: its program never
//! ran, so there is nobody to be asked, and nothing to be told but that it was not started.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use taskwright_capability::{SpawnError, SpawnRequest};
use taskwright_model::{ProcessIdentity, TaskId, UnitKey};
use taskwright_native::events::Interest;
use taskwright_native::newborn::OVERDUE;
use taskwright_native::tree::GroupNumber;
use taskwright_native::{Child, Newborn, Progress, SpawnFault, exit};

use super::command::explain;
use super::starting::{Launch, Started, Tried};
use super::{START_BIT, Supervisor};
use crate::record::Record;
use crate::unit::{StartId, Timer, UnitId};

/// Children on their way at once. Each holds about ten descriptors.
const MOST_ON_THEIR_WAY: usize = 64;
/// Those into one process: a hostile one keeps no others from starting.
const MOST_INTO_ONE: usize = 16;
/// Those and who waits for them.
const MOST_STARTS: usize = 1024;
/// How long a child that was killed is waited for: longer than whoever asks for its death.
const DEATH_AWAITED: Duration = Duration::from_secs(20);

/// Somebody who waits for what becomes of a start.
#[derive(Clone, Copy)]
pub(super) struct Asker {
    pub(super) session: u64,
    pub(super) request: u64,
    pub(super) wants: Wants,
}

/// What is answered.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Wants {
    /// That it was started, or why not.
    Start,
    /// Its state.
    State,
}

/// A start that is not over.
struct Start {
    unit: UnitKey,
    /// Whose namespaces it enters.
    target: Option<ProcessIdentity>,
    /// In the order they asked. No more than the daemons have calls under way.
    asked: Vec<Asker>,
    until: Instant,
    stage: Stage,
}

enum Stage {
    /// Nothing was done for it yet.
    Waiting(Box<SpawnRequest>),
    OnItsWay(Box<OnItsWay>),
}

struct OnItsWay {
    launch: Launch,
    tried: Tried,
    newborn: Newborn,
}

/// A child that never executed and was killed; its groups are kept until it is dead.
struct Dying {
    unit: UnitKey,
    pidfd: OwnedFd,
    group: Option<GroupNumber>,
    groups: Vec<PathBuf>,
    until: Instant,
}

/// All of them, oldest first.
#[derive(Default)]
pub(super) struct UnderWay {
    starts: BTreeMap<StartId, Start>,
    dying: BTreeMap<StartId, Dying>,
    next: u64,
}

impl UnderWay {
    /// Neither a start nor a child of one.
    pub(super) fn is_empty(&self) -> bool {
        self.starts.is_empty() && self.dying.is_empty()
    }

    pub(super) fn find(&self, unit: &UnitKey) -> Option<StartId> {
        self.find_any(|it| it == unit)
    }

    fn find_any(&self, fits: impl Fn(&UnitKey) -> bool) -> Option<StartId> {
        let mut all = self.starts.iter();
        all.find(|(_, start)| fits(&start.unit)).map(|(id, _)| *id)
    }

    /// Whether something was made for a unit of this task.
    pub(super) fn has_begun(&self, task: TaskId) -> bool {
        let mut all = self.starts.values();
        all.any(|start| start.unit.task == task && matches!(start.stage, Stage::OnItsWay(_)))
    }

    /// The start whose child is `pid`.
    pub(super) fn of_pid(&self, pid: i32) -> Option<StartId> {
        let mut all = self.starts.iter();
        all.find(|(_, start)| match &start.stage {
            Stage::Waiting(_) => false,
            Stage::OnItsWay(it) => it.newborn.pid() == pid,
        })
        .map(|(id, _)| *id)
    }

    /// Whether a killed child of such a unit may still be alive.
    pub(super) fn is_dying(&self, fits: impl Fn(&UnitKey) -> bool) -> bool {
        self.dying.values().any(|dying| fits(&dying.unit))
    }

    /// Somebody more waits for what becomes of it.
    pub(super) fn ask(&mut self, id: StartId, asked: impl IntoIterator<Item = Asker>) {
        if let Some(start) = self.starts.get_mut(&id) {
            start.asked.extend(asked);
        }
    }

    /// What brings back those of which something is on record.
    pub(super) fn records(&self) -> impl Iterator<Item = Record> {
        self.starts.values().filter_map(|start| match &start.stage {
            Stage::Waiting(_) => None,
            Stage::OnItsWay(it) => Some(Record::Intent(it.tried.intent.clone())),
        })
    }

    /// Whether a child may go on its way to a program, or into `target`.
    pub(super) fn has_room(&self, target: Option<ProcessIdentity>) -> bool {
        let (mut all, mut into_it) = (0, 0);
        for start in self.starts.values() {
            if let Stage::OnItsWay(_) = start.stage {
                all += 1;
                into_it += usize::from(target.is_some() && start.target == target);
            }
        }
        all < MOST_ON_THEIR_WAY && into_it < MOST_INTO_ONE
    }

    fn id(&mut self) -> StartId {
        let id = StartId(self.next);
        self.next += 1;
        id
    }

    fn waiting(&self) -> Vec<StartId> {
        let all = self.starts.iter();
        all.filter(|(_, start)| matches!(start.stage, Stage::Waiting(_)))
            .map(|(id, _)| *id)
            .collect()
    }
}

/// What whoever asked is told of a start that was given up for somebody else.
fn given_up() -> SpawnError {
    SpawnError::Unavailable {
        detail: "it was stopped on its way to its program".to_owned(),
    }
}

fn too_many(target: Option<ProcessIdentity>) -> SpawnError {
    let detail = match target {
        Some(target) => format!(
            "too many others are on their way into process {}",
            target.pid
        ),
        None => "too many others are on their way to their programs".to_owned(),
    };
    SpawnError::NoRoom { detail }
}

fn target_of(request: &SpawnRequest) -> Option<ProcessIdentity> {
    request.inside.as_ref().map(|inside| inside.target)
}

impl Supervisor {
    /// Starts it once others have reached their programs.
    pub(super) fn wait_for_others(
        &mut self,
        request: SpawnRequest,
        until: Instant,
    ) -> Result<StartId, SpawnError> {
        let target = target_of(&request);
        if self.under_way.starts.len() >= MOST_STARTS {
            return Err(too_many(target));
        }
        let start = Start {
            unit: request.unit.clone(),
            target,
            asked: Vec::new(),
            until,
            stage: Stage::Waiting(Box::new(request)),
        };
        Ok(self.insert(start))
    }

    /// Keeps a start whose child is on its way.
    pub(super) fn keep(
        &mut self,
        launch: Launch,
        tried: Tried,
        newborn: Newborn,
    ) -> Result<StartId, SpawnError> {
        let id = StartId(self.under_way.next);
        if let Err(error) = self.epoll.add(&newborn, START_BIT | id.0, Interest::Read) {
            let unit = launch.request.unit.clone();
            self.lay_down(&unit, tried, newborn.give_up());
            let detail = format!("the new process could not be watched and was killed: {error}");
            return Err(SpawnError::NoRoom { detail });
        }
        let start = Start {
            unit: launch.request.unit.clone(),
            target: target_of(&launch.request),
            asked: Vec::new(),
            until: launch.until,
            stage: Stage::OnItsWay(Box::new(OnItsWay {
                launch,
                tried,
                newborn,
            })),
        };
        Ok(self.insert(start))
    }

    fn insert(&mut self, start: Start) -> StartId {
        let id = self.under_way.id();
        self.timers.set(start.until, Timer::Start(id));
        self.under_way.starts.insert(id, start);
        id
    }

    /// Its child said something, ended, or is dead.
    pub(super) fn start_moved(&mut self, id: StartId) {
        self.bury(id);
        let Some(start) = self.under_way.starts.get_mut(&id) else {
            return;
        };
        let Stage::OnItsWay(it) = &mut start.stage else {
            return;
        };
        match it.newborn.look() {
            Progress::OnItsWay => {}
            Progress::Executing => {
                if let Some((asked, it)) = self.take_on_its_way(id) {
                    let OnItsWay {
                        launch,
                        tried,
                        newborn,
                    } = it;
                    let unit = self.executing(launch, tried.intent, newborn.into_child());
                    self.answer_asked(asked, unit);
                    self.start_waiting();
                }
            }
            Progress::Failed(fault) => self.start_failed(id, fault, Newborn::into_child),
        }
    }

    /// It will not get to its program, not this way.
    fn start_failed(&mut self, id: StartId, fault: SpawnFault, end: impl FnOnce(Newborn) -> Child) {
        let Some((asked, it)) = self.take_on_its_way(id) else {
            return;
        };
        let OnItsWay {
            launch,
            tried,
            newborn,
        } = it;
        let child = end(newborn);
        if matches!(fault, SpawnFault::Held { .. }) {
            self.kill_held(&launch.request.unit, tried.intent.group);
        }
        let target = launch.target.as_ref();
        let error = explain(fault, &launch.request, &tried.confined, target);
        self.lay_down(&launch.request.unit, tried, child);
        let again = launch
            .with_less(error)
            .and_then(|launch| self.try_launch(launch));
        self.started(asked, again);
        self.start_waiting();
    }

    /// The time of a start, or of a dying child, is over.
    pub(super) fn start_is_overdue(&mut self, id: StartId) {
        // It may just have made it.
        self.start_moved(id);
        match self.under_way.starts.get(&id).map(|start| &start.stage) {
            Some(Stage::OnItsWay(_)) => {
                let fault = SpawnFault::Held { detail: OVERDUE };
                self.start_failed(id, fault, Newborn::give_up);
            }
            Some(Stage::Waiting(_)) => {
                if let Some(start) = self.under_way.starts.remove(&id) {
                    self.answer_asked(start.asked, Err(too_many(start.target)));
                }
            }
            None => self.leave_unburied(id),
        }
    }

    /// Gives up every start of such a unit. One whose program turns out to run is a unit now.
    pub(super) fn give_up_starts(&mut self, fits: impl Fn(&UnitKey) -> bool) {
        while let Some(id) = self.under_way.find_any(&fits) {
            self.start_moved(id);
            self.give_up_start(id);
        }
    }

    fn give_up_start(&mut self, id: StartId) {
        let Some(start) = self.under_way.starts.remove(&id) else {
            return;
        };
        self.timers.forget(start.until, Timer::Start(id));
        if let Stage::OnItsWay(it) = start.stage {
            let _closed_with_it = self.epoll.remove(&it.newborn);
            let child = it.newborn.give_up();
            self.kill_held(&start.unit, it.tried.intent.group);
            self.lay_down(&start.unit, it.tried, child);
        }
        self.answer_asked(start.asked, Err(given_up()));
        self.start_waiting();
    }

    fn take_on_its_way(&mut self, id: StartId) -> Option<(Vec<Asker>, OnItsWay)> {
        let start = self.under_way.starts.remove(&id)?;
        self.timers.forget(start.until, Timer::Start(id));
        match start.stage {
            Stage::Waiting(_) => None,
            Stage::OnItsWay(it) => {
                // Closing is not enough: children on their way have copies of every descriptor.
                let _closed_with_it = self.epoll.remove(&it.newborn);
                Some((start.asked, *it))
            }
        }
    }

    /// Those that waited, as far as there is room now.
    fn start_waiting(&mut self) {
        for id in self.under_way.waiting() {
            let target = self.under_way.starts.get(&id).and_then(|it| it.target);
            if !self.under_way.has_room(target) {
                continue;
            }
            let Some(start) = self.under_way.starts.remove(&id) else {
                continue;
            };
            self.timers.forget(start.until, Timer::Start(id));
            if let Stage::Waiting(request) = start.stage {
                let started = self.start_at_once(*request, start.until);
                self.started(start.asked, started);
            }
        }
    }

    /// A start was tried again, or at last: those who asked for it learn what becomes of it.
    fn started(&mut self, asked: Vec<Asker>, started: Result<Started, SpawnError>) {
        match started {
            Ok(Started::OnItsWay(id)) => self.under_way.ask(id, asked),
            Ok(Started::Now(unit) | Started::Before(unit)) => self.answer_asked(asked, Ok(unit)),
            Err(error) => self.answer_asked(asked, Err(error)),
        }
    }

    fn answer_asked(&mut self, asked: Vec<Asker>, became: Result<UnitId, SpawnError>) {
        let starting = asked.iter().filter(|asker| asker.wants == Wants::Start);
        let alone = starting.count() == 1;
        for asker in asked {
            self.answer_asker(asker, &became, alone);
        }
    }

    /// Notes that nothing was started. Its child was killed; once it is dead its groups go.
    fn lay_down(&mut self, unit: &UnitKey, mut tried: Tried, child: Child) {
        self.log.put(&Record::NotSpawned(unit.clone()));
        let id = self.under_way.id();
        let until = Instant::now() + DEATH_AWAITED;
        let dying = Dying {
            unit: unit.clone(),
            pidfd: child.pidfd,
            group: tried.intent.group,
            groups: tried.confined.take_groups(),
            until,
        };
        let token = START_BIT | id.0;
        if let Err(error) = self.epoll.add(&dying.pidfd, token, Interest::Read) {
            super::say(&format!("a dying process cannot be watched: {error}"));
        }
        self.timers.set(until, Timer::Start(id));
        self.under_way.dying.insert(id, dying);
        // Most that fail by themselves are dead by now.
        self.bury(id);
    }

    /// Takes away a child that is dead, if it is.
    fn bury(&mut self, id: StartId) {
        let Some(dying) = self.under_way.dying.get(&id) else {
            return;
        };
        // An error says that it was taken away with other orphans.
        if let Ok(None) = exit::reap(&dying.pidfd) {
            return;
        }
        if let Some(dead) = self.under_way.dying.remove(&id) {
            self.timers.forget(dead.until, Timer::Start(id));
            let _closed_with_it = self.epoll.remove(&dead.pidfd);
            self.give_back(dead.group);
            self.resources.remove(dead.groups);
        }
    }

    /// It does not die, and will be taken away with other orphans when it does.
    fn leave_unburied(&mut self, id: StartId) {
        if let Some(dying) = self.under_way.dying.remove(&id) {
            super::say(&format!("a killed process of {} does not die", dying.unit));
            let _closed_with_it = self.epoll.remove(&dying.pidfd);
            if let Some(group) = dying.group {
                self.trees.distrust(group);
            }
            self.give_back(dying.group);
            self.resources.remove(dying.groups);
        }
    }
}
