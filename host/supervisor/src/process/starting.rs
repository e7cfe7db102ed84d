//! Intent, process, record: in this order, so that no crash between two of them starts a unit
//! twice or loses one.

use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::time::Duration;

use taskwright_capability::{SpawnError, SpawnRequest};
use taskwright_model::{AttemptNumber, ProcessIdentity};
use taskwright_native::events::Interest;
use taskwright_native::scan::Seed;
use taskwright_native::spawn::{self, Command};
use taskwright_native::tree::{Entry, GroupNumber};
use taskwright_native::{Child, SpawnFault, exit, files, process};

use super::{Supervisor, UNIT_BIT, keeping, now};
use crate::output::OutputStream;
use crate::record::{Intent, Record};
use crate::unit::{Main, Parent, Timer, Unit, UnitId, mark};

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
        let prepared = Prepared::new(&request)?;
        let whose = self.whose_directory(&request);
        let files = self.open_output(&request.directory, whose)?;
        let reserve = self.reserve()?;
        let group = self.trees.lease().map_err(|error| SpawnError::NoRoom {
            detail: format!("a cgroup could not be made: {error}"),
        })?;
        let intent = Intent {
            unit: request.unit.clone(),
            directory: request.directory.as_path().into(),
            lifetime: request.lifetime,
            group,
        };
        if let Err(error) = self.log.put_now(&Record::Intent(intent.clone())) {
            self.give_back(group);
            let detail = format!("the supervisor's log could not be written: {error}");
            return Err(SpawnError::NoRoom { detail });
        }
        let child = match self.spawn(&prepared, &files, group) {
            Ok(child) => child,
            Err(fault) => {
                self.log.put(&Record::NotSpawned(request.unit.clone()));
                self.give_back(group);
                return Err(explain(fault, &request));
            }
        };
        drop(reserve);
        // Ours and not reaped, so its entry in /proc is there even if it has ended already.
        match process::stat(child.pid) {
            Ok(stat) => Ok(Started::Now(self.watch_child(
                intent,
                child,
                stat.start_ticks,
            ))),
            Err(error) => Err(self.refuse_child(&intent, &child, &error)),
        }
    }

    /// Whose the task's directory is, if it is there.
    fn whose_directory(&self, request: &SpawnRequest) -> Whose {
        let unit = &request.unit;
        if unit.attempt == FIRST && self.units.of_task(unit.task).is_empty() {
            Whose::Strangers
        } else {
            Whose::Tasks
        }
    }

    /// A descriptor for the look at the new process, which must not fail once it runs.
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
        prepared: &Prepared,
        [stdout, stderr]: &[OwnedFd; 2],
        group: Option<GroupNumber>,
    ) -> Result<Child, SpawnFault> {
        let (soft, hard) = self.limits.open_files;
        let oom_score = self
            .limits
            .oom_score
            .as_ref()
            .and_then(|text| CString::new(text.as_str()).ok());
        let mut command = Command {
            argv: &prepared.argv,
            env: &prepared.env,
            working_dir: &prepared.working_dir,
            stdio: [self.null.as_fd(), stdout.as_fd(), stderr.as_fd()],
            cgroup: None,
            join: &[],
            open_files: Some((self.options.open_files.unwrap_or(soft).min(hard), hard)),
            oom_score: oom_score.as_deref(),
        };
        let Some(group) = group else {
            return spawn::spawn(&command);
        };
        let lost = |source| SpawnFault::Other {
            step: "open its cgroup",
            source,
        };
        if let Entry::BornInto(dir) = self.trees.entry(group).map_err(lost)? {
            let born_into = Command {
                cgroup: Some(dir.as_fd()),
                ..command
            };
            match spawn::spawn(&born_into) {
                // An older kernel, or a sandbox: joining by a write may work.
                Err(fault) if spawn::is_cgroup_fault(&fault) => {}
                other => return other,
            }
        }
        let procs = self.trees.join_entry(group).map_err(lost)?;
        command.join = std::slice::from_ref(&procs);
        spawn::spawn(&command)
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

/// The texts of a request as the kernel takes them.
struct Prepared {
    argv: Vec<CString>,
    env: Vec<CString>,
    working_dir: CString,
}

impl Prepared {
    fn new(request: &SpawnRequest) -> Result<Self, SpawnError> {
        let text = |bytes: Vec<u8>| {
            CString::new(bytes).map_err(|_| SpawnError::BadCommand {
                detail: "a text holds a NUL character".to_owned(),
            })
        };
        let argv = request
            .argv
            .iter()
            .map(|argument| text(argument.clone().into_bytes()))
            .collect::<Result<_, _>>()?;
        let env = request
            .env
            .iter()
            .map(|(name, value)| text(format!("{name}={value}").into_bytes()))
            .chain([text(mark(&request.unit).into_bytes())])
            .collect::<Result<_, _>>()?;
        let working_dir = request.working_dir.as_ref().unwrap_or(&request.directory);
        Ok(Self {
            argv,
            env,
            working_dir: text(working_dir.clone().into_os_string().into_vec())?,
        })
    }
}

fn explain(fault: SpawnFault, request: &SpawnRequest) -> SpawnError {
    let program = || request.argv.first().cloned().unwrap_or_default();
    match fault {
        SpawnFault::NotFound { looked_at } => SpawnError::NotFound {
            program: program(),
            detail: format!("looked at {looked_at}"),
        },
        SpawnFault::NotExecutable { source } => SpawnError::NotExecutable {
            program: program(),
            detail: source.to_string(),
        },
        SpawnFault::WorkingDirectory { source } => {
            let path = request.working_dir.as_ref().unwrap_or(&request.directory);
            SpawnError::WorkingDirectory {
                path: OsStr::to_string_lossy(path.as_os_str()).into_owned(),
                detail: source.to_string(),
            }
        }
        SpawnFault::BadCommand { detail } => SpawnError::BadCommand {
            detail: detail.to_owned(),
        },
        SpawnFault::NoRoom { source } => SpawnError::NoRoom {
            detail: source.to_string(),
        },
        SpawnFault::Other { step, source } => SpawnError::Unavailable {
            detail: format!("cannot {step}: {source}"),
        },
    }
}
