//! What the host can do for a plugin: traits and plain types, no implementation.
//!
//! The engine hands these to components, one grant at a time; the supervisor's
//! client and the CRI client implement them. Neither side knows the other.

pub mod container;
#[cfg(feature = "fake")]
pub mod fake;
pub mod grant;
pub mod namespace;
pub mod output;
pub mod process;
pub mod unit;

pub use container::{ContainerError, ContainerHost};
pub use grant::secret::{Secret, SecretSource};
pub use grant::{Capability, Directory, Grants};
pub use namespace::{Inside, NamespaceHost, Namespaces, Target, TargetSelector};
pub use output::{OutputSink, OutputStream};
pub use process::{
    Enforceable, Lifetime, ProcessHost, SpawnError, SpawnRequest, Spawned, StopError, UnitEnd,
    UnitEvent, UnitReport, UnitState,
};
pub use unit::UnitHost;
