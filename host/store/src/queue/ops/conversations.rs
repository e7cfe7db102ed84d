//! What was said between a model and the world.

use taskwright_model::Timestamp;
use taskwright_queue::conversation::{
    ConversationQuery, ConversationUpdate, MessagesPart, NewMessage,
};
use taskwright_queue::port::StoreError;
use taskwright_queue::{Conversation, ConversationId, Json, NewConversation, Role, Writer};

use super::ends::signed;
use super::{PAGE_BYTES, conditions, locked, writers};
use crate::queue::rows::{self, conversation_columns, message_columns};
use crate::queue::sql::{Mode, OpError, Operation, Sql, Value};

pub(crate) struct Begin {
    pub(crate) conversation: NewConversation,
    pub(crate) now: Timestamp,
}

impl Operation for Begin {
    type Output = Conversation;
    const MODE: Mode = Mode::Transaction;
    const NAME: &'static str = "begin_conversation";

    async fn run<S: Sql>(&self, sql: &mut S) -> Result<Conversation, OpError> {
        let new = &self.conversation;
        let task = new.task.to_string();
        let writer = writers::check(sql, new.task, new.writer.as_ref()).await?;
        let row = sql
            .row(
                concat!(
                    "INSERT INTO queue_conversations (id, task_id, session_id, started_at, \
                     model_name, config, metadata, messages, characters, attempt) \
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 0, 0, ?8) ON CONFLICT (id) DO NOTHING \
                     RETURNING ",
                    conversation_columns!()
                ),
                &[
                    (&new.id.to_string()).into(),
                    (&task).into(),
                    (&new.session.to_string()).into(),
                    new.started_at.unwrap_or(self.now).as_millis().into(),
                    new.model_name.as_deref().into(),
                    new.config.as_str().into(),
                    new.metadata.as_str().into(),
                    // Of the attempt under way, where nobody told: a worker that was lost in the
                    // middle leaves half a conversation, which is not the next one's.
                    writer
                        .told
                        .or(Some(writer.present).filter(|n| *n > 0))
                        .into(),
                ],
            )
            .await?;
        match row {
            Some(row) => Ok(rows::conversation(row)?),
            None => {
                let found = read(sql, new.id, "").await?;
                if found.task != new.task {
                    return Err(StoreError::Conflict(format!(
                        "conversation {} belongs to task {}",
                        new.id, found.task
                    ))
                    .into());
                }
                of_attempt(&found, writer.told)?;
                let (kept, told) = (found.model_name.as_deref(), new.model_name.as_deref());
                if told.is_some() && told != kept {
                    return Err(StoreError::Conflict(format!(
                        "conversation {} is with {}, and not with {}",
                        new.id,
                        kept.unwrap_or("no model that was told"),
                        told.unwrap_or_default()
                    ))
                    .into());
                }
                Ok(found)
            }
        }
    }
}

/// Refuses what another attempt than the conversation's writes into it.
fn of_attempt(found: &Conversation, told: Option<u32>) -> Result<(), OpError> {
    match (found.attempt, told) {
        (Some(kept), Some(told)) if kept != told => Err(StoreError::Conflict(format!(
            "conversation {} belongs to attempt {kept}, and not to attempt {told}",
            found.id
        ))
        .into()),
        _ => Ok(()),
    }
}

/// A conversation that is about to be changed by `writer`.
async fn read_for<S: Sql>(
    sql: &mut S,
    id: ConversationId,
    writer: Option<&Writer>,
) -> Result<Conversation, OpError> {
    // The task first, as everywhere: two that lock in the same order never wait for each other.
    if writer.is_some() {
        let found = read(sql, id, "").await?;
        let writer = writers::check(sql, found.task, writer).await?;
        of_attempt(&found, writer.told)?;
    }
    read(sql, id, "FOR UPDATE").await
}

async fn read<S: Sql>(
    sql: &mut S,
    id: ConversationId,
    lock: &str,
) -> Result<Conversation, OpError> {
    let statement = concat!(
        "SELECT ",
        conversation_columns!(),
        " FROM queue_conversations WHERE id = ?1"
    );
    let statement = locked::<S>(statement, lock);
    let row = sql.row(&statement, &[(&id.to_string()).into()]).await?;
    let row = row.ok_or(StoreError::NoSuchConversation(id))?;
    Ok(rows::conversation(row)?)
}

