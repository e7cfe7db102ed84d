//! What plugins in Rust are written with.
//!
//! The interfaces of `taskwright:plugin` as Rust modules, the trait [`Runtime`] with its macro
//! [`export!`], [`command`], which strategies that run a command share, and [`policy`] and
//! [`observer`] with macros of their own. In tests, which run natively, the host's functions are
//! those of [`testing`]. A component imports
//! just the interfaces whose functions it calls.

/// What the generator makes of `wit/`, and what [`export!`] expands to; not for use by name.
#[doc(hidden)]
pub mod generated {
    wit_bindgen::generate!({
        world: "runtime-plugin",
        path: "../../wit",
        pub_export_macro: true,
        default_bindings_module: "taskwright_plugin_sdk::generated",
        additional_derives: [PartialEq],
    });
}

/// The same of policies.
#[doc(hidden)]
pub mod generated_policy {
    wit_bindgen::generate!({
        world: "policy-plugin",
        path: "../../wit",
        pub_export_macro: true,
        default_bindings_module: "taskwright_plugin_sdk::generated_policy",
        additional_derives: [PartialEq],
        with: {
            "taskwright:plugin/types@0.1.0": crate::generated::taskwright::plugin::types,
            "taskwright:plugin/settings@0.1.0": crate::generated::taskwright::plugin::settings,
            "taskwright:plugin/log@0.1.0": crate::generated::taskwright::plugin::log,
        },
    });
}

/// The same of observers.
#[doc(hidden)]
pub mod generated_observer {
    wit_bindgen::generate!({
        world: "observer-plugin",
        path: "../../wit",
        pub_export_macro: true,
        default_bindings_module: "taskwright_plugin_sdk::generated_observer",
        additional_derives: [PartialEq],
        with: {
            "taskwright:plugin/types@0.1.0": crate::generated::taskwright::plugin::types,
            "taskwright:plugin/settings@0.1.0": crate::generated::taskwright::plugin::settings,
            "taskwright:plugin/log@0.1.0": crate::generated::taskwright::plugin::log,
        },
    });
}

pub mod command;
pub mod host;
pub mod observer;
pub mod policy;
#[cfg(not(target_family = "wasm"))]
pub mod testing;

pub use generated::exports::taskwright::plugin::runtime::{
    Description, Event, Guest as Runtime, StopRequest, UnitExit,
};
pub use generated::taskwright::plugin::types::{
    Command, End, EnvVar, ExitStatus, Failure, Outcome, Problem, SpawnError, SpawnRequest, Spawned,
    Step, Task, Waiting,
};
pub use generated::taskwright::plugin::{container, directories, namespace};
pub use host::{files, log, process, secrets, settings, status, units};

/// Makes a type the component's policy: `taskwright_plugin_sdk::export_policy!(MyPolicy);`
#[macro_export]
macro_rules! export_policy {
    ($policy:ident) => {
        $crate::generated_policy::export!($policy with_types_in $crate::generated_policy);
    };
}

/// Makes a type the component's observer: `taskwright_plugin_sdk::export_observer!(MyObserver);`
#[macro_export]
macro_rules! export_observer {
    ($observer:ident) => {
        $crate::generated_observer::export!($observer with_types_in $crate::generated_observer);
    };
}

/// Makes a type the component's runtime: `taskwright_plugin_sdk::export!(MyRuntime);`
#[macro_export]
macro_rules! export {
    ($runtime:ident) => {
        $crate::generated::export!($runtime with_types_in $crate::generated);
    };
}
