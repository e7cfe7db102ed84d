//! What is asked of the host, and what it answers, as values.

use taskwright_plugin_sdk::container::{
    ContainerRequest, ContainerState, Error, ImageState, SandboxRequest,
};
use taskwright_plugin_sdk::units;

use crate::spec::Image;

/// A container by its place in the plan and by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) index: usize,
    pub(crate) name: String,
}

/// A question or an order.
#[derive(Debug)]
pub(crate) enum Ask {
    Image(Image),
    Sandbox(SandboxRequest),
    Create(Named, Box<ContainerRequest>),
    Start(Named),
    Inspect(Named),
    /// With a grace in milliseconds.
    Stop(Named, u64),
}

/// What the host says to it.
#[derive(Debug)]
pub(crate) enum Answer {
    Image(Result<ImageState, Error>),
    Sandbox(Result<Option<String>, Error>),
    Create(Result<(), Error>),
    Start(Result<ContainerState, Error>),
    Inspect(Result<Option<ContainerState>, Error>),
    Stop(Result<(), units::Error>),
}

impl Answer {
    /// Whether the container runtime is away.
    pub(super) fn is_unavailable(&self) -> bool {
        let error = match self {
            Self::Image(answer) => answer.as_ref().err(),
            Self::Sandbox(answer) => answer.as_ref().err(),
            Self::Create(answer) => answer.as_ref().err(),
            Self::Start(answer) => answer.as_ref().err(),
            Self::Inspect(answer) => answer.as_ref().err(),
            Self::Stop(answer) => {
                return matches!(answer, Err(units::Error::Unavailable(_)));
            }
        };
        matches!(error, Some(Error::Unavailable(_)))
    }
}
