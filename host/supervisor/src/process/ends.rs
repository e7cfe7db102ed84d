//! How main processes end: written down first, then told, then reaped.

use std::io;
use std::time::Duration;

use taskwright_capability::{UnitEnd, UnitEvent, UnitReport};
use taskwright_model::ExitStatus;
use taskwright_native::events::Interest;
use taskwright_native::exit::{self, Foreign};
use taskwright_native::{Exit, daemonize, process, resource};

use super::{Supervisor, UNIT_BIT, now};
use crate::record::{Record, SharedMemory};
use crate::unit::{Ending, Main, Parent, Timer, Unit, UnitId};

/// What is told of a unit whose main process ended.
pub(super) fn report(unit: &Unit) -> Option<UnitReport> {
    Some(UnitReport {
        unit: unit.key().clone(),
        event: UnitEvent::Ended(unit.end()?),
    })
}

fn status(exit: Exit) -> ExitStatus {
    match exit {
        Exit::Code(code) => ExitStatus::Code(code),
        Exit::Signal(signal) => ExitStatus::Signal(signal),
    }
}

/// What a look at a main process shows.
enum Look {
    Runs,
    Ended(Option<Exit>),
}

const ORPHAN_PAUSE: Duration = Duration::from_millis(100);
const MOST_ORPHANS: usize = 256;

impl Supervisor {
    pub(super) fn main_processes_ready(&mut self, ids: &[UnitId]) {
        let mut ended = Vec::new();
        for id in ids {
            if let Look::Ended(exit) = self.look_at(*id) {
                ended.push((*id, exit));
            }
        }
        self.ended(&ended);
    }

    fn look_at(&mut self, id: UnitId) -> Look {
        let Some(unit) = self.units.get_mut(id) else {
            return Look::Runs;
        };
        let (pid, ticks) = (unit.pid(), unit.process.start_ticks);
        let Main::Running { pidfd, parent } = &mut unit.main else {
            return Look::Runs;
        };
        if *parent == Parent::Us {
            match exit::peek(pidfd) {
                Ok(Some(waited)) => return Look::Ended(Some(waited.exit)),
                Ok(None) => return Look::Runs,
                // Not our child after all.
                Err(_) => *parent = Parent::Other,
            }
        }
        match exit::foreign(pidfd) {
            Foreign::Ended(exit) => Look::Ended(Some(exit)),
            Foreign::NotYet | Foreign::Untold if zombie_status(pid, ticks).is_some() => {
                Look::Ended(zombie_status(pid, ticks))
            }
            Foreign::NotYet => {
                // Ended and not reaped: the kernel tells, and wakes us, once it is.
                let _woken_again_at_once =
                    self.epoll.modify(pidfd, UNIT_BIT | id.0, Interest::Hangup);
                Look::Runs
            }
            Foreign::Untold => Look::Ended(None),
        }
    }

    /// Notes that main processes ended: all of them with one write.
    pub(super) fn ended(&mut self, ended: &[(UnitId, Option<Exit>)]) {
        if ended.is_empty() {
            return;
        }
        let mut ends = Vec::with_capacity(ended.len());
        for (id, exit) in ended {
            let Some(unit) = self.units.get(*id).filter(|unit| unit.end().is_none()) else {
                continue;
            };
            let killed_by_nobody_here =
                *exit == Some(Exit::Signal(KILL)) && unit.ending == Ending::Nothing;
            let end = UnitEnd {
                status: exit.map(status),
                out_of_memory: killed_by_nobody_here
                    && (resource::out_of_memory(unit.limiting_groups())
                        || unit.shared_memory().is_some_and(starved)
                        || unit
                            .intent
                            .group
                            .is_some_and(|group| self.trees.out_of_memory(group))),
                at: now(),
            };
            let unit = unit.key().clone();
            self.log.put(&Record::Ended { unit, end });
            ends.push((*id, end));
        }
        self.write_down();
        for (id, end) in ends {
            let Some(unit) = self.units.get_mut(id) else {
                continue;
            };
            if let Main::Running { pidfd, parent } =
                std::mem::replace(&mut unit.main, Main::Ended(end))
            {
                let _was_not_watched = self.epoll.remove(&pidfd);
                if parent == Parent::Us {
                    self.unreaped.push(pidfd);
                }
            }
            self.units.end(id, end);
            let told = self.answer_start(id);
            for (session, one) in &mut self.sessions {
                if one.version.is_some() && Some(*session) != told {
                    one.to_report.push_back(id);
                }
            }
            self.to_tidy.push(id);
        }
    }

