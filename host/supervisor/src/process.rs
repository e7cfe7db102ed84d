//! The supervisor proper: one thread, one loop, no waiting anywhere but in `epoll_wait`.
//!
//! | file | about |
//! |---|---|
//! | `requests` | what daemons ask, and their answers |
//! | `starting` | intent, process, record |
//! | `under_way` | starts whose child is somebody else's to stop: never waited for |
//! | `command` | a request as the kernel takes it, and what the kernel says |
//! | `inside` | what a unit takes of the process whose namespaces it enters |
//! | `confining` | from a confinement to limits, groups, user and mounts |
//! | `enforceable` | what of that this machine can do |
//! | `ends` | how main processes end: written down, then told, then reaped |
//! | `killing` | stop, kill and purge of whole trees |
//! | `recover` | what an earlier supervisor left |
//! | `keeping` | the size of output files |

mod command;
mod confining;
mod ends;
mod enforceable;
mod inside;
mod keeping;
mod killing;
mod recover;
mod requests;
mod starting;
mod under_way;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use taskwright_model::{TaskId, Timestamp};
use taskwright_native::events::{Epoll, Inotify, Interest, Ready, Signals};
use taskwright_native::resource::ResourceGroups;
use taskwright_native::{Trees, daemonize, process};

use crate::guardian::{Continuity, GuardianLink};
use crate::log::Log;
use crate::options::SuperviseOptions;
use crate::place::{LOG, Place};
use crate::record::Record;
use crate::session::Session;
use crate::unit::{StartId, Timer, Timers, UnitId, Units};
use crate::wire::Answer;

/// What tasks get back of what this process changed for itself.
pub(crate) struct Limits {
    /// The limit of open files it was started with, soft and hard.
    pub(crate) open_files: (u64, u64),
    /// Its `oom_score_adj`, if it was changed.
    pub(crate) oom_score: Option<String>,
}

const LISTENER: u64 = 1;
const SIGNALS: u64 = 2;
const GUARDIAN: u64 = 3;
const INOTIFY: u64 = 4;
const START_BIT: u64 = 1 << 61;
const SESSION_BIT: u64 = 1 << 62;
const UNIT_BIT: u64 = 1 << 63;

/// How long a supervisor that owns nothing waits for a daemon.
const IDLE: Duration = Duration::from_secs(30);

/// More daemons than this at once are not let in: one is usual.
const MOST_SESSIONS: usize = 16;

/// Everything the supervisor knows.
pub(crate) struct Supervisor {
    options: SuperviseOptions,
    limits: Limits,
    null: File,
    started_at: Timestamp,
    log: Log,
    /// What of the log could not be read, for people.
    damage: String,
    trees: Trees,
    /// Groups that limit trees.
    resources: ResourceGroups,
    units: Units,
    timers: Timers,
    epoll: Epoll,
    signals: Signals,
    inotify: Option<Inotify>,
    /// Which task's output is behind a watch.
    watches: HashMap<i32, TaskId>,
    listener: UnixListener,
    guardian: Option<GuardianLink>,
    sessions: HashMap<u64, Session>,
    next_session: u64,
    /// The parent of the last task directory: the data directory, nearly always.
    parent_dir: Option<(PathBuf, OwnedFd)>,
    /// Units whose main process ended this turn.
    to_tidy: Vec<UnitId>,
    /// Ended children that are not reaped yet: not before their end is written down, and not
    /// before it is told, because people wait for that.
    unreaped: Vec<OwnedFd>,
    /// The guardian's child whose end it is told was written down, once it is.
    to_acknowledge: Option<i32>,
    waiters: Vec<killing::Waiter>,
    /// Starts whose program does not run yet.
    under_way: under_way::UnderWay,
    /// Who is answered when a unit that was just started has ended, or a moment later.
    asked: HashMap<UnitId, requests::Asked>,
    write_again_due: bool,
    orphans_due: bool,
    left_behind_due: bool,
    idle_due: bool,
    finished: bool,
}

