//! Calls to the runtime over its socket: each with a deadline, each failure told apart.
//!
//! The connection is made when it is first needed and made again by itself, so the runtime may be
//! absent when we start, and may go and come back.

use std::error::Error as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::net::UnixStream;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::messages as m;

/// A command's output comes in one answer of 16 MiB at most; tonic takes 4 MiB if not told.
const MOST_ANSWER_BYTES: usize = 17 * 1024 * 1024;
/// For calls that only look.
const LOOK: Duration = Duration::from_secs(10);
/// For calls that make or remove something: a busy machine takes seconds for it.
const CHANGE: Duration = Duration::from_secs(60);
/// For calls that set up a network or start a program.
const START: Duration = Duration::from_secs(120);
/// Pauses before a call that only looks is tried again: a runtime that was restarted is found
/// by the second try.
const AGAIN_AFTER: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(400)];

/// Why a call gave no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RpcError {
    /// Nobody took the call, or the connection broke under it. It may have been carried out.
    Unreachable(String),
    /// No answer in time. It may have been carried out.
    Overdue(Duration),
    /// The runtime said no.
    Said { code: Code, words: String },
}

impl RpcError {
    /// Whether the runtime says that there is no such thing.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Said { code, .. } if *code == Code::NotFound)
    }

    /// Whether the name that was asked for is taken: a call like this one is or was carried out.
    /// The code differs between versions, the words do not.
    pub(crate) fn is_name_taken(&self) -> bool {
        matches!(self, Self::Said { words, .. } if words.contains("is reserved for"))
    }

    /// Whether an earlier start of the same container is still under way.
    pub(crate) fn is_being_started(&self) -> bool {
        matches!(self, Self::Said { words, .. } if words.contains("already in starting state"))
    }

    /// Whether a container is past its start already.
    pub(crate) fn is_started_before(&self) -> bool {
        matches!(self, Self::Said { words, .. } if words.contains("is in CONTAINER_"))
    }

    /// The fact, for people.
    pub(crate) fn words(&self) -> String {
        match self {
            Self::Unreachable(words) | Self::Said { words, .. } => words.clone(),
            Self::Overdue(after) => format!("no answer within {} s", after.as_secs_f32()),
        }
    }
}

/// A request of the protocol: where it goes, what answers it, and by when.
pub(crate) trait Call: Message + Clone + 'static {
    type Answer: Message + Default + 'static;
    const PATH: &'static str;
    const WITHIN: Duration;
}

macro_rules! calls {
    ($($service:literal { $($method:literal, $request:ty => $answer:ty, $within:expr;)* })*) => {$($(
        impl Call for $request {
            type Answer = $answer;
            const PATH: &'static str = concat!("/runtime.v1.", $service, "/", $method);
            const WITHIN: Duration = $within;
        }
    )*)*};
}

calls! {
    "RuntimeService" {
        "Version", m::VersionRequest => m::VersionResponse, LOOK;
        "Status", m::StatusRequest => m::StatusResponse, LOOK;
        "RunPodSandbox", m::RunPodSandboxRequest => m::RunPodSandboxResponse, START;
        "StopPodSandbox", m::StopPodSandboxRequest => m::Nothing, START;
        "RemovePodSandbox", m::RemovePodSandboxRequest => m::Nothing, CHANGE;
        "PodSandboxStatus", m::PodSandboxStatusRequest => m::PodSandboxStatusResponse, LOOK;
        "ListPodSandbox", m::ListPodSandboxRequest => m::ListPodSandboxResponse, LOOK;
        "CreateContainer", m::CreateContainerRequest => m::CreateContainerResponse, CHANGE;
        "StartContainer", m::StartContainerRequest => m::Nothing, START;
        "StopContainer", m::StopContainerRequest => m::Nothing, CHANGE;
        "RemoveContainer", m::RemoveContainerRequest => m::Nothing, CHANGE;
        "ListContainers", m::ListContainersRequest => m::ListContainersResponse, LOOK;
        "ContainerStatus", m::ContainerStatusRequest => m::ContainerStatusResponse, LOOK;
        "ReopenContainerLog", m::ReopenContainerLogRequest => m::Nothing, LOOK;
        "ExecSync", m::ExecSyncRequest => m::ExecSyncResponse, CHANGE;
        "Exec", m::ExecRequest => m::ExecResponse, LOOK;
        "ContainerStats", m::ContainerStatsRequest => m::ContainerStatsResponse, LOOK;
    }
    "ImageService" {
        "ImageStatus", m::ImageStatusRequest => m::ImageStatusResponse, LOOK;
        "PullImage", m::PullImageRequest => m::PullImageResponse, Duration::from_secs(30 * 60);
    }
}

