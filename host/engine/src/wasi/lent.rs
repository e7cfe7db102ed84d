//! The machine's clocks and random numbers in a call that is noted or repeated.

use std::time::{Duration, Instant, SystemTime};

use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};
use wasmtime_wasi::{HostMonotonicClock, HostWallClock};

use crate::tape::Tape;
use crate::wasi::Bytes;

/// The time.
pub(super) struct Wall(pub(super) Tape);

impl HostWallClock for Wall {
    fn resolution(&self) -> Duration {
        Duration::from_nanos(1)
    }

    fn now(&self) -> Duration {
        let now = || {
            let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
            (since.as_secs(), since.subsec_nanos())
        };
        let read = self.0.value("wasi:clocks/wall-clock.now", &(), now);
        let (seconds, nanos) = read.unwrap_or_default();
        Duration::from_secs(seconds).saturating_add(Duration::from_nanos(nanos.into()))
    }
}

/// The clock that goes on.
pub(super) struct Passing {
    tape: Tape,
    since: Instant,
}

impl Passing {
    pub(super) fn new(tape: Tape) -> Self {
        let since = Instant::now();
        Self { tape, since }
    }
}

impl HostMonotonicClock for Passing {
    fn resolution(&self) -> u64 {
        1
    }

    fn now(&self) -> u64 {
        let now = || u64::try_from(self.since.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let read = self.tape.value("wasi:clocks/monotonic-clock.now", &(), now);
        read.unwrap_or_default()
    }
}

/// Random bytes of the kernel's.
pub(super) struct Kernel(pub(super) Tape);

impl Bytes for Kernel {
    fn fill(&mut self, bytes: &mut [u8]) {
        let length = bytes.len();
        let noted = self.0.value("wasi:random/bytes", &(length,), || {
            let mut made = vec![0; length];
            let mut filled = 0;
            while let Some(rest) = made.get_mut(filled..).filter(|rest| !rest.is_empty()) {
                match getrandom(rest, GetRandomFlags::empty()) {
                    Ok(more) => filled += more,
                    Err(Errno::INTR) => {}
                    Err(error) => no_numbers(error),
                }
            }
            made
        });
        for (byte, noted) in bytes.iter_mut().zip(noted.unwrap_or_default()) {
            *byte = noted;
        }
    }
}

#[expect(
    clippy::panic,
    reason = "there is no word for it on the way to the guest, whose call this ends; anything else would be no secret"
)]
fn no_numbers(error: Errno) -> ! {
    panic!("the kernel gives no random numbers: {error}")
}
