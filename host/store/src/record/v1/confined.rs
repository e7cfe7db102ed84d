//! What restricts a task, and the parts of an attempt: form 1, as it was extended.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use taskwright_model as model;
use taskwright_model::Timestamp;

use super::Text;

#[derive(Serialize, Deserialize)]
pub(super) struct Part<'a> {
    name: Text<'a>,
    state: PartState<'a>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum PartState<'a> {
    Waiting(Text<'a>),
    Running(i64),
    Ended {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<i32>,
        #[serde(default, skip_serializing_if = "is_default")]
        out_of_memory: bool,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        started_at: Option<i64>,
        ended_at: i64,
    },
}

#[derive(Serialize, Deserialize)]
pub(super) struct Confinement<'a> {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cpu_millis: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    memory_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pids: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    open_files: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    file_size_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user: Option<User>,
    #[serde(default, skip_serializing_if = "is_default")]
    no_new_privileges: bool,
    #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
    read_only_paths: Cow<'a, [String]>,
    #[serde(default, skip_serializing_if = "is_default")]
    best_effort: bool,
}

#[derive(Serialize, Deserialize)]
pub(super) struct User {
    uid: u32,
    gid: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    groups: Vec<u32>,
}

impl<'a> Part<'a> {
    pub(super) fn from_model(part: &'a model::Part) -> Self {
        Self {
            name: part.name.as_str().into(),
            state: match &part.state {
                model::PartState::Waiting(why) => PartState::Waiting(why.into()),
                model::PartState::Running(since) => PartState::Running(since.as_millis()),
                model::PartState::Ended {
                    code,
                    out_of_memory,
                    started_at,
                    ended_at,
                } => PartState::Ended {
                    code: *code,
                    out_of_memory: *out_of_memory,
                    started_at: started_at.map(Timestamp::as_millis),
                    ended_at: ended_at.as_millis(),
                },
            },
        }
    }

    pub(super) fn into_model(self) -> model::Part {
        model::Part {
            name: self.name.into_owned(),
            state: match self.state {
                PartState::Waiting(why) => model::PartState::Waiting(why.into_owned()),
                PartState::Running(since) => {
                    model::PartState::Running(Timestamp::from_millis(since))
                }
                PartState::Ended {
                    code,
                    out_of_memory,
                    started_at,
                    ended_at,
                } => model::PartState::Ended {
                    code,
                    out_of_memory,
                    started_at: started_at.map(Timestamp::from_millis),
                    ended_at: Timestamp::from_millis(ended_at),
                },
            },
        }
    }
}

impl<'a> Confinement<'a> {
    pub(super) fn from_model(confinement: &'a model::Confinement) -> Option<Self> {
        (*confinement != model::Confinement::default()).then(|| Self {
            cpu_millis: confinement.cpu_millis,
            memory_bytes: confinement.memory_bytes,
            pids: confinement.pids,
            open_files: confinement.open_files,
            file_size_bytes: confinement.file_size_bytes,
            user: confinement.user.as_ref().map(|user| User {
                uid: user.uid,
                gid: user.gid,
                groups: user.groups.clone(),
            }),
            no_new_privileges: confinement.no_new_privileges,
            read_only_paths: Cow::Borrowed(&confinement.read_only_paths),
            best_effort: confinement.best_effort,
        })
    }

    pub(super) fn into_model(self) -> model::Confinement {
        model::Confinement {
            cpu_millis: self.cpu_millis,
            memory_bytes: self.memory_bytes,
            pids: self.pids,
            open_files: self.open_files,
            file_size_bytes: self.file_size_bytes,
            user: self.user.map(|user| model::User {
                uid: user.uid,
                gid: user.gid,
                groups: user.groups,
            }),
            no_new_privileges: self.no_new_privileges,
            read_only_paths: self.read_only_paths.into_owned(),
            best_effort: self.best_effort,
        }
    }
}

pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
