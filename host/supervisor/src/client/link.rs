//! The one task that owns the connection: many requests under way, answers by id.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::time::Duration;

use taskwright_capability::{SpawnError, UnitReport};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};

use super::{SupervisorConfig, start};
use crate::wire::{self, Answer, PROTOCOL_VERSION, Request};

/// A request and who waits for its answer.
pub(super) struct Call {
    pub(super) request: Request,
    pub(super) reply: oneshot::Sender<Answer>,
}

/// Runs until every client is gone.
pub(super) async fn run(
    config: SupervisorConfig,
    stream: UnixStream,
    mut calls: mpsc::Receiver<Call>,
    reports: mpsc::Sender<UnitReport>,
) {
    let mut link = Link {
        under_way: BTreeMap::new(),
        next_id: 1,
        reports,
        unsent: VecDeque::new(),
        dismissed: false,
        version: None,
    };
    let mut stream = Some(stream);
    let mut pause = LEAST_PAUSE;
    loop {
        let connected = match stream.take() {
            Some(stream) => stream,
            None => match start::connect_or_start(&config).await {
                Ok(stream) => stream,
                Err(error) => {
                    tracing::warn!(%error, "the supervisor cannot be reached");
                    if !link.wait_away(&mut calls, pause).await {
                        return;
                    }
                    pause = (pause * 2).min(MOST_PAUSE);
                    continue;
                }
            },
        };
        match link.talk(&connected, &mut calls).await {
            Ok(()) => return,
            Err(error) => tracing::warn!(%error, "the connection to the supervisor broke"),
        }
        pause = LEAST_PAUSE;
        link.version = None;
        link.drop_unrepeatable();
        if link.dismissed && !link.wait_until_needed(&mut calls).await {
            return;
        }
    }
}

const LEAST_PAUSE: Duration = Duration::from_millis(50);
const MOST_PAUSE: Duration = Duration::from_secs(2);
/// How many calls and how many bytes are taken in one go.
const MOST_AT_ONCE: usize = 128;
const READ_BYTES: usize = 64 * 1024;

struct Link {
    /// In the order they were asked, which is the order they are asked again in.
    under_way: BTreeMap<u64, Pending>,
    next_id: u64,
    reports: mpsc::Sender<UnitReport>,
    /// Reports that the daemon has no room for yet. Each unit reports once per connection, so
    /// there are never more of them than units.
    unsent: VecDeque<UnitReport>,
    /// The supervisor was told to end and does: no other is started before it is needed.
    dismissed: bool,
    /// What the supervisor at the other end speaks, once it said so.
    version: Option<u32>,
}

struct Pending {
    call: Call,
    /// It waits for the supervisor's version, because an older one would carry out less of it.
    held: bool,
    /// Pages of a list so far.
    pages: Vec<(taskwright_model::UnitKey, taskwright_capability::UnitState)>,
}

impl Link {
    /// Speaks over one connection. `Ok` when every client is gone.
    async fn talk(
        &mut self,
        stream: &UnixStream,
        calls: &mut mpsc::Receiver<Call>,
    ) -> io::Result<()> {
        let mut out = Vec::new();
        let mut written = 0;
        let version = PROTOCOL_VERSION;
        Request::Hello { version }.put(0, &mut out);
        self.forget_who_gave_up();
        for (id, pending) in &mut self.under_way {
            pending.pages.clear();
            pending.held = pending.call.request.needed_version() > 0;
            if !pending.held {
                pending.call.request.put(*id, &mut out);
            }
        }
        let mut input = Vec::new();
        let mut batch = Vec::with_capacity(MOST_AT_ONCE);
        let reports = self.reports.clone();
        loop {
            let interest = if out.is_empty() {
                Interest::READABLE
            } else {
                Interest::READABLE | Interest::WRITABLE
            };
            let has_unsent = !self.unsent.is_empty();
            tokio::select! {
                count = calls.recv_many(&mut batch, MOST_AT_ONCE) => {
                    if count == 0 {
                        return Ok(());
                    }
                    for call in batch.drain(..) {
                        self.begin(call, &mut out);
                    }
                    written = write_some(stream, &mut out, written)?;
                }
                room = reports.reserve(), if has_unsent => {
                    match (room, self.unsent.pop_front()) {
                        (Ok(room), Some(report)) => room.send(report),
                        // Nobody listens any more.
                        _ => self.unsent.clear(),
                    }
                }
                ready = stream.ready(interest) => {
                    let ready = ready?;
                    if ready.is_writable() {
                        written = write_some(stream, &mut out, written)?;
                    }
                    if ready.is_readable() {
                        read_some(stream, &mut input)?;
                        self.answer_all(&mut input, &mut out)?;
                    }
                }
            }
        }
    }

