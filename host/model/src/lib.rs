//! The pure heart of Taskwright: what a task is and what may happen to it.
//!
//! No I/O, no clock, no async, no serde, nothing of ours below it. Times come
//! in as values, effects go out as values, and whoever holds both does the work.
//!
//! | module | about |
//! |---|---|
//! | [`id`] | names that were parsed once and are valid for ever |
//! | [`spec`] | what a submitter asked for |
//! | [`confinement`] | what a task may use, and as whom it runs |
//! | [`task`] | the one aggregate: spec, state, attempts |
//! | [`state`] | the machine: `apply(task, event, now)` |
//! | [`event`] | what may happen to a task, what it makes us do |
//! | [`outcome`] | how it ended, and whose doing that was |
//! | [`deadline`] | queue, start, idle, run and grace limits as arithmetic |
//! | [`review`] | what policies and people said about it, and what holds it back |
//! | [`retry`] | whether another attempt is due, and when |
//! | [`time`] | the one kind of timestamp |

pub mod confinement;
pub mod deadline;
pub mod event;
pub mod id;
pub mod outcome;
pub mod retry;
pub mod review;
pub mod spec;
pub mod state;
pub mod task;
#[cfg(test)]
mod tests;
pub mod time;

pub use confinement::{Confinement, Enforced, Mechanism, Restriction, User};
pub use deadline::Limit;
pub use event::{Effect, Event, Happening, Refusal};
pub use id::{
    AttemptNumber, IdError, Namespace, RuntimeName, TaskId, TaskKey, TaskName, UnitKey, UnitName,
};
pub use outcome::{ExitStatus, Fault, Outcome};
pub use review::{Answer, Answered, Decision, Hold, Mode, Review, Round, Said, Stage, Verdict};
pub use spec::{EnvVar, ProcessSpec, RetryPolicy, TaskSpec, TimeLimits, Work};
pub use state::{StopReason, TaskState};
pub use task::{Attempt, Part, PartState, ProcessIdentity, Remarks, Task};
pub use time::Timestamp;
