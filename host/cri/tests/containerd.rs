//! The container host against a real runtime.
//!
//! Runs where `TASKWRIGHT_TEST_CRI_SOCKET` names the socket of a containerd that is there for
//! tests, and `TASKWRIGHT_TEST_CRI_IMAGE` an image in it that holds busybox. What needs more is
//! told by further variables:
//!
//! | variable | for |
//! |---|---|
//! | `TASKWRIGHT_TEST_CRI_RESTART` | a command that starts containerd anew, and |
//! | `TASKWRIGHT_TEST_CRI_PID_FILE` | the file with its process id: what a restart leaves |
//! | `TASKWRIGHT_TEST_CRI_REGISTRY` | the directory of `hosts.toml` for all registries: pulls |
//! | `TASKWRIGHT_TEST_CRI_LOOPBACK` | a runtime handler without a network |

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that cannot go on has failed, and says why it was skipped"
)]

#[path = "containerd/mod.rs"]
mod suite;
