//! A whole world of fakes around the loop, for tests of this crate and of others.
//!
//! Nothing here touches files, processes or WebAssembly. Time follows tokio's
//! clock, so a test that pauses it also rules timers and timestamps. Every fake
//! can be inspected, and can be told to fail.
//!
//! Behind the feature `fake`; never part of the product.

mod journal;
mod policies;
mod strategies;
mod units;
mod world;

pub use journal::{MemoryHistory, MemoryJournal};
pub use policies::{FakeDocuments, FakePolicies};
pub use strategies::{CANNOT_RUN, FakeStrategies, OnStart, OnStop, Script};
pub use units::{FakeUnits, Order};
pub use world::{FakeOutputs, FakePlugins, FakeWorld, PausedClock, spec, submission, task_key};
