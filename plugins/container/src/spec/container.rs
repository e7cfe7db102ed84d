//! What both kinds say of a container in the same words.

use serde_json::Value;
use taskwright_plugin_sdk::container::{ContainerRequest, Identity, PullPolicy, Resources};

use super::env::{self, Limits, Sources};
use super::json::{MOST_ID, Object};
use super::volume::{self, Unlisted, Volumes};
use super::{Container, capability, image, quantity, refused};

/// What is said of all containers, where one says nothing itself.
#[derive(Clone, Default)]
pub(super) struct Inherited {
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) groups: Vec<u32>,
    pub(super) username: Option<String>,
    pub(super) must_not_be_root: bool,
}

/// Where a container stands in its document.
pub(super) struct Surroundings<'a> {
    pub(super) sources: &'a Sources<'a>,
    pub(super) volumes: &'a Volumes<'a>,
    pub(super) unlisted: Unlisted,
    /// Whether `$(NAME)` stands for a variable.
    pub(super) expands: bool,
    pub(super) inherited: &'a Inherited,
}

/// Reads a container. `None` comes with a problem.
pub(super) fn read(
    container: &Object<'_>,
    name: &str,
    limits: Limits,
    around: &Surroundings<'_>,
) -> Option<Container> {
    refused::check(container, refused::CONTAINER);
    let image = container.text("image");
    match (image, container.get("image")) {
        (Some(name), Some(node)) => image::check(&node, name),
        _ => container.problem("image", "must name an image"),
    }
    let env = env::read(container, limits, around.sources);
    let mounts = volume::mounts(container, around.volumes, around.unlisted);
    let policy = policy(container);
    let working_dir = working_dir(container);
    let command = container.texts("command");
    if command.first().is_some_and(String::is_empty) {
        container.problems.add(
            &format!("{}/0", container.at("command")),
            "the program must not be empty",
        );
    }
    let mut request = ContainerRequest {
        image: image.unwrap_or_default().to_owned(),
        command,
        args: container.texts("args"),
        env: Vec::new(),
        working_dir,
        mounts,
        identity: Identity {
            uid: around.inherited.uid,
            gid: around.inherited.gid,
            groups: around.inherited.groups.clone(),
            username: around.inherited.username.clone(),
        },
        resources: Resources {
            cpu_millis: limits.cpu_millis,
            memory_bytes: limits.memory_bytes,
        },
        no_new_privileges: false,
        read_only_root: false,
        add_capabilities: Vec::new(),
        drop_capabilities: Vec::new(),
        privileged: false,
    };
    security(container, around.inherited.must_not_be_root, &mut request);
    image.map(|_| Container {
        name: name.to_owned(),
        request,
        env,
        expands: around.expands,
        policy: policy.unwrap_or(PullPolicy::IfNotPresent),
    })
}

fn working_dir(container: &Object<'_>) -> Option<String> {
    const KEY: &str = "workingDir";
    let path = container.text(KEY)?;
    if !path.starts_with('/') {
        container.problem(
            KEY,
            "must be an absolute path in the container: there is none that it could begin at",
        );
    }
    Some(path.to_owned())
}

fn policy(container: &Object<'_>) -> Option<PullPolicy> {
    const KEY: &str = "imagePullPolicy";
    match container.text(KEY)? {
        "Always" => Some(PullPolicy::Always),
        "IfNotPresent" => Some(PullPolicy::IfNotPresent),
        "Never" => Some(PullPolicy::Never),
        other => {
            container.problem(
                KEY,
                format!("is {other:?}: say Always, IfNotPresent or Never"),
            );
            None
        }
    }
}

/// Reads `cpu` and `memory`.
pub(super) fn short_limits(limits: &Object<'_>) -> Limits {
    Limits {
        cpu_millis: limits.get("cpu").and_then(|node| quantity::cpu(&node)),
        memory_bytes: limits
            .get("memory")
            .and_then(|node| quantity::memory(&node)),
    }
}

/// Reads limits as Kubernetes says them; of what is neither `cpu` nor `memory` each is refused by
/// name.
pub(super) fn limits(limits: &Object<'_>) -> Limits {
    for (key, node) in limits.fields() {
        match key {
            "cpu" | "memory" => {}
            key => node.problem(format!(
                "{key} can neither be limited nor given here: cpu and memory can"
            )),
        }
    }
    short_limits(limits)
}

