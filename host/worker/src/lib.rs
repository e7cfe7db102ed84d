//! Workers of the queue that run tasks through the runtimes of this machine.
//!
//! A worker claims a task, finds the template for its problem, makes a task of this
//! machine of it, follows that to its end and reports. Where the queue is, the worker
//! does not know: beside it in the same daemon, or elsewhere and reached by HTTP.
//!
//! | module | about |
//! |---|---|
//! | [`template`] | from a problem to a task of this machine |
//! | [`folder`] | parameters in, a result out, by files |
//! | [`lines`] | from output to lines with levels |
//! | [`end`] | from an outcome to a report |
//! | [`port`], [`direct`] | what a worker needs of the queue, and the one in the same daemon |
//! | [`runs`] | what it needs of this machine |
//! | `attempt` | one task, from claim to report |
//! | [`worker`] | one worker: register, hear, claim |
//! | [`pool`] | the workers inside a daemon: start, stop, scale |
//! | [`names`] | ids that nobody else has |

mod attempt;
pub mod direct;
pub mod end;
pub mod folder;
pub mod lines;
pub mod names;
pub mod pool;
pub mod port;
pub mod runs;
pub mod template;
pub mod worker;

#[cfg(test)]
mod tests;

pub use pool::Pool;
pub use port::{Assignment, QueueError, Standing, WorkQueue};
pub use runs::Runs;
pub use template::{Template, Templates};
pub use worker::Worker;
