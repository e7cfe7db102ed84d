//! `process`: units that are process trees beside the daemon.

use crate::bindings::process::Host;
use crate::bindings::types::{SpawnError, SpawnRequest, Spawned};
use crate::call::CallState;

impl Host for CallState {
    async fn spawn(
        &mut self,
        unit: String,
        request: SpawnRequest,
    ) -> wasmtime::Result<Result<Spawned, SpawnError>> {
        self.spawn_unit("process.spawn", unit, None, request).await
    }
}