    /// SIGCHLD: main processes are seen by their pidfds; others are looked for a little later,
    /// because that look costs as much as there are children.
    pub(super) fn children_changed(&mut self) {
        if self.signals.drain() && !self.orphans_due {
            self.orphans_due = true;
            self.set_timer(ORPHAN_PAUSE, Timer::Orphans);
        }
    }

    /// Takes away children that daemonised and ended.
    pub(super) fn reap_orphans(&mut self) {
        self.orphans_due = false;
        for _ in 0..MOST_ORPHANS {
            let Ok(Some(waited)) = exit::peek_any() else {
                return;
            };
            if let Some(start) = self.under_way.of_pid(waited.pid) {
                // Its program was short, or it never got there: it said so before it ended.
                self.start_moved(start);
                if self.units.running_as(waited.pid).is_none() {
                    continue;
                }
            }
            if let Some(id) = self.units.running_as(waited.pid) {
                self.ended(&[(id, Some(waited.exit))]);
            }
            // The main processes before it, which would be found here again, are taken away first.
            self.reap_written();
            if !self.unreaped.is_empty() {
                break;
            }
            if self.units.running_as(waited.pid).is_none() {
                let _may_be_reaped_just_now = exit::reap_pid(waited.pid);
            }
            self.look_at_left_behind_soon();
        }
        self.orphans_due = true;
        self.set_timer(ORPHAN_PAUSE, Timer::Orphans);
    }

    /// The guardian tells of a child of an earlier supervisor, or is gone.
    pub(super) fn guardian_speaks(&mut self) {
        loop {
            let Some(guardian) = &mut self.guardian else {
                return;
            };
            match guardian.next() {
                Ok(None) => return,
                Ok(Some(waited)) => {
                    match self.units.running_as(waited.pid) {
                        Some(id) => self.ended(&[(id, Some(waited.exit))]),
                        None => self.look_at_left_behind_soon(),
                    }
                    // It tells of no other before this one is acknowledged.
                    self.to_acknowledge = Some(waited.pid);
                }
                Err(_) => return self.guardian_is_gone(),
            }
        }
    }

    /// The guardian may take away the child whose end is written down by now.
    pub(super) fn acknowledge_written(&mut self) {
        if let Some(pid) = self.to_acknowledge.take()
            && let Some(guardian) = &mut self.guardian
            && guardian.acknowledge(pid).is_err()
        {
            self.guardian_is_gone();
        }
    }

    /// Without a guardian its children are strangers to us: their pidfds have to tell.
    fn guardian_is_gone(&mut self) {
        super::say("the guardian is gone; going on without it");
        if let Some(guardian) = self.guardian.take() {
            let _closed_with_it = self.epoll.remove(guardian.stream());
        }
        let strangers: Vec<UnitId> = self
            .units
            .iter()
            .filter(|(_, unit)| {
                matches!(
                    unit.main,
                    Main::Running {
                        parent: Parent::Guardian,
                        ..
                    }
                )
            })
            .map(|(id, _)| id)
            .collect();
        for id in strangers {
            self.watch_stranger(id);
        }
    }

    pub(super) fn watch_stranger(&mut self, id: UnitId) {
        if let Some(Main::Running { pidfd, parent }) =
            self.units.get_mut(id).map(|unit| &mut unit.main)
        {
            *parent = Parent::Other;
            if let Err(error) = self.epoll.add(pidfd, UNIT_BIT | id.0, Interest::Read) {
                super::say(&format!("a process cannot be watched: {error}"));
            }
        }
    }
}

const KILL: i32 = 9;

/// Whether the out-of-memory killer took somebody in a target's group, and not the target: with
/// that the kernel may have ended the unit for another reason.
fn starved(shared: &SharedMemory) -> bool {
    let target = process::stat(shared.target.pid.cast_signed());
    let target_lives =
        target.is_ok_and(|stat| stat.start_ticks == shared.target.start_ticks && !stat.is_ending());
    target_lives && resource::out_of_memory_kills(&shared.group) > Some(shared.kills)
}

/// The status of a zombie that is not our child, if `/proc` may tell us the truth: for processes
/// of other users it says 0.
fn zombie_status(pid: i32, ticks: u64) -> Option<Exit> {
    use std::os::unix::fs::MetadataExt as _;
    let owner = std::fs::metadata(format!("/proc/{pid}")).ok()?.uid();
    let stat: io::Result<_> = process::stat(pid);
    let stat = stat.ok()?;
    (owner == daemonize::this_user() && stat.start_ticks == ticks && stat.is_zombie())
        .then(|| Exit::from_wait_status(stat.wait_status))
}
