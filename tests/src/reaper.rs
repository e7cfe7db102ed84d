//! This process as subreaper, and children that have an owner.
//!
//! Tests kill daemons and supervisors; what those leave becomes ours and not pid 1's, which
//! on some machines reaps only now and then. A thread takes orphans away as they die. It must
//! never take a child that a test is going to wait for, so those are registered.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use crate::processes::{self, Process};

const PAUSE: Duration = Duration::from_millis(20);

/// The pids of children that somebody waits for.
fn owned() -> MutexGuard<'static, BTreeSet<u32>> {
    static OWNED: OnceLock<Mutex<BTreeSet<u32>>> = OnceLock::new();
    let owned = OWNED.get_or_init(|| {
        let own = rustix::process::getpid();
        if let Err(error) = rustix::process::set_child_subreaper(Some(own)) {
            panic!("become a subreaper: {error}");
        }
        std::thread::spawn(reap_for_ever);
        Mutex::default()
    });
    // A test that failed while it held the lock left it as good as before.
    owned.lock().unwrap_or_else(PoisonError::into_inner)
}

fn reap_for_ever() {
    loop {
        std::thread::sleep(PAUSE);
        // Held over the look and the wait, so that no pid changes its owner in between.
        let owned = owned();
        for pid in children() {
            if !owned.contains(&pid)
                && let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw)
            {
                let _dead_or_not = waitpid(Some(pid), WaitOptions::NOHANG);
            }
        }
    }
}

/// Runs something that waits for children of its own by means of its own: nobody takes them away
/// meanwhile. Others wait for their children until it is done, so it is to be short.
pub fn undisturbed<T>(run: impl FnOnce() -> T) -> T {
    let _held = owned();
    run()
}

/// The children of every thread of this process: orphans go to any of them.
fn children() -> Vec<u32> {
    let Ok(threads) = std::fs::read_dir("/proc/self/task") else {
        return Vec::new();
    };
    threads
        .flatten()
        .filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok())
        .flat_map(|text| {
            text.split_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .collect::<Vec<u32>>()
        })
        .collect()
}

/// A child process with an owner: killed and waited for at the latest when it is dropped.
#[derive(Debug)]
pub struct Owned {
    child: Child,
    ended: Option<ExitStatus>,
}

impl Owned {
    /// Starts `command`.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn spawn(command: &mut Command) -> io::Result<Self> {
        let mut owned = owned();
        let child = command.spawn()?;
        owned.insert(child.id());
        Ok(Self { child, ended: None })
    }

    /// Its pid.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The child, for its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            let mut owned = owned();
            match self.child.try_wait() {
                Ok(None) => {}
                Ok(Some(status)) => {
                    self.ended = Some(status);
                    owned.remove(&self.child.id());
                }
                Err(error) => panic!("wait for process {}: {error}", self.child.id()),
            }
        }
        self.ended
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it does not end within `deadline`.
    pub fn wait(&mut self, deadline: Duration) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            assert!(
                begun.elapsed() < deadline,
                "process {} did not end within {deadline:?}",
                self.pid()
            );
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Sends a signal, unless it has ended.
    pub fn signal(&mut self, signal: Signal) {
        if self.ended().is_none() {
            send(self.pid(), signal);
        }
    }

    /// Kills it and waits for its end.
    pub fn kill(&mut self) -> ExitStatus {
        self.signal(Signal::KILL);
        self.wait(Duration::from_secs(20))
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Sends a signal to any process; one that is gone is no error.
pub fn send(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _may_be_gone = kill_process(pid, signal);
    }
}

/// `kill -9` to any process; waits until it is dead.
///
/// # Panics
/// When it does not die.
pub fn kill(process: &Process) {
    send(process.pid, Signal::KILL);
    crate::eventually(crate::SOON, "a killed process is dead", || {
        // Another process may have its pid by now.
        processes::look(process.pid).is_none_or(|now| now.start_ticks != process.start_ticks)
    });
}

/// An exit status as a shell shows it.
#[must_use]
pub fn shell_code(status: ExitStatus) -> i32 {
    status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}
