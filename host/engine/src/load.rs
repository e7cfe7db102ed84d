//! From bytes to a plugin that can be called.
//!
//! Size, world, grants, cache or compiler, linker, first call: each step may
//! refuse, nothing is served before the last, and a refusal names everything
//! that is wrong at once.

use std::sync::Arc;

use futures::future::BoxFuture;
use serde::Serialize;
use sha2::{Digest, Sha256};
use taskwright_capability::{Capability, Grants};
use taskwright_control::port::{BUILT_IN, PluginInfo, PolicyTerms, Role};
use taskwright_model::{IdError, RuntimeName};
use wasmtime::Store;
use wasmtime::component::{Component, InstancePre};

use crate::bindings::{Export, Exports, observer, policy, runtime};
use crate::cache::{Cache, Code};
use crate::call::{self, CallError, CallState, Scope};
use crate::compile::{CompileError, Compiler};
use crate::convert;
use crate::import::{self, Host};
use crate::limits::CallLimits;
use crate::machine::{Engine, Lane};
use crate::record::{Record, Records};
use crate::schema::Schema;
use crate::spare::Spares;
use crate::tape::Tape;
use crate::world::{Profile, Refusal, World};

/// The largest component that is looked at.
pub const MOST_COMPONENT_BYTES: usize = 32 << 20;
/// Kinds of work that one plugin may take.
const MOST_KINDS: usize = 32;
/// Bytes of a kind's name and of a version.
const MOST_WORD_BYTES: usize = 64;
/// Bytes of a plugin's JSON Schema.
const MOST_SCHEMA_BYTES: usize = 256 << 10;

/// A plugin as the operator has it.
#[derive(Clone, Debug)]
pub struct PluginSource {
    /// What the configuration and the file call it. The plugin must call itself the same: else
    /// one file could take the place of another plugin, or its grants.
    pub name: String,
    /// `built-in`, or the file it comes from, for people.
    pub origin: String,
    /// The component.
    pub component: Arc<[u8]>,
    /// What the component is to run, if it is an engine of scripts.
    pub script: Option<Script>,
    /// What the operator lends it.
    pub grants: Grants,
    /// What one of its calls may use, where that is not what the engine's calls may.
    pub limits: Option<CallLimits>,
    /// What the operator says of it as a policy. Said of one that cannot be loaded, it is a policy
    /// that gives no verdict: what was to be reviewed must not pass because a file is broken.
    pub policy: Option<PolicyTerms>,
}

/// A text that an engine of scripts runs. The engine reads both as settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// The name of its file, for messages.
    pub file: String,
    /// The text.
    pub text: Arc<str>,
}

impl Script {
    /// The setting that hands over [`Script::text`].
    pub const TEXT: &str = "script";
    /// The setting that hands over [`Script::file`].
    pub const FILE: &str = "script-file";
    /// The digest of a plugin that is this script on a component of this digest.
    #[must_use]
    pub fn digest(&self, component: &str) -> String {
        let both = Sha256::new_with_prefix(component).chain_update(self.text.as_bytes());
        hex::encode(both.finalize())
    }
}

/// Why a plugin was not loaded.
#[derive(Debug, thiserror::Error)]
#[error("plugin {plugin:?} was not loaded")]
pub struct LoadError {
    /// The plugin, as [`PluginSource::name`].
    pub plugin: String,
    /// What stood in the way.
    #[source]
    pub fault: LoadFault,
}

