//! Receivers that did not answer a moment ago.
//!
//! Each try at one that is away takes as long as a connection is waited for. While one waits, the
//! others that are due for it fail at once, so that ten thousand of them do not keep those for
//! other receivers from being told.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// How long a receiver is left alone once it did not answer, or while one try finds out whether it
/// does again. Longer than a try may take.
const REST: Duration = Duration::from_secs(11);
/// The most receivers that are known to be away.
const MOST_KNOWN: usize = 1024;

/// Until when each receiver that is away is left alone.
#[derive(Default)]
pub(super) struct Rests(Mutex<HashMap<String, Instant>>);

impl Rests {
    /// Whether it is worth while to ask. Of several who want to know of a receiver that was away,
    /// one may.
    pub(super) fn may_be_asked(&self, receiver: &str, now: Instant) -> bool {
        let mut rests = self.0.lock();
        let Some(until) = rests.get_mut(receiver) else {
            return true;
        };
        if now < *until {
            return false;
        }
        *until = now + REST;
        true
    }

    /// How it went.
    pub(super) fn answered(&self, receiver: &str, did: bool, now: Instant) {
        let mut rests = self.0.lock();
        if did {
            rests.remove(receiver);
            return;
        }
        if rests.len() >= MOST_KNOWN && !rests.contains_key(receiver) {
            rests.retain(|_, until| now < *until);
            if rests.len() >= MOST_KNOWN {
                return;
            }
        }
        rests.insert(receiver.to_owned(), now + REST);
    }
}

#[cfg(test)]
mod tests {
    //! Who is asked while somebody is away.
    use super::*;

    #[test]
    fn of_a_receiver_that_is_away_one_finds_out_whether_it_is_back() {
        let (rests, now) = (Rests::default(), Instant::now());
        assert!(rests.may_be_asked("a", now));
        assert!(rests.may_be_asked("a", now), "nothing is known of it");
        rests.answered("a", false, now);
        assert!(!rests.may_be_asked("a", now));
        assert!(rests.may_be_asked("b", now));
        let later = now + REST;
        assert!(rests.may_be_asked("a", later));
        assert!(!rests.may_be_asked("a", later), "one finds out");
        rests.answered("a", true, later);
        assert!(rests.may_be_asked("a", later) && rests.may_be_asked("a", later));
    }

    #[test]
    fn as_many_are_known_as_may_be() {
        let (rests, now) = (Rests::default(), Instant::now());
        for number in 0..MOST_KNOWN + 10 {
            rests.answered(&number.to_string(), false, now);
        }
        assert_eq!(rests.0.lock().len(), MOST_KNOWN);
        rests.answered("new", false, now + REST);
        assert_eq!(rests.0.lock().len(), 1);
    }
}
