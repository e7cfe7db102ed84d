//! Every host function by way of the call's tape: what a guest asks is noted with its answer, or
//! answered from the record without asking the host.

use wasmtime::component::HasData;

use crate::bindings::types::{SpawnError, SpawnRequest, Spawned};
use crate::bindings::{
    container, directories, files, log, namespace, process, secrets, settings, status, units,
};
use crate::call::CallState;
use crate::load::Script;

/// The host's side as linkers get it.
pub(super) struct Tapes;

impl HasData for Tapes {
    type Data<'a> = Taped<'a>;
}

/// A call whose host functions pass its tape.
pub(super) struct Taped<'a>(&'a mut CallState);

/// This call's.
pub(super) fn taped(state: &mut CallState) -> Taped<'_> {
    Taped(state)
}

macro_rules! taped {
    ($interface:ident, $($name:literal $function:ident($($argument:ident: $type:ty),*) -> $answer:ty;)*) => {
        impl $interface::Host for Taped<'_> {
            $(async fn $function(&mut self, $($argument: $type),*) -> wasmtime::Result<$answer> {
                if let Some(noted) = self.0.tape.asked($name, &($(&$argument,)*))? {
                    return Ok(noted);
                }
                let answer = $interface::Host::$function(&mut *self.0, $($argument),*).await?;
                self.0.tape.answered(&answer);
                Ok(answer)
            })*
        }
    };
}

/// The same for functions that do not wait.
macro_rules! taped_at_once {
    ($interface:ident, $($name:literal $function:ident($($argument:ident: $type:ty),*);)*) => {
        impl $interface::Host for Taped<'_> {
            $(fn $function(&mut self, $($argument: $type),*) -> wasmtime::Result<()> {
                if let Some(noted) = self.0.tape.asked($name, &($(&$argument,)*))? {
                    return Ok(noted);
                }
                $interface::Host::$function(&mut *self.0, $($argument),*)?;
                self.0.tape.answered(&());
                Ok(())
            })*
        }
    };
}

impl settings::Host for Taped<'_> {
    fn get(&mut self, key: String) -> wasmtime::Result<Option<String>> {
        // A script is what is called, and no part of what is asked: another one is to differ by
        // what it does.
        let own = self.0.plugin.is_script && [Script::TEXT, Script::FILE].contains(&key.as_str());
        if own {
            return settings::Host::get(&mut *self.0, key);
        }
        if let Some(noted) = self.0.tape.asked("settings.get", &(&key,))? {
            return Ok(noted);
        }
        let answer = settings::Host::get(&mut *self.0, key)?;
        self.0.tape.answered(&answer);
        Ok(answer)
    }
}

taped_at_once! {
    log,
    "log.write" write(level: log::Level, message: String);
}

taped_at_once! {
    status,
    "status.note" note(text: String);
    "status.parts" parts(all: Vec<status::Part>);
}

taped! {
    container,
    "container.check" check() -> Result<(), container::Error>;
    "container.may-run" may_run(request: container::SandboxRequest) -> Result<(), container::Error>;
    "container.may-create" may_create(
        request: container::ContainerRequest
    ) -> Result<(), container::Error>;
    "container.image" image(
        name: String,
        policy: container::PullPolicy
    ) -> Result<container::ImageState, container::Error>;
    "container.run-sandbox" run_sandbox(
        request: container::SandboxRequest
    ) -> Result<Option<String>, container::Error>;
    "container.create" create(
        unit: String,
        request: container::ContainerRequest
    ) -> Result<(), container::Error>;
    "container.start" start(unit: String) -> Result<container::ContainerState, container::Error>;
    "container.inspect" inspect(
        unit: String
    ) -> Result<Option<container::ContainerState>, container::Error>;
    "container.stats" stats(unit: String) -> Result<container::Usage, container::Error>;
    "container.exec" exec(
        unit: String,
        argv: Vec<String>,
        timeout_ms: u64
    ) -> Result<container::ExecEnd, container::Error>;
}

taped! {
    directories,
    "directories.all" all() -> Vec<directories::Lent>;
    "directories.read" read(
        directory: String,
        path: String,
        offset: u64,
        length: u32
    ) -> Result<Vec<u8>, directories::Error>;
    "directories.list" list(
        directory: String,
        path: String,
        after: Option<String>
    ) -> Result<Vec<directories::Entry>, directories::Error>;
    "directories.stat" stat(
        directory: String,
        path: String
    ) -> Result<directories::Metadata, directories::Error>;
    "directories.write" write(
        directory: String,
        path: String,
        bytes: Vec<u8>
    ) -> Result<(), directories::Error>;
    "directories.remove" remove(directory: String, path: String) -> Result<(), directories::Error>;
}

taped! {
    files,
    "files.read" read(path: String, offset: u64, length: u32) -> Result<Vec<u8>, files::Error>;
    "files.write" write(path: String, bytes: Vec<u8>) -> Result<(), files::Error>;
    "files.remove" remove(path: String) -> Result<(), files::Error>;
}

taped! {
    namespace,
    "namespace.find" find(
        by: namespace::Selector
    ) -> Result<Option<namespace::Target>, namespace::Error>;
    "namespace.is-alive" is_alive(which: namespace::Target) -> Result<bool, namespace::Error>;
    "namespace.may-enter" may_enter(entry: namespace::Entry) -> Result<(), namespace::Error>;
    "namespace.spawn" spawn(
        unit: String,
        inside: namespace::Target,
        entry: namespace::Entry,
        request: SpawnRequest
    ) -> Result<Spawned, SpawnError>;
}

taped! {
    process,
    "process.spawn" spawn(unit: String, request: SpawnRequest) -> Result<Spawned, SpawnError>;
}

taped! {
    secrets,
    "secrets.get" get(name: String) -> Result<Vec<u8>, secrets::Error>;
}

taped! {
    units,
    "units.stop" stop(unit: String, grace_ms: u64) -> Result<(), units::Error>;
    "units.signal" signal(unit: String, number: u32) -> Result<(), units::Error>;
}
