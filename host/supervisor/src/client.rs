//! The daemon's side: [`ProcessHost`] over one connection, which comes back by itself.
//!
//! A running supervisor is found first and started only if there is none. When it
//! dies its guardian starts the next one and this side connects again; requests
//! that were under way are asked again, which is safe because they are
//! idempotent (but for a signal, which is not repeated).

mod link;
mod start;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use taskwright_capability::{
    Enforceable, ProcessHost, SpawnError, SpawnRequest, Spawned, StopError, UnitReport, UnitState,
};
use taskwright_model::{TaskId, UnitKey};
use tokio::sync::{mpsc, oneshot};

use self::link::Call;
pub use self::start::StartError;
use crate::options::SuperviseOptions;
use crate::place;
use crate::wire::{self, Answer, Request, SupervisorStatus};

/// How a daemon reaches its supervisor.
#[derive(Clone, Debug)]
pub struct SupervisorConfig {
    /// What a supervisor is started with, if there is none yet.
    pub options: SuperviseOptions,
    /// The program whose hidden verb is the supervisor: this binary.
    pub executable: PathBuf,
    /// How long a request waits for a supervisor that is away.
    pub patience: Duration,
}

impl SupervisorConfig {
    /// The usual configuration: a supervisor in `state_dir`, from `executable`.
    #[must_use]
    pub fn new(state_dir: PathBuf, executable: PathBuf) -> Self {
        Self {
            options: SuperviseOptions::new(state_dir),
            executable,
            patience: Duration::from_secs(30),
        }
    }
}

/// Calls under way that wait for the connection's task; beyond that callers wait their turn.
const MOST_QUEUED_CALLS: usize = 1024;
/// Reports that wait for the daemon; beyond that the connection's task keeps them.
const MOST_QUEUED_REPORTS: usize = 1024;

/// A connection to the supervisor, for the whole life of the daemon.
///
/// Dropping it leaves the supervisor and all it runs alone.
pub struct SupervisorClient {
    calls: mpsc::Sender<Call>,
    patience: Duration,
    nickname: String,
}

impl SupervisorClient {
    /// Finds the running supervisor or starts one. Reports of ends arrive on the receiver, at
    /// least once each until released, also those of units started by an earlier daemon.
    ///
    /// # Errors
    /// [`StartError`] when there is none and none can be started.
    pub async fn connect_or_start(
        config: SupervisorConfig,
    ) -> Result<(Arc<Self>, mpsc::Receiver<UnitReport>), StartError> {
        let stream = start::connect_or_start(&config).await?;
        let (calls, queue) = mpsc::channel(MOST_QUEUED_CALLS);
        let (reports, receiver) = mpsc::channel(MOST_QUEUED_REPORTS);
        let patience = config.patience;
        let nickname = place::nickname(&config.options.state_dir);
        // Ends when the last sender of `calls`, this client, is dropped.
        tokio::spawn(link::run(config, stream, queue, reports));
        let client = Self {
            calls,
            patience,
            nickname,
        };
        Ok((Arc::new(client), receiver))
    }

    /// What the supervisor says of itself.
    ///
    /// # Errors
    /// [`StopError::Unavailable`] when it cannot be reached.
    pub async fn status(&self) -> Result<SupervisorStatus, StopError> {
        match self.ask(Request::Status).await {
            Ok(Answer::Status(status)) => Ok(status),
            other => Err(unexpected(other)),
        }
    }

    /// Ends the supervisor if nothing of any unit is known to it; false when it stays.
    ///
    /// # Errors
    /// [`StopError::Unavailable`] when it cannot be reached.
    pub async fn shutdown_if_idle(&self) -> Result<bool, StopError> {
        match self.ask(Request::ShutdownIfIdle).await {
            Ok(Answer::Done) => Ok(true),
            Ok(Answer::NotDone(_)) => Ok(false),
            other => Err(unexpected(other)),
        }
    }

    /// The name of the supervisor's cgroups.
    pub(crate) fn nickname(&self) -> String {
        self.nickname.clone()
    }

    /// One request and its answer; pages of a list arrive as one.
    async fn ask(&self, request: Request) -> Result<Answer, String> {
        let (reply, answer) = oneshot::channel();
        let call = Call { request, reply };
        let asked = async {
            self.calls.send(call).await.map_err(|_| GONE.to_owned())?;
            answer.await.map_err(|_| LOST.to_owned())
        };
        tokio::time::timeout(self.patience, asked)
            .await
            .unwrap_or_else(|_| Err(format!("no answer within {:?}", self.patience)))
    }

    async fn order(&self, request: Request) -> Result<(), StopError> {
        match self.ask(request).await {
            Ok(Answer::Done) => Ok(()),
            other => Err(unexpected(other)),
        }
    }
}

/// How often a start is asked for again that met a supervisor on its way out.
const MOST_ASKED_AGAIN: usize = 5;
const ENDING_PAUSE: Duration = Duration::from_millis(20);

/// Whether the supervisor was told to end and leaves this start to the next one.
fn is_ending(answer: &Result<Answer, String>) -> bool {
    matches!(
        answer,
        Ok(Answer::NotSpawned(SpawnError::Unavailable { detail })) if detail == wire::ENDING
    )
}