/// What stands in the way of loading a component.
#[derive(Debug, thiserror::Error)]
pub enum LoadFault {
    /// More than anything that was ever a plugin.
    #[error("it has {size} bytes, a plugin has at most {MOST_COMPONENT_BYTES}")]
    TooLarge {
        /// Its size.
        size: usize,
    },
    /// No runtime can be called so.
    #[error("its name is none that a runtime can have")]
    BadName(#[from] IdError),
    /// Something else than a component.
    #[error("it is not a WebAssembly component: {detail}")]
    NotAComponent {
        /// What the reader said.
        detail: String,
    },
    /// Its world does not fit.
    #[error("{}", sentences(refusals))]
    Refused {
        /// Everything that does not fit.
        refusals: Vec<Refusal>,
    },
    /// It was not compiled.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// A secret that it was lent cannot be had.
    #[error("{detail}")]
    Secret {
        /// Which, and why; nothing of what is in it.
        detail: String,
    },
    /// Wasmtime has no place for it, or something does not link after all.
    #[error("it does not fit into this engine: {detail}")]
    DoesNotFit {
        /// What Wasmtime said.
        detail: String,
    },
    /// It could not say what it is.
    #[error("it could not describe itself: {detail}")]
    Describe {
        /// What happened.
        detail: String,
    },
    /// It calls itself something else.
    #[error("it calls itself {described:?}: name it so, as {described}.wasm")]
    Misnamed {
        /// Its own word.
        described: String,
    },
}

/// Refusals that are told; a component may have as many as it has imports.
const MOST_TOLD: usize = 50;

/// Each refusal with its next step, on a line of its own where there are several.
fn sentences(refusals: &[Refusal]) -> String {
    let told = refusals.iter().take(MOST_TOLD).map(|refusal| {
        let sentence = convert::text(refusal.to_string());
        match refusal.hint() {
            Some(hint) => format!("{sentence}\n  hint: {hint}"),
            None => sentence,
        }
    });
    let mut lines: Vec<String> = told.collect();
    if let Some(more) = refusals
        .len()
        .checked_sub(MOST_TOLD)
        .filter(|&more| more > 0)
    {
        lines.push(format!("and {more} more"));
    }
    lines.join("\n")
}

/// What can be said of a component without loading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// SHA-256 of the component, in hex.
    pub digest: String,
    /// What it exports, imports and wants.
    pub profile: Profile,
    /// What would keep it from being loaded with these grants.
    pub refusals: Vec<Refusal>,
}

/// Looks at a component without compiling or running anything of it.
///
/// # Errors
/// [`LoadFault::TooLarge`] and [`LoadFault::NotAComponent`].
pub async fn inspect(
    component: Arc<[u8]>,
    name: &str,
    grants: &Grants,
) -> Result<Inspection, LoadFault> {
    if component.len() > MOST_COMPONENT_BYTES {
        return Err(LoadFault::TooLarge {
            size: component.len(),
        });
    }
    let (name, grants) = (name.to_owned(), grants.clone());
    // On a thread of its own because it takes milliseconds, and because a reader of hostile
    // bytes that panics shall be an answer.
    tokio::task::spawn_blocking(move || {
        let world =
            World::read(&component).map_err(|detail| LoadFault::NotAComponent { detail })?;
        Ok(Inspection {
            digest: hex::encode(Sha256::digest(&component)),
            profile: world.profile(),
            refusals: world.refusals(&name, &grants),
        })
    })
    .await
    .unwrap_or_else(|_| {
        Err(LoadFault::NotAComponent {
            detail: "reading it failed".to_owned(),
        })
    })
}

/// Who a plugin is: what host functions and messages need of it.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) name: RuntimeName,
    pub(crate) grants: Grants,
    pub(crate) limits: CallLimits,
    pub(crate) lane: Lane,
    /// Whether it is a script: then two of its settings are its own text.
    pub(crate) is_script: bool,
}

/// A plugin that can be called.
pub(crate) struct Loaded {
    pub(crate) identity: Arc<Identity>,
    pub(crate) component: InstancePre<CallState>,
    pub(crate) exports: Exports,
    pub(crate) info: PluginInfo,
    /// Of a script: instances that have read it.
    pub(crate) spares: Option<Spares>,
    /// Of its own part of a task.
    pub(crate) schema: Option<Schema>,
    /// Where its calls are noted, if they are.
    pub(crate) record: Option<Arc<Record>>,
}

