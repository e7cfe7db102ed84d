//! Following what a task prints, across broken connections.
//!
//! Every event has an id, and the daemon goes on behind it: what was cut off is neither
//! lost nor shown twice.

use std::io::Write as _;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderName, header};
use serde_json::Value;
use tokio::time::Instant;

use crate::client::Client;
use crate::client::http::Ask;
use crate::client::sse::{Event, Events};
use crate::client::tasks::{is_not_found, path_of};
use crate::output;

/// For how long a daemon that went away is looked for.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pauses between tries, doubling from the first to the second.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// Which streams, and where they go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Standard output to ours, standard error to ours.
    Both,
    /// Standard output alone.
    Stdout,
    /// Standard error alone, to our standard output: it is the data that was asked for.
    Stderr,
}

impl Wanted {
    /// The API's word.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Both => "both",
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// Follows the task named `name` until it has ended and everything was shown. `first` is
/// called once, before anything is shown.
pub(crate) async fn follow(
    client: &Client,
    name: &str,
    wanted: Wanted,
    tail: Option<u64>,
    mut first: impl FnMut(),
) -> anyhow::Result<()> {
    let mut query = format!("/logs?follow=true&stream={}", wanted.as_str());
    if let Some(lines) = tail {
        query.push_str(&format!("&tail={lines}"));
    }
    let mut shown = false;
    let on_event = |event: &Event| {
        if !std::mem::replace(&mut shown, true) {
            first();
        }
        show(event, wanted).map(drop)
    };
    follow_at(client, name, &path_of(name, &query), on_event).await
}

/// Follows the events at `path`, which are those of the task named `name`, until it has ended and
/// `on_event` was told everything.
pub(crate) async fn follow_at(
    client: &Client,
    name: &str,
    path: &str,
    mut on_event: impl FnMut(&Event) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut place: Option<String> = None;
    let mut since = Instant::now();
    let mut pause = PAUSES.0;
    loop {
        let before = place.clone();
        match once(client, (name, path), &mut place, &mut on_event).await {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(error) if is_final(&error) => return Err(error),
            Err(error) if since.elapsed() >= PATIENCE => return Err(error),
            Err(_) => {}
        }
        if place != before {
            since = Instant::now();
            pause = PAUSES.0;
        }
        if since.elapsed() >= PATIENCE {
            return Err(anyhow!(
                "the daemon at {} ends the stream again and again",
                client.server()
            ))
            .with_context(|| format!("follow task {name}"));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSES.1);
    }
}

/// One connection's worth. Answers whether the end of the output was seen.
async fn once(
    client: &Client,
    (name, path): (&str, &str),
    place: &mut Option<String>,
    on_event: &mut impl FnMut(&Event) -> anyhow::Result<()>,
) -> anyhow::Result<bool> {
    let mut ask = Ask::get(path).header(header::ACCEPT, "text/event-stream");
    if let Some(place) = place {
        ask = ask.header(HeaderName::from_static("last-event-id"), place.as_str());
    }
    let answer = client.open(ask).await;
    let mut events = Events::new(answer.with_context(|| format!("follow task {name}"))?);
    while let Some(event) = events.next().await? {
        match event.kind.as_str() {
            "output" => {
                on_event(&event)?;
                *place = event.id.or(place.take());
            }
            "end" => return Ok(true),
            "error" => return Err(Final(event.data).into()),
            _ => {}
        }
    }
    Ok(false)
}

/// The daemon says that there is no going on.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Final(String);

/// Whether asking again would change nothing.
fn is_final(error: &anyhow::Error) -> bool {
    is_not_found(error)
        || error.chain().any(|cause| {
            cause.is::<crate::failure::OutputGone>()
                || cause.is::<Final>()
                || cause.is::<crate::client::http::Refused>()
        })
}

/// Shows a piece of output, and answers with its bytes.
pub(crate) fn show(event: &Event, wanted: Wanted) -> anyhow::Result<Vec<u8>> {
    let data: Value = serde_json::from_str(&event.data).context("read a piece of output")?;
    let text = |key| data.get(key).and_then(Value::as_str);
    if let Some(dropped) = data.get("dropped").and_then(Value::as_u64) {
        note_gap(dropped);
    }
    let bytes = match (text("text"), text("base64")) {
        (Some(text), _) => text.as_bytes().to_vec(),
        (None, Some(coded)) => STANDARD.decode(coded).context("read a piece of output")?,
        (None, None) => return Ok(Vec::new()),
    };
    write(&bytes, text("stream") == Some("stderr"), wanted)?;
    Ok(bytes)
}

/// Writes a piece of a stream to where it belongs.
pub(crate) fn write(bytes: &[u8], is_stderr: bool, wanted: Wanted) -> anyhow::Result<()> {
    if is_stderr && wanted == Wanted::Both {
        let mut out = std::io::stderr().lock();
        out.write_all(bytes)
            .and_then(|()| out.flush())
            .map_err(|_| crate::failure::OutputGone)?;
        return Ok(());
    }
    output::write(bytes)
}

/// Tells of output that is no longer there.
pub(crate) fn note_gap(bytes: u64) {
    output::note(&format!(
        "taskwright: {bytes} bytes of output were not kept"
    ));
}
