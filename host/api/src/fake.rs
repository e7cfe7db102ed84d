//! A whole loop over fakes, for tests of handlers: memory for a journal, a strategy that
//! does what the command says, outputs that tests write.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests only")]

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use futures::future::{BoxFuture, FutureExt};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use taskwright_control::port::{
    Batch, Clock, CommitError, FeedEntry, FeedHistory, Journal, KnownUnit, OutputChunk,
    OutputError, Outputs, PluginInfo, Plugins, Policies, PolicyEntry, PolicyTerms, PolicyVerdict,
    Recovered, ReviewRequest, SpecProblem, Step, Stepped, Strategies, StrategyError, StrategyEvent,
    StrategyTask, Stream, Units,
};
use taskwright_control::{Config, Parts};
use taskwright_model::{
    AttemptNumber, Namespace, Outcome, RuntimeName, Task, TaskId, TaskKey, TaskSpec, Timestamp,
    Work,
};
use taskwright_queue::{Queue, QueueConfig};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::{
    ApiLimits, ApiState, AuthConfig, Cors, Live, QueueApi, Room, SubmissionLimit, VersionInfo,
};

/// A policy that says what a task's label `policy` wants, and is asked about no other tasks.
struct ByLabel;

impl Policies for ByLabel {
    fn in_order(&self) -> Arc<[PolicyEntry]> {
        let mut terms = PolicyTerms::default();
        let labelled = taskwright_control::request::LabelMatch::Exists("policy".to_owned());
        terms.scope.labels.push(labelled);
        let name = "by-label".to_owned();
        [PolicyEntry { name, terms }].into()
    }

    fn renewals(&self) -> tokio::sync::watch::Receiver<()> {
        tokio::sync::watch::Sender::default().subscribe()
    }

    fn review(
        &self,
        _: &str,
        request: ReviewRequest,
    ) -> BoxFuture<'_, Result<PolicyVerdict, String>> {
        let label = request.task.task.spec.labels.get("policy");
        let verdict = match label.map_or("", String::as_str) {
            "deny" => Ok(PolicyVerdict::Deny {
                reason: "labels say no".to_owned(),
                field: "/labels/policy".to_owned(),
            }),
            "ask" => Ok(PolicyVerdict::Ask {
                question: "is that so?".to_owned(),
                within: None,
                otherwise: None,
            }),
            "cap" => Ok(PolicyVerdict::Change {
                patch: r#"{"limits": {"runSeconds": 60}}"#.to_owned(),
                reason: "an hour is long".to_owned(),
            }),
            "trap" => Err("it trapped".to_owned()),
            _ => Ok(PolicyVerdict::Allow),
        };
        async move { verdict }.boxed()
    }
}

pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// The API over a running loop.
pub(crate) struct Api {
    pub(crate) router: Router,
    pub(crate) outputs: Arc<FakeOutputs>,
    pub(crate) store_is_full: Arc<AtomicBool>,
    pub(crate) shutdown: CancellationToken,
    _directory: Arc<tempfile::TempDir>,
}

pub(crate) async fn api() -> Api {
    api_with(Config::default(), AuthConfig::none()).await
}

pub(crate) async fn api_with(config: Config, auth: AuthConfig) -> Api {
    api_of(config, auth, queue_api()).await
}

/// What nobody changed of the queue's dialect, but that callbacks go to one host alone.
pub(crate) fn queue_api() -> QueueApi {
    QueueApi {
        live: Live::new(4, Duration::from_secs(1)),
        submissions: SubmissionLimit::none(),
        callbacks: Box::new(|address| match address {
            "https://told.example.org/done" => Ok(()),
            _ => Err("is not allowed".to_owned()),
        }),
        cors: Cors::default(),
        docs: true,
        metrics: true,
    }
}

