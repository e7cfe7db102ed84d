//! Plain bytes for the wire and for the log: fixed-width little-endian numbers, texts with their
//! length before them.
//!
//! A decoder leaves what follows the fields it knows unread, so a newer writer may append fields.

use taskwright_model::{
    AttemptNumber, Enforced, ExitStatus, Mechanism, ProcessIdentity, Restriction, TaskId,
    Timestamp, UnitKey, UnitName,
};

use taskwright_capability::{Spawned, UnitEnd};

/// Why bytes are not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    /// They end too early.
    #[error("cut short")]
    Short,
    /// A field has a value that it cannot have.
    #[error("bad {0}")]
    Bad(&'static str),
}

/// Appends fields to a buffer.
pub(crate) trait Put {
    fn put_bytes(&mut self, bytes: &[u8]);

    fn put_u8(&mut self, value: u8) {
        self.put_bytes(&[value]);
    }
    fn put_u32(&mut self, value: u32) {
        self.put_bytes(&value.to_le_bytes());
    }
    fn put_i32(&mut self, value: i32) {
        self.put_bytes(&value.to_le_bytes());
    }
    fn put_u64(&mut self, value: u64) {
        self.put_bytes(&value.to_le_bytes());
    }
    fn put_u128(&mut self, value: u128) {
        self.put_bytes(&value.to_le_bytes());
    }
    fn put_time(&mut self, value: Timestamp) {
        self.put_bytes(&value.as_millis().to_le_bytes());
    }
    fn put_text(&mut self, text: &str) {
        self.put_blob(text.as_bytes());
    }
    fn put_blob(&mut self, bytes: &[u8]) {
        // Frames and records are bounded far below 4 GiB.
        self.put_u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        self.put_bytes(bytes);
    }
    fn put_unit(&mut self, unit: &UnitKey) {
        self.put_u128(unit.task.as_u128());
        self.put_u32(unit.attempt.0);
        self.put_text(unit.unit.as_str());
    }
    fn put_status(&mut self, status: Option<ExitStatus>) {
        let (kind, number) = match status {
            None => (0, 0),
            Some(ExitStatus::Code(code)) => (1, i32::from(code)),
            Some(ExitStatus::Signal(signal)) => (2, signal),
        };
        self.put_u8(kind);
        self.put_i32(number);
    }
    fn put_end(&mut self, end: &UnitEnd) {
        self.put_status(end.status);
        self.put_u8(u8::from(end.out_of_memory));
        self.put_time(end.at);
    }
    fn put_process(&mut self, process: ProcessIdentity) {
        self.put_u32(process.pid);
        self.put_u64(process.start_ticks);
    }
    fn put_spawned(&mut self, spawned: &Spawned) {
        self.put_process(spawned.process);
        self.put_time(spawned.started_at);
        self.put_u8(u8::from(spawned.exit.is_some()));
        if let Some(end) = &spawned.exit {
            self.put_end(end);
        }
    }
    fn put_enforced(&mut self, enforced: &Enforced) {
        self.put_u32(u32::try_from(enforced.iter().count()).unwrap_or(0));
        for (restriction, mechanism) in enforced.iter() {
            self.put_text(restriction.as_str());
            self.put_text(mechanism.as_str());
        }
    }
    /// Its field of its own, because it came later.
    fn put_left_out(&mut self, enforced: &Enforced) {
        self.put_u32(u32::try_from(enforced.left_out().len()).unwrap_or(0));
        for (restriction, why) in enforced.left_out() {
            self.put_text(restriction.as_str());
            self.put_text(why);
        }
    }
}

