//! Volumes, and where containers mount them.

use std::collections::BTreeMap;

use serde_json::Value;
use taskwright_plugin_sdk::container::{Mount, MountSource};

use super::json::{Node, Object};
use super::{LABEL, is_label, refused};

/// Mounts of a container that the host takes.
const MOST_MOUNTS: usize = 64;

/// The volumes of a document, by name. `None` is one that has a problem already, so that its
/// mounts have none.
pub(super) type Volumes<'a> = BTreeMap<&'a str, Option<MountSource>>;

/// Whether a mount may name a volume that nobody listed.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Unlisted {
    /// It is an empty directory of that name.
    IsEmpty,
    /// It is a mistake.
    IsWrong,
}

/// Reads `volumes`.
pub(super) fn read<'a>(holder: &Object<'a>) -> Volumes<'a> {
    let mut volumes = Volumes::new();
    for volume in holder.objects("volumes") {
        let source = source(&volume);
        let Some(name) = volume.text("name") else {
            volume.problem("name", LABEL);
            continue;
        };
        if !is_label(name) {
            volume.problem("name", LABEL);
        }
        let source = source.map(|source| match source {
            Source::Empty => MountSource::EmptyDir(name.to_owned()),
            Source::Path(path) => MountSource::HostPath(path),
        });
        if volumes.insert(name, source).is_some() {
            volume.problem(
                "name",
                format!("{name:?} is the name of another volume too"),
            );
        }
    }
    volumes
}

enum Source {
    Empty,
    Path(String),
}

fn source(volume: &Object<'_>) -> Option<Source> {
    let mut kinds = volume.fields().filter(|(key, _)| *key != "name");
    let Some((kind, node)) = kinds.next() else {
        // Kubernetes' own default.
        return Some(Source::Empty);
    };
    if kinds.next().is_some() {
        let message = "must name one kind of volume: emptyDir or hostPath";
        volume.problems.add(&volume.place, message);
        return None;
    }
    match kind {
        "emptyDir" => {
            refused::check(&node.object()?, refused::EMPTY_DIR);
            Some(Source::Empty)
        }
        "hostPath" => host_path(node).map(Source::Path),
        other => {
            node.problem(format!(
                "{other} is a kind of volume that cannot be had here: emptyDir and hostPath can"
            ));
            None
        }
    }
}

fn host_path(node: Node<'_>) -> Option<String> {
    if let Value::String(_) = node.value {
        return checked_path(&node).map(str::to_owned);
    }
    let object = node.object()?;
    refused::check(&object, refused::HOST_PATH);
    let Some(path) = object.get("path") else {
        object.problem("path", "must be an absolute path of the host");
        return None;
    };
    checked_path(&path).map(str::to_owned)
}

fn checked_path<'a>(node: &Node<'a>) -> Option<&'a str> {
    let path = node.text()?;
    let is_plain = path.starts_with('/') && !path.split('/').any(|part| part == "..");
    if !is_plain {
        node.problem("must be an absolute path without ..");
    }
    is_plain.then_some(path)
}

/// The parts of a path, however it is written.
fn parts(path: &str) -> impl Iterator<Item = &str> {
    let parts = path.split('/');
    parts.filter(|part| !part.is_empty() && *part != ".")
}

/// Why nothing can be mounted at this path of a container, if so.
fn is_taken_by_runtime(path: &str) -> Option<&'static str> {
    let mut parts = parts(path);
    match (parts.next(), parts.next()) {
        (None, _) => Some("/ is the image's own: mount at a directory below it"),
        (Some("proc" | "sys"), _) => Some(
            "/proc and /sys are the kernel's, and nothing is mounted at or below them: choose \
             another path",
        ),
        (Some("dev"), None) => Some(
            "/dev is filled by the container runtime: choose another path, or one below it, as \
             /dev/shm",
        ),
        _ => None,
    }
}

/// Reads the `volumeMounts` of a container.
pub(super) fn mounts(
    container: &Object<'_>,
    volumes: &Volumes<'_>,
    unlisted: Unlisted,
) -> Vec<Mount> {
    let entries = container.objects("volumeMounts");
    if entries.len() > MOST_MOUNTS {
        container.problem(
            "volumeMounts",
            format!("a container has at most {MOST_MOUNTS} mounts"),
        );
    }
    let mut mounts: Vec<Mount> = Vec::with_capacity(entries.len());
    for entry in entries {
        let Some(mount) = mount(&entry, volumes, unlisted) else {
            continue;
        };
        if mounts
            .iter()
            .any(|other| parts(&other.path).eq(parts(&mount.path)))
        {
            entry.problem("mountPath", "is where another volume is mounted");
        }
        mounts.push(mount);
    }
    mounts
}

fn mount(entry: &Object<'_>, volumes: &Volumes<'_>, unlisted: Unlisted) -> Option<Mount> {
    refused::check(entry, refused::MOUNT);
    let path = match entry.get("mountPath") {
        Some(node) => checked_path(&node).inspect(|path| {
            if let Some(why) = is_taken_by_runtime(path) {
                node.problem(why);
            }
        }),
        None => {
            entry.problem("mountPath", "must be an absolute path in the container");
            None
        }
    };
    let read_only = entry.is_true("readOnly");
    let Some(name) = entry.text("name") else {
        entry.problem("name", "must name a volume");
        return None;
    };
    let source = match volumes.get(name) {
        Some(source) => source.clone(),
        None if unlisted == Unlisted::IsEmpty && is_label(name) => {
            Some(MountSource::EmptyDir(name.to_owned()))
        }
        None if unlisted == Unlisted::IsEmpty => {
            entry.problem("name", LABEL);
            None
        }
        None => {
            entry.problem("name", format!("no volume is named {name:?}"));
            None
        }
    };
    Some(Mount {
        source: source?,
        path: path?.to_owned(),
        read_only,
    })
}
