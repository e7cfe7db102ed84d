//! What is remembered from one call to the next, as JSON with a version.

use serde::{Deserialize, Serialize};
use taskwright_plugin_sdk::container::ContainerState;
use taskwright_plugin_sdk::{End, ExitStatus};

/// The version of the form below. A plugin reads the versions before its own, too.
const VERSION: u32 = 1;
/// What the host keeps for an attempt. Sixteen containers take a tenth of it.
const MOST_STATE_BYTES: usize = 64 << 10;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    version: u32,
    /// How many of the images are there.
    pub(super) images: usize,
    pub(super) sandbox: Option<Sandbox>,
    /// In the order of the plan.
    pub(super) units: Vec<Unit>,
    /// Whether the host was told that the work runs.
    pub(super) told_running: bool,
    /// The shortest grace that a stop came with, in milliseconds.
    pub(super) stop: Option<u64>,
    /// Since when the container runtime is away, in milliseconds since 1970.
    pub(super) away_since: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sandbox {
    pub(super) address: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Unit {
    pub(super) stage: Stage,
    pub(super) doubt: Option<Doubt>,
    /// The grace that its stop was asked with.
    pub(super) told_grace: Option<u64>,
    /// How many of its starts were cut off.
    pub(super) cut_off: u32,
}

/// How far a container is. Times are in milliseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Stage {
    Absent,
    Created,
    Running {
        since: u64,
    },
    Ended {
        status: Status,
        out_of_memory: bool,
        /// Absent when it never was.
        started: Option<u64>,
        ended: u64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Status {
    Code(u8),
    Signal(u32),
    Lost,
}

/// Why a container must be looked at before anything else is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Doubt {
    /// Nothing is remembered of it, and it may be there.
    Trace,
    /// The daemon was away while it ran.
    Recovered,
    /// It ended, and nobody said how.
    End,
    /// It is to stop, which is no proof that it is there.
    Stopping,
}

impl State {
    pub(super) fn new(containers: usize) -> Self {
        let untouched = Unit {
            stage: Stage::Absent,
            doubt: None,
            told_grace: None,
            cut_off: 0,
        };
        Self {
            version: VERSION,
            images: 0,
            sandbox: None,
            units: vec![untouched; containers],
            told_running: false,
            stop: None,
            away_since: None,
        }
    }

    pub(super) fn read(bytes: &[u8], containers: usize) -> Result<Self, String> {
        /// Read first, since another version may have another form.
        #[derive(Deserialize)]
        struct Head {
            version: u32,
        }
        let unreadable = |error| format!("its own state cannot be read: {error}");
        let head: Head = serde_json::from_slice(bytes).map_err(unreadable)?;
        if head.version != VERSION {
            return Err(format!(
                "its own state has version {}, this plugin reads version {VERSION}",
                head.version
            ));
        }
        let state: Self = serde_json::from_slice(bytes).map_err(unreadable)?;
        if state.units.len() != containers {
            return Err(format!(
                "its own state tells of {} containers, the task has {containers}",
                state.units.len()
            ));
        }
        Ok(state)
    }

    pub(super) fn write(&self) -> Result<Vec<u8>, String> {
        let bytes = serde_json::to_vec(self)
            .map_err(|error| format!("its own state cannot be written: {error}"))?;
        if bytes.len() > MOST_STATE_BYTES {
            return Err(format!("its own state has {} bytes", bytes.len()));
        }
        Ok(bytes)
    }
}

impl Unit {
    /// Whether nothing was ever done about it.
    pub(super) fn is_untouched(&self) -> bool {
        self.stage == Stage::Absent
    }

    pub(super) fn has_ended(&self) -> bool {
        matches!(self.stage, Stage::Ended { .. })
    }

    /// Takes what its start answered.
    pub(super) fn started(&mut self, found: ContainerState, now: u64) {
        match found {
            ContainerState::Ended(end) => self.end(end, now),
            ContainerState::Running(since) => self.stage = Stage::Running { since },
            // It was started just now, whatever was seen of it.
            ContainerState::Created => self.stage = Stage::Running { since: now },
        }
    }

    /// Hears of its end. One that was heard of already counts once.
    pub(super) fn hear_end(&mut self, end: End, now: u64) {
        if end.status == ExitStatus::Unknown && !end.out_of_memory {
            if !self.has_ended() {
                self.doubt = Some(Doubt::End);
            }
        } else if !self.has_ended() {
            self.doubt = None;
            self.end(end, now);
        }
    }

    pub(super) fn end(&mut self, end: End, now: u64) {
        let started = match self.stage {
            Stage::Running { since } => since,
            // It ran so short that nobody saw it run.
            Stage::Absent | Stage::Created | Stage::Ended { .. } => now,
        };
        self.stage = Stage::Ended {
            status: match end.status {
                ExitStatus::Code(code) => Status::Code(code),
                ExitStatus::Signal(number) => Status::Signal(number),
                ExitStatus::Unknown => Status::Lost,
            },
            out_of_memory: end.out_of_memory,
            started: Some(started),
            ended: now.max(started),
        };
    }
}
