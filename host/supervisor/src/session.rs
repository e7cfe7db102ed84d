//! One connected daemon: bytes in, bytes out, never waited for.

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;

use taskwright_native::events::{Epoll, Interest};

use crate::unit::UnitId;
use crate::wire::{self, Answer, MOST_FRAME_BYTES, Request};

/// Above this nothing more is read, and no report added, until the daemon has read.
const MOST_UNREAD_BYTES: usize = 512 * 1024;
const READ_BYTES: usize = 32 * 1024;

/// A connection.
pub(crate) struct Session {
    pub(crate) stream: UnixStream,
    input: Vec<u8>,
    parsed: usize,
    out: Vec<u8>,
    written: usize,
    /// Units whose ends this daemon is still to be told. Never more than there are units.
    pub(crate) to_report: VecDeque<UnitId>,
    /// What it speaks, once it said hello.
    pub(crate) version: Option<u32>,
    /// Whole requests were read that wait for their turn.
    pub(crate) more_to_serve: bool,
    /// What it is watched for, so that the kernel is told of changes only.
    watched: Interest,
}

/// The next thing a daemon said.
pub(crate) enum Said {
    Nothing,
    Request(u64, Request),
    /// Of a kind that this version does not know.
    Unknown(u64, u8),
}

impl Session {
    pub(crate) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            input: Vec::new(),
            parsed: 0,
            out: Vec::new(),
            written: 0,
            to_report: VecDeque::new(),
            version: None,
            more_to_serve: false,
            watched: Interest::Read,
        })
    }

    /// Whether it reads its answers; one that does not is not listened to either.
    pub(crate) fn has_room(&self) -> bool {
        self.out.len() - self.written < MOST_UNREAD_BYTES
    }

    pub(crate) fn wants_to_write(&self) -> bool {
        self.written < self.out.len()
    }

    /// Reads once what is there. An error or the end is an error.
    pub(crate) fn read(&mut self) -> io::Result<()> {
        self.input.drain(..self.parsed);
        self.parsed = 0;
        if self.input.len() > MOST_FRAME_BYTES + READ_BYTES {
            // Whole frames wait to be handled first.
            return Ok(());
        }
        let before = self.input.len();
        self.input.resize(before + READ_BYTES, 0);
        let place = self.input.get_mut(before..).unwrap_or_default();
        let result = self.stream.read(place);
        self.input
            .truncate(before + result.as_ref().copied().unwrap_or(0));
        match result {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The next whole frame of what was read.
    pub(crate) fn next(&mut self) -> io::Result<Said> {
        let rest = self.input.get(self.parsed..).unwrap_or_default();
        let Some((frame, taken)) = wire::next_frame(rest).map_err(io::Error::other)? else {
            return Ok(Said::Nothing);
        };
        let request = Request::take(&frame).map_err(io::Error::other)?;
        let (id, kind) = (frame.id, frame.kind);
        self.parsed += taken;
        Ok(request.map_or(Said::Unknown(id, kind), |request| {
            Said::Request(id, request)
        }))
    }

    /// Tells the kernel what this connection waits for.
    pub(crate) fn watch(&mut self, epoll: &Epoll, token: u64) -> io::Result<()> {
        let wanted = match (
            self.has_room() && !self.more_to_serve,
            self.wants_to_write(),
        ) {
            (true, false) => Interest::Read,
            (true, true) => Interest::ReadWrite,
            (false, true) => Interest::Write,
            (false, false) => Interest::Hangup,
        };
        if wanted != self.watched {
            epoll.modify(&self.stream, token, wanted)?;
            self.watched = wanted;
        }
        Ok(())
    }

    pub(crate) fn answer(&mut self, id: u64, answer: &Answer) {
        answer.put(id, &mut self.out);
    }

    /// Writes what goes without waiting.
    pub(crate) fn write(&mut self) -> io::Result<()> {
        while let Some(rest) = self.out.get(self.written..).filter(|rest| !rest.is_empty()) {
            match self.stream.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.out.clear();
        self.written = 0;
        Ok(())
    }
}
