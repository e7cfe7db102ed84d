//! What the supervisor remembers of a unit. Ten thousand of them must cost little.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Instant;

use taskwright_capability::{Spawned, UnitEnd, UnitState};
use taskwright_model::{
    AttemptNumber, Enforced, ProcessIdentity, TaskId, Timestamp, UnitKey, UnitName,
};

use crate::record::{Intent, Record, SharedMemory};

/// One unit, from its intent until nothing of it is left.
pub(crate) struct Unit {
    pub(crate) intent: Intent,
    pub(crate) process: ProcessIdentity,
    pub(crate) started_at: Timestamp,
    pub(crate) main: Main,
    /// The end is on record elsewhere.
    pub(crate) released: bool,
    /// To be killed and forgotten, whoever still asks.
    pub(crate) purging: bool,
    pub(crate) ending: Ending,
    /// The main process ended and nothing of its tree is left.
    pub(crate) settled: bool,
    /// Members seen before, for the scan level.
    pub(crate) seen: Vec<(i32, u64)>,
    pub(crate) output: Output,
}

/// The main process.
pub(crate) enum Main {
    Running { pidfd: OwnedFd, parent: Parent },
    Ended(UnitEnd),
}

/// Who is told by the kernel how the main process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parent {
    /// This supervisor.
    Us,
    /// The guardian, since an earlier supervisor died.
    Guardian,
    /// Somebody else, since guardian and supervisor died. The pidfd may still tell.
    Other,
}

/// What was ordered for the whole tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Nothing,
    /// TERM was sent; KILL follows then.
    Asked {
        kill_at: Timestamp,
    },
    /// KILL was sent, so many rounds ago.
    Killing {
        rounds: u32,
    },
}

/// How its output files are looked after.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Output {
    /// Bytes in both files when last looked at.
    pub(crate) length: u64,
    /// The watch for the next write, while it is quiet.
    pub(crate) watch: Option<i32>,
    /// Whether a look is on the timer already.
    pub(crate) due: bool,
}

impl Unit {
    pub(crate) fn key(&self) -> &UnitKey {
        &self.intent.unit
    }

    pub(crate) fn new(intent: Intent, process: ProcessIdentity, at: Timestamp, main: Main) -> Self {
        Self {
            intent,
            process,
            started_at: at,
            main,
            released: false,
            purging: false,
            ending: Ending::Nothing,
            settled: false,
            seen: Vec::new(),
            output: Output::default(),
        }
    }

    pub(crate) fn end(&self) -> Option<UnitEnd> {
        match self.main {
            Main::Running { .. } => None,
            Main::Ended(end) => Some(end),
        }
    }

    pub(crate) fn spawned(&self) -> Spawned {
        Spawned {
            process: self.process,
            started_at: self.started_at,
            exit: self.end(),
            enforced: self.enforced(),
        }
    }

    pub(crate) fn enforced(&self) -> Enforced {
        self.intent
            .bounds
            .as_ref()
            .map(|bounds| bounds.enforced.clone())
            .unwrap_or_default()
    }

    /// The groups that limit it.
    pub(crate) fn limiting_groups(&self) -> &[PathBuf] {
        self.intent
            .bounds
            .as_ref()
            .map_or(&[], |bounds| &bounds.groups)
    }

    /// The target's group whose memory it takes.
    pub(crate) fn shared_memory(&self) -> Option<&SharedMemory> {
        self.intent.bounds.as_ref()?.shared_memory.as_ref()
    }

    pub(crate) fn state(&self) -> UnitState {
        match self.end() {
            None => UnitState::Running(self.spawned()),
            Some(end) => UnitState::Ended(end),
        }
    }

    /// Nothing of the tree is left: no group is its any more.
    pub(crate) fn take_limiting_groups(&mut self) -> Vec<PathBuf> {
        let Some(bounds) = &mut self.intent.bounds else {
            return Vec::new();
        };
        bounds.tree = None;
        std::mem::take(&mut bounds.groups)
    }

    pub(crate) fn pid(&self) -> i32 {
        self.process.pid.cast_signed()
    }

    /// The records that bring this unit back.
    pub(crate) fn records(&self) -> impl Iterator<Item = Record> {
        let unit = || self.key().clone();
        let spawned = Record::Spawned {
            unit: unit(),
            process: self.process,
            at: self.started_at,
        };
        let stopping = match self.ending {
            Ending::Nothing => None,
            Ending::Asked { kill_at } => Some(kill_at),
            Ending::Killing { .. } => Some(Timestamp::from_millis(0)),
        };
        [
            Some(Record::Intent(self.intent.clone())),
            Some(spawned),
            stopping.map(|kill_at| Record::Stopping {
                unit: unit(),
                kill_at,
            }),
            self.end().map(|end| Record::Ended { unit: unit(), end }),
            self.settled.then(|| Record::Settled(unit())),
            self.released.then(|| Record::Released(unit())),
            self.purging.then(|| Record::Purging(unit())),
        ]
        .into_iter()
        .flatten()
    }
}

