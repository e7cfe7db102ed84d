//! Fields that would change what runs or how it ends, and that are not carried out here.
//!
//! One table per kind of object. A field is refused only where it asks for something: `null`,
//! `false`, 0, an empty text, list or object are what clients send who do not ask.

use serde_json::Value;

use super::json::Object;

/// A field, the texts of it that are taken all the same, and why the rest is not.
type Row = (&'static str, &'static [&'static str], &'static str);

const PROBES: &str = "nothing probes containers here: leave it out";
const STREAMS: &str = "containers have neither input nor terminal here: leave it out";
const DOMAIN: &str = "there is no cluster domain here: leave it out";
const LINUX: &str = "containers are of Linux here: leave it out";

pub(super) const POD: &[Row] = &[
    (
        "restartPolicy",
        &["Never"],
        "containers are not restarted here: say Never, and use the task's retry to run all of it \
         again",
    ),
    (
        "hostPID",
        &[],
        "containers never see the machine's processes",
    ),
    (
        "hostIPC",
        &[],
        "containers never share the machine's IPC namespace",
    ),
    ("hostAliases", &[], "nothing is added to /etc/hosts here"),
    (
        "dnsConfig",
        &[],
        "names are resolved as the container runtime does it",
    ),
    ("setHostnameAsFQDN", &[], DOMAIN),
    ("subdomain", &[], DOMAIN),
    ("hostnameOverride", &[], "say hostname instead"),
    (
        "runtimeClassName",
        &[],
        "there is one way to run containers here",
    ),
    (
        "ephemeralContainers",
        &[],
        "nothing is added to a pod that runs",
    ),
    (
        "resources",
        &[],
        "limits are said for each container, or for the task as a whole",
    ),
    (
        "resourceClaims",
        &[],
        "devices are not given to containers here",
    ),
];

pub(super) const POD_OS: &[Row] = &[("name", &["linux"], LINUX)];

pub(super) const CONTAINER: &[Row] = &[
    (
        "envFrom",
        &[],
        "its sources are not known here: list the variables in env",
    ),
    (
        "lifecycle",
        &[],
        "hooks are not run here: put them into the command",
    ),
    ("livenessProbe", &[], PROBES),
    ("readinessProbe", &[], PROBES),
    ("startupProbe", &[], PROBES),
    ("stdin", &[], STREAMS),
    ("stdinOnce", &[], STREAMS),
    ("tty", &[], STREAMS),
    (
        "volumeDevices",
        &[],
        "devices are not given to containers here",
    ),
    (
        "restartPolicy",
        &[],
        "containers are not restarted here, and none of initialization runs beside those after it",
    ),
    (
        "restartPolicyRules",
        &[],
        "containers are not restarted here: use the task's retry",
    ),
];

pub(super) const POD_SECURITY: &[Row] = &[
    (
        "fsGroup",
        &[],
        "the group of volumes is not changed here: say supplementalGroups",
    ),
    ("sysctls", &[], "parameters of the kernel are not set here"),
    (
        "supplementalGroupsPolicy",
        &["Merge"],
        "groups come on top of those of the image",
    ),
];

/// What pods and containers both may say of security.
pub(super) const SECURITY: &[Row] = &[
    ("seLinuxOptions", &[], "labels of SELinux are not set here"),
    ("windowsOptions", &[], LINUX),
    (
        "procMount",
        &["Default"],
        "what is masked in /proc stays masked",
    ),
];

/// The profiles of seccomp and AppArmor: which one a container gets is the host's choice.
pub(super) const PROFILE: &[Row] = &[
    (
        "type",
        &["RuntimeDefault"],
        "is for the host to choose: say RuntimeDefault, or leave it out",
    ),
    (
        "localhostProfile",
        &[],
        "is for the host to choose: leave it out",
    ),
];

pub(super) const CLAIMS: &[Row] = &[("claims", &[], "devices are not given to containers here")];

pub(super) const PORT: &[Row] = &[(
    "hostPort",
    &[],
    "ports of the machine are not forwarded: leave it out, or use the host's network if the \
     operator allows it",
)];

pub(super) const EMPTY_DIR: &[Row] = &[
    (
        "medium",
        &[],
        "an empty directory is on disk here: leave it out",
    ),
    (
        "sizeLimit",
        &[],
        "an empty directory has no limit of its own here: leave it out",
    ),
];

pub(super) const HOST_PATH: &[Row] = &[(
    "type",
    &["Directory", "File", "Socket", "CharDevice", "BlockDevice"],
    "nothing is created on the host: it must be there",
)];

pub(super) const MOUNT: &[Row] = &[
    (
        "subPath",
        &[],
        "volumes are mounted whole: use a volume of its own",
    ),
    (
        "subPathExpr",
        &[],
        "volumes are mounted whole: use a volume of its own",
    ),
    (
        "mountPropagation",
        &["None"],
        "mounts are not passed on here: say None",
    ),
    (
        "recursiveReadOnly",
        &["Disabled", "IfPossible"],
        "only the mount itself can be made read-only",
    ),
];

/// Adds a problem for each field that asks for something that is not carried out.
pub(super) fn check(object: &Object<'_>, rows: &[Row]) {
    for (key, taken, why) in rows {
        let Some(node) = object.get(key) else {
            continue;
        };
        let is_taken = match node.value {
            Value::Null | Value::Bool(false) => true,
            Value::Bool(true) => false,
            Value::Number(number) => number.as_f64() == Some(0.0),
            Value::String(text) => text.is_empty() || taken.contains(&text.as_str()),
            Value::Array(list) => list.is_empty(),
            Value::Object(map) => map.is_empty(),
        };
        if !is_taken {
            node.problem(*why);
        }
    }
}
