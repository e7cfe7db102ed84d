//! Calls of a record, once more: the same arguments, the noted answers of the host, and a look
//! whether the plugin does and answers the same.
//!
//! Nothing of the machine is asked or touched.

use std::sync::Arc;

use futures::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use taskwright_capability::Grants;
use wasmtime::Store;

use crate::bindings::{Export, observer, policy, runtime, types};
use crate::call::{self, CallState, Scope};
use crate::load::{self, LoadError, PluginSource, Prepared, Script};
use crate::record::{Header, NotedCall};
use crate::strategy::Runtimes;
use crate::tape::{self, Along, Tape};

/// The digest of a plugin, as its record has it.
#[must_use]
pub fn digest(component: &[u8], script: Option<&Script>) -> String {
    let component = hex::encode(Sha256::digest(component));
    script.map_or_else(|| component.clone(), |script| script.digest(&component))
}

/// A plugin that calls of its record can be repeated with.
pub struct Player<'a> {
    runtimes: &'a Runtimes,
    plugin: Prepared,
}

/// What came of a repeated call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Repeated {
    /// It asked and answered the same.
    Same,
    /// It did not.
    Differs(Difference),
    /// It cannot be repeated; the sentence says why.
    NotPlayed(&'static str),
}

/// Where a repeated call left its record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// What it asked of the host and the record does not have, or the other way round.
    pub on_the_way: Option<String>,
    /// How it ended, as noted: an object with `answer` or `error`.
    pub noted: Value,
    /// How it ended now.
    pub came: Value,
}

impl Runtimes {
    /// Makes a plugin ready for the calls of a record. It is not among those that are loaded.
    ///
    /// # Errors
    /// [`LoadError`].
    pub async fn player(
        &self,
        header: &Header,
        component: Arc<[u8]>,
        script: Option<Script>,
    ) -> Result<Player<'_>, LoadError> {
        let source = PluginSource {
            name: header.plugin.clone(),
            origin: header.origin.clone(),
            component,
            script,
            // What was lent by name was handed over in answers, which the record has.
            grants: Grants {
                capabilities: header.capabilities(),
                ..Grants::default()
            },
            limits: Some(header.limits()),
            policy: None,
        };
        let prepared = load::prepare(&self.engine, &*self.compiler, source).await;
        let plugin = prepared.map_err(|fault| LoadError {
            plugin: header.plugin.clone(),
            fault,
        })?;
        Ok(Player {
            runtimes: self,
            plugin,
        })
    }
}

impl Player<'_> {
    /// Repeats a call.
    pub async fn play(&self, noted: NotedCall) -> Repeated {
        if noted.left_out {
            return Repeated::NotPlayed("it was too long for the record");
        }
        if noted.http {
            return Repeated::NotPlayed(
                "it asked by HTTP, and what it was answered is not on record",
            );
        }
        let exports = &self.plugin.exports;
        let export = noted.export.clone();
        match export.as_str() {
            "runtime.describe" => {
                self.repeat(exports.runtime.as_ref(), noted, |guest, store, (): ()| {
                    Box::pin(async move { guest.call_describe(store).await })
                })
                .await
            }
            "runtime.probe" => {
                self.repeat(exports.runtime.as_ref(), noted, |guest, store, (): ()| {
                    Box::pin(async move { guest.call_probe(store).await })
                })
                .await
            }
            "runtime.validate" => {
                self.repeat(
                    exports.runtime.as_ref(),
                    noted,
                    |guest, store, (task,): (types::Task,)| {
                        Box::pin(async move { guest.call_validate(store, &task).await })
                    },
                )
                .await
            }
            "runtime.start" => {
                self.repeat(
                    exports.runtime.as_ref(),
                    noted,
                    |guest, store, (task,): (types::Task,)| {
                        Box::pin(async move { guest.call_start(store, &task).await })
                    },
                )
                .await
            }
            "runtime.on-event" => {
                self.repeat(
                    exports.runtime.as_ref(),
                    noted,
                    |guest, store, (task, state, event): Event| {
                        Box::pin(
                            async move { guest.call_on_event(store, &task, &state, &event).await },
                        )
                    },
                )
                .await
            }
            "policy.describe" => {
                self.repeat(exports.policy.as_ref(), noted, |guest, store, (): ()| {
                    Box::pin(async move { guest.call_describe(store).await })
                })
                .await
            }
            "policy.review" => {
                self.repeat(
                    exports.policy.as_ref(),
                    noted,
                    |guest, store, (request,): (policy::Request,)| {
                        Box::pin(async move { guest.call_review(store, &request).await })
                    },
                )
                .await
            }
            "observer.describe" => {
                self.repeat(exports.observer.as_ref(), noted, |guest, store, (): ()| {
                    Box::pin(async move { guest.call_describe(store).await })
                })
                .await
            }
            "observer.notice" => {
                self.repeat(
                    exports.observer.as_ref(),
                    noted,
                    |guest, store, (event,): (observer::Event,)| {
                        Box::pin(async move { guest.call_notice(store, &event).await })
                    },
                )
                .await
            }
            _ => Repeated::NotPlayed("this version knows no such function"),
        }
    }

    async fn repeat<E: Export, A: DeserializeOwned, T: Serialize>(
        &self,
        export: Option<&E>,
        noted: NotedCall,
        function: impl for<'a> FnOnce(
            &'a E::Guest,
            &'a mut Store<CallState>,
            A,
        ) -> BoxFuture<'a, wasmtime::Result<T>>,
    ) -> Repeated {
        let before = match (noted.answer, noted.error) {
            (Some(answer), None) => json!({ "answer": answer }),
            (_, error) => json!({ "error": error }),
        };
        let Some(export) = export else {
            return Repeated::Differs(Difference {
                on_the_way: Some(format!("it does not export {}", noted.export)),
                noted: before,
                came: Value::Null,
            });
        };
        let Ok(arguments) = serde_json::from_value(noted.arguments) else {
            return Repeated::NotPlayed("this version's function takes other arguments");
        };
        let tape = Tape::playing(noted.about, noted.calls);
        let finished = call::run(
            &self.runtimes.engine,
            (&self.plugin.component, export),
            &self.plugin.identity,
            &self.runtimes.host,
            (Scope::Plugin, tape.clone()),
            None,
            |guest, store| function(guest, store, arguments),
        )
        .await;
        let Ok(came) = tape::ended(&finished.answer) else {
            return Repeated::NotPlayed("its answer cannot be written down");
        };
        let on_the_way = match tape.along() {
            Along::Left(sentence) => Some(sentence),
            // It ended then while it waited for the host, and so it did now.
            Along::CutOff if before.get("error").is_some() => return Repeated::Same,
            Along::CutOff | Along::Same if came == before => return Repeated::Same,
            Along::CutOff | Along::Same => None,
        };
        Repeated::Differs(Difference {
            on_the_way,
            noted: before,
            came,
        })
    }
}

/// The arguments of `on-event`.
type Event = (types::Task, Vec<u8>, runtime::Event);
