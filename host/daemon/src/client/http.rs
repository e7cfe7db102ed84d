//! One request and its answer, within bounds.

use std::time::Duration;

use anyhow::{Context as _, anyhow};
use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;

use super::Server;
use super::connect::Connection;
use crate::failure::Advise as _;

/// How long a daemon may take to begin its answer, beyond what the request itself asks for.
const ANSWER_TIME: Duration = Duration::from_secs(60);
/// The largest answer that is read whole.
const MOST_ANSWER_BYTES: usize = 256 << 20;

/// A daemon, and who we are to it.
#[derive(Clone)]
pub(crate) struct Client {
    server: Server,
    token: Option<HeaderValue>,
}

/// One request.
pub(crate) struct Ask<'a> {
    /// The method.
    pub(crate) method: Method,
    /// Path and query, percent-encoded, from the API's root.
    pub(crate) path: String,
    /// The body, as JSON.
    pub(crate) body: Option<&'a Value>,
    /// Further headers.
    pub(crate) headers: Vec<(http::HeaderName, String)>,
    /// How long the daemon is asked to take before it answers.
    pub(crate) patience: Duration,
}

impl<'a> Ask<'a> {
    /// Asks for what is at `path`.
    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self {
            method: Method::GET,
            path: path.into(),
            body: None,
            headers: Vec::new(),
            patience: Duration::ZERO,
        }
    }

    /// Sends `body` to `path`.
    pub(crate) fn post(path: impl Into<String>, body: Option<&'a Value>) -> Self {
        Self {
            method: Method::POST,
            body,
            ..Self::get(path)
        }
    }

    /// Adds a header.
    pub(crate) fn header(mut self, name: http::HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// What the daemon refused, in its words.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Refused {
    /// The status.
    pub(crate) status: StatusCode,
    /// Why, in a word for programs, where it is said.
    pub(crate) cause: Option<String>,
    message: String,
}

/// An answer whose body is still coming.
pub(crate) struct Answer {
    /// The answer.
    pub(crate) response: Response<Incoming>,
    /// Ends the connection when the answer is no longer wanted.
    _connection: OwnedConnection,
}

struct OwnedConnection(JoinHandle<()>);

impl Drop for OwnedConnection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Client {
    /// A client of the daemon at `server`.
    ///
    /// # Errors
    /// When the token cannot stand in a header.
    pub(crate) fn new(server: Server, token: Option<&str>) -> anyhow::Result<Self> {
        let token = token
            .map(|token| {
                let mut value = HeaderValue::from_str(&format!("Bearer {token}"))?;
                value.set_sensitive(true);
                Ok::<_, http::header::InvalidHeaderValue>(value)
            })
            .transpose()
            .map_err(|_| anyhow!("the token holds characters that no header takes"))?;
        Ok(Self { server, token })
    }

    /// Where the daemon is.
    pub(crate) fn server(&self) -> &Server {
        &self.server
    }

    /// Asks, and reads the answer whole. An empty answer is [`Value::Null`].
    ///
    /// # Errors
    /// What went wrong on the way, or [`Refused`].
    pub(crate) async fn call(&self, ask: Ask<'_>) -> anyhow::Result<Value> {
        let body = self.bytes(ask).await?;
        if body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&body).with_context(|| {
            format!(
                "read the answer of {}: it is not JSON, so it may not be a Taskwright daemon",
                self.server
            )
        })
    }

    /// Asks, and reads the answer's bytes.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub(crate) async fn bytes(&self, ask: Ask<'_>) -> anyhow::Result<Bytes> {
        let within = ask.patience + ANSWER_TIME;
        let answer = self.open(ask).await?;
        let body = read_whole(answer.response.into_body());
        tokio::time::timeout(within, body)
            .await
            .map_err(|_| anyhow!("it did not come in time"))
            .and_then(|body| body)
            .with_context(|| format!("read the answer of {}", self.server))
    }

    /// Asks, and hands over the answer as soon as it begins.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub(crate) async fn open(&self, ask: Ask<'_>) -> anyhow::Result<Answer> {
        let within = ask.patience + ANSWER_TIME;
        let request = self.request(ask)?;
        let connection = self.server.connect().await.hint(
            "start a daemon with `taskwright serve`, name another with --server, or run the \
             task without one: `taskwright run --local`",
        )?;
        let answer = match connection {
            Connection::Tcp(stream) => {
                tokio::time::timeout(within, exchange(stream, request)).await
            }
            Connection::Unix(stream) => {
                tokio::time::timeout(within, exchange(stream, request)).await
            }
        };
        let answer = answer
            .map_err(|_| anyhow!("no answer within {} s", within.as_secs()))
            .and_then(|answer| answer)
            .with_context(|| format!("ask the daemon at {}", self.server))?;
        if answer.response.status().is_success() {
            return Ok(answer);
        }
        Err(refusal(answer).await)
    }

    fn request(&self, ask: Ask<'_>) -> anyhow::Result<Request<Full<Bytes>>> {
        let body = match ask.body {
            Some(value) => Bytes::from(serde_json::to_vec(value)?),
            None => Bytes::new(),
        };
        let mut request = Request::builder()
            .method(ask.method)
            .uri(format!("{}{}", self.server.base(), ask.path))
            .header(header::HOST, self.server.host())
            .header(
                header::USER_AGENT,
                concat!("taskwright/", env!("CARGO_PKG_VERSION")),
            );
        if ask.body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, token);
        }
        for (name, value) in ask.headers {
            request = request.header(name, value);
        }
        request.body(Full::new(body)).context("write the request")
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<Full<Bytes>>,
) -> anyhow::Result<Answer> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = OwnedConnection(tokio::spawn(async move {
        // A broken connection is told by the request or the body that breaks with it.
        let _ = connection.await;
    }));
    let response = sender.send_request(request).await?;
    Ok(Answer {
        response,
        _connection: connection,
    })
}

