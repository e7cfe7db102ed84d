//! Containers: created once, started once, looked at.

use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use taskwright_capability::container::{
    ContainerRequest, ContainerState, ContainerStats, Mount, MountSource,
};
use taskwright_capability::{ContainerError, Spawned, StopError, UnitState};
use taskwright_model::{Confinement, Enforced, ProcessIdentity, Timestamp, UnitKey};
use tokio::time::Instant;

use crate::confine::{self, CGROUPS, Confined, Machine};
use crate::fault::{self, refused};
use crate::group::{enforce, with_pids_hint};
use crate::host::Inner;
use crate::marks::{self, AttemptKey, SandboxNotes, Texts, carries};
use crate::messages as m;
use crate::output::book::Book;
use crate::output::follow::{Follower, log_name};
use crate::output::notice::Watch;
use crate::output::pump::{Pump, Source};
use crate::remove::path_of_attempt;
use crate::rpc::RpcError;
use crate::sandbox::{TAKEN_LOOKS, TAKEN_PAUSE, namespaces, pid_of, seccomp};
use crate::track::{Inserted, Unit, attempt_of};

/// What runtimes say of a container whose program could not be started.
const NEVER_STARTED: &str = "StartError";
/// Looks at a sandbox that has probably ended.
const LOST_LOOKS: u32 = 20;
const LOST_PAUSE: Duration = Duration::from_millis(100);
/// Looks at a start that somebody else asked for, and the first pause before one; each further
/// pause is longer by as much. Together that is half a minute.
const UNDER_WAY_LOOKS: u32 = 50;
const UNDER_WAY_PAUSE: Duration = Duration::from_millis(25);
/// Calls at a time for one list.
const LOOKS_AT_A_TIME: usize = 8;
/// The longest name of an empty directory.
const MOST_DIR_NAME_BYTES: usize = 63;

/// What of `/proc` and `/sys` a container does not see, and what it sees read-only: the usual
/// ones of container runtimes, which CRI leaves to its clients.
const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/firmware",
];
const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

impl Inner {
    /// See `ContainerHost::create`.
    pub(crate) async fn create(
        &self,
        request: ContainerRequest,
    ) -> Result<Enforced, ContainerError> {
        let attempt = attempt_of(&request.unit);
        let machine = Machine::look(Path::new(CGROUPS), &self.cgroup_of(attempt));
        let confined = confine::confine(&request.confinement, &machine)?;
        if !request.directory.is_absolute() {
            return Err(refused("the directory for its output is no absolute path"));
        }
        for _ in 0..TAKEN_LOOKS {
            if let Some(found) = self.find(&request.unit).await? {
                if found.state == m::ContainerState::Exited as i32
                    && self.was_cut_off(&found.id).await?
                {
                    self.undo_create(&found.id).await;
                    continue;
                }
                if found.state != m::ContainerState::Created as i32 {
                    return Ok(confined.enforced);
                }
                return enforce(&request.confinement, &machine, &confined, &found.id);
            }
            let sandbox = self.sandbox_for(attempt).await?;
            let config = self.container_config(&request, &confined, &sandbox)?;
            let created = self.runtime.call(m::CreateContainerRequest {
                pod_sandbox_id: sandbox.id,
                config: Some(config),
                sandbox_config: Some(sandbox.config),
            });
            match created.await {
                Ok(answer) => {
                    let id = answer.container_id;
                    let enforced = enforce(&request.confinement, &machine, &confined, &id);
                    if enforced.is_err() {
                        self.undo_create(&id).await;
                    }
                    return enforced;
                }
                Err(error) if error.is_name_taken() => tokio::time::sleep(TAKEN_PAUSE).await,
                Err(error) => {
                    let user = request.username.as_deref();
                    return Err(fault::making(error, &request.image, user));
                }
            }
        }
        Err(ContainerError::Unavailable {
            detail: "the name of the container is taken, and the container is not there".to_owned(),
        })
    }

    /// Whether the start of a container was given up before its program began.
    async fn was_cut_off(&self, container: &str) -> Result<bool, ContainerError> {
        let status = match self.status(container).await {
            Err(error) if error.is_not_found() => return Ok(false),
            other => other.map_err(fault::general)?,
        };
        let why = fault::starting(&status.message);
        Ok(never_started(&status) && matches!(why, ContainerError::NeverBegun { .. }))
    }

