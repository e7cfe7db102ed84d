//! From rows to the queue's words, and the columns that they stand in.

use std::time::Duration;

use taskwright_model::{TaskId, Timestamp};
use taskwright_queue::conversation::Usage;
use taskwright_queue::task::Tries;
use taskwright_queue::{
    Attempt, AttemptEnd, Capabilities, Cause, Conversation, Json, LogEntry, LogLevel, Message,
    ProblemId, QueuedTask, Role, Step, TaskStatus, Worker, WorkerId,
};

use super::sql::{Cell, Row, SqlError, SqlFault};

/// The columns of a task, in the order in which [`task`] reads them.
macro_rules! task_columns {
    () => {
        "queue_tasks.id, queue_tasks.problem_id, queue_tasks.parameters, queue_tasks.priority, \
         queue_tasks.backend, queue_tasks.limit_ms, queue_tasks.failures_allowed, \
         queue_tasks.losses_allowed, queue_tasks.callback_url, queue_tasks.status, \
         queue_tasks.worker_id, queue_tasks.attempt, queue_tasks.losses, queue_tasks.result, \
         queue_tasks.error, queue_tasks.error_document, queue_tasks.cause, \
         queue_tasks.created_at, queue_tasks.updated_at, queue_tasks.started_at, \
         queue_tasks.completed_at, queue_tasks.not_before, queue_tasks.deadline, \
         queue_tasks.revision"
    };
}
pub(crate) use task_columns;

pub(crate) fn task(mut row: Row) -> Result<QueuedTask, SqlError> {
    let row = &mut row;
    Ok(QueuedTask {
        id: id(row, 0)?,
        problem_id: ProblemId::from_store(row.text(1)?),
        parameters: Json::from_store(row.text(2)?),
        priority: row.real(3)?.unwrap_or_default(),
        backend_type: Some(row.text(4)?).filter(|backend| !backend.is_empty()),
        time_limit: Duration::from_millis(row.count(5)?),
        tries: Tries {
            failures: row.small(6)?,
            losses: row.small(7)?,
        },
        callback_url: row.opt_text(8)?,
        status: word(row, 9, TaskStatus::of_word)?,
        worker: row.opt_text(10)?.map(WorkerId::from_store),
        attempt: row.small(11)?,
        losses: row.small(12)?,
        result: row.opt_text(13)?.map(Json::from_store),
        error: row.opt_text(14)?,
        error_document: row.opt_text(15)?.map(Json::from_store),
        cause: match row.opt_text(16)? {
            Some(text) => Some(Cause::of_word(&text).ok_or_else(|| unknown(&text))?),
            None => None,
        },
        created_at: time(row, 17)?,
        updated_at: time(row, 18)?,
        started_at: opt_time(row, 19)?,
        completed_at: opt_time(row, 20)?,
        not_before: time(row, 21)?,
        deadline: opt_time(row, 22)?,
        revision: row.count(23)?,
    })
}

/// The columns of an attempt, in the order in which [`attempt`] reads them.
macro_rules! attempt_columns {
    () => {
        "number, worker_id, started_at, ended_at, outcome, cause, error"
    };
}
pub(crate) use attempt_columns;

pub(crate) fn attempt(mut row: Row) -> Result<Attempt, SqlError> {
    let row = &mut row;
    Ok(Attempt {
        number: row.small(0)?,
        worker: WorkerId::from_store(row.text(1)?),
        started_at: time(row, 2)?,
        ended_at: time(row, 3)?,
        end: word(row, 4, AttemptEnd::of_word)?,
        cause: word(row, 5, Cause::of_word)?,
        error: row.opt_text(6)?,
    })
}

/// The columns of a worker, in the order in which [`worker`] reads them.
macro_rules! worker_columns {
    () => {
        "id, backend_type, max_parallel, problems, capabilities, metadata, registered_at, \
         last_heartbeat, alive_until, leaving, completed, failed, revision"
    };
}
pub(crate) use worker_columns;

/// A worker; the tasks it holds are read by another statement.
pub(crate) fn worker(mut row: Row) -> Result<Worker, SqlError> {
    let row = &mut row;
    let problems = row.text(3)?;
    let serde_problems: Vec<String> = serde_json::from_str(&problems).unwrap_or_default();
    Ok(Worker {
        id: WorkerId::from_store(row.text(0)?),
        backend_type: row.text(1)?,
        capabilities: Capabilities {
            max_parallel: row.small(2)?,
            problems: serde_problems,
            document: Json::from_store(row.text(4)?),
        },
        metadata: Json::from_store(row.text(5)?),
        registered_at: time(row, 6)?,
        last_heartbeat: time(row, 7)?,
        alive_until: time(row, 8)?,
        leaving: row.int(9)? != 0,
        completed: row.count(10)?,
        failed: row.count(11)?,
        running: Vec::new(),
        revision: row.count(12)?,
    })
}

