//! The client's side of the API: what every command but `serve` speaks to a daemon with.
//!
//! | module | about |
//! |---|---|
//! | [`connect`] | where the daemon is, and how it is reached |
//! | [`http`] | one request and its answer, within bounds |
//! | [`queue`] | its queue, as a worker speaks to it |
//! | [`sse`] | event streams |
//! | [`tasks`] | the calls |
//! | [`wire`] | a task as it is answered |

pub(crate) mod connect;
pub(crate) mod http;
pub(crate) mod queue;
pub(crate) mod sse;
pub(crate) mod tasks;
pub(crate) mod wire;

pub(crate) use connect::Server;
pub(crate) use http::Client;
