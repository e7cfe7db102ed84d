//! Intent, process, record: in this order, so that no crash between two of them starts a unit
//! twice or loses one.
//!
//! A plain child executes its program while we are suspended. One that enters namespaces or
//! changes its user is somebody else's to stop, and goes on its way alone: see `under_way`.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use taskwright_capability::{SpawnError, SpawnRequest};
use taskwright_model::{AttemptNumber, ProcessIdentity, Restriction, UnitKey};
use taskwright_native::events::Interest;
use taskwright_native::scan::Seed;
use taskwright_native::spawn::{self, Begun, Command};
use taskwright_native::tree::{Entry, GroupNumber};
use taskwright_native::{Child, Isolation, Newborn, SpawnFault, exit, files, process};

use super::command::{Prepared, explain};
use super::confining::{Confined, is_wanted, not_enforceable};
use super::inside::Target;
use super::{Supervisor, UNIT_BIT, keeping, now};
use crate::output::{OutputFile as _, OutputStream};
use crate::record::{Intent, Record};
use crate::unit::{Main, Parent, StartId, Timer, Unit, UnitId, mark};

const KILL: i32 = 9;
const FIRST: AttemptNumber = AttemptNumber(1);
/// How long the loop stands still for a killed newborn.
const KILLED_WITHIN: Duration = Duration::from_millis(100);

/// A unit that was asked for.
pub(super) enum Started {
    /// It is new.
    Now(UnitId),
    /// It was there.
    Before(UnitId),
    /// Its program does not run yet; what becomes of it is seen later.
    OnItsWay(StartId),
}

/// What a start is tried with, as often as whoever asked takes less.
pub(super) struct Launch {
    pub(super) request: SpawnRequest,
    pub(super) target: Option<Target>,
    /// When its program must run.
    pub(super) until: Instant,
    prepared: Prepared,
    files: [OwnedFd; 2],
    /// What cannot be enforced here, and why.
    without: Vec<(Restriction, String)>,
    /// A descriptor for the look at the new process, which must not fail once it runs.
    reserve: File,
}

impl Launch {
    /// The same without what could not be enforced, if whoever asked takes less.
    pub(super) fn with_less(mut self, error: SpawnError) -> Result<Self, SpawnError> {
        match error {
            SpawnError::NotEnforceable {
                restriction,
                detail,
            } if self.request.confinement.best_effort
                && self.without.iter().all(|(it, _)| *it != restriction) =>
            {
                self.without.push((restriction, detail));
                if restriction == Restriction::User {
                    self.target = pin(&self.request, &self.without)?;
                }
                Ok(self)
            }
            error => Err(error),
        }
    }
}

/// One try: what is on record of it, and what was made for it.
pub(super) struct Tried {
    pub(super) intent: Intent,
    pub(super) confined: Confined,
}

/// What became of one try.
enum Launched {
    Executing(Intent, Child),
    OnItsWay(Box<Tried>, Newborn),
}

/// Whose a directory is that stands at a task's place.
#[derive(Clone, Copy)]
enum Whose {
    /// An earlier unit of the task made it.
    Tasks,
    /// Nothing of the task was ever started, so it is not the task's.
    Strangers,
}

impl Supervisor {
    /// Starts a unit, or finds it.
    pub(super) fn start(&mut self, request: SpawnRequest) -> Result<Started, SpawnError> {
        if let Some(id) = self.units.find(&request.unit) {
            return Ok(Started::Before(id));
        }
        if let Some(id) = self.under_way.find(&request.unit) {
            return Ok(Started::OnItsWay(id));
        }
        let until = Instant::now() + self.options.start_patience;
        let target = request.inside.as_ref().map(|inside| inside.target);
        if needs_isolation(&request) && !self.under_way.has_room(target) {
            return self.wait_for_others(request, until).map(Started::OnItsWay);
        }
        self.start_at_once(request, until)
    }

    /// Starts a unit that is not there.
    pub(super) fn start_at_once(
        &mut self,
        request: SpawnRequest,
        until: Instant,
    ) -> Result<Started, SpawnError> {
        let target = pin(&request, &[])?;
        let prepared = Prepared::new(&request, target.as_ref())?;
        let whose = self.whose_directory(&request);
        let files = self.open_output(&request.directory, whose)?;
        let reserve = self.reserve()?;
        self.try_launch(Launch {
            request,
            target,
            until,
            prepared,
            files,
            without: Vec::new(),
            reserve,
        })
    }

