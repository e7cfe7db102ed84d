//! What a task, or else the operator, says of the main container and of what is taken from it.

use serde::Deserialize;
use taskwright_plugin_sdk::command::problem;
use taskwright_plugin_sdk::namespace::{Entry, Selector};
use taskwright_plugin_sdk::{EnvVar, Problem, settings};

/// The variable by which the reference executor finds a main container.
const MARKER: &str = "SANDBOX_MAIN_CONTAINER";
/// The main container's name where nobody names one.
const MAIN_CONTAINER: &str = "main";
/// How long a main container is waited for where nobody says, in milliseconds.
const WAIT_MS: u64 = 10_000;
/// The longest that a task may have it waited for: a day.
const MOST_WAIT_SECONDS: f64 = 86_400.0;
/// The shortest part of a container's id that names it.
const LEAST_ID: usize = 12;

/// What clients of Kubernetes write before it.
const SCHEMES: [&str; 3] = ["containerd://", "cri-o://", "docker://"];

/// JSON Schema of a task's `config` for this runtime.
pub(crate) const SCHEMA: &str = r#"{
  "type": "object",
  "additionalProperties": false,
  "properties": {
    "target": {
      "type": "object", "minProperties": 1, "maxProperties": 1, "additionalProperties": false,
      "properties": {
        "mainContainer": { "type": "string", "description": "value of SANDBOX_MAIN_CONTAINER in its environment" },
        "variable": { "type": "object", "required": ["name", "value"],
          "properties": { "name": { "type": "string" }, "value": { "type": "string" } } },
        "pid": { "type": "integer", "minimum": 1 },
        "containerId": { "type": "string", "minLength": 12, "description": "also with containerd://, cri-o:// or docker:// before it" },
        "cgroup": { "type": "string", "pattern": "^/" }
      }
    },
    "targetWaitSeconds": { "type": "number", "minimum": 0 },
    "identity": { "enum": ["daemon", "target"] },
    "cgroup": { "enum": ["own", "target"] },
    "userNamespace": { "type": "boolean" },
    "cgroupNamespace": { "type": "boolean" }
  }
}"#;

/// A task's `config`, as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Given {
    target: Option<Target>,
    target_wait_seconds: Option<f64>,
    identity: Option<Identity>,
    cgroup: Option<Cgroup>,
    user_namespace: bool,
    cgroup_namespace: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Target {
    MainContainer(String),
    Variable(Variable),
    Pid(u32),
    ContainerId(String),
    Cgroup(String),
}

