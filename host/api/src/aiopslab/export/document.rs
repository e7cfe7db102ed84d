//! `aiopslab`: the document that the original's export script writes, with what that leaves out.
//!
//! Each task is a line of it, so that a document that was cut off can be gone on with: see
//! [`Head::continues`].

use serde::Serialize;
use taskwright_model::Timestamp;
use taskwright_queue::export::ExportedTask;
use taskwright_queue::{Conversation, LogEntry, Message};

use super::super::view::{Beside, LogView, MessageView, SummaryView, TaskView};
use super::form::{Form, FormError, Row};
use super::lines::{judged, used};
use super::query::Cursor;
use super::text::Object;

/// What stands at its beginning.
pub(super) struct Head {
    pub(super) exported_at: Timestamp,
    pub(super) base_url: String,
    /// If this is the rest of a document, how many tasks that holds already: then it has no
    /// beginning of its own.
    pub(super) continues: Option<u64>,
}

/// The document.
pub(super) struct Document {
    out: Vec<u8>,
    head: Head,
    tasks: u64,
    /// Whether the list that is being written has an element.
    filled: bool,
    /// What comes next in the task that is being written.
    stage: Stage,
    told: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Logs,
    Conversations,
}

impl Document {
    pub(super) fn new(head: Head) -> Self {
        Self {
            out: Vec::new(),
            tasks: head.continues.unwrap_or(0),
            head,
            filled: false,
            stage: Stage::Logs,
            told: 0,
        }
    }

    fn separate(&mut self) {
        if self.filled {
            self.out.push(b',');
        }
        self.filled = true;
    }

    fn begin_conversations(&mut self) {
        if self.stage == Stage::Logs {
            self.out.extend_from_slice(b"],\"conversations\":[");
            self.stage = Stage::Conversations;
            self.filled = false;
        }
    }
}

/// Writes what is made of texts and numbers; that cannot fail in memory.
fn write(out: &mut Vec<u8>, value: &impl Serialize) {
    let from = out.len();
    if let Err(error) = serde_json::to_writer(&mut *out, value) {
        tracing::error!(%error, "a part of an export could not be written as JSON");
    }
    // What is kept verbatim may have line breaks between its tokens.
    for byte in out.iter_mut().skip(from) {
        if matches!(*byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
}

impl Form for Document {
    fn begin(&mut self) {
        if self.head.continues.is_some() {
            return;
        }
        let mut object = Object::open(&mut self.out);
        object.time("exported_at", self.head.exported_at);
        object.text("base_url", &self.head.base_url);
        object.name("tasks").extend_from_slice(b"[\n");
    }

    fn begin_task(&mut self, task: &ExportedTask, row: Row) {
        if self.tasks > 0 {
            self.out.push(b',');
        }
        self.tasks = self.tasks.saturating_add(1);
        let mut object = Object::open(&mut self.out);
        object.plain("cursor", format_args!("\"{}\"", row.cursor));
        judged(&mut object, row.validity);
        let beside = Beside {
            attempts: Some(&task.attempts),
            ..Beside::default()
        };
        write(object.name("task"), &TaskView::with(&task.task, &beside));
        object.name("logs").push(b'[');
        self.stage = Stage::Logs;
        self.filled = false;
    }

    fn logs(&mut self, lines: &[LogEntry]) {
        for line in lines {
            self.separate();
            write(&mut self.out, &LogView::of(line));
        }
    }

    fn begin_conversation(&mut self, task: &ExportedTask, said: &Conversation, row: Row) {
        self.begin_conversations();
        self.separate();
        let mut object = Object::open(&mut self.out);
        object.plain("conversation_id", format_args!("\"{}\"", said.id));
        object.plain("total_messages", said.messages);
        let cause = task.cause_of(said.attempt);
        object.opt_text("cause", cause.map(|cause| cause.word()));
        judged(&mut object, row.validity);
        write(object.name("summary"), &SummaryView::of(said));
        object.raw("llm_config", &said.config);
        object.raw("metadata", &said.metadata);
        used(&mut object, "total_cost", said.usage.as_ref());
        object.name("messages").push(b'[');
        self.told = 0;
    }

    fn messages(&mut self, messages: &[Message]) {
        for message in messages {
            if self.told > 0 {
                self.out.push(b',');
            }
            self.told = self.told.saturating_add(1);
            write(&mut self.out, &MessageView::of(message));
        }
    }

    fn end_conversation(&mut self) {
        self.out.extend_from_slice(b"]}");
    }

    fn end_task(&mut self) {
        self.begin_conversations();
        self.out.extend_from_slice(b"]}\n");
    }

    fn end(&mut self, cursor: Cursor) -> Result<(), FormError> {
        self.out.push(b']');
        let mut object = Object::more(&mut self.out);
        object.plain("task_count", self.tasks);
        object.plain("cursor", format_args!("\"{cursor}\""));
        object.close();
        self.out.push(b'\n');
        Ok(())
    }

    fn written(&mut self) -> Result<&mut Vec<u8>, FormError> {
        Ok(&mut self.out)
    }
}
