//! Containers of a CRI runtime, as containerd or CRI-O, as units.
//!
//! The only crate that knows CRI. It speaks `runtime.v1` over the runtime's socket, carries
//! what containers print from the runtime's log files into the files of tasks, and reports ends.
//! It never starts a runtime, never touches what another instance made, and never guesses how a
//! container ended: what the runtime does not know is told as unknown.
//!
//! The runtime's own objects are the memory: they are labelled and named so that asking twice
//! finds the first, in this life of the daemon and in the next.
//!
//! | module | about |
//! |---|---|
//! | `host` | [`CriHost`]: what there is, and the trait's orders in one place |
//! | `marks` | labels and names: how objects are found again |
//! | `sandbox`, `container`, `image`, `exec`, `remove` | the orders |
//! | `confine`, `group` | what a confinement is in the runtime's words, and what is done beside |
//! | `ends` | how ends are noticed, and reported when the output is whole |
//! | `output` | from log files into the files of tasks |
//! | `rpc`, `messages`, `fault` | the protocol, and what its failures mean |

mod confine;
mod container;
mod ends;
mod exec;
mod fault;
mod group;
mod host;
mod image;
mod marks;
mod messages;
mod output;
mod remove;
mod rpc;
mod sandbox;
mod track;

pub use host::{CriConfig, CriHost};
