//! What plugins in Rust are written with.
//!
//! The interfaces of `taskwright:plugin` as Rust modules, the trait [`Runtime`] with its macro
//! [`export!`], and [`command`], which strategies that run a command share. A component imports
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

pub mod command;

pub use generated::exports::taskwright::plugin::runtime::{
    Description, Event, Guest as Runtime, StopRequest, UnitExit,
};
pub use generated::taskwright::plugin::types::{
    Command, End, EnvVar, ExitStatus, Failure, Outcome, Problem, SpawnError, SpawnRequest, Spawned,
    Step, Task, Waiting,
};
pub use generated::taskwright::plugin::{
    container, files, log, namespace, process, settings, status, units,
};

/// Makes a type the component's runtime: `taskwright_plugin_sdk::export!(MyRuntime);`
#[macro_export]
macro_rules! export {
    ($runtime:ident) => {
        $crate::generated::export!($runtime with_types_in $crate::generated);
    };
}
