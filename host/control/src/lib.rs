//! The control loop: one writer of state, and the ports it needs.
//!
//! | module | about |
//! |---|---|
//! | [`port`] | what the loop needs of the world: journal, strategies, units, clock |
//! | [`handle`] | [`Control`]: what HTTP handlers and commands ask of the loop |
//! | [`request`] | the questions and their answers |
//! | [`mod@core`] | the book of tasks: indexes, queue, timers, undo; no async |
//! | [`message`] | what the loop is told |
//! | [`review`] | what policies make of a task |
//! | [`dispatcher`] | the loop: gather, decide, commit, publish, act |
//! | [`attempts`] | calls to strategies, one after the other for each attempt |
//! | `orders` | what is to be done about units, in order for each task |
//! | [`observe`] | tells observers what happens |
//! | [`recover`] | what a restart makes of journal and live units |
//! | [`feed`] | numbered events for watchers |
//! | `fake` | a world of fakes for tests, behind the feature of that name |
//! | [`view`] | what readers see: only what is durable |

pub mod attempts;
pub mod core;
pub mod dispatcher;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
pub mod feed;
pub mod handle;
pub mod message;
pub mod observe;
mod orders;
pub mod port;
pub mod recover;
pub mod request;
pub mod review;
#[cfg(test)]
mod tests;
pub mod view;

pub use dispatcher::{Config, Parts, Running, start};
pub use handle::{Control, Ending};
pub use request::{
    ControlError, IdempotencyKey, Page, Selector, SetAnswer, SetElement, SetProblem, Submission,
    SubmitError, Submitted,
};
