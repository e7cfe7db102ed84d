//! The ports `Strategies` and `Plugins` over loaded plugins.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use parking_lot::RwLock;
use serde::Serialize;
use taskwright_capability::container::LEAST_MEMORY_BYTES;
use taskwright_control::port::{
    PluginInfo, Plugins, PolicyEntry, PolicyTerms, Role, SpecProblem, Step, Stepped, Strategies,
    StrategyError, StrategyEvent, StrategyTask,
};
use taskwright_model::{Restriction, RuntimeName, TaskSpec};
use tokio::sync::watch;
use wasmtime::Store;

use crate::bindings::{Export, runtime};
use crate::call::{self, Account, CallError, CallState, Scope};
use crate::compile::Compiler;
use crate::convert;
use crate::import::{Host, note_left_out};
use crate::load::{self, LoadError, PluginSource};
use crate::machine::Engine;
use crate::plugin::{Function, Plugin};
use crate::record::Records;
use crate::spare::Spares;
use crate::supervise::Call;
use crate::tape::Tape;

/// How long the answer of a probe is good for.
const PROBE_AGE: Duration = Duration::from_secs(1);

/// The plugins that are loaded, as strategies.
///
/// Metrics are bound when a plugin is loaded, so a recorder must be installed before.
pub struct Runtimes {
    pub(crate) engine: Engine,
    pub(crate) compiler: Arc<dyn Compiler>,
    pub(crate) host: Arc<Host>,
    /// Where calls are noted, if they are.
    records: Option<Records>,
    /// Never locked across a call: calls hold the plugin they began with, so one that is
    /// replaced meanwhile serves them to the end.
    plugins: RwLock<BTreeMap<RuntimeName, Arc<Plugin>>>,
    /// Plugins that are not there any more for new tasks, and serve those they began.
    retired: RwLock<BTreeMap<RuntimeName, Arc<Plugin>>>,
    /// What was to be loaded last and could not be, by the name it has for the operator.
    refused: RwLock<BTreeMap<String, Refused>>,
    /// Policies that should be there and could not be loaded.
    missing: RwLock<BTreeMap<String, PolicyTerms>>,
    /// The policies among `plugins` and the missing ones, in the order in which they are asked.
    policies: RwLock<Arc<[PolicyEntry]>>,
    /// The observers among `plugins`.
    observers: watch::Sender<Arc<[String]>>,
    /// Told whenever a plugin came or went.
    pub(crate) renewals: watch::Sender<()>,
}

/// Something that could not be loaded.
struct Refused {
    origin: String,
    message: String,
}

/// Retired plugins that are kept for tasks they began.
const MOST_RETIRED: usize = 32;
/// Files that could not be loaded and are told of.
const MOST_REFUSED: usize = 256;

impl Runtimes {
    /// No plugins yet.
    #[must_use]
    pub fn new(engine: Engine, compiler: Arc<dyn Compiler>, host: Host) -> Self {
        Self {
            engine,
            compiler,
            host: Arc::new(host),
            records: None,
            plugins: RwLock::default(),
            retired: RwLock::default(),
            refused: RwLock::default(),
            missing: RwLock::default(),
            policies: RwLock::new([].into()),
            observers: watch::Sender::new([].into()),
            renewals: watch::Sender::new(()),
        }
    }

    /// The same, and every call of what is loaded from now on is noted.
    #[must_use]
    pub fn recording(mut self, records: Records) -> Self {
        self.records = Some(records);
        self
    }

    /// Loads a plugin; one of the same name is replaced once the new one can be called, and
    /// calls in flight finish on the old.
    ///
    /// # Errors
    /// [`LoadError`]; then what was loaded before is still there.
    pub async fn load(&self, source: PluginSource) -> Result<PluginInfo, LoadError> {
        let (plugin, origin) = (source.name.clone(), source.origin.clone());
        let terms = source.policy.clone();
        let loaded = load::load(
            &self.engine,
            &*self.compiler,
            &self.host,
            self.records.as_ref(),
            source,
        )
        .await;
        let loaded = match loaded {
            Ok(loaded) => loaded,
            Err(fault) => {
                self.refuse(&plugin, &origin, fault.to_string(), terms);
                return Err(LoadError { plugin, fault });
            }
        };
        let info = loaded.info.clone();
        let name = loaded.identity.name.clone();
        self.refused.write().remove(name.as_str());
        self.missing.write().remove(name.as_str());
        self.retired.write().remove(&name);
        let plugin = Arc::new(Plugin::new(loaded));
        self.plugins.write().insert(name, plugin);
        self.note_roles();
        self.renewals.send_replace(());
        loads(&info.name, "ok").increment(1);
        Ok(info)
    }

