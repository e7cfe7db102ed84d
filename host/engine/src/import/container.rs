//! `container`: images, sandboxes and containers, as the operator allows them.

use std::path::{Component, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use taskwright_capability::container::{
    Capabilities, ContainerRequest, ContainerState as State, ImageState as Image, Mount,
    MountSource, Network as Net, PullPolicy as Policy, SandboxRequest,
};
use taskwright_capability::{ContainerError, ContainerHost};
use taskwright_control::port::{StrategyTask, UnitEnded};
use taskwright_model::{Confinement, UnitKey, UnitName, User};

use super::spawn::task_env;
use crate::bindings::container::{
    self, ContainerState, Error, ExecEnd, Host, ImageState, MountSource as Source, Network,
    PullPolicy, PullProgress, Usage,
};
use crate::call::CallState;
use crate::convert;
use crate::import::Containers;

/// How long the answer about an image waits for its pull: a quick one needs no second call.
const PULL_AWAITED: Duration = Duration::from_millis(250);
/// The longest command in a container that a plugin may wait for.
const MOST_EXEC: Duration = Duration::from_secs(5);
/// What such a command may print.
const MOST_EXEC_BYTES: usize = 1 << 20;
/// Mounts of a container.
const MOST_MOUNTS: usize = 64;

impl Host for CallState {
    async fn check(&mut self) -> wasmtime::Result<Result<(), Error>> {
        self.ask("container.check", |host| async move {
            host.check().await.map(|_| ())
        })
        .await
    }

    async fn may_run(
        &mut self,
        request: container::SandboxRequest,
    ) -> wasmtime::Result<Result<(), Error>> {
        Ok(self.permitted(&request))
    }

    async fn may_create(
        &mut self,
        request: container::ContainerRequest,
    ) -> wasmtime::Result<Result<(), Error>> {
        let Some(given) = self.scope.task().cloned() else {
            return Ok(Err(Error::Denied("there is no task to ask for".to_owned())));
        };
        let nobodys = UnitName::parse("main").map_err(wasmtime::Error::new)?;
        let unit = UnitKey {
            task: given.task.id,
            attempt: given.attempt,
            unit: nobodys,
        };
        let complete = self.complete_container(&given, unit, request);
        Ok(complete.map(|_| ()))
    }

    async fn image(
        &mut self,
        name: String,
        policy: PullPolicy,
    ) -> wasmtime::Result<Result<ImageState, Error>> {
        if let Err(error) = self.acting() {
            return Ok(Err(error));
        }
        let policy = match policy {
            PullPolicy::IfNotPresent => Policy::IfNotPresent,
            PullPolicy::Always => Policy::Always,
            PullPolicy::Never => Policy::Never,
        };
        let answer = self
            .ask("container.image", move |host| async move {
                host.image(name, policy, PULL_AWAITED).await
            })
            .await?;
        Ok(answer.map(|state| match state {
            Image::Present { id, .. } => ImageState::Present(id),
            Image::Pulling(progress) => ImageState::Pulling(PullProgress {
                seconds: progress.seconds,
                waiters: progress.waiters,
            }),
        }))
    }

    async fn run_sandbox(
        &mut self,
        request: container::SandboxRequest,
    ) -> wasmtime::Result<Result<Option<String>, Error>> {
        let given = match self.acting() {
            Ok(given) => given,
            Err(error) => return Ok(Err(error)),
        };
        if let Err(error) = self.permitted(&request) {
            return Ok(Err(error));
        }
        let network = match request.network {
            Network::Host => Net::Host,
            Network::None => Net::None,
            Network::Pod => Net::Pod,
        };
        let request = SandboxRequest {
            task: given.task.id,
            attempt: given.attempt,
            name: given.task.key.name.clone(),
            network,
            hostname: request.hostname,
            privileged: request.privileged,
            share_pids: request.share_pids,
        };
        let answer = self
            .ask("container.run-sandbox", move |host| async move {
                host.run_sandbox(request).await
            })
            .await?;
        Ok(answer.map(|sandbox| sandbox.ip))
    }

    async fn create(
        &mut self,
        unit: String,
        request: container::ContainerRequest,
    ) -> wasmtime::Result<Result<(), Error>> {
        let (given, key) = match self.acting_as(&unit) {
            Ok(found) => found,
            Err(error) => return Ok(Err(error)),
        };
        if let Err(sentence) = self.count_unit(&key.unit) {
            return Ok(Err(Error::Denied(sentence)));
        }
        let request = match self.complete_container(&given, key, request) {
            Ok(request) => request,
            Err(error) => return Ok(Err(error)),
        };
        let answer = self
            .ask("container.create", move |host| async move {
                host.create(request).await
            })
            .await?;
        Ok(answer.map(|enforced| {
            self.account.remarks.enforced.take(&enforced);
        }))
    }

    async fn start(&mut self, unit: String) -> wasmtime::Result<Result<ContainerState, Error>> {
        let key = match self.acting_as(&unit) {
            Ok((_, key)) => key,
            Err(error) => return Ok(Err(error)),
        };
        let answer = self
            .ask("container.start", move |host| async move {
                host.start(key).await
            })
            .await?;
        Ok(answer.map(state))
    }

    async fn inspect(
        &mut self,
        unit: String,
    ) -> wasmtime::Result<Result<Option<ContainerState>, Error>> {
        let key = match self.acting_as(&unit) {
            Ok((_, key)) => key,
            Err(error) => return Ok(Err(error)),
        };
        let answer = self
            .ask("container.inspect", move |host| async move {
                host.inspect(key).await
            })
            .await?;
        Ok(answer.map(|found| found.map(state)))
    }

    async fn stats(&mut self, unit: String) -> wasmtime::Result<Result<Usage, Error>> {
        let key = match self.acting_as(&unit) {
            Ok((_, key)) => key,
            Err(error) => return Ok(Err(error)),
        };
        let answer = self
            .ask("container.stats", move |host| async move {
                host.stats(key).await
            })
            .await?;
        Ok(answer.map(|stats| Usage {
            cpu_nanos: stats.cpu_nanos,
            memory_bytes: stats.memory_bytes,
            disk_bytes: stats.disk_bytes,
        }))
    }

    async fn exec(
        &mut self,
        unit: String,
        argv: Vec<String>,
        timeout_ms: u64,
    ) -> wasmtime::Result<Result<ExecEnd, Error>> {
        let key = match self.acting_as(&unit) {
            Ok((_, key)) => key,
            Err(error) => return Ok(Err(error)),
        };
        let timeout = Duration::from_millis(timeout_ms).min(MOST_EXEC);
        let answer = self
            .ask("container.exec", move |host| async move {
                host.exec(key, argv, timeout).await
            })
            .await?;
        Ok(answer.map(|mut end| {
            end.stdout.truncate(MOST_EXEC_BYTES);
            end.stderr.truncate(MOST_EXEC_BYTES);
            ExecEnd {
                code: end.code,
                stdout: end.stdout,
                stderr: end.stderr,
            }
        }))
    }
}

impl CallState {
    /// The machine's containers, or why there are none.
    fn containers(&self) -> Result<&Containers, Error> {
        self.host.container.as_ref().ok_or_else(|| {
            Error::Unavailable(
                "the daemon is not in container mode: start it with --enable-container-mode and \
                 --cri-socket"
                    .to_owned(),
            )
        })
    }

    /// Whether the operator allows a sandbox.
    fn permitted(&self, request: &container::SandboxRequest) -> Result<(), Error> {
        let allowed = self.containers()?;
        match request.network {
            Network::Host if !allowed.host_network => Err(Error::Denied(
                "containers may not use the machine's own network: `host-network = true` under \
                 [container] allows it"
                    .to_owned(),
            )),
            Network::None if !allowed.loopback => Err(Error::Denied(
                "there is no network with a loopback alone: `loopback-handler` under [container] \
                 names the container runtime's handler for that"
                    .to_owned(),
            )),
            _ if request.privileged && !allowed.privileged => Err(not_privileged()),
            Network::Host | Network::None | Network::Pod => Ok(()),
        }
    }

    /// Asks the container runtime.
    async fn ask<T: Send + 'static, F>(
        &mut self,
        function: &'static str,
        work: impl FnOnce(Arc<dyn ContainerHost>) -> F,
    ) -> wasmtime::Result<Result<T, Error>>
    where
        F: Future<Output = Result<T, ContainerError>> + Send + 'static,
    {
        let host = match self.containers() {
            Ok(containers) => Arc::clone(&containers.host),
            Err(error) => return Ok(Err(error)),
        };
        let answer = self.outlast(function, work(host)).await?;
        Ok(answer.map_err(|error| convert::container_error(&error)))
    }

    fn acting(&self) -> Result<StrategyTask, Error> {
        let given = self.scope.attempt().cloned();
        given.ok_or_else(|| {
            Error::Denied("containers are had in start and on-event only".to_owned())
        })
    }

    fn acting_as(&self, unit: &str) -> Result<(StrategyTask, UnitKey), Error> {
        let given = self.acting()?;
        let key = self
            .unit_key(unit)
            .map_err(|why| Error::Other(why.to_string()))?;
        Ok((given, key))
    }

    /// The plugin's request with everything that the host decides.
    fn complete_container(
        &self,
        given: &StrategyTask,
        unit: UnitKey,
        request: container::ContainerRequest,
    ) -> Result<ContainerRequest, Error> {
        let allowed = self.containers()?;
        let asks_for_more = request.privileged || !request.add_capabilities.is_empty();
        if asks_for_more && !allowed.privileged {
            return Err(not_privileged());
        }
        if request.mounts.len() > MOST_MOUNTS {
            return Err(Error::Refused(format!(
                "a container has at most {MOST_MOUNTS} mounts"
            )));
        }
        let mounts = request
            .mounts
            .into_iter()
            .map(|mount| {
                Ok(Mount {
                    source: match mount.source {
                        Source::EmptyDir(name) => MountSource::EmptyDir(name),
                        Source::HostPath(path) => {
                            MountSource::HostPath(allowed_path(allowed, path)?)
                        }
                    },
                    path: mount.path,
                    read_only: mount.read_only,
                })
            })
            .collect::<Result<_, Error>>()?;
        let mut env = task_env(given);
        env.extend(request.env.into_iter().map(|own| (own.name, own.value)));
        let task = &given.task;
        let confinement = confined(&task.spec.confinement, &request.identity, request.resources);
        Ok(ContainerRequest {
            unit,
            directory: (self.host.task_directory)(&task.key),
            image: request.image,
            command: request.command,
            args: request.args,
            env,
            working_dir: request.working_dir,
            mounts,
            confinement: Confinement {
                no_new_privileges: task.spec.confinement.no_new_privileges
                    || request.no_new_privileges,
                ..confinement
            },
            username: looked_up(request.identity),
            read_only_root: request.read_only_root,
            capabilities: Capabilities {
                add: request.add_capabilities,
                drop: request.drop_capabilities,
            },
            privileged: request.privileged,
        })
    }
}

