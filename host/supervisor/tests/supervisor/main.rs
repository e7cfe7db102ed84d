//! Real supervisors, real processes: what the supervisor promises, proven one by one.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test that cannot go on has failed"
)]

mod confined;
mod container;
mod crashes;
mod ends;
mod harness;
mod held;
mod inside;
mod outputs;
mod trees;