/// A plugin that fits and was not called yet.
pub(crate) struct Prepared {
    pub(crate) identity: Arc<Identity>,
    pub(crate) component: InstancePre<CallState>,
    pub(crate) exports: Exports,
    digest: String,
    profile: Profile,
}

/// Makes a plugin ready for its first call.
pub(crate) async fn prepare(
    engine: &Engine,
    compiler: &dyn Compiler,
    mut source: PluginSource,
) -> Result<Prepared, LoadFault> {
    let name = RuntimeName::parse(&source.name)?;
    let inspection = inspect(Arc::clone(&source.component), &source.name, &source.grants).await?;
    let linked = match &source.script {
        // The engine of scripts imports what any script may want. What this one was not lent is
        // denied when it asks, or below.
        Some(_) => Grants::of(&inspection.profile.wants),
        None => source.grants.clone(),
    };
    let in_the_way = inspection.refusals.into_iter().filter(|refusal| {
        let not_lent = matches!(refusal, Refusal::NotGranted { .. });
        source.script.is_none() || !not_lent
    });
    let refusals: Vec<Refusal> = in_the_way.collect();
    if !refusals.is_empty() {
        return Err(LoadFault::Refused { refusals });
    }

    let checked = import::secrets::check(&source.grants).await;
    checked.map_err(|detail| LoadFault::Secret { detail })?;
    let is_script = source.script.is_some();
    // The engine of scripts comes with the product, as the built-in plugins do.
    let cache = engine.cache(is_script || source.origin == BUILT_IN);
    let shared = Some(&inspection.digest).filter(|_| is_script);
    let component = match shared.and_then(|digest| engine.shared(digest)) {
        Some(component) => component,
        None => {
            let (digest, component) = (&inspection.digest, source.component);
            native((engine, cache), compiler, digest, component).await?
        }
    };
    if is_script {
        engine.share(&inspection.digest, &component);
    }
    let component = import::linker(engine.wasm(), &linked)
        .and_then(|linker| linker.instantiate_pre(&component))
        .map_err(does_not_fit)?;
    let exports = Exports::of(&component, &inspection.profile.roles).map_err(does_not_fit)?;

    // Compiled code is the component's alone; what people compare is the script's, too.
    let mut digest = inspection.digest;
    if let Some(script) = source.script {
        digest = script.digest(&digest);
        let settings = &mut source.grants.settings;
        settings.insert(Script::TEXT.to_owned(), script.text.to_string());
        settings.insert(Script::FILE.to_owned(), script.file);
    }
    let identity = Arc::new(Identity {
        name,
        grants: source.grants,
        limits: source.limits.unwrap_or_else(|| engine.limits().clone()),
        lane: engine.lane(source.origin == BUILT_IN),
        is_script,
    });
    Ok(Prepared {
        identity,
        component,
        exports,
        digest,
        profile: inspection.profile,
    })
}

/// Loads a plugin.
pub(crate) async fn load(
    engine: &Engine,
    compiler: &dyn Compiler,
    host: &Arc<Host>,
    records: Option<&Records>,
    source: PluginSource,
) -> Result<Loaded, LoadFault> {
    let (origin, policy) = (source.origin.clone(), source.policy.clone());
    let Prepared {
        identity,
        component,
        mut exports,
        digest,
        profile,
    } = prepare(engine, compiler, source).await?;
    let record = match records {
        Some(records) => records.begin(&identity, &origin, &digest).await,
        None => None,
    };
    let first = First {
        engine,
        component: &component,
        identity: &identity,
        host,
        record: record.as_ref(),
    };
    let described = first.describe(&mut exports).await?;
    if exports.runtime.is_some() && identity.is_script {
        check_script(&identity)?;
    }
    let schema = Some(&described.config_schema).filter(|text| !text.is_empty());
    let schema = schema.map(|text| Schema::parse(text)).transpose();
    let schema = schema.map_err(|detail| LoadFault::Describe {
        detail: convert::text(format!("its config-schema is none: {detail}")),
    })?;
    let info = PluginInfo {
        name: identity.name.to_string(),
        version: described.version,
        roles: exports.roles(),
        policy: exports.policy.is_some().then(|| policy.unwrap_or_default()),
        kinds: described.kinds,
        source: origin,
        digest,
        exports: profile.exports,
        imports: profile.imports,
        grants: identity
            .grants
            .capabilities
            .iter()
            .map(Capability::to_string)
            .collect(),
        config_schema: Some(described.config_schema).filter(|schema| !schema.is_empty()),
        health: Ok(()),
        refused: None,
        calls: 0,
        faults: 0,
    };
    let spares = identity
        .is_script
        .then(|| Spares::keep(engine, &component, &identity, host))
        .transpose()
        .map_err(does_not_fit)?;
    Ok(Loaded {
        identity,
        component,
        exports,
        info,
        spares,
        schema,
        record,
    })
}