    /// Tries, and again with less.
    pub(super) fn try_launch(&mut self, mut launch: Launch) -> Result<Started, SpawnError> {
        loop {
            match self.launch(&launch) {
                Ok(Launched::Executing(intent, child)) => {
                    return self.executing(launch, intent, child).map(Started::Now);
                }
                Ok(Launched::OnItsWay(tried, newborn)) => {
                    return self.keep(launch, *tried, newborn).map(Started::OnItsWay);
                }
                Err(error) => launch = launch.with_less(error)?,
            }
        }
    }

    /// Its program runs.
    pub(super) fn executing(
        &mut self,
        launch: Launch,
        intent: Intent,
        child: Child,
    ) -> Result<UnitId, SpawnError> {
        drop(launch.reserve);
        // Ours and not reaped, so its entry in /proc is there even if it has ended already.
        match process::stat(child.pid) {
            Ok(stat) => Ok(self.watch_child(intent, child, stat.start_ticks)),
            Err(error) => Err(self.refuse_child(&intent, &child, &error)),
        }
    }

    /// Groups, intent, process; whatever fails leaves nothing.
    fn launch(&mut self, launch: &Launch) -> Result<Launched, SpawnError> {
        let (request, target) = (&launch.request, launch.target.as_ref());
        let mut confined = self.confine(request, target, &launch.without)?;
        let group = match self.lease(&confined) {
            Ok(group) => group,
            Err(error) => {
                self.resources.remove(confined.take_groups());
                return Err(error);
            }
        };
        let elsewhere = group.filter(|_| confined.tree_parent.is_some());
        let intent = Intent {
            unit: request.unit.clone(),
            directory: request.directory.as_path().into(),
            lifetime: request.lifetime,
            group,
            bounds: confined.bounds(elsewhere.map(|group| self.trees.path(group))),
        };
        if let Err(error) = self.log.put_now(&Record::Intent(intent.clone())) {
            self.give_back(group);
            self.resources.remove(confined.take_groups());
            let detail = format!("the supervisor's log could not be written: {error}");
            return Err(SpawnError::NoRoom { detail });
        }
        match self.spawn(launch, group, &mut confined) {
            Ok(Begun::Executing(child)) => Ok(Launched::Executing(intent, child)),
            Ok(Begun::OnItsWay(newborn)) => {
                let tried = Box::new(Tried { intent, confined });
                Ok(Launched::OnItsWay(tried, newborn))
            }
            Err(fault) => {
                self.log.put(&Record::NotSpawned(request.unit.clone()));
                self.give_back(group);
                self.resources.remove(confined.take_groups());
                Err(explain(fault, request, &confined, target))
            }
        }
    }

    /// A child that was held was killed, but may not be dead; and what held it may be its group,
    /// which is not used again.
    pub(super) fn kill_held(&mut self, unit: &UnitKey, group: Option<GroupNumber>) {
        let mark = mark(unit);
        let seed = Seed {
            main: (0, 0),
            mark: &mark,
            seen: &[],
        };
        if let Some(number) = group {
            let _dying = self.trees.kill(group, &seed);
            self.trees.distrust(number);
        }
    }

    /// The group of a tree, limited where that is its own.
    fn lease(&mut self, confined: &Confined) -> Result<Option<GroupNumber>, SpawnError> {
        let no_room = |error| SpawnError::NoRoom {
            detail: format!("a cgroup could not be made: {error}"),
        };
        let Some(parent) = &confined.tree_parent else {
            return self.trees.lease().map_err(no_room);
        };
        let group = self.trees.lease_in(parent).map_err(no_room)?;
        for (restriction, amount) in &confined.tree_amounts {
            let limited = self.resources.limit_two(&self.trees.path(group), *amount);
            if let Err(detail) = limited {
                self.give_back(Some(group));
                return Err(not_enforceable(*restriction, detail));
            }
        }
        Ok(Some(group))
    }

    /// Whose the task's directory is, if it is there.
    fn whose_directory(&self, request: &SpawnRequest) -> Whose {
        let unit = &request.unit;
        if unit.attempt == FIRST
            && self.units.of_task(unit.task).is_empty()
            && !self.under_way.has_begun(unit.task)
        {
            Whose::Strangers
        } else {
            Whose::Tasks
        }
    }

