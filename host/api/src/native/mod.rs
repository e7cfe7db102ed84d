//! The native dialect: the contract of the original task executor, in both of its
//! forms, and beside it what we add.
//!
//! | module | about |
//! |---|---|
//! | `field` | reading a JSON tree field by field |
//! | `parse` | from a body to a task |
//! | `misspelt` | fields that are almost those that are read |
//! | `places` | where a submitter wrote what a problem is about |
//! | `status` | what the contract calls a task's state |
//! | `dto` | a task as it is answered |
//! | `bounds` | what it may use, how often it is tried, as whom it runs |
//! | `document` | a task as policies see it |
//! | `review` | what policies and people said about it |
//! | `tasks` | create, get, delete, wait, stop |
//! | `set` | `setTasks` and `getTasks` |
//! | `list` | pages of tasks by label and state |
//! | `logs`, `follow` | what tasks print |
//! | `events` | the numbered feed |
//! | `plugins` | the plugins that are loaded |
//! | `operator` | probes, metrics, version |
//! | `schema` | bodies as the OpenAPI document describes them |

mod bounds;
pub(crate) mod confinement;
pub(crate) mod document;
pub(crate) mod dto;
pub(crate) mod events;
pub(crate) mod exec;
pub(crate) mod field;
pub(crate) mod follow;
pub(crate) mod list;
pub(crate) mod logs;
mod misspelt;
mod number;
pub(crate) mod operator;
pub(crate) mod parse;
#[cfg(test)]
mod parse_tests;
pub(crate) mod places;
pub(crate) mod plugins;
mod quantity;
pub(crate) mod review;
pub(crate) mod schema;
pub(crate) mod set;
pub(crate) mod status;
#[cfg(test)]
mod status_tests;
pub(crate) mod tasks;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::extract::State;
use taskwright_model::{TaskKey, TaskName};

use crate::problem::Problem;
use crate::state::ApiState;

/// Where the whole dialect is served a second time.
pub const PREFIX: &str = "/opensandbox";

/// What every handler is given.
pub(crate) type Shared = State<Arc<ApiState>>;

/// The key of the task that a path names. A text that cannot be a name names no task.
pub(crate) fn key_of(state: &ApiState, name: &str) -> Result<TaskKey, Problem> {
    let name = TaskName::parse(name).map_err(|_| Problem::no_such_task(name))?;
    Ok(state.key(name))
}
