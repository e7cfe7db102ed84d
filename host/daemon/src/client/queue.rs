//! The queue of a daemon elsewhere, as a worker speaks to it: over HTTP only.

use std::time::Duration;

use http::{StatusCode, header};
use serde_json::{Map, Value, json};
use taskwright_model::TaskId;
use taskwright_queue::port::ReportedEnd;
use taskwright_queue::{Cause, Json, NewLogEntry, WorkerId};
use taskwright_worker::port::{Answer, Assignment, Entry, Introduction};
use taskwright_worker::{QueueError, Standing, WorkQueue};

use super::Client;
use super::http::{Ask, Refused};

/// The time limit of a task that names none, as the documents have it.
const TIME_LIMIT: Duration = Duration::from_secs(30 * 60);
/// How long a call may take beyond what it asks for. A worker that waits longer for a word of its
/// queue is soon given up.
const CALL_TIME: Duration = Duration::from_secs(20);

/// The queue that a client speaks to.
#[derive(Clone)]
pub(crate) struct RemoteQueue(Client);

impl RemoteQueue {
    /// That daemon's.
    pub(crate) fn new(client: Client) -> Self {
        Self(client)
    }

    async fn ask(&self, ask: Ask<'_>) -> Result<Value, QueueError> {
        let within = ask.patience + CALL_TIME;
        match tokio::time::timeout(within, self.0.call(ask)).await {
            Ok(answer) => answer.map_err(|error| failed(&error)),
            Err(_) => {
                let seconds = within.as_secs();
                Err(QueueError::Away(format!("no answer within {seconds} s")))
            }
        }
    }
}

fn failed(error: &anyhow::Error) -> QueueError {
    let message = format!("{error:#}");
    let Some(refused) = error.downcast_ref::<Refused>() else {
        return QueueError::Away(message);
    };
    match refused.status {
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => QueueError::Away(message),
        status if status.is_server_error() => QueueError::Away(message),
        // Whoever has the wrong token may be given the right one without a restart of the queue.
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => QueueError::Away(message),
        _ => QueueError::Refused(message),
    }
}

/// Of calls that name a worker and nothing else, 404 means the worker.
fn unknown(error: QueueError, known: &WorkerId) -> QueueError {
    match error {
        QueueError::Refused(message) if message.contains(known.as_str()) => QueueError::Unknown,
        other => other,
    }
}

fn worker_path(worker: &WorkerId, rest: &str) -> String {
    format!("/api/v1/workers/{worker}{rest}")
}

fn standing(worker: &Value) -> Result<Standing, QueueError> {
    let running = worker.get("current_task_ids").and_then(Value::as_array);
    let running = running.into_iter().flatten().filter_map(Value::as_str);
    let running = running.map(TaskId::parse);
    Ok(Standing {
        revision: worker
            .get("registrations")
            .and_then(Value::as_u64)
            .ok_or_else(strange)?,
        running: running.collect::<Result<_, _>>().map_err(|_| strange())?,
    })
}

fn strange() -> QueueError {
    QueueError::Away("the answer is not that of a Taskwright queue".to_owned())
}

fn assignment(task: &Value) -> Result<Assignment, QueueError> {
    let text = |name: &str| task.get(name).and_then(Value::as_str).ok_or_else(strange);
    let parameters = task.get("parameters").cloned();
    let parameters = parameters.unwrap_or_else(|| Value::Object(Map::new()));
    let minutes = parameters.get("timeout_minutes").and_then(Value::as_f64);
    let limit = minutes.and_then(|minutes| Duration::try_from_secs_f64(minutes * 60.0).ok());
    let attempt = task.get("attempt").and_then(Value::as_u64);
    Ok(Assignment {
        task: TaskId::parse(text("id")?).map_err(|_| strange())?,
        attempt: attempt
            .and_then(|number| u32::try_from(number).ok())
            .ok_or_else(strange)?,
        problem: text("problem_id")?.to_owned(),
        parameters: Json::of(&parameters),
        time_limit: limit.unwrap_or(TIME_LIMIT),
    })
}

/// The body that a report is sent with, and the verb of its path.
fn report_body(end: &ReportedEnd) -> (&'static str, Value) {
    match end {
        ReportedEnd::Completed { result } => ("complete", result.value()),
        ReportedEnd::Failed {
            error,
            document,
            cause,
        } => {
            let mut body = match document.as_ref().map(Json::value) {
                Some(Value::Object(document)) => document,
                _ => Map::new(),
            };
            body.insert("error".to_owned(), error.as_str().into());
            if *cause == Cause::Infrastructure {
                body.insert("cause".to_owned(), "infrastructure".into());
            }
            ("fail", Value::Object(body))
        }
    }
}

fn line(entry: &NewLogEntry) -> Value {
    let mut line = json!({
        "level": entry.level.word(),
        "message": entry.message,
        "context": entry.context.value(),
    });
    let at = entry
        .at
        .and_then(|at| jiff::Timestamp::from_millisecond(at.as_millis()).ok());
    if let (Some(at), Some(object)) = (at, line.as_object_mut()) {
        object.insert("timestamp".to_owned(), at.to_string().into());
    }
    line
}

