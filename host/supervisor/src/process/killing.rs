//! Stop, kill and purge: always the whole tree, always seen through to its end.

use std::time::{Duration, Instant};

use taskwright_capability::{Lifetime, StopError};
use taskwright_model::{TaskId, Timestamp, UnitKey};
use taskwright_native::process;
use taskwright_native::scan::Seed;

use super::requests::Reply;
use super::{Supervisor, now};
use crate::record::Record;
use crate::unit::{Ending, Main, Timer, Unit, UnitId, mark};
use crate::wire::Answer;

const TERM: i32 = 15;
const KILL: i32 = 9;
/// The first pause between two rounds of killing; it doubles up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LAST_PAUSE: Duration = Duration::from_secs(1);
/// How long the answer to a kill or a purge waits for processes that do not die at once.
const DEATH_PATIENCE: Duration = Duration::from_secs(10);
const LEFT_BEHIND_SOON: Duration = Duration::from_secs(1);
const LEFT_BEHIND_AT_REST: Duration = Duration::from_secs(30);

/// A daemon that waits for deaths.
pub(super) struct Waiter {
    session: u64,
    request: u64,
    awaited: Awaited,
    until: Instant,
}

/// What it waits for.
enum Awaited {
    /// That nothing of a unit lives.
    Dead(UnitId, UnitKey),
    /// That the child of a unit that never ran is dead.
    NeverRan(UnitKey),
    /// That nothing of a task is left, nor known.
    Forgotten(TaskId),
}

