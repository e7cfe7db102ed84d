//! One request by `wasi:http`.

use wasip2::http::outgoing_handler::handle;
use wasip2::http::types::{Fields, Method, OutgoingBody, OutgoingRequest, RequestOptions, Scheme};

use crate::decide::{Message, Target};

/// Nanoseconds until there must be a connection, and then the beginning of an answer: together
/// less than the deadline of a call, so that a slow receiver is no fault of this plugin.
const CONNECTED: u64 = 3_000_000_000;
const ANSWERED: u64 = 5_000_000_000;
/// The most bytes that can be written and waited for at once.
const PIECE: usize = 4096;

/// Posts a message; the status of the answer. The rest of it means nothing here.
pub fn post(target: &Target, message: &Message) -> Result<u16, String> {
    let request = request(target, message)?;
    let body = request.body().map_err(|()| "it has no body".to_owned())?;
    let sent = handle(request, Some(options()?)).map_err(|error| error.to_string())?;
    let written = write(body, &message.body);
    sent.subscribe().block();
    match sent.get() {
        // It may have answered before it had read everything.
        Some(Ok(Ok(response))) => Ok(response.status()),
        Some(Ok(Err(error))) => Err(error.to_string()),
        _ => Err(written.err().unwrap_or_else(|| "it is gone".to_owned())),
    }
}

fn request(target: &Target, message: &Message) -> Result<OutgoingRequest, String> {
    let headers = Fields::new();
    for (name, value) in &message.headers {
        let added = headers.append(name, value.as_bytes());
        added.map_err(|error| format!("the header {name}: {error}"))?;
    }
    let request = OutgoingRequest::new(headers);
    let scheme = if target.is_secure {
        Scheme::Https
    } else {
        Scheme::Http
    };
    request
        .set_method(&Method::Post)
        .and_then(|()| request.set_scheme(Some(&scheme)))
        .and_then(|()| request.set_authority(Some(&target.authority)))
        .and_then(|()| request.set_path_with_query(Some(&target.path)))
        .map_err(|()| "the setting url is no URL to the host".to_owned())?;
    Ok(request)
}

fn options() -> Result<RequestOptions, String> {
    let options = RequestOptions::new();
    options
        .set_connect_timeout(Some(CONNECTED))
        .and_then(|()| options.set_first_byte_timeout(Some(ANSWERED)))
        .map_err(|()| "the host knows no timeouts".to_owned())?;
    Ok(options)
}

fn write(body: OutgoingBody, bytes: &[u8]) -> Result<(), String> {
    let stream = body
        .write()
        .map_err(|()| "it cannot be written".to_owned())?;
    for piece in bytes.chunks(PIECE) {
        let written = stream.blocking_write_and_flush(piece);
        written.map_err(|error| error.to_string())?;
    }
    // A body cannot be finished while somebody may write to it.
    drop(stream);
    OutgoingBody::finish(body, None).map_err(|error| error.to_string())
}