    async fn undo_create(&self, container: &str) {
        let request = m::RemoveContainerRequest {
            container_id: container.to_owned(),
        };
        if let Err(error) = self.runtime.call(request).await {
            tracing::warn!(
                container,
                error = error.words(),
                "a container that was made in vain is not removed yet"
            );
        }
    }

    /// The sandbox of an attempt, as its containers must be told of it.
    async fn sandbox_for(&self, attempt: AttemptKey) -> Result<SandboxFound, ContainerError> {
        let found = self.sandboxes(self.marks.attempt(attempt)).await?;
        let Some(found) = found.into_iter().next() else {
            let detail = format!("attempt {} of task {} has no sandbox", attempt.1, attempt.0);
            return Err(ContainerError::NotRunning { detail });
        };
        if !marks::is_ready(found.state) {
            let detail = format!("sandbox {} has ended", found.id);
            return Err(ContainerError::SandboxLost { detail });
        }
        let Some(notes) = SandboxNotes::read(&found.annotations) else {
            return Err(refused(
                "somebody else changed what its sandbox says of itself",
            ));
        };
        let place = path_of_attempt(&self.config.state_dir, attempt);
        // Its host name is left out: runtimes take it from the sandbox.
        let config = self.sandbox_config(attempt, &notes, String::new(), &place);
        Ok(SandboxFound {
            id: found.id,
            notes,
            config,
        })
    }

    fn container_config(
        &self,
        request: &ContainerRequest,
        confined: &Confined,
        sandbox: &SandboxFound,
    ) -> Result<m::ContainerConfig, ContainerError> {
        if request.privileged && !sandbox.notes.privileged {
            return Err(refused("a privileged container needs a privileged sandbox"));
        }
        let place = path_of_attempt(&self.config.state_dir, attempt_of(&request.unit));
        let mounts = request.mounts.iter();
        let mounts = mounts.map(|mount| mounted(mount, &place, &request.confinement));
        let envs = request.env.iter().map(|(name, value)| m::KeyValue {
            key: name.clone(),
            value: value.clone(),
        });
        Ok(m::ContainerConfig {
            metadata: Some(m::ContainerMetadata {
                name: request.unit.unit.to_string(),
                attempt: request.unit.attempt.0,
            }),
            image: Some(m::ImageSpec {
                image: request.image.clone(),
            }),
            command: request.command.clone(),
            args: request.args.clone(),
            working_dir: request.working_dir.clone().unwrap_or_default(),
            envs: envs.collect(),
            mounts: mounts.collect::<Result<_, _>>()?,
            labels: self.marks.unit(&request.unit),
            annotations: marks::container_annotations(&request.directory),
            log_path: log_name(&request.unit.unit),
            linux: Some(m::LinuxContainerConfig {
                resources: Some(confined.resources.clone()),
                security_context: Some(security(request, &sandbox.notes)),
            }),
        })
    }

    /// See `ContainerHost::start`.
    pub(crate) async fn start(
        self: Arc<Self>,
        key: UnitKey,
    ) -> Result<ContainerState, ContainerError> {
        let asked = Instant::now();
        let Some(found) = self.find(&key).await? else {
            let detail = format!("there is no container {key}");
            return Err(ContainerError::NotRunning { detail });
        };
        let status = self.status(&found.id).await.map_err(fault::general)?;
        if status.state != m::ContainerState::Created as i32 {
            return self.state_of(&key, &found, &status, asked).await;
        }
        let taken_in = self.take_in(&key, &found, asked, Beginning::New).await;
        let Some(unit) = taken_in.map_err(|error| ContainerError::Unavailable {
            detail: format!("its output cannot be prepared: {error}"),
        })?
        else {
            let detail = format!("{key} is being removed");
            return Err(ContainerError::NotRunning { detail });
        };
        let request = m::StartContainerRequest {
            container_id: found.id.clone(),
        };
        // The runtime removes the group of a container that it cannot start.
        let limit = self.own_limit(&key, &found.id).map(|(_, limit)| limit);
        let started = self.start_once(request).await;
        self.look.notify_one();
        let status = self.status(&found.id).await;
        match (started, &status) {
            (Ok(_), _) => {}
            (Err(error), Ok(status)) if error.is_started_before() && !never_started(status) => {}
            (Err(error), _) => return self.not_started(unit, status, error, limit).await,
        }
        let status = status.map_err(fault::general)?;
        if let Err(error) = self.check_own_group(&key, &found.id).await {
            self.kill_now(&found.id).await;
            return Err(error);
        }
        self.state_of(&key, &found, &status, asked).await
    }

