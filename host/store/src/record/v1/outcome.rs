//! How attempts and tasks end: form 1, frozen as all of it.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use taskwright_model as model;

use super::Text;
use super::confined::is_default;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Limit {
    Queue,
    Start,
    Idle,
    Run,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Exit {
    Code(u8),
    Signal(i32),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Outcome<'a> {
    Exited {
        code: u8,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<Text<'a>>,
    },
    Signaled {
        signal: i32,
    },
    OutOfMemory {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        exit: Option<Exit>,
    },
    TimedOut {
        limit: Limit,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        exit: Option<Exit>,
    },
    Canceled {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        exit: Option<Exit>,
    },
    Denied {
        policy: Text<'a>,
        reason: Text<'a>,
    },
    PluginFault {
        runtime: Text<'a>,
        message: Text<'a>,
    },
    Infrastructure {
        #[serde(default, skip_serializing_if = "is_default")]
        fault: Fault,
        message: Text<'a>,
    },
    Lost {
        message: Text<'a>,
    },
}

#[derive(Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Fault {
    #[default]
    Machine,
    Image,
    ContainerRuntime,
    Sandbox,
    Target,
    Policy,
}

impl Limit {
    pub(super) fn from_model(limit: model::Limit) -> Self {
        match limit {
            model::Limit::Queue => Self::Queue,
            model::Limit::Start => Self::Start,
            model::Limit::Idle => Self::Idle,
            model::Limit::Run => Self::Run,
        }
    }

    pub(super) fn into_model(self) -> model::Limit {
        match self {
            Self::Queue => model::Limit::Queue,
            Self::Start => model::Limit::Start,
            Self::Idle => model::Limit::Idle,
            Self::Run => model::Limit::Run,
        }
    }
}

impl Exit {
    pub(super) fn from_model(exit: model::ExitStatus) -> Self {
        match exit {
            model::ExitStatus::Code(code) => Self::Code(code),
            model::ExitStatus::Signal(signal) => Self::Signal(signal),
        }
    }

    pub(super) fn into_model(self) -> model::ExitStatus {
        match self {
            Self::Code(code) => model::ExitStatus::Code(code),
            Self::Signal(signal) => model::ExitStatus::Signal(signal),
        }
    }
}

impl<'a> Outcome<'a> {
    pub(super) fn from_model(outcome: &'a model::Outcome) -> Self {
        match outcome {
            model::Outcome::Exited { code, message } => Self::Exited {
                code: *code,
                message: message.as_deref().map(Cow::from),
            },
            model::Outcome::Signaled { signal } => Self::Signaled { signal: *signal },
            model::Outcome::OutOfMemory { exit } => Self::OutOfMemory {
                exit: exit.map(Exit::from_model),
            },
            model::Outcome::TimedOut { limit, exit } => Self::TimedOut {
                limit: Limit::from_model(*limit),
                exit: exit.map(Exit::from_model),
            },
            model::Outcome::Canceled { exit } => Self::Canceled {
                exit: exit.map(Exit::from_model),
            },
            model::Outcome::Denied { policy, reason } => Self::Denied {
                policy: policy.into(),
                reason: reason.into(),
            },
            model::Outcome::PluginFault { runtime, message } => Self::PluginFault {
                runtime: runtime.into(),
                message: message.into(),
            },
            model::Outcome::Infrastructure { fault, message } => Self::Infrastructure {
                fault: Fault::from_model(*fault),
                message: message.into(),
            },
            model::Outcome::Lost { message } => Self::Lost {
                message: message.into(),
            },
        }
    }

    pub(super) fn into_model(self) -> model::Outcome {
        match self {
            Self::Exited { code, message } => model::Outcome::Exited {
                code,
                message: message.map(Cow::into_owned),
            },
            Self::Signaled { signal } => model::Outcome::Signaled { signal },
            Self::OutOfMemory { exit } => model::Outcome::OutOfMemory {
                exit: exit.map(Exit::into_model),
            },
            Self::TimedOut { limit, exit } => model::Outcome::TimedOut {
                limit: limit.into_model(),
                exit: exit.map(Exit::into_model),
            },
            Self::Canceled { exit } => model::Outcome::Canceled {
                exit: exit.map(Exit::into_model),
            },
            Self::Denied { policy, reason } => model::Outcome::Denied {
                policy: policy.into_owned(),
                reason: reason.into_owned(),
            },
            Self::PluginFault { runtime, message } => model::Outcome::PluginFault {
                runtime: runtime.into_owned(),
                message: message.into_owned(),
            },
            Self::Infrastructure { fault, message } => model::Outcome::Infrastructure {
                fault: fault.into_model(),
                message: message.into_owned(),
            },
            Self::Lost { message } => model::Outcome::Lost {
                message: message.into_owned(),
            },
        }
    }
}

impl Fault {
    pub(super) fn from_model(fault: model::Fault) -> Self {
        match fault {
            model::Fault::Machine => Self::Machine,
            model::Fault::Image => Self::Image,
            model::Fault::ContainerRuntime => Self::ContainerRuntime,
            model::Fault::Sandbox => Self::Sandbox,
            model::Fault::Target => Self::Target,
            model::Fault::Policy => Self::Policy,
        }
    }

    pub(super) fn into_model(self) -> model::Fault {
        match self {
            Self::Machine => model::Fault::Machine,
            Self::Image => model::Fault::Image,
            Self::ContainerRuntime => model::Fault::ContainerRuntime,
            Self::Sandbox => model::Fault::Sandbox,
            Self::Target => model::Fault::Target,
            Self::Policy => model::Fault::Policy,
        }
    }
}
