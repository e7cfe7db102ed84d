//! Components for tests, compiled by the build.
//!
//! `cargo test` of whoever depends on this crate compiles them first, so a test
//! never runs against a component that is older than its source.

/// The built-in runtime for commands (`plugins/process`).
pub const PROCESS: &[u8] = include_bytes!(env!("GUEST_PROCESS"));

/// The engine of scripts (`plugins/script`).
pub const SCRIPT: &[u8] = include_bytes!(env!("GUEST_SCRIPT"));

/// A good runtime as others write them, for commands (`tests/guests/relay`).
pub const RELAY: &[u8] = include_bytes!(env!("GUEST_RELAY"));

/// A runtime that misbehaves as its settings say (`tests/guests/misbehave`).
pub const MISBEHAVE: &[u8] = include_bytes!(env!("GUEST_MISBEHAVE"));

/// A runtime that tries what it was lent, as its task's command says (`tests/guests/borrower`).
pub const BORROWER: &[u8] = include_bytes!(env!("GUEST_BORROWER"));
