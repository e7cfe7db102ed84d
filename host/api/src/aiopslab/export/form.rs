//! What a form has to tell: it is shown everything in order, and writes.

use taskwright_queue::export::ExportedTask;
use taskwright_queue::{Conversation, LogEntry, Message, Step, Validity};

use super::query::Cursor;

/// What is told of a task or a conversation beside what it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    /// Behind it an export goes on.
    pub(super) cursor: Cursor,
    /// What it may be taken for.
    pub(super) validity: Validity,
}

/// Why a form could not be written.
pub(super) type FormError = String;

/// One of the forms. Things that belong to a task come between its beginning and its end, in
/// pieces where they are many.
pub(super) trait Form: Send + Sync {
    /// Before everything.
    fn begin(&mut self) {}
    /// A task begins.
    fn begin_task(&mut self, task: &ExportedTask, row: Row);
    /// Lines of it.
    fn logs(&mut self, _lines: &[LogEntry]) {}
    /// One of its conversations begins.
    fn begin_conversation(
        &mut self,
        _task: &ExportedTask,
        _conversation: &Conversation,
        _row: Row,
    ) {
    }
    /// Messages of it.
    fn messages(&mut self, _messages: &[Message]) {}
    /// The conversation ends.
    fn end_conversation(&mut self) {}
    /// Steps of it.
    fn steps(&mut self, _steps: &[Step]) {}
    /// The task ends.
    fn end_task(&mut self) {}
    /// After everything.
    fn end(&mut self, cursor: Cursor) -> Result<(), FormError>;
    /// Where what is written waits to be sent.
    fn written(&mut self) -> Result<&mut Vec<u8>, FormError>;
}