pub(crate) struct Say {
    pub(crate) id: ConversationId,
    pub(crate) writer: Option<Writer>,
    pub(crate) messages: Vec<NewMessage>,
    pub(crate) now: Timestamp,
}

impl Operation for Say {
    type Output = Conversation;
    const MODE: Mode = Mode::Transaction;
    const NAME: &'static str = "append_messages";

    async fn run<S: Sql>(&self, sql: &mut S) -> Result<Conversation, OpError> {
        let id = self.id.to_string();
        let found = read_for(sql, self.id, self.writer.as_ref()).await?;
        let mut next = found.messages;
        let mut characters = 0_u64;
        for message in &self.messages {
            let sequence = message.sequence.unwrap_or(next);
            if sequence < next {
                self.check_same(sql, &id, sequence, message).await?;
                continue;
            }
            if sequence > next {
                return Err(StoreError::Conflict(format!(
                    "message {sequence} leaves a gap: conversation {id} has {next} messages, so \
                     the next one has the number {next}"
                ))
                .into());
            }
            if next >= Conversation::MOST_MESSAGES {
                return Err(StoreError::Full(format!(
                    "conversation {id} has {} messages, as many as may be",
                    Conversation::MOST_MESSAGES
                ))
                .into());
            }
            sql.run(
                "INSERT INTO queue_messages (conversation_id, sequence, at, role, characters, \
                 body) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                &[
                    (&id).into(),
                    signed(sequence).into(),
                    message.at.unwrap_or(self.now).as_millis().into(),
                    message.role.word().into(),
                    signed(message.characters).into(),
                    message.body.as_str().into(),
                ],
            )
            .await?;
            next = next.saturating_add(1);
            characters = characters.saturating_add(message.characters);
        }
        let row = sql
            .row(
                concat!(
                    "UPDATE queue_conversations SET messages = ?2, \
                     characters = characters + ?3 WHERE id = ?1 RETURNING ",
                    conversation_columns!()
                ),
                &[(&id).into(), signed(next).into(), signed(characters).into()],
            )
            .await?;
        Ok(rows::conversation(
            row.ok_or(StoreError::NoSuchConversation(self.id))?,
        )?)
    }
}

impl Say {
    /// A number that is known: fine if it is the same message once more.
    async fn check_same<S: Sql>(
        &self,
        sql: &mut S,
        id: &str,
        sequence: u64,
        message: &NewMessage,
    ) -> Result<(), OpError> {
        let statement = "SELECT body FROM queue_messages \
                         WHERE conversation_id = ?1 AND sequence = ?2";
        let kept = match sql
            .row(statement, &[id.into(), signed(sequence).into()])
            .await?
        {
            Some(mut row) => row.text(0)?,
            None => String::new(),
        };
        if kept == message.body.as_str() {
            return Ok(());
        }
        Err(StoreError::Conflict(format!(
            "message {sequence} of conversation {id} is on record with another content"
        ))
        .into())
    }
}

pub(crate) struct Update {
    pub(crate) id: ConversationId,
    pub(crate) writer: Option<Writer>,
    pub(crate) update: ConversationUpdate,
}

impl Operation for Update {
    type Output = Conversation;
    const MODE: Mode = Mode::Transaction;
    const NAME: &'static str = "update_conversation";

    async fn run<S: Sql>(&self, sql: &mut S) -> Result<Conversation, OpError> {
        let found = read_for(sql, self.id, self.writer.as_ref()).await?;
        let update = &self.update;
        let metadata = match &update.metadata {
            Some(more) => {
                let merged = merged(&found.metadata, more);
                let (bytes, most) = (merged.as_str().len(), Conversation::MOST_BESIDE);
                // What is larger already, of an earlier version, may shrink.
                if bytes > most.max(found.metadata.as_str().len()) {
                    return Err(StoreError::TooLarge(format!(
                        "the metadata of conversation {} would have {bytes} bytes, {most} are \
                         allowed",
                        self.id
                    ))
                    .into());
                }
                merged
            }
            None => found.metadata.clone(),
        };
        let usage = update.usage.as_ref().or(found.usage.as_ref());
        let row = sql
            .row(
                concat!(
                    "UPDATE queue_conversations SET ended_at = ?2, success = ?3, metadata = ?4, \
                     input_tokens = ?5, output_tokens = ?6, cost = ?7 WHERE id = ?1 RETURNING ",
                    conversation_columns!()
                ),
                &[
                    (&self.id.to_string()).into(),
                    update
                        .ended_at
                        .or(found.ended_at)
                        .map(Timestamp::as_millis)
                        .into(),
                    update.success.or(found.success).map(i64::from).into(),
                    metadata.as_str().into(),
                    usage.map(|usage| signed(usage.input_tokens)).into(),
                    usage.map(|usage| signed(usage.output_tokens)).into(),
                    usage.and_then(|usage| usage.cost).into(),
                ],
            )
            .await?;
        Ok(rows::conversation(
            row.ok_or(StoreError::NoSuchConversation(self.id))?,
        )?)
    }
}