/// The columns of a line, in the order in which [`log_entry`] reads them.
macro_rules! log_columns {
    () => {
        "sequence, at, level, message, context, attempt"
    };
}
pub(crate) use log_columns;

pub(crate) fn log_entry(task: TaskId, mut row: Row) -> Result<LogEntry, SqlError> {
    let row = &mut row;
    let level = usize::try_from(row.int(2)?).unwrap_or(usize::MAX);
    Ok(LogEntry {
        task,
        sequence: row.count(0)?,
        at: time(row, 1)?,
        level: LogLevel::ALL.get(level).copied().unwrap_or(LogLevel::Info),
        message: row.text(3)?,
        context: Json::from_store(row.text(4)?),
        attempt: row.opt_small(5)?,
    })
}

/// The columns of a step, in the order in which [`step`] reads them.
macro_rules! step_columns {
    () => {
        "attempt, number, at, reward, terminated, truncated, body"
    };
}
pub(crate) use step_columns;

pub(crate) fn step(task: TaskId, mut row: Row) -> Result<Step, SqlError> {
    let row = &mut row;
    Ok(Step {
        task,
        attempt: row.small(0)?,
        number: row.count(1)?,
        at: time(row, 2)?,
        reward: row.real(3)?,
        terminated: row.int(4)? != 0,
        truncated: row.int(5)? != 0,
        body: Json::from_store(row.text(6)?),
    })
}

/// The number of a level, as it is kept.
pub(crate) fn level_number(level: LogLevel) -> i64 {
    let place = LogLevel::ALL.iter().position(|known| *known == level);
    place
        .and_then(|place| i64::try_from(place).ok())
        .unwrap_or(1)
}

/// The columns of a conversation, in the order in which [`conversation`] reads them.
macro_rules! conversation_columns {
    () => {
        "id, task_id, session_id, started_at, ended_at, model_name, config, metadata, success, \
         messages, characters, input_tokens, output_tokens, cost, attempt"
    };
}
pub(crate) use conversation_columns;

pub(crate) fn conversation(mut row: Row) -> Result<Conversation, SqlError> {
    let row = &mut row;
    let input = row.opt_int(11)?;
    Ok(Conversation {
        id: id(row, 0)?,
        task: id(row, 1)?,
        attempt: row.opt_small(14)?,
        session: id(row, 2)?,
        started_at: time(row, 3)?,
        ended_at: opt_time(row, 4)?,
        model_name: row.opt_text(5)?,
        config: Json::from_store(row.text(6)?),
        metadata: Json::from_store(row.text(7)?),
        success: row.opt_int(8)?.map(|flag| flag != 0),
        messages: row.count(9)?,
        characters: row.count(10)?,
        usage: match input {
            Some(input) => Some(Usage {
                input_tokens: u64::try_from(input).unwrap_or(0),
                output_tokens: u64::try_from(row.opt_int(12)?.unwrap_or(0)).unwrap_or(0),
                cost: row.real(13)?,
            }),
            None => None,
        },
    })
}

/// The columns of a message, in the order in which [`message`] reads them.
macro_rules! message_columns {
    () => {
        "sequence, at, role, characters, body"
    };
}
pub(crate) use message_columns;

pub(crate) fn message(mut row: Row) -> Result<Message, SqlError> {
    let row = &mut row;
    Ok(Message {
        sequence: row.count(0)?,
        at: time(row, 1)?,
        role: word(row, 2, Role::of_word)?,
        characters: row.count(3)?,
        body: Json::from_store(row.text(4)?),
    })
}

pub(crate) fn id(row: &mut Row, column: usize) -> Result<TaskId, SqlError> {
    let text = row.text(column)?;
    TaskId::parse(&text).map_err(|_| unknown(&text))
}

pub(crate) fn time(row: &mut Row, column: usize) -> Result<Timestamp, SqlError> {
    row.int(column).map(Timestamp::from_millis)
}

pub(crate) fn opt_time(row: &mut Row, column: usize) -> Result<Option<Timestamp>, SqlError> {
    Ok(row.opt_int(column)?.map(Timestamp::from_millis))
}

/// Pairs of a text and a count.
pub(crate) fn counted(mut row: Row) -> Result<(String, u64), SqlError> {
    let text = match row.0.first() {
        Some(Cell::Null) => "unknown".to_owned(),
        _ => row.text(0)?,
    };
    Ok((text, row.count(1)?))
}

pub(crate) fn word<T>(
    row: &mut Row,
    column: usize,
    read: impl Fn(&str) -> Option<T>,
) -> Result<T, SqlError> {
    let text = row.text(column)?;
    read(&text).ok_or_else(|| unknown(&text))
}

fn unknown(text: &str) -> SqlError {
    SqlError {
        kind: SqlFault::Other,
        message: format!(
            "the queue's store holds a word that this program does not know: {text:?}"
        ),
    }
}
