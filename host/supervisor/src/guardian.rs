//! The guardian: keeps the supervisor alive and, while there is none, the exit codes.
//!
//! ```text
//!   guardian ──forks──▶ supervisor ──▶ tasks
//!      ▲                    │dies: its children become the guardian's
//!      └─ zombies kept ─────┘
//!   guardian ──(pid, how it ended)──▶ next supervisor
//!   guardian ◀──(pid: written down)──  then the zombie is taken away
//! ```
//!
//! It holds no state but the kernel's, so that nothing in it can be wrong.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use taskwright_native::daemonize::{self, Fork};
use taskwright_native::events::{Epoll, Interest, Signals};
use taskwright_native::{Exit, Waited, exit};

/// A child of the guardian ended, in bytes: pid, kind, number.
const NEWS_BYTES: usize = 9;
/// It is written down, in bytes: pid.
const ACK_BYTES: usize = 4;

/// Which of the two processes one is, after [`guard`] forked.
pub(crate) enum Role {
    /// The supervisor, with its end of the link.
    Supervisor(UnixStream, Continuity),
    /// The guardian, whose supervisor ended in order: nothing is left to guard.
    Finished,
}

/// Whether children of an earlier supervisor could have been lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Continuity {
    /// This guardian was there all the time and kept them.
    Kept,
    /// It is new: an earlier one, if there was one, died.
    Broken,
}

/// Forks supervisors until one ends in order. Returns in every supervisor, too.
pub(crate) fn guard() -> io::Result<Role> {
    daemonize::name_this_process(c"tw-guardian");
    daemonize::become_subreaper()?;
    let signals = Signals::children_only()?;
    let mut pause = LEAST_PAUSE;
    let mut since = Continuity::Broken;
    let mut quick_deaths = 0;
    loop {
        // All that may fail comes before the fork: from there on it only watches.
        let forked = Watch::new(&signals).and_then(|(watch, theirs)| {
            let fork = daemonize::fork()?;
            Ok((watch, theirs, fork))
        });
        let (watch, supervisor) = match forked {
            Ok((_, theirs, Fork::Child)) => return Ok(Role::Supervisor(theirs, since)),
            Ok((watch, theirs, Fork::Parent(pid))) => {
                drop(theirs);
                (watch, pid)
            }
            Err(_no_room) => {
                std::thread::sleep(pause);
                pause = (pause * 2).min(MOST_PAUSE);
                continue;
            }
        };
        since = Continuity::Kept;
        let begun = Instant::now();
        if watch.until_end_of(supervisor, &signals) == Some(Exit::Code(0)) {
            return Ok(Role::Finished);
        }
        if begun.elapsed() < MOST_PAUSE {
            quick_deaths += 1;
        } else {
            quick_deaths = 0;
        }
        if quick_deaths >= MOST_QUICK_DEATHS && exit::peek_any().is_err() {
            // No supervisor can live here and there is no child to guard: whoever needs one
            // starts it, and is told why it does not start.
            return Ok(Role::Finished);
        }
        // One that dies at once must not eat the machine; one that ran well is replaced at once.
        if begun.elapsed() > MOST_PAUSE {
            pause = LEAST_PAUSE;
        } else {
            std::thread::sleep(pause);
            pause = (pause * 2).min(MOST_PAUSE);
        }
    }
}

/// How often a supervisor may die within [`MOST_PAUSE`] before a guardian without children gives up.
const MOST_QUICK_DEATHS: u32 = 5;
const LEAST_PAUSE: Duration = Duration::from_millis(1);
const MOST_PAUSE: Duration = Duration::from_secs(1);
const SIGNALS: u64 = 1;
const LINK: u64 = 2;

/// The guardian's end of the link, and what wakes it.
struct Watch {
    link: UnixStream,
    epoll: Epoll,
}

impl Watch {
    /// Also gives the supervisor's end of the link.
    fn new(signals: &Signals) -> io::Result<(Self, UnixStream)> {
        let (link, theirs) = UnixStream::pair()?;
        link.set_nonblocking(true)?;
        let epoll = Epoll::new()?;
        epoll.add(signals, SIGNALS, Interest::Read)?;
        epoll.add(&link, LINK, Interest::Read)?;
        Ok((Self { link, epoll }, theirs))
    }

