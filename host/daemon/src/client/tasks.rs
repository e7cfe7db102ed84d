//! The calls of the API that commands make.

use std::time::Duration;

use anyhow::Context as _;
use http::{HeaderName, Method, StatusCode};
use serde_json::Value;

use super::Client;
use super::http::{Ask, Refused, percent_encode};

/// The most tasks that one page holds.
const MOST_PER_PAGE: usize = 500;
/// How long one wait asks the daemon to wait; longer waits are made of several.
const ONE_WAIT: Duration = Duration::from_secs(300);
/// A call that took so long had somebody at its other end.
const WAS_THERE: Duration = Duration::from_millis(200);
/// How long a daemon that went away while it was asked may take to come back.
const RESTART_TIME: Duration = Duration::from_secs(60);
const RESTART_PAUSE: Duration = Duration::from_millis(500);

/// Which tasks to list.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selection {
    /// Label terms, with commas between.
    pub(crate) selector: Option<String>,
    /// States; empty means any.
    pub(crate) states: Vec<String>,
}

/// A page of tasks.
pub(crate) struct Page {
    /// The tasks.
    pub(crate) tasks: Vec<Value>,
    /// Where the next page begins, if there is one.
    pub(crate) next: Option<String>,
}

impl Client {
    /// Submits `task`. With a `key`, a repeat of the same request answers with the first task.
    pub(crate) async fn submit(&self, task: &Value, key: Option<&str>) -> anyhow::Result<Value> {
        let mut ask = Ask::post("/tasks", Some(task));
        if let Some(key) = key {
            ask = ask.header(HeaderName::from_static("idempotency-key"), key);
        }
        let name = task
            .get("name")
            .and_then(Value::as_str)
            .unwrap_or("without a name");
        self.call(ask)
            .await
            .with_context(|| format!("submit task {name}"))
    }

    /// The task named `name`.
    pub(crate) async fn get(&self, name: &str) -> anyhow::Result<Value> {
        let answer = self.call(Ask::get(path_of(name, ""))).await;
        answer.with_context(|| format!("get task {name}"))
    }

    /// A page of at most `most` tasks, from `cursor` on.
    pub(crate) async fn list(
        &self,
        selection: &Selection,
        most: usize,
        cursor: Option<&str>,
    ) -> anyhow::Result<Page> {
        let mut query = vec![format!("limit={}", most.clamp(1, MOST_PER_PAGE))];
        if let Some(selector) = &selection.selector {
            query.push(format!("labelSelector={}", percent_encode(selector)));
        }
        if !selection.states.is_empty() {
            query.push(format!(
                "state={}",
                percent_encode(&selection.states.join(","))
            ));
        }
        if let Some(cursor) = cursor {
            query.push(format!("cursor={}", percent_encode(cursor)));
        }
        let ask = Ask::get(format!("/tasks?{}", query.join("&")));
        let mut answer = self.call(ask).await.context("list tasks")?;
        Ok(Page {
            next: answer
                .get("nextCursor")
                .and_then(Value::as_str)
                .map(str::to_owned),
            tasks: match answer.get_mut("items").map(Value::take) {
                Some(Value::Array(tasks)) => tasks,
                _ => anyhow::bail!("list tasks: the answer holds no list"),
            },
        })
    }