fn with_seed<T>(unit: &Unit, act: impl FnOnce(&Seed<'_>) -> T) -> T {
    let mark = mark(unit.key());
    act(&Seed {
        main: (unit.pid(), unit.process.start_ticks),
        mark: &mark,
        seen: &unit.seen,
    })
}

impl Supervisor {
    /// TERM now, KILL after `grace`, both to the whole tree. What a normal end left is killed now.
    pub(super) fn stop(&mut self, key: &UnitKey, grace: Duration) {
        // Its program never ran: there is nobody to be asked, nor to be given time.
        self.give_up_starts(|unit| unit == key);
        let Some(id) = self.units.find(key) else {
            return;
        };
        let Some(unit) = self.units.get_mut(id).filter(|unit| !unit.settled) else {
            return;
        };
        let asked = now().plus(grace);
        let kill_at = match (unit.end(), unit.ending) {
            (_, Ending::Killing { .. }) => return,
            (Some(_), _) => Timestamp::from_millis(0),
            // A second order may shorten the grace, never lengthen it.
            (None, Ending::Asked { kill_at }) if kill_at <= asked => return,
            (None, Ending::Asked { .. } | Ending::Nothing) => asked,
        };
        let first = unit.ending == Ending::Nothing;
        unit.ending = Ending::Asked { kill_at };
        let unit = key.clone();
        self.log.put(&Record::Stopping { unit, kill_at });
        self.write_down();
        if grace.is_zero() || kill_at.as_millis() == 0 {
            self.begin_kill(id);
            return;
        }
        if first {
            self.ask_to_end(id);
        }
        self.set_timer(grace, Timer::Kill(id));
    }

    pub(super) fn ask_to_end(&mut self, id: UnitId) {
        let Some(unit) = self.units.get_mut(id) else {
            return;
        };
        let group = unit.intent.group;
        match with_seed(unit, |seed| self.trees.signal(group, seed, TERM)) {
            // Who leaves the session from here on is still known.
            Ok(members) if group.is_none() => unit.seen = members,
            Ok(_) => {}
            Err(error) => {
                let key = unit.key();
                super::say(&format!("only the main process of {key} is asked: {error}"));
                if let Main::Running { pidfd, .. } = &unit.main {
                    let _has_ended = process::signal(pidfd, TERM);
                }
            }
        }
    }

    /// As [`Self::stop`] without any grace, answered once nothing of the tree lives.
    pub(super) fn kill(&mut self, session: u64, request: u64, key: &UnitKey) -> Reply {
        self.stop(key, Duration::ZERO);
        match self.units.find(key) {
            Some(id) => self.answer_once(session, request, Awaited::Dead(id, key.clone())),
            None => self.answer_once(session, request, Awaited::NeverRan(key.clone())),
        }
    }

    pub(super) fn grace_is_over(&mut self, id: UnitId) {
        let Some(unit) = self.units.get(id) else {
            return;
        };
        let Ending::Asked { kill_at } = unit.ending else {
            return;
        };
        let left = kill_at.since(now());
        if left.is_zero() {
            self.begin_kill(id);
        } else {
            self.set_timer(left, Timer::Kill(id));
        }
    }

    pub(super) fn begin_kill(&mut self, id: UnitId) {
        if let Some(unit) = self.units.get_mut(id).filter(|unit| !unit.settled)
            && !matches!(unit.ending, Ending::Killing { .. })
        {
            unit.ending = Ending::Killing { rounds: 0 };
            self.kill_round(id);
        }
    }

    /// Kills what there is; comes again until there is nothing.
    pub(super) fn kill_round(&mut self, id: UnitId) {
        let Some(unit) = self.units.get_mut(id).filter(|unit| !unit.settled) else {
            return;
        };
        let Ending::Killing { rounds } = unit.ending else {
            return;
        };
        if let Main::Running { pidfd, .. } = &unit.main {
            // Also if it left its group.
            let _has_ended = process::signal(pidfd, KILL);
        }
        let group = unit.intent.group;
        let gone = with_seed(unit, |seed| self.trees.kill(group, seed));
        if gone && unit.end().is_some() {
            self.settle(id);
            return;
        }
        unit.ending = Ending::Killing {
            rounds: rounds.saturating_add(1),
        };
        let pause = FIRST_PAUSE * 2_u32.saturating_pow(rounds.min(16));
        self.set_timer(pause.min(LAST_PAUSE), Timer::KillAgain(id));
    }

    /// Kills whatever is left of a task and forgets it; answers when that is so.
    pub(super) fn purge(&mut self, session: u64, request: u64, task: TaskId) -> Reply {
        self.give_up_starts(|unit| unit.task == task);
        for id in self.units.of_task(task) {
            let Some(unit) = self.units.get_mut(id) else {
                continue;
            };
            if !unit.purging {
                unit.purging = true;
                let record = Record::Purging(unit.key().clone());
                self.log.put(&record);
            }
            if unit.settled {
                self.forget(id);
            } else {
                self.begin_kill(id);
            }
        }
        self.answer_once(session, request, Awaited::Forgotten(task))
    }

    fn answer_once(&mut self, session: u64, request: u64, awaited: Awaited) -> Reply {
        if self.is_so(&awaited) {
            return Reply::Now(Answer::Done);
        }
        let until = Instant::now() + DEATH_PATIENCE;
        self.waiters.push(Waiter {
            session,
            request,
            awaited,
            until,
        });
        Reply::Later
    }

    fn is_so(&self, awaited: &Awaited) -> bool {
        match awaited {
            Awaited::Dead(id, _) => self.units.get(*id).is_none_or(|unit| unit.settled),
            Awaited::NeverRan(key) => !self.under_way.is_dying(|unit| unit == key),
            Awaited::Forgotten(task) => {
                self.units.of_task(*task).is_empty()
                    && !self.under_way.is_dying(|unit| unit.task == *task)
            }
        }
    }

    fn answer_waiters(&mut self) {
        if self.waiters.is_empty() {
            return;
        }
        let now = Instant::now();
        let waiting = std::mem::take(&mut self.waiters);
        for waiter in waiting {
            let answer = if self.is_so(&waiter.awaited) {
                Answer::Done
            } else if waiter.until <= now {
                let detail = match waiter.awaited {
                    Awaited::Dead(_, unit) | Awaited::NeverRan(unit) => {
                        format!("processes of {unit} do not die")
                    }
                    Awaited::Forgotten(task) => format!("processes of task {task} do not die"),
                };
                Answer::NotDone(StopError::Unavailable { detail })
            } else {
                self.waiters.push(waiter);
                continue;
            };
            if let Some(session) = self.sessions.get_mut(&waiter.session) {
                session.answer(waiter.request, &answer);
            }
        }
    }

    /// The end is on record elsewhere.
    pub(super) fn release(&mut self, key: &UnitKey) {
        let Some(id) = self.units.find(key) else {
            return;
        };
        let Some(unit) = self.units.get_mut(id).filter(|unit| !unit.released) else {
            return;
        };
        unit.released = true;
        self.log.put(&Record::Released(key.clone()));
        if unit.settled {
            self.forget(id);
        } else if unit.end().is_some() {
            self.to_tidy.push(id);
        }
    }

    /// After everything urgent: groups that are empty go back, what must not live on is killed.
    pub(super) fn tidy_up(&mut self) {
        for id in std::mem::take(&mut self.to_tidy) {
            self.tidy(id);
        }
        self.answer_waiters();
        self.write_down();
        self.speak();
        self.shorten_log();
    }

    pub(super) fn tidy(&mut self, id: UnitId) {
        let Some(unit) = self.units.get(id) else {
            return;
        };
        if unit.end().is_none() {
            return;
        }
        if unit.settled {
            // Only of interest to an earlier supervisor that died in between.
            if unit.released || unit.purging {
                self.forget(id);
            }
            return;
        }
        let group = unit.intent.group;
        let empty = match group {
            Some(group) => self.trees.is_empty(group),
            None => with_seed(unit, |seed| self.trees.members(None, seed))
                .is_ok_and(|members| members.is_empty()),
        };
        if empty {
            self.settle(id);
        } else if unit.purging || unit.intent.lifetime == Lifetime::KillDescendants {
            self.begin_kill(id);
        } else {
            self.look_at_left_behind_at_rest();
        }
        self.look_at_output(id);
    }

    /// Nothing of the tree is left.
    fn settle(&mut self, id: UnitId) {
        let Some(unit) = self.units.get_mut(id) else {
            return;
        };
        unit.settled = true;
        unit.ending = Ending::Nothing;
        unit.seen = Vec::new();
        let group = unit.intent.group.take();
        let limiting = unit.take_limiting_groups();
        let done = unit.released || unit.purging;
        let record = Record::Settled(unit.key().clone());
        // While they are still on record as this unit's.
        self.resources.remove(limiting);
        if self.resources.lingers() {
            self.look_at_left_behind_soon();
        }
        // Before the group can be used again: else a later supervisor sees two units in it.
        self.log.put(&record);
        self.give_back(group);
        if done {
            self.look_at_output(id);
            self.forget(id);
        }
    }

    fn forget(&mut self, id: UnitId) {
        if let Some(unit) = self.units.remove(id) {
            self.forget_output(&unit);
            self.log.put(&Record::Forgotten(unit.key().clone()));
        }
    }

    pub(super) fn look_at_left_behind_soon(&mut self) {
        if !self.left_behind_due {
            self.left_behind_due = true;
            self.set_timer(LEFT_BEHIND_SOON, Timer::LeftBehind);
        }
    }

    fn look_at_left_behind_at_rest(&mut self) {
        if !self.left_behind_due {
            self.left_behind_due = true;
            self.set_timer(LEFT_BEHIND_AT_REST, Timer::LeftBehind);
        }
    }

    /// Trees that outlived their main process may have ended by themselves.
    pub(super) fn look_at_left_behind(&mut self) {
        self.left_behind_due = false;
        self.resources.remove([]);
        let left: Vec<UnitId> = self
            .units
            .iter()
            .filter(|(_, unit)| unit.end().is_some() && !unit.settled)
            .map(|(id, _)| id)
            .collect();
        for id in left {
            self.tidy(id);
        }
    }
}
