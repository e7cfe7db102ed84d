//! Everything that is kept of tasks, in the order in which they ended.
//!
//! A page is a handful of statements, whatever it holds: the tasks by their numbers, and
//! then each kind of thing that belongs to them, for all of them together. Where that is
//! more than a page may hold, the page has fewer tasks; a task that is too large for a page
//! comes alone and empty, and is read piece by piece.

use std::collections::HashMap;
use std::hash::Hash;

use taskwright_model::{TaskId, Timestamp};
use taskwright_queue::export::{EndsOrdered, ExportPage, ExportPlace, ExportQuery, ExportedTask};
use taskwright_queue::log::LogsPart;
use taskwright_queue::step::StepSum;
use taskwright_queue::{
    Attempt, Conversation, ConversationId, LogEntry, Message, QueuedTask, Step,
};

use super::ends::signed;
use super::{PAGE_BYTES, lists};
use crate::queue::rows::{
    self, attempt_columns, conversation_columns, log_columns, message_columns, step_columns,
    task_columns,
};
use crate::queue::sql::{Mode, OpError, Operation, Row, Sql, SqlError, Value};

/// Tasks that are numbered at a time.
const NUMBERED_TOGETHER: i64 = 2000;
/// Numbers that one page looks at: few of them may be asked for.
const NUMBERS_A_PAGE: u64 = 5000;
/// Rows of one kind in a page.
const MOST_ROWS: i64 = 50_000;
/// Rows of what is read piece by piece.
const ROWS_A_PIECE: i64 = 10_000;

pub(crate) struct OrderEnds {
    pub(crate) until: Timestamp,
}

impl Operation for OrderEnds {
    type Output = EndsOrdered;
    const MODE: Mode = Mode::Transaction;
    const NAME: &'static str = "order_ends";

    async fn run<S: Sql>(&self, sql: &mut S) -> Result<EndsOrdered, OpError> {
        if S::POSTGRES {
            // One at a time: whoever comes next sees what the one before it numbered.
            sql.rows("SELECT pg_advisory_xact_lock(5790468)", &[])
                .await?;
        }
        let last = "SELECT max(ended_number) FROM queue_tasks WHERE ended_number IS NOT NULL";
        let last = match sql.row(last, &[]).await? {
            Some(mut row) => row.opt_int(0)?.unwrap_or(0),
            None => 0,
        };
        let number = "WITH next AS (SELECT id, row_number() OVER (ORDER BY completed_at, id) \
                      AS place FROM (SELECT id, completed_at FROM queue_tasks \
                      WHERE completed_at IS NOT NULL AND ended_number IS NULL \
                      AND completed_at <= ?1 ORDER BY completed_at, id LIMIT ?2) AS ended) \
                      UPDATE queue_tasks SET ended_number = ?3 + next.place FROM next \
                      WHERE queue_tasks.id = next.id";
        let values = [
            self.until.as_millis().into(),
            NUMBERED_TOGETHER.into(),
            last.into(),
        ];
        let given = sql.run(number, &values).await?;
        Ok(EndsOrdered {
            last: u64::try_from(last).unwrap_or(0).saturating_add(given),
            more: given >= u64::try_from(NUMBERED_TOGETHER).unwrap_or(u64::MAX),
        })
    }
}

pub(crate) struct Page(pub(crate) ExportQuery);

impl Operation for Page {
    type Output = ExportPage;
    const MODE: Mode = Mode::ReadParts;
    const NAME: &'static str = "export_page";

    async fn run<S: Sql>(&self, sql: &mut S) -> Result<ExportPage, OpError> {
        let Found {
            mut tasks,
            mut next,
            mut over,
            mut looked_at,
            bytes,
        } = self.tasks(sql).await?;
        let mut cut = bytes > PAGE_BYTES;
        while !tasks.is_empty() {
            let alone = tasks.len() == 1;
            match self.parts(sql, &tasks, alone).await? {
                Some(parts) => {
                    let bytes = parts.bytes.max(bytes);
                    let fullness = if cut { 2.0 } else { share(bytes) };
                    let tasks = parts.of(tasks);
                    return Ok(ExportPage {
                        tasks,
                        next,
                        over,
                        looked_at,
                        fullness,
                    });
                }
                None => {
                    tasks.truncate(tasks.len() / 2);
                    looked_at = u32::try_from(tasks.len()).unwrap_or(u32::MAX);
                    cut = true;
                    over = false;
                    if let Some((number, task)) = tasks.last() {
                        next = place_behind(*number, task);
                    }
                }
            }
        }
        Ok(ExportPage {
            tasks: Vec::new(),
            next,
            over,
            looked_at,
            fullness: share(bytes),
        })
    }
}

/// How much of a page's room so many bytes take.
#[expect(clippy::cast_precision_loss, reason = "a few megabytes")]
fn share(bytes: usize) -> f64 {
    bytes as f64 / PAGE_BYTES as f64
}

