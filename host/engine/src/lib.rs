//! The only crate that knows Wasmtime: components as strategies.
//!
//! A plugin is loaded because of what it exports, refused in words when it does
//! not fit, and called in an instance that no other call has. Nothing of it lives
//! while a task runs, and nothing it does ends the daemon.
//!
//! | module | about |
//! |---|---|
//! | [`machine`] | the engine: Wasmtime's settings, the pool, the permits |
//! | [`limits`] | what one call may use |
//! | [`load`] | bytes to plugin: size, world, cache, compiler, first call |
//! | [`world`] | the difference between a component's world and ours, in words |
//! | [`cache`] | compiled components on disk, and the one unsafe block |
//! | [`compile`] | Cranelift, in this process or in a child |
//! | [`strategy`] | the ports `Strategies` and `Plugins` over loaded plugins |
//! | `review` | the ports `Policies` and `Observers` over loaded plugins |
//! | `plugin` | a plugin in service, with its instruments |
//! | `call` | one call: store, instance, deadline, account |
//! | `spare` | instances of scripts that have read them before their call |
//! | `import` | the host's side of each interface a plugin may import |
//! | [`record`] | the file in which the calls of a plugin are noted |
//! | `tape` | what one call asked of the host: noted, or answered as it was noted |
//! | [`replay`] | calls of a record, once more |
//! | `wasi` | what a guest sees of WASI: its clock, its random numbers |
//! | `convert` | WIT values to model values and back |
//! | `supervise` | how a plugin has been doing |

mod bindings;
pub mod cache;
mod call;
pub mod compile;
mod convert;
mod epoch;
mod import;
pub mod limits;
pub mod load;
pub mod machine;
mod plugin;
pub mod record;
pub mod replay;
mod review;
mod schema;
mod spare;
pub mod strategy;
mod supervise;
mod tape;
mod wasi;
pub mod world;

pub use compile::{CompileError, Compiler, InProcessCompiler, compile_component};
pub use import::{Containers, Host};
pub use limits::{CallLimits, MOST_MEMORY_BYTES};
pub use load::{
    Inspection, LoadError, LoadFault, MOST_COMPONENT_BYTES, PluginSource, Script, inspect,
};
pub use machine::{Engine, EngineConfig, EngineError};
pub use strategy::Runtimes;
