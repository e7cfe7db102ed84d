//! Types and traits generated from `wit/`, and nothing else.
//!
//! Host functions that may wait are async; those that only touch memory are
//! not. All may trap, for contracts that were broken.

use wasmtime::Store;
use wasmtime::component::Instance;

use crate::call::CallState;

wasmtime::component::bindgen!({
    world: "any-plugin",
    path: "../../wit",
    imports: {
        "taskwright:plugin/settings.get": trappable,
        "taskwright:plugin/log.write": trappable,
        "taskwright:plugin/status.note": trappable,
        "taskwright:plugin/status.parts": trappable,
        default: async | trappable,
    },
    exports: { default: async },
    // Calls and answers go into records as they are.
    additional_derives: [serde::Serialize, serde::Deserialize],
});

pub(crate) use exports::taskwright::plugin::{observer, policy, runtime};
pub(crate) use taskwright::plugin::{
    container, directories, files, log, namespace, process, secrets, settings, status, types, units,
};

/// The exports that make a component a plugin, each where the component has it.
pub(crate) struct Exports {
    pub(crate) runtime: Option<runtime::GuestIndices>,
    pub(crate) policy: Option<policy::GuestIndices>,
    pub(crate) observer: Option<observer::GuestIndices>,
}

/// An export that can be called once its component has an instance.
pub(crate) trait Export {
    /// The functions of one instance.
    type Guest: Send;

    /// Those of `instance`.
    fn load(
        &self,
        store: &mut Store<CallState>,
        instance: &Instance,
    ) -> wasmtime::Result<Self::Guest>;
}

macro_rules! export {
    ($interface:ident) => {
        impl Export for $interface::GuestIndices {
            type Guest = $interface::Guest;

            fn load(
                &self,
                store: &mut Store<CallState>,
                instance: &Instance,
            ) -> wasmtime::Result<Self::Guest> {
                $interface::GuestIndices::load(self, store, instance)
            }
        }
    };
}

export!(runtime);
export!(policy);
export!(observer);