    /// Has a container started. An earlier start, whose caller is gone, may still be under way:
    /// how that ends is waited for.
    async fn start_once(&self, request: m::StartContainerRequest) -> Result<m::Nothing, RpcError> {
        let mut started = self.runtime.call(request.clone()).await;
        for look in 1..=UNDER_WAY_LOOKS {
            match &started {
                Err(error) if error.is_being_started() => {
                    tokio::time::sleep(UNDER_WAY_PAUSE * look).await;
                    started = self.runtime.call(request.clone()).await;
                }
                _ => break,
            }
        }
        started
    }

    /// Why a container was not started; what is known of it is forgotten unless it may yet run.
    async fn not_started(
        &self,
        unit: Arc<Unit>,
        status: Result<m::ContainerStatus, RpcError>,
        error: RpcError,
        limit: Option<String>,
    ) -> Result<ContainerState, ContainerError> {
        let never = match &status {
            Ok(status) => {
                status.state == m::ContainerState::Created as i32 || never_started(status)
            }
            Err(error) => error.is_not_found(),
        };
        if never {
            self.tracker.forget(&unit);
        }
        let RpcError::Said { words, .. } = error else {
            return Err(fault::general(error));
        };
        let words = match status {
            // Of an earlier start, too, this says why.
            Ok(status) if never_started(&status) => status.message,
            _ => words,
        };
        match fault::starting(&words) {
            ContainerError::Refused { detail } => {
                if self.is_sandbox_lost(attempt_of(&unit.key), &words).await {
                    return Err(ContainerError::SandboxLost { detail });
                }
                let detail = with_pids_hint(detail, limit);
                Err(ContainerError::Refused { detail })
            }
            other => Err(other),
        }
    }

    /// Whether a container was not started because its sandbox is gone. What runtimes say then is
    /// many things, and they may say it before they know of the sandbox's end.
    async fn is_sandbox_lost(&self, attempt: AttemptKey, words: &str) -> bool {
        let about_it = ["start shim", "ttrpc", "/ns/"];
        let looks = match about_it.iter().any(|text| words.contains(text)) {
            true => LOST_LOOKS,
            false => 1,
        };
        for look in 0..looks {
            if look > 0 {
                tokio::time::sleep(LOST_PAUSE).await;
            }
            if let Err(ContainerError::SandboxLost { .. } | ContainerError::NotRunning { .. }) =
                self.sandbox_for(attempt).await
            {
                return true;
            }
        }
        false
    }

    /// See `ContainerHost::inspect`.
    pub(crate) async fn inspect(
        self: Arc<Self>,
        key: UnitKey,
    ) -> Result<Option<ContainerState>, ContainerError> {
        let asked = Instant::now();
        let Some(found) = self.find(&key).await? else {
            return Ok(None);
        };
        let status = match self.status(&found.id).await {
            Err(error) if error.is_not_found() => return Ok(None),
            other => other.map_err(fault::general)?,
        };
        if status.state == m::ContainerState::Created as i32 || never_started(&status) {
            return Ok(Some(ContainerState::Created));
        }
        self.state_of(&key, &found, &status, asked).await.map(Some)
    }

    /// The state of a container that was started.
    async fn state_of(
        self: &Arc<Self>,
        key: &UnitKey,
        found: &m::Container,
        status: &m::ContainerStatus,
        asked: Instant,
    ) -> Result<ContainerState, ContainerError> {
        if never_started(status) {
            return Err(fault::starting(&status.message));
        }
        if status.state != m::ContainerState::Exited as i32 {
            let since = at(status.started_at).unwrap_or_else(self.clock);
            return Ok(ContainerState::Running { since });
        }
        let end = self.end_of(key, found, status, asked).await;
        end.map(ContainerState::Ended)
            .map_err(|detail| ContainerError::Unavailable { detail })
    }

