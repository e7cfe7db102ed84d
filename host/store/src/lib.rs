//! Durable records of tasks and events on SQLite.
//!
//! One directory, one daemon: [`Store::open`] locks it, checks it, sets aside
//! what is damaged and hands out the two ports of `control`.
//!
//! | module | about |
//! |---|---|
//! | `open` | the way from a directory to a checked, loaded store |
//! | `lock` | one daemon per directory |
//! | `schema` | tables, versions, how a connection is set up |
//! | `journal` | writing: one batch, one transaction, one fsync |
//! | `history` | reading the feed, beside the writer |
//! | `load` | everything on record, damaged records set aside |
//! | `salvage` | what can still be read out of a malformed database |
//! | `reserve` | room for the write-ahead log |
//! | `witness` | a second opinion on how far the journal went |
//! | [`queue`] | tasks that wait for workers, on SQLite or PostgreSQL |
//! | `record` | the bytes of one record, and every form they ever had |
//!
//! This crate decides nothing about tasks, and it never deletes what it cannot
//! read: damaged records move to the table `damaged`, damaged files keep their
//! bytes under another name.

#[cfg(test)]
mod contract;
mod history;
mod journal;
mod load;
mod lock;
mod open;
pub mod queue;
mod record;
mod reserve;
mod salvage;
mod schema;
#[cfg(test)]
mod tests;
mod witness;

pub use history::SqliteFeedHistory;
pub use journal::SqliteJournal;
pub use open::{OpenError, Options, Store};