async fn read_whole(mut body: Incoming) -> anyhow::Result<Bytes> {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            if whole.len() + data.len() > MOST_ANSWER_BYTES {
                return Err(anyhow!("it is larger than {MOST_ANSWER_BYTES} bytes"));
            }
            whole.extend_from_slice(&data);
        }
    }
    Ok(whole.freeze())
}

/// The daemon's refusal as an error, with its hint.
async fn refusal(answer: Answer) -> anyhow::Error {
    let status = answer.response.status();
    let body = tokio::time::timeout(ANSWER_TIME, read_whole(answer.response.into_body())).await;
    let body = body.ok().and_then(Result::ok).unwrap_or_default();
    let document: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let text = |name: &str| {
        document
            .get(name)
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    let refused = Refused {
        status,
        cause: text("cause"),
        message: told(status, &document),
    };
    let hint = match status {
        StatusCode::UNAUTHORIZED => {
            Some("give a token with --token-file or TASKWRIGHT_TOKEN".to_owned())
        }
        _ => text("hint"),
    };
    match hint {
        Some(hint) => crate::failure::advised(refused, hint),
        None => refused.into(),
    }
}

/// What a refusal says: its message, and the fields that the message leaves out.
fn told(status: StatusCode, document: &Value) -> String {
    let text = |part: &Value, name: &str| {
        let text = part.get(name).and_then(Value::as_str);
        text.unwrap_or_default().to_owned()
    };
    let mut message = text(document, "detail");
    if message.is_empty() {
        message = text(document, "message");
    }
    if message.is_empty() {
        message = format!("the daemon answered {status}");
    }
    let fields = document.get("errors").or_else(|| document.get("details"));
    let fields = fields
        .and_then(Value::as_array)
        .map_or(&[][..], Vec::as_slice);
    let mut lines = vec![message];
    match fields {
        // The message may be about the one field and name it; a list of it adds nothing then.
        [one] => {
            let field = text(one, "field");
            let said = lines.iter().any(|message| message.contains(&field));
            if !said {
                lines.push(format!("  in {field}"));
            }
        }
        fields => lines.extend(
            fields
                .iter()
                .map(|one| format!("  {}: {}", text(one, "field"), text(one, "message"))),
        ),
    }
    lines.join("\n")
}

/// `text` as one segment of a path or one value of a query.
pub(crate) fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_refusal_tells_each_field_once() {
        let told = |document: Value| told(StatusCode::FORBIDDEN, &document);
        let denied = json!({
            "detail": "gate denies it: not as root",
            "errors": [{"field": "process.user", "message": "not as root"}],
        });
        assert_eq!(
            told(denied),
            "gate denies it: not as root\n  in process.user"
        );
        let named = json!({
            "message": "process.user: not as root",
            "details": [{"field": "process.user", "message": "not as root"}],
        });
        assert_eq!(told(named), "process.user: not as root");
        let several = json!({
            "detail": "a: one, and more",
            "errors": [{"field": "a", "message": "one"}, {"field": "b", "message": "two"}],
        });
        assert_eq!(told(several), "a: one, and more\n  a: one\n  b: two");
        assert_eq!(told(Value::Null), "the daemon answered 403 Forbidden");
    }

    #[test]
    fn names_are_encoded_as_one_segment() {
        assert_eq!(percent_encode("build-7_a.b~"), "build-7_a.b~");
        assert_eq!(percent_encode("a/b?c=d é"), "a%2Fb%3Fc%3Dd%20%C3%A9");
    }
}