pub(crate) async fn api_of(config: Config, auth: AuthConfig, queue_api: QueueApi) -> Api {
    let store_is_full = Arc::new(AtomicBool::new(false));
    let outputs = Arc::new(FakeOutputs::default());
    let parts = Parts {
        journal: MemoryJournal {
            full: store_is_full.clone(),
        },
        history: Arc::new(NoHistory),
        strategies: Arc::new(Obedient),
        units: Arc::new(NoUnits),
        policies: Arc::new(ByLabel),
        documents: Arc::new(crate::TaskDocuments),
        plugins: Arc::new(OnePlugin),
        outputs: outputs.clone(),
        execs: Arc::new(Echo),
        clock: Arc::new(Counting(AtomicU64::new(1))),
    };
    let running = taskwright_control::start(parts, Recovered::default(), config)
        .await
        .unwrap();
    let shutdown = CancellationToken::new();
    let directory = tempfile::tempdir().unwrap();
    let store = taskwright_store::queue::open_sqlite(
        directory.path().join("queue.db"),
        taskwright_store::queue::QueueLimits::default(),
    );
    let queue = Queue::new(store.await.unwrap(), QueueConfig::default());
    tokio::spawn(
        queue_api
            .live
            .clone()
            .follow(queue.clone(), shutdown.clone()),
    );
    let state = ApiState {
        control: running.control,
        queue,
        workers: Arc::new(taskwright_queue::pool::NoWorkers),
        queue_api: Arc::new(queue_api),
        auth,
        version: VersionInfo {
            version: "0.0.0-test".into(),
            ..VersionInfo::default()
        },
        metrics: Arc::new(|| "taskwright_up 1\n".to_owned()),
        namespace: Namespace::native(),
        left: Arc::new(crate::tessia::NothingLeft),
        limits: ApiLimits {
            body_bytes: 64 * 1024,
            body_time: Duration::from_millis(500),
            set_elements: 10,
            heartbeat: Duration::from_millis(50),
        },
        room: Room::new(1 << 20),
        shutdown: shutdown.clone(),
    };
    Api {
        router: crate::router(state),
        outputs,
        store_is_full,
        shutdown,
        _directory: Arc::new(directory),
    }
}

/// An answer, read whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) bytes: Bytes,
}

impl Answer {
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.bytes).unwrap()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }
}

impl Api {
    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let answering = async {
            let response = self.router.clone().oneshot(request).await.unwrap();
            let (head, body) = response.into_parts();
            Answer {
                status: head.status,
                headers: head.headers,
                bytes: body.collect().await.unwrap().to_bytes(),
            }
        };
        tokio::time::timeout(DEADLINE, answering).await.unwrap()
    }

    /// Reads a stream until `words` came, then tells the daemon to go down, and reads to the end.
    pub(crate) async fn stream_until(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        words: &str,
    ) -> String {
        let mut request = Request::get(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::empty()).unwrap();
        let reading = async {
            let response = self.router.clone().oneshot(request).await.unwrap();
            let mut body = response.into_body();
            let mut text = String::new();
            while let Some(frame) = body.frame().await {
                let data = frame.unwrap().into_data().unwrap();
                text.push_str(&String::from_utf8_lossy(&data));
                if text.contains(words) {
                    self.shutdown.cancel();
                }
            }
            text
        };
        tokio::time::timeout(DEADLINE, reading).await.unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.with_headers("GET", path, &[], "").await
    }

    pub(crate) async fn post(&self, path: &str, body: &str) -> Answer {
        self.with_headers("POST", path, &[], body).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.with_headers("DELETE", path, &[], "").await
    }

    pub(crate) async fn with_headers(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body.to_owned())).unwrap();
        self.send(request).await
    }

    /// Posts a task whose command the fake strategy obeys: `exit N`, `hang`, `trap`.
    pub(crate) async fn submit(&self, name: &str, command: &[&str]) -> Answer {
        let body = serde_json::json!({"name": name, "spec": {"process": {"command": command}}});
        self.post("/tasks", &body.to_string()).await
    }

    pub(crate) async fn ended(&self, name: &str) -> serde_json::Value {
        let answer = self.get(&format!("/tasks/{name}/wait?timeout=15s")).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    /// Asks until `holds` does.
    pub(crate) async fn until(&self, path: &str, holds: impl Fn(&Answer) -> bool) -> Answer {
        let asking = async {
            loop {
                let answer = self.get(path).await;
                if holds(&answer) {
                    return answer;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(DEADLINE, asking).await.unwrap()
    }
}

struct MemoryJournal {
    full: Arc<AtomicBool>,
}

impl Journal for MemoryJournal {
    async fn commit(&mut self, _batch: &Batch) -> Result<(), CommitError> {
        if self.full.load(Ordering::SeqCst) {
            return Err(CommitError {
                message: "no space left".into(),
                disk_full: true,
            });
        }
        Ok(())
    }
}

struct NoHistory;

impl FeedHistory for NoHistory {
    fn read(
        &self,
        _after: u64,
        _task: Option<TaskId>,
        _most: usize,
    ) -> BoxFuture<'_, Result<Vec<FeedEntry>, CommitError>> {
        async { Ok(Vec::new()) }.boxed()
    }
}

/// Takes processes and pods, and does at once what the command says.
struct Obedient;

fn wait() -> Step {
    Step::Wait {
        running: true,
        state: [].into(),
        wake_after: None,
    }
}

impl Strategies for Obedient {
    fn resolve(&self, spec: &TaskSpec) -> Result<RuntimeName, SpecProblem> {
        if spec
            .runtime
            .as_ref()
            .is_some_and(|name| name.as_str() == "broken")
        {
            panic!("a handler runs into a fault of ours");
        }
        if spec
            .runtime
            .as_ref()
            .is_some_and(|name| name.as_str() == "missing")
        {
            return Err(SpecProblem {
                field: "/spec/runtime".to_owned(),
                message: "there is no runtime missing".to_owned(),
            });
        }
        match spec.work.kind() {
            "process" => Ok(RuntimeName::parse("process").unwrap()),
            "podTemplateSpec" => Ok(RuntimeName::parse("pod").unwrap()),
            "echo" => Ok(RuntimeName::parse("echo").unwrap()),
            kind => Err(SpecProblem {
                field: format!("/spec/{kind}"),
                message: format!("no runtime takes {kind}"),
            }),
        }
    }

    fn validate(
        &self,
        _task: StrategyTask,
    ) -> BoxFuture<'_, Result<Vec<SpecProblem>, StrategyError>> {
        async { Ok(Vec::new()) }.boxed()
    }

    fn start(&self, task: StrategyTask) -> BoxFuture<'_, Result<Stepped, StrategyError>> {
        async move {
            let Work::Process(process) = &task.task.spec.work else {
                return Ok(wait().into());
            };
            let words: Vec<&str> = process.command.iter().map(String::as_str).collect();
            let step = match words.as_slice() {
                ["exit", code] => Step::Done(Outcome::Exited {
                    code: code.parse().unwrap(),
                    message: None,
                }),
                ["trap"] => {
                    return Err(StrategyError::Plugin {
                        runtime: "process".into(),
                        message: "it trapped".into(),
                    });
                }
                _ => wait(),
            };
            Ok(step.into())
        }
        .boxed()
    }

    fn on_event(
        &self,
        _task: StrategyTask,
        _state: Arc<[u8]>,
        event: StrategyEvent,
    ) -> BoxFuture<'_, Result<Stepped, StrategyError>> {
        async move {
            let step = match event {
                StrategyEvent::StopRequested { .. } => Step::Done(Outcome::Signaled { signal: 15 }),
                _ => wait(),
            };
            Ok(step.into())
        }
        .boxed()
    }
}

