//! A pod: a core/v1 `PodTemplateSpec`, as controllers send it.
//!
//! What is about placing pods on machines means nothing on one machine and is taken without
//! effect, as are names of secrets for images and ports without a port of the machine.

use std::collections::{BTreeMap, BTreeSet};

use taskwright_plugin_sdk::Task;
use taskwright_plugin_sdk::container::{Network, SandboxRequest};

use super::container::{self, Inherited, Surroundings};
use super::env::{Limits, Sources};
use super::json::Object;
use super::single::hostname;
use super::volume::{self, Unlisted};
use super::{LABEL, MOST_CONTAINERS, Plan, images, is_label, refused};

/// A container in its list, with what others may ask of it.
struct Listed<'a> {
    container: Object<'a>,
    name: &'a str,
    limits: Limits,
}

/// Reads the template. `None` comes with a problem.
pub(super) fn read(task: &Task, template: &Object<'_>) -> Option<Plan> {
    let Some(spec) = template.object("spec") else {
        if template.get("spec").is_none() {
            template.problem("spec", "must describe a pod");
        }
        return None;
    };
    refused::check(&spec, refused::POD);
    if let Some(os) = spec.object("os") {
        refused::check(&os, refused::POD_OS);
    }
    if spec.flag("hostUsers") == Some(false) {
        spec.problem(
            "hostUsers",
            "user namespaces are not made here: leave it out",
        );
    }
    let host_network = spec.is_true("hostNetwork");
    let init = listed(&spec, "initContainers");
    let main = listed(&spec, "containers");
    check_lists(&spec, &init, &main);

    let metadata = template.object("metadata");
    let name = metadata.as_ref().and_then(|it| it.text("name"));
    let labels = task.labels.iter();
    let mut sources = Sources {
        task,
        name,
        labels: labels
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect(),
        annotations: BTreeMap::new(),
        has_address: !host_network,
        limits: init
            .iter()
            .chain(&main)
            .map(|one| (one.name, one.limits))
            .collect(),
    };
    if let Some(metadata) = &metadata {
        sources.labels.extend(texts(metadata, "labels"));
        sources.annotations = texts(metadata, "annotations");
    }
    let volumes = volume::read(&spec);
    let inherited = inherited(&spec);
    let around = Surroundings {
        sources: &sources,
        volumes: &volumes,
        unlisted: Unlisted::IsWrong,
        expands: true,
        inherited: &inherited,
    };
    let both = init.iter().chain(&main);
    let containers: Vec<_> = both
        .map(|one| {
            container::ports(&one.container, host_network);
            container::read(&one.container, one.name, one.limits, &around)
        })
        .collect();
    let containers = containers.into_iter().collect::<Option<Vec<_>>>()?;
    Some(Plan {
        is_pod: true,
        sandbox: SandboxRequest {
            network: if host_network {
                Network::Host
            } else {
                Network::Pod
            },
            hostname: hostname(&spec),
            share_pids: spec.is_true("shareProcessNamespace"),
            privileged: containers.iter().any(|one| one.request.privileged),
        },
        images: images(&containers),
        containers,
        init: init.len(),
    })
}

fn listed<'a>(spec: &Object<'a>, key: &str) -> Vec<Listed<'a>> {
    let containers = spec.objects(key).into_iter();
    containers
        .map(|container| {
            let resources = container.object("resources");
            if let Some(resources) = &resources {
                refused::check(resources, refused::CLAIMS);
            }
            let limits = resources.and_then(|resources| resources.object("limits"));
            Listed {
                name: container.text("name").unwrap_or_default(),
                limits: limits.map_or_else(Limits::default, |it| container::limits(&it)),
                container,
            }
        })
        .collect()
}

/// The names of containers are the words for their units, so they are unique among all.
fn check_lists(spec: &Object<'_>, init: &[Listed<'_>], main: &[Listed<'_>]) {
    let containers = spec.get("containers");
    if containers.is_none_or(|it| it.value.as_array().is_some_and(Vec::is_empty)) {
        spec.problem("containers", "must hold at least one container");
    }
    let count = init.len() + main.len();
    if count > MOST_CONTAINERS {
        spec.problem(
            "containers",
            format!(
                "there are {count}, those of initialization included; a pod has at most \
                 {MOST_CONTAINERS}"
            ),
        );
    }
    let mut names = BTreeSet::new();
    for Listed {
        container, name, ..
    } in init.iter().chain(main)
    {
        if !is_label(name) {
            container.problem("name", LABEL);
        } else if !names.insert(name) {
            container.problem(
                "name",
                format!("{name:?} is the name of another container too"),
            );
        }
    }
}

fn texts<'a>(metadata: &Object<'a>, key: &str) -> BTreeMap<&'a str, &'a str> {
    let Some(object) = metadata.object(key) else {
        return BTreeMap::new();
    };
    let fields = object.fields();
    fields
        .filter_map(|(key, node)| Some((key, node.text()?)))
        .collect()
}

/// The pod's own `securityContext`, which each container may say otherwise.
fn inherited(spec: &Object<'_>) -> Inherited {
    let Some(context) = spec.object("securityContext") else {
        return Inherited::default();
    };
    refused::check(&context, refused::POD_SECURITY);
    container::profiles(&context);
    let groups = context.list("supplementalGroups").into_iter();
    Inherited {
        uid: context.id("runAsUser"),
        gid: context.id("runAsGroup"),
        groups: groups.filter_map(|node| node.id()).collect(),
        username: None,
        must_not_be_root: context.is_true("runAsNonRoot"),
    }
}
