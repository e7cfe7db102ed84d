//! Harness of the end-to-end tests: the real binary, seen from outside.
//!
//! Nothing in here knows the crates of the product. A test starts a daemon in a
//! directory of its own, speaks HTTP or the command line to it, looks at `/proc`,
//! and leaves nothing behind.
//!
//! | module | about |
//! |---|---|
//! | [`binary`] | where the program under test is |
//! | [`home`] | a private directory, and every process that belongs to it |
//! | [`daemon`] | starting, killing and starting again |
//! | [`client`] | HTTP over TCP and Unix sockets, in blocking calls |
//! | [`stream`] | server-sent events |
//! | [`cli`] | the command line, with a deadline |
//! | [`task`] | bodies to send, and what to read in answers |
//! | [`program`] | programs that `cargo xtask test` unpacked for tests |
//! | [`postgres`] | databases on a PostgreSQL server of the run |
//! | [`network`] | networks of namespaces, whose cables can be pulled out |
//! | [`queued`] | the queue as its clients speak to it |
//! | [`random`] | moments and faults at random |
//! | [`history`] | what happened to a queue under faults, and a checker of it |
//! | [`registry`] | a registry for plugins, and servers that only pretend to be one |
//! | [`reaper`] | this process as subreaper; children with an owner |
//! | [`processes`] | what `/proc` says; a zombie is dead |
//! | [`containerd`] | the containerd of the run, its images and what it holds |
//! | [`languages`] | the toolchains of other languages than Rust |
//! | [`main_container`] | a main container for sidecars, made without a runtime |
//! | [`mount`] | small and read-only file systems, where that is permitted |
//!
//! Everything fails by panic with what was seen, and every wait has a deadline.

#![expect(
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a harness fails by panic: its callers are tests"
)]

pub mod binary;
pub mod cli;
pub mod client;
pub mod containerd;
pub mod daemon;
pub mod history;
pub mod home;
pub mod languages;
pub mod main_container;
pub mod mount;
pub mod network;
pub mod postgres;
pub mod processes;
pub mod program;
pub mod queued;
pub mod random;
pub mod reaper;
pub mod registry;
pub mod stream;
pub mod task;
pub mod terminal;

use std::time::{Duration, Instant};

pub use cli::Finished;
pub use client::{Client, Connection, Request, Response};
pub use containerd::Containerd;
pub use daemon::{Daemon, Options};
pub use home::Home;
pub use main_container::{MainContainer, MainOptions};
pub use network::{Machine, Network};
pub use stream::{EventStream, ServerEvent};

/// Longer than anything takes on a busy machine, shorter than anyone's patience.
pub const SOON: Duration = Duration::from_secs(20);

/// How long to wait between two looks.
const LOOK: Duration = Duration::from_millis(10);

/// Waits until `condition` holds.
///
/// # Panics
/// When it does not within `deadline`.
pub fn eventually(deadline: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    eventually_some(deadline, what, || condition().then_some(()));
}

/// Waits until `look` finds something, and answers with it.
///
/// # Panics
/// When it does not within `deadline`.
pub fn eventually_some<T>(
    deadline: Duration,
    what: &str,
    mut look: impl FnMut() -> Option<T>,
) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(
            begun.elapsed() < deadline,
            "not within {deadline:?}: {what}"
        );
        std::thread::sleep(LOOK);
    }
}

/// Says why a test cannot do its work here. In CI as root that is a failure: there
/// everything must be possible.
///
/// # Panics
/// In CI as root.
pub fn skip(reason: &str) {
    let in_ci = std::env::var_os("CI").is_some_and(|value| value == "true");
    if in_ci && rustix::process::geteuid().is_root() {
        panic!("a test that may not be skipped here cannot run: {reason}");
    }
    tell_skipped(reason);
}

/// Says that a test was skipped, and why.
pub(crate) fn tell_skipped(reason: &str) {
    use std::io::Write as _;
    // Past libtest's capture, so that a skipped test never looks like one that passed.
    let _ = writeln!(std::io::stderr(), "skipped: {reason}");
}