/// A runtime, by its socket.
#[derive(Clone)]
pub(crate) struct Runtime {
    socket: PathBuf,
    channel: Channel,
}

impl Runtime {
    /// Connects when it is first called.
    pub(crate) fn new(socket: &Path) -> Self {
        let path = socket.to_owned();
        let connector = tower::service_fn(move |_| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        // The name is only what HTTP/2 wants to hear: the connector knows the way.
        let channel = Endpoint::from_static("http://localhost")
            .connect_timeout(Duration::from_secs(5))
            .connect_with_connector_lazy(connector);
        Self {
            socket: socket.to_owned(),
            channel,
        }
    }

    /// Calls once, with the usual deadline.
    pub(crate) async fn call<C: Call>(&self, request: C) -> Result<C::Answer, RpcError> {
        self.call_within(request, C::WITHIN).await
    }

    /// Calls once, with a deadline of the caller's choice.
    pub(crate) async fn call_within<C: Call>(
        &self,
        request: C,
        within: Duration,
    ) -> Result<C::Answer, RpcError> {
        let work = async {
            let mut grpc = self.ready().await?;
            let mut request = Request::new(request);
            request.set_timeout(within);
            let codec = ProstCodec::<C, C::Answer>::default();
            let path = PathAndQuery::from_static(C::PATH);
            grpc.unary(request, path, codec).await
        };
        match tokio::time::timeout(within, work).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(self.explain(&status, within)),
            Err(_) => Err(RpcError::Overdue(within)),
        }
    }

    /// Calls for something that may be asked again at no cost, and does so where nobody answered.
    pub(crate) async fn look<C: Call>(&self, request: C) -> Result<C::Answer, RpcError> {
        for pause in AGAIN_AFTER {
            match self.call(request.clone()).await {
                Err(RpcError::Unreachable(_)) => tokio::time::sleep(pause).await,
                other => return other,
            }
        }
        self.call(request).await
    }

    /// What containers do, from now on. Some runtimes answer this only with the first event, so
    /// it has no deadline: whoever calls must not wait for it.
    pub(crate) async fn events(&self) -> Result<Streaming<m::ContainerEvent>, RpcError> {
        let forever = Duration::MAX;
        let mut grpc = self
            .ready()
            .await
            .map_err(|status| self.explain(&status, forever))?;
        let codec = ProstCodec::<m::GetEventsRequest, m::ContainerEvent>::default();
        let path = PathAndQuery::from_static("/runtime.v1.RuntimeService/GetContainerEvents");
        grpc.server_streaming(Request::new(m::GetEventsRequest {}), path, codec)
            .await
            .map(tonic::Response::into_inner)
            .map_err(|status| self.explain(&status, forever))
    }

    async fn ready(&self) -> Result<Grpc<Channel>, Status> {
        let mut grpc = Grpc::new(self.channel.clone()).max_decoding_message_size(MOST_ANSWER_BYTES);
        grpc.ready().await.map_err(|error| {
            let mut status = Status::unavailable(error.to_string());
            status.set_source(std::sync::Arc::new(error));
            status
        })?;
        Ok(grpc)
    }

    /// What a failed call means. Only what was made up on this side has a source: the runtime's
    /// own words come without.
    pub(crate) fn explain(&self, status: &Status, within: Duration) -> RpcError {
        let source = status.source();
        let timed_out = has_timed_out(source);
        match status.code() {
            Code::DeadlineExceeded => RpcError::Overdue(within),
            _ if timed_out => RpcError::Overdue(within),
            Code::Unavailable => RpcError::Unreachable(self.unreachable(status)),
            Code::OutOfRange | Code::ResourceExhausted => said(status),
            _ if source.is_some() => RpcError::Unreachable(self.unreachable(status)),
            _ => said(status),
        }
    }

    fn unreachable(&self, status: &Status) -> String {
        let mut cause = status.message().to_owned();
        let mut next = status.source();
        while let Some(source) = next {
            let words = source.to_string();
            if !cause.contains(&words) {
                cause = format!("{cause}: {words}");
            }
            next = source.source();
        }
        format!(
            "{} does not answer ({cause}); start the container runtime, or name its socket in \
             the configuration",
            self.socket.display()
        )
    }
}

fn has_timed_out(mut source: Option<&(dyn std::error::Error + 'static)>) -> bool {
    while let Some(error) = source {
        if error.is::<tonic::TimeoutExpired>() {
            return true;
        }
        source = error.source();
    }
    false
}

fn said(status: &Status) -> RpcError {
    RpcError::Said {
        code: status.code(),
        words: status.message().to_owned(),
    }
}