    fn reserve(&self) -> Result<File, SpawnError> {
        self.null.try_clone().map_err(|error| SpawnError::NoRoom {
            detail: format!("there is no descriptor left: {error}"),
        })
    }

    /// Without its start time nobody could tell the process from another one: it must not be.
    fn refuse_child(&mut self, intent: &Intent, child: &Child, error: &io::Error) -> SpawnError {
        let mark = mark(&intent.unit);
        let seed = Seed {
            main: (child.pid, 0),
            mark: &mark,
            seen: &[],
        };
        let _has_ended = process::signal(&child.pidfd, KILL);
        // Its group is not used again: what it may have started dies in there.
        let _dying = self.trees.kill(intent.group, &seed);
        let _reaped_with_the_orphans = exit::reap_within(&child.pidfd, KILLED_WITHIN);
        self.log.put(&Record::NotSpawned(intent.unit.clone()));
        let groups = intent.bounds.as_ref().map(|bounds| bounds.groups.clone());
        self.resources.remove(groups.unwrap_or_default());
        SpawnError::NoRoom {
            detail: format!("the new process could not be looked at and was killed: {error}"),
        }
    }

    fn watch_child(&mut self, intent: Intent, child: Child, start_ticks: u64) -> UnitId {
        let process = ProcessIdentity {
            pid: child.pid.cast_unsigned(),
            start_ticks,
        };
        let at = now();
        self.log.put(&Record::Spawned {
            unit: intent.unit.clone(),
            process,
            at,
        });
        self.write_down();
        let main = Main::Running {
            pidfd: child.pidfd,
            parent: Parent::Us,
        };
        let unit = Unit::new(intent, process, at, main);
        let id = self.units.insert(unit);
        if let Some(Main::Running { pidfd, .. }) = self.units.get(id).map(|unit| &unit.main)
            && let Err(error) = self.epoll.add(pidfd, UNIT_BIT | id.0, Interest::Read)
        {
            // SIGCHLD and the look at all children find its end, too.
            super::say(&format!("a process cannot be watched: {error}"));
        }
        if let Some(unit) = self.units.get_mut(id) {
            unit.output.due = true;
        }
        self.set_timer(keeping::PAUSE, Timer::Output(id));
        id
    }

    fn spawn(
        &self,
        launch: &Launch,
        group: Option<GroupNumber>,
        confined: &mut Confined,
    ) -> Result<Begun, SpawnFault> {
        let Launch {
            prepared,
            files: [stdout, stderr],
            ..
        } = launch;
        let target = launch.target.as_ref();
        let (soft, hard) = self.limits.open_files;
        let oom_score = self
            .limits
            .oom_score
            .as_ref()
            .and_then(|text| CString::new(text.as_str()).ok());
        let mut joins = std::mem::take(&mut confined.joins);
        let isolation = Isolation {
            enter: target.map(Target::enter),
            read_only: &confined.read_only,
            user: confined.user.as_ref(),
            capabilities: confined.capabilities,
            patience: launch.until.saturating_duration_since(Instant::now()),
        };
        let isolated = target.is_some() || confined.needs_isolation();
        let command = Command {
            argv: &prepared.argv,
            env: &prepared.env,
            working_dir: &prepared.working_dir,
            stdio: [self.null.as_fd(), stdout.as_fd(), stderr.as_fd()],
            cgroup: None,
            join: &[],
            open_files: Some((self.options.open_files.unwrap_or(soft).min(hard), hard)),
            oom_score: oom_score.as_deref(),
            limits: &confined.limits,
            no_new_privileges: confined.no_new_privileges,
            isolation: isolated.then_some(&isolation),
        };
        let Some(group) = group else {
            let join = &joins;
            return spawn::begin(&Command { join, ..command });
        };
        let lost = |source| SpawnFault::Other {
            step: "open its cgroup",
            source,
        };
        if let Entry::BornInto(dir) = self.trees.entry(group).map_err(lost)? {
            let born_into = Command {
                cgroup: Some(dir.as_fd()),
                join: &joins,
                ..command
            };
            match spawn::begin(&born_into) {
                // An older kernel, or a sandbox: joining by a write may work.
                Err(fault) if spawn::is_cgroup_fault(&fault) => {}
                other => return other,
            }
        }
        // After those that restrict, which a failure names by their place.
        joins.push(self.trees.join_entry(group).map_err(lost)?);
        spawn::begin(&Command {
            join: &joins,
            ..command
        })
    }

