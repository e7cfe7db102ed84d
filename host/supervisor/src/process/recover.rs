//! What an earlier supervisor left: found again by pid and start time, or truthfully lost.
//!
//! | on record | found | is |
//! |---|---|---|
//! | end | | ended, as written |
//! | process | same pid and start time | running, or a zombie whose parent tells |
//! | process | no such process | ended, nobody knows how |
//! | intent only | the guardian's child in its group | started, its record was missing |
//! | intent only | a child that does not get to its program | ended, nobody knows how; killed |
//! | intent only | nothing, and the guardian lived on | never started |
//! | intent only | guardian gone, too | ended, nobody knows how; what runs of it is killed |

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use taskwright_capability::UnitEnd;
use taskwright_model::{ProcessIdentity, Timestamp, UnitKey};
use taskwright_native::tree::GroupNumber;
use taskwright_native::{TreeLevel, daemonize, process};

use super::{Supervisor, begun, now};
use crate::guardian::Continuity;
use crate::log::Found;
use crate::record::{Intent, Record};
use crate::unit::{Ending, Main, Parent, Timer, Unit, UnitId, mark};

/// The log, read: every unit that was not forgotten.
pub(super) struct History {
    pub(super) place: Option<(TreeLevel, PathBuf)>,
    pub(super) damage: String,
    units: BTreeMap<UnitKey, Remembered>,
}

struct Remembered {
    intent: Intent,
    boot: u128,
    spawned: Option<(ProcessIdentity, Timestamp)>,
    kill_at: Option<Timestamp>,
    end: Option<UnitEnd>,
    settled: bool,
    released: bool,
    purging: bool,
}

impl History {
    pub(super) fn of(found: Found) -> Self {
        let mut history = Self {
            place: None,
            damage: found.damage,
            units: BTreeMap::new(),
        };
        let mut current = 0;
        for record in found.records {
            match record {
                Record::Begun { boot, level, base } => {
                    current = boot;
                    history.place = Some((level, base));
                }
                Record::Intent(intent) => {
                    let remembered = Remembered {
                        boot: current,
                        spawned: None,
                        kill_at: None,
                        end: None,
                        settled: false,
                        released: false,
                        purging: false,
                        intent,
                    };
                    let unit = remembered.intent.unit.clone();
                    history.units.insert(unit, remembered);
                }
                Record::NotSpawned(unit) | Record::Forgotten(unit) => {
                    history.units.remove(&unit);
                }
                Record::Spawned { unit, process, at } => {
                    history.change(&unit, |it| it.spawned = Some((process, at)));
                }
                Record::Stopping { unit, kill_at } => {
                    history.change(&unit, |it| it.kill_at = Some(kill_at));
                }
                Record::Ended { unit, end } => history.change(&unit, |it| it.end = Some(end)),
                Record::Settled(unit) => history.change(&unit, |it| {
                    it.settled = true;
                    it.intent.forget_groups();
                }),
                Record::Released(unit) => history.change(&unit, |it| it.released = true),
                Record::Purging(unit) => history.change(&unit, |it| it.purging = true),
            }
        }
        history
    }

    fn change(&mut self, unit: &UnitKey, change: impl FnOnce(&mut Remembered)) {
        if let Some(remembered) = self.units.get_mut(unit) {
            change(remembered);
        }
    }
}

/// What became of an intent that has no process on record.
enum Fate {
    Started(ProcessIdentity),
    NeverStarted,
    Unknown,
}

/// What a look at the guardian's children shows.
enum Seen {
    Main(ProcessIdentity),
    /// Children that an earlier supervisor forked are on their way to their programs, and one of
    /// them may be this one.
    SomebodyStarting(Vec<ProcessIdentity>),
    NamelessZombie,
    /// There was no room to look at all of them.
    Unclear,
    Nothing,
}

/// What a process is to the intent it may be of.
enum Group {
    /// It is in the intent's.
    This,
    /// It is in another unit's.
    Another,
    /// It is in none, perhaps not yet.
    None,
}

/// How long children may take from fork to their programs, all together: somebody inside a
/// container may hold them, and nothing else is done meanwhile. And the pause between two looks.
const STARTING_TIME: Duration = Duration::from_secs(2);
const LOOK_PAUSE: Duration = Duration::from_millis(1);
const KILL: i32 = 9;

