//! The least client of a container runtime: the calls that one container takes, back to back.
//!
//! What the daemon is measured against. It asks for the same sandbox and the same container as
//! the daemon does, remembers nothing, recovers from nothing and keeps no output. An end is found
//! by looking: containerd gives an event to one listener alone, so whoever listens beside the
//! daemon takes its events away.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::net::UnixStream;
use tonic::Request;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

/// Between two looks at what is waited for.
const LOOK: Duration = Duration::from_millis(2);
/// How long one call, and a container's end, may take.
const LONGEST: Duration = Duration::from_secs(60);

/// What a container is not shown, and what it may not write: as the daemon has it, since each
/// path is a mount that the runtime makes.
const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/firmware",
];
const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// Which network a container is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Network {
    /// One of its own, which network plugins set up.
    Pod,
    /// The machine's.
    Host,
}

impl Network {
    /// As a task says it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Pod => "pod",
            Self::Host => "host",
        }
    }

    /// `NamespaceMode` of the protocol.
    fn mode(self) -> i32 {
        match self {
            Self::Pod => 0,
            Self::Host => 2,
        }
    }
}

/// How long it was from the first call until...
#[derive(Clone, Copy, Debug)]
pub(super) struct Launch {
    /// ...the container's end was known.
    pub(super) ended: Duration,
    /// ...nothing of it was left.
    pub(super) gone: Duration,
}

/// A container to be run and removed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan<'a> {
    pub(super) name: &'a str,
    pub(super) image: &'a str,
    pub(super) command: &'a [&'a str],
    pub(super) network: Network,
    /// The cgroup above it.
    pub(super) cgroup: &'a str,
    /// Where its output goes.
    pub(super) logs: &'a Path,
}

/// A connection to a container runtime.
#[derive(Debug)]
pub(super) struct Client {
    driver: tokio::runtime::Runtime,
    channel: Channel,
}