    /// Keeps the lists of policies and observers, which are asked for more often than plugins
    /// change.
    fn note_roles(&self) {
        let plugins = self.plugins.read();
        let with = |role: Role| {
            let infos = plugins.values().map(|plugin| &plugin.loaded.info);
            infos.filter(move |info| info.roles.contains(&role))
        };
        let mut policies: Vec<PolicyEntry> = with(Role::Policy)
            .map(|info| PolicyEntry {
                name: info.name.clone(),
                terms: info.policy.clone().unwrap_or_default(),
            })
            .collect();
        for (name, terms) in &*self.missing.read() {
            if !policies.iter().any(|entry| entry.name == *name) {
                let (name, terms) = (name.clone(), terms.clone());
                policies.push(PolicyEntry { name, terms });
            }
        }
        policies.sort_by(|a, b| (a.terms.order, &a.name).cmp(&(b.terms.order, &b.name)));
        *self.policies.write() = policies.into();
        let observers: Arc<[String]> = with(Role::Observer).map(|info| info.name.clone()).collect();
        self.observers.send_if_modified(|known| {
            let news = *known != observers;
            *known = observers;
            news
        });
    }

    /// A plugin by name.
    pub(crate) fn named(&self, name: &str) -> Option<Arc<Plugin>> {
        let name = RuntimeName::parse(name).ok()?;
        self.plugins.read().get(&name).cloned()
    }

    /// The policies in the order in which they are asked.
    pub(crate) fn policies(&self) -> Arc<[PolicyEntry]> {
        self.policies.read().clone()
    }

    /// The names of the observers.
    pub(crate) fn observers(&self) -> watch::Receiver<Arc<[String]>> {
        self.observers.subscribe()
    }

    /// Tells people of a plugin that could not even be read, until it can be. Where it is a policy
    /// by the operator's word and none of that name serves, it is asked and gives no verdict.
    pub fn refuse(&self, plugin: &str, origin: &str, message: String, policy: Option<PolicyTerms>) {
        if let Some(terms) = policy {
            self.missing.write().insert(plugin.to_owned(), terms);
            self.note_roles();
        }
        loads(plugin, "refused").increment(1);
        let mut refused = self.refused.write();
        if refused.len() < MOST_REFUSED || refused.contains_key(plugin) {
            let (plugin, origin) = (plugin.to_owned(), origin.to_owned());
            refused.insert(plugin, Refused { origin, message });
        }
    }

    /// Whether a plugin of this name serves.
    #[must_use]
    pub fn serves(&self, plugin: &str) -> bool {
        let name = RuntimeName::parse(plugin);
        name.is_ok_and(|name| self.plugins.read().contains_key(&name))
    }

    /// A plugin is not there any more: no task begins with it, and those that did go on.
    pub fn retire(&self, plugin: &str) {
        self.refused.write().remove(plugin);
        if self.missing.write().remove(plugin).is_some() {
            self.note_roles();
            self.renewals.send_replace(());
        }
        let Ok(name) = RuntimeName::parse(plugin) else {
            return;
        };
        let Some(gone) = self.plugins.write().remove(&name) else {
            return;
        };
        self.note_roles();
        self.renewals.send_replace(());
        let mut retired = self.retired.write();
        if retired.len() >= MOST_RETIRED {
            retired.pop_first();
        }
        retired.insert(name, gone);
    }

    /// The plugin that provides a task's runtime.
    fn plugin(&self, given: &StrategyTask) -> Result<Arc<Plugin>, StrategyError> {
        let name = &given.task.runtime;
        let found = self.plugins.read().get(name).cloned();
        let found = found.or_else(|| self.retired.read().get(name).cloned());
        found.ok_or_else(|| StrategyError::Host {
            message: format!(
                "no plugin provides the runtime {name} any more{}",
                match name.as_str() {
                    "container" => CONTAINER_MODE,
                    _ => "",
                }
            ),
        })
    }

