//! Types and traits generated from `wit/`, and nothing else.
//!
//! Host functions that may wait are async; those that only touch memory are
//! not. All may trap, for contracts that were broken.

wasmtime::component::bindgen!({
    world: "runtime-plugin",
    path: "../../wit",
    imports: {
        "taskwright:plugin/settings.get": trappable,
        "taskwright:plugin/log.write": trappable,
        "taskwright:plugin/status.note": trappable,
        "taskwright:plugin/status.parts": trappable,
        default: async | trappable,
    },
    exports: { default: async },
});

pub(crate) use exports::taskwright::plugin::runtime;
pub(crate) use taskwright::plugin::{
    container, files, log, namespace, process, settings, status, types, units,
};
