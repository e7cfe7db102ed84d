//! The queue in the same daemon.

use std::time::Duration;

use taskwright_model::TaskId;
use taskwright_queue::port::{NewWorker, Report, ReportedEnd, StoreError, Writer};
use taskwright_queue::{
    Capabilities, NewLogEntry, Queue, QueuedTask, TaskStatus, Worker, WorkerId,
};

use crate::port::{Answer, Assignment, Entry, Introduction, QueueError, Standing, WorkQueue};

/// The queue, asked directly.
#[derive(Clone)]
pub struct Direct(Queue);

impl Direct {
    /// That queue.
    #[must_use]
    pub fn new(queue: Queue) -> Self {
        Self(queue)
    }
}

fn standing_of(worker: Worker) -> Standing {
    Standing {
        revision: worker.revision,
        running: worker.running,
    }
}

fn failed(error: StoreError) -> QueueError {
    match error {
        StoreError::NoSuchWorker(_) => QueueError::Unknown,
        StoreError::Busy | StoreError::Failed { .. } => QueueError::Away(error.to_string()),
        StoreError::NoSuchTask(_)
        | StoreError::NoSuchConversation(_)
        | StoreError::Conflict(_)
        | StoreError::KeyReused
        | StoreError::Full(_)
        | StoreError::TooLarge(_) => QueueError::Refused(error.to_string()),
    }
}

fn assigned(task: QueuedTask) -> Assignment {
    Assignment {
        task: task.id,
        attempt: task.attempt,
        problem: task.problem_id.as_str().to_owned(),
        parameters: task.parameters,
        time_limit: task.time_limit,
    }
}

impl WorkQueue for Direct {
    fn register(&self, who: Introduction, entry: Entry) -> Answer<'_, Standing> {
        Box::pin(async move {
            let document = serde_json::json!({
                "max_parallel_tasks": who.parallel,
                "supported_problems": who.problems,
            });
            let worker = NewWorker {
                id: who.id,
                backend_type: who.backend_type,
                capabilities: Capabilities {
                    max_parallel: who.parallel,
                    problems: who.problems,
                    document: taskwright_queue::Json::of(&document),
                },
                metadata: who.metadata,
                lease: self.0.config().heartbeat_timeout,
                entry,
            };
            let registered = self.0.register(worker).await.map_err(failed)?;
            Ok(standing_of(registered.worker))
        })
    }

    fn standing(&self, worker: &WorkerId) -> Answer<'_, Option<Standing>> {
        let worker = worker.clone();
        Box::pin(async move {
            let found = self.0.store().worker(worker).await.map_err(failed)?;
            Ok(found.map(standing_of))
        })
    }

    fn heartbeat(&self, worker: &WorkerId, leaving: bool) -> Answer<'_, Standing> {
        let worker = worker.clone();
        Box::pin(async move {
            let heard = self.0.heartbeat(worker, leaving).await.map_err(failed)?;
            Ok(standing_of(heard))
        })
    }

    fn claim(&self, worker: &WorkerId, wait: Duration) -> Answer<'_, Option<Assignment>> {
        let worker = worker.clone();
        Box::pin(async move {
            let claimed = self.0.claim(&worker, wait).await.map_err(failed)?;
            Ok(claimed.map(assigned))
        })
    }

    fn assignment(&self, task: TaskId) -> Answer<'_, Option<Assignment>> {
        Box::pin(async move {
            let found = self.0.store().task(task).await.map_err(failed)?;
            let running = found.filter(|task| task.status == TaskStatus::Running);
            Ok(running.map(assigned))
        })
    }

    fn report(
        &self,
        worker: &WorkerId,
        task: TaskId,
        attempt: u32,
        end: ReportedEnd,
    ) -> Answer<'_, ()> {
        let report = Report {
            worker: worker.clone(),
            task,
            attempt: Some(attempt),
            end,
        };
        Box::pin(async move {
            let reported = self.0.store().report(report).await;
            reported.map(|_| ()).map_err(failed)
        })
    }

    fn log(
        &self,
        worker: &WorkerId,
        task: TaskId,
        attempt: u32,
        lines: Vec<NewLogEntry>,
    ) -> Answer<'_, ()> {
        let writer = Writer {
            worker: worker.clone(),
            attempt: Some(attempt),
        };
        Box::pin(async move {
            let kept = self.0.store().append_logs(task, Some(writer), lines).await;
            kept.map(|_| ()).map_err(failed)
        })
    }
}
