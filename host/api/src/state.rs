//! What handlers are given. Built once by the daemon.

use std::sync::Arc;
use std::time::Duration;

use taskwright_control::Control;
use taskwright_model::{Namespace, TaskKey, TaskName};
use taskwright_queue::Queue;
use taskwright_queue::pool::InternalWorkers;
use tokio_util::sync::CancellationToken;

use crate::aiopslab::QueueApi;
use crate::auth::AuthConfig;
use crate::room::Room;
use crate::tessia::LeftTasks;

/// Everything that answers are made of.
#[derive(Clone)]
pub struct ApiState {
    /// The loop's front.
    pub control: Control,
    /// Tasks that wait for workers.
    pub queue: Queue,
    /// The workers of this daemon.
    pub workers: Arc<dyn InternalWorkers>,
    /// What the operator set for the queue's dialect.
    pub queue_api: Arc<QueueApi>,
    /// Who may do what.
    pub auth: AuthConfig,
    /// What `/version` shows.
    pub version: VersionInfo,
    /// Renders every metric of the process in the Prometheus text format.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// Where the tasks of the native dialect live.
    pub namespace: Namespace,
    /// Tasks of the Tessia dialect that the original runner left behind.
    pub left: Arc<dyn LeftTasks>,
    /// Bounds on single requests.
    pub limits: ApiLimits,
    /// The bound on what large requests and answers hold in memory together.
    pub room: Room,
    /// Cancelled when the daemon goes down: long answers (streams, waits) end then. The same
    /// token that [`crate::serve`] is given.
    pub shutdown: CancellationToken,
}

impl ApiState {
    /// The key of a task of the native dialect.
    pub(crate) fn key(&self, name: TaskName) -> TaskKey {
        TaskKey {
            namespace: self.namespace.clone(),
            name,
        }
    }
}

/// Bounds on single requests.
#[derive(Clone, Debug)]
pub struct ApiLimits {
    /// The largest request body, in bytes; a larger one is answered 413.
    pub body_bytes: usize,
    /// How long a client may take to send a body.
    pub body_time: Duration,
    /// The most elements of one `setTasks`.
    pub set_elements: usize,
    /// How often a stream without news says that it is alive.
    pub heartbeat: Duration,
}

impl Default for ApiLimits {
    fn default() -> Self {
        Self {
            body_bytes: 10 * 1024 * 1024,
            body_time: Duration::from_secs(30),
            set_elements: 10_000,
            heartbeat: Duration::from_secs(15),
        }
    }
}

/// What `/version` shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VersionInfo {
    /// The product's version.
    pub version: String,
    /// The commit it was built from, if known.
    pub commit: Option<String>,
    /// The versions of the WIT package it serves, newest first.
    pub plugin_api: Vec<String>,
}