impl Client {
    pub(super) fn connect(socket: &Path) -> anyhow::Result<Self> {
        let driver = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let path = socket.to_owned();
        let connector = tower::service_fn(move |_| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        // The name is only what HTTP/2 wants to hear: the connector knows the way.
        let endpoint = Endpoint::from_static("http://localhost").timeout(LONGEST);
        let channel = driver
            .block_on(endpoint.connect_with_connector(connector))
            .with_context(|| format!("connect to {}", socket.display()))?;
        Ok(Self { driver, channel })
    }

    /// Runs a container to its end and removes it with its sandbox.
    pub(super) fn launch(&self, plan: Plan<'_>) -> anyhow::Result<Launch> {
        self.driver.block_on(self.launch_now(plan))
    }

    /// How many sandboxes and containers there are, of whomever.
    pub(super) fn count(&self) -> anyhow::Result<usize> {
        self.driver
            .block_on(async { Ok(self.sandboxes().await? + self.list("ListContainers").await?) })
    }

    /// Waits until there is no sandbox. They are removed last, so then there is nothing at all.
    pub(super) fn wait_until_empty(&self, longest: Duration) -> anyhow::Result<()> {
        let begun = Instant::now();
        self.driver.block_on(async {
            while self.sandboxes().await? > 0 {
                ensure!(
                    begun.elapsed() < longest,
                    "sandboxes are still there after {longest:?}"
                );
                tokio::time::sleep(LOOK).await;
            }
            Ok(())
        })
    }

    async fn launch_now(&self, plan: Plan<'_>) -> anyhow::Result<Launch> {
        let config = sandbox(plan);
        let begun = Instant::now();
        let image = ImageStatusRequest {
            image: Some(Text::of(plan.image)),
        };
        let found: ImageStatusResponse = self.call("ImageService/ImageStatus", image).await?;
        ensure!(found.image.is_some(), "there is no image {}", plan.image);
        let run = RunPodSandboxRequest {
            config: Some(config.clone()),
        };
        let sandbox: Text = self.call("RuntimeService/RunPodSandbox", run).await?;
        let create = CreateContainerRequest {
            pod_sandbox_id: sandbox.text.clone(),
            config: Some(container(plan)),
            sandbox_config: Some(config),
        };
        let container: Text = self.call("RuntimeService/CreateContainer", create).await?;
        let start = container.clone();
        let _: Nothing = self.call("RuntimeService/StartContainer", start).await?;
        self.wait_for_end(&container, begun).await?;
        let ended = begun.elapsed();
        let stop = sandbox.clone();
        let _: Nothing = self.call("RuntimeService/StopPodSandbox", stop).await?;
        let _: Nothing = self
            .call("RuntimeService/RemovePodSandbox", sandbox)
            .await?;
        let gone = begun.elapsed();
        Ok(Launch { ended, gone })
    }

    async fn wait_for_end(&self, container: &Text, begun: Instant) -> anyhow::Result<()> {
        loop {
            let look = container.clone();
            let answer: ContainerStatusResponse =
                self.call("RuntimeService/ContainerStatus", look).await?;
            let status = answer.status.context("a container has no status")?;
            if status.state == EXITED {
                ensure!(
                    status.exit_code == 0,
                    "a container ended with {}",
                    status.exit_code
                );
                return Ok(());
            }
            ensure!(begun.elapsed() < LONGEST, "a container does not end");
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn sandboxes(&self) -> anyhow::Result<usize> {
        self.list("ListPodSandbox").await
    }

    async fn list(&self, method: &str) -> anyhow::Result<usize> {
        let method = format!("RuntimeService/{method}");
        let all: Texts = self.call(&method, Nothing {}).await?;
        Ok(all.texts.len())
    }

    async fn call<Q, A>(&self, method: &str, request: Q) -> anyhow::Result<A>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let path = PathAndQuery::try_from(format!("/runtime.v1.{method}"))?;
        let mut grpc = Grpc::new(self.channel.clone());
        grpc.ready().await?;
        let codec = ProstCodec::<Q, A>::default();
        let answer = grpc.unary(Request::new(request), path, codec).await;
        Ok(answer.with_context(|| method.to_owned())?.into_inner())
    }
}

fn sandbox(plan: Plan<'_>) -> PodSandboxConfig {
    PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: plan.name.to_owned(),
            uid: plan.name.to_owned(),
            namespace: "bench".to_owned(),
        }),
        hostname: match plan.network {
            Network::Pod => plan.name.to_owned(),
            Network::Host => String::new(),
        },
        log_directory: plan.logs.display().to_string(),
        linux: Some(LinuxPodSandboxConfig {
            cgroup_parent: plan.cgroup.to_owned(),
            security_context: Some(LinuxSandboxSecurityContext {
                namespace_options: Some(namespaces(plan.network)),
                seccomp: Some(SecurityProfile {}),
            }),
        }),
    }
}

fn container(plan: Plan<'_>) -> ContainerConfig {
    let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    ContainerConfig {
        metadata: Some(Text::of("main")),
        image: Some(Text::of(plan.image)),
        command: owned(plan.command),
        log_path: "main.log".to_owned(),
        linux: Some(LinuxContainerConfig {
            security_context: Some(LinuxContainerSecurityContext {
                namespace_options: Some(namespaces(plan.network)),
                masked_paths: owned(&MASKED),
                readonly_paths: owned(&READ_ONLY),
                seccomp: Some(SecurityProfile {}),
            }),
        }),
    }
}

/// A process namespace for each container, one for the messages of a pod.
fn namespaces(network: Network) -> NamespaceOption {
    NamespaceOption {
        network: network.mode(),
        pid: 1,
    }
}

// The messages of `runtime.v1`, with the fields that are used: what is absent is the default.

/// `ContainerState` of the protocol.
const EXITED: i32 = 2;

#[derive(Clone, PartialEq, Message)]
struct Nothing {}

/// Any of the many messages that are a text: an image's name, a container's name, or an id.
#[derive(Clone, PartialEq, Message)]
struct Text {
    #[prost(string, tag = "1")]
    text: String,
}

impl Text {
    fn of(text: &str) -> Self {
        Self {
            text: text.to_owned(),
        }
    }
}