    /// See `ContainerHost::list`.
    pub(crate) async fn list(self: Arc<Self>) -> Result<Vec<(UnitKey, UnitState)>, StopError> {
        let asked = Instant::now();
        let found = self.containers(self.marks.all()).await;
        let found = found.map_err(|error| fault::order(&error))?;
        let looks = found.into_iter().map(|found| {
            let inner = self.clone();
            async move { inner.list_one(found, asked).await }
        });
        let looks = futures::stream::iter(looks).buffer_unordered(LOOKS_AT_A_TIME);
        let looked: Vec<_> = looks.collect().await;
        let listed = looked.into_iter().filter_map(Result::transpose);
        listed.collect()
    }

    async fn list_one(
        self: Arc<Self>,
        found: m::Container,
        asked: Instant,
    ) -> Result<Option<(UnitKey, UnitState)>, StopError> {
        let Some(key) = self.marks.unit_of(&found.labels) else {
            return Ok(None);
        };
        let answer = match self.status_at_length(&found.id).await {
            Err(error) if error.is_not_found() => return Ok(None),
            other => other.map_err(|error| fault::order(&error))?,
        };
        let status = answer.status.unwrap_or_default();
        if status.state == m::ContainerState::Created as i32 || never_started(&status) {
            return Ok(None);
        }
        if status.state == m::ContainerState::Exited as i32 {
            let end = self.end_of(&key, &found, &status, asked).await;
            let end = end.map_err(|detail| StopError::Unavailable { detail })?;
            return Ok(Some((key, UnitState::Ended(end))));
        }
        let process = identity(pid_of(&answer.info).unwrap_or(0));
        let running = UnitState::Running(Spawned {
            process,
            started_at: at(status.started_at).unwrap_or_else(self.clock),
            exit: None,
            enforced: Enforced::default(),
        });
        Ok(Some((key, running)))
    }

    /// See `ContainerHost::stats`.
    pub(crate) async fn stats(&self, key: UnitKey) -> Result<ContainerStats, ContainerError> {
        let found = self.running(&key).await?;
        let request = m::ContainerStatsRequest {
            container_id: found.id,
        };
        let answer = self.runtime.look(request).await.map_err(fault::general)?;
        let stats = answer.stats.unwrap_or_default();
        let value = |value: Option<m::UInt64Value>| value.map(|value| value.value);
        Ok(ContainerStats {
            cpu_nanos: value(stats.cpu.and_then(|cpu| cpu.usage_core_nano_seconds)),
            memory_bytes: value(stats.memory.and_then(|memory| memory.working_set_bytes)),
            disk_bytes: value(stats.writable_layer.and_then(|layer| layer.used_bytes)),
        })
    }

    /// A container that runs, for what needs one.
    pub(crate) async fn running(&self, key: &UnitKey) -> Result<m::Container, ContainerError> {
        match self.find(key).await? {
            Some(found) if found.state == m::ContainerState::Running as i32 => Ok(found),
            Some(_) => Err(ContainerError::NotRunning {
                detail: format!("container {key} does not run"),
            }),
            None => Err(ContainerError::NotRunning {
                detail: format!("there is no container {key}"),
            }),
        }
    }

    /// The container of a unit, by its labels.
    pub(crate) async fn find(&self, key: &UnitKey) -> Result<Option<m::Container>, ContainerError> {
        let found = self.containers(self.marks.unit(key)).await;
        let found = found.map_err(fault::general)?;
        Ok(found.into_iter().next())
    }

    /// Our containers with these labels.
    pub(crate) async fn containers(&self, labels: Texts) -> Result<Vec<m::Container>, RpcError> {
        let filter = m::ContainerFilter {
            label_selector: labels.clone(),
        };
        let request = m::ListContainersRequest {
            filter: Some(filter),
        };
        let mut found = self.runtime.look(request).await?.containers;
        found.retain(|container| {
            carries(&container.labels, &labels) && self.marks.unit_of(&container.labels).is_some()
        });
        Ok(found)
    }

    pub(crate) async fn status(&self, container: &str) -> Result<m::ContainerStatus, RpcError> {
        let request = m::ContainerStatusRequest {
            container_id: container.to_owned(),
            verbose: false,
        };
        Ok(self.runtime.look(request).await?.status.unwrap_or_default())
    }

    pub(crate) async fn status_at_length(
        &self,
        container: &str,
    ) -> Result<m::ContainerStatusResponse, RpcError> {
        let request = m::ContainerStatusRequest {
            container_id: container.to_owned(),
            verbose: true,
        };
        self.runtime.look(request).await
    }

