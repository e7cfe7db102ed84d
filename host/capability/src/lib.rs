//! What the host can do for a plugin: traits and plain types, no implementation.
//!
//! The engine hands these to components, one grant at a time; the supervisor's
//! client and the CRI client implement them. Neither side knows the other.

#[cfg(feature = "fake")]
pub mod fake;
pub mod grant;
pub mod process;

pub use grant::{Capability, Grants};
pub use process::{
    Lifetime, ProcessHost, SpawnError, SpawnRequest, Spawned, StopError, UnitEnd, UnitEvent,
    UnitReport, UnitState,
};
