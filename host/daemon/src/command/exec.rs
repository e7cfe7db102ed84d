//! `taskwright exec`: a command inside a task that runs.

use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::Args;
use http::header;
use serde_json::{Value, json};

use super::follow::{self, Wanted};
use crate::cli::ConnectArgs;
use crate::client::http::Ask;
use crate::client::sse::Events;
use crate::client::tasks::path_of;
use crate::exit::Code;
use crate::units::parse_duration;

#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    /// The task
    name: String,
    /// In which container of a pod
    #[arg(short, long, value_name = "NAME")]
    container: Option<String>,
    /// How long it may take
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = parse_duration)]
    timeout: Duration,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// Ends with the command's own code.
pub(crate) async fn carry_out(args: ExecArgs) -> anyhow::Result<Code> {
    let client = args.connect.client()?;
    let body = json!({
        "command": args.command,
        "container": args.container,
        "timeoutSeconds": args.timeout.as_secs_f64(),
    });
    let ask = Ask::post(path_of(&args.name, "/exec"), Some(&body))
        .header(header::ACCEPT, "text/event-stream");
    let said = || format!("run a command in task {}", args.name);
    let mut events = Events::new(client.open(ask).await.with_context(said)?);
    while let Some(event) = events.next().await.with_context(said)? {
        match event.kind.as_str() {
            "output" => follow::show(&event, Wanted::Both)?,
            "end" => {
                let end: Value = serde_json::from_str(&event.data).with_context(said)?;
                let code = end.get("exitCode").and_then(Value::as_i64);
                let code = code.and_then(|code| u8::try_from(code).ok());
                return Ok(Code(code.unwrap_or(u8::MAX)));
            }
            "error" => return Err(anyhow!("{}", event.data)).with_context(said),
            _ => {}
        }
    }
    Err(anyhow!("the stream ended before the command did")).with_context(said)
}