impl Supervisor {
    pub(super) fn take_over(&mut self, history: History, since: Continuity) -> io::Result<()> {
        if !history.damage.is_empty() {
            super::say(&history.damage);
        }
        let same_groups = history
            .place
            .as_ref()
            .is_some_and(|(level, base)| *level == self.trees.level() && base == self.trees.base());
        self.log.put(&begun(&self.trees));
        let boot = process::boot_id();
        let mut until = None;
        for (_, mut remembered) in history.units {
            let same_boot = remembered.boot == boot;
            if !same_boot {
                remembered.intent.forget_groups();
            } else if let Some(path) = remembered.intent.tree_elsewhere()
                && let Some(group) = remembered.intent.group
                && same_groups
            {
                self.trees.adopt(group, path);
            } else if !same_groups {
                remembered.intent.group = None;
            }
            self.take_over_unit(remembered, same_boot, since, &mut until);
        }
        // A full disk is no reason not to look after what runs.
        self.write_down();
        let claimed: Vec<GroupNumber> = self
            .units
            .iter()
            .filter_map(|(_, unit)| unit.intent.group)
            .collect();
        self.trees.sweep(|group| claimed.contains(&group));
        let limiting: Vec<PathBuf> = self
            .units
            .iter()
            .filter_map(|(_, unit)| unit.intent.bounds.as_ref())
            .flat_map(|bounds| bounds.groups.iter().chain(&bounds.tree))
            .cloned()
            .collect();
        self.resources
            .sweep(|group| limiting.iter().any(|claimed| claimed == group));
        Ok(())
    }

    fn take_over_unit(
        &mut self,
        remembered: Remembered,
        same_boot: bool,
        since: Continuity,
        until: &mut Option<Instant>,
    ) {
        let intent = remembered.intent;
        let no_process = ProcessIdentity {
            pid: 0,
            start_ticks: 0,
        };
        let mut unknown = false;
        let (process, at) = match (remembered.spawned, remembered.end) {
            (Some(spawned), _) => spawned,
            (None, Some(end)) => (no_process, end.at),
            (None, None) => match self.fate(&intent, same_boot, since, until) {
                Fate::Started(process) => {
                    let (unit, at) = (intent.unit.clone(), now());
                    self.log.put(&Record::Spawned { unit, process, at });
                    (process, at)
                }
                Fate::NeverStarted => {
                    self.log.put(&Record::NotSpawned(intent.unit));
                    return;
                }
                Fate::Unknown => {
                    unknown = true;
                    (no_process, now())
                }
            },
        };
        let main = match remembered.end {
            Some(end) => Main::Ended(end),
            None => self.find_main(&intent, process, same_boot && !unknown),
        };
        let mut unit = Unit::new(intent, process, at, main);
        unit.settled = remembered.settled;
        unit.released = remembered.released;
        unit.purging = remembered.purging;
        if let Some(kill_at) = remembered.kill_at {
            unit.ending = Ending::Asked { kill_at };
        }
        let kill = unknown || unit.purging || remembered.kill_at.is_some_and(|at| at <= now());
        let id = self.units.insert(unit);
        self.resume(id, kill);
    }

    /// The main process as it is now; an end that nobody saw is written down as such.
    fn find_main(&mut self, intent: &Intent, process: ProcessIdentity, look: bool) -> Main {
        let pid = process.pid.cast_signed();
        let found = look
            .then(|| process::open_if_same(pid, process.start_ticks))
            .flatten();
        if let Some(pidfd) = found {
            let adopted = process::stat(pid).is_ok_and(|stat| stat.parent == daemonize::parent());
            let parent = if adopted {
                Parent::Guardian
            } else {
                Parent::Other
            };
            return Main::Running { pidfd, parent };
        }
        let end = UnitEnd {
            status: None,
            out_of_memory: false,
            at: now(),
        };
        let unit = intent.unit.clone();
        self.log.put(&Record::Ended { unit, end });
        Main::Ended(end)
    }

    /// Goes on with what an earlier supervisor was doing to this unit.
    fn resume(&mut self, id: UnitId, kill: bool) {
        let Some(unit) = self.units.get(id) else {
            return;
        };
        let (key, ending) = (unit.key().clone(), unit.ending);
        match &unit.main {
            Main::Running { parent, .. } => {
                if *parent == Parent::Other {
                    self.watch_stranger(id);
                }
                self.set_timer(super::keeping::PAUSE, Timer::Output(id));
            }
            Main::Ended(_) => self.to_tidy.push(id),
        }
        if kill {
            self.begin_kill(id);
        } else if let Ending::Asked { .. } = ending {
            super::say(&format!("going on with the stop of {key}"));
            // It was written down before TERM was sent, which may not have come to pass.
            self.ask_to_end(id);
            self.grace_is_over(id);
        }
    }

    /// Looks for the process of an intent that has none on record. All intents share the time
    /// that is waited, which ends at `until`.
    fn fate(
        &self,
        intent: &Intent,
        same_boot: bool,
        since: Continuity,
        until: &mut Option<Instant>,
    ) -> Fate {
        if !same_boot || since == Continuity::Broken {
            return Fate::Unknown;
        }
        loop {
            let seen = self.look_for(intent);
            match seen {
                Seen::Main(process) => return Fate::Started(process),
                Seen::NamelessZombie => return Fate::Unknown,
                Seen::Nothing => return Fate::NeverStarted,
                Seen::SomebodyStarting(_) | Seen::Unclear => {}
            }
            let until = *until.get_or_insert_with(|| Instant::now() + STARTING_TIME);
            if Instant::now() < until {
                std::thread::sleep(LOOK_PAUSE);
                continue;
            }
            if let Seen::SomebodyStarting(held) = seen {
                // By its group it would be killed too, but it may not be in there yet.
                for process in held {
                    kill(process);
                }
            }
            return Fate::Unknown;
        }
    }

