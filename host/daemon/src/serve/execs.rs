//! Commands inside tasks, as the loop's port over the container runtime.

use std::sync::Arc;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use taskwright_capability::container::ExecPiece as Piece;
use taskwright_capability::{ContainerError, ContainerHost};
use taskwright_control::port::{ExecError, ExecPiece, ExecPieces, ExecRequest, Execs, Stream};
use taskwright_model::{Task, UnitKey, UnitName};

use super::units::TaskUnits;

/// The unit of a task that is one container.
const MAIN: &str = "main";

/// Commands in the containers of tasks.
pub(crate) struct ContainerExecs {
    /// The container runtime, in container mode.
    pub(crate) host: Option<Arc<dyn ContainerHost>>,
    /// Who knows which tasks have containers.
    pub(crate) units: Arc<TaskUnits>,
}

impl ContainerExecs {
    /// The container that is meant.
    fn unit(&self, task: &Task, part: Option<&str>) -> Result<UnitKey, ExecError> {
        let attempt = task
            .attempt()
            .ok_or_else(|| ExecError::NotRunning("the task was not started yet".to_owned()))?;
        if !self.units.has_containers(task.id, attempt.number) {
            return Err(ExecError::Unsupported(
                "the task has no container to run a command in: its processes are the machine's \
                 own"
                .to_owned(),
            ));
        }
        let names: Vec<&str> = match &*attempt.remarks.parts {
            [] => vec![MAIN],
            parts => parts.iter().map(|part| part.name.as_str()).collect(),
        };
        let name = match (part, names.as_slice()) {
            (Some(part), names) if names.contains(&part) => part,
            (None, [only]) => only,
            (part, names) => {
                let said = part.map_or("no container is named".to_owned(), |part| {
                    format!("there is no container {part:?}")
                });
                return Err(ExecError::Refused(format!(
                    "{said}: there is {}",
                    names.join(", ")
                )));
            }
        };
        Ok(UnitKey {
            task: task.id,
            attempt: attempt.number,
            unit: UnitName::parse(name).map_err(|error| ExecError::Refused(error.to_string()))?,
        })
    }
}

impl Execs for ContainerExecs {
    fn exec(&self, request: ExecRequest) -> BoxFuture<'_, Result<ExecPieces, ExecError>> {
        Box::pin(async move {
            let Some(host) = &self.host else {
                let sentence = "the daemon is not in container mode".to_owned();
                return Err(ExecError::Unsupported(sentence));
            };
            let unit = self.unit(&request.task, request.part.as_deref())?;
            let pieces = host.exec_stream(unit, request.argv, request.timeout).await;
            let pieces = pieces.map_err(told)?.map(|piece| match piece {
                Ok(Piece::Stdout(bytes)) => Ok(ExecPiece::Printed(Stream::Stdout, bytes)),
                Ok(Piece::Stderr(bytes)) => Ok(ExecPiece::Printed(Stream::Stderr, bytes)),
                Ok(Piece::Ended(code)) => Ok(ExecPiece::Ended(code)),
                Err(error) => Err(told(error)),
            });
            let pieces: ExecPieces = pieces.boxed();
            Ok(pieces)
        })
    }
}

fn told(error: ContainerError) -> ExecError {
    let sentence = error.to_string();
    match error {
        ContainerError::NotRunning { .. } | ContainerError::SandboxLost { .. } => {
            ExecError::NotRunning(sentence)
        }
        ContainerError::NotFound { .. } => ExecError::NotFound(sentence),
        ContainerError::NotExecutable { .. } => ExecError::NotExecutable(sentence),
        ContainerError::Refused { .. } | ContainerError::ImageUnavailable { .. } => {
            ExecError::Refused(sentence)
        }
        ContainerError::Overdue(_) => ExecError::Overdue(sentence),
        ContainerError::NeverBegun { .. }
        | ContainerError::PerhapsBegun { .. }
        | ContainerError::UnderWay { .. }
        | ContainerError::Unavailable { .. } => ExecError::Unavailable(sentence),
    }
}
