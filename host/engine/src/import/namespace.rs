//! `namespace`: other processes, and units inside their namespaces.

use std::sync::Arc;

use taskwright_capability::{Capability, Inside, Namespaces, TargetSelector};
use taskwright_model::ProcessIdentity;

use crate::bindings::namespace::{Entry, Error, Host, Selector, Target};
use crate::bindings::types::{SpawnError, SpawnRequest, Spawned};
use crate::call::CallState;
use crate::convert;

impl Host for CallState {
    async fn find(&mut self, by: Selector) -> wasmtime::Result<Result<Option<Target>, Error>> {
        if let Err(error) = self.may_look() {
            return Ok(Err(error));
        }
        let host = Arc::clone(&self.host);
        let found = self
            .outlast("namespace.find", async move {
                host.namespace.find(selector(by)).await
            })
            .await?;
        Ok(found
            .map(|found| {
                found.map(|target| Target {
                    pid: target.process.pid,
                    start_ticks: target.process.start_ticks,
                    candidates: target.candidates,
                    is_init: target.is_init,
                })
            })
            .map_err(|error| Error::Unavailable(convert::text(error.to_string()))))
    }

    async fn is_alive(&mut self, which: Target) -> wasmtime::Result<Result<bool, Error>> {
        if let Err(error) = self.may_look() {
            return Ok(Err(error));
        }
        let host = Arc::clone(&self.host);
        let answer = self
            .outlast("namespace.is-alive", async move {
                host.namespace.is_alive(identity(&which)).await
            })
            .await?;
        Ok(answer.map_err(|error| Error::Unavailable(convert::text(error.to_string()))))
    }

    async fn may_enter(&mut self, entry: Entry) -> wasmtime::Result<Result<(), Error>> {
        Ok(self.lent(entry).map_err(Error::Denied))
    }

    async fn spawn(
        &mut self,
        unit: String,
        target: Target,
        entry: Entry,
        request: SpawnRequest,
    ) -> wasmtime::Result<Result<Spawned, SpawnError>> {
        if let Err(sentence) = self.lent(entry) {
            return Ok(Err(SpawnError::Denied(sentence)));
        }
        let inside = Inside {
            target: identity(&target),
            further: Namespaces {
                user: entry.user_namespace,
                cgroup: entry.cgroup_namespace,
            },
            identity: entry.identity,
            cgroup: entry.cgroup,
        };
        self.spawn_unit("namespace.spawn", unit, Some(inside), request)
            .await
    }
}

impl CallState {
    /// Whether the grants cover what is taken of a target.
    fn lent(&self, entry: Entry) -> Result<(), String> {
        let wanted = [
            (entry.user_namespace, Capability::UserNamespace),
            (entry.cgroup_namespace, Capability::CgroupNamespace),
        ];
        for (wanted, capability) in wanted {
            if wanted && !self.plugin.grants.allows(capability) {
                return Err(format!("the plugin was not lent `{capability}`"));
            }
        }
        Ok(())
    }

    fn may_look(&self) -> Result<(), Error> {
        match self.scope.attempt() {
            Some(_) => Ok(()),
            None => Err(Error::Denied(
                "other processes are looked at in start and on-event only".to_owned(),
            )),
        }
    }
}

fn identity(target: &Target) -> ProcessIdentity {
    ProcessIdentity {
        pid: target.pid,
        start_ticks: target.start_ticks,
    }
}

fn selector(by: Selector) -> TargetSelector {
    match by {
        Selector::Variable(variable) => TargetSelector::Variable {
            name: variable.name,
            value: variable.value,
        },
        Selector::Pid(pid) => TargetSelector::Pid(pid),
        Selector::ContainerId(id) => TargetSelector::ContainerId(id),
        Selector::Cgroup(path) => TargetSelector::Cgroup(path),
    }
}
