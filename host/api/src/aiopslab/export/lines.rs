//! `chat` and `tasks`: each row is a JSON object on a line of its own.

use taskwright_queue::export::ExportedTask;
use taskwright_queue::{Attempt, Conversation, Message, QueuedTask, Step, Usage, Validity};

use super::form::{Form, FormError, Row};
use super::query::Cursor;
use super::text::{Object, raw};

/// The last line: it tells a whole export from one that was cut off.
fn last_line(out: &mut Vec<u8>, rows: u64, cursor: Cursor) {
    let mut object = Object::open(out);
    object.text("export", "complete");
    object.plain("rows", rows);
    object.plain("cursor", format_args!("\"{cursor}\""));
    object.close();
    out.push(b'\n');
}

/// What something may be taken for.
pub(super) fn judged(object: &mut Object<'_>, validity: Validity) {
    object.text("validity", validity.mark.word());
    object.opt_text("validity_reason", validity.reason);
}

/// What a model took, under this name.
pub(super) fn used(object: &mut Object<'_>, name: &str, usage: Option<&Usage>) {
    let Some(usage) = usage else {
        object.null(name);
        return;
    };
    let mut inner = Object::open(object.name(name));
    inner.plain("input_tokens", usage.input_tokens);
    inner.plain("output_tokens", usage.output_tokens);
    inner.opt_real("total_cost", usage.cost);
    inner.close();
}

/// A line for each conversation, its messages last.
#[derive(Default)]
pub(super) struct Chat {
    out: Vec<u8>,
    rows: u64,
    /// Whether the row has a message.
    spoken: bool,
}

impl Form for Chat {
    fn begin_task(&mut self, _: &ExportedTask, _: Row) {}

    fn begin_conversation(&mut self, task: &ExportedTask, said: &Conversation, row: Row) {
        let mut object = Object::open(&mut self.out);
        object.plain("cursor", format_args!("\"{}\"", row.cursor));
        object.plain("conversation_id", format_args!("\"{}\"", said.id));
        object.plain("task_id", format_args!("\"{}\"", said.task));
        object.plain("session_id", format_args!("\"{}\"", said.session));
        object.text("problem_id", task.task.problem_id.as_str());
        let worker = task.worker_of(said.attempt);
        object.opt_text("worker_id", worker.map(|worker| worker.as_str()));
        object.opt_plain("attempt", said.attempt);
        object.opt_text("model", said.model_name.as_deref());
        object.time("started_at", said.started_at);
        object.opt_time("ended_at", said.ended_at);
        object.opt_plain("success", said.success);
        object.text("status", task.task.status.word());
        let cause = task.cause_of(said.attempt);
        object.opt_text("cause", cause.map(|cause| cause.word()));
        judged(&mut object, row.validity);
        let steps = task.sum_of(said.attempt.unwrap_or(task.task.attempt));
        object.opt_real("reward", steps.and_then(|sum| sum.reward));
        used(&mut object, "usage", said.usage.as_ref());
        object.raw("llm_config", &said.config);
        object.raw("metadata", &said.metadata);
        object.name("messages").push(b'[');
        self.spoken = false;
    }

    fn messages(&mut self, messages: &[Message]) {
        for message in messages {
            if self.spoken {
                self.out.push(b',');
            }
            self.spoken = true;
            raw(&mut self.out, &message.body);
        }
    }

    fn end_conversation(&mut self) {
        self.out.extend_from_slice(b"]}\n");
        self.rows = self.rows.saturating_add(1);
    }

    fn end(&mut self, cursor: Cursor) -> Result<(), FormError> {
        last_line(&mut self.out, self.rows, cursor);
        Ok(())
    }

    fn written(&mut self) -> Result<&mut Vec<u8>, FormError> {
        Ok(&mut self.out)
    }
}

/// A line for each task, its steps last.
#[derive(Default)]
pub(super) struct Tasks {
    out: Vec<u8>,
    rows: u64,
    /// Whether the row has a step.
    stepped: bool,
}

impl Form for Tasks {
    fn begin_task(&mut self, task: &ExportedTask, row: Row) {
        let mut object = Object::open(&mut self.out);
        object.plain("cursor", format_args!("\"{}\"", row.cursor));
        object.plain("task_id", format_args!("\"{}\"", task.task.id));
        told(&mut object, &task.task);
        judged(&mut object, row.validity);
        let out = object.name("attempts");
        out.push(b'[');
        for (place, attempt) in task.attempts.iter().enumerate() {
            if place > 0 {
                out.push(b',');
            }
            attempted(out, task, attempt);
        }
        out.push(b']');
        object.name("steps").push(b'[');
        self.stepped = false;
    }

    fn steps(&mut self, steps: &[Step]) {
        for step in steps {
            if self.stepped {
                self.out.push(b',');
            }
            self.stepped = true;
            let mut object = Object::open(&mut self.out);
            object.plain("attempt", step.attempt);
            object.plain("step", step.number);
            object.time("timestamp", step.at);
            object.opt_real("reward", step.reward);
            object.plain("terminated", step.terminated);
            object.plain("truncated", step.truncated);
            object.raw("data", &step.body);
            object.close();
        }
    }

    fn end_task(&mut self) {
        self.out.extend_from_slice(b"]}\n");
        self.rows = self.rows.saturating_add(1);
    }

    fn end(&mut self, cursor: Cursor) -> Result<(), FormError> {
        last_line(&mut self.out, self.rows, cursor);
        Ok(())
    }

    fn written(&mut self) -> Result<&mut Vec<u8>, FormError> {
        Ok(&mut self.out)
    }
}

fn told(object: &mut Object<'_>, task: &QueuedTask) {
    object.text("problem_id", task.problem_id.as_str());
    object.text("status", task.status.word());
    object.opt_text("cause", task.cause.map(|cause| cause.word()));
    object.opt_text(
        "worker_id",
        task.worker.as_ref().map(|worker| worker.as_str()),
    );
    object.plain("attempt", task.attempt);
    object.time("created_at", task.created_at);
    object.opt_time("started_at", task.started_at);
    object.opt_time("completed_at", task.completed_at);
    object.raw("parameters", &task.parameters);
    object.opt_raw("result", task.result.as_ref());
    object.opt_text("error_details", task.error.as_deref());
    object.opt_raw("error_data", task.error_document.as_ref());
}

fn attempted(out: &mut Vec<u8>, task: &ExportedTask, attempt: &Attempt) {
    let mut object = Object::open(out);
    object.plain("number", attempt.number);
    object.text("worker_id", attempt.worker.as_str());
    object.time("started_at", attempt.started_at);
    object.time("ended_at", attempt.ended_at);
    object.text("outcome", attempt.end.word());
    object.text("cause", attempt.cause.word());
    object.opt_text("error", attempt.error.as_deref());
    judged(&mut object, task.validity_of(Some(attempt.number), None));
    let sum = task.sum_of(attempt.number);
    object.plain("steps", sum.map_or(0, |sum| sum.steps));
    object.opt_real("reward", sum.and_then(|sum| sum.reward));
    object.close();
}
