//! Time limits as arithmetic on given times. Nothing here waits.

use std::time::Duration;

use crate::review::Hold;
use crate::state::TaskState;
use crate::task::Task;
use crate::time::Timestamp;

/// How long after the grace the host waits for a strategy to report the end
/// before it ends the attempt itself.
pub const STOP_MARGIN: Duration = Duration::from_secs(5);

/// Which time limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Limit {
    /// Waited too long for its first attempt.
    Queue,
    /// Took too long from launch to running.
    Start,
    /// Printed nothing for too long.
    Idle,
    /// Ran too long.
    Run,
}

impl Limit {
    /// The word for it in JSON, metrics and prose.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Start => "start",
            Self::Idle => "idle",
            Self::Run => "run",
        }
    }
}

/// What is due when a task's next moment comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// A limit fires.
    Limit(Limit),
    /// The output must be looked at: the idle limit fires unless something was printed since.
    IdleCheck,
    /// A waiting retry may launch.
    Retry,
    /// Nobody answered what a policy asked.
    Answer,
    /// The attempt should long have been stopped: the host ends it itself.
    StopOverdue,
}

/// The next moment at which something is due for `task`, if any.
///
/// `last_output` is when the running attempt last printed something, as far as is known;
/// it only matters to the idle limit.
#[must_use]
pub fn next_due(task: &Task, last_output: Option<Timestamp>) -> Option<(Timestamp, Due)> {
    let limits = &task.spec.limits;
    let at = |from: Timestamp, limit: Option<Duration>, due: Due| {
        limit.map(|after| (from.plus(after), due))
    };
    match &task.state {
        TaskState::Pending { not_before } => {
            let queue = if task.attempts.is_empty() {
                at(task.submitted_at, limits.queue, Due::Limit(Limit::Queue))
            } else {
                None
            };
            let retry = not_before.map(|moment| (moment, Due::Retry));
            let answer = match task.hold() {
                Some(Hold::Asked { until, .. }) => Some((*until, Due::Answer)),
                Some(Hold::Broken { .. }) | None => None,
            };
            earliest(earliest(queue, retry), answer)
        }
        TaskState::Starting { since } => at(*since, limits.start, Due::Limit(Limit::Start)),
        TaskState::Running { since } => {
            let run = at(*since, limits.run, Due::Limit(Limit::Run));
            let seen = last_output.map_or(*since, |moment| moment.max(*since));
            earliest(run, at(seen, limits.idle, Due::IdleCheck))
        }
        TaskState::Stopping { since, grace, .. } => {
            Some((since.plus(*grace).plus(STOP_MARGIN), Due::StopOverdue))
        }
        TaskState::Ended { .. } => None,
    }
}

fn earliest(a: Option<(Timestamp, Due)>, b: Option<(Timestamp, Due)>) -> Option<(Timestamp, Due)> {
    match (a, b) {
        (Some(a), Some(b)) => Some(if b.0 < a.0 { b } else { a }),
        (a, b) => a.or(b),
    }
}
