//! Bodies as the OpenAPI document describes them. Never built: bodies are read
//! field by field in [`super::parse`], which tells every problem with its place.
#![expect(
    dead_code,
    reason = "these types are only described, never read or built"
)]

use std::collections::BTreeMap;

use utoipa::ToSchema;

/// A task to be accepted. The command stands in `spec.process` or in `process`.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub(crate) struct TaskRequest {
    /// Letters and digits of any script and `- _ . @ : + = ~`, up to 200 bytes.
    #[schema(example = "my-first-task")]
    name: String,
    spec: Option<SpecRequest>,
    process: Option<ProcessRequest>,
    /// A core/v1 `PodTemplateSpec`.
    #[schema(value_type = Option<Object>)]
    pod_template_spec: Option<()>,
    /// Up to 64 words to find it by.
    labels: Option<BTreeMap<String, String>>,
    /// The runtime asked for by name; otherwise the one that takes this kind of work.
    runtime: Option<String>,
    /// Higher runs first; 0 where nothing is said.
    priority: Option<i32>,
    limits: Option<LimitsRequest>,
    retry: Option<RetryRequest>,
    resources: Option<ResourcesRequest>,
    /// As whom it runs: a number, `UID`, `UID:GID`, or an object with `uid`, `gid` and `groups`.
    #[schema(value_type = Option<Object>, example = "1000:1000")]
    user: Option<()>,
    /// Whether nothing it executes gains privileges.
    no_new_privileges: Option<bool>,
    /// Absolute paths that it sees read-only.
    read_only_paths: Option<Vec<String>>,
    /// Whether what this machine cannot enforce is left out, and told, instead of refused.
    best_effort: Option<bool>,
    /// What only its runtime understands; see the runtime's schema in `/plugins`.
    #[schema(value_type = Option<Object>)]
    config: Option<()>,
}

/// What a task may use. Amounts are written as Kubernetes writes them.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub(crate) struct ResourcesRequest {
    /// Cores, of the whole tree.
    #[schema(value_type = Option<String>, example = "500m")]
    cpu: Option<()>,
    /// Bytes, of the whole tree.
    #[schema(value_type = Option<String>, example = "64Mi")]
    memory: Option<()>,
    /// Processes and threads, of the whole tree.
    pids: Option<i64>,
    /// Open files, of each process.
    open_files: Option<i64>,
    /// Bytes of a file that it writes.
    #[schema(value_type = Option<String>, example = "1Gi")]
    file_size: Option<()>,
}

/// What to run, in the first form.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub(crate) struct SpecRequest {
    process: Option<ProcessRequest>,
    container: Option<ContainerRequest>,
    document: Option<OtherRequest>,
    /// The run limit, 1 or more; leave it out for no limit.
    #[schema(minimum = 1)]
    timeout_seconds: Option<i64>,
}

/// A command to run. `command` and `args` together are its argv.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub(crate) struct ProcessRequest {
    /// The program and its first arguments.
    #[schema(min_items = 1, example = json!(["sh", "-c"]))]
    command: Vec<String>,
    /// Further arguments.
    #[schema(example = json!(["echo hello"]))]
    args: Option<Vec<String>>,
    /// Variables; `valueFrom` is refused.
    env: Option<Vec<EnvVarRequest>>,
    /// Where it starts; the task's own directory where nothing is said.
    working_dir: Option<String>,
    /// The run limit in the second form, 1 or more; leave it out for no limit.
    #[schema(minimum = 1)]
    timeout_seconds: Option<i64>,
}

/// A container to run.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub(crate) struct ContainerRequest {
    /// The image.
    image: String,
    /// The program and its first arguments, instead of the image's.
    command: Option<Vec<String>>,
    /// Further arguments.
    args: Option<Vec<String>>,
    /// Variables.
    env: Option<Vec<EnvVarRequest>>,
    /// Where it starts.
    working_dir: Option<String>,
}

/// Work of a kind that only its runtime knows.
#[derive(ToSchema)]
pub(crate) struct OtherRequest {
    /// The kind, as a runtime describes it in `/plugins`.
    #[schema(example = "echo")]
    kind: String,
    /// Whatever the runtime takes.
    #[schema(value_type = Option<Object>)]
    content: Option<()>,
}

/// One variable. Entries without a name are skipped.
#[derive(ToSchema)]
pub(crate) struct EnvVarRequest {
    name: String,
    value: Option<String>,
}

/// The four time limits and the grace, in seconds.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub(crate) struct LimitsRequest {
    /// From submission to the first attempt.
    queue_seconds: Option<f64>,
    /// From launch to running.
    start_seconds: Option<f64>,
    /// Without output.
    idle_seconds: Option<f64>,
    /// Running; the same as `timeoutSeconds`.
    run_seconds: Option<f64>,
    /// Between TERM and KILL; 10 where nothing is said.
    grace_seconds: Option<f64>,
}

/// Whether and how a task is tried again.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub(crate) struct RetryRequest {
    /// Attempts in all, 1 to 100.
    #[schema(minimum = 1, maximum = 100)]
    max_attempts: Option<i64>,
    /// Wait before the second attempt; doubles with each further one.
    backoff_seconds: Option<f64>,
    /// The longest wait between attempts.
    max_backoff_seconds: Option<f64>,
    /// The causes that deserve another attempt: `exit`, `signal`, `out-of-memory`, `timeout`,
    /// `plugin-fault`, `infrastructure`, `lost`; all of them where nothing is said.
    on: Option<Vec<String>>,
}

/// How a task is to be stopped.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub(crate) struct StopRequest {
    /// Between TERM and KILL, instead of the task's own grace.
    grace_seconds: Option<f64>,
}

/// Why somebody decided so about a task.
#[derive(ToSchema)]
#[schema(as = AnswerRequest)]
pub(crate) struct AnswerRequest {
    /// For people, 4 KiB at most.
    reason: Option<String>,
    /// The id of the task that was looked at: another one that has its name by now is not meant.
    id: Option<String>,
}

/// A command to run inside a task.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase", as = ExecRequest)]
pub(crate) struct ExecBody {
    /// The program and its arguments.
    #[schema(min_items = 1, example = json!(["ls", "/"]))]
    command: Vec<String>,
    /// In which container of a pod; its only one where nothing is said.
    container: Option<String>,
    /// How long it may take: a minute where nothing is said, an hour at most.
    #[schema(maximum = 3600)]
    timeout_seconds: Option<f64>,
}