/// Reads the `securityContext` of a container over that of all.
fn security(container: &Object<'_>, mut must_not_be_root: bool, request: &mut ContainerRequest) {
    const KEY: &str = "securityContext";
    if let Some(context) = container.object(KEY) {
        profiles(&context);
        if let Some(uid) = context.id("runAsUser") {
            request.identity.uid = Some(uid);
        }
        if let Some(gid) = context.id("runAsGroup") {
            request.identity.gid = Some(gid);
        }
        must_not_be_root = context.flag("runAsNonRoot").unwrap_or(must_not_be_root);
        request.no_new_privileges = context.flag("allowPrivilegeEscalation") == Some(false);
        request.read_only_root = context.is_true("readOnlyRootFilesystem");
        request.privileged = context.is_true("privileged");
        if request.privileged && request.no_new_privileges {
            context.problem(
                "allowPrivilegeEscalation",
                "must not be false for a container with every privilege",
            );
        }
        if let Some(capabilities) = context.object("capabilities") {
            request.add_capabilities = capability_names(&capabilities, "add");
            request.drop_capabilities = capability_names(&capabilities, "drop");
        }
    }
    identity(container, KEY, must_not_be_root, request);
}

/// Whether it can be known as whom it runs, and whether it may.
fn identity(container: &Object<'_>, key: &str, must_not_be_root: bool, request: &ContainerRequest) {
    let identity = &request.identity;
    match identity.uid {
        Some(0) if must_not_be_root => {
            container.problem(key, "says runAsNonRoot, and runs as user 0");
        }
        None if must_not_be_root => container.problem(
            key,
            "says runAsNonRoot, and the user of an image is not known here: say runAsUser",
        ),
        None if identity.gid.is_some() || !identity.groups.is_empty() => container.problem(
            key,
            "names groups and no user, which cannot be carried out here: say runAsUser",
        ),
        _ => {}
    }
}

/// What pods and containers say of security in the same words.
pub(super) fn profiles(context: &Object<'_>) {
    refused::check(context, refused::SECURITY);
    for key in ["seccompProfile", "appArmorProfile"] {
        if let Some(profile) = context.object(key) {
            refused::check(&profile, refused::PROFILE);
        }
    }
}

fn capability_names(capabilities: &Object<'_>, key: &str) -> Vec<String> {
    let mut names = Vec::new();
    for node in capabilities.list(key) {
        let Some(text) = node.text() else {
            continue;
        };
        match capability::known(text) {
            Some(name) => names.push(name.to_owned()),
            None => node.problem(format!(
                "is {text:?}, and Linux has no such capability: say one, as NET_ADMIN, or ALL"
            )),
        }
    }
    names
}

/// Whether a port asks for one of the machine's.
pub(super) fn ports(container: &Object<'_>, host_network: bool) {
    for port in container.objects("ports") {
        let own = port.get("containerPort").map(|node| node.value.clone());
        let hosts = port.get("hostPort").map(|node| node.value.clone());
        // Kubernetes fills it in for a pod in the host's network, where it is true anyway.
        if host_network && hosts.is_some() && own == hosts {
            continue;
        }
        refused::check(&port, refused::PORT);
    }
}

/// Reads a user as people write it for a container: `1000`, `1000:1000`, `name`.
pub(super) fn user(container: &Object<'_>) -> Inherited {
    let mut read = Inherited::default();
    let Some(node) = container.get("user") else {
        return read;
    };
    if let Value::Number(_) = node.value {
        read.uid = node.id();
        return read;
    }
    let Some(text) = node.text().filter(|text| !text.is_empty()) else {
        return read;
    };
    let number = |text: &str| {
        text.parse()
            .ok()
            .filter(|id: &u32| u64::from(*id) <= MOST_ID)
    };
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    match (number(user), group.map(number)) {
        (Some(uid), None) => read.uid = Some(uid),
        (Some(uid), Some(Some(gid))) => {
            read.uid = Some(uid);
            read.gid = Some(gid);
        }
        (None, None) if is_user_name(user) => read.username = Some(user.to_owned()),
        (None, Some(_)) if is_user_name(user) => {
            node.problem("a group needs the user's number: say \"1000:1000\", or the name alone");
        }
        _ => node.problem("must be \"1000\", \"1000:1000\" or a name that the image knows"),
    }
    read
}

fn is_user_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && text.bytes().all(plain)
}
