//! What daemons ask, and their answers.

use std::time::{Duration, Instant};

use taskwright_capability::{SpawnError, StopError};
use taskwright_model::UnitKey;
use taskwright_native::{daemonize, process};

use super::Supervisor;
use super::starting::Started;
use super::under_way::{Asker, Wants};
use crate::session::Said;
use crate::unit::{Main, Timer, Unit, UnitId};
use crate::wire::{ANSWERS_WITH_ENDS, Answer, ENDING, PROTOCOL_VERSION, Request, SupervisorStatus};

/// How many units one daemon may start before ends and others are looked at again.
const MOST_STARTS_PER_TURN: usize = 2;
const MOST_REQUESTS_PER_TURN: usize = 128;
/// Units in one page of a list: below the longest frame even with the longest names.
const UNITS_PER_PAGE: usize = 4096;

/// How long the answer to a start waits for the end: most short commands are over by then, and
/// their daemon needs to hear of them once only.
const END_AWAITED: Duration = Duration::from_millis(2);

/// Somebody who asked for a start.
pub(super) struct Asked {
    session: u64,
    request: u64,
    until: Instant,
}

/// Nothing of its kind can be answered now: it comes later, from a timer.
pub(super) enum Reply {
    Now(Answer),
    Later,
}

impl Supervisor {
    pub(super) fn session_ready(&mut self, id: u64, readable: bool) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        if readable && session.has_room() {
            if session.read().is_err() {
                self.leave(id);
                return;
            }
            session.more_to_serve = true;
        }
    }

    /// Serves every daemon that said something, each for a bounded time.
    pub(super) fn serve_waiting_requests(&mut self) {
        let waiting: Vec<u64> = self
            .sessions
            .iter()
            .filter(|(_, session)| session.more_to_serve && session.has_room())
            .map(|(id, _)| *id)
            .collect();
        for id in waiting {
            self.serve(id);
        }
    }

    fn serve(&mut self, id: u64) {
        let mut starts = 0;
        for _ in 0..MOST_REQUESTS_PER_TURN {
            let Some(session) = self.sessions.get_mut(&id) else {
                return;
            };
            let said = match session.next() {
                Ok(said) => said,
                Err(error) => {
                    super::say(&format!("a connection was closed: {error}"));
                    self.leave(id);
                    return;
                }
            };
            let (request_id, reply) = match said {
                Said::Nothing => {
                    session.more_to_serve = false;
                    return;
                }
                Said::Unknown(request_id, kind) => {
                    (request_id, Reply::Now(Answer::Unsupported { kind }))
                }
                Said::Request(request_id, request) => {
                    starts += usize::from(matches!(request, Request::Spawn(_)));
                    (request_id, self.carry_out(id, request_id, request))
                }
            };
            if let (Reply::Now(answer), Some(session)) = (reply, self.sessions.get_mut(&id)) {
                session.answer(request_id, &answer);
            }
            if starts >= MOST_STARTS_PER_TURN {
                return;
            }
        }
    }

    fn carry_out(&mut self, session: u64, id: u64, request: Request) -> Reply {
        Reply::Now(match request {
            Request::Hello { version } => {
                let version = version.min(PROTOCOL_VERSION);
                self.greet(session, version);
                Answer::Welcome { version }
            }
            Request::Spawn(_) if self.finished => {
                let detail = ENDING.to_owned();
                Answer::NotSpawned(SpawnError::Unavailable { detail })
            }
            Request::Spawn(request) => match self.start(*request) {
                Ok(Started::Now(unit)) => return self.answer_later(session, id, unit),
                Ok(Started::Before(unit)) => {
                    // Who asked first is not told of the end either: it is reported to both.
                    let _whom = self.answer_start(unit);
                    self.spawned(unit)
                }
                Ok(Started::OnItsWay(start)) => {
                    let asker = Asker {
                        session,
                        request: id,
                        wants: Wants::Start,
                    };
                    self.under_way.ask(start, [asker]);
                    return Reply::Later;
                }
                Err(error) => Answer::NotSpawned(error),
            },
            Request::Stop { unit, grace } if grace.is_zero() => {
                return self.kill(session, id, &unit);
            }
            Request::Stop { unit, grace } => {
                self.stop(&unit, grace);
                Answer::Done
            }
            Request::Signal { unit, signal } => match self.signal_main(&unit, signal) {
                Ok(()) => Answer::Done,
                Err(error) => Answer::NotDone(error),
            },
            Request::Inspect(unit) => match self.under_way.find(&unit) {
                // Neither that it runs nor that it never did would be true.
                Some(start) => {
                    let asker = Asker {
                        session,
                        request: id,
                        wants: Wants::State,
                    };
                    self.under_way.ask(start, [asker]);
                    return Reply::Later;
                }
                None => {
                    let found = self.units.find(&unit);
                    Answer::State(found.and_then(|id| self.units.get(id)).map(Unit::state))
                }
            },
            Request::List => {
                self.list(session, id);
                return Reply::Later;
            }
            Request::Release(unit) => {
                self.release(&unit);
                Answer::Done
            }
            Request::Purge(task) => return self.purge(session, id, task),
            Request::Enforceable => Answer::Enforceable(self.enforceable()),
            Request::Status => Answer::Status(self.status()),
            Request::ShutdownIfIdle => {
                if self.is_idle() {
                    self.finished = true;
                    Answer::Done
                } else {
                    let detail = "units are known to it".to_owned();
                    Answer::NotDone(StopError::Unavailable { detail })
                }
            }
        })
    }

    /// A daemon that says hello is told every end that was not released.
    fn greet(&mut self, id: u64, version: u32) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.version = Some(version);
            session.to_report = self
                .units
                .iter()
                .filter(|(_, unit)| unit.end().is_some() && !unit.released)
                .map(|(id, _)| id)
                .collect();
        }
    }

    /// Answers a start once the unit has ended, or [`END_AWAITED`] from now.
    fn answer_later(&mut self, session: u64, request: u64, unit: UnitId) -> Reply {
        let version = self.sessions.get(&session).and_then(|one| one.version);
        if version < Some(ANSWERS_WITH_ENDS) {
            return Reply::Now(self.spawned(unit));
        }
        let until = Instant::now() + END_AWAITED;
        self.timers.set(until, Timer::Answer(unit));
        let asked = Asked {
            session,
            request,
            until,
        };
        self.asked.insert(unit, asked);
        Reply::Later
    }

    /// Answers somebody who waited for what becomes of a start, `alone` or with others.
    pub(super) fn answer_asker(
        &mut self,
        asker: Asker,
        became: &Result<UnitId, SpawnError>,
        alone: bool,
    ) {
        let reply = match (asker.wants, became) {
            (Wants::Start, Ok(unit)) if alone => {
                self.answer_later(asker.session, asker.request, *unit)
            }
            // Several are not told of the end: it is reported to all of them.
            (Wants::Start, Ok(unit)) => Reply::Now(self.spawned(*unit)),
            (Wants::Start, Err(error)) => Reply::Now(Answer::NotSpawned(error.clone())),
            (Wants::State, Ok(unit)) => {
                Reply::Now(Answer::State(self.units.get(*unit).map(Unit::state)))
            }
            (Wants::State, Err(_)) => Reply::Now(Answer::State(None)),
        };
        if let (Reply::Now(answer), Some(session)) = (reply, self.sessions.get_mut(&asker.session))
        {
            session.answer(asker.request, &answer);
        }
    }

    /// Answers who asked for a start, if nobody did yet; with whom it was answered.
    pub(super) fn answer_start(&mut self, id: UnitId) -> Option<u64> {
        let asked = self.asked.remove(&id)?;
        self.timers.forget(asked.until, Timer::Answer(id));
        let answer = self.spawned(id);
        let session = self.sessions.get_mut(&asked.session)?;
        session.answer(asked.request, &answer);
        Some(asked.session)
    }

    fn spawned(&self, id: UnitId) -> Answer {
        let gone = || {
            Answer::NotSpawned(SpawnError::Unavailable {
                detail: "its task was removed meanwhile".to_owned(),
            })
        };
        self.units
            .get(id)
            .map_or_else(gone, |unit| Answer::Spawned(unit.spawned()))
    }

    fn list(&mut self, session: u64, id: u64) {
        let units: Vec<_> = self
            .units
            .iter()
            .filter(|(_, unit)| !unit.released && !unit.purging)
            .map(|(_, unit)| (unit.key().clone(), unit.state()))
            .collect();
        let Some(session) = self.sessions.get_mut(&session) else {
            return;
        };
        let mut pages = units.chunks(UNITS_PER_PAGE).peekable();
        if pages.peek().is_none() {
            let (units, more) = (Vec::new(), false);
            session.answer(id, &Answer::Units { units, more });
        }
        while let Some(page) = pages.next() {
            let (units, more) = (page.to_vec(), pages.peek().is_some());
            session.answer(id, &Answer::Units { units, more });
        }
    }

    fn signal_main(&self, key: &UnitKey, signal: i32) -> Result<(), StopError> {
        let not_running = || StopError::NotRunning { unit: key.clone() };
        let unit = self.units.find(key).and_then(|id| self.units.get(id));
        let Some(Main::Running { pidfd, .. }) = unit.map(|unit| &unit.main) else {
            return Err(not_running());
        };
        process::signal(pidfd, signal).map_err(|error| {
            if error.kind() == std::io::ErrorKind::InvalidInput {
                let detail = format!("{signal} is no signal");
                StopError::Unavailable { detail }
            } else {
                not_running()
            }
        })
    }

    fn status(&self) -> SupervisorStatus {
        let (mut running, mut unreleased, mut left_behind) = (0, 0, 0);
        for (_, unit) in self.units.iter() {
            match (unit.end(), unit.released) {
                (None, _) => running += 1,
                (Some(_), false) => unreleased += 1,
                (Some(_), true) => left_behind += 1,
            }
        }
        SupervisorStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            supervisor_pid: daemonize::this_process().cast_unsigned(),
            guardian_pid: self
                .guardian
                .as_ref()
                .map_or(0, |_| daemonize::parent().cast_unsigned()),
            tree_level: self.trees.level().to_string(),
            tree_why: self.trees.why().to_owned(),
            started_at: self.started_at,
            running,
            unreleased,
            left_behind,
            damage: self.damage.clone(),
        }
    }
}