fn not_privileged() -> Error {
    Error::Denied(
        "containers may not have further privileges: `privileged = true` under [container] allows \
         it"
        .to_owned(),
    )
}

/// What the task restricts, and under it what its container says of itself.
fn confined(
    task: &Confinement,
    identity: &container::Identity,
    resources: container::Resources,
) -> Confinement {
    let mut confinement = task.clone();
    let least = |task: Option<u64>, container: Option<u64>| match (task, container) {
        (Some(task), Some(container)) => Some(task.min(container)),
        (task, container) => task.or(container),
    };
    confinement.memory_bytes = least(task.memory_bytes, resources.memory_bytes);
    confinement.cpu_millis = least(
        task.cpu_millis.map(u64::from),
        resources.cpu_millis.map(u64::from),
    )
    .and_then(|millis| u32::try_from(millis).ok());
    if confinement.user.is_none() {
        confinement.user = numbered(identity);
    }
    confinement
}

/// A user that needs nothing of the image: both of its numbers are known. A group that is not
/// named is the image's choice, unless there are further ones: then it is the one that a runtime
/// takes for a user whom the image does not know.
fn numbered(identity: &container::Identity) -> Option<User> {
    let gid = match identity.gid {
        None if identity.groups.is_empty() => return None,
        gid => gid.unwrap_or(0),
    };
    Some(User {
        uid: identity.uid?,
        gid,
        groups: identity.groups.clone(),
    })
}