    /// Takes in a container that is to be started, or was: from then on its log is followed.
    /// `None` when its attempt is being removed.
    ///
    /// # Errors
    /// When its log or its output cannot be prepared.
    pub(crate) async fn take_in(
        &self,
        key: &UnitKey,
        found: &m::Container,
        asked: Instant,
        beginning: Beginning,
    ) -> io::Result<Option<Arc<Unit>>> {
        match self.tracker.get(key) {
            Some(known) if known.container == found.id => return Ok(Some(known)),
            // Somebody removed the first, and it was made again.
            Some(known) => self.tracker.forget(&known),
            None => {}
        }
        let attempt = attempt_of(key);
        let place = path_of_attempt(&self.config.state_dir, attempt);
        let directory = marks::directory_of(&found.annotations)
            .ok_or_else(|| io::Error::other("its container does not say where its output goes"))?;
        let known_book = self.tracker.book(attempt, None);
        let (sink, unit) = (self.config.output.clone(), key.unit.clone());
        let prepared = tokio::task::spawn_blocking(move || {
            let book = match known_book {
                Some(book) => book,
                None => Book::open(&place, &directory, sink)?,
            };
            io::Result::Ok((book, place))
        });
        let (book, place) = prepared.await.map_err(io::Error::other)??;
        let Some(book) = self.tracker.book(attempt, Some(book)) else {
            return Ok(None);
        };
        let follower = Follower::new(&place, unit, book);
        let (follower, watch) = match beginning {
            Beginning::Found => (follower, None),
            Beginning::New => {
                let prepared =
                    tokio::task::spawn_blocking(move || follower.prepare().map(|()| follower));
                let follower = prepared.await.map_err(io::Error::other)??;
                let watch = self.watch_log(&follower, &found.id);
                (follower, watch)
            }
        };
        let (pump, work) = Pump::new(Source {
            follower,
            container: found.id.clone(),
            runtime: self.runtime.clone(),
            notices: self.notices.clone(),
            watch,
        });
        let unit = Unit::new(key.clone(), found.id.clone(), pump);
        let taken_in = self.tracker.insert(unit, asked);
        Ok(taken_in.map(|(unit, inserted)| {
            if inserted == Inserted::Now {
                unit.set_pump_task(self.spawn_abortable(work));
            }
            unit
        }))
    }

    fn watch_log(&self, follower: &Follower, container: &str) -> Option<Watch> {
        self.notices.watch(&follower.path(), container)
    }

    async fn kill_now(&self, container: &str) {
        let request = m::StopContainerRequest {
            container_id: container.to_owned(),
            timeout: 0,
        };
        if let Err(error) = self.runtime.call(request).await {
            tracing::warn!(
                container,
                error = error.words(),
                "a container could not be killed"
            );
        }
    }
}

struct SandboxFound {
    id: String,
    notes: SandboxNotes,
    config: m::PodSandboxConfig,
}

/// Whether a container is to be started now, or was before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beginning {
    New,
    Found,
}

/// Whether a container is one whose program could not be started.
pub(crate) fn never_started(status: &m::ContainerStatus) -> bool {
    status.state == m::ContainerState::Exited as i32 && status.reason == NEVER_STARTED
}

/// The runtime's nanoseconds.
pub(crate) fn at(nanos: i64) -> Option<Timestamp> {
    (nanos > 0).then(|| Timestamp::from_millis(nanos / 1_000_000))
}

fn security(
    request: &ContainerRequest,
    sandbox: &SandboxNotes,
) -> m::LinuxContainerSecurityContext {
    let confinement = &request.confinement;
    let user = confinement.user.as_ref();
    let number = |value: u32| m::Int64Value {
        value: i64::from(value),
    };
    let usual = |paths: &[&str]| -> Vec<String> {
        let paths = paths.iter().filter(|_| !request.privileged);
        paths.map(|path| (*path).to_owned()).collect()
    };
    let mut readonly_paths = usual(&READ_ONLY);
    readonly_paths.extend(confine::read_only_paths(&confinement.read_only_paths));
    m::LinuxContainerSecurityContext {
        capabilities: Some(m::Capability {
            add_capabilities: request.capabilities.add.clone(),
            drop_capabilities: request.capabilities.drop.clone(),
        }),
        privileged: request.privileged,
        namespace_options: Some(namespaces(sandbox)),
        run_as_user: user.map(|user| number(user.uid)),
        run_as_group: user.map(|user| number(user.gid)),
        supplemental_groups: user
            .map(|user| user.groups.iter().map(|group| i64::from(*group)).collect())
            .unwrap_or_default(),
        run_as_username: match user {
            Some(_) => String::new(),
            None => request.username.clone().unwrap_or_default(),
        },
        readonly_rootfs: request.read_only_root,
        no_new_privs: confinement.no_new_privileges,
        masked_paths: usual(&MASKED),
        readonly_paths,
        seccomp: seccomp(request.privileged),
    }
}

