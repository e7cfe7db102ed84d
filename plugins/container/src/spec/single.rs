//! A container by itself: the guide's `spec.container`.
//!
//! The guide names an image, a command, variables and mounts, and nothing that says what is
//! mounted. A mount of a volume that is not listed is therefore an empty directory of that name.

use std::collections::BTreeMap;

use taskwright_plugin_sdk::Task;
use taskwright_plugin_sdk::container::{Network, SandboxRequest};

use super::container::{self, Surroundings};
use super::env::{Limits, Sources};
use super::json::Object;
use super::volume::{self, Unlisted};
use super::{LABEL, MAIN, Plan, images, is_label, refused};

/// Reads the object. `None` comes with a problem.
pub(super) fn read(task: &Task, document: &Object<'_>) -> Option<Plan> {
    let network = network(document);
    let hostname = hostname(document);
    let limits = limits(document);
    let labels = task.labels.iter();
    let sources = Sources {
        task,
        name: None,
        labels: labels
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect(),
        annotations: BTreeMap::new(),
        has_address: network == Network::Pod,
        limits: [(MAIN, limits)].into(),
    };
    let volumes = volume::read(document);
    let inherited = container::user(document);
    let context = document.object("securityContext");
    if document.get("user").is_some()
        && let Some(context) = context
        && context
            .get("runAsUser")
            .or(context.get("runAsGroup"))
            .is_some()
    {
        document.problem("user", "contradicts securityContext: say one of them");
    }
    let around = Surroundings {
        sources: &sources,
        volumes: &volumes,
        unlisted: Unlisted::IsEmpty,
        // Words are passed on as they are, as with any command.
        expands: false,
        inherited: &inherited,
    };
    container::ports(document, network == Network::Host);
    let containers = vec![container::read(document, MAIN, limits, &around)?];
    Some(Plan {
        is_pod: false,
        sandbox: SandboxRequest {
            network,
            hostname,
            share_pids: false,
            privileged: containers.iter().any(|one| one.request.privileged),
        },
        images: images(&containers),
        containers,
        init: 0,
    })
}

fn network(document: &Object<'_>) -> Network {
    const KEY: &str = "network";
    match document.text(KEY) {
        None | Some("pod") => Network::Pod,
        Some("none") => Network::None,
        Some("host") => Network::Host,
        Some(other) => {
            document.problem(KEY, format!("is {other:?}: say pod, none or host"));
            Network::Pod
        }
    }
}

/// The name of the sandbox's host, in the words that both kinds share.
pub(super) fn hostname(holder: &Object<'_>) -> Option<String> {
    const KEY: &str = "hostname";
    let name = holder.text(KEY)?;
    if !is_label(name) {
        holder.problem(KEY, LABEL);
    }
    Some(name.to_owned())
}

/// Limits as Kubernetes says them, or without the words around them.
fn limits(document: &Object<'_>) -> Limits {
    let Some(resources) = document.object("resources") else {
        return Limits::default();
    };
    refused::check(&resources, refused::CLAIMS);
    let short = ["cpu", "memory"];
    let is_short = short.iter().any(|key| resources.get(key).is_some());
    match resources.object("limits") {
        Some(_) if is_short => {
            resources.problem(
                "limits",
                "contradicts cpu and memory beside it: say one of them",
            );
            Limits::default()
        }
        Some(limits) => container::limits(&limits),
        None => container::short_limits(&resources),
    }
}
