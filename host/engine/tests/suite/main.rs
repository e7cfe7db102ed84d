//! The engine with real components and a double of the host's processes.
//!
//! | module | claims |
//! |---|---|
//! | `strategy` | the shipped process runtime does its work through the ports |
//! | `containment` | whatever a guest does, this call fails and the next one works |
//! | `roles` | the same of policies and observers |
//! | `imports` | the same of every function that the host lends |
//! | `hostile` | files made to hurt their reader do not |
//! | `isolation` | bad calls cost others neither time nor memory |
//! | `corpus` | every way to miss the contract is refused, in words |
//! | `compat` | components of released worlds go on working |
//! | `world` | a component that does not fit is refused, in words |
//! | `cache` | compiled code is kept, found, and not trusted when it should not be |
//! | `lent` | what was lent by name is had, within its bounds, and nothing else |
//! | `lent_http` | requests go to listed hosts and nobody else, whatever a server does |
//! | `script` | a text on the engine of scripts is a runtime |
//! | `replay` | calls that were recorded are the same once more, and what differs is told |
//! | `speed` | how long calls and loads take; run by hand, with `--ignored` and `--release` |

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on has failed"
)]

mod cache;
mod compat;
mod containment;
mod corpus;
mod hostile;
mod imports;
mod isolation;
mod lent;
mod lent_http;
mod replay;
mod roles;
mod script;
mod speed;
mod strategy;
mod support;
mod wit;
mod world;