    pub(crate) async fn call<E: Export, T: Serialize, U>(
        &self,
        (plugin, export): (&Plugin, &E),
        function: &Function,
        (scope, tape): (Scope, Tape),
        guest: impl for<'a> FnOnce(
            &'a E::Guest,
            &'a mut Store<CallState>,
        ) -> BoxFuture<'a, wasmtime::Result<T>>,
        read: impl FnOnce(T) -> Result<U, CallError>,
    ) -> Result<(U, Account), CallError> {
        let loaded = &plugin.loaded;
        // What is noted is noted from the first step of an instance on.
        let spares = loaded.spares.as_ref().filter(|_| !tape.is_on());
        let spare = spares.and_then(Spares::take);
        let finished = call::run(
            &self.engine,
            (&loaded.component, export),
            &loaded.identity,
            &self.host,
            (scope, tape),
            spare,
            guest,
        )
        .await;
        function.seconds.record(finished.took);
        function.host_seconds.record(finished.account.in_host);
        note_left_out(&loaded.info.name, finished.account.lines);
        if matches!(finished.answer, Err(CallError::Plugin(_))) {
            function.traps.increment(1);
        }
        let answer = finished.answer.and_then(read);
        match &answer {
            Ok(_) => function.ok.increment(1),
            Err(CallError::Host(_)) => function.host_fault.increment(1),
            Err(CallError::Plugin(_)) => function.plugin_fault.increment(1),
        }
        Ok((answer?, finished.account))
    }

    /// A call for a task: it counts for how the plugin is doing.
    async fn work<T: Serialize, U>(
        &self,
        plugin: &Plugin,
        function: &Function,
        (scope, tape): (Scope, Tape),
        guest: impl for<'a> FnOnce(
            &'a runtime::Guest,
            &'a mut Store<CallState>,
        ) -> BoxFuture<'a, wasmtime::Result<T>>,
        read: impl FnOnce(T) -> Result<U, CallError>,
    ) -> Result<(U, Account), StrategyError> {
        let call = match scope.attempt() {
            Some(_) => Call::Attempt,
            None => Call::Check,
        };
        let export = plugin.runtime()?;
        plugin.admit(call)?;
        let answer = self.call((plugin, export), function, (scope, tape), guest, read);
        let answer = answer.await;
        answer
            .inspect(|_| plugin.supervision.went_well(call))
            .map_err(|error| plugin.failed(error))
    }

    /// What a task restricts that cannot be enforced for units of this plugin.
    async fn unenforceable(&self, plugin: &Plugin, given: &StrategyTask) -> Vec<SpecProblem> {
        let terms = &plugin.loaded.identity.grants.process;
        let confinement = match terms.over(&given.task.spec.confinement) {
            Ok(confinement) => confinement,
            Err(refused) => {
                return vec![SpecProblem {
                    field: field_of(Restriction::User),
                    message: format!("is not the one that this runtime was lent: {refused}"),
                }];
            }
        };
        if confinement.best_effort || confinement.is_empty() {
            return Vec::new();
        }
        let enforceable = if plugin.starts_processes() {
            // Nobody knows as long as the supervisor is away: its start will tell.
            self.host.process.enforceable().await.unwrap_or_default()
        } else {
            // The rest is between the container runtime and the machine.
            let why = "CRI has no word for it";
            let mut beyond = vec![(Restriction::OpenFiles, why), (Restriction::FileSize, why)];
            if confinement
                .memory_bytes
                .is_some_and(|bytes| bytes < LEAST_MEMORY_BYTES)
            {
                beyond.push((
                    Restriction::Memory,
                    "a container is sure to start only from 6Mi on",
                ));
            }
            let told = |(one, why): (_, &str)| (one, Err(why.to_owned()));
            beyond.into_iter().map(told).collect()
        };
        enforceable
            .into_iter()
            .filter(|(restriction, _)| confinement.restricts(*restriction))
            .filter_map(|(restriction, how)| {
                let why = how.err()?;
                let message = if terms.restrict(restriction) {
                    let plugin = &plugin.loaded.info.name;
                    format!(
                        "is restricted by `process` under `[grants]` in {plugin}.toml, and cannot be \
                         enforced here: {why}"
                    )
                } else {
                    format!(
                        "cannot be enforced here: {why}; leave it out, or say \
                         `bestEffort: true` to run without it"
                    )
                };
                Some(SpecProblem {
                    field: field_of(restriction),
                    message,
                })
            })
            .collect()
    }

    async fn probe(&self, plugin: &Plugin) -> Result<(), String> {
        let mut probed = plugin.probed.lock().await;
        if let Some((at, answer)) = &*probed
            && at.elapsed() < PROBE_AGE
        {
            return answer.clone();
        }
        let Some(export) = &plugin.loaded.exports.runtime else {
            return Ok(());
        };
        let answer = self
            .call(
                (plugin, export),
                &plugin.probe,
                (Scope::Plugin, plugin.tape(&plugin.probe, &())),
                |guest, store| Box::pin(async move { guest.call_probe(store).await }),
                |answer| Ok(answer.map_err(convert::text)),
            )
            .await;
        let answer = match answer {
            Ok((answer, _)) => answer,
            Err(CallError::Plugin(message) | CallError::Host(message)) => Err(message),
        };
        *probed = Some((Instant::now(), answer.clone()));
        answer
    }

    async fn info(&self, plugin: &Plugin) -> PluginInfo {
        let probed = self.probe(plugin).await;
        PluginInfo {
            health: probed.and_then(|()| plugin.supervision.health()),
            calls: plugin.supervision.calls(),
            faults: plugin.supervision.faults(),
            ..plugin.loaded.info.clone()
        }
    }
}

