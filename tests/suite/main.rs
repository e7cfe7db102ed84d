//! The end-to-end suite: what Taskwright promises, asked of the real binary from outside.
//!
//! One test binary with a module for each subject. Tests run side by side, each with a daemon
//! and a directory of its own; a test is named by what it claims.
//!
//! `cargo xtask test` builds the binary and runs this. By hand:
//!
//! ```text
//! cargo build -p taskwright && cargo test -p taskwright-tests --test suite -- restart::
//! ```
//!
//! | variable | says |
//! |---|---|
//! | `TASKWRIGHT_BIN` | another binary to test |
//! | `TASKWRIGHT_NIGHTLY=1` | 200 rounds of random kills instead of 20 |
//! | `TASKWRIGHT_CHAOS_SEED` | the moments of a run that failed |
//! | `CI=true` | nothing may be skipped by root |

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod access;
mod bad_input;
mod chaos;
mod cli;
mod faults;
mod feed;
mod http;
mod kill_tree;
mod lifecycle;
mod limits;
mod opensandbox;
mod output;
mod restart;

use serde_json::Value;

/// A task that misbehaves as `tests/programs/misbehave.rs` says.
fn misbehave(name: &str, words: &[&str]) -> Value {
    let mut command = vec![env!("CARGO_BIN_EXE_misbehave")];
    command.extend(words);
    taskwright_tests::task::flat(name, &command)
}
