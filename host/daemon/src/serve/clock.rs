//! The real clock.

use std::time::{SystemTime, UNIX_EPOCH};

use taskwright_control::port::Clock;
use taskwright_model::{TaskId, Timestamp};

/// Wall-clock time, and ids that sort by it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RealClock;

impl Clock for RealClock {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    fn new_id(&self) -> TaskId {
        TaskId::from_u128(uuid::Uuid::now_v7().as_u128())
    }
}