impl Put for Vec<u8> {
    fn put_bytes(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Takes fields from the front of bytes.
pub(crate) struct Take<'a>(pub(crate) &'a [u8]);

impl<'a> Take<'a> {
    pub(crate) fn bytes(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (front, rest) = self.0.split_at_checked(count).ok_or(Malformed::Short)?;
        self.0 = rest;
        Ok(front)
    }
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (front, rest) = self.0.split_first_chunk().ok_or(Malformed::Short)?;
        self.0 = rest;
        Ok(*front)
    }
    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[byte]| byte)
    }
    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }
    pub(crate) fn i32(&mut self) -> Result<i32, Malformed> {
        self.array().map(i32::from_le_bytes)
    }
    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }
    pub(crate) fn u128(&mut self) -> Result<u128, Malformed> {
        self.array().map(u128::from_le_bytes)
    }
    pub(crate) fn time(&mut self) -> Result<Timestamp, Malformed> {
        self.array()
            .map(|bytes| Timestamp::from_millis(i64::from_le_bytes(bytes)))
    }
    pub(crate) fn flag(&mut self) -> Result<bool, Malformed> {
        Ok(self.u8()? != 0)
    }
    pub(crate) fn blob(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.u32()?;
        self.bytes(usize::try_from(length).map_err(|_| Malformed::Bad("length"))?)
    }
    pub(crate) fn text(&mut self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.blob()?).map_err(|_| Malformed::Bad("text"))
    }
    /// A count of things that take at least `least` bytes each, so that a lie allocates nothing.
    pub(crate) fn count(&mut self, least: usize) -> Result<usize, Malformed> {
        let count = usize::try_from(self.u32()?).map_err(|_| Malformed::Bad("count"))?;
        if count.saturating_mul(least) > self.0.len() {
            return Err(Malformed::Short);
        }
        Ok(count)
    }
    pub(crate) fn unit(&mut self) -> Result<UnitKey, Malformed> {
        Ok(UnitKey {
            task: TaskId::from_u128(self.u128()?),
            attempt: AttemptNumber(self.u32()?),
            unit: UnitName::parse(self.text()?).map_err(|_| Malformed::Bad("unit name"))?,
        })
    }
    pub(crate) fn status(&mut self) -> Result<Option<ExitStatus>, Malformed> {
        let (kind, number) = (self.u8()?, self.i32()?);
        match kind {
            0 => Ok(None),
            1 => u8::try_from(number)
                .map(|code| Some(ExitStatus::Code(code)))
                .map_err(|_| Malformed::Bad("exit code")),
            2 => Ok(Some(ExitStatus::Signal(number))),
            _ => Err(Malformed::Bad("exit status")),
        }
    }
    pub(crate) fn end(&mut self) -> Result<UnitEnd, Malformed> {
        Ok(UnitEnd {
            status: self.status()?,
            out_of_memory: self.flag()?,
            at: self.time()?,
        })
    }
    pub(crate) fn process(&mut self) -> Result<ProcessIdentity, Malformed> {
        Ok(ProcessIdentity {
            pid: self.u32()?,
            start_ticks: self.u64()?,
        })
    }
    pub(crate) fn spawned(&mut self) -> Result<Spawned, Malformed> {
        Ok(Spawned {
            process: self.process()?,
            started_at: self.time()?,
            exit: if self.flag()? {
                Some(self.end()?)
            } else {
                None
            },
            // Not told everywhere, so not part of this.
            enforced: Enforced::default(),
        })
    }
    /// Words of a newer version are passed over.
    pub(crate) fn enforced(&mut self) -> Result<Enforced, Malformed> {
        let mut enforced = Enforced::default();
        for _ in 0..self.count(8)? {
            let (restriction, mechanism) = (self.text()?, self.text()?);
            if let (Some(restriction), Some(mechanism)) =
                (Restriction::parse(restriction), Mechanism::parse(mechanism))
            {
                enforced.set(restriction, mechanism);
            }
        }
        Ok(enforced)
    }
    /// Adds to `enforced` what was left out, if the writer was of a time that told it.
    pub(crate) fn left_out(&mut self, enforced: &mut Enforced) -> Result<(), Malformed> {
        if self.is_at_end() {
            return Ok(());
        }
        for _ in 0..self.count(8)? {
            let (restriction, why) = (self.text()?, self.text()?);
            if let Some(restriction) = Restriction::parse(restriction) {
                enforced.leave_out(restriction, why);
            }
        }
        Ok(())
    }
    /// Whether nothing follows: fields that were appended later are missing.
    pub(crate) fn is_at_end(&self) -> bool {
        self.0.is_empty()
    }
}
