//! The bytes between the daemon and the supervisor.
//!
//! A frame is its length (u32), a kind (u8), the id of the request it belongs to (u64, 0 for
//! reports) and a body. An upgraded daemon talks to an older supervisor that still owns tasks, so
//! nothing here is ever changed: kinds are added, fields are appended, an unknown kind is
//! answered with [`Answer::Unsupported`].

mod confined;

use std::path::PathBuf;
use std::time::Duration;

use taskwright_capability::{
    Enforceable, Lifetime, SpawnError, SpawnRequest, Spawned, StopError, UnitEvent, UnitReport,
    UnitState,
};
use taskwright_model::{Restriction, TaskId, TaskName, Timestamp, UnitKey};

use crate::codec::{Malformed, Put, Take};

/// What this side speaks. Both sides use the lower of the two.
///
/// | version | since then |
/// |---|---|
/// | 1 | |
/// | 2 | an end that the answer to a spawn tells of is not reported to the same daemon again |
/// | 3 | a spawn may be inside another process's namespaces, and confined; what can be enforced |
pub(crate) const PROTOCOL_VERSION: u32 = 3;
/// The first version with [`Answer::Spawned`] that may come late, with the end.
pub(crate) const ANSWERS_WITH_ENDS: u32 = 2;
/// The first version that knows confinements and targets. An older one would pass over those
/// fields and start the task without them, so it is not asked.
pub(crate) const CONFINES: u32 = 3;
/// The longest frame that is read, without its length.
pub(crate) const MOST_FRAME_BYTES: usize = 2 * 1024 * 1024;
/// Why a supervisor that was told to end starts nothing more: the next one will.
pub(crate) const ENDING: &str = "the supervisor is ending";
const LENGTH_BYTES: usize = 4;
const HEAD_BYTES: usize = 9;

/// What a daemon asks.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Request {
    Hello { version: u32 },
    Spawn(Box<SpawnRequest>),
    Stop { unit: UnitKey, grace: Duration },
    Signal { unit: UnitKey, signal: i32 },
    Inspect(UnitKey),
    List,
    Release(UnitKey),
    Purge(TaskId),
    Status,
    ShutdownIfIdle,
    Enforceable,
}

impl Request {
    /// The lowest version of a supervisor that carries this out as it is meant.
    pub(crate) fn needed_version(&self) -> u32 {
        match self {
            Self::Spawn(request) if request.inside.is_some() => CONFINES,
            Self::Spawn(request) if !request.confinement.is_empty() => CONFINES,
            _ => 0,
        }
    }
}

/// What the supervisor answers, or reports unasked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Welcome {
        version: u32,
    },
    Spawned(Spawned),
    NotSpawned(SpawnError),
    Done,
    NotDone(StopError),
    State(Option<UnitState>),
    /// A page of a list; `more` says that another follows under the same id.
    Units {
        units: Vec<(UnitKey, UnitState)>,
        more: bool,
    },
    Status(SupervisorStatus),
    Unsupported {
        kind: u8,
    },
    Report(UnitReport),
    Enforceable(Enforceable),
}

/// What a supervisor says of itself, for `doctor`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SupervisorStatus {
    /// The product's version it was started from.
    pub version: String,
    /// Its process.
    pub supervisor_pid: u32,
    /// The process that adopts its children should it die; 0 when that one is gone.
    pub guardian_pid: u32,
    /// `cgroup2`, `cgroup1` or `scan`.
    pub tree_level: String,
    /// Why that level.
    pub tree_why: String,
    /// When it was started.
    pub started_at: Timestamp,
    /// Units whose main process runs.
    pub running: u32,
    /// Units whose end was not released yet.
    pub unreleased: u32,
    /// Units that were released and left something running.
    pub left_behind: u32,
    /// What of its log could not be read when it was started; empty is good.
    pub damage: String,
}

mod kind {
    pub(super) const HELLO: u8 = 1;
    pub(super) const SPAWN: u8 = 2;
    pub(super) const STOP: u8 = 3;
    pub(super) const SIGNAL: u8 = 4;
    pub(super) const INSPECT: u8 = 5;
    pub(super) const LIST: u8 = 6;
    pub(super) const RELEASE: u8 = 7;
    pub(super) const PURGE: u8 = 8;
    pub(super) const STATUS: u8 = 9;
    pub(super) const SHUTDOWN_IF_IDLE: u8 = 10;
    pub(super) const ENFORCEABLE: u8 = 11;

    pub(super) const WELCOME: u8 = 129;
    pub(super) const SPAWNED: u8 = 130;
    pub(super) const NOT_SPAWNED: u8 = 131;
    pub(super) const DONE: u8 = 132;
    pub(super) const NOT_DONE: u8 = 133;
    pub(super) const STATE: u8 = 134;
    pub(super) const UNITS: u8 = 135;
    pub(super) const STATUS_IS: u8 = 136;
    pub(super) const UNSUPPORTED: u8 = 137;
    pub(super) const REPORT: u8 = 138;
    pub(super) const ENFORCEABLE_IS: u8 = 139;
}