    /// Waits for a moment without a connection; false when every client is gone.
    async fn wait_away(&mut self, calls: &mut mpsc::Receiver<Call>, pause: Duration) -> bool {
        let until = tokio::time::Instant::now() + pause;
        loop {
            tokio::select! {
                call = calls.recv() => match call {
                    None => return false,
                    Some(call) => self.begin(call, &mut Vec::new()),
                },
                () = tokio::time::sleep_until(until) => break,
            }
        }
        self.forget_who_gave_up();
        true
    }

    /// Waits for the next call; false when every client is gone.
    async fn wait_until_needed(&mut self, calls: &mut mpsc::Receiver<Call>) -> bool {
        self.dismissed = false;
        if self.under_way.is_empty() {
            match calls.recv().await {
                None => return false,
                Some(call) => self.begin(call, &mut Vec::new()),
            }
        }
        true
    }

    fn begin(&mut self, call: Call, out: &mut Vec<u8>) {
        let id = self.next_id;
        self.next_id += 1;
        let needed = call.request.needed_version();
        let held = needed > 0 && self.version.is_none();
        if !held && Some(needed) > self.version && needed > 0 {
            return refuse(call);
        }
        if !held {
            call.request.put(id, out);
        }
        let pages = Vec::new();
        self.under_way.insert(id, Pending { call, held, pages });
    }

    /// Sends what waited for the supervisor's version, and refuses what it is too old for.
    fn welcome(&mut self, version: u32, out: &mut Vec<u8>) {
        tracing::debug!(version, "the supervisor answers");
        self.version = Some(version);
        let mut too_much = Vec::new();
        for (id, pending) in &mut self.under_way {
            if std::mem::take(&mut pending.held) {
                if pending.call.request.needed_version() > version {
                    too_much.push(*id);
                } else {
                    pending.call.request.put(*id, out);
                }
            }
        }
        for id in too_much {
            if let Some(pending) = self.under_way.remove(&id) {
                refuse(pending.call);
            }
        }
    }

    fn forget_who_gave_up(&mut self) {
        self.under_way
            .retain(|_, pending| !pending.call.reply.is_closed());
    }

    /// Nobody can tell whether a signal was sent before the connection broke; its caller is
    /// told so by the dropped reply.
    fn drop_unrepeatable(&mut self) {
        self.under_way
            .retain(|_, pending| !matches!(pending.call.request, Request::Signal { .. }));
    }

    fn answer_all(&mut self, input: &mut Vec<u8>, out: &mut Vec<u8>) -> io::Result<()> {
        let mut done = 0;
        loop {
            let rest = input.get(done..).unwrap_or_default();
            let Some((frame, taken)) = wire::next_frame(rest).map_err(io::Error::other)? else {
                break;
            };
            // A kind of tomorrow is for nobody here.
            match Answer::take(&frame).map_err(io::Error::other)? {
                Some(Answer::Welcome { version }) => self.welcome(version, out),
                Some(answer) => self.answer(frame.id, answer),
                None => {}
            }
            done += taken;
        }
        input.drain(..done);
        Ok(())
    }

    fn answer(&mut self, id: u64, answer: Answer) {
        let answer = match answer {
            Answer::Report(report) => {
                self.report(report);
                return;
            }
            Answer::Units { units, more } => {
                let Some(pending) = self.under_way.get_mut(&id) else {
                    return;
                };
                pending.pages.extend(units);
                if more {
                    return;
                }
                let units = std::mem::take(&mut pending.pages);
                Answer::Units { units, more }
            }
            other => other,
        };
        if let Some(pending) = self.under_way.remove(&id) {
            let is_shutdown = matches!(pending.call.request, Request::ShutdownIfIdle);
            self.dismissed |= is_shutdown && answer == Answer::Done;
            let _caller_gave_up = pending.call.reply.send(answer);
        }
    }

    fn report(&mut self, report: UnitReport) {
        if !self.unsent.is_empty() {
            self.unsent.push_back(report);
            return;
        }
        if let Err(mpsc::error::TrySendError::Full(report)) = self.reports.try_send(report) {
            self.unsent.push_back(report);
        }
    }
}

/// The supervisor is too old for it.
fn refuse(call: Call) {
    let detail = super::OLDER.to_owned();
    let answer = Answer::NotSpawned(SpawnError::Unavailable { detail });
    let _caller_gave_up = call.reply.send(answer);
}

/// Writes what goes without waiting; how much of `out` is written afterwards.
fn write_some(stream: &UnixStream, out: &mut Vec<u8>, written: usize) -> io::Result<usize> {
    let mut written = written;
    while let Some(rest) = out.get(written..).filter(|rest| !rest.is_empty()) {
        match stream.try_write(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(written),
            Err(error) => return Err(error),
        }
    }
    out.clear();
    Ok(0)
}

fn read_some(stream: &UnixStream, input: &mut Vec<u8>) -> io::Result<()> {
    input.reserve(READ_BYTES);
    match stream.try_read_buf(input) {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        Err(error) => Err(error),
    }
}