struct NoUnits;

impl Units for NoUnits {
    fn terminate(&self, _: TaskId, _: AttemptNumber) -> BoxFuture<'_, Result<(), String>> {
        async { Ok(()) }.boxed()
    }
    fn release(&self, _: TaskId, _: AttemptNumber) -> BoxFuture<'_, Result<(), String>> {
        async { Ok(()) }.boxed()
    }
    fn remove(&self, _: Arc<Task>) -> BoxFuture<'_, Result<(), String>> {
        async { Ok(()) }.boxed()
    }
    fn list(&self) -> BoxFuture<'_, Result<Vec<KnownUnit>, String>> {
        async { Ok(Vec::new()) }.boxed()
    }
    fn last_output(&self, _: Arc<Task>) -> BoxFuture<'_, Result<Option<Timestamp>, String>> {
        async { Ok(None) }.boxed()
    }
}

struct OnePlugin;

impl Plugins for OnePlugin {
    fn list(&self) -> BoxFuture<'_, Vec<PluginInfo>> {
        let plugin = PluginInfo {
            name: "process".into(),
            version: "0.1.0".into(),
            roles: vec![taskwright_control::port::Role::Runtime],
            policy: None,
            kinds: vec!["process".into()],
            source: "built-in".into(),
            digest: "00".repeat(32),
            exports: vec!["taskwright:plugin/runtime@0.1.0".into()],
            imports: Vec::new(),
            grants: vec!["process".into()],
            config_schema: Some(r#"{"type": "object"}"#.into()),
            health: Ok(()),
            refused: None,
            calls: 1,
            faults: 0,
        };
        async move { vec![plugin] }.boxed()
    }

    fn runtimes(&self) -> Vec<(String, Vec<String>)> {
        let of = |name: &str, kind: &str| (name.to_owned(), vec![kind.to_owned()]);
        vec![
            of("echo", "echo"),
            of("pod", "podTemplateSpec"),
            of("process", "process"),
        ]
    }
}

