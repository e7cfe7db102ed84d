//! Page by page through the order of ends, through the filters, into a form.

use std::sync::Arc;

use axum::body::Bytes;
use taskwright_model::{TaskId, Timestamp};
use taskwright_queue::export::{EndsOrdered, ExportPage, ExportPlace, ExportQuery, ExportedTask};
use taskwright_queue::step::StepQuery;
use taskwright_queue::{Conversation, Message, StoreError, Validity};
use tokio::sync::mpsc;

use super::form::{Form, Row};
use super::query::{Asked, Cursor};
use crate::state::ApiState;

/// What is written is sent from so many bytes on.
const PIECE_BYTES: usize = 256 * 1024;
/// Tasks of the first page; each page that was small is followed by a larger one.
const FIRST_PAGE: u32 = 64;
const LARGEST_PAGE: u32 = 4096;
/// Steps, and messages, of one read.
const MOST_STEPS: u32 = 10_000;
const MOST_MESSAGES: u32 = 10_000;

/// Why an export ends before its end. Whoever reads it sees the connection cut.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum Broken {
    /// The daemon goes down.
    #[error("the daemon goes down")]
    GoingDown,
    /// The store failed.
    #[error("the queue's store failed")]
    Store(#[source] StoreError),
    /// A row could not be written.
    #[error("write a part of an export: {0}")]
    Form(String),
    /// Nobody reads any more.
    #[error("nobody reads the export")]
    Gone,
}

impl From<StoreError> for Broken {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// One export under way.
pub(super) struct Walk {
    state: Arc<ApiState>,
    asked: Asked,
    form: Box<dyn Form>,
    pieces: mpsc::Sender<Result<Bytes, Broken>>,
    /// Tasks of the next page.
    most: u32,
    /// What ends from then on is for the next export: else there might be no end.
    until: Timestamp,
    /// The ends in order by then, as far as that was brought.
    ordered: EndsOrdered,
}

impl Walk {
    /// Puts ends in order.
    pub(super) async fn begin(
        state: Arc<ApiState>,
        asked: Asked,
        form: Box<dyn Form>,
        pieces: mpsc::Sender<Result<Bytes, Broken>>,
    ) -> Result<Self, StoreError> {
        let until = state.queue.now();
        let ordered = state.queue.store().order_ends(until).await?;
        Ok(Self {
            state,
            asked,
            form,
            pieces,
            most: FIRST_PAGE,
            until,
            ordered,
        })
    }

    /// To the end, or until nobody reads.
    pub(super) async fn run(mut self) {
        match self.everything().await {
            Ok(()) | Err(Broken::Gone) => {}
            Err(broken) => {
                tracing::warn!(error = %broken, "an export was cut off");
                // Whoever is gone needs no word.
                let _ = self.pieces.send(Err(broken)).await;
            }
        }
    }

    async fn everything(&mut self) -> Result<(), Broken> {
        self.form.begin();
        let mut place = self.asked.cursor.before();
        let through = loop {
            let EndsOrdered { last, more } = self.ordered;
            if place < last {
                place = self.ended(place, last).await?;
            }
            if !more {
                break last;
            }
            self.ordered = self.state.queue.store().order_ends(self.until).await?;
        };
        // A cursor of another store may be ahead of everything.
        let end = Cursor::behind(through.max(self.asked.cursor.number));
        if self.asked.open {
            self.open(end).await?;
        }
        self.form.end(end).map_err(Broken::Form)?;
        self.send(0).await
    }

    /// The ended ones behind a number, through another.
    async fn ended(&mut self, after: u64, through: u64) -> Result<u64, Broken> {
        let mut place = ExportPlace::Ended(after);
        loop {
            let page = self.page(place, through).await?;
            for task in &page.tasks {
                let number = task.number.unwrap_or(through);
                self.task(task, Cursor::behind(number)).await?;
            }
            place = page.next;
            if page.over {
                return Ok(through);
            }
        }
    }

    /// Those that have not ended.
    async fn open(&mut self, end: Cursor) -> Result<(), Broken> {
        let mut place = ExportPlace::Open(None);
        loop {
            let page = self.page(place, 0).await?;
            for task in &page.tasks {
                self.task(task, end).await?;
            }
            place = page.next;
            if page.over {
                return Ok(());
            }
        }
    }

    async fn page(&mut self, place: ExportPlace, through: u64) -> Result<ExportPage, Broken> {
        let asked = &self.asked;
        let query = ExportQuery {
            place,
            through,
            most: self.most,
            status: asked.status,
            problem: asked.problem.clone(),
            worker: asked.worker.clone(),
            since: asked.since,
            until: asked.until,
            parts: asked.format.parts(),
        };
        let page = self.state.queue.store().export_page(query).await?;
        // As many as find room: what does not was read for nothing.
        self.most = match page.fullness {
            full if full > 1.0 => page.looked_at,
            full if full < 0.4 => self.most.saturating_mul(2),
            _ => self.most,
        }
        .clamp(1, LARGEST_PAGE);
        Ok(page)
    }

    async fn task(&mut self, task: &ExportedTask, cursor: Cursor) -> Result<(), Broken> {
        if self.asked.format.rows_are_conversations() {
            self.conversations(task, cursor).await?;
            return self.send(PIECE_BYTES).await;
        }
        let row = Row {
            cursor,
            validity: task.validity(None),
        };
        if !self.takes(row.validity) || !self.has_model(task).await? {
            return Ok(());
        }
        self.form.begin_task(task, row);
        if task.whole {
            self.form.logs(&task.logs);
            self.conversations(task, cursor).await?;
            self.form.steps(&task.steps);
        } else {
            self.piece_by_piece(task, cursor).await?;
        }
        self.form.end_task();
        self.send(PIECE_BYTES).await
    }

