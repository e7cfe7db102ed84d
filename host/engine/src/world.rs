//! The difference between a component's world and ours, in words.
//!
//! Read from the component before anything of it is compiled: what it exports
//! says which kind of plugin it is, what it imports says what it needs. Our own
//! side is read from the same WIT files that plugins are built from.

use std::sync::LazyLock;

use taskwright_capability::{Capability, Grants};
use taskwright_control::port::Role;
use wit_component::DecodedWasm;
use wit_parser::{InterfaceId, Resolve, SourceMap, WorldId, WorldItem};

use crate::convert;

mod outline;
mod refusal;
mod shape;

pub use refusal::{Refusal, Side};

/// The interfaces whose export makes a component a plugin, and the role it then has.
pub const ROLES: [(&str, Role); 3] = [
    ("taskwright:plugin/runtime", Role::Runtime),
    ("taskwright:plugin/policy", Role::Policy),
    ("taskwright:plugin/observer", Role::Observer),
];
/// Interfaces of ours begin with this.
const OURS: &str = "taskwright:plugin/";
/// How everything of WebAssembly begins.
const WASM: &[u8] = b"\0asm";
/// How a core module begins; a component has another version.
const CORE_MODULE: &[u8] = b"\0asm\x01\0\0\0";
/// Interfaces of WASI that every plugin gets, and that reach nothing: no arguments, no
/// environment, no directories, no socket can be made; its standard error is the log.
/// Interpreters as Python's import them all, whatever their program uses.
const INERT: [&str; 6] = [
    "wasi:cli/",
    "wasi:clocks/",
    "wasi:filesystem/",
    "wasi:io/",
    "wasi:random/",
    "wasi:sockets/",
];

/// Interfaces of WASI by which requests are sent.
const HTTP: [&str; 2] = ["wasi:http/types", "wasi:http/outgoing-handler"];
/// The version of them that Wasmtime has.
const HTTP_VERSION: &str = "0.2.12";
/// Interfaces of each side that people are told of.
const MOST_TOLD: usize = 100;

/// What a component is and needs, by its own account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    /// What it can be.
    pub roles: Vec<Role>,
    /// The interfaces it exports, with versions.
    pub exports: Vec<String>,
    /// The interfaces it imports, with versions; those of inert WASI left out.
    pub imports: Vec<String>,
    /// The capabilities it needs to be lent.
    pub wants: Vec<Capability>,
    /// Those without which it gets something that stands in: a clock, random numbers.
    pub may_use: Vec<Capability>,
}

/// A component's world, read from its bytes.
pub(crate) struct World {
    resolve: Resolve,
    world: WorldId,
}

impl World {
    /// Reads a component's types. Says in words why it cannot.
    pub(crate) fn read(component: &[u8]) -> Result<Self, String> {
        if component.starts_with(CORE_MODULE) {
            return Err(
                "it is a core module: build it for wasm32-wasip2, or pass it through `wasm-tools component new`"
                    .to_owned(),
            );
        }
        if !component.starts_with(WASM) {
            return Err("it does not begin as WebAssembly does".to_owned());
        }
        outline::check(component)?;
        match wit_component::decode(component) {
            Ok(DecodedWasm::Component(resolve, world)) => Ok(Self { resolve, world }),
            Ok(DecodedWasm::WitPackage(..)) => {
                Err("it is a WIT package, types without a program".to_owned())
            }
            // Readers draw pictures; this is a part of a sentence.
            Err(error) => {
                let drawn = format!("{error:#}");
                let words: Vec<&str> = drawn.split_whitespace().collect();
                Err(convert::text(words.join(" ")))
            }
        }
    }

    /// What it is and needs.
    pub(crate) fn profile(&self) -> Profile {
        let mut profile = Profile::default();
        for found in self.interfaces(Side::Exports) {
            let role = ROLES.iter().find(|(interface, _)| found.name == *interface);
            profile.roles.extend(role.map(|(_, role)| *role));
            tell(&mut profile.exports, found.full_name());
        }
        for found in self.interfaces(Side::Imports) {
            if found.is_inert() {
                profile.may_use.extend(found.stands_in_for());
                continue;
            }
            if let Some(capability) = found.capability()
                && !profile.wants.contains(&capability)
            {
                profile.wants.push(capability);
            }
            tell(&mut profile.imports, found.full_name());
        }
        profile.may_use.sort_unstable();
        profile.may_use.dedup();
        profile
    }