/// The component as machine code: kept from before, or compiled now and kept.
async fn native(
    (engine, cache): (&Engine, Option<&Cache>),
    compiler: &dyn Compiler,
    digest: &str,
    component: Arc<[u8]>,
) -> Result<Component, LoadFault> {
    let kept = cache.and_then(|cache| cache.get(digest));
    // Code of another build or for another processor is not an error: it is compiled again.
    if let Some(component) = kept.and_then(|code| code.load(engine.wasm()).ok()) {
        metrics::counter!("taskwright_plugin_cache_total", "result" => "hit").increment(1);
        return Ok(component);
    }
    metrics::counter!("taskwright_plugin_cache_total", "result" => "miss").increment(1);
    let code = Code::from_compiler(compiler.compile(component).await?);
    let loaded = code.load(engine.wasm()).map_err(does_not_fit)?;
    if let Some(cache) = cache
        && let Err(error) = cache.put(digest, &code)
    {
        tracing::warn!(%error, "a compiled plugin was not kept: the next start compiles it again");
    }
    Ok(loaded)
}

fn does_not_fit(error: wasmtime::Error) -> LoadFault {
    LoadFault::DoesNotFit {
        detail: format!("{error:#}"),
    }
}

/// What a plugin says of itself, whatever it is.
#[derive(Default)]
struct Described {
    version: String,
    kinds: Vec<String>,
    config_schema: String,
}

/// The first calls of a component.
struct First<'a> {
    engine: &'a Engine,
    component: &'a InstancePre<CallState>,
    identity: &'a Arc<Identity>,
    host: &'a Arc<Host>,
    record: Option<&'a Arc<Record>>,
}