fn mounted(
    mount: &Mount,
    place: &Path,
    confinement: &Confinement,
) -> Result<m::Mount, ContainerError> {
    if !Path::new(&mount.path).is_absolute() {
        return Err(refused(&format!(
            "mount path {:?} is not absolute",
            mount.path
        )));
    }
    let host_path = match &mount.source {
        MountSource::HostPath(path) => {
            // Runtimes make what is missing: a typing error would become a directory.
            if !path.is_absolute() || !path.exists() {
                let path = path.display();
                return Err(refused(&format!("{path} is not there to be mounted")));
            }
            path.clone()
        }
        MountSource::EmptyDir(name) => empty_dir(place, name)?,
    };
    let below = confine::is_at_or_below(&mount.path, &confinement.read_only_paths);
    Ok(m::Mount {
        container_path: mount.path.clone(),
        host_path: host_path.to_string_lossy().into_owned(),
        readonly: mount.read_only || below,
    })
}

/// The directory of this name, made if missing. Whatever user a container runs as may write: the
/// directory above is the daemon's alone.
fn empty_dir(place: &Path, name: &str) -> Result<PathBuf, ContainerError> {
    let fits = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    if name.is_empty()
        || name.len() > MOST_DIR_NAME_BYTES
        || name.starts_with('.')
        || !name.chars().all(fits)
    {
        return Err(refused(&format!(
            "{name:?} cannot be the name of an empty directory: up to {MOST_DIR_NAME_BYTES} \
             letters, digits and - _ . are allowed, beginning with no dot"
        )));
    }
    let above = place.join("dirs");
    let path = above.join(name);
    let make = || -> io::Result<()> {
        let mut builder = std::fs::DirBuilder::new();
        builder.mode(0o700).recursive(true).create(&above)?;
        match std::fs::create_dir(&path) {
            Ok(()) => std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error),
        }
    };
    make().map_err(|error| ContainerError::Unavailable {
        detail: format!("{} cannot be made: {error}", path.display()),
    })?;
    Ok(path)
}

/// A process of this machine for ever; all zeros where it cannot be seen from here.
fn identity(pid: u32) -> ProcessIdentity {
    let ticks = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in parentheses may hold anything: proc_pid_stat(5), field 22.
        let after_name = stat.rsplit_once(')')?.1;
        after_name.split_whitespace().nth(19)?.parse().ok()
    };
    match ticks() {
        Some(start_ticks) => ProcessIdentity { pid, start_ticks },
        None => ProcessIdentity {
            pid: 0,
            start_ticks: 0,
        },
    }
}

/// How long [`Inner::end_of`] waits for output to be whole.
pub(crate) const WHOLE_OUTPUT_WITHIN: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    #[test]
    fn an_empty_directory_stays_below_its_attempt() {
        let place = tempfile::tempdir().unwrap();
        for name in ["", "..", ".x", "a/b", "a\0"] {
            assert!(empty_dir(place.path(), name).is_err(), "{name:?}");
        }
        let made = empty_dir(place.path(), "work").unwrap();
        assert_eq!(empty_dir(place.path(), "work").unwrap(), made);
        assert_eq!(made.metadata().unwrap().permissions().mode() & 0o777, 0o777);
    }

    #[test]
    fn a_host_path_must_be_there() {
        let mount = Mount {
            source: MountSource::HostPath("/no/such/path".into()),
            path: "/in".to_owned(),
            read_only: false,
        };
        let place = Path::new("/nowhere");
        let answer = mounted(&mount, place, &Confinement::default());
        assert!(matches!(answer, Err(ContainerError::Refused { .. })));
    }
}