impl Supervisor {
    /// Takes over what an earlier supervisor left, and listens.
    pub(crate) fn begin(
        options: SuperviseOptions,
        place: &Place,
        limits: Limits,
        link: UnixStream,
        since: Continuity,
    ) -> io::Result<Self> {
        daemonize::become_subreaper()?;
        let (log, found) = Log::open(&place.file(LOG))?;
        let history = recover::History::of(found);
        let previous = history
            .place
            .as_ref()
            .map(|(level, base)| (*level, base.as_path()));
        let trees = Trees::open(options.tree_level, &place.nickname(), previous);
        let epoll = Epoll::new()?;
        let signals = Signals::children_only()?;
        epoll.add(&signals, SIGNALS, Interest::Read)?;
        let guardian = GuardianLink::new(link)?;
        epoll.add(guardian.stream(), GUARDIAN, Interest::Read)?;
        let inotify = Inotify::new().ok();
        if let Some(inotify) = &inotify {
            epoll.add(inotify, INOTIFY, Interest::Read)?;
        }
        let listener = listen(place)?;
        epoll.add(&listener, LISTENER, Interest::Read)?;
        let mut supervisor = Self {
            null: File::options().read(true).write(true).open("/dev/null")?,
            started_at: now(),
            damage: history.damage.clone(),
            options,
            limits,
            log,
            trees,
            resources: ResourceGroups::new(&place.nickname()),
            units: Units::default(),
            timers: Timers::default(),
            epoll,
            signals,
            inotify,
            watches: HashMap::new(),
            listener,
            guardian: Some(guardian),
            sessions: HashMap::new(),
            next_session: 1,
            parent_dir: None,
            to_tidy: Vec::new(),
            unreaped: Vec::new(),
            to_acknowledge: None,
            waiters: Vec::new(),
            under_way: under_way::UnderWay::default(),
            asked: HashMap::new(),
            write_again_due: false,
            orphans_due: false,
            left_behind_due: false,
            idle_due: false,
            finished: false,
        };
        supervisor.take_over(history, since)?;
        supervisor.end_if_idle_later();
        Ok(supervisor)
    }

    /// Works until it is told to end while it has nothing to own.
    pub(crate) fn run(mut self) -> io::Result<()> {
        let mut ready = Vec::new();
        while !self.finished {
            let timeout = self.timeout();
            self.epoll.wait(&mut ready, timeout)?;
            self.turn(&ready);
        }
        self.trees.close();
        self.resources.close();
        Ok(())
    }

    /// Everything that one wake-up brings. Ends come first: they are what people wait for.
    fn turn(&mut self, ready: &[Ready]) {
        let ended: Vec<UnitId> = ready
            .iter()
            .filter(|ready| ready.token & UNIT_BIT != 0)
            .map(|ready| UnitId(ready.token & !UNIT_BIT))
            .collect();
        self.main_processes_ready(&ended);
        for ready in ready.iter().filter(|ready| ready.token & UNIT_BIT == 0) {
            match ready.token {
                LISTENER => self.accept(),
                SIGNALS => self.children_changed(),
                GUARDIAN => self.guardian_speaks(),
                INOTIFY => self.outputs_written(),
                start if start & START_BIT != 0 => {
                    self.start_moved(StartId(start & !START_BIT));
                }
                session => self.session_ready(session & !SESSION_BIT, ready.readable),
            }
        }
        self.serve_waiting_requests();
        let now = Instant::now();
        while let Some(timer) = self.timers.take_due(now) {
            self.timer(timer);
        }
        self.write_down();
        self.speak();
        self.reap_written();
        self.tidy_up();
    }

    /// Reaps the children whose end is written down.
    fn reap_written(&mut self) {
        if self.log.has_unwritten() {
            return;
        }
        for pidfd in self.unreaped.drain(..) {
            let _its_status_is_written = taskwright_native::exit::reap(&pidfd);
        }
        self.acknowledge_written();
    }

    fn timeout(&self) -> Option<Duration> {
        let waiting = |session: &Session| {
            (session.more_to_serve || !session.to_report.is_empty()) && session.has_room()
        };
        if self.sessions.values().any(waiting) || !self.to_tidy.is_empty() {
            return Some(Duration::ZERO);
        }
        let next = self.timers.next()?;
        Some(next.saturating_duration_since(Instant::now()))
    }

    fn timer(&mut self, timer: Timer) {
        match timer {
            Timer::Answer(id) => {
                let _whom = self.answer_start(id);
            }
            Timer::Start(id) => self.start_is_overdue(id),
            Timer::Kill(id) => self.grace_is_over(id),
            Timer::KillAgain(id) => self.kill_round(id),
            Timer::Output(id) => self.look_at_output(id),
            Timer::Orphans => self.reap_orphans(),
            Timer::LeftBehind => self.look_at_left_behind(),
            Timer::WriteAgain => self.write_again_due = false,
            Timer::Idle => self.end_if_idle(),
        }
    }

    fn set_timer(&mut self, after: Duration, timer: Timer) {
        self.timers.set(Instant::now() + after, timer);
    }

