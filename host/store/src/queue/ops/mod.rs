//! The operations of the queue, each written once for both databases.
//!
//! | module | about |
//! |---|---|
//! | `tasks` | create, read, list, cancel |
//! | `workers` | register, hear, list, let go |
//! | `claims` | which task a worker gets |
//! | `ends` | what an attempt's end changes, whoever says it |
//! | `sweep` | what is out of time, and whose worker is lost |
//! | `writers` | who may write something down of a task |
//! | `logs`, `conversations`, `steps` | what is kept of a run |
//! | `export` | all of it, in the order of ends |
//! | `lists` | lists as one parameter |
//! | `totals` | sums that are kept, and read |
//! | `callbacks` | ends that somebody wants to be told |

pub(super) mod callbacks;
pub(super) mod claims;
pub(super) mod conversations;
pub(super) mod ends;
pub(super) mod export;
mod lists;
pub(super) mod logs;
pub(super) mod steps;
pub(super) mod sweep;
pub(super) mod tasks;
pub(super) mod totals;
pub(super) mod workers;
pub(super) mod writers;

use super::sql::Value;

/// The most bytes that a page of what is kept holds: one row may be larger.
const PAGE_BYTES: usize = 8 * 1024 * 1024;

/// The conditions of a list: each column that has to have a value, with the values beside them in
/// the order of their numbers.
pub(super) fn conditions<'a>(wanted: &[(&str, Option<&'a str>)]) -> (String, Vec<Value<'a>>) {
    let mut text = String::new();
    let mut values = Vec::new();
    for (column, value) in wanted {
        let Some(value) = *value else { continue };
        values.push(value.into());
        let joint = if text.is_empty() { "WHERE" } else { "AND" };
        text.push_str(&format!(" {joint} {column} = ?{}", values.len()));
    }
    (text, values)
}

/// The text of a statement, and what locks its rows in PostgreSQL against others.
pub(super) fn locked<S: super::sql::Sql>(sql: &str, lock: &str) -> String {
    if S::POSTGRES {
        format!("{sql} {lock}")
    } else {
        sql.to_owned()
    }
}