/// A list of sandboxes or containers, of which nothing but the id is read.
#[derive(Clone, PartialEq, Message)]
struct Texts {
    #[prost(message, repeated, tag = "1")]
    texts: Vec<Text>,
}

#[derive(Clone, PartialEq, Message)]
struct ImageStatusRequest {
    #[prost(message, optional, tag = "1")]
    image: Option<Text>,
}

#[derive(Clone, PartialEq, Message)]
struct ImageStatusResponse {
    #[prost(message, optional, tag = "1")]
    image: Option<Text>,
}

#[derive(Clone, PartialEq, Message)]
struct NamespaceOption {
    #[prost(int32, tag = "1")]
    network: i32,
    #[prost(int32, tag = "2")]
    pid: i32,
}

/// The runtime's own system call filter, which is the default of the one field.
#[derive(Clone, PartialEq, Message)]
struct SecurityProfile {}

#[derive(Clone, PartialEq, Message)]
struct LinuxSandboxSecurityContext {
    #[prost(message, optional, tag = "1")]
    namespace_options: Option<NamespaceOption>,
    #[prost(message, optional, tag = "9")]
    seccomp: Option<SecurityProfile>,
}

#[derive(Clone, PartialEq, Message)]
struct LinuxPodSandboxConfig {
    #[prost(string, tag = "1")]
    cgroup_parent: String,
    #[prost(message, optional, tag = "2")]
    security_context: Option<LinuxSandboxSecurityContext>,
}

#[derive(Clone, PartialEq, Message)]
struct PodSandboxMetadata {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    uid: String,
    #[prost(string, tag = "3")]
    namespace: String,
}

#[derive(Clone, PartialEq, Message)]
struct PodSandboxConfig {
    #[prost(message, optional, tag = "1")]
    metadata: Option<PodSandboxMetadata>,
    #[prost(string, tag = "2")]
    hostname: String,
    #[prost(string, tag = "3")]
    log_directory: String,
    #[prost(message, optional, tag = "8")]
    linux: Option<LinuxPodSandboxConfig>,
}

#[derive(Clone, PartialEq, Message)]
struct RunPodSandboxRequest {
    #[prost(message, optional, tag = "1")]
    config: Option<PodSandboxConfig>,
}

#[derive(Clone, PartialEq, Message)]
struct LinuxContainerSecurityContext {
    #[prost(message, optional, tag = "3")]
    namespace_options: Option<NamespaceOption>,
    #[prost(string, repeated, tag = "13")]
    masked_paths: Vec<String>,
    #[prost(string, repeated, tag = "14")]
    readonly_paths: Vec<String>,
    #[prost(message, optional, tag = "15")]
    seccomp: Option<SecurityProfile>,
}

#[derive(Clone, PartialEq, Message)]
struct LinuxContainerConfig {
    #[prost(message, optional, tag = "2")]
    security_context: Option<LinuxContainerSecurityContext>,
}

#[derive(Clone, PartialEq, Message)]
struct ContainerConfig {
    #[prost(message, optional, tag = "1")]
    metadata: Option<Text>,
    #[prost(message, optional, tag = "2")]
    image: Option<Text>,
    #[prost(string, repeated, tag = "3")]
    command: Vec<String>,
    #[prost(string, tag = "11")]
    log_path: String,
    #[prost(message, optional, tag = "15")]
    linux: Option<LinuxContainerConfig>,
}

#[derive(Clone, PartialEq, Message)]
struct CreateContainerRequest {
    #[prost(string, tag = "1")]
    pod_sandbox_id: String,
    #[prost(message, optional, tag = "2")]
    config: Option<ContainerConfig>,
    #[prost(message, optional, tag = "3")]
    sandbox_config: Option<PodSandboxConfig>,
}

#[derive(Clone, PartialEq, Message)]
struct ContainerStatusResponse {
    #[prost(message, optional, tag = "1")]
    status: Option<ContainerStatus>,
}

#[derive(Clone, PartialEq, Message)]
struct ContainerStatus {
    #[prost(int32, tag = "3")]
    state: i32,
    #[prost(int32, tag = "7")]
    exit_code: i32,
}
