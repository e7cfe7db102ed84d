//! What was said between a model and the world while a task ran.
//!
//! Everything is kept verbatim: what a tool call was taken to mean stands beside
//! what the model wrote, never in its place (contracts/aiopslab.md, 7.9).

use taskwright_model::{TaskId, Timestamp};

use crate::json::Json;
use crate::port::Writer;

/// What identifies a conversation: a UUID, as a task's.
pub type ConversationId = TaskId;

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// What the model is told before everything.
    System,
    /// What the world shows it.
    User,
    /// The model.
    Assistant,
    /// A function's answer, in the older way of saying.
    Function,
    /// A tool's answer.
    Tool,
}

impl Role {
    /// Each of them.
    pub const ALL: [Self; 5] = [
        Self::System,
        Self::User,
        Self::Assistant,
        Self::Function,
        Self::Tool,
    ];

    /// The word for it, on the wire and in stores.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Function => "function",
            Self::Tool => "tool",
        }
    }

    /// The role with this word.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.word() == word)
    }
}

/// One thing said.
#[derive(Clone, Debug)]
pub struct Message {
    /// Its number in the conversation, from 0.
    pub sequence: u64,
    /// When it was said.
    pub at: Timestamp,
    /// By whom.
    pub role: Role,
    /// Its text's length in characters, of which tokens are estimated.
    pub characters: u64,
    /// The whole message as it was sent: an object with `role` and `content`.
    pub body: Json,
}

/// Messages of a conversation, in order.
#[derive(Clone, Debug, Default)]
pub struct MessagesPart {
    /// The first ones of those that were asked for.
    pub messages: Vec<Message>,
    /// Whether there may be others behind them.
    pub more: bool,
}

/// A message to be kept.
#[derive(Clone, Debug)]
pub struct NewMessage {
    /// Its number, if the sender counts; a message whose number is known already is not kept
    /// twice.
    pub sequence: Option<u64>,
    /// When it was said; the time of arrival where nobody told.
    pub at: Option<Timestamp>,
    /// By whom.
    pub role: Role,
    /// Its text's length in characters.
    pub characters: u64,
    /// The whole message as it was sent.
    pub body: Json,
}

/// What a conversation cost, as its worker reported it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Usage {
    /// Tokens sent to the model, those sent again included.
    pub input_tokens: u64,
    /// Tokens it wrote.
    pub output_tokens: u64,
    /// In the worker's currency, where it knows.
    pub cost: Option<f64>,
}

/// A conversation to be begun.
#[derive(Clone, Debug)]
pub struct NewConversation {
    /// Its id: the client's own, or a new one.
    pub id: ConversationId,
    /// Of which task.
    pub task: TaskId,
    /// Who begins it, if that is told: its attempt is the conversation's.
    pub writer: Option<Writer>,
    /// What the client groups conversations by.
    pub session: TaskId,
    /// When it began; the time of arrival where nobody told.
    pub started_at: Option<Timestamp>,
    /// Which model.
    pub model_name: Option<String>,
    /// How it was asked: an object.
    pub config: Json,
    /// What else belongs to it: an object.
    pub metadata: Json,
}

/// A conversation on record, without its messages.
#[derive(Clone, Debug)]
pub struct Conversation {
    /// Its id.
    pub id: ConversationId,
    /// Of which task.
    pub task: TaskId,
    /// Of which attempt at it: the one that its writer told, or that was under way when it was
    /// begun; `None` before the first.
    pub attempt: Option<u32>,
    /// What the client groups conversations by.
    pub session: TaskId,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Which model.
    pub model_name: Option<String>,
    /// How it was asked: an object.
    pub config: Json,
    /// What else belongs to it: an object.
    pub metadata: Json,
    /// Whether it reached its end, once somebody told.
    pub success: Option<bool>,
    /// How many messages it has.
    pub messages: u64,
    /// Their characters together.
    pub characters: u64,
    /// What was reported of its cost.
    pub usage: Option<Usage>,
}

impl Conversation {
    /// The most messages of one conversation.
    pub const MOST_MESSAGES: u64 = 50_000;
    /// The most bytes of its configuration, and of its metadata: they are told whenever it is.
    pub const MOST_BESIDE: usize = 1024 * 1024;
}

/// Which conversations are asked for: the newest first.
#[derive(Clone, Debug, Default)]
pub struct ConversationQuery {
    /// Of which task.
    pub task: Option<TaskId>,
    /// With which model.
    pub model_name: Option<String>,
    /// So many are left out first.
    pub offset: u64,
    /// At most so many.
    pub most: u32,
}

/// What changes when a conversation is told more of. Nothing is taken back.
#[derive(Clone, Debug, Default)]
pub struct ConversationUpdate {
    /// It ended then.
    pub ended_at: Option<Timestamp>,
    /// Whether it reached its end.
    pub success: Option<bool>,
    /// What it cost, in place of what was reported before.
    pub usage: Option<Usage>,
    /// Fields of its metadata that are set: an object.
    pub metadata: Option<Json>,
}
