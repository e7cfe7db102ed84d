//! What is done for every request, once: a request id, access, panics, the form
//! of errors, metrics, one line of tracing.
//!
//! One function instead of a stack of layers: a read is answered in microseconds,
//! and every layer would cost some of them.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use axum::body::{Body, HttpBody as _};
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{ALLOW, CONTENT_TYPE, HOST, ORIGIN};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use tracing::Instrument;

use crate::aiopslab::cors::{self, Asking};
use crate::auth::{Caller, Peer, Scope};
use crate::native;
use crate::problem::{Form, Problem};
use crate::room::{InRoom, Taken};
use crate::server::MOST_HEADER_BYTES;
use crate::state::ApiState;
use crate::{aiopslab, tessia};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// The longest request id taken from a client, in bytes.
const MOST_REQUEST_ID_BYTES: usize = 128;

/// Everything a request passes on its way in and out.
pub(crate) async fn edge(
    State(state): State<Arc<ApiState>>,
    mut request: Request,
    next: Next,
) -> Response {
    let begun = Instant::now();
    let method = request.method().clone();
    let matched = request.extensions().get::<MatchedPath>();
    let route = Route::of(
        matched.map(MatchedPath::as_str),
        request.uri().path(),
        &method,
    );
    let request_id = request_id(request.headers());
    let span = tracing::debug_span!(
        "request",
        %method,
        route = route.label,
        request_id = request_id.to_str().unwrap_or_default(),
        traceparent = text_of(request.headers(), &TRACEPARENT),
        caller = tracing::field::Empty,
    );

    // Which pages of other origins are let in is said for the queue's dialect alone.
    let cors = route.queue.then_some(&state.queue_api.cors);
    let asking = Asking {
        peer: peer_of(&request),
        tokens: state.auth.asks(),
    };
    let entry = cors.and_then(|cors| cors.entry(request.headers(), &method, asking));
    let asked = cors.and_then(|cors| cors.preflight(request.headers(), &method, asking));
    let is_off = route.is_off(&state);
    let admitted = match asked {
        Some(answer) => Err(answer.unwrap_or_else(|()| foreign_page().into_response())),
        None if is_off => Err(Problem::new(StatusCode::NOT_FOUND, "Not Found").into_response()),
        None => {
            admit(&state, &request, route, entry.is_some()).map_err(IntoResponse::into_response)
        }
    };
    let mut response = match admitted {
        Ok(caller) => {
            span.record("caller", caller.name.as_ref());
            request.extensions_mut().insert(caller);
            let answer = AssertUnwindSafe(next.run(request)).catch_unwind();
            answer.instrument(span.clone()).await.unwrap_or_else(|_| {
                tracing::error!(parent: &span, "a handler panicked");
                Problem::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "this is a fault of the daemon: a handler panicked",
                )
                .hint("please report it with the daemon's log around this request id")
                .into_response()
            })
        }
        Err(response) => response,
    };

    response = match held(&state, response, method.is_safe()).await {
        Ok(response) => response,
        Err(problem) => problem.into_response(),
    };
    if let Some(problem) = problem_in(&mut response).await {
        let form = if is_off { Form::Typed } else { route.form };
        let mut rendered = problem.render(form, request_id.to_str().unwrap_or_default());
        if let Some(allow) = response.headers_mut().remove(ALLOW) {
            rendered.headers_mut().insert(ALLOW, allow);
        }
        response = rendered;
    }
    match &entry {
        Some(entry) => entry.tell(response.headers_mut()),
        None if cors.is_some() => cors::vary(response.headers_mut()),
        None => {}
    }
    response.headers_mut().insert(REQUEST_ID, request_id);
    let status = response.status();
    tracing::debug!(parent: &span, status = status.as_u16(), elapsed = ?begun.elapsed(), "answered");
    measure(&method, route.label, status, begun);
    response
}

/// The answer, with room taken for what of it is in memory until its reader has it. Where there is
/// none, a read is refused; of what was done already nobody is told that it was not.
async fn held(state: &ApiState, response: Response, reads: bool) -> Result<Response, Problem> {
    let exact = response.body().size_hint().exact();
    let Some(bytes) = exact.and_then(|bytes| usize::try_from(bytes).ok()) else {
        return Ok(response);
    };
    if response.extensions().get::<InRoom>().is_some() {
        return Ok(response);
    }
    let mut taken = Taken::default();
    match state.room.take(&mut taken, bytes) {
        Err(problem) if reads => return Err(problem),
        Err(_) => return Ok(response),
        Ok(()) => {}
    }
    if taken.is_nothing() {
        return Ok(response);
    }
    let (head, body) = response.into_parts();
    // It is in memory as a whole already.
    let bytes = axum::body::to_bytes(body, usize::MAX).await;
    let bytes = bytes.map_err(|error| Problem::unavailable(error.to_string()))?;
    Ok(Response::from_parts(head, Body::from(taken.keep(bytes))))
}