fn place_behind(number: Option<u64>, task: &QueuedTask) -> ExportPlace {
    match number {
        Some(number) => ExportPlace::Ended(number),
        None => ExportPlace::Open(Some(task.id)),
    }
}

type Numbered = (Option<u64>, QueuedTask);

/// The tasks of a page, before what belongs to them.
struct Found {
    tasks: Vec<Numbered>,
    next: ExportPlace,
    over: bool,
    looked_at: u32,
    bytes: usize,
}

impl Page {
    /// The tasks of the page, and where to go on.
    async fn tasks<S: Sql>(&self, sql: &mut S) -> Result<Found, OpError> {
        let query = &self.0;
        let behind;
        let order;
        let mut wanted = Wanted::default();
        let mut last_looked_at = None;
        match query.place {
            ExportPlace::Ended(after) => {
                let last = after.saturating_add(NUMBERS_A_PAGE).min(query.through);
                last_looked_at = Some(last);
                wanted.add("ended_number >", signed(after).into());
                wanted.add("ended_number <=", signed(last).into());
                order = "ended_number";
            }
            ExportPlace::Open(after) => {
                wanted
                    .text
                    .push_str(" AND status IN ('pending', 'running')");
                behind = after.map(|id| id.to_string());
                if let Some(behind) = &behind {
                    wanted.add("id >", behind.into());
                }
                order = "id";
            }
        }
        if let Some(status) = query.status {
            wanted.add("status =", status.word().into());
        }
        let exact = query.problem.as_ref().and_then(|problem| problem.exact());
        if let Some(problem) = exact {
            wanted.add("problem_id =", problem.as_str().into());
        }
        if let Some(worker) = &query.worker {
            wanted.add("worker_id =", worker.as_str().into());
        }
        if let Some(since) = query.since {
            wanted.add("completed_at >=", since.as_millis().into());
        }
        if let Some(until) = query.until {
            wanted.add("completed_at <", until.as_millis().into());
        }
        wanted.values.push(query.most.into());
        let statement = format!(
            "SELECT {}, ended_number FROM queue_tasks WHERE TRUE{} ORDER BY {order} LIMIT ?{}",
            task_columns!(),
            wanted.text,
            wanted.values.len()
        );
        let found = sql
            .rows_within(&statement, &wanted.values, PAGE_BYTES)
            .await?;
        let all = !found.cut && found.rows.len() < query.most as usize;
        let bytes = found.bytes;
        let looked_at = u32::try_from(found.rows.len()).unwrap_or(u32::MAX);
        let mut tasks = Vec::with_capacity(found.rows.len());
        for mut row in found.rows {
            let number = row
                .opt_int(24)?
                .and_then(|number| u64::try_from(number).ok());
            let task = rows::task(row)?;
            let number = number.filter(|_| last_looked_at.is_some());
            tasks.push((number, task));
        }
        let next = match (all, last_looked_at, tasks.last()) {
            (true, Some(last), _) => ExportPlace::Ended(last),
            (_, _, Some((number, task))) => place_behind(*number, task),
            (_, _, None) => query.place,
        };
        let over = all && last_looked_at.is_none_or(|last| last >= query.through);
        // A glob is for us to understand; what it leaves out was looked at all the same.
        if let Some(problem) = &query.problem {
            tasks.retain(|(_, task)| problem.takes(&task.problem_id));
        }
        Ok(Found {
            tasks,
            next,
            over,
            looked_at,
            bytes,
        })
    }

    /// What belongs to tasks; `None` if that is more than a page may hold, which of a task `alone`
    /// is told by its being empty.
    async fn parts<S: Sql>(
        &self,
        sql: &mut S,
        tasks: &[Numbered],
        alone: bool,
    ) -> Result<Option<Parts>, OpError> {
        let ids = lists::ids::<S>(tasks.iter().map(|(_, task)| task.id));
        let wanted = self.0.parts;
        let mut parts = Parts {
            attempts: HashMap::new(),
            sums: sums(sql, &ids).await?,
            conversations: HashMap::new(),
            messages: HashMap::new(),
            steps: HashMap::new(),
            logs: HashMap::new(),
            whole: true,
            bytes: 0,
        };
        let room = if alone { usize::MAX } else { PAGE_BYTES };
        let statement = lists::one_of::<S>(concat!(
            "SELECT ",
            attempt_columns!(),
            ", task_id FROM queue_attempts WHERE task_id"
        ));
        let read = |mut row: Row| {
            let task = rows::id(&mut row, 7)?;
            Ok((task, rows::attempt(row)?))
        };
        let Some(attempts) = gather(sql, &statement, &ids, room, &mut parts.bytes, read).await?
        else {
            return Ok(None);
        };
        parts.attempts = attempts;
        for attempts in parts.attempts.values_mut() {
            attempts.sort_by_key(|attempt| attempt.number);
        }
        let filled = self.fill(sql, &ids, &mut parts, wanted).await?;
        if filled {
            return Ok(Some(parts));
        }
        if alone {
            parts.conversations.clear();
            parts.messages.clear();
            parts.steps.clear();
            parts.logs.clear();
            parts.whole = false;
            return Ok(Some(parts));
        }
        Ok(None)
    }

