//! A child with memory of its own on its way to its program: looked at, never waited for.
//!
//! Whoever may stop it decides how long the way takes. So a caller with other things to do waits
//! for the descriptor among its others, looks when there is something, and gives up in time.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};

use crate::spawn::{self, Child, SpawnFault};
use crate::sys::{Failure, STEP_READY};
use crate::{exit, process};

/// A child that did not execute its program yet, as far as anybody looked.
///
/// Dropped it is left alone: it goes on to its program.
#[derive(Debug)]
pub struct Newborn {
    child: Child,
    /// Our end of what it says of itself.
    status: OwnedFd,
    /// It said that nothing is left but its program.
    ready: bool,
    until: Instant,
    candidates: Vec<CString>,
}

/// How far a child got.
#[derive(Debug)]
pub enum Progress {
    /// Nothing new.
    OnItsWay,
    /// It executes its program, or did and has ended.
    Executing,
    /// It never will, and is dying.
    Failed(SpawnFault),
}

/// How long a killed child may take to die; after that it is reaped with other orphans.
const DEATH_PATIENCE: Duration = Duration::from_secs(1);

impl Newborn {
    pub(crate) fn new(
        child: Child,
        status: OwnedFd,
        patience: Duration,
        candidates: Vec<CString>,
    ) -> Self {
        Self {
            child,
            status,
            ready: false,
            until: Instant::now() + patience,
            candidates,
        }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.child.pid
    }

    /// When its time is over.
    #[must_use]
    pub fn until(&self) -> Instant {
        self.until
    }

    /// What it said since the last look. To be asked when the descriptor is readable; after
    /// anything but [`Progress::OnItsWay`] it has nothing more to say.
    pub fn look(&mut self) -> Progress {
        loop {
            let mut bytes = [0; size_of::<Failure>()];
            match rustix::io::read(&self.status, &mut bytes) {
                // An execution closes its end, and so does a death.
                Ok(0) if self.ready => return Progress::Executing,
                Ok(length) if length == bytes.len() => {
                    let failure = decode(bytes);
                    if failure.step != STEP_READY {
                        return self.failed(spawn::fault(failure, &self.candidates));
                    }
                    self.ready = true;
                }
                Err(rustix::io::Errno::AGAIN) => return Progress::OnItsWay,
                Err(rustix::io::Errno::INTR) => {}
                _ => return self.failed(SpawnFault::Held { detail: KILLED }),
            }
        }
    }

    /// Kills it, because it took too long or is not wanted any more. It is to be reaped.
    #[must_use]
    pub fn give_up(self) -> Child {
        self.kill();
        self.child
    }

    /// The child, once it executes or is dying.
    #[must_use]
    pub fn into_child(self) -> Child {
        self.child
    }

    /// Waits for its program, or for what it says instead; then no process is left.
    pub(crate) fn wait(mut self) -> Result<Child, SpawnFault> {
        let fault = loop {
            match self.look() {
                Progress::OnItsWay => {}
                Progress::Executing => return Ok(self.child),
                Progress::Failed(fault) => break fault,
            }
            let left = self.until.saturating_duration_since(Instant::now());
            let timeout = Timespec::try_from(left).ok();
            let mut polled = [PollFd::new(&self.status, PollFlags::IN)];
            match rustix::event::poll(&mut polled, timeout.as_ref()) {
                Ok(0) => break SpawnFault::Held { detail: OVERDUE },
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(_) => break SpawnFault::Held { detail: KILLED },
            }
        };
        self.kill();
        // Nobody else may see it as a child; one that cannot die is no reason to stand still.
        let _later = exit::reap_within(&self.child.pidfd, DEATH_PATIENCE);
        Err(fault)
    }

    /// Whoever stopped it can also stop one that only has to end.
    fn failed(&self, fault: SpawnFault) -> Progress {
        self.kill();
        Progress::Failed(fault)
    }

    fn kill(&self) {
        let _has_ended = process::signal(&self.child.pidfd, libc::SIGKILL);
    }
}

/// What is said of a child whose time was over.
pub const OVERDUE: &str = "it did not get to its program in time and was killed";
const KILLED: &str = "it was killed before its program";

/// Readable when there is something to [look](Newborn::look) at.
impl AsFd for Newborn {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.status.as_fd()
    }
}

fn decode([a, b, c, d, e, f, g, h, i, j, k, l]: [u8; size_of::<Failure>()]) -> Failure {
    Failure {
        step: u32::from_ne_bytes([a, b, c, d]),
        errno: i32::from_ne_bytes([e, f, g, h]),
        index: u32::from_ne_bytes([i, j, k, l]),
    }
}
