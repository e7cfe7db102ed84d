//! How much of large bodies and large answers is in memory at a time, over all clients.
//!
//! Each request is bounded by itself, but there may be thousands of them, and a client that
//! reads slowly keeps its answer in memory. Room is given back when the bytes are dropped.

use std::sync::Arc;

use axum::body::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::problem::Problem;

/// What room is counted in.
const UNIT: usize = 1024;
/// Up to here bytes are not counted: connections are bounded themselves.
const UNCOUNTED: usize = 16 * 1024;

/// What is no larger has a part for itself once the rest is taken: a few readers of heavy answers must
/// not keep everybody else from theirs.
const LIGHT: usize = 256 * 1024;
/// What part that is, beside the rest, and how much at the least.
const LIGHT_PART: usize = 8;
const LEAST_LIGHT: usize = 4 * LIGHT;

/// The room there is. Clones share it.
#[derive(Clone, Debug)]
pub struct Room {
    light: Arc<Semaphore>,
    heavy: Arc<Semaphore>,
}

/// Marks a response for whose body room was taken already.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InRoom;

/// Room that was taken.
#[derive(Debug, Default)]
pub(crate) struct Taken(Option<OwnedSemaphorePermit>);

impl Room {
    /// Room for so many bytes, and an eighth as many (at least 1 MiB) of what is light.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        let room = |bytes: usize| {
            let units = (bytes / UNIT).clamp(1, Semaphore::MAX_PERMITS);
            Arc::new(Semaphore::new(units))
        };
        Self {
            light: room((bytes / LIGHT_PART).max(LEAST_LIGHT)),
            heavy: room(bytes),
        }
    }

    /// Makes `taken` room for `bytes` in all.
    pub(crate) fn take(&self, taken: &mut Taken, bytes: usize) -> Result<(), Problem> {
        let wanted = if bytes <= UNCOUNTED {
            0
        } else {
            bytes.div_ceil(UNIT)
        };
        let parts: &[_] = if bytes <= LIGHT {
            &[&self.heavy, &self.light]
        } else {
            &[&self.heavy]
        };
        let had = |permit: &OwnedSemaphorePermit, part| {
            let here = Arc::ptr_eq(permit.semaphore(), part);
            here.then(|| permit.num_permits())
        };
        for part in parts {
            let missing = match &taken.0 {
                Some(permit) => wanted.saturating_sub(had(permit, part).unwrap_or(0)),
                None => wanted,
            };
            if missing == 0 {
                return Ok(());
            }
            let missing = u32::try_from(missing).unwrap_or(u32::MAX);
            let Ok(mut more) = (*part).clone().try_acquire_many_owned(missing) else {
                continue;
            };
            if let Some(permit) = taken.0.take()
                && had(&permit, part).is_some()
            {
                more.merge(permit);
            }
            taken.0 = Some(more);
            return Ok(());
        }
        Err(full())
    }
}

fn full() -> Problem {
    Problem::unavailable("too many large bodies and answers are under way")
        .hint("try again in a second, or ask for less at a time")
}

/// Bytes that keep their room until they are dropped.
struct Kept<T> {
    bytes: T,
    _room: OwnedSemaphorePermit,
}

impl<T: AsRef<[u8]>> AsRef<[u8]> for Kept<T> {
    fn as_ref(&self) -> &[u8] {
        self.bytes.as_ref()
    }
}

impl Taken {
    /// Whether the bytes are so few that none was needed.
    pub(crate) fn is_nothing(&self) -> bool {
        self.0.is_none()
    }

    /// The bytes that the room was taken for; what they do not need is given back.
    pub(crate) fn keep<T>(self, bytes: T) -> Bytes
    where
        T: AsRef<[u8]> + Into<Bytes> + Send + 'static,
    {
        let Some(mut room) = self.0 else {
            return bytes.into();
        };
        let needed = bytes.as_ref().len().div_ceil(UNIT);
        drop(room.split(room.num_permits().saturating_sub(needed)));
        Bytes::from_owner(Kept { bytes, _room: room })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn room_is_there_again_once_the_bytes_are_gone() {
        const SIZE: usize = 16 * UNIT;
        let room = Room::new(100 * SIZE);
        let mut first = Taken::default();
        room.take(&mut first, 80 * SIZE).unwrap();
        let mut second = Taken::default();
        assert!(room.take(&mut second, 40 * SIZE).is_err());
        // It needed less than it took.
        let kept = first.keep(vec![7; 50 * SIZE]);
        room.take(&mut second, 40 * SIZE).unwrap();
        assert!(room.take(&mut second, 60 * SIZE).is_err());
        let copy = kept.clone();
        drop(kept);
        assert!(room.take(&mut second, 60 * SIZE).is_err(), "still in use");
        assert_eq!(copy.len(), 50 * SIZE);
        drop(copy);
        room.take(&mut second, 60 * SIZE).unwrap();
    }

    #[test]
    fn what_is_light_has_room_while_heavy_things_take_all() {
        let room = Room::new(8 * LIGHT);
        let (mut heavy, mut light, mut grows) = Default::default();
        room.take(&mut heavy, 8 * LIGHT).unwrap();
        let others: Vec<Taken> = (0..6)
            .map(|_| {
                let mut taken = Taken::default();
                room.take(&mut taken, LIGHT / 2).unwrap();
                taken
            })
            .collect();
        room.take(&mut light, LIGHT / 2).unwrap();
        room.take(&mut grows, LIGHT / 2).unwrap();
        assert!(room.take(&mut Taken::default(), LIGHT / 2).is_err());
        assert!(room.take(&mut grows, LIGHT * 2).is_err(), "it is heavy now");
        drop((others, heavy));
        room.take(&mut grows, LIGHT * 2).unwrap();
        room.take(&mut grows, LIGHT * 8).unwrap();
    }

    #[test]
    fn what_is_small_needs_no_room() {
        let room = Room::new(1);
        let mut taken = Taken::default();
        room.take(&mut taken, UNCOUNTED).unwrap();
        assert_eq!(taken.keep(vec![1, 2, 3]).len(), 3);
    }
}
