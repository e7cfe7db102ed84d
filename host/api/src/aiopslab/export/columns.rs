//! `parquet`: the rows of `chat` in columns, a group of rows in memory at a time.
//!
//! Written with the `parquet` crate's own column writers, because Arrow would add a hundred
//! crates to turn rows into what these take anyway.

use std::fs::File;
use std::sync::Arc;

use parquet::basic::{Compression, LogicalType, Repetition, TimeUnit, Type as Physical};
use parquet::data_type::{
    BoolType, ByteArray, ByteArrayType, DataType, DoubleType, Int32Type, Int64Type,
};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::{ColumnPath, Type};
use serde::Deserialize;
use taskwright_queue::export::ExportedTask;
use taskwright_queue::validity::Cut;
use taskwright_queue::{Conversation, Mark, Message};

use super::form::{Form, FormError, Row};
use super::query::Cursor;
use crate::problem::Problem;

/// A group of rows is written once it has so many bytes, or rows.
const GROUP_BYTES: usize = 8 * 1024 * 1024;
const GROUP_ROWS: usize = 20_000;
/// The largest row, in bytes of its messages: the rest is left out, and the row is marked.
const LARGEST_ROW: usize = 32 * 1024 * 1024;
/// The metadata behind which an export goes on.
const CURSOR_KEY: &str = "taskwright.cursor";

/// The cursor that a whole Parquet file of ours ends with.
///
/// # Errors
/// Why the file is not whole, or not ours.
pub fn cursor_of(file: File) -> Result<String, String> {
    let reader = SerializedFileReader::new(file).map_err(|error| error.to_string())?;
    let metadata = reader.metadata().file_metadata().key_value_metadata();
    let found = metadata
        .into_iter()
        .flatten()
        .find(|pair| pair.key == CURSOR_KEY);
    found
        .and_then(|pair| pair.value.clone())
        .ok_or_else(|| format!("its metadata has no {CURSOR_KEY}"))
}

/// A column: its values, and which rows have one.
struct Column<T> {
    values: Vec<T>,
    /// Of an optional column: 1 for each row that has a value, else 0.
    present: Vec<i16>,
}

impl<T> Default for Column<T> {
    fn default() -> Self {
        Self {
            values: Vec::new(),
            present: Vec::new(),
        }
    }
}

impl<T> Column<T> {
    fn push(&mut self, value: Option<T>) {
        self.present.push(i16::from(value.is_some()));
        self.values.extend(value);
    }

    fn clear(&mut self) {
        self.values.clear();
        self.present.clear();
    }
}

/// The columns of messages: lists, flattened.
#[derive(Default)]
struct Messages {
    role: Vec<ByteArray>,
    body: Vec<ByteArray>,
    /// For each message, or each row without any: whether it is there.
    there: Vec<i16>,
    /// The same for contents, which a message that is there may be without.
    content: Vec<ByteArray>,
    content_there: Vec<i16>,
    /// 0 for the first of a row, 1 for those after it.
    repeated: Vec<i16>,
}

impl Messages {
    fn clear(&mut self) {
        *self = Self::default();
    }
}

/// The columns of a group of rows, in the order of the schema.
#[derive(Default)]
struct Group {
    rows: usize,
    bytes: usize,
    /// Texts: conversation, task, session, problem, worker, model, status, cause, validity, reason,
    /// configuration, metadata.
    texts: [Column<ByteArray>; 12],
    attempt: Column<i32>,
    /// Beginning, end, tokens in, tokens out.
    numbers: [Column<i64>; 4],
    success: Column<bool>,
    /// Cost, reward.
    reals: [Column<f64>; 2],
    messages: Messages,
}

