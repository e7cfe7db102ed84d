//! What the supervisor writes down, and its frozen bytes.
//!
//! A record is its length (u32), a CRC-32 of its body (u32) and the body: a kind (u8) and fields.
//! A supervisor of tomorrow reads the log of today's: kinds are added, fields appended.

use std::path::{Path, PathBuf};

use taskwright_capability::{Lifetime, UnitEnd};
use taskwright_model::{Enforced, ProcessIdentity, Timestamp, UnitKey};
use taskwright_native::TreeLevel;
use taskwright_native::tree::GroupNumber;

use crate::codec::{Malformed, Put, Take};

/// The first bytes of a log; the last one is the version of what follows.
pub(crate) const MAGIC: &[u8; 8] = b"TWSUPLG\x01";
/// No record is longer: a longer length is damage.
pub(crate) const MOST_RECORD_BYTES: usize = 64 * 1024;
const HEAD_BYTES: usize = 8;

/// One line of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// A supervisor begins: in which boot, and where its groups are.
    Begun {
        boot: u128,
        level: TreeLevel,
        base: PathBuf,
    },
    /// A unit is about to be started. Written before the process exists.
    Intent(Intent),
    /// The process of an intent.
    Spawned {
        unit: UnitKey,
        process: ProcessIdentity,
        at: Timestamp,
    },
    /// The intent came to nothing: no process was started.
    NotSpawned(UnitKey),
    /// The unit's tree has been told to end and will be killed then.
    Stopping { unit: UnitKey, kill_at: Timestamp },
    /// The main process ended.
    Ended { unit: UnitKey, end: UnitEnd },
    /// Nothing of the tree is left; its group is free for another unit.
    Settled(UnitKey),
    /// The end is on record elsewhere.
    Released(UnitKey),
    /// All of it is to be killed and forgotten.
    Purging(UnitKey),
    /// Nothing of it is left.
    Forgotten(UnitKey),
}

/// All that must be known of a unit before its process exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Intent {
    pub(crate) unit: UnitKey,
    pub(crate) directory: Box<Path>,
    pub(crate) lifetime: Lifetime,
    pub(crate) group: Option<GroupNumber>,
    /// Only of units that are confined or inside another process's cgroups.
    pub(crate) bounds: Option<Box<Bounds>>,
}

/// What bounds a unit, so that a later supervisor finds and removes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Groups that were made to limit it.
    pub(crate) groups: Vec<PathBuf>,
    /// Where its tree's group is, if it is not among the others.
    pub(crate) tree: Option<PathBuf>,
    /// What is enforced, for who asks again.
    pub(crate) enforced: Enforced,
    /// The target's group, if it takes of its memory.
    pub(crate) shared_memory: Option<SharedMemory>,
}

/// A group of a target's whose memory a unit takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SharedMemory {
    pub(crate) group: PathBuf,
    /// How many in there the out-of-memory killer had taken before the unit was started.
    pub(crate) kills: u64,
    pub(crate) target: ProcessIdentity,
}

impl Intent {
    /// Its groups are gone, or somebody else's.
    pub(crate) fn forget_groups(&mut self) {
        self.group = None;
        if let Some(bounds) = &mut self.bounds {
            bounds.groups = Vec::new();
            bounds.tree = None;
        }
    }

    /// Where its tree's group is, if not among the others.
    pub(crate) fn tree_elsewhere(&self) -> Option<PathBuf> {
        self.bounds.as_ref()?.tree.clone()
    }
}

mod kind {
    pub(super) const BEGUN: u8 = 1;
    pub(super) const INTENT: u8 = 2;
    pub(super) const SPAWNED: u8 = 3;
    pub(super) const NOT_SPAWNED: u8 = 4;
    pub(super) const STOPPING: u8 = 5;
    pub(super) const ENDED: u8 = 6;
    pub(super) const RELEASED: u8 = 7;
    pub(super) const PURGING: u8 = 8;
    pub(super) const FORGOTTEN: u8 = 9;
    pub(super) const SETTLED: u8 = 10;
}

