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
//! | `TASKWRIGHT_NIGHTLY=1` | 200 rounds of random kills instead of 20, 100 faults among several daemons instead of 10, 100 changes of a plugin instead of 20 |
//! | `TASKWRIGHT_CHAOS_SEED` | the moments of a run that failed |
//! | `TASKWRIGHT_TEST_CRI_DIR` | the folder of the containerd for tests, as `cargo xtask containerd start` prints it |
//! | `TASKWRIGHT_TEST_CRI_SOCKET` | where it answers |
//! | `TASKWRIGHT_TEST_CRI_IMAGE` | an image with a shell that it has |
//! | `TASKWRIGHT_TEST_REGISTRY` | the registry program, if `cargo xtask programs` did not unpack it |
//! | `TASKWRIGHT_TEST_BWRAP` | the same of bubblewrap |
//! | `TASKWRIGHT_TEST_LANGUAGES` | where toolchains of other languages are, as `cargo xtask languages` prints it |
//! | `CI=true` | nothing may be skipped by root, and nothing for want of a containerd or a registry by anybody |

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
mod cluster;
mod confinement;
mod conformance;
mod container;
mod examples;
mod export;
mod faults;
mod feed;
mod heavy;
mod held;
mod http;
mod kill_tree;
mod languages;
mod lent;
mod lifecycle;
mod limits;
mod live;
mod opensandbox;
mod output;
mod packaging;
mod plugin_new;
mod plugins;
mod policies;
mod queue;
mod replay;
mod restart;
mod scripts;
mod sidecar;
mod tessia;
mod workers;

use std::path::{Path, PathBuf};

use serde_json::Value;
use taskwright_tests::Daemon;

/// A task that misbehaves as `tests/programs/misbehave.rs` says.
fn misbehave(name: &str, words: &[&str]) -> Value {
    let mut command = vec![env!("CARGO_BIN_EXE_misbehave")];
    command.extend(words);
    taskwright_tests::task::flat(name, &command)
}

/// The groups that limit tasks of this daemon. Those that keep trees together are used again, so
/// they are none.
fn limited_groups(daemon: &Daemon) -> Vec<PathBuf> {
    let name = daemon.home().groups_name();
    let mut found = Vec::new();
    for hierarchy in ["cpu", "memory", "pids"] {
        let base = Path::new("/sys/fs/cgroup").join(hierarchy);
        groups_called(&base, &name, 3, &mut found);
    }
    found
}

/// Looks for directories called `name` and adds what is in them. The daemon may be deep in a
/// hierarchy, but not under everything.
fn groups_called(base: &Path, name: &str, depth: usize, found: &mut Vec<PathBuf>) {
    let directories = std::fs::read_dir(base).into_iter().flatten().flatten();
    for directory in directories
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
    {
        if directory.file_name().is_some_and(|called| called == name) {
            let groups = std::fs::read_dir(&directory)
                .into_iter()
                .flatten()
                .flatten();
            found.extend(
                groups
                    .map(|entry| entry.path())
                    .filter(|path| path.is_dir()),
            );
        } else if depth > 0 {
            groups_called(&directory, name, depth - 1, found);
        }
    }
}