/// The row that is being written.
struct Open {
    texts: [Option<ByteArray>; 12],
    attempt: Option<i32>,
    numbers: [Option<i64>; 4],
    success: Option<bool>,
    reals: [Option<f64>; 2],
    messages: Vec<(ByteArray, Option<ByteArray>, ByteArray)>,
    bytes: usize,
    cut: bool,
    /// What it may be taken for if it is cut off here.
    if_cut: (Mark, Option<&'static str>),
    mark: Mark,
}

/// The file.
pub(super) struct Columns {
    out: Vec<u8>,
    writer: Option<SerializedFileWriter<Vec<u8>>>,
    group: Group,
    row: Option<Open>,
    asked: Option<Mark>,
    failed: Option<String>,
}

/// The columns in order: name, kind, whether each row has a value.
const TEXTS: [(&str, Text, bool); 12] = [
    ("conversation_id", Text::Plain, true),
    ("task_id", Text::Plain, true),
    ("session_id", Text::Plain, true),
    ("problem_id", Text::Plain, true),
    ("worker_id", Text::Plain, false),
    ("model", Text::Plain, false),
    ("status", Text::Plain, true),
    ("cause", Text::Plain, false),
    ("validity", Text::Plain, true),
    ("validity_reason", Text::Plain, false),
    ("llm_config", Text::Json, true),
    ("metadata", Text::Json, true),
];
const NUMBERS: [(&str, bool, bool); 4] = [
    ("started_at", true, true),
    ("ended_at", true, false),
    ("input_tokens", false, false),
    ("output_tokens", false, false),
];
const REALS: [&str; 2] = ["total_cost", "reward"];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Text {
    Plain,
    Json,
}

fn schema() -> Result<Type, ParquetError> {
    let repetition = |needed: bool| match needed {
        true => Repetition::REQUIRED,
        false => Repetition::OPTIONAL,
    };
    let text = |name: &str, kind: Text, needed: bool| {
        let logical = match kind {
            Text::Plain => LogicalType::String,
            Text::Json => LogicalType::Json,
        };
        Type::primitive_type_builder(name, Physical::BYTE_ARRAY)
            .with_logical_type(Some(logical))
            .with_repetition(repetition(needed))
            .build()
    };
    let mut fields = Vec::new();
    for (name, kind, needed) in TEXTS {
        fields.push(text(name, kind, needed)?);
    }
    let plain = |name: &str, physical: Physical| {
        Type::primitive_type_builder(name, physical)
            .with_repetition(Repetition::OPTIONAL)
            .build()
    };
    fields.push(plain("attempt", Physical::INT32)?);
    for (name, time, needed) in NUMBERS {
        let logical = time.then(|| LogicalType::timestamp(true, TimeUnit::MILLIS));
        fields.push(
            Type::primitive_type_builder(name, Physical::INT64)
                .with_logical_type(logical)
                .with_repetition(repetition(needed))
                .build()?,
        );
    }
    fields.push(plain("success", Physical::BOOLEAN)?);
    for name in REALS {
        fields.push(plain(name, Physical::DOUBLE)?);
    }
    let message = Type::group_type_builder("element")
        .with_repetition(Repetition::REQUIRED)
        .with_fields(vec![
            Arc::new(text("role", Text::Plain, true)?),
            Arc::new(text("content", Text::Plain, false)?),
            Arc::new(text("body", Text::Json, true)?),
        ])
        .build()?;
    let list = Type::group_type_builder("list")
        .with_repetition(Repetition::REPEATED)
        .with_fields(vec![Arc::new(message)])
        .build()?;
    fields.push(
        Type::group_type_builder("messages")
            .with_logical_type(Some(LogicalType::List))
            .with_repetition(Repetition::REQUIRED)
            .with_fields(vec![Arc::new(list)])
            .build()?,
    );
    Type::group_type_builder("conversation")
        .with_fields(fields.into_iter().map(Arc::new).collect())
        .build()
}

fn properties() -> WriterProperties {
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_statistics_enabled(EnabledStatistics::Chunk);
    // Each is said once: a dictionary of them would only be in the way.
    for path in ["content", "body"] {
        let steps = ["messages", "list", "element", path];
        let path = ColumnPath::new(steps.iter().map(ToString::to_string).collect());
        properties = properties
            .set_column_dictionary_enabled(path.clone(), false)
            .set_column_statistics_enabled(path, EnabledStatistics::None);
    }
    properties.build()
}

impl Columns {
    pub(super) fn new(asked: Option<Mark>) -> Result<Self, Problem> {
        let schema = schema().map(Arc::new);
        let made = schema.and_then(|schema| {
            SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties()))
        });
        let writer = made.map_err(|error| {
            tracing::error!(%error, "a Parquet file could not be begun");
            Problem::unavailable("a Parquet file could not be begun").hint("see the daemon's log")
        })?;
        Ok(Self {
            out: Vec::new(),
            writer: Some(writer),
            group: Group::default(),
            row: None,
            asked,
            failed: None,
        })
    }

    /// Writes the rows that are in memory.
    fn write_group(&mut self) -> Result<(), ParquetError> {
        let Some(writer) = &mut self.writer else {
            return Ok(());
        };
        if self.group.rows > 0 {
            let group = &mut self.group;
            let mut columns = writer.next_row_group()?;
            for (column, (_, _, needed)) in group.texts.iter_mut().zip(TEXTS) {
                write::<ByteArrayType>(&mut columns, column, needed)?;
            }
            write::<Int32Type>(&mut columns, &mut group.attempt, false)?;
            for (column, (_, _, needed)) in group.numbers.iter_mut().zip(NUMBERS) {
                write::<Int64Type>(&mut columns, column, needed)?;
            }
            write::<BoolType>(&mut columns, &mut group.success, false)?;
            for column in &mut group.reals {
                write::<DoubleType>(&mut columns, column, false)?;
            }
            let said = &group.messages;
            for (values, there) in [
                (&said.role, &said.there),
                (&said.content, &said.content_there),
                (&said.body, &said.there),
            ] {
                if let Some(mut column) = columns.next_column()? {
                    column.typed::<ByteArrayType>().write_batch(
                        values,
                        Some(there),
                        Some(&said.repeated),
                    )?;
                    column.close()?;
                }
            }
            columns.close()?;
            group.messages.clear();
            group.rows = 0;
            group.bytes = 0;
        }
        writer.flush()?;
        self.out.append(writer.inner_mut());
        Ok(())
    }

    fn take_row(&mut self, mut row: Open) {
        if row.cut {
            let (mark, reason) = row.if_cut;
            row.mark = mark;
            let [.., validity, why, _, _] = &mut row.texts;
            *validity = Some(mark.word().into());
            *why = reason.map(Into::into);
        }
        if self.asked.is_some_and(|asked| asked != row.mark) {
            return;
        }
        let group = &mut self.group;
        for (column, value) in group.texts.iter_mut().zip(row.texts) {
            column.push(value);
        }
        group.attempt.push(row.attempt);
        for (column, value) in group.numbers.iter_mut().zip(row.numbers) {
            column.push(value);
        }
        group.success.push(row.success);
        for (column, value) in group.reals.iter_mut().zip(row.reals) {
            column.push(value);
        }
        let said = &mut group.messages;
        if row.messages.is_empty() {
            said.there.push(0);
            said.content_there.push(0);
            said.repeated.push(0);
        }
        for (place, (role, content, body)) in row.messages.into_iter().enumerate() {
            said.role.push(role);
            said.body.push(body);
            said.there.push(1);
            said.content_there
                .push(if content.is_some() { 2 } else { 1 });
            said.content.extend(content);
            said.repeated.push(i16::from(place > 0));
        }
        group.rows += 1;
        group.bytes = group.bytes.saturating_add(row.bytes);
        if group.rows >= GROUP_ROWS || group.bytes >= GROUP_BYTES {
            let written = self.write_group();
            self.note(written);
        }
    }

    fn note(&mut self, written: Result<(), ParquetError>) {
        if let Err(error) = written {
            self.failed.get_or_insert(error.to_string());
        }
    }
}

