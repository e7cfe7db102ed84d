//! What the loop claims, among fakes and in paused time; one subject a file.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails says so by panicking"
)]

mod faults;
mod lifecycle;
mod limits;
mod observing;
mod policies;
mod random;
mod recovery;
mod sets;
mod store;
mod support;
mod watching;
