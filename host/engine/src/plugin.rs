//! A plugin in service: what was loaded, how it does, and the instruments that watch it.

use std::time::Instant;

use metrics::{Counter, Histogram};
use serde::Serialize;
use taskwright_capability::Capability;
use taskwright_control::port::StrategyError;

use crate::bindings::runtime;
use crate::call::CallError;
use crate::load::Loaded;
use crate::supervise::{Call, Supervision};
use crate::tape::Tape;

/// A plugin in service.
pub(crate) struct Plugin {
    pub(crate) loaded: Loaded,
    pub(crate) supervision: Supervision,
    /// The newest answer of its probe, and when it was given.
    pub(crate) probed: tokio::sync::Mutex<Option<(Instant, Result<(), String>)>>,
    pub(crate) probe: Function,
    pub(crate) validate: Function,
    pub(crate) start: Function,
    pub(crate) on_event: Function,
    pub(crate) review: Function,
    pub(crate) notice: Function,
}

/// One export, with the instruments that watch it.
pub(crate) struct Function {
    /// Its interface and name.
    export: &'static str,
    pub(crate) ok: Counter,
    pub(crate) plugin_fault: Counter,
    /// Calls that answered with an error where a verdict was wanted; they kept the contract, and
    /// are among the ones that are `ok`.
    pub(crate) erred: Counter,
    pub(crate) host_fault: Counter,
    /// Traps, limits that were met, and calls that were overdue.
    pub(crate) traps: Counter,
    /// The whole call, with the making of the instance.
    pub(crate) seconds: Histogram,
    /// The part of it that the guest waited for the host.
    pub(crate) host_seconds: Histogram,
}

impl Plugin {
    pub(crate) fn new(loaded: Loaded) -> Self {
        let function = |export| Function::watched(&loaded.info.name, export);
        Self {
            probe: function("runtime.probe"),
            validate: function("runtime.validate"),
            start: function("runtime.start"),
            on_event: function("runtime.on-event"),
            review: function("policy.review"),
            notice: function("observer.notice"),
            supervision: Supervision::default(),
            probed: tokio::sync::Mutex::default(),
            loaded,
        }
    }

    /// The tape of a call of `function` with these arguments.
    pub(crate) fn tape(&self, function: &Function, arguments: &impl Serialize) -> Tape {
        Tape::recording(self.loaded.record.as_ref(), function.export, arguments)
    }

    /// Its export as a runtime.
    pub(crate) fn runtime(&self) -> Result<&runtime::GuestIndices, StrategyError> {
        let export = self.loaded.exports.runtime.as_ref();
        export.ok_or_else(|| StrategyError::Host {
            message: format!("the plugin {} is no runtime", self.loaded.info.name),
        })
    }

    /// Whether its units are processes of this machine.
    pub(crate) fn starts_processes(&self) -> bool {
        let grants = &self.loaded.identity.grants;
        [Capability::Process, Capability::Namespace]
            .into_iter()
            .any(|capability| grants.allows(capability))
    }

    pub(crate) fn takes(&self, kind: &str) -> bool {
        self.loaded.info.kinds.iter().any(|taken| taken == kind)
    }

    /// Whether it may be called now.
    pub(crate) fn admit(&self, call: Call) -> Result<(), StrategyError> {
        let admitted = self.supervision.admit(call, Instant::now());
        admitted.map_err(|resting| StrategyError::Resting {
            runtime: self.loaded.info.name.clone(),
            after: resting.left,
            message: resting.to_string(),
        })
    }

    /// Notes a call that gave no answer, and says so with the plugin's name where it was its
    /// fault.
    pub(crate) fn failed(&self, error: CallError) -> StrategyError {
        let message = match error {
            CallError::Plugin(message) => message,
            CallError::Host(message) => {
                self.supervision.was_spoiled();
                return StrategyError::Host { message };
            }
        };
        let in_a_row = self.supervision.failed(&message, Instant::now());
        let runtime = self.loaded.info.name.clone();
        tracing::warn!(
            plugin = runtime,
            in_a_row,
            "a plugin call failed: {message}"
        );
        StrategyError::Plugin { runtime, message }
    }
}

impl Function {
    fn watched(plugin: &str, export: &'static str) -> Self {
        let plugin = plugin.to_owned();
        let function = export.split_once('.').map_or(export, |(_, name)| name);
        let calls = |result: &'static str| {
            metrics::counter!(
                "taskwright_plugin_calls_total",
                "plugin" => plugin.clone(), "func" => function, "result" => result
            )
        };
        Self {
            export,
            ok: calls("ok"),
            plugin_fault: calls("plugin-fault"),
            erred: metrics::counter!(
                "taskwright_plugin_errors_total",
                "plugin" => plugin.clone(), "func" => function
            ),
            host_fault: calls("host-fault"),
            traps: metrics::counter!(
                "taskwright_plugin_traps_total",
                "plugin" => plugin.clone(), "func" => function
            ),
            seconds: metrics::histogram!(
                "taskwright_plugin_call_seconds",
                "plugin" => plugin.clone(), "func" => function
            ),
            host_seconds: metrics::histogram!(
                "taskwright_plugin_host_seconds",
                "plugin" => plugin.clone(), "func" => function
            ),
        }
    }
}