    /// Everything that keeps it from being loaded as the plugin `name` with these grants.
    pub(crate) fn refusals(&self, name: &str, grants: &Grants) -> Vec<Refusal> {
        let mut refusals = Vec::new();
        for found in self.interfaces(Side::Imports) {
            if found.is_inert() {
                continue;
            }
            if found.is_http() {
                // Its types are Wasmtime's, which compares them when it links.
                refusals.extend(found.not_granted(name, grants));
                continue;
            }
            let Some(ours) = HOST.interface(&found.name) else {
                refusals.push(Refusal::UnknownImport {
                    interface: found.full_name(),
                });
                continue;
            };
            if !self.same_track(&found, Side::Imports, &ours, &mut refusals) {
                continue;
            }
            refusals.extend(found.not_granted(name, grants));
            self.compare(&found, Side::Imports, &ours, &mut refusals);
        }
        let mut has_role = false;
        for found in self.interfaces(Side::Exports) {
            let is_role = ROLES.iter().any(|(interface, _)| found.name == *interface);
            let Some(ours) = HOST.interface(&found.name).filter(|_| is_role) else {
                continue;
            };
            has_role = true;
            if self.same_track(&found, Side::Exports, &ours, &mut refusals) {
                self.compare(&found, Side::Exports, &ours, &mut refusals);
            }
        }
        if !has_role {
            refusals.push(Refusal::NoKind {
                exports: self.profile().exports,
            });
        }
        refusals
    }

    fn interfaces(&self, side: Side) -> impl Iterator<Item = Interface<'_>> {
        let world = self.resolve.worlds.get(self.world);
        let items = world.map(|world| match side {
            Side::Imports => &world.imports,
            Side::Exports => &world.exports,
        });
        items.into_iter().flatten().map(|(key, item)| {
            let id = match item {
                WorldItem::Interface { id, .. } => Some(*id),
                WorldItem::Function(_) | WorldItem::Type { .. } => None,
            };
            Interface::named(&self.resolve, &self.resolve.name_world_key(key), id)
        })
    }

    /// Whether the versions promise to fit; a refusal is noted if not.
    fn same_track(
        &self,
        found: &Interface<'_>,
        side: Side,
        ours: &Interface<'_>,
        refusals: &mut Vec<Refusal>,
    ) -> bool {
        let fits = track(&found.version) == track(&ours.version);
        if !fits {
            refusals.push(Refusal::Version {
                side,
                interface: found.name.clone(),
                theirs: found.version.clone(),
                ours: ours.version.clone(),
            });
        }
        fits
    }

    fn compare(
        &self,
        found: &Interface<'_>,
        side: Side,
        ours: &Interface<'_>,
        refusals: &mut Vec<Refusal>,
    ) {
        for (function, theirs) in found.functions() {
            let Some(our_function) = ours.function(function) else {
                // An export that this host does not know is not called.
                if side == Side::Imports {
                    refusals.push(Refusal::NewerFunction {
                        interface: found.full_name(),
                        function: function.to_owned(),
                        ours: ours.version.clone(),
                    });
                }
                continue;
            };
            let (interface, function) = (found.full_name(), function.to_owned());
            if theirs.kind.is_async() != our_function.kind.is_async() {
                refusals.push(Refusal::AsyncFunction {
                    interface,
                    function,
                });
            } else if let Some(difference) =
                shape::difference((ours.resolve, our_function), (found.resolve, theirs))
            {
                refusals.push(Refusal::Shape {
                    interface,
                    function,
                    difference,
                });
            }
        }
        if side == Side::Exports {
            for (function, _) in ours.functions() {
                if found.function(function).is_none() {
                    refusals.push(Refusal::MissingFunction {
                        interface: found.full_name(),
                        function: function.to_owned(),
                    });
                }
            }
        }
    }
}

/// Adds a name to a list for people, as long as it is one that somebody would read.
fn tell(list: &mut Vec<String>, name: String) {
    if list.len() < MOST_TOLD {
        list.push(convert::text(name));
    }
}

/// Our side, as the WIT files say it.
struct HostWorld {
    resolve: Resolve,
}

