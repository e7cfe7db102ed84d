//! The workers inside a daemon, as its API sees them.

use taskwright_model::TaskId;

use crate::worker::WorkerId;

/// The most that one daemon has (contracts/aiopslab.md, 1.4).
pub const MOST_INTERNAL: usize = 50;

/// What a worker of a daemon is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberState {
    /// It waits for a task.
    Idle,
    /// It holds one.
    Busy,
    /// It finishes what it holds, and goes.
    Draining,
}

/// A worker of a daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: WorkerId,
    /// What it is doing.
    pub state: MemberState,
    /// The task it holds.
    pub current: Option<TaskId>,
}

/// How the workers of a daemon are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolStatus {
    /// Whether they are to work.
    pub running: bool,
    /// How many are wanted while they are.
    pub wanted: usize,
    /// Those there are.
    pub members: Vec<Member>,
    /// Whether any template tells them what to run: without one they take no task.
    pub has_templates: bool,
}

/// Orders to the workers of a daemon. Each is kept at once, and carried out as soon as it can be;
/// the same again changes nothing.
pub trait InternalWorkers: Send + Sync + 'static {
    /// How they are.
    fn status(&self) -> PoolStatus;

    /// Wants so many, at most [`MOST_INTERNAL`]; answers how many were wanted before.
    fn scale(&self, count: usize) -> usize;

    /// Wants them to work.
    fn start(&self);

    /// Wants them to go. What they hold is finished.
    fn stop(&self);
}

/// No workers, for a daemon that has none.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoWorkers;

impl InternalWorkers for NoWorkers {
    fn status(&self) -> PoolStatus {
        PoolStatus {
            running: false,
            wanted: 0,
            members: Vec::new(),
            has_templates: false,
        }
    }

    fn scale(&self, _count: usize) -> usize {
        0
    }

    fn start(&self) {}

    fn stop(&self) {}
}