/// A frame as it arrived.
pub(crate) struct Frame<'a> {
    pub(crate) kind: u8,
    pub(crate) id: u64,
    pub(crate) body: &'a [u8],
}

/// The first whole frame of `bytes` and how many bytes it takes; `None` when it is not whole yet.
pub(crate) fn next_frame(bytes: &[u8]) -> Result<Option<(Frame<'_>, usize)>, Malformed> {
    let Some((length, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() else {
        return Ok(None);
    };
    let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
    if !(HEAD_BYTES..=MOST_FRAME_BYTES).contains(&length) {
        return Err(Malformed::Bad("frame length"));
    }
    let Some(frame) = rest.get(..length) else {
        return Ok(None);
    };
    let mut take = Take(frame);
    let (kind, id) = (take.u8()?, take.u64()?);
    let body = take.0;
    Ok(Some((Frame { kind, id, body }, LENGTH_BYTES + length)))
}

/// Writes one frame: `body` appends its fields.
fn put_frame(out: &mut Vec<u8>, kind: u8, id: u64, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.put_u32(0);
    out.put_u8(kind);
    out.put_u64(id);
    body(out);
    let length = u32::try_from(out.len() - start - LENGTH_BYTES).unwrap_or(u32::MAX);
    if let Some(place) = out.get_mut(start..start + LENGTH_BYTES) {
        place.copy_from_slice(&length.to_le_bytes());
    }
}

fn put_millis(out: &mut Vec<u8>, time: Duration) {
    out.put_u64(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
}

impl Request {
    pub(crate) fn put(&self, id: u64, out: &mut Vec<u8>) {
        match self {
            Self::Hello { version } => put_frame(out, kind::HELLO, id, |out| out.put_u32(*version)),
            Self::Spawn(request) => put_frame(out, kind::SPAWN, id, |out| put_spawn(request, out)),
            Self::Stop { unit, grace } => put_frame(out, kind::STOP, id, |out| {
                out.put_unit(unit);
                put_millis(out, *grace);
            }),
            Self::Signal { unit, signal } => put_frame(out, kind::SIGNAL, id, |out| {
                out.put_unit(unit);
                out.put_i32(*signal);
            }),
            Self::Inspect(unit) => put_frame(out, kind::INSPECT, id, |out| out.put_unit(unit)),
            Self::List => put_frame(out, kind::LIST, id, |_| {}),
            Self::Release(unit) => put_frame(out, kind::RELEASE, id, |out| out.put_unit(unit)),
            Self::Purge(task) => {
                put_frame(out, kind::PURGE, id, |out| out.put_u128(task.as_u128()));
            }
            Self::Status => put_frame(out, kind::STATUS, id, |_| {}),
            Self::ShutdownIfIdle => put_frame(out, kind::SHUTDOWN_IF_IDLE, id, |_| {}),
            Self::Enforceable => put_frame(out, kind::ENFORCEABLE, id, |_| {}),
        }
    }

    /// Reads a request; `None` for a kind that this version does not know.
    pub(crate) fn take(frame: &Frame<'_>) -> Result<Option<Self>, Malformed> {
        let mut take = Take(frame.body);
        Ok(Some(match frame.kind {
            kind::HELLO => Self::Hello {
                version: take.u32()?,
            },
            kind::SPAWN => Self::Spawn(Box::new(take_spawn(&mut take)?)),
            kind::STOP => Self::Stop {
                unit: take.unit()?,
                grace: Duration::from_millis(take.u64()?),
            },
            kind::SIGNAL => Self::Signal {
                unit: take.unit()?,
                signal: take.i32()?,
            },
            kind::INSPECT => Self::Inspect(take.unit()?),
            kind::LIST => Self::List,
            kind::RELEASE => Self::Release(take.unit()?),
            kind::PURGE => Self::Purge(TaskId::from_u128(take.u128()?)),
            kind::STATUS => Self::Status,
            kind::SHUTDOWN_IF_IDLE => Self::ShutdownIfIdle,
            kind::ENFORCEABLE => Self::Enforceable,
            _ => return Ok(None),
        }))
    }
}

fn put_path(out: &mut Vec<u8>, path: &std::path::Path) {
    use std::os::unix::ffi::OsStrExt as _;
    out.put_blob(path.as_os_str().as_bytes());
}

fn take_path(take: &mut Take<'_>) -> Result<PathBuf, Malformed> {
    use std::os::unix::ffi::OsStrExt as _;
    Ok(PathBuf::from(std::ffi::OsStr::from_bytes(take.blob()?)))
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    out.put_u32(u32::try_from(count).unwrap_or(u32::MAX));
}

fn put_spawn(request: &SpawnRequest, out: &mut Vec<u8>) {
    out.put_unit(&request.unit);
    out.put_text(request.name.as_str());
    put_path(out, &request.directory);
    put_count(out, request.argv.len());
    for argument in &request.argv {
        out.put_text(argument);
    }
    put_count(out, request.env.len());
    for (name, value) in &request.env {
        out.put_text(name);
        out.put_text(value);
    }
    out.put_u8(u8::from(request.working_dir.is_some()));
    if let Some(path) = &request.working_dir {
        put_path(out, path);
    }
    out.put_u8(match request.lifetime {
        Lifetime::LeaveDescendants => 0,
        Lifetime::KillDescendants => 1,
    });
    confined::put_inside(request.inside.as_ref(), out);
    confined::put_confinement(&request.confinement, out);
}

fn take_spawn(take: &mut Take<'_>) -> Result<SpawnRequest, Malformed> {
    let unit = take.unit()?;
    let name = TaskName::parse(take.text()?).map_err(|_| Malformed::Bad("task name"))?;
    let directory = take_path(take)?;
    let argv = (0..take.count(4)?)
        .map(|_| take.text().map(str::to_owned))
        .collect::<Result<_, _>>()?;
    let env = (0..take.count(8)?)
        .map(|_| Ok((take.text()?.to_owned(), take.text()?.to_owned())))
        .collect::<Result<_, _>>()?;
    let working_dir = if take.flag()? {
        Some(take_path(take)?)
    } else {
        None
    };
    let lifetime = match take.u8()? {
        0 => Lifetime::LeaveDescendants,
        1 => Lifetime::KillDescendants,
        _ => return Err(Malformed::Bad("lifetime")),
    };
    // Of a daemon that is older than these fields.
    let (inside, confinement) = if take.is_at_end() {
        Default::default()
    } else {
        (
            confined::take_inside(take)?,
            confined::take_confinement(take)?,
        )
    };
    Ok(SpawnRequest {
        unit,
        name,
        directory,
        argv,
        env,
        working_dir,
        lifetime,
        inside,
        confinement,
    })
}

impl Answer {
    pub(crate) fn put(&self, id: u64, out: &mut Vec<u8>) {
        match self {
            Self::Welcome { version } => {
                put_frame(out, kind::WELCOME, id, |out| out.put_u32(*version));
            }
            Self::Spawned(spawned) => {
                put_frame(out, kind::SPAWNED, id, |out| {
                    out.put_spawned(spawned);
                    out.put_enforced(&spawned.enforced);
                    out.put_left_out(&spawned.enforced);
                });
            }
            Self::NotSpawned(error) => {
                put_frame(out, kind::NOT_SPAWNED, id, |out| {
                    put_spawn_error(error, out)
                });
            }
            Self::Done => put_frame(out, kind::DONE, id, |_| {}),
            Self::NotDone(error) => put_frame(out, kind::NOT_DONE, id, |out| match error {
                StopError::Unavailable { detail } => {
                    out.put_u8(0);
                    out.put_text(detail);
                }
                StopError::NotRunning { unit } => {
                    out.put_u8(1);
                    out.put_unit(unit);
                }
            }),
            Self::State(state) => put_frame(out, kind::STATE, id, |out| match state {
                None => out.put_u8(0),
                Some(state) => {
                    out.put_u8(1);
                    put_state(state, out);
                }
            }),
            Self::Units { units, more } => put_frame(out, kind::UNITS, id, |out| {
                out.put_u8(u8::from(*more));
                put_count(out, units.len());
                for (unit, state) in units {
                    out.put_unit(unit);
                    put_state(state, out);
                }
            }),
            Self::Status(status) => put_frame(out, kind::STATUS_IS, id, |out| {
                out.put_text(&status.version);
                out.put_u32(status.supervisor_pid);
                out.put_u32(status.guardian_pid);
                out.put_text(&status.tree_level);
                out.put_text(&status.tree_why);
                out.put_time(status.started_at);
                out.put_u32(status.running);
                out.put_u32(status.unreleased);
                out.put_u32(status.left_behind);
                out.put_text(&status.damage);
            }),
            Self::Unsupported { kind } => {
                put_frame(out, kind::UNSUPPORTED, id, |out| out.put_u8(*kind));
            }
            Self::Report(report) => put_frame(out, kind::REPORT, id, |out| {
                let UnitEvent::Ended(end) = &report.event;
                out.put_unit(&report.unit);
                out.put_end(end);
            }),
            Self::Enforceable(table) => put_frame(out, kind::ENFORCEABLE_IS, id, |out| {
                confined::put_enforceable(table, out);
            }),
        }
    }

    /// Reads an answer; `None` for a kind that this version does not know.
    pub(crate) fn take(frame: &Frame<'_>) -> Result<Option<Self>, Malformed> {
        let mut take = Take(frame.body);
        Ok(Some(match frame.kind {
            kind::WELCOME => Self::Welcome {
                version: take.u32()?,
            },
            kind::SPAWNED => {
                let mut spawned = take.spawned()?;
                if !take.is_at_end() {
                    spawned.enforced = take.enforced()?;
                    take.left_out(&mut spawned.enforced)?;
                }
                Self::Spawned(spawned)
            }
            kind::NOT_SPAWNED => Self::NotSpawned(take_spawn_error(&mut take)?),
            kind::DONE => Self::Done,
            kind::NOT_DONE => Self::NotDone(match take.u8()? {
                0 => StopError::Unavailable {
                    detail: take.text()?.to_owned(),
                },
                1 => StopError::NotRunning { unit: take.unit()? },
                _ => return Err(Malformed::Bad("error")),
            }),
            kind::STATE => Self::State(if take.flag()? {
                Some(take_state(&mut take)?)
            } else {
                None
            }),
            kind::UNITS => {
                let more = take.flag()?;
                let units = (0..take.count(36)?)
                    .map(|_| Ok((take.unit()?, take_state(&mut take)?)))
                    .collect::<Result<_, _>>()?;
                Self::Units { units, more }
            }
            kind::STATUS_IS => Self::Status(SupervisorStatus {
                version: take.text()?.to_owned(),
                supervisor_pid: take.u32()?,
                guardian_pid: take.u32()?,
                tree_level: take.text()?.to_owned(),
                tree_why: take.text()?.to_owned(),
                started_at: take.time()?,
                running: take.u32()?,
                unreleased: take.u32()?,
                left_behind: take.u32()?,
                damage: take.text()?.to_owned(),
            }),
            kind::UNSUPPORTED => Self::Unsupported { kind: take.u8()? },
            kind::REPORT => Self::Report(UnitReport {
                unit: take.unit()?,
                event: UnitEvent::Ended(take.end()?),
            }),
            kind::ENFORCEABLE_IS => Self::Enforceable(confined::take_enforceable(&mut take)?),
            _ => return Ok(None),
        }))
    }
}

fn put_state(state: &UnitState, out: &mut Vec<u8>) {
    match state {
        UnitState::Running(spawned) => {
            out.put_u8(0);
            out.put_spawned(spawned);
        }
        UnitState::Ended(end) => {
            out.put_u8(1);
            out.put_end(end);
        }
    }
}

fn take_state(take: &mut Take<'_>) -> Result<UnitState, Malformed> {
    match take.u8()? {
        0 => Ok(UnitState::Running(take.spawned()?)),
        1 => Ok(UnitState::Ended(take.end()?)),
        _ => Err(Malformed::Bad("unit state")),
    }
}

fn put_spawn_error(error: &SpawnError, out: &mut Vec<u8>) {
    let (kind, subject, detail) = match error {
        SpawnError::NotFound { program, detail } => (0, program.as_str(), detail),
        SpawnError::NotExecutable { program, detail } => (1, program.as_str(), detail),
        SpawnError::WorkingDirectory { path, detail } => (2, path.as_str(), detail),
        SpawnError::BadCommand { detail } => (3, "", detail),
        SpawnError::NoRoom { detail } => (4, "", detail),
        SpawnError::Unavailable { detail } => (5, "", detail),
        SpawnError::TargetGone { detail } => (6, "", detail),
        SpawnError::NotEnforceable {
            restriction,
            detail,
        } => (7, restriction.as_str(), detail),
        SpawnError::ReadOnlyPath { path, detail } => (8, path.as_str(), detail),
    };
    out.put_u8(kind);
    out.put_text(subject);
    out.put_text(detail);
}

fn take_spawn_error(take: &mut Take<'_>) -> Result<SpawnError, Malformed> {
    let kind = take.u8()?;
    let subject = take.text()?.to_owned();
    let detail = take.text()?.to_owned();
    Ok(match kind {
        0 => SpawnError::NotFound {
            program: subject,
            detail,
        },
        1 => SpawnError::NotExecutable {
            program: subject,
            detail,
        },
        2 => SpawnError::WorkingDirectory {
            path: subject,
            detail,
        },
        3 => SpawnError::BadCommand { detail },
        4 => SpawnError::NoRoom { detail },
        6 => SpawnError::TargetGone { detail },
        7 if let Some(restriction) = Restriction::parse(&subject) => SpawnError::NotEnforceable {
            restriction,
            detail,
        },
        8 => SpawnError::ReadOnlyPath {
            path: subject,
            detail,
        },
        // A newer supervisor may know more reasons.
        _ => SpawnError::Unavailable { detail },
    })
}

#[cfg(test)]
mod tests;
