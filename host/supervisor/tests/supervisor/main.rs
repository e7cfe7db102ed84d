//! Real supervisors, real processes: what the supervisor promises, proven one by one.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod crashes;
mod ends;
mod harness;
mod outputs;
mod trees;
