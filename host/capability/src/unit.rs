//! What can be done to a unit whatever it is.

use std::time::Duration;

use futures::future::BoxFuture;
use taskwright_model::UnitKey;

use crate::process::StopError;

/// Stops and signals units, process trees and containers alike.
pub trait UnitHost: Send + Sync + 'static {
    /// As [`crate::ProcessHost::stop`] and [`crate::ContainerHost::stop`].
    fn stop(&self, unit: UnitKey, grace: Duration) -> BoxFuture<'_, Result<(), StopError>>;

    /// As [`crate::ProcessHost::signal`]. Containers take none.
    fn signal(&self, unit: UnitKey, signal: i32) -> BoxFuture<'_, Result<(), StopError>>;
}