/// The problem that a response carries. An extractor that refuses a path or a query answers
/// with a sentence of its own: that becomes the message.
async fn problem_in(response: &mut Response) -> Option<Problem> {
    /// Longer sentences than this are none.
    const MOST_SENTENCE_BYTES: usize = 4096;
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        return Some(problem);
    }
    let status = response.status();
    let is_text = text_of(response.headers(), &CONTENT_TYPE)
        .is_some_and(|media_type| media_type.starts_with("text/plain"));
    if !status.is_client_error() || !is_text {
        return None;
    }
    let body = std::mem::take(response.body_mut());
    let sentence = axum::body::to_bytes(body, MOST_SENTENCE_BYTES).await;
    let sentence = sentence.unwrap_or_default();
    Some(Problem::new(status, String::from_utf8_lossy(&sentence)))
}

/// Nothing is served at that path.
pub(crate) async fn no_such_route(uri: Uri) -> Response {
    if aiopslab::has_path(uri.path()) {
        return Problem::new(StatusCode::NOT_FOUND, "Not Found").into_response();
    }
    if tessia::has_path(uri.path()) {
        return tessia::no_such_route(&uri);
    }
    let shown: String = uri.path().chars().take(200).collect();
    Problem::new(
        StatusCode::NOT_FOUND,
        format!("nothing is served at {shown:?}"),
    )
    .hint("see /docs for what is")
    .into_response()
}

/// Something is served at that path, but not with that method; axum adds `Allow`.
pub(crate) async fn no_such_method(method: Method, uri: Uri) -> Problem {
    if tessia::has_path(uri.path()) || aiopslab::has_path(uri.path()) {
        return Problem::new(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
    }
    let shown: String = uri.path().chars().take(200).collect();
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("{method} is not served at {shown:?}"),
    )
    .hint("the Allow header names the methods that are")
}

fn peer_of(request: &Request) -> Peer {
    let peer = request.extensions().get::<Peer>();
    peer.copied().unwrap_or(Peer::Network)
}

/// Who asks, if they may. A page that was `let_in` may do what its reader may.
fn admit(
    state: &ApiState,
    request: &Request,
    route: Route,
    let_in: bool,
) -> Result<Caller, Problem> {
    refuse_long_headers(request.headers())?;
    let peer = peer_of(request);
    if route.open {
        return Ok(Caller::unauthenticated(peer));
    }
    let caller = state.auth.identify(request.headers(), peer)?;
    let anybody = !state.auth.asks();
    if anybody && peer == Peer::Loopback {
        refuse_public_names(request.headers())?;
    }
    let reads = request.method().is_safe();
    caller.require(if reads { Scope::Read } else { Scope::Submit })?;
    // What a WebSocket brings no browser keeps from a page, as it does with an answer.
    if !let_in && (!reads || route.label == aiopslab::SOCKET) {
        refuse_foreign_pages(request.headers())?;
        if anybody {
            refuse_named_pages(request.headers())?;
        }
    }
    Ok(caller)
}

/// The server's buffer bounds a head only roughly: what fits into its last read is taken.
fn refuse_long_headers(headers: &HeaderMap) -> Result<(), Problem> {
    let sizes = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len());
    let bytes: usize = sizes.sum();
    if bytes <= MOST_HEADER_BYTES {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        format!("the headers have {bytes} bytes, {MOST_HEADER_BYTES} are allowed"),
    ))
}

/// A web page of another site must not submit tasks through its reader's browser. The contract
/// does not look at Content-Type, so the browser would not ask us first; but it says where
/// the page is from. Programs send no `Origin`.
fn refuse_foreign_pages(headers: &HeaderMap) -> Result<(), Problem> {
    let Some(origin) = headers.get(ORIGIN) else {
        return Ok(());
    };
    let origin = origin.to_str().unwrap_or_default();
    let host = text_of(headers, &HOST).unwrap_or_default();
    let same = origin
        .split_once("://")
        .is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(host));
    if same {
        return Ok(());
    }
    Err(foreign_page())
}

