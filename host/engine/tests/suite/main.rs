//! The engine with real components and a double of the host's processes.
//!
//! | module | claims |
//! |---|---|
//! | `strategy` | the shipped process runtime does its work through the ports |
//! | `containment` | whatever a guest does, this call fails and the next one works |
//! | `world` | a component that does not fit is refused, in words |
//! | `cache` | compiled code is kept, found, and not trusted when it should not be |
//! | `lent` | what was lent by name is had, within its bounds, and nothing else |
//! | `lent_http` | requests go to listed hosts and nobody else, whatever a server does |
//! | `script` | a text on the engine of scripts is a runtime |
//! | `speed` | how long calls and loads take; run by hand, with `--ignored` and `--release` |

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod cache;
mod containment;
mod lent;
mod lent_http;
mod script;
mod speed;
mod strategy;
mod support;
mod world;