fn write<T: DataType>(
    columns: &mut SerializedRowGroupWriter<'_, Vec<u8>>,
    column: &mut Column<T::T>,
    needed: bool,
) -> Result<(), ParquetError> {
    if let Some(mut writer) = columns.next_column()? {
        let present = (!needed).then_some(column.present.as_slice());
        writer
            .typed::<T>()
            .write_batch(&column.values, present, None)?;
        writer.close()?;
    }
    column.clear();
    Ok(())
}

/// The content of a message, if it is a text.
fn content(body: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Said {
        content: Option<serde_json::Value>,
    }
    match serde_json::from_str::<Said>(body).ok()?.content? {
        serde_json::Value::String(text) => Some(text),
        _ => None,
    }
}

impl Form for Columns {
    fn begin_task(&mut self, _: &ExportedTask, _: Row) {}

    fn begin_conversation(&mut self, task: &ExportedTask, said: &Conversation, row: Row) {
        let text = |text: &str| Some(ByteArray::from(text));
        let cause = task.cause_of(said.attempt);
        let if_cut = task.validity_of(said.attempt, Some(Cut::Size));
        let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let sum = task.sum_of(said.attempt.unwrap_or(task.task.attempt));
        let bytes = said.config.as_str().len() + said.metadata.as_str().len() + 512;
        self.row = Some(Open {
            texts: [
                text(&said.id.to_string()),
                text(&said.task.to_string()),
                text(&said.session.to_string()),
                text(task.task.problem_id.as_str()),
                task.worker_of(said.attempt)
                    .and_then(|worker| text(worker.as_str())),
                said.model_name.as_deref().and_then(text),
                text(task.task.status.word()),
                cause.and_then(|cause| text(cause.word())),
                text(row.validity.mark.word()),
                row.validity.reason.and_then(text),
                text(said.config.as_str()),
                text(said.metadata.as_str()),
            ],
            attempt: said.attempt.and_then(|number| i32::try_from(number).ok()),
            numbers: [
                Some(said.started_at.as_millis()),
                said.ended_at.map(|at| at.as_millis()),
                said.usage.as_ref().map(|usage| whole(usage.input_tokens)),
                said.usage.as_ref().map(|usage| whole(usage.output_tokens)),
            ],
            success: said.success,
            reals: [
                said.usage.as_ref().and_then(|usage| usage.cost),
                sum.and_then(|sum| sum.reward),
            ],
            messages: Vec::new(),
            bytes,
            cut: false,
            if_cut: (if_cut.mark, if_cut.reason),
            mark: row.validity.mark,
        });
    }