    /// Whether everything found room.
    async fn fill<S: Sql>(
        &self,
        sql: &mut S,
        ids: &str,
        parts: &mut Parts,
        wanted: taskwright_queue::export::ExportParts,
    ) -> Result<bool, OpError> {
        if wanted.conversations {
            let statement = lists::one_of::<S>(concat!(
                "SELECT ",
                conversation_columns!(),
                " FROM queue_conversations WHERE task_id"
            ));
            let read = |row: Row| {
                let conversation = rows::conversation(row)?;
                Ok((conversation.task, conversation))
            };
            let Some(found) =
                gather(sql, &statement, ids, PAGE_BYTES, &mut parts.bytes, read).await?
            else {
                return Ok(false);
            };
            parts.conversations = found;
            for conversations in parts.conversations.values_mut() {
                conversations.sort_by_key(|conversation| conversation.id);
            }
            let all = parts.conversations.values().flatten();
            if !parts.conversations.is_empty() {
                let said = lists::ids::<S>(all.map(|conversation| conversation.id));
                let statement = lists::one_of::<S>(concat!(
                    "SELECT ",
                    message_columns!(),
                    ", conversation_id FROM queue_messages WHERE conversation_id"
                ));
                let read = |mut row: Row| {
                    let conversation = rows::id(&mut row, 5)?;
                    Ok((conversation, rows::message(row)?))
                };
                let found =
                    gather(sql, &statement, &said, PAGE_BYTES, &mut parts.bytes, read).await?;
                let Some(found) = found else { return Ok(false) };
                parts.messages = found;
                for messages in parts.messages.values_mut() {
                    messages.sort_by_key(|message| message.sequence);
                }
            }
        }
        if wanted.steps && !parts.sums.is_empty() {
            let statement = lists::one_of::<S>(concat!(
                "SELECT ",
                step_columns!(),
                ", task_id FROM queue_steps WHERE task_id"
            ));
            let read = |mut row: Row| {
                let task = rows::id(&mut row, 7)?;
                Ok((task, rows::step(task, row)?))
            };
            let Some(found) =
                gather(sql, &statement, ids, PAGE_BYTES, &mut parts.bytes, read).await?
            else {
                return Ok(false);
            };
            parts.steps = found;
            for steps in parts.steps.values_mut() {
                steps.sort_by_key(|step| (step.attempt, step.number));
            }
        }
        if wanted.logs {
            let statement = lists::one_of::<S>(concat!(
                "SELECT ",
                log_columns!(),
                ", task_id FROM queue_logs WHERE task_id"
            ));
            let read = |mut row: Row| {
                let task = rows::id(&mut row, 6)?;
                Ok((task, rows::log_entry(task, row)?))
            };
            let Some(found) =
                gather(sql, &statement, ids, PAGE_BYTES, &mut parts.bytes, read).await?
            else {
                return Ok(false);
            };
            parts.logs = found;
            for lines in parts.logs.values_mut() {
                lines.sort_by_key(|line| line.sequence);
            }
        }
        Ok(true)
    }
}

/// Conditions with their values.
#[derive(Default)]
struct Wanted<'a> {
    text: String,
    values: Vec<Value<'a>>,
}

impl<'a> Wanted<'a> {
    fn add(&mut self, condition: &str, value: Value<'a>) {
        self.values.push(value);
        let number = self.values.len();
        self.text.push_str(&format!(" AND {condition} ?{number}"));
    }
}

/// What belongs to tasks.
struct Parts {
    attempts: HashMap<TaskId, Vec<Attempt>>,
    sums: HashMap<TaskId, Vec<StepSum>>,
    conversations: HashMap<TaskId, Vec<Conversation>>,
    messages: HashMap<ConversationId, Vec<Message>>,
    steps: HashMap<TaskId, Vec<Step>>,
    logs: HashMap<TaskId, Vec<LogEntry>>,
    whole: bool,
    /// Those of the fullest kind.
    bytes: usize,
}