static HOST: LazyLock<HostWorld> = LazyLock::new(|| {
    let mut sources = SourceMap::new();
    macro_rules! wit {
        ($($file:literal),*) => {
            $(sources.push_str($file, include_str!(concat!("../../../wit/", $file)));)*
        };
    }
    wit!(
        "types.wit",
        "runtime.wit",
        "units.wit",
        "status.wit",
        "process.wit",
        "namespace.wit",
        "container.wit",
        "files.wit",
        "directories.wit",
        "secrets.wit",
        "settings.wit",
        "log.wit",
        "policy.wit",
        "observer.wit",
        "world.wit"
    );
    let mut resolve = Resolve::default();
    let pushed = sources
        .parse()
        .map_err(|(_, error)| error.to_string())
        .and_then(|package| {
            resolve
                .push_group(package)
                .map_err(|error| error.to_string())
        });
    // The same files were read when the bindings were generated, so this never happens; if it
    // did, every plugin would be refused with every one of its interfaces named.
    if let Err(error) = pushed {
        tracing::error!(error, "the WIT of this build cannot be read");
    }
    HostWorld { resolve }
});

impl HostWorld {
    fn interface(&self, name: &str) -> Option<Interface<'_>> {
        self.resolve.interfaces.iter().find_map(|(id, _)| {
            let found = Interface::named(&self.resolve, &self.resolve.id_of(id)?, Some(id));
            (found.name == name).then_some(found)
        })
    }
}

/// An interface of one side.
struct Interface<'a> {
    resolve: &'a Resolve,
    id: Option<InterfaceId>,
    /// Without version.
    name: String,
    /// Empty where there is none.
    version: String,
}

impl<'a> Interface<'a> {
    fn named(resolve: &'a Resolve, full_name: &str, id: Option<InterfaceId>) -> Self {
        let (name, version) = full_name.split_once('@').unwrap_or((full_name, ""));
        Self {
            resolve,
            id,
            name: name.to_owned(),
            version: version.to_owned(),
        }
    }

    fn full_name(&self) -> String {
        if self.version.is_empty() {
            self.name.clone()
        } else {
            format!("{}@{}", self.name, self.version)
        }
    }

    fn is_inert(&self) -> bool {
        INERT.iter().any(|prefix| self.name.starts_with(prefix))
    }

    /// Whether it is one of those by which requests are sent.
    fn is_http(&self) -> bool {
        HTTP.contains(&self.name.as_str()) && track(&self.version) == track(HTTP_VERSION)
    }

    /// What the plugin would have to be lent to get more than what stands in for it.
    fn stands_in_for(&self) -> Option<Capability> {
        match self.name.as_str() {
            "wasi:clocks/wall-clock" | "wasi:clocks/monotonic-clock" => Some(Capability::Clock),
            "wasi:random/random" | "wasi:random/insecure" => Some(Capability::Random),
            _ => None,
        }
    }

    fn not_granted(&self, plugin: &str, grants: &Grants) -> Option<Refusal> {
        let capability = self.capability()?;
        (!grants.allows(capability)).then(|| Refusal::NotGranted {
            plugin: plugin.to_owned(),
            interface: self.full_name(),
            capability,
        })
    }

    fn capability(&self) -> Option<Capability> {
        if self.is_http() {
            return Some(Capability::Http);
        }
        let word = self.name.strip_prefix(OURS)?;
        Capability::ALL
            .into_iter()
            .find(|capability| capability.as_str() == word)
    }

    fn functions(&self) -> impl Iterator<Item = (&'a str, &'a wit_parser::Function)> {
        let interface = self.id.and_then(|id| self.resolve.interfaces.get(id));
        interface
            .into_iter()
            .flat_map(|interface| &interface.functions)
            .map(|(name, function)| (name.as_str(), function))
    }

    fn function(&self, name: &str) -> Option<&'a wit_parser::Function> {
        self.functions()
            .find(|(found, _)| *found == name)
            .map(|(_, function)| function)
    }
}

/// The part of a version within which everything is promised to fit: the major, below 1.0
/// the minor, below 0.1 all of it; a pre-release fits only itself.
fn track(version: &str) -> &str {
    if version.contains('-') {
        return version;
    }
    let end = |dots: usize| {
        version
            .match_indices('.')
            .nth(dots)
            .map_or(version.len(), |(at, _)| at)
    };
    let most = if version.starts_with("0.0.") {
        version.len()
    } else if version.starts_with("0.") {
        end(1)
    } else {
        end(0)
    };
    version.get(..most).unwrap_or(version)
}