impl WorkQueue for RemoteQueue {
    fn register(&self, who: Introduction, entry: Entry) -> Answer<'_, Standing> {
        Box::pin(async move {
            let body = json!({
                "worker_id": who.id.as_str(),
                "backend_type": who.backend_type,
                "capabilities": {
                    "max_parallel_tasks": who.parallel,
                    "supported_problems": who.problems,
                },
                "metadata": who.metadata.value(),
                "resume": entry == Entry::Resumed,
            });
            let mut ask = Ask::post("/api/v1/workers/register", Some(&body));
            if entry == Entry::Fresh {
                ask = ask.header(header::IF_NONE_MATCH, "*");
            }
            standing(&self.ask(ask).await?)
        })
    }

    fn standing(&self, worker: &WorkerId) -> Answer<'_, Option<Standing>> {
        let worker = worker.clone();
        Box::pin(async move {
            let found = self.ask(Ask::get(worker_path(&worker, ""))).await;
            match found.map_err(|error| unknown(error, &worker)) {
                Ok(found) => standing(&found).map(Some),
                Err(QueueError::Unknown) => Ok(None),
                Err(error) => Err(error),
            }
        })
    }

    fn heartbeat(&self, worker: &WorkerId, leaving: bool) -> Answer<'_, Standing> {
        let worker = worker.clone();
        Box::pin(async move {
            // What it says of itself is outweighed by the record anyway.
            let status = if leaving { "offline" } else { "idle" };
            let body = json!({ "status": status });
            let heard = self.ask(Ask::post(worker_path(&worker, "/heartbeat"), Some(&body)));
            standing(&heard.await.map_err(|error| unknown(error, &worker))?)
        })
    }

    fn claim(&self, worker: &WorkerId, wait: Duration) -> Answer<'_, Option<Assignment>> {
        let worker = worker.clone();
        Box::pin(async move {
            let rest = format!("/claim?wait={}ms", wait.as_millis());
            let mut ask = Ask::post(worker_path(&worker, &rest), None);
            ask.patience = wait;
            let claimed = self.ask(ask).await;
            match claimed.map_err(|error| unknown(error, &worker))? {
                Value::Null => Ok(None),
                task => assignment(&task).map(Some),
            }
        })
    }

    fn assignment(&self, task: TaskId) -> Answer<'_, Option<Assignment>> {
        Box::pin(async move {
            let found = self.ask(Ask::get(format!("/api/v1/tasks/{task}"))).await?;
            match found.get("status").and_then(Value::as_str) {
                Some("running") => assignment(&found).map(Some),
                _ => Ok(None),
            }
        })
    }

    fn report(
        &self,
        worker: &WorkerId,
        task: TaskId,
        attempt: u32,
        end: ReportedEnd,
    ) -> Answer<'_, ()> {
        let worker = worker.clone();
        Box::pin(async move {
            let (verb, body) = report_body(&end);
            let rest = format!("/tasks/{task}/{verb}?attempt={attempt}");
            let ask = Ask::post(worker_path(&worker, &rest), Some(&body));
            self.ask(ask).await.map(|_| ())
        })
    }

    fn log(
        &self,
        worker: &WorkerId,
        task: TaskId,
        attempt: u32,
        lines: Vec<NewLogEntry>,
    ) -> Answer<'_, ()> {
        let path = format!("/api/v1/tasks/{task}/logs?worker_id={worker}&attempt={attempt}");
        Box::pin(async move {
            let lines: Vec<Value> = lines.iter().map(line).collect();
            let body = json!({ "logs": lines });
            self.ask(Ask::post(path, Some(&body))).await.map(|_| ())
        })
    }
}

#[cfg(test)]
mod tests {
    //! What is said and what is understood, without a daemon.
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn an_assignment_is_understood() {
        let task = json!({
            "id": "01920000-0000-7000-8000-000000000001", "problem_id": "p", "attempt": 3,
            "parameters": {"timeout_minutes": 0.5, "x": 1},
        });
        let read = assignment(&task).unwrap();
        assert_eq!(
            (read.attempt, read.time_limit),
            (3, Duration::from_secs(30))
        );
        assert!(assignment(&json!({"id": "x"})).is_err());
    }

    #[test]
    fn a_report_says_whose_doing_it_was() {
        let end = ReportedEnd::Failed {
            error: "boom".to_owned(),
            document: Some(Json::of(&json!({"exit_code": 3}))),
            cause: Cause::Infrastructure,
        };
        let (verb, body) = report_body(&end);
        assert_eq!(verb, "fail");
        assert_eq!(
            body,
            json!({"error": "boom", "exit_code": 3, "cause": "infrastructure"})
        );
    }

    #[test]
    fn a_standing_is_understood() {
        let worker = json!({"registrations": 2, "current_task_ids": ["01920000-0000-7000-8000-000000000001"]});
        let read = standing(&worker).unwrap();
        assert_eq!((read.revision, read.running.len()), (2, 1));
        assert!(standing(&json!({})).is_err());
    }
}