    /// Waits until `supervisor` ends, passing on the ends of its predecessors' children. `None`
    /// when it is gone and nobody knows how it ended.
    fn until_end_of(mut self, supervisor: i32, signals: &Signals) -> Option<Exit> {
        let mut ready = Vec::new();
        // The child that the supervisor was told of and has not acknowledged.
        let mut told = None;
        let mut acks = Vec::new();
        loop {
            signals.drain();
            match exit::reap_pid(supervisor) {
                Ok(None) => {}
                Ok(Some(ended)) => return Some(ended.exit),
                Err(_not_a_child) => return None,
            }
            if take_acks(&mut self.link, &mut acks, told)
                && let Some(pid) = told.take()
            {
                let _not_a_child = exit::reap_pid(pid);
            }
            if told.is_none()
                && let Some(ended) = next_child(supervisor)
                // Its buffer is empty, it was told of nothing else: this fits, or it is dying.
                && self.link.write_all(&news(ended)).is_ok()
            {
                told = Some(ended.pid);
            }
            let wake_again = told.is_none() && next_child(supervisor).is_some();
            let timeout = wake_again.then_some(MOST_PAUSE);
            if self.epoll.wait(&mut ready, timeout).is_err() {
                // Children are guarded without being woken, too.
                std::thread::sleep(MOST_PAUSE);
            }
            if ready.iter().any(|ready| ready.token == LINK) && link_is_closed(&self.link) {
                // The supervisor's end is gone; its SIGCHLD follows.
                let _not_watched = self.epoll.remove(&self.link);
            }
        }
    }
}

/// A child that ended, other than the supervisor.
fn next_child(supervisor: i32) -> Option<Waited> {
    exit::peek_any()
        .ok()
        .flatten()
        .filter(|ended| ended.pid != supervisor)
}

fn link_is_closed(link: &UnixStream) -> bool {
    taskwright_native::events::is_at_end(link)
}

fn take_acks(link: &mut UnixStream, acks: &mut Vec<u8>, told: Option<i32>) -> bool {
    let mut buffer = [0; 64];
    while let Ok(count) = link.read(&mut buffer) {
        if count == 0 {
            break;
        }
        acks.extend(buffer.iter().take(count));
    }
    let mut acknowledged = false;
    while let Some((ack, rest)) = acks.split_first_chunk::<ACK_BYTES>() {
        acknowledged |= Some(i32::from_le_bytes(*ack)) == told;
        *acks = rest.to_vec();
    }
    acknowledged
}

fn news(ended: Waited) -> [u8; NEWS_BYTES] {
    let (kind, number) = match ended.exit {
        Exit::Code(code) => (0, i32::from(code)),
        Exit::Signal(signal) => (1, signal),
    };
    let ([a, b, c, d], [e, f, g, h]) = (ended.pid.to_le_bytes(), number.to_le_bytes());
    [a, b, c, d, kind, e, f, g, h]
}

/// The supervisor's end of the link.
pub(crate) struct GuardianLink {
    stream: UnixStream,
    input: Vec<u8>,
}

impl GuardianLink {
    pub(crate) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        let input = Vec::new();
        Ok(Self { stream, input })
    }

    pub(crate) fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// The next child of the guardian that ended; an error when the guardian is gone.
    pub(crate) fn next(&mut self) -> io::Result<Option<Waited>> {
        let mut buffer = [0; 64];
        loop {
            if let Some((&[a, b, c, d, kind, e, f, g, h], _)) =
                self.input.split_first_chunk::<NEWS_BYTES>()
            {
                self.input.drain(..NEWS_BYTES);
                let number = i32::from_le_bytes([e, f, g, h]);
                return Ok(Some(Waited {
                    pid: i32::from_le_bytes([a, b, c, d]),
                    exit: if kind == 0 {
                        Exit::Code(u8::try_from(number).unwrap_or(u8::MAX))
                    } else {
                        Exit::Signal(number)
                    },
                }));
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.input.extend(buffer.iter().take(count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    /// The end of `pid` is written down: the guardian may take the zombie away.
    pub(crate) fn acknowledge(&mut self, pid: i32) -> io::Result<()> {
        // One at a time is told and acknowledged, so the buffer is never full.
        self.stream.write_all(&pid.to_le_bytes())
    }
}