    /// Writes what was gathered; with a full disk it stays gathered and is tried again.
    fn write_down(&mut self) {
        if let Err(error) = self.log.flush() {
            say(&format!("the log cannot be written, trying again: {error}"));
            if !self.write_again_due {
                self.write_again_due = true;
                self.set_timer(Duration::from_secs(1), Timer::WriteAgain);
            }
        }
    }

    /// Replaces a log that grew long by what the units are now. Only for the end of a turn: in
    /// the middle of one the log already tells of what the units do not show yet.
    fn shorten_log(&mut self) {
        if self.log.has_unwritten() || !self.log.wants_rewriting() {
            return;
        }
        let records = std::iter::once(begun(&self.trees))
            .chain(self.units.iter().flat_map(|(_, unit)| unit.records()))
            .chain(self.under_way.records());
        if let Err(error) = self.log.rewrite(records) {
            say(&format!("the log cannot be rewritten: {error}"));
        }
    }

    fn accept(&mut self) {
        loop {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) => {
                    if error.kind() != io::ErrorKind::WouldBlock {
                        // Out of descriptors, and the listener stays ready: do not spin.
                        std::thread::sleep(Duration::from_millis(10));
                    }
                    return;
                }
            };
            let peer = daemonize::peer(&stream);
            let own = daemonize::this_user();
            if !peer.is_ok_and(|(user, _)| user == own || user == 0) {
                say("a connection of another user was refused");
                continue;
            }
            if self.sessions.len() >= MOST_SESSIONS {
                say("a connection was refused: there are too many");
                continue;
            }
            let id = self.next_session;
            self.next_session += 1;
            let added = Session::new(stream).and_then(|session| {
                self.epoll
                    .add(&session.stream, SESSION_BIT | id, Interest::Read)?;
                Ok(session)
            });
            if let Ok(session) = added {
                self.sessions.insert(id, session);
            }
        }
    }

    /// Adds due reports and writes to every daemon what goes without waiting.
    fn speak(&mut self) {
        let mut broken = Vec::new();
        for (id, session) in &mut self.sessions {
            while session.has_room()
                && let Some(unit) = session.to_report.pop_front()
            {
                let unit = self.units.get(unit).filter(|unit| !unit.released);
                if let Some(report) = unit.and_then(ends::report) {
                    session.answer(0, &Answer::Report(report));
                }
            }
            if session.wants_to_write() && session.write().is_err() {
                broken.push(*id);
                continue;
            }
            if session.watch(&self.epoll, SESSION_BIT | id).is_err() {
                broken.push(*id);
            }
        }
        for id in broken {
            self.leave(id);
        }
    }

    /// A daemon is gone. It may come back; if it does not, and nothing is owned, so does this.
    fn leave(&mut self, session: u64) {
        if let Some(session) = self.sessions.remove(&session) {
            // Closing is not enough: children on their way have copies of every descriptor.
            let _closed_with_it = self.epoll.remove(&session.stream);
            let _is_closed_already = session.stream.shutdown(Shutdown::Both);
        }
        self.end_if_idle_later();
    }

    fn end_if_idle_later(&mut self) {
        if self.sessions.is_empty() && !self.idle_due {
            self.idle_due = true;
            self.set_timer(IDLE, Timer::Idle);
        }
    }

    /// Whether nothing of any unit is known, or about to be.
    fn is_idle(&self) -> bool {
        self.units.is_empty() && self.under_way.is_empty()
    }

    fn end_if_idle(&mut self) {
        self.idle_due = false;
        if self.sessions.is_empty() && self.is_idle() {
            self.finished = true;
        } else {
            self.end_if_idle_later();
        }
    }
}

/// The first record of every supervisor.
fn begun(trees: &Trees) -> Record {
    Record::Begun {
        boot: process::boot_id(),
        level: trees.level(),
        base: trees.base().to_owned(),
    }
}

fn listen(place: &Place) -> io::Result<UnixListener> {
    let path = place.socket();
    // The lock says that nobody listens there any more.
    let _was_none = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn now() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// A line for people, in the file of messages.
fn say(line: &str) {
    use std::io::Write as _;
    use std::sync::atomic::{AtomicU32, Ordering};
    /// The file is emptied at the next start only, so one process may not fill the disk.
    const MOST_LINES: u32 = 10_000;
    static SAID: AtomicU32 = AtomicU32::new(0);
    if SAID.fetch_add(1, Ordering::Relaxed) >= MOST_LINES {
        return;
    }
    let _nobody_else_to_tell = writeln!(io::stderr(), "{} {line}", now().as_millis());
}

#[cfg(test)]
mod tests;
