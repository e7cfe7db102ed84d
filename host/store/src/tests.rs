//! Tests of the whole crate. Measurements and generators are ignored by default.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests: a failure is the finding"
)]

mod compat;
mod crash;
mod damage;
mod measure;
mod memory;
mod open;
mod record;
mod reserve;
pub(crate) mod samples;
