//! Sums over the queue, each made by the store without reading what it sums.

use crate::task::TaskStatus;
use crate::worker::WorkerStatus;

/// How many tasks there are, by status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// That wait.
    pub pending: u64,
    /// That a worker holds.
    pub running: u64,
    /// That brought a result.
    pub completed: u64,
    /// That did not.
    pub failed: u64,
    /// That ran out of time.
    pub timeout: u64,
    /// That were called off.
    pub cancelled: u64,
}

impl Counts {
    /// Those of one status.
    #[must_use]
    pub const fn of(&self, status: TaskStatus) -> u64 {
        match status {
            TaskStatus::Pending => self.pending,
            TaskStatus::Running => self.running,
            TaskStatus::Completed => self.completed,
            TaskStatus::Failed => self.failed,
            TaskStatus::Timeout => self.timeout,
            TaskStatus::Cancelled => self.cancelled,
        }
    }

    /// Sets those of one status.
    pub const fn set(&mut self, status: TaskStatus, count: u64) {
        match status {
            TaskStatus::Pending => self.pending = count,
            TaskStatus::Running => self.running = count,
            TaskStatus::Completed => self.completed = count,
            TaskStatus::Failed => self.failed = count,
            TaskStatus::Timeout => self.timeout = count,
            TaskStatus::Cancelled => self.cancelled = count,
        }
    }

    /// All of them.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.pending
            .saturating_add(self.running)
            .saturating_add(self.completed)
            .saturating_add(self.failed)
            .saturating_add(self.timeout)
            .saturating_add(self.cancelled)
    }
}

/// How many workers there are, by what they are doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkerCounts {
    /// That may claim.
    pub idle: u64,
    /// That hold a task.
    pub busy: u64,
    /// That were silent for too long, or said that they go.
    pub offline: u64,
}

impl WorkerCounts {
    /// Those of one status.
    #[must_use]
    pub const fn of(&self, status: WorkerStatus) -> u64 {
        match status {
            WorkerStatus::Idle => self.idle,
            WorkerStatus::Busy => self.busy,
            WorkerStatus::Offline => self.offline,
        }
    }

    /// Sets those of one status.
    pub const fn set(&mut self, status: WorkerStatus, count: u64) {
        match status {
            WorkerStatus::Idle => self.idle = count,
            WorkerStatus::Busy => self.busy = count,
            WorkerStatus::Offline => self.offline = count,
        }
    }

    /// All of them.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.idle
            .saturating_add(self.busy)
            .saturating_add(self.offline)
    }
}

/// Sums over tasks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TaskStats {
    /// How many there are.
    pub counts: Counts,
    /// Seconds from submission to the last claim, over those that run or brought a result.
    pub average_wait: Option<f64>,
    /// Seconds from the last claim to the end, over those that brought a result.
    pub average_execution: Option<f64>,
    /// How many there are of each problem: the most frequent first, a bounded number of them.
    pub by_problem: Vec<(String, u64)>,
    /// How many each worker held last, likewise.
    pub by_worker: Vec<(String, u64)>,
}

/// Sums over one worker's tasks.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct WorkerStats {
    /// Seconds from claim to end, over those that brought a result.
    pub average_execution: Option<f64>,
}

/// Sums over conversations.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConversationStats {
    /// How many there are.
    pub conversations: u64,
    /// By model, the most frequent first, a bounded number of them.
    pub by_model: Vec<(String, u64)>,
    /// Messages of all.
    pub messages: u64,
    /// Tokens of all: reported, or estimated where nobody reported.
    pub tokens: u64,
    /// Those that reached their end.
    pub successful: u64,
}