    /// The guardian lived on and takes nothing away before it is written down, so the main
    /// process is its child, alive or a zombie: the oldest session leader in the group.
    fn look_for(&self, intent: &Intent) -> Seen {
        let guardian = daemonize::parent();
        let own = daemonize::this_process();
        let own_command = process::command_line(own).unwrap_or_default();
        let mark = mark(&intent.unit);
        let is_newborn = |pid| process::command_line(pid).is_ok_and(|its| its == own_command);
        let mut nameless_zombie = false;
        let mut starting: Vec<ProcessIdentity> = Vec::new();
        let mut found: Vec<ProcessIdentity> = Vec::new();
        let Ok(all) = process::all() else {
            return Seen::Unclear;
        };
        for pid in all {
            let stat = match process::stat(pid) {
                Ok(stat) => stat,
                Err(error) if process::is_no_room(&error) => return Seen::Unclear,
                Err(_) => continue,
            };
            if stat.parent != guardian || pid == own || self.units.running_as(pid).is_some() {
                continue;
            }
            let identity = ProcessIdentity {
                pid: pid.cast_unsigned(),
                start_ticks: stat.start_ticks,
            };
            let group = intent.group.map(|group| self.group_of(pid, group));
            if matches!(group, Some(Group::Another)) {
                continue;
            }
            // Its parent was killed after the fork: it may have no session and no group of its
            // own yet, and goes on to its program all the same.
            if is_newborn(pid) {
                starting.push(identity);
                continue;
            }
            if stat.session != pid {
                continue;
            }
            let ours = match group {
                Some(group) => matches!(group, Group::This),
                None if stat.is_zombie() => {
                    // Its environment is gone: it could be this one or what daemonised.
                    nameless_zombie = true;
                    false
                }
                None => match process::has_environment(pid, &mark) {
                    Ok(marked) => marked,
                    Err(_) => return Seen::Unclear,
                },
            };
            if ours {
                found.push(identity);
            }
        }
        match found.into_iter().min_by_key(|it| (it.start_ticks, it.pid)) {
            Some(process) => Seen::Main(process),
            None if !starting.is_empty() => Seen::SomebodyStarting(starting),
            None if nameless_zombie => Seen::NamelessZombie,
            None => Seen::Nothing,
        }
    }

    fn group_of(&self, pid: i32, group: GroupNumber) -> Group {
        let path = self.trees.path(group);
        let Some(base) = path.parent().and_then(std::path::Path::file_name) else {
            return Group::None;
        };
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let place = format!("/{}/u", base.to_string_lossy());
        let numbers = text.lines().filter_map(|line| {
            let (_, number) = line.rsplit_once(&place)?;
            number.parse::<GroupNumber>().ok()
        });
        numbers.fold(Group::None, |known, number| match known {
            Group::This => Group::This,
            _ if number == group => Group::This,
            _ => Group::Another,
        })
    }
}

/// Kills a child of an earlier supervisor.
fn kill(process: ProcessIdentity) {
    if let Some(pidfd) = process::open_if_same(process.pid.cast_signed(), process.start_ticks) {
        let _has_ended = process::signal(&pidfd, KILL);
    }
}

#[cfg(test)]
mod tests {
    use taskwright_capability::Lifetime;
    use taskwright_model::{AttemptNumber, TaskId, UnitName};

    use super::*;

    fn intent(task: u128) -> Option<Intent> {
        Some(Intent {
            unit: UnitKey {
                task: TaskId::from_u128(task),
                attempt: AttemptNumber(1),
                unit: UnitName::parse("main").ok()?,
            },
            directory: PathBuf::from("/d").into(),
            lifetime: Lifetime::LeaveDescendants,
            group: Some(1),
            bounds: None,
        })
    }

    #[test]
    fn a_history_holds_what_was_not_forgotten() {
        let (Some(one), Some(two)) = (intent(1), intent(2)) else {
            unreachable!("unit names are valid");
        };
        let records = vec![
            Record::Intent(one.clone()),
            Record::Intent(two.clone()),
            Record::Released(two.unit.clone()),
            Record::Forgotten(one.unit.clone()),
            // Of a unit that is not known: passed over.
            Record::Purging(one.unit),
        ];
        let history = History::of(Found {
            records,
            damage: String::new(),
        });
        let left: Vec<_> = history
            .units
            .iter()
            .map(|(key, it)| (key, it.released))
            .collect();
        assert_eq!(left, [(&two.unit, true)]);
    }
}