/// Whom the runtime looks up in the image: a name, or a number without a group.
fn looked_up(identity: container::Identity) -> Option<String> {
    identity
        .username
        .or_else(|| identity.uid.map(|uid| uid.to_string()))
}

/// A path of the host, if it is one that the operator lists, or a folder of the daemon's. Only the
/// listed paths themselves: what lies below them belongs to tasks, which could put a link there.
fn allowed_path(allowed: &Containers, path: String) -> Result<PathBuf, Error> {
    let path = PathBuf::from(path);
    let is_folder = |root: &PathBuf| {
        let name = path.strip_prefix(root).ok().map(|rest| rest.components());
        name.is_some_and(|mut parts| {
            matches!(parts.next(), Some(Component::Normal(_))) && parts.next().is_none()
        })
    };
    if allowed.host_paths.contains(&path) || allowed.host_folders.as_ref().is_some_and(is_folder) {
        return Ok(path);
    }
    Err(Error::Denied(convert::text(format!(
        "the path {} of the host may not be mounted: the daemon's --container-host-paths \
         (`host-paths` under [container]) lists those that may",
        path.display()
    ))))
}

fn state(state: State) -> ContainerState {
    match state {
        State::Created => ContainerState::Created,
        State::Running { since } => {
            ContainerState::Running(u64::try_from(since.as_millis()).unwrap_or(0))
        }
        State::Ended(end) => ContainerState::Ended(convert::end(UnitEnded {
            status: end.status,
            out_of_memory: end.out_of_memory,
        })),
    }
}
