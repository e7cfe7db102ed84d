//! Who is told when a log is written or closed: one watch for each log, one reader for all.
//!
//! A quiet container costs a watch of the kernel and nothing else. Where no watch can be had, its
//! pump looks by itself, ever more rarely.

use std::collections::HashMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use tokio::io::unix::AsyncFd;
use tokio::sync::{Notify, mpsc};

/// Between two looks at what the kernel has to tell: busy logs are told of once for many writes.
const PAUSE: Duration = Duration::from_millis(5);

/// All watches.
pub(crate) struct Notices {
    watching: Option<Watching>,
    /// Counts the runtime's lives: one that died closed every log, which then means nothing.
    lives: AtomicU64,
    /// Which container's log was closed: it has probably ended.
    closed: mpsc::Sender<String>,
}

struct Watching {
    inotify: AsyncFd<OwnedFd>,
    bells: Mutex<HashMap<i32, Arc<Bell>>>,
}

/// Rings when one log is written or closed.
pub(crate) struct Bell {
    container: String,
    rung: Notify,
    /// In which life of the runtime the log was closed, counted from 1; 0 if it was not.
    closed_in: AtomicU64,
}

/// One log's watch; ends when dropped.
pub(crate) struct Watch {
    notices: Arc<Notices>,
    descriptor: i32,
    bell: Arc<Bell>,
}

impl Notices {
    /// `closed` gets the ids of containers whose log was closed. Must be made within a runtime of
    /// tokio.
    pub(crate) fn new(closed: mpsc::Sender<String>) -> Self {
        let watching = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)
            .map_err(io::Error::from)
            .and_then(registered)
            .map(|inotify| Watching {
                inotify,
                bells: Mutex::default(),
            });
        let watching = watching
            .inspect_err(|error| {
                tracing::warn!(%error, "containers' logs cannot be watched; they are polled");
            })
            .ok();
        Self {
            watching,
            lives: AtomicU64::new(1),
            closed,
        }
    }

    /// The runtime went away, or may have: it closed all logs.
    pub(crate) fn runtime_went_away(&self) {
        self.lives.fetch_add(1, Ordering::AcqRel);
    }

    /// Watches a log; `None` where no watch can be had.
    pub(crate) fn watch(self: &Arc<Self>, path: &Path, container: &str) -> Option<Watch> {
        let watching = self.watching.as_ref()?;
        // Held while the watch is made: its first ring must find its bell.
        let mut bells = watching.bells.lock();
        let flags = WatchFlags::MODIFY | WatchFlags::CLOSE_WRITE | WatchFlags::DONT_FOLLOW;
        let descriptor = inotify::add_watch(watching.inotify.get_ref(), path, flags).ok()?;
        let bell = Arc::new(Bell {
            container: container.to_owned(),
            rung: Notify::new(),
            closed_in: AtomicU64::new(0),
        });
        bells.insert(descriptor, bell.clone());
        Some(Watch {
            notices: self.clone(),
            descriptor,
            bell,
        })
    }

    /// Rings bells, for ever. To be run once, by whoever made this.
    pub(crate) async fn ring(&self) {
        let Some(watching) = &self.watching else {
            return;
        };
        loop {
            let Ok(mut ready) = watching.inotify.readable().await else {
                return;
            };
            self.read(watching);
            ready.clear_ready();
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn read(&self, watching: &Watching) {
        let mut buffer = [MaybeUninit::uninit(); 16 * 1024];
        let mut reader = inotify::Reader::new(watching.inotify.get_ref(), &mut buffer);
        loop {
            match reader.next() {
                Ok(event) => self.told(watching, event.wd(), event.events()),
                Err(rustix::io::Errno::INTR) => {}
                // Everything is read; or nothing can be, and pumps look by themselves.
                Err(_) => return,
            }
        }
    }

    fn told(&self, watching: &Watching, descriptor: i32, what: ReadFlags) {
        let mut bells = watching.bells.lock();
        if what.contains(ReadFlags::QUEUE_OVERFLOW) {
            bells.values().for_each(|bell| bell.rung.notify_one());
        }
        if what.contains(ReadFlags::IGNORED) {
            bells.remove(&descriptor);
        }
        let Some(bell) = bells.get(&descriptor) else {
            return;
        };
        if what.contains(ReadFlags::CLOSE_WRITE) {
            let life = self.lives.load(Ordering::Acquire);
            bell.closed_in.store(life, Ordering::Release);
            // Only a hint: where the channel is full, everything is looked at soon anyway.
            let _full = self.closed.try_send(bell.container.clone());
        }
        bell.rung.notify_one();
    }
}

#[expect(
    deprecated,
    reason = "what replaces it is unsafe; an OwnedFd owns its descriptor, which is all it asks for"
)]
fn registered(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(descriptor)
}

impl Watch {
    /// Resolves when the log was written or closed since the last time.
    pub(crate) async fn rung(&self) {
        self.bell.rung.notified().await;
    }

    /// Whether whoever wrote the log has closed it, and lives.
    pub(crate) fn is_closed(&self) -> bool {
        let life = self.notices.lives.load(Ordering::Acquire);
        self.bell.closed_in.load(Ordering::Acquire) == life
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let Some(watching) = &self.notices.watching else {
            return;
        };
        let mut bells = watching.bells.lock();
        // The same file watched anew has the same descriptor, and another bell.
        if bells
            .get(&self.descriptor)
            .is_some_and(|bell| Arc::ptr_eq(bell, &self.bell))
        {
            bells.remove(&self.descriptor);
            let _gone = inotify::remove_watch(watching.inotify.get_ref(), self.descriptor);
        }
    }
}