#[derive(Debug, Deserialize)]
struct Variable {
    name: String,
    value: String,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Identity {
    Daemon,
    Target,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Cgroup {
    Own,
    Target,
}

/// What is wanted: the task's word, then the operator's, then ours.
#[derive(Debug)]
pub(crate) struct Wanted {
    target: Target,
    /// How long the target is waited for, in milliseconds.
    pub(crate) wait_ms: u64,
    identity: Identity,
    cgroup: Cgroup,
    user_namespace: bool,
    cgroup_namespace: bool,
}

impl Wanted {
    /// Reads a task's `config`; an empty text says nothing.
    ///
    /// # Errors
    /// Every problem, at its field.
    pub(crate) fn read(config: &str) -> Result<Self, Vec<Problem>> {
        Self::with(config, &|key| settings::get(key))
    }

    /// [`Self::read`] with the operator's settings as a function.
    pub(crate) fn with(
        config: &str,
        setting: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, Vec<Problem>> {
        let given = match config {
            "" => Given::default(),
            text => serde_json::from_str(text).map_err(|error| {
                vec![problem(
                    "/config",
                    &format!("is not what the sidecar runtime takes: {error}"),
                )]
            })?,
        };
        let problems = given.problems();
        if !problems.is_empty() {
            return Err(problems);
        }
        let main = || {
            let name = setting("main-container-name").unwrap_or_else(|| MAIN_CONTAINER.to_owned());
            Target::MainContainer(name)
        };
        let is_target = |key: &str| setting(key).as_deref() == Some("target");
        let default_identity = if is_target("identity") {
            Identity::Target
        } else {
            Identity::Daemon
        };
        let default_cgroup = if is_target("cgroup") {
            Cgroup::Target
        } else {
            Cgroup::Own
        };
        let seconds = given
            .target_wait_seconds
            .or_else(|| setting("target-wait-seconds")?.parse().ok());
        Ok(Self {
            target: given.target.unwrap_or_else(main),
            wait_ms: seconds.map_or(WAIT_MS, |seconds| {
                (seconds.clamp(0.0, MOST_WAIT_SECONDS) * 1000.0) as u64
            }),
            identity: given.identity.unwrap_or(default_identity),
            cgroup: given.cgroup.unwrap_or(default_cgroup),
            user_namespace: given.user_namespace,
            cgroup_namespace: given.cgroup_namespace,
        })
    }

    /// The target, as the host looks for it.
    pub(crate) fn selector(&self) -> Selector {
        match &self.target {
            Target::MainContainer(name) => Selector::Variable(EnvVar {
                name: MARKER.to_owned(),
                value: name.clone(),
            }),
            Target::Variable(variable) => Selector::Variable(EnvVar {
                name: variable.name.clone(),
                value: variable.value.clone(),
            }),
            Target::Pid(pid) => Selector::Pid(*pid),
            Target::ContainerId(id) => Selector::ContainerId(bare(id).to_owned()),
            Target::Cgroup(path) => Selector::Cgroup(path.clone()),
        }
    }

    /// The process, if it is named by its number: no other one is ever meant.
    pub(crate) fn pid(&self) -> Option<u32> {
        match self.target {
            Target::Pid(pid) => Some(pid),
            _ => None,
        }
    }

    /// What is taken of the target.
    pub(crate) fn entry(&self) -> Entry {
        Entry {
            user_namespace: self.user_namespace,
            cgroup_namespace: self.cgroup_namespace,
            identity: matches!(self.identity, Identity::Target),
            cgroup: matches!(self.cgroup, Cgroup::Target),
        }
    }

    /// The target in words, after "a process".
    pub(crate) fn described(&self) -> String {
        match &self.target {
            Target::MainContainer(name) => format!("with {MARKER}={name} in its environment"),
            // Values of variables may be secrets.
            Target::Variable(variable) => {
                format!("with the wanted {} in its environment", variable.name)
            }
            Target::Pid(pid) => format!("of number {pid}"),
            Target::ContainerId(id) => format!("of container {id}"),
            Target::Cgroup(path) => format!("in cgroup {path}"),
        }
    }
}

/// A container's id without the runtime before it.
fn bare(id: &str) -> &str {
    let mut schemes = SCHEMES.iter();
    schemes
        .find_map(|scheme| id.strip_prefix(scheme))
        .unwrap_or(id)
}

impl Given {
    fn problems(&self) -> Vec<Problem> {
        let mut found = Vec::new();
        match &self.target {
            Some(Target::MainContainer(name)) if name.is_empty() => {
                found.push(problem("/config/target/mainContainer", "must not be empty"));
            }
            Some(Target::Variable(Variable { name, .. }))
                if name.is_empty() || name.contains(['=', '\0']) =>
            {
                found.push(problem(
                    "/config/target/variable/name",
                    "must not be empty and hold neither = nor NUL",
                ));
            }
            Some(Target::Pid(0)) => {
                found.push(problem("/config/target/pid", "must be 1 or more"));
            }
            Some(Target::ContainerId(id))
                if bare(id).len() < LEAST_ID
                    || !bare(id).chars().all(|one| one.is_ascii_alphanumeric()) =>
            {
                found.push(problem(
                    "/config/target/containerId",
                    "must be a container's id, or at least its first 12 characters, alone or after \
                     containerd://, cri-o:// or docker://",
                ));
            }
            Some(Target::Cgroup(path)) if !path.starts_with('/') || path.len() == 1 => {
                found.push(problem(
                    "/config/target/cgroup",
                    "must be a path below the root of a hierarchy, as /proc/PID/cgroup has it",
                ));
            }
            _ => {}
        }
        if self
            .target_wait_seconds
            .is_some_and(|seconds| !(0.0..=MOST_WAIT_SECONDS).contains(&seconds))
        {
            found.push(problem(
                "/config/targetWaitSeconds",
                "must be between 0 and 86400",
            ));
        }
        found
    }
}

#[cfg(test)]
mod tests;