    /// The task named `name` once it has ended, or as it is after `at_most`.
    pub(crate) async fn wait(
        &self,
        name: &str,
        at_most: Option<Duration>,
    ) -> anyhow::Result<Value> {
        let begun = tokio::time::Instant::now();
        let mut away_since: Option<tokio::time::Instant> = None;
        loop {
            let left = at_most.map(|most| most.saturating_sub(begun.elapsed()));
            let now = left.unwrap_or(ONE_WAIT).min(ONE_WAIT);
            let query = format!("/wait?timeout={}", now.as_secs_f64());
            let mut ask = Ask::get(path_of(name, &query));
            ask.patience = now;
            let asked = tokio::time::Instant::now();
            let task = match self.call(ask).await {
                Ok(task) => task,
                // A daemon that is restarted is waited for; one that never was there is told of.
                Err(error) => {
                    let was_there = away_since.is_some() || asked.elapsed() >= WAS_THERE;
                    let since = *away_since.get_or_insert(asked);
                    let refused = error.chain().any(|cause| cause.is::<Refused>());
                    let late = left.is_some_and(|left| left <= asked.elapsed());
                    if refused || !was_there || late || since.elapsed() >= now + RESTART_TIME {
                        return Err(error.context(format!("wait for task {name}")));
                    }
                    tokio::time::sleep(RESTART_PAUSE).await;
                    continue;
                }
            };
            away_since = None;
            let over = left.is_some_and(|left| left <= now);
            if super::wire::TaskView(&task).is_ended() || over {
                return Ok(task);
            }
        }
    }

    /// Asks for a task to be stopped.
    pub(crate) async fn stop(&self, name: &str, grace: Option<Duration>) -> anyhow::Result<Value> {
        let query = match grace {
            Some(grace) => format!("/stop?grace={}", grace.as_secs_f64()),
            None => "/stop".to_owned(),
        };
        let answer = self.call(Ask::post(path_of(name, &query), None)).await;
        answer.with_context(|| format!("stop task {name}"))
    }

    /// Answers what a policy asks about a task; `verb` is `approve` or `deny`.
    pub(crate) async fn answer(
        &self,
        name: &str,
        verb: &str,
        reason: &str,
        id: Option<&str>,
    ) -> anyhow::Result<Value> {
        let mut body = serde_json::json!({ "reason": reason });
        if let (Some(id), Some(body)) = (id, body.as_object_mut()) {
            body.insert("id".to_owned(), id.into());
        }
        let ask = Ask::post(path_of(name, &format!("/{verb}")), Some(&body));
        let answer = self.call(ask).await;
        answer.with_context(|| format!("{verb} task {name}"))
    }

    /// Asks for a task to be stopped and removed. One that is not there is fine.
    pub(crate) async fn delete(&self, name: &str) -> anyhow::Result<()> {
        let mut ask = Ask::get(path_of(name, ""));
        ask.method = Method::DELETE;
        let answer = self.call(ask).await;
        answer
            .map(drop)
            .with_context(|| format!("delete task {name}"))
    }

    /// Makes the daemon's tasks be those of `wanted`.
    pub(crate) async fn set(&self, wanted: &Value) -> anyhow::Result<Vec<Value>> {
        match self
            .call(Ask::post("/setTasks", Some(wanted)))
            .await
            .context("set tasks")?
        {
            Value::Array(tasks) => Ok(tasks),
            _ => anyhow::bail!("set tasks: the answer is no list"),
        }
    }

    /// The plugins that are loaded.
    pub(crate) async fn plugins(&self) -> anyhow::Result<Value> {
        self.call(Ask::get("/plugins"))
            .await
            .context("list plugins")
    }

    /// One plugin.
    pub(crate) async fn plugin(&self, name: &str) -> anyhow::Result<Value> {
        let ask = Ask::get(format!("/plugins/{}", percent_encode(name)));
        self.call(ask)
            .await
            .with_context(|| format!("look at plugin {name}"))
    }

    /// The daemon's version.
    pub(crate) async fn version(&self) -> anyhow::Result<Value> {
        self.call(Ask::get("/version"))
            .await
            .context("ask for the daemon's version")
    }

    /// Whether the daemon can do its work: its answer, whatever the status.
    pub(crate) async fn ready(&self) -> anyhow::Result<()> {
        self.bytes(Ask::get("/readyz"))
            .await
            .map(drop)
            .context("ask whether the daemon is ready")
    }
}

/// The path of a task, or of something below it.
pub(crate) fn path_of(name: &str, below: &str) -> String {
    format!("/tasks/{}{below}", percent_encode(name))
}

/// Whether `error` says that there is no such task.
pub(crate) fn is_not_found(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<Refused>()
            .is_some_and(|refused| refused.status == StatusCode::NOT_FOUND)
    })
}
