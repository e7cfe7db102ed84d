//! What the model claims, one subject a file.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails says so by panicking"
)]

mod deadlines;
mod names;
mod properties;
mod script;
mod table;