impl Record {
    /// Appends the framed record.
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.put_u64(0);
        self.put_body(out);
        let body = out.get(start + HEAD_BYTES..).unwrap_or_default();
        let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
        let sum = crc32fast::hash(body);
        let head = u64::from(length) | u64::from(sum) << 32;
        if let Some(place) = out.get_mut(start..start + HEAD_BYTES) {
            place.copy_from_slice(&head.to_le_bytes());
        }
    }

    fn put_body(&self, out: &mut Vec<u8>) {
        match self {
            Self::Begun { boot, level, base } => {
                out.put_u8(kind::BEGUN);
                out.put_u128(*boot);
                out.put_text(level.as_str());
                put_path(out, base);
            }
            Self::Intent(intent) => {
                out.put_u8(kind::INTENT);
                out.put_unit(&intent.unit);
                put_path(out, &intent.directory);
                out.put_u8(match intent.lifetime {
                    Lifetime::LeaveDescendants => 0,
                    Lifetime::KillDescendants => 1,
                });
                out.put_u32(intent.group.unwrap_or(0));
                if let Some(bounds) = &intent.bounds {
                    put_bounds(out, bounds);
                }
            }
            Self::Spawned { unit, process, at } => {
                out.put_u8(kind::SPAWNED);
                out.put_unit(unit);
                out.put_process(*process);
                out.put_time(*at);
            }
            Self::NotSpawned(unit) => {
                out.put_u8(kind::NOT_SPAWNED);
                out.put_unit(unit);
            }
            Self::Stopping { unit, kill_at } => {
                out.put_u8(kind::STOPPING);
                out.put_unit(unit);
                out.put_time(*kill_at);
            }
            Self::Ended { unit, end } => {
                out.put_u8(kind::ENDED);
                out.put_unit(unit);
                out.put_end(end);
            }
            Self::Settled(unit) => {
                out.put_u8(kind::SETTLED);
                out.put_unit(unit);
            }
            Self::Released(unit) => {
                out.put_u8(kind::RELEASED);
                out.put_unit(unit);
            }
            Self::Purging(unit) => {
                out.put_u8(kind::PURGING);
                out.put_unit(unit);
            }
            Self::Forgotten(unit) => {
                out.put_u8(kind::FORGOTTEN);
                out.put_unit(unit);
            }
        }
    }

    /// The first record of `bytes` and how many bytes it takes. An unknown kind is `None`:
    /// written by a newer supervisor, whole, and not for us.
    pub(crate) fn take(bytes: &[u8]) -> Result<(Option<Self>, usize), Malformed> {
        let mut take = Take(bytes);
        let (length, sum) = (take.u32()?, take.u32()?);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > MOST_RECORD_BYTES {
            return Err(Malformed::Bad("record length"));
        }
        let body = take.bytes(length)?;
        if crc32fast::hash(body) != sum {
            return Err(Malformed::Bad("checksum"));
        }
        Ok((Self::take_body(body)?, HEAD_BYTES + length))
    }

    fn take_body(body: &[u8]) -> Result<Option<Self>, Malformed> {
        let mut take = Take(body);
        Ok(Some(match take.u8()? {
            kind::BEGUN => Self::Begun {
                boot: take.u128()?,
                level: take
                    .text()?
                    .parse()
                    .map_err(|_| Malformed::Bad("tree level"))?,
                base: take_path(&mut take)?,
            },
            kind::INTENT => Self::Intent(Intent {
                unit: take.unit()?,
                directory: take_path(&mut take)?.into(),
                lifetime: match take.u8()? {
                    0 => Lifetime::LeaveDescendants,
                    _ => Lifetime::KillDescendants,
                },
                group: Some(take.u32()?).filter(|group| *group != 0),
                bounds: if take.is_at_end() {
                    None
                } else {
                    Some(Box::new(take_bounds(&mut take)?))
                },
            }),
            kind::SPAWNED => Self::Spawned {
                unit: take.unit()?,
                process: take.process()?,
                at: take.time()?,
            },
            kind::NOT_SPAWNED => Self::NotSpawned(take.unit()?),
            kind::STOPPING => Self::Stopping {
                unit: take.unit()?,
                kill_at: take.time()?,
            },
            kind::ENDED => Self::Ended {
                unit: take.unit()?,
                end: take.end()?,
            },
            kind::RELEASED => Self::Released(take.unit()?),
            kind::PURGING => Self::Purging(take.unit()?),
            kind::SETTLED => Self::Settled(take.unit()?),
            kind::FORGOTTEN => Self::Forgotten(take.unit()?),
            _ => return Ok(None),
        }))
    }
}

fn put_bounds(out: &mut Vec<u8>, bounds: &Bounds) {
    out.put_u32(u32::try_from(bounds.groups.len()).unwrap_or(0));
    for group in &bounds.groups {
        put_path(out, group);
    }
    // An empty path is no path.
    put_path(out, bounds.tree.as_deref().unwrap_or(Path::new("")));
    out.put_enforced(&bounds.enforced);
    out.put_left_out(&bounds.enforced);
    out.put_u8(u8::from(bounds.shared_memory.is_some()));
    if let Some(shared) = &bounds.shared_memory {
        put_path(out, &shared.group);
        out.put_u64(shared.kills);
        out.put_process(shared.target);
    }
}

fn take_bounds(take: &mut Take<'_>) -> Result<Bounds, Malformed> {
    let groups = (0..take.count(4)?)
        .map(|_| take_path(take))
        .collect::<Result<_, _>>()?;
    let tree = Some(take_path(take)?).filter(|path| !path.as_os_str().is_empty());
    let mut enforced = take.enforced()?;
    take.left_out(&mut enforced)?;
    // Of a supervisor that is older than this.
    let shared_memory = if !take.is_at_end() && take.flag()? {
        Some(SharedMemory {
            group: take_path(take)?,
            kills: take.u64()?,
            target: take.process()?,
        })
    } else {
        None
    };
    Ok(Bounds {
        groups,
        tree,
        enforced,
        shared_memory,
    })
}

fn put_path(out: &mut Vec<u8>, path: &Path) {
    use std::os::unix::ffi::OsStrExt as _;
    out.put_blob(path.as_os_str().as_bytes());
}

fn take_path(take: &mut Take<'_>) -> Result<PathBuf, Malformed> {
    use std::os::unix::ffi::OsStrExt as _;
    Ok(PathBuf::from(std::ffi::OsStr::from_bytes(take.blob()?)))
}