impl First<'_> {
    /// Lets it say what it is. A component that can be several things says an empty name for what
    /// it is not; those exports are taken away.
    async fn describe(&self, exports: &mut Exports) -> Result<Described, LoadFault> {
        let mut told = Described::default();
        if let Some(export) = &exports.runtime {
            let described = self
                .ask(export, "runtime.describe", |guest, store| {
                    Box::pin(async move { guest.call_describe(store).await })
                })
                .await?;
            if described.name.is_empty() {
                exports.runtime = None;
            } else {
                check_runtime(&described)?;
                self.check_name(described.name)?;
                told.version = described.version;
                told.kinds = described.kinds;
                told.config_schema = described.config_schema;
            }
        }
        let policy = self
            .describe_as(
                &exports.policy,
                "policy.describe",
                |guest, store| Box::pin(async move { guest.call_describe(store).await }),
                |described| (described.name, described.version),
            )
            .await?;
        let observer = self
            .describe_as(
                &exports.observer,
                "observer.describe",
                |guest, store| Box::pin(async move { guest.call_describe(store).await }),
                |described| (described.name, described.version),
            )
            .await?;
        exports.policy = exports.policy.take().filter(|_| policy.is_some());
        exports.observer = exports.observer.take().filter(|_| observer.is_some());
        told.version = observer.or(policy).unwrap_or(told.version);
        if exports.roles().is_empty() {
            let detail = "it has no name in any of its roles".to_owned();
            return Err(LoadFault::Describe { detail });
        }
        convert::cut(&mut told.version, MOST_WORD_BYTES);
        Ok(told)
    }

    /// Its version in a role of which it says nothing but name and version; `None` if it has no
    /// name there.
    async fn describe_as<E: Export, T: Serialize>(
        &self,
        export: &Option<E>,
        function: &'static str,
        call: impl for<'a> FnOnce(
            &'a E::Guest,
            &'a mut Store<CallState>,
        ) -> BoxFuture<'a, wasmtime::Result<T>>,
        parts: impl FnOnce(T) -> (String, String),
    ) -> Result<Option<String>, LoadFault> {
        let Some(export) = export else {
            return Ok(None);
        };
        let (name, version) = parts(self.ask(export, function, call).await?);
        if name.is_empty() {
            return Ok(None);
        }
        self.check_name(name)?;
        Ok(Some(version))
    }

    async fn ask<E: Export, T: Serialize>(
        &self,
        export: &E,
        name: &'static str,
        function: impl for<'a> FnOnce(
            &'a E::Guest,
            &'a mut Store<CallState>,
        ) -> BoxFuture<'a, wasmtime::Result<T>>,
    ) -> Result<T, LoadFault> {
        let tape = Tape::recording(self.record, name, &());
        let (component, scope) = ((self.component, export), (Scope::Plugin, tape));
        let finished = call::run(
            self.engine,
            component,
            self.identity,
            self.host,
            scope,
            None,
            function,
        );
        finished.await.answer.map_err(|error| match error {
            CallError::Plugin(detail) | CallError::Host(detail) => LoadFault::Describe { detail },
        })
    }

    fn check_name(&self, described: String) -> Result<(), LoadFault> {
        if described == self.identity.name.as_str() {
            return Ok(());
        }
        Err(LoadFault::Misnamed {
            described: convert::text(described),
        })
    }
}

/// A script that starts something needs to be lent that, as a component would.
fn check_script(identity: &Identity) -> Result<(), LoadFault> {
    let capability = Capability::Process;
    if identity.grants.allows(capability) {
        return Ok(());
    }
    let refusals = vec![Refusal::NotGranted {
        plugin: identity.name.to_string(),
        interface: "taskwright:plugin/process".to_owned(),
        capability,
    }];
    Err(LoadFault::Refused { refusals })
}

fn check_runtime(described: &runtime::Description) -> Result<(), LoadFault> {
    let fault = |detail: String| LoadFault::Describe { detail };
    let kinds = &described.kinds;
    let odd = |kind: &String| kind.is_empty() || kind.len() > MOST_WORD_BYTES;
    if kinds.is_empty() || kinds.len() > MOST_KINDS || kinds.iter().any(odd) {
        return Err(fault(format!(
            "it takes 1 to {MOST_KINDS} kinds of work, each named by 1 to {MOST_WORD_BYTES} bytes"
        )));
    }
    if described.config_schema.len() > MOST_SCHEMA_BYTES {
        return Err(fault(format!(
            "its config-schema has {} bytes, at most {MOST_SCHEMA_BYTES} are taken",
            described.config_schema.len()
        )));
    }
    Ok(())
}

impl Exports {
    /// Those that the component has.
    fn of(component: &InstancePre<CallState>, roles: &[Role]) -> wasmtime::Result<Self> {
        let has = |role| roles.contains(&role);
        Ok(Self {
            runtime: has(Role::Runtime)
                .then(|| runtime::GuestIndices::new(component))
                .transpose()?,
            policy: has(Role::Policy)
                .then(|| policy::GuestIndices::new(component))
                .transpose()?,
            observer: has(Role::Observer)
                .then(|| observer::GuestIndices::new(component))
                .transpose()?,
        })
    }

    fn roles(&self) -> Vec<Role> {
        let present = [
            self.runtime.as_ref().map(|_| Role::Runtime),
            self.policy.as_ref().map(|_| Role::Policy),
            self.observer.as_ref().map(|_| Role::Observer),
        ];
        present.into_iter().flatten().collect()
    }
}