/// Where anybody may change things, a page from a name may not, even if it is the name we were
/// asked under: whoever owns a name can let it point here. Addresses and `localhost` cannot lie.
fn refuse_named_pages(headers: &HeaderMap) -> Result<(), Problem> {
    let host = text_of(headers, &HOST).unwrap_or_default();
    if headers.contains_key(ORIGIN) && is_name(without_port(host)) {
        return Err(foreign_page());
    }
    Ok(())
}

fn foreign_page() -> Problem {
    Problem::new(
        StatusCode::FORBIDDEN,
        "a page of another origin may not change anything here",
    )
}

/// A page whose name its owner lets point to this machine's loopback could read everything: its
/// browser takes us for the page's own server, and sends no `Origin` with a `GET`.
fn refuse_public_names(headers: &HeaderMap) -> Result<(), Problem> {
    let name = without_port(text_of(headers, &HOST).unwrap_or_default());
    // Names without a dot are of this machine or its network: nobody outside can own one.
    let public = is_name(name) && name.contains('.') && !name.ends_with(".localhost");
    if !public {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::FORBIDDEN,
        format!("nobody is asked for a token here, so {name:?} may not stand for this machine"),
    )
    .hint("use 127.0.0.1 or localhost, or set tokens"))
}

/// A `Host` without its port.
fn without_port(host: &str) -> &str {
    host.rsplit_once(':')
        .filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()))
        .map_or(host, |(name, _)| name)
}

/// Whether this is a name that somebody could own, and no address.
fn is_name(host: &str) -> bool {
    let address = host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .parse::<std::net::IpAddr>();
    address.is_err() && !host.eq_ignore_ascii_case("localhost")
}

fn text_of<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// The client's id for the request if it is a sane one, else one of ours.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    if let Some(given) = headers.get(&REQUEST_ID) {
        let bytes = given.as_bytes();
        let sane = !bytes.is_empty()
            && bytes.len() <= MOST_REQUEST_ID_BYTES
            && bytes.iter().all(u8::is_ascii_graphic);
        if sane {
            return given.clone();
        }
    }
    fresh_request_id()
}

/// Unique without a system call per request: a random word of this process, and a counter.
fn fresh_request_id() -> HeaderValue {
    static PROCESS: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let process = PROCESS.get_or_init(|| uuid::Uuid::now_v7().as_u128() as u32);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    HeaderValue::try_from(format!("{process:08x}-{number:x}"))
        .unwrap_or_else(|_| HeaderValue::from_static("unknown"))
}

fn measure(method: &Method, route: &'static str, status: StatusCode, begun: Instant) {
    let method = method_label(method);
    metrics::counter!(
        "taskwright_http_requests_total",
        "method" => method, "route" => route, "code" => status.as_str().to_owned()
    )
    .increment(1);
    metrics::histogram!(
        "taskwright_http_request_seconds",
        "method" => method, "route" => route
    )
    .record(begun.elapsed().as_secs_f64());
}

/// A client chooses its methods, and must not choose our labels.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

/// Where dialects are served a second time.
const PREFIXES: [&str; 3] = [native::PREFIX, tessia::PREFIX, aiopslab::PREFIX];

/// What the edge must know about where a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Route {
    /// Its path, for metrics and tracing.
    label: &'static str,
    /// Whether it is answered without asking who asks.
    open: bool,
    /// Whether it is of the queue's dialect.
    queue: bool,
    form: Form,
}