/// An object with the fields of another set in it.
fn merged(kept: &Json, more: &Json) -> Json {
    match (kept.value(), more.value()) {
        (serde_json::Value::Object(mut kept), serde_json::Value::Object(more)) => {
            kept.extend(more);
            Json::of(&serde_json::Value::Object(kept))
        }
        _ => kept.clone(),
    }
}

pub(crate) struct ReadOne(pub(crate) ConversationId);

impl Operation for ReadOne {
    type Output = Option<Conversation>;
    const MODE: Mode = Mode::Read;
    const NAME: &'static str = "conversation";

    async fn run<S: Sql>(&self, sql: &mut S) -> Result<Self::Output, OpError> {
        match read(sql, self.0, "").await {
            Ok(found) => Ok(Some(found)),
            Err(OpError::Refused(StoreError::NoSuchConversation(_))) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

pub(crate) struct List(pub(crate) ConversationQuery);

impl Operation for List {
    type Output = (Vec<Conversation>, u64);
    const MODE: Mode = Mode::Read;
    const NAME: &'static str = "conversations";

    async fn run<S: Sql>(&self, sql: &mut S) -> Result<Self::Output, OpError> {
        let query = &self.0;
        let task = query.task.map(|task| task.to_string());
        let wanted = [
            ("task_id", task.as_deref()),
            ("model_name", query.model_name.as_deref()),
        ];
        let (conditions, mut values) = conditions(&wanted);
        let count = format!("SELECT count(*) FROM queue_conversations{conditions}");
        let total = match sql.row(&count, &values).await? {
            Some(mut row) => row.count(0)?,
            None => 0,
        };
        values.push(query.most.into());
        let most = values.len();
        values.push(signed(query.offset).into());
        // Their documents are not told in a list, and may weigh a thousand times as much as it.
        let columns = conversation_columns!().replace("config, metadata", "'{}', '{}'");
        let statement = format!(
            "SELECT {columns} FROM queue_conversations{conditions} ORDER BY started_at DESC, \
             id DESC LIMIT ?{most} OFFSET ?{}",
            values.len()
        );
        let found = sql.rows(&statement, &values).await?;
        let found = found
            .into_iter()
            .map(rows::conversation)
            .collect::<Result<_, _>>()?;
        Ok((found, total))
    }
}

pub(crate) struct Messages {
    pub(crate) id: ConversationId,
    pub(crate) role: Option<Role>,
    pub(crate) from: u64,
    pub(crate) most: u32,
}

impl Operation for Messages {
    type Output = MessagesPart;
    const MODE: Mode = Mode::ReadParts;
    const NAME: &'static str = "messages";

    async fn run<S: Sql>(&self, sql: &mut S) -> Result<Self::Output, OpError> {
        read(sql, self.id, "").await?;
        let id = self.id.to_string();
        let mut values: Vec<Value<'_>> =
            vec![(&id).into(), signed(self.from).into(), self.most.into()];
        let role = match self.role {
            Some(role) => {
                values.push(role.word().into());
                " AND role = ?4"
            }
            None => "",
        };
        let statement = format!(
            "SELECT {} FROM queue_messages \
             WHERE conversation_id = ?1 AND sequence >= ?2{role} ORDER BY sequence LIMIT ?3",
            message_columns!()
        );
        let found = sql.rows_within(&statement, &values, PAGE_BYTES).await?;
        let messages = found.rows.into_iter().map(rows::message);
        Ok(MessagesPart {
            messages: messages.collect::<Result<_, _>>()?,
            more: found.cut,
        })
    }
}
