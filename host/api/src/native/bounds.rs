//! What a task may use, how often it is tried and as whom it runs, as it is answered.

use std::time::Duration;

use serde::Serialize;
use taskwright_model::{Confinement, RetryPolicy, TimeLimits, User};

use super::number::Plain;

/// The four time limits and the grace, in seconds. What is left out has no limit.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Limits)]
pub(super) struct LimitsView {
    /// From submission to the first attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>)]
    queue_seconds: Option<Plain>,
    /// From launch to running.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>)]
    start_seconds: Option<Plain>,
    /// Without output.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>)]
    idle_seconds: Option<Plain>,
    /// Running.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>)]
    run_seconds: Option<Plain>,
    /// Between TERM and KILL.
    #[schema(value_type = f64)]
    grace_seconds: Plain,
}

impl LimitsView {
    pub(super) fn of(limits: &TimeLimits) -> Self {
        let seconds = |limit: Option<Duration>| limit.map(Plain::seconds);
        Self {
            queue_seconds: seconds(limits.queue),
            start_seconds: seconds(limits.start),
            idle_seconds: seconds(limits.idle),
            run_seconds: seconds(limits.run),
            grace_seconds: Plain::seconds(limits.grace),
        }
    }
}

/// Whether and how it is tried again.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Retry)]
pub(super) struct RetryView<'a> {
    /// Attempts in all.
    max_attempts: u32,
    /// Wait before the second attempt; doubles with each further one.
    #[schema(value_type = f64)]
    backoff_seconds: Plain,
    /// The longest wait between attempts.
    #[schema(value_type = f64)]
    max_backoff_seconds: Plain,
    /// The causes that deserve another attempt.
    on: &'a [String],
}

impl<'a> RetryView<'a> {
    pub(super) fn of(policy: &'a RetryPolicy) -> Option<Self> {
        (policy.max_attempts > 1).then(|| Self {
            max_attempts: policy.max_attempts,
            backoff_seconds: Plain::seconds(policy.backoff),
            max_backoff_seconds: Plain::seconds(policy.max_backoff),
            on: &policy.on,
        })
    }
}

pub(super) fn is_false(switch: &bool) -> bool {
    !switch
}

/// What a task may use, in plain numbers. What is left out has no limit.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Resources)]
pub(super) struct ResourcesView {
    /// Cores, of the whole tree.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>)]
    cpu: Option<Plain>,
    /// Bytes, of the whole tree.
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<u64>,
    /// Processes and threads, of the whole tree.
    #[serde(skip_serializing_if = "Option::is_none")]
    pids: Option<u32>,
    /// Open files, of each process.
    #[serde(skip_serializing_if = "Option::is_none")]
    open_files: Option<u64>,
    /// Bytes of a file that it writes.
    #[serde(skip_serializing_if = "Option::is_none")]
    file_size: Option<u64>,
}

impl ResourcesView {
    pub(super) fn of(confinement: &Confinement) -> Self {
        Self {
            cpu: confinement
                .cpu_millis
                .map(|millis| Plain::new(f64::from(millis) / 1000.0)),
            memory: confinement.memory_bytes,
            pids: confinement.pids,
            open_files: confinement.open_files,
            file_size: confinement.file_size_bytes,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.cpu.is_none()
            && self.memory.is_none()
            && self.pids.is_none()
            && self.open_files.is_none()
            && self.file_size.is_none()
    }
}

/// As whom a task runs.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = User)]
pub(super) struct UserView<'a> {
    uid: u32,
    gid: u32,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    groups: &'a [u32],
}

impl<'a> UserView<'a> {
    pub(super) fn of(user: &'a User) -> Self {
        Self {
            uid: user.uid,
            gid: user.gid,
            groups: &user.groups,
        }
    }
}
