//! The host's side of each interface that a plugin may import, one file each.
//!
//! A plugin's linker holds the interfaces it was granted and no others, so a
//! function here need not ask for the grant again; it asks whether this call
//! may act at all.

mod container;
mod directories;
mod files;
mod http;
mod log;
mod namespace;
mod process;
mod rooted;
pub(crate) mod secrets;
mod settings;
mod spawn;
mod status;
mod stderr;
mod taped;
mod units;

use std::path::PathBuf;
use std::sync::Arc;

use taskwright_capability::{
    Capability, ContainerHost, Grants, NamespaceHost, ProcessHost, UnitHost,
};
use taskwright_model::{TaskId, TaskKey};
use wasmtime::component::{HasSelf, Linker};

use crate::bindings;
use crate::call::CallState;

pub(crate) use http::Outgoing;
pub(crate) use log::note_left_out;
pub(crate) use stderr::Stderr;
use taped::{Tapes, taped};

/// What the host lends to plugins, and where the things of a task are.
pub struct Host {
    /// Stops and signals what was started.
    pub units: Arc<dyn UnitHost>,
    /// Starts processes.
    pub process: Arc<dyn ProcessHost>,
    /// Finds processes whose namespaces may be entered.
    pub namespace: Arc<dyn NamespaceHost>,
    /// Containers; `None` where the daemon is not in container mode.
    pub container: Option<Containers>,
    /// What every process finds in its environment before the task's own variables.
    pub base_env: Vec<(String, String)>,
    /// The directory of a task: its output, and where it starts unless it says otherwise.
    pub task_directory: Box<dyn Fn(&TaskKey) -> PathBuf + Send + Sync>,
    /// Where the `files` interface keeps the files of a task. Made when first written to.
    pub scratch_directory: Box<dyn Fn(TaskId) -> PathBuf + Send + Sync>,
}

/// The machine's container runtime, and what the operator allows containers.
pub struct Containers {
    /// Runs them.
    pub host: Arc<dyn ContainerHost>,
    /// The paths of the host that may be mounted, each exactly so.
    pub host_paths: Vec<PathBuf>,
    /// A directory that nobody but the daemon can write in: what lies directly in it may be
    /// mounted, too.
    pub host_folders: Option<PathBuf>,
    /// Whether they may use the machine's own network.
    pub host_network: bool,
    /// Whether the runtime has a handler for sandboxes with a loopback and no other network.
    pub loopback: bool,
    /// Whether they may have every privilege, and Linux capabilities beyond the usual ones.
    pub privileged: bool,
}

/// Everything that a plugin with these grants may import.
pub(crate) fn linker(
    engine: &wasmtime::Engine,
    grants: &Grants,
) -> wasmtime::Result<Linker<CallState>> {
    let mut linker = Linker::new(engine);
    // Inert: no arguments, no environment, no files, no sockets; see `crate::wasi`.
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    bindings::types::add_to_linker::<_, HasSelf<_>>(&mut linker, |state| state)?;
    bindings::units::add_to_linker::<_, Tapes>(&mut linker, taped)?;
    bindings::status::add_to_linker::<_, Tapes>(&mut linker, taped)?;
    bindings::settings::add_to_linker::<_, Tapes>(&mut linker, taped)?;
    bindings::log::add_to_linker::<_, Tapes>(&mut linker, taped)?;
    for capability in &grants.capabilities {
        match capability {
            Capability::Process => {
                bindings::process::add_to_linker::<_, Tapes>(&mut linker, taped)?;
            }
            Capability::Namespace => {
                bindings::namespace::add_to_linker::<_, Tapes>(&mut linker, taped)?;
            }
            Capability::Container => {
                bindings::container::add_to_linker::<_, Tapes>(&mut linker, taped)?;
            }
            // More of `namespace`: asked for at each call.
            Capability::UserNamespace | Capability::CgroupNamespace => {}
            Capability::Files => {
                bindings::files::add_to_linker::<_, Tapes>(&mut linker, taped)?;
            }
            Capability::Directories => {
                bindings::directories::add_to_linker::<_, Tapes>(&mut linker, taped)?;
            }
            Capability::Secrets => {
                bindings::secrets::add_to_linker::<_, Tapes>(&mut linker, taped)?;
            }
            Capability::Http => {
                wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
            }
            // More of WASI: see `crate::wasi`.
            Capability::Clock | Capability::Random => {}
        }
    }
    Ok(linker)
}

impl bindings::types::Host for CallState {}