/// Milliseconds of tokio's clock, and ids that count.
struct Counting(AtomicU64);

impl Clock for Counting {
    fn now(&self) -> Timestamp {
        let now = std::time::SystemTime::now();
        let since = now.duration_since(std::time::UNIX_EPOCH).unwrap();
        Timestamp::from_millis(since.as_millis() as i64)
    }
    fn new_id(&self) -> TaskId {
        TaskId::from_u128(u128::from(self.0.fetch_add(1, Ordering::SeqCst)))
    }
}

/// What tests say that tasks printed; the first bytes of it may have been dropped.
#[derive(Default)]
pub(crate) struct FakeOutputs {
    printed: Mutex<HashMap<(String, Stream), Printed>>,
    grown: tokio::sync::Notify,
}

#[derive(Default)]
struct Printed {
    dropped: u64,
    bytes: Vec<u8>,
}

impl FakeOutputs {
    pub(crate) fn print(&self, name: &str, stream: Stream, bytes: &[u8]) {
        let mut printed = self.printed.lock();
        let of = printed.entry((name.to_owned(), stream)).or_default();
        of.bytes.extend_from_slice(bytes);
        drop(printed);
        self.grown.notify_waiters();
    }

    /// Drops the first `count` bytes of what is kept.
    pub(crate) fn forget(&self, name: &str, stream: Stream, count: usize) {
        let mut printed = self.printed.lock();
        let of = printed.get_mut(&(name.to_owned(), stream)).unwrap();
        of.bytes.drain(..count);
        of.dropped += count as u64;
    }
}

impl Outputs for FakeOutputs {
    fn read(
        &self,
        key: TaskKey,
        stream: Stream,
        offset: u64,
        most: usize,
    ) -> BoxFuture<'_, Result<OutputChunk, OutputError>> {
        let printed = self.printed.lock();
        let found = printed.get(&(key.name.to_string(), stream));
        let (dropped, bytes) = found.map_or((0, &[][..]), |of| (of.dropped, &of.bytes[..]));
        let end = dropped + bytes.len() as u64;
        let from = offset.clamp(dropped, end);
        let rest = bytes.get((from - dropped) as usize..).unwrap_or_default();
        let chunk = OutputChunk {
            offset: from,
            bytes: rest
                .get(..most.min(rest.len()))
                .unwrap_or_default()
                .to_vec(),
            end,
        };
        async move { Ok(chunk) }.boxed()
    }

    fn grown(
        &self,
        key: TaskKey,
        stream: Stream,
        end: u64,
        at_most: Duration,
    ) -> BoxFuture<'_, ()> {
        async move {
            let notified = self.grown.notified();
            let now = self.read(key, stream, u64::MAX, 0).await.unwrap().end;
            if now <= end {
                let _ = tokio::time::timeout(at_most, notified).await;
            }
        }
        .boxed()
    }
}

/// Prints the command's words, and ends with their number. In tasks of kind `process` alone.
struct Echo;

impl taskwright_control::port::Execs for Echo {
    fn exec(
        &self,
        request: taskwright_control::port::ExecRequest,
    ) -> BoxFuture<
        '_,
        Result<taskwright_control::port::ExecPieces, taskwright_control::port::ExecError>,
    > {
        use taskwright_control::port::{ExecError, ExecPiece, Stream};
        Box::pin(async move {
            if let Some(part) = request.part {
                return Err(ExecError::Refused(format!("there is no {part}")));
            }
            match request.argv.first().map(String::as_str) {
                Some("nope") => return Err(ExecError::NotFound("there is no nope".to_owned())),
                Some("slow") => {
                    let late = ExecError::Overdue("it took longer than \"1\" s".to_owned());
                    let pieces: taskwright_control::port::ExecPieces =
                        Box::pin(futures::stream::iter([Err(late)]));
                    return Ok(pieces);
                }
                _ => {}
            }
            let code = i32::try_from(request.argv.len()).unwrap_or(0);
            let pieces = [
                Ok(ExecPiece::Printed(
                    Stream::Stdout,
                    request.argv.join(" ").into_bytes(),
                )),
                Ok(ExecPiece::Printed(Stream::Stderr, vec![0xff])),
                Ok(ExecPiece::Ended(code)),
            ];
            let pieces: taskwright_control::port::ExecPieces =
                Box::pin(futures::stream::iter(pieces));
            Ok(pieces)
        })
    }
}
