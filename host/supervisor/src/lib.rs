//! The small process that owns task processes, and the client the daemon speaks to it with.
//!
//! Two processes from one image: the *guardian* waits, the *supervisor* works. The
//! supervisor is the parent of every task's main process; it writes each end to its
//! log before it takes the zombie away or tells anybody. If it dies, its children fall
//! to the guardian, which keeps their zombies until the next supervisor has written
//! them down. The daemon may come and go.
//!
//! | module | about |
//! |---|---|
//! | [`client`] | the daemon's side, implements `ProcessHost` |
//! | [`output`] | reading what tasks print, by offset |
//! | [`writer`] | appending to it, for what prints elsewhere |
//! | [`run`] | the hidden verb |
//! | [`options`] | how a supervisor is started |

mod cap;
pub mod client;
mod codec;
mod guardian;
mod log;
pub mod options;
pub mod output;
mod place;
mod process;
mod record;
mod remove;
pub mod run;
mod sealed;
mod session;
mod target;
mod unit;
mod wire;
pub mod writer;

pub use client::{StartError, SupervisorClient, SupervisorConfig};
pub use options::SuperviseOptions;
pub use output::{OutputPiece, OutputReader, OutputStream};
pub use run::supervise;
pub use taskwright_native::TreeLevel;
pub use wire::SupervisorStatus;
pub use writer::OutputWriter;