const OLDER: &str =
    "the running supervisor is older than this request; it is replaced once it is idle";
const GONE: &str = "the connection to the supervisor was closed";
const LOST: &str = "the supervisor went away before it answered";

fn unexpected(answer: Result<Answer, String>) -> StopError {
    let detail = match answer {
        Ok(Answer::NotDone(error)) => return error,
        Ok(Answer::Unsupported { .. }) => OLDER.to_owned(),
        Ok(other) => format!("it answered with something else: {other:?}"),
        Err(detail) => detail,
    };
    StopError::Unavailable { detail }
}

impl ProcessHost for SupervisorClient {
    fn spawn(&self, mut request: SpawnRequest) -> BoxFuture<'_, Result<Spawned, SpawnError>> {
        Box::pin(async move {
            check_texts(&request)?;
            keep_last_of_each_name(&mut request.env);
            let request = Request::Spawn(Box::new(request));
            let mut answer = self.ask(request.clone()).await;
            for _ in 0..MOST_ASKED_AGAIN {
                if !is_ending(&answer) {
                    break;
                }
                // Until its end of the connection is closed; then the next one is started.
                tokio::time::sleep(ENDING_PAUSE).await;
                answer = self.ask(request.clone()).await;
            }
            match answer {
                Ok(Answer::Spawned(spawned)) => Ok(spawned),
                Ok(Answer::NotSpawned(error)) => Err(error),
                other => Err(SpawnError::Unavailable {
                    detail: match unexpected(other) {
                        StopError::Unavailable { detail } => detail,
                        error @ StopError::NotRunning { .. } => error.to_string(),
                    },
                }),
            }
        })
    }

    fn stop(&self, unit: UnitKey, grace: Duration) -> BoxFuture<'_, Result<(), StopError>> {
        Box::pin(self.order(Request::Stop { unit, grace }))
    }

    fn signal(&self, unit: UnitKey, signal: i32) -> BoxFuture<'_, Result<(), StopError>> {
        Box::pin(self.order(Request::Signal { unit, signal }))
    }

    fn inspect(&self, unit: UnitKey) -> BoxFuture<'_, Result<Option<UnitState>, StopError>> {
        Box::pin(async move {
            match self.ask(Request::Inspect(unit)).await {
                Ok(Answer::State(state)) => Ok(state),
                other => Err(unexpected(other)),
            }
        })
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<(UnitKey, UnitState)>, StopError>> {
        Box::pin(async move {
            match self.ask(Request::List).await {
                Ok(Answer::Units { units, .. }) => Ok(units),
                other => Err(unexpected(other)),
            }
        })
    }

    fn release(&self, unit: UnitKey) -> BoxFuture<'_, Result<(), StopError>> {
        Box::pin(self.order(Request::Release(unit)))
    }

    fn purge(&self, task: TaskId) -> BoxFuture<'_, Result<(), StopError>> {
        Box::pin(self.order(Request::Purge(task)))
    }

    fn enforceable(&self) -> BoxFuture<'_, Result<Enforceable, StopError>> {
        Box::pin(async move {
            match self.ask(Request::Enforceable).await {
                Ok(Answer::Enforceable(table)) => Ok(table),
                other => Err(unexpected(other)),
            }
        })
    }
}

/// What the kernel could never take is refused here, before it is sent.
fn check_texts(request: &SpawnRequest) -> Result<(), SpawnError> {
    let bad = |detail: String| Err(SpawnError::BadCommand { detail });
    if request.argv.first().is_none_or(String::is_empty) {
        return bad("the command is empty".to_owned());
    }
    if let Some(index) = request.argv.iter().position(|text| text.contains('\0')) {
        return bad(format!("argument {index} holds a NUL character"));
    }
    let mut paths = request.confinement.read_only_paths.iter();
    if let Some(path) = paths.find(|path| !path.starts_with('/') || path.contains('\0')) {
        return bad(format!("{path:?} is no absolute path to be read-only"));
    }
    for (name, value) in &request.env {
        if name.is_empty() || name.contains(['=', '\0']) {
            return bad(format!("{name:?} is no name for an environment variable"));
        }
        if value.contains('\0') {
            return bad(format!("environment variable {name} holds a NUL character"));
        }
    }
    let bytes: usize = request.argv.iter().map(String::len).sum::<usize>()
        + request
            .env
            .iter()
            .map(|(n, v)| n.len() + v.len())
            .sum::<usize>();
    if bytes > MOST_COMMAND_BYTES {
        return bad(format!(
            "arguments and environment have {bytes} bytes, at most {MOST_COMMAND_BYTES} are taken"
        ));
    }
    Ok(())
}

/// Below the kernel's usual limit (a quarter of the stack limit) and the longest frame.
const MOST_COMMAND_BYTES: usize = 1536 * 1024;

fn keep_last_of_each_name(env: &mut Vec<(String, String)>) {
    let mut seen = std::collections::HashSet::with_capacity(env.len());
    let keep: Vec<bool> = env
        .iter()
        .rev()
        .map(|(name, _)| seen.insert(name.clone()))
        .collect();
    if keep.contains(&false) {
        let mut keep = keep.into_iter().rev();
        env.retain(|_| keep.next().unwrap_or(true));
    }
}

#[cfg(test)]
mod tests;