/// What is said beside where containers are not taken.
const CONTAINER_MODE: &str =
    "; the daemon takes containers when it is started with --enable-container-mode";

/// Where a restriction stands in a task.
fn field_of(restriction: Restriction) -> String {
    match restriction {
        Restriction::Cpu
        | Restriction::Memory
        | Restriction::Pids
        | Restriction::OpenFiles
        | Restriction::FileSize => format!("/resources/{}", restriction.as_str()),
        Restriction::User | Restriction::NoNewPrivileges | Restriction::ReadOnlyPaths => {
            format!("/{}", restriction.as_str())
        }
    }
}

impl Strategies for Runtimes {
    fn resolve(&self, spec: &TaskSpec) -> Result<RuntimeName, SpecProblem> {
        let plugins = self.plugins.read();
        let kind = spec.work.kind();
        if let Some(wanted) = &spec.runtime {
            let plugin = plugins.get(wanted).ok_or_else(|| SpecProblem {
                field: "/spec/runtime".to_owned(),
                message: format!("there is no runtime {wanted}; there is {}", known(&plugins)),
            })?;
            if !plugin.takes(kind) {
                return Err(SpecProblem {
                    field: "/spec/runtime".to_owned(),
                    message: format!(
                        "the runtime {wanted} takes {}, this is work of kind {kind}",
                        plugin.loaded.info.kinds.join(", ")
                    ),
                });
            }
            return Ok(wanted.clone());
        }
        // The runtime named like the kind is everybody's first guess; after it, the first by
        // name, so that the choice is the same on every machine.
        let takers = || plugins.iter().filter(|(_, plugin)| plugin.takes(kind));
        takers()
            .find(|(name, _)| name.as_str() == kind)
            .or_else(|| takers().next())
            .map(|(name, _)| name.clone())
            .ok_or_else(|| SpecProblem {
                field: "/spec".to_owned(),
                message: format!(
                    "no runtime takes work of kind {kind:?}; there is {}{}",
                    known(&plugins),
                    match kind {
                        "container" | "podTemplateSpec" => CONTAINER_MODE,
                        _ => "",
                    }
                ),
            })
    }