    pub(super) fn give_back(&mut self, group: Option<GroupNumber>) {
        if let Some(group) = group {
            self.trees.give_back(group);
        }
    }

    /// The task's directory and its two output files.
    fn open_output(&mut self, directory: &Path, whose: Whose) -> Result<[OwnedFd; 2], SpawnError> {
        self.try_open_output(directory, whose).map_err(|error| {
            let detail = format!("{} cannot hold its output: {error}", directory.display());
            match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    SpawnError::NoRoom { detail }
                }
                _ if error.raw_os_error().is_some_and(is_out_of_files) => {
                    SpawnError::NoRoom { detail }
                }
                _ => SpawnError::Unavailable { detail },
            }
        })
    }

    fn try_open_output(&mut self, directory: &Path, whose: Whose) -> io::Result<[OwnedFd; 2]> {
        let not_absolute = || io::Error::other("it is no absolute path of a directory");
        let (Some(parent), Some(name)) = (directory.parent(), directory.file_name()) else {
            return Err(not_absolute());
        };
        if !directory.is_absolute() {
            return Err(not_absolute());
        }
        let name = CString::new(name.as_bytes())?;
        if self
            .parent_dir
            .as_ref()
            .is_none_or(|(path, _)| path != parent)
        {
            self.parent_dir = Some((parent.to_owned(), open_parent(parent)?));
        }
        let Some((_, parent)) = &self.parent_dir else {
            return Err(not_absolute());
        };
        let made = match whose {
            Whose::Tasks => files::open_or_make_dir(parent, &name),
            Whose::Strangers => make_anew(parent, &name),
        };
        let opened = made.and_then(|dir| {
            let [stdout, stderr] = OutputStream::BOTH.map(OutputStream::file_name);
            Ok([
                files::open_append(&dir, stdout)?,
                files::open_append(&dir, stderr)?,
            ])
        });
        if opened.is_err() {
            // It may have been moved or made anew.
            self.parent_dir = None;
        }
        opened
    }
}

/// A new directory. What has its name already, as the task of a former executor, is set aside
/// beside it: its output is not this task's, and this task's end must not remove it.
fn make_anew(parent: &OwnedFd, name: &CStr) -> io::Result<OwnedFd> {
    match files::make_dir(parent, name) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            // Made for this task by a supervisor that got no further, or by its first failed start.
            let names = OutputStream::BOTH.map(OutputStream::file_name);
            if let Ok(dir) = files::open_existing_dir(parent, name)
                && files::holds_only_empty(&dir, &names)?
            {
                return Ok(dir);
            }
            let mut aside = name.to_bytes().to_vec();
            aside.extend_from_slice(format!(".set-aside-{}", now().as_millis()).as_bytes());
            let aside = CString::new(aside)?;
            if files::rename_if_there(parent, name, &aside)? {
                super::say(&format!("{name:?} was there already; it is {aside:?} now"));
            }
            files::open_or_make_dir(parent, name)
        }
        other => other,
    }
}

fn open_parent(path: &Path) -> io::Result<OwnedFd> {
    match files::open_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(path)?;
            files::open_dir(path)
        }
        other => other,
    }
}

/// EMFILE, ENFILE and ENOMEM.
fn is_out_of_files(errno: i32) -> bool {
    [24, 23, 12].contains(&errno)
}

/// Whether its child may need memory of its own.
fn needs_isolation(request: &SpawnRequest) -> bool {
    let wanted = &request.confinement;
    request.inside.is_some() || wanted.user.is_some() || !wanted.read_only_paths.is_empty()
}

/// Holds on to the target, if there is one, for a unit that is restricted but for `without`.
fn pin(
    request: &SpawnRequest,
    without: &[(Restriction, String)],
) -> Result<Option<Target>, SpawnError> {
    let user = request.confinement.user.as_ref();
    let user = user.filter(|_| is_wanted(Restriction::User, without));
    let inside = request.inside.as_ref();
    inside.map(|inside| Target::pin(inside, user)).transpose()
}
