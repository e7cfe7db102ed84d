//! What wakes a single-threaded loop: epoll, signalfd and inotify, each behind a small type.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{Timespec, epoll};
use rustix::fs::inotify;

/// What a descriptor is watched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Something to read, as long as there is.
    Read,
    /// Room to write, as long as there is.
    Write,
    /// Both.
    ReadWrite,
    /// Only its end (`EPOLLHUP`), which the kernel reports unasked.
    Hangup,
}

impl Interest {
    fn flags(self) -> epoll::EventFlags {
        match self {
            Self::Read => epoll::EventFlags::IN,
            Self::Write => epoll::EventFlags::OUT,
            Self::ReadWrite => epoll::EventFlags::IN | epoll::EventFlags::OUT,
            Self::Hangup => epoll::EventFlags::empty(),
        }
    }
}

/// A descriptor that has something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// The token it was added with.
    pub token: u64,
    /// Something to read, or its end.
    pub readable: bool,
    /// Room to write, or its end.
    pub writable: bool,
}

/// A set of descriptors to wait for.
pub struct Epoll {
    fd: OwnedFd,
    events: Vec<epoll::Event>,
}

const MOST_EVENTS: usize = 256;

impl Epoll {
    /// An empty set.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn new() -> io::Result<Self> {
        let fd = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self {
            fd,
            events: Vec::with_capacity(MOST_EVENTS),
        })
    }

    /// Watches `source` under `token`.
    ///
    /// # Errors
    /// When the kernel has no room for it.
    pub fn add(&self, source: &impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        let data = epoll::EventData::new_u64(token);
        Ok(epoll::add(&self.fd, source, data, interest.flags())?)
    }

    /// Changes what `source` is watched for.
    ///
    /// # Errors
    /// When it is not watched.
    pub fn modify(&self, source: &impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        let data = epoll::EventData::new_u64(token);
        Ok(epoll::modify(&self.fd, source, data, interest.flags())?)
    }

    /// Watches `source` no longer.
    ///
    /// # Errors
    /// When it is not watched.
    pub fn remove(&self, source: &impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.fd, source)?)
    }

    /// Waits until something is ready or `timeout` is over, and puts it into `ready`.
    ///
    /// # Errors
    /// Only for faults of the program; an interruption is an empty answer.
    pub fn wait(&mut self, ready: &mut Vec<Ready>, timeout: Option<Duration>) -> io::Result<()> {
        ready.clear();
        self.events.clear();
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let buffer = rustix::buffer::spare_capacity(&mut self.events);
        match epoll::wait(&self.fd, buffer, timeout.as_ref()) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        ready.extend(self.events.iter().map(|event| {
            let (flags, data) = (event.flags, event.data);
            let end = flags.intersects(epoll::EventFlags::HUP | epoll::EventFlags::ERR);
            Ready {
                token: data.u64(),
                readable: end || flags.contains(epoll::EventFlags::IN),
                writable: end || flags.contains(epoll::EventFlags::OUT),
            }
        }));
        Ok(())
    }
}

impl AsFd for Epoll {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Signals as something to read. All of them are blocked for this thread, so
/// none but KILL and STOP does anything unread.
pub struct Signals(SignalFd);

impl Signals {
    /// Blocks every signal and reads `SIGCHLD` from now on. The others stay pending for ever,
    /// which is how this process survives them.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn children_only() -> io::Result<Self> {
        SigSet::all().thread_block()?;
        let mut wanted = SigSet::empty();
        wanted.add(Signal::SIGCHLD);
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        Ok(Self(SignalFd::with_flags(&wanted, flags)?))
    }

    /// Takes what there is; true when a child changed.
    pub fn drain(&self) -> bool {
        let mut some = false;
        // Pending ordinary signals merge into one, so this ends.
        while let Ok(Some(_)) = self.0.read_signal() {
            some = true;
        }
        some
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Something happened to a watched path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The path behind this watch was written to. A one-shot watch is gone with it.
    Changed(i32),
    /// The watch is gone.
    Gone(i32),
    /// Notices were lost: look at everything.
    Overflow,
}

/// Watches on files and directories.
pub struct Inotify(OwnedFd);

impl Inotify {
    /// No watch yet.
    ///
    /// # Errors
    /// When the user has no inotify instance left.
    pub fn new() -> io::Result<Self> {
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        Ok(Self(inotify::init(flags)?))
    }

    /// Watches `path` for the next write to it, or in it if it is a directory; once.
    ///
    /// # Errors
    /// `ENOSPC` when the user's watches are used up.
    pub fn next_write(&self, path: &Path) -> io::Result<i32> {
        let flags = inotify::WatchFlags::MODIFY
            | inotify::WatchFlags::ONESHOT
            | inotify::WatchFlags::DONT_FOLLOW;
        Ok(inotify::add_watch(&self.0, path, flags)?)
    }

    /// Watches no longer. A watch that is gone already is fine.
    pub fn forget(&self, watch: i32) {
        let _gone_already = inotify::remove_watch(&self.0, watch);
    }

    /// Reads what there is, at most some hundreds.
    ///
    /// # Errors
    /// Only for faults of the program.
    pub fn read(&self, notices: &mut Vec<Notice>) -> io::Result<()> {
        let mut buffer = [MaybeUninit::uninit(); 16 * 1024];
        let mut reader = inotify::Reader::new(&self.0, &mut buffer);
        loop {
            match reader.next() {
                Ok(event) => {
                    let flags = event.events();
                    if flags.contains(inotify::ReadFlags::QUEUE_OVERFLOW) {
                        notices.push(Notice::Overflow);
                    } else if flags.contains(inotify::ReadFlags::IGNORED) {
                        notices.push(Notice::Gone(event.wd()));
                    } else {
                        notices.push(Notice::Changed(event.wd()));
                    }
                }
                Err(rustix::io::Errno::AGAIN) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            if reader.is_buffer_empty() {
                return Ok(());
            }
        }
    }
}

impl AsFd for Inotify {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Whether the other end of a socket is closed and everything from it was read.
#[must_use]
pub fn is_at_end(socket: &impl AsFd) -> bool {
    let mut byte = [0_u8];
    let flags = rustix::net::RecvFlags::PEEK | rustix::net::RecvFlags::DONTWAIT;
    match rustix::net::recv(socket, &mut byte[..], flags) {
        Ok((count, _)) => count == 0,
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => false,
        Err(_) => true,
    }
}