    fn validate(
        &self,
        task: StrategyTask,
    ) -> BoxFuture<'_, Result<Vec<SpecProblem>, StrategyError>> {
        Box::pin(async move {
            let plugin = self.plugin(&task)?;
            let misfits = match (&plugin.loaded.schema, &task.task.spec.config) {
                (Some(schema), config) if !config.is_empty() => schema.problems(config),
                // Whether it may be left out is the schema's word, too.
                (Some(schema), _) => schema.problems("{}"),
                (None, _) => Vec::new(),
            };
            if !misfits.is_empty() {
                return Ok(misfits);
            }
            let record = convert::task(&task);
            let tape = plugin.tape(&plugin.validate, &(&record,));
            let unenforceable = self.unenforceable(&plugin, &task);
            let answer = self
                .work(
                    &plugin,
                    &plugin.validate,
                    (Scope::Check(task.clone()), tape),
                    |guest, store| {
                        Box::pin(async move { guest.call_validate(store, &record).await })
                    },
                    |answer| Ok(convert::problems(answer)),
                )
                .await;
            let (mut problems, _) = answer?;
            problems.extend(unenforceable.await);
            Ok(problems)
        })
    }

    fn start(&self, task: StrategyTask) -> BoxFuture<'_, Result<Stepped, StrategyError>> {
        Box::pin(async move {
            let plugin = self.plugin(&task)?;
            let record = convert::task(&task);
            let tape = plugin.tape(&plugin.start, &(&record,));
            let answer = self
                .work(
                    &plugin,
                    &plugin.start,
                    (Scope::Attempt(task), tape),
                    |guest, store| Box::pin(async move { guest.call_start(store, &record).await }),
                    |answer| convert::step(answer, None),
                )
                .await;
            answer.map(stepped)
        })
    }

    fn on_event(
        &self,
        task: StrategyTask,
        state: Arc<[u8]>,
        event: StrategyEvent,
    ) -> BoxFuture<'_, Result<Stepped, StrategyError>> {
        Box::pin(async move {
            let plugin = self.plugin(&task)?;
            let record = convert::task(&task);
            let told = convert::event(&event);
            let tape = plugin.tape(&plugin.on_event, &(&record, &*state, &told));
            let seen = match event {
                StrategyEvent::Exited { end, .. } => end.status,
                _ => None,
            };
            let answer = self
                .work(
                    &plugin,
                    &plugin.on_event,
                    (Scope::Attempt(task), tape),
                    |guest, store| {
                        Box::pin(
                            async move { guest.call_on_event(store, &record, &state, &told).await },
                        )
                    },
                    |answer| convert::step(answer, seen),
                )
                .await;
            answer.map(stepped)
        })
    }
}

impl Refused {
    /// Of a plugin of which nothing else is known than that it is a policy on these terms, if it
    /// is one.
    fn info(&self, name: &str, policy: Option<PolicyTerms>) -> PluginInfo {
        PluginInfo {
            name: name.to_owned(),
            version: String::new(),
            roles: policy.iter().map(|_| Role::Policy).collect(),
            policy,
            kinds: Vec::new(),
            source: self.origin.clone(),
            digest: String::new(),
            exports: Vec::new(),
            imports: Vec::new(),
            grants: Vec::new(),
            config_schema: None,
            health: Err("it is not loaded".to_owned()),
            refused: Some(self.message.clone()),
            calls: 0,
            faults: 0,
        }
    }
}

fn loads(plugin: &str, result: &'static str) -> metrics::Counter {
    let plugin = plugin.to_owned();
    metrics::counter!("taskwright_plugin_loads_total", "plugin" => plugin, "result" => result)
}

fn stepped((step, account): (Step, Account)) -> Stepped {
    Stepped {
        step,
        process: account.process,
        ended: account.ended,
        remarks: account.remarks,
    }
}

/// The runtimes there are, for a message.
fn known(plugins: &BTreeMap<RuntimeName, Arc<Plugin>>) -> String {
    let mut runtimes = plugins
        .iter()
        .filter(|(_, plugin)| plugin.loaded.exports.runtime.is_some())
        .peekable();
    if runtimes.peek().is_none() {
        return "none at all".to_owned();
    }
    let each = runtimes
        .map(|(name, plugin)| format!("{name} (takes {})", plugin.loaded.info.kinds.join(", ")));
    each.collect::<Vec<_>>().join(", ")
}

impl Plugins for Runtimes {
    fn list(&self) -> BoxFuture<'_, Vec<PluginInfo>> {
        Box::pin(async move {
            let plugins: Vec<Arc<Plugin>> = self.plugins.read().values().cloned().collect();
            let infos = plugins.iter().map(|plugin| self.info(plugin));
            let mut infos = futures::future::join_all(infos).await;
            for (name, refused) in &*self.refused.read() {
                match infos.iter_mut().find(|info| info.name == *name) {
                    Some(info) => info.refused = Some(refused.message.clone()),
                    None => {
                        let terms = self.missing.read().get(name).cloned();
                        infos.push(refused.info(name, terms));
                    }
                }
            }
            infos.sort_by(|a, b| a.name.cmp(&b.name));
            infos
        })
    }

    fn runtimes(&self) -> Vec<(String, Vec<String>)> {
        let plugins = self.plugins.read();
        let infos = plugins.values().map(|plugin| &plugin.loaded.info);
        let runtimes = infos.filter(|info| info.roles.contains(&Role::Runtime));
        runtimes
            .map(|info| (info.name.clone(), info.kinds.clone()))
            .collect()
    }
}