/// Served by contract: errors there have the contract's form.
const CONTRACT: [&str; 4] = ["/tasks/{name}", "/setTasks", "/getTasks", "/health"];
/// Answered to everybody: probes have no token, and the documents hold nothing secret.
const OPEN: [&str; 8] = [
    "/ready",
    "/redoc",
    "/livez",
    "/readyz",
    "/health",
    "/openapi.json",
    "/docs",
    "/",
];
/// Those of the Tessia dialect.
const TESSIA: [&str; 6] = [
    "/v1/",
    "/v1/schema",
    "/v1/tasks",
    "/v1/tasks/{task_id}",
    "/v1/tasks/{task_id}/stop",
    "/v1/tasks/{task_id}/output",
];
/// Those of AIOpsLab's dialect.
const AIOPSLAB: [&str; 29] = [
    "/api/v1/export",
    "/api/v1/tasks/{task_id}/steps",
    "/api/v1/tasks/{task_id}/events",
    aiopslab::SOCKET,
    "/api/v1/tasks",
    "/api/v1/tasks/stats",
    "/api/v1/tasks/{task_id}",
    "/api/v1/tasks/{task_id}/cancel",
    "/api/v1/tasks/{task_id}/logs",
    "/api/v1/workers",
    "/api/v1/workers/register",
    "/api/v1/workers/internal/status",
    "/api/v1/workers/internal/scale",
    "/api/v1/workers/internal/start",
    "/api/v1/workers/internal/stop",
    "/api/v1/workers/{worker_id}",
    "/api/v1/workers/{worker_id}/heartbeat",
    "/api/v1/workers/{worker_id}/claim",
    "/api/v1/workers/{worker_id}/stats",
    "/api/v1/workers/{worker_id}/tasks/{task_id}/complete",
    "/api/v1/workers/{worker_id}/tasks/{task_id}/fail",
    "/api/v1/llm-conversations",
    "/api/v1/llm-conversations/stats/summary",
    "/api/v1/llm-conversations/task/{task_id}/conversations",
    "/api/v1/llm-conversations/{conversation_id}",
    "/api/v1/llm-conversations/{conversation_id}/messages",
    "/queue/stats",
    "/ready",
    "/redoc",
];
/// The other routes of ours.
const OWN: [&str; 14] = [
    "/tasks",
    "/tasks/{name}/logs",
    "/tasks/{name}/wait",
    "/tasks/{name}/exec",
    "/tasks/{name}/stop",
    "/tasks/{name}/approve",
    "/tasks/{name}/deny",
    "/tasks/{name}/events",
    "/events",
    "/plugins",
    "/plugins/{name}",
    "/metrics",
    "/version",
    "unmatched",
];

impl Route {
    fn of(matched: Option<&str>, asked: &str, method: &Method) -> Self {
        let path = matched.unwrap_or("unmatched");
        let below = PREFIXES.iter().find_map(|one| path.strip_prefix(one));
        let path = match below {
            Some("") => "/",
            Some(below) => below,
            None => path,
        };
        let known = |list: &[&'static str]| list.iter().copied().find(|one| *one == path);
        let open = known(&OPEN);
        let contract = known(&CONTRACT);
        let tessia = known(&TESSIA);
        let aiopslab = known(&AIOPSLAB);
        let label = contract.or(open).or(tessia).or(aiopslab);
        let label = label.or_else(|| known(&OWN));
        let of_contract = contract.is_some()
            // Creating is the contract's; listing is ours.
            || (path == "/tasks" && !method.is_safe())
            // The reference answers text here; programs that know it read JSON anyway.
            || matched.is_none();
        let queue = aiopslab.is_some() || aiopslab::has_path(asked);
        Self {
            label: label.unwrap_or("other"),
            open: open.is_some(),
            queue,
            form: if queue {
                Form::Typed
            } else if tessia.is_some() || path == "/" || tessia::has_path(asked) {
                Form::Detail
            } else if of_contract {
                Form::Contract
            } else {
                Form::ProblemDocument
            },
        }
    }

    /// Whether the operator wants it not to be there (`ENABLE_DOCS`, `ENABLE_METRICS`).
    fn is_off(self, state: &ApiState) -> bool {
        match self.label {
            "/docs" | "/redoc" => !state.queue_api.docs,
            "/metrics" => !state.queue_api.metrics,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_documented_route_is_known_to_the_edge() {
        for path in crate::openapi::document().paths.paths.keys() {
            let route = Route::of(Some(path), path, &Method::GET);
            assert_eq!(route.label, path, "add it to a list in edge.rs");
        }
    }

    #[test]
    fn prefixed_routes_are_the_same_routes() {
        let get = Method::GET;
        assert_eq!(
            Route::of(
                Some("/opensandbox/tasks/{name}"),
                "/opensandbox/tasks/a",
                &get
            ),
            Route::of(Some("/tasks/{name}"), "/tasks/a", &get)
        );
    }

    #[test]
    fn creating_is_contract_and_listing_is_ours() {
        assert_eq!(
            Route::of(Some("/tasks"), "/tasks", &Method::POST).form,
            Form::Contract
        );
        assert_eq!(
            Route::of(Some("/tasks"), "/tasks", &Method::GET).form,
            Form::ProblemDocument
        );
    }

    #[test]
    fn ids_of_clients_are_kept_when_sane() {
        let with = |value: &str| {
            let mut headers = HeaderMap::new();
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(REQUEST_ID, value);
            }
            request_id(&headers)
        };
        assert_eq!(with("abc-1"), "abc-1");
        assert_ne!(with("a b"), "a b");
        assert_ne!(with(&"x".repeat(129)), "x".repeat(129).as_str());
        assert_ne!(with(""), with(""));
    }
}
