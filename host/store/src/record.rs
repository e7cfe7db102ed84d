//! The bytes of one record: a version, a checksum, a payload.
//!
//! ```text
//! byte 0      version of the payload's form, today 1
//! byte 1..5   CRC-32 over kind, key and payload, little-endian
//! byte 5..    payload, JSON: fields may be added, unknown ones are skipped
//! ```
//!
//! The checksum covers the key as well, so a body that ended up under another
//! key is noticed although it is whole in itself. Every form that was ever
//! released stays readable in a module of its own; a new form gets a new
//! module, a new version byte and a new schema version.

mod v1;

use taskwright_control::port::{FeedEntry, IdempotencyRecord};
use taskwright_model::{Task, TaskId};

/// Bytes before the payload.
const HEADER: usize = 5;

/// Which table a record is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A task, under its id.
    Task,
    /// A feed line, under its number.
    Feed,
    /// An idempotency key, under itself.
    Idempotency,
}

impl Kind {
    /// The table, and the word in `damaged.source`.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Task => "tasks",
            Self::Feed => "feed",
            Self::Idempotency => "idempotency",
        }
    }
}

/// Why bytes are not a record.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordError {
    #[error("it has {length} bytes, fewer than any record")]
    TooShort { length: usize },
    #[error("its version is {found}, which no taskwright ever wrote here")]
    UnknownVersion { found: u8 },
    #[error("its checksum does not match")]
    Checksum,
    #[error("its payload cannot be read at line {line}, column {column}")]
    Payload { line: usize, column: usize },
    #[error("its {field} is not valid: {message}")]
    Value {
        field: &'static str,
        message: String,
    },
    #[error("it could not be written: {message}")]
    Write { message: String },
}

impl RecordError {
    /// Only the place is kept: the error's own text may quote values, and values may be secrets.
    fn payload(source: &serde_json::Error) -> Self {
        Self::Payload {
            line: source.line(),
            column: source.column(),
        }
    }
}

/// The key of a task in its table.
pub(crate) fn task_key(id: TaskId) -> [u8; 16] {
    id.as_u128().to_be_bytes()
}

/// Writes the body of a task into `body`, which is emptied first.
pub(crate) fn write_task(task: &Task, body: &mut Vec<u8>) -> Result<(), RecordError> {
    seal(
        Kind::Task,
        &task_key(task.id),
        &v1::Task::from_model(task),
        body,
    )
}

/// Writes the body of a feed line into `body`, which is emptied first.
pub(crate) fn write_feed(entry: &FeedEntry, body: &mut Vec<u8>) -> Result<(), RecordError> {
    let key = feed_key(entry.sequence, entry.task);
    seal(Kind::Feed, &key, &v1::Feed::from_model(entry), body)
}

/// Writes the body of an idempotency record into `body`, which is emptied first.
pub(crate) fn write_idempotency(
    record: &IdempotencyRecord,
    body: &mut Vec<u8>,
) -> Result<(), RecordError> {
    let payload = v1::Idempotency::from_model(record);
    seal(Kind::Idempotency, record.key.as_bytes(), &payload, body)
}

/// Reads a task back.
pub(crate) fn read_task(id: TaskId, body: &[u8]) -> Result<Task, RecordError> {
    let payload = open(Kind::Task, &task_key(id), body)?;
    parse::<v1::Task<'_>>(payload)?.into_model(id)
}

/// Reads a feed line back.
pub(crate) fn read_feed(
    sequence: u64,
    task: TaskId,
    body: &[u8],
) -> Result<FeedEntry, RecordError> {
    let payload = open(Kind::Feed, &feed_key(sequence, task), body)?;
    parse::<v1::Feed<'_>>(payload)?.into_model(sequence, task)
}

/// Reads an idempotency record back.
pub(crate) fn read_idempotency(key: &str, body: &[u8]) -> Result<IdempotencyRecord, RecordError> {
    let payload = open(Kind::Idempotency, key.as_bytes(), body)?;
    parse::<v1::Idempotency>(payload)?.into_model(key)
}

fn feed_key(sequence: u64, task: TaskId) -> [u8; 24] {
    let mut key = [0; 24];
    let (number, id) = key.split_at_mut(8);
    number.copy_from_slice(&sequence.to_be_bytes());
    id.copy_from_slice(&task_key(task));
    key
}

fn seal<T: serde::Serialize>(
    kind: Kind,
    key: &[u8],
    payload: &T,
    body: &mut Vec<u8>,
) -> Result<(), RecordError> {
    body.clear();
    body.extend_from_slice(&[v1::VERSION, 0, 0, 0, 0]);
    serde_json::to_writer(&mut *body, payload).map_err(|source| RecordError::Write {
        message: source.to_string(),
    })?;
    let sum = checksum(kind, key, body.get(HEADER..).unwrap_or_default());
    if let Some(place) = body.get_mut(1..HEADER) {
        place.copy_from_slice(&sum.to_le_bytes());
    }
    Ok(())
}

/// The payload, once version and checksum are known to be good.
fn open<'b>(kind: Kind, key: &[u8], body: &'b [u8]) -> Result<&'b [u8], RecordError> {
    let Some((&[version, a, b, c, d], payload)) = body.split_first_chunk::<HEADER>() else {
        return Err(RecordError::TooShort { length: body.len() });
    };
    if checksum(kind, key, payload) != u32::from_le_bytes([a, b, c, d]) {
        return Err(RecordError::Checksum);
    }
    match version {
        v1::VERSION => Ok(payload),
        found => Err(RecordError::UnknownVersion { found }),
    }
}

fn checksum(kind: Kind, key: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(kind.as_str().as_bytes());
    hasher.update(key);
    hasher.update(payload);
    hasher.finalize()
}

fn parse<'b, T: serde::Deserialize<'b>>(payload: &'b [u8]) -> Result<T, RecordError> {
    serde_json::from_slice(payload).map_err(|source| RecordError::payload(&source))
}
