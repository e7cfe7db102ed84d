//! What an earlier supervisor left: found again by pid and start time, or truthfully lost.
//!
//! | on record | found | is |
//! |---|---|---|
//! | end | | ended, as written |
//! | process | same pid and start time | running, or a zombie whose parent tells |
//! | process | no such process | ended, nobody knows how |
//! | intent only | the guardian's child in its group | started, its record was missing |
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
                    it.intent.group = None;
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
    /// A child that an earlier supervisor forked is on its way to its program.
    SomebodyStarting,
    NamelessZombie,
    /// There was no room to look at all of them.
    Unclear,
    Nothing,
}

/// How long a child may take from fork to its program; and the pause between two looks at it.
const STARTING_TIME: Duration = Duration::from_secs(2);
const LOOK_PAUSE: Duration = Duration::from_millis(1);

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
        for (_, mut remembered) in history.units {
            let same_boot = remembered.boot == boot;
            if !same_boot || !same_groups {
                remembered.intent.group = None;
            }
            self.take_over_unit(remembered, same_boot, since);
        }
        // A full disk is no reason not to look after what runs.
        self.write_down();
        let claimed: Vec<GroupNumber> = self
            .units
            .iter()
            .filter_map(|(_, unit)| unit.intent.group)
            .collect();
        self.trees.sweep(|group| claimed.contains(&group));
        Ok(())
    }

    fn take_over_unit(&mut self, remembered: Remembered, same_boot: bool, since: Continuity) {
        let intent = remembered.intent;
        let no_process = ProcessIdentity {
            pid: 0,
            start_ticks: 0,
        };
        let mut unknown = false;
        let (process, at) = match (remembered.spawned, remembered.end) {
            (Some(spawned), _) => spawned,
            (None, Some(end)) => (no_process, end.at),
            (None, None) => match self.fate(&intent, same_boot, since) {
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

    /// Looks for the process of an intent that has none on record.
    fn fate(&self, intent: &Intent, same_boot: bool, since: Continuity) -> Fate {
        if !same_boot || since == Continuity::Broken {
            return Fate::Unknown;
        }
        let until = Instant::now() + STARTING_TIME;
        loop {
            match self.look_for(intent) {
                Seen::Main(process) => return Fate::Started(process),
                Seen::NamelessZombie => return Fate::Unknown,
                Seen::Nothing => return Fate::NeverStarted,
                Seen::SomebodyStarting | Seen::Unclear if Instant::now() < until => {
                    std::thread::sleep(LOOK_PAUSE);
                }
                Seen::SomebodyStarting | Seen::Unclear => return Fate::Unknown,
            }
        }
    }

    /// The guardian lived on and takes nothing away before it is written down, so the main
    /// process is its child, alive or a zombie: the oldest session leader in the group.
    fn look_for(&self, intent: &Intent) -> Seen {
        let guardian = daemonize::parent();
        let own = daemonize::this_process();
        let own_command = process::command_line(own).unwrap_or_default();
        let mark = mark(&intent.unit);
        let (mut nameless_zombie, mut starting) = (false, false);
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
            if stat.session != pid {
                // Its parent was killed right after the fork: it has no session, and perhaps no
                // group, of its own yet, and goes on to its program all the same.
                starting |= process::command_line(pid).is_ok_and(|its| its == own_command);
                continue;
            }
            let ours = match intent.group {
                Some(group) => self.is_in_group(pid, group),
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
                found.push(ProcessIdentity {
                    pid: pid.cast_unsigned(),
                    start_ticks: stat.start_ticks,
                });
            } else {
                starting |= process::command_line(pid).is_ok_and(|its| its == own_command);
            }
        }
        match found.into_iter().min_by_key(|it| (it.start_ticks, it.pid)) {
            Some(process) => Seen::Main(process),
            None if starting => Seen::SomebodyStarting,
            None if nameless_zombie => Seen::NamelessZombie,
            None => Seen::Nothing,
        }
    }

    fn is_in_group(&self, pid: i32, group: GroupNumber) -> bool {
        let Some(base) = self.trees.base().file_name() else {
            return false;
        };
        let end = format!("/{}/u{group}", base.to_string_lossy());
        fs::read_to_string(format!("/proc/{pid}/cgroup"))
            .is_ok_and(|text| text.lines().any(|line| line.ends_with(&end)))
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
