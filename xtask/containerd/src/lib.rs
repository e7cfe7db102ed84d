//! A containerd of our own for tests, the benchmark and the tour of the README.
//!
//! Everything lies in one folder: the programs, unpacked from the distribution's packages and
//! never installed; the images, made here and never downloaded; the configuration, the socket
//! and the log. What a container runtime leaves elsewhere (a bridge, cgroups, mounts, sockets of
//! its shims, results of network plugins) is taken away by [`service::stop`], and by the next
//! start if nobody came to stop it.
//!
//! | module | about |
//! |---|---|
//! | [`place`] | the folder, and every name that is derived from it |
//! | [`packages`] | the programs |
//! | [`image`], [`images`] | packing a directory as an image; the images of the tests |
//! | [`config`] | what containerd is told |
//! | [`service`] | start, status, stop, wipe |
//! | [`leftovers`] | what is taken away after containerd and all its containers ended |
//! | [`registry`] | an image registry on the loopback address |
//! | [`program`] | programs that other tests need: a registry, bubblewrap |
//! | [`probe`] | whether the socket answers CRI calls |
//! | [`process`] | processes by identity, never by name |
//! | [`environment`] | the variables that tell tests of it
//! | [`command`] | other programs, with a deadline |
//!
//! It is no part of the product, configures nothing of the machine, opens no port beyond the
//! loopback address, and pulls nothing from anywhere: every registry name leads to this machine.

pub mod command;
pub mod config;
pub mod environment;
pub mod image;
pub mod images;
pub mod leftovers;
pub mod packages;
pub mod place;
pub mod probe;
pub mod process;
pub mod program;
pub mod registry;
pub mod service;

pub use packages::Suite;
pub use place::Place;
pub use registry::Registry;
pub use service::{Ready, Status};