    fn messages(&mut self, messages: &[Message]) {
        let Some(row) = &mut self.row else { return };
        for message in messages {
            let body = message.body.as_str();
            // What a message takes: its body, and its content again.
            let bytes = row.bytes.saturating_add(body.len() * 2 + 64);
            row.cut |= bytes > LARGEST_ROW;
            if row.cut {
                return;
            }
            row.bytes = bytes;
            let content = content(body).map(|text| ByteArray::from(text.into_bytes()));
            row.messages
                .push((message.role.word().into(), content, body.into()));
        }
    }

    fn end_conversation(&mut self) {
        if let Some(row) = self.row.take() {
            self.take_row(row);
        }
    }

    fn end(&mut self, cursor: Cursor) -> Result<(), FormError> {
        let written = self.write_group();
        self.note(written);
        if let Some(mut writer) = self.writer.take() {
            writer.append_key_value_metadata(KeyValue::new(
                CURSOR_KEY.to_owned(),
                cursor.to_string(),
            ));
            let rest = writer.into_inner().map_err(|error| error.to_string())?;
            self.out.extend_from_slice(&rest);
        }
        Ok(())
    }

    fn written(&mut self) -> Result<&mut Vec<u8>, FormError> {
        match self.failed.take() {
            Some(told) => Err(told),
            None => Ok(&mut self.out),
        }
    }
}
