//! Tasks that wait for workers.
//!
//! A *queued task* belongs to no machine: whoever serves the queue may hand it
//! to any worker, here or elsewhere, and what becomes of it is decided by what
//! is on record, never by what a worker believes. Once a worker of this daemon
//! runs one, the run itself is a task of `taskwright-control` like any other.
//!
//! | module | about |
//! |---|---|
//! | [`task`] | a queued task, its attempts, how it ended |
//! | [`worker`] | who asks for work, what it can do, whether it is alive |
//! | [`log`] | lines that a task's history consists of |
//! | [`conversation`] | what was said between a model and the world |
//! | [`step`] | what a worker saw, did and got for it |
//! | [`validity`] | whether an attempt says anything about whoever made it |
//! | [`export`] | the record of what ended, in order |
//! | [`stats`] | sums over the queue |
//! | [`port`] | what a store does, one whole operation at a time |
//! | [`pool`] | the workers inside a daemon, as its API sees them |
//! | [`service`] | the front: waiting claims, time limits, lost workers |
//!
//! No HTTP, no SQL, no clock of its own: times come from the store, because
//! with several daemons only the store's clock is the same for all.

pub mod conversation;
pub mod export;
pub mod json;
pub mod log;
pub mod pool;
pub mod port;
pub mod service;
pub mod stats;
pub mod step;
pub mod task;
pub mod validity;
pub mod worker;

pub use conversation::{Conversation, ConversationId, Message, NewConversation, Role, Usage};
pub use json::Json;
pub use log::{LogEntry, LogLevel, NewLogEntry};
pub use port::{Notices, QueueStore, StoreError, Writer};
pub use service::{Queue, QueueConfig};
pub use step::{NewStep, Step};
pub use task::{Attempt, AttemptEnd, Cause, NewTask, ProblemId, QueuedTask, TaskStatus};
pub use validity::{Mark, Validity};
pub use worker::{Capabilities, Worker, WorkerId, WorkerStatus};
