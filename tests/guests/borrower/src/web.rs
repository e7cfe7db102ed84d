//! Requests by `wasi:http`.

use wasip2::http::outgoing_handler::handle;
use wasip2::http::types::{
    Fields, FutureIncomingResponse, Method, OutgoingBody, OutgoingRequest, Scheme,
};
use wasip2::io::streams::StreamError;

/// Bytes that are sent or read at a time.
const PIECE: usize = 4096;

fn request(url: &str) -> OutgoingRequest {
    let (scheme, rest) = match url.strip_prefix("http://") {
        Some(rest) => (Scheme::Http, rest),
        None => (Scheme::Https, url.strip_prefix("https://").unwrap_or(url)),
    };
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let request = OutgoingRequest::new(Fields::new());
    let path = format!("/{path}");
    let set = request
        .set_scheme(Some(&scheme))
        .and_then(|()| request.set_authority(Some(authority)))
        .and_then(|()| request.set_path_with_query(Some(&path)));
    assert!(set.is_ok(), "{url} is no URL");
    request
}

pub(crate) fn get(url: &str) -> Result<String, String> {
    let sent = handle(request(url), None).map_err(|error| format!("{error:?}"))?;
    answer(&sent)
}

pub(crate) fn post(url: &str, size: usize) -> Result<String, String> {
    let request = request(url);
    let body = request.body().map_err(|()| "it has no body".to_owned())?;
    assert!(request.set_method(&Method::Post).is_ok(), "no method");
    let stream = body
        .write()
        .map_err(|()| "it cannot be written".to_owned())?;
    let sent = handle(request, None).map_err(|error| format!("{error:?}"))?;
    for _ in 0..size.div_ceil(PIECE) {
        if let Err(error) = stream.blocking_write_and_flush(&[b'x'; PIECE]) {
            return Err(format!("{error:?}; {:?}", answer(&sent)));
        }
    }
    drop(stream);
    OutgoingBody::finish(body, None).map_err(|error| format!("{error:?}"))?;
    answer(&sent)
}

/// How many of so many at once were let through.
pub(crate) fn many(url: &str, count: usize) -> String {
    let sent: Vec<_> = (0..count).map(|_| handle(request(url), None)).collect();
    let (mut done, mut last) = (0, String::new());
    for sent in sent.into_iter().flatten() {
        match answer(&sent) {
            Ok(_) => done += 1,
            Err(error) => last = error,
        }
    }
    format!("{done} of {count}; {last}")
}

fn answer(sent: &FutureIncomingResponse) -> Result<String, String> {
    sent.subscribe().block();
    let response = match sent.get() {
        Some(Ok(Ok(response))) => response,
        Some(Ok(Err(error))) => return Err(format!("{error:?}")),
        _ => return Err("it was asked before it was there".to_owned()),
    };
    let mut text = format!("{} ", response.status());
    let body = response.consume().map_err(|()| "no body".to_owned())?;
    let stream = body.stream().map_err(|()| "no stream".to_owned())?;
    let mut read = 0;
    loop {
        match stream.blocking_read(PIECE as u64) {
            Ok(bytes) => {
                read += bytes.len();
                if text.len() < 200 {
                    text.push_str(&String::from_utf8_lossy(&bytes));
                }
            }
            Err(StreamError::Closed) => return Ok(format!("{text} ({read})")),
            Err(StreamError::LastOperationFailed(error)) => {
                let told = error.to_debug_string();
                return Err(format!("{told} after {read}"));
            }
        }
    }
}