impl Parts {
    fn of(mut self, tasks: Vec<Numbered>) -> Vec<ExportedTask> {
        let mut exported = Vec::with_capacity(tasks.len());
        for (number, task) in tasks {
            let said = self.conversations.remove(&task.id).unwrap_or_default();
            let conversations = said.into_iter().map(|conversation| {
                let mut messages = self.messages.remove(&conversation.id).unwrap_or_default();
                // What was said since the conversation was read is for the next time.
                messages.retain(|message| message.sequence < conversation.messages);
                (conversation, messages)
            });
            exported.push(ExportedTask {
                number,
                conversations: conversations.collect(),
                attempts: self.attempts.remove(&task.id).unwrap_or_default(),
                sums: self.sums.remove(&task.id).unwrap_or_default(),
                whole: self.whole,
                steps: self.steps.remove(&task.id).unwrap_or_default(),
                logs: self.logs.remove(&task.id).unwrap_or_default(),
                task,
            });
        }
        exported
    }
}

async fn sums<S: Sql>(sql: &mut S, ids: &str) -> Result<HashMap<TaskId, Vec<StepSum>>, OpError> {
    let statement = lists::one_of::<S>(
        "SELECT task_id, attempt, count(*), sum(reward), max(terminated), max(truncated) \
         FROM queue_steps WHERE task_id",
    ) + " GROUP BY task_id, attempt";
    let mut sums: HashMap<TaskId, Vec<StepSum>> = HashMap::new();
    for mut row in sql.rows(&statement, &[ids.into()]).await? {
        let row = &mut row;
        let task = rows::id(row, 0)?;
        sums.entry(task).or_default().push(StepSum {
            attempt: row.small(1)?,
            steps: row.count(2)?,
            reward: row.real(3)?,
            terminated: row.int(4)? != 0,
            truncated: row.int(5)? != 0,
        });
    }
    Ok(sums)
}

/// Everything that belongs to the listed ones, in no order; `None` if it is too much.
async fn gather<S: Sql, K: Eq + Hash, T>(
    sql: &mut S,
    statement: &str,
    ids: &str,
    room: usize,
    bytes: &mut usize,
    read: impl Fn(Row) -> Result<(K, T), SqlError>,
) -> Result<Option<HashMap<K, Vec<T>>>, OpError> {
    // Unordered, so that a database hands over what it finds as it finds it.
    let statement = format!("{statement} LIMIT {MOST_ROWS}");
    let found = sql.rows_within(&statement, &[ids.into()], room).await?;
    if found.cut || signed(found.rows.len() as u64) >= MOST_ROWS {
        return Ok(None);
    }
    *bytes = found.bytes.max(*bytes);
    let mut gathered: HashMap<K, Vec<T>> = HashMap::new();
    for row in found.rows {
        let (key, one) = read(row)?;
        gathered.entry(key).or_default().push(one);
    }
    Ok(Some(gathered))
}

pub(crate) struct ConversationsAfter {
    pub(crate) task: TaskId,
    pub(crate) after: Option<ConversationId>,
}

impl Operation for ConversationsAfter {
    type Output = Vec<Conversation>;
    const MODE: Mode = Mode::ReadParts;
    const NAME: &'static str = "conversations_after";

    async fn run<S: Sql>(&self, sql: &mut S) -> Result<Self::Output, OpError> {
        let statement = concat!(
            "SELECT ",
            conversation_columns!(),
            " FROM queue_conversations WHERE task_id = ?1 AND id > ?2 ORDER BY id LIMIT ?3"
        );
        let task = self.task.to_string();
        let after = self.after.map(|id| id.to_string()).unwrap_or_default();
        let values = [(&task).into(), (&after).into(), ROWS_A_PIECE.into()];
        let found = sql.rows_within(statement, &values, PAGE_BYTES).await?;
        let read = found.rows.into_iter().map(rows::conversation);
        Ok(read.collect::<Result<_, _>>()?)
    }
}

pub(crate) struct LogsAfter {
    pub(crate) task: TaskId,
    pub(crate) after: u64,
    pub(crate) bytes: usize,
}

impl Operation for LogsAfter {
    type Output = LogsPart;
    const MODE: Mode = Mode::ReadParts;
    const NAME: &'static str = "logs_after";

    async fn run<S: Sql>(&self, sql: &mut S) -> Result<Self::Output, OpError> {
        let statement = concat!(
            "SELECT ",
            log_columns!(),
            " FROM queue_logs WHERE task_id = ?1 AND sequence > ?2 ORDER BY sequence LIMIT ?3"
        );
        let task = self.task.to_string();
        let values = [
            (&task).into(),
            signed(self.after).into(),
            ROWS_A_PIECE.into(),
        ];
        let bytes = self.bytes.min(PAGE_BYTES);
        let found = sql.rows_within(statement, &values, bytes).await?;
        let all = i64::try_from(found.rows.len()).is_ok_and(|rows| rows < ROWS_A_PIECE);
        let read = found
            .rows
            .into_iter()
            .map(|row| rows::log_entry(self.task, row));
        Ok(LogsPart {
            lines: read.collect::<Result<_, _>>()?,
            more: found.cut || !all,
        })
    }
}