/// What the mark in the environment of every unit begins with.
pub(crate) const MARK: &str = "TASKWRIGHT_UNIT=";

/// The mark in the environment of a unit's whole tree.
pub(crate) fn mark(unit: &UnitKey) -> String {
    format!("{MARK}{unit}")
}

/// A unit's place in [`Units`]. Never used again, so a late timer or event finds nothing
/// instead of another unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct UnitId(pub(crate) u64);

/// A start that is under way. Never used again either.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct StartId(pub(crate) u64);

/// All units, by key, by place, by main process.
#[derive(Default)]
pub(crate) struct Units {
    units: HashMap<UnitId, Unit>,
    by_key: BTreeMap<UnitKey, UnitId>,
    by_pid: HashMap<i32, UnitId>,
    next: u64,
}

impl Units {
    pub(crate) fn insert(&mut self, unit: Unit) -> UnitId {
        let id = UnitId(self.next);
        self.next += 1;
        self.by_key.insert(unit.key().clone(), id);
        if unit.end().is_none() {
            self.by_pid.insert(unit.pid(), id);
        }
        self.units.insert(id, unit);
        id
    }

    pub(crate) fn get(&self, id: UnitId) -> Option<&Unit> {
        self.units.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: UnitId) -> Option<&mut Unit> {
        self.units.get_mut(&id)
    }

    pub(crate) fn find(&self, key: &UnitKey) -> Option<UnitId> {
        self.by_key.get(key).copied()
    }

    /// The unit whose main process runs as `pid`.
    pub(crate) fn running_as(&self, pid: i32) -> Option<UnitId> {
        self.by_pid.get(&pid).copied()
    }

    /// Notes the end of the main process, whose number may be used again from now on.
    pub(crate) fn end(&mut self, id: UnitId, end: UnitEnd) {
        if let Some(unit) = self.units.get_mut(&id) {
            self.by_pid.remove(&unit.pid());
            unit.main = Main::Ended(end);
        }
    }

    pub(crate) fn remove(&mut self, id: UnitId) -> Option<Unit> {
        let unit = self.units.remove(&id)?;
        self.by_key.remove(unit.key());
        if self.by_pid.get(&unit.pid()) == Some(&id) {
            self.by_pid.remove(&unit.pid());
        }
        Some(unit)
    }

    /// The units of one task.
    pub(crate) fn of_task(&self, task: TaskId) -> Vec<UnitId> {
        // "0" is the first of all unit names.
        let Ok(unit) = UnitName::parse("0") else {
            return Vec::new();
        };
        let first = UnitKey {
            task,
            attempt: AttemptNumber(0),
            unit,
        };
        self.by_key
            .range(first..)
            .take_while(|(key, _)| key.task == task)
            .map(|(_, id)| *id)
            .collect()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (UnitId, &Unit)> {
        self.units.iter().map(|(id, unit)| (*id, unit))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.units.is_empty()
    }
}

/// What is to be done at a time of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// A unit did not end soon: whoever asked for it is answered.
    Answer(UnitId),
    /// A child did not get to its program in time, or does not die.
    Start(StartId),
    /// The grace of a unit is over.
    Kill(UnitId),
    /// Another round of killing.
    KillAgain(UnitId),
    /// A look at the output files.
    Output(UnitId),
    /// Children that nobody asked for may have ended.
    Orphans,
    /// Trees that were left behind may have ended by themselves.
    LeftBehind,
    /// What could not be written down may find room now.
    WriteAgain,
    /// Nobody was connected and nothing was owned for a while.
    Idle,
}

/// Timers, soonest first. One that means nothing any more finds nothing to do.
#[derive(Default)]
pub(crate) struct Timers(std::collections::BTreeSet<(Instant, Timer)>);

impl Timers {
    pub(crate) fn set(&mut self, at: Instant, timer: Timer) {
        self.0.insert((at, timer));
    }

    /// Takes back a timer.
    pub(crate) fn forget(&mut self, at: Instant, timer: Timer) {
        self.0.remove(&(at, timer));
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.0.first().map(|(at, _)| *at)
    }

    pub(crate) fn take_due(&mut self, now: Instant) -> Option<Timer> {
        if self.next()? > now {
            return None;
        }
        self.0.pop_first().map(|(_, timer)| timer)
    }
}