    /// A task that is too large for a page.
    async fn piece_by_piece(&mut self, task: &ExportedTask, cursor: Cursor) -> Result<(), Broken> {
        let parts = self.asked.format.parts();
        let id = task.task.id;
        if parts.logs {
            self.all_logs(id).await?;
        }
        if parts.conversations {
            self.conversations(task, cursor).await?;
        }
        if parts.steps {
            self.all_steps(id).await?;
        }
        Ok(())
    }

    async fn all_logs(&mut self, id: TaskId) -> Result<(), Broken> {
        let mut after = 0;
        loop {
            let store = self.state.queue.store();
            let part = store.logs_after(id, after, usize::MAX).await?;
            let Some(last) = part.lines.last() else {
                return Ok(());
            };
            after = last.sequence;
            self.form.logs(&part.lines);
            self.send(PIECE_BYTES).await?;
            if !part.more {
                return Ok(());
            }
        }
    }

    async fn all_steps(&mut self, id: TaskId) -> Result<(), Broken> {
        let mut from = None;
        loop {
            let query = StepQuery {
                task: id,
                attempt: None,
                from,
                most: MOST_STEPS,
            };
            let page = self.state.queue.store().steps(query).await?;
            self.form.steps(&page.steps);
            self.send(PIECE_BYTES).await?;
            from = page.next;
            if from.is_none() {
                return Ok(());
            }
        }
    }

    async fn conversations(&mut self, task: &ExportedTask, cursor: Cursor) -> Result<(), Broken> {
        if task.whole {
            for (conversation, messages) in &task.conversations {
                self.conversation(task, conversation, Some(messages), cursor)
                    .await?;
            }
            return Ok(());
        }
        let mut after = None;
        loop {
            let store = self.state.queue.store();
            let part = store.conversations_after(task.task.id, after).await?;
            let Some(last) = part.last() else {
                return Ok(());
            };
            after = Some(last.id);
            for conversation in &part {
                self.conversation(task, conversation, None, cursor).await?;
            }
        }
    }

    /// One conversation; where its messages are not at hand, they are read in pieces.
    async fn conversation(
        &mut self,
        task: &ExportedTask,
        conversation: &Conversation,
        messages: Option<&[Message]>,
        cursor: Cursor,
    ) -> Result<(), Broken> {
        let validity = task.validity_of(conversation.attempt, None);
        let mut row = Row { cursor, validity };
        if self.asked.format.rows_are_conversations() {
            // Of those that have not ended, each comes again.
            if task.number.is_some() {
                let asked = self.asked.cursor;
                let seen = asked.conversation.is_some_and(|id| conversation.id <= id);
                if cursor.number == asked.number && seen {
                    return Ok(());
                }
                row.cursor.conversation = Some(conversation.id);
            }
            let model = self.asked.model.as_deref();
            let other = model.is_some() && conversation.model_name.as_deref() != model;
            if other || !self.takes(validity) {
                return Ok(());
            }
        }
        self.form.begin_conversation(task, conversation, row);
        match messages {
            Some(messages) => self.form.messages(messages),
            None => {
                let mut from = 0;
                while from < conversation.messages {
                    let store = self.state.queue.store();
                    let part = store.messages(conversation.id, None, from, MOST_MESSAGES);
                    let mut part = part.await?.messages;
                    part.retain(|message| message.sequence < conversation.messages);
                    let Some(last) = part.last() else { break };
                    from = last.sequence.saturating_add(1);
                    self.form.messages(&part);
                    self.send(PIECE_BYTES).await?;
                }
            }
        }
        self.form.end_conversation();
        self.send(PIECE_BYTES).await
    }

    fn takes(&self, validity: Validity) -> bool {
        self.asked.validity.is_none_or(|mark| validity.mark == mark)
    }

    /// Whether a task is about the model that is asked for.
    async fn has_model(&self, task: &ExportedTask) -> Result<bool, Broken> {
        let Some(model) = self.asked.model.as_deref() else {
            return Ok(true);
        };
        if model_of(task).as_deref() == Some(model) {
            return Ok(true);
        }
        if task.whole && self.asked.format.parts().conversations {
            let mut said = task.conversations.iter();
            return Ok(said.any(|(said, _)| said.model_name.as_deref() == Some(model)));
        }
        let mut after = None;
        loop {
            let store = self.state.queue.store();
            let part = store.conversations_after(task.task.id, after).await?;
            if part
                .iter()
                .any(|said| said.model_name.as_deref() == Some(model))
            {
                return Ok(true);
            }
            match part.last() {
                Some(last) => after = Some(last.id),
                None => return Ok(false),
            }
        }
    }

    /// Sends what is written, if it is more than so many bytes.
    async fn send(&mut self, from: usize) -> Result<(), Broken> {
        let written = self.form.written().map_err(Broken::Form)?;
        if written.len() <= from {
            return Ok(());
        }
        let room = written.capacity().min(PIECE_BYTES * 2);
        let piece = std::mem::replace(written, Vec::with_capacity(room));
        let sent = self.pieces.send(Ok(Bytes::from(piece))).await;
        sent.map_err(|_| Broken::Gone)
    }
}

/// The model that the submitter of a task named.
fn model_of(task: &ExportedTask) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Parameters {
        agent_config: Option<Agent>,
    }
    #[derive(serde::Deserialize)]
    struct Agent {
        model: Option<String>,
    }
    let read: Result<Parameters, _> = serde_json::from_str(task.task.parameters.as_str());
    read.ok()?.agent_config?.model
}
