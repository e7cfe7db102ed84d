//! `settings`: what the operator wrote for the plugin.

use crate::bindings::settings::Host;
use crate::call::CallState;

impl Host for CallState {
    fn get(&mut self, key: String) -> wasmtime::Result<Option<String>> {
        Ok(self.plugin.grants.settings.get(&key).cloned())
    }
}
