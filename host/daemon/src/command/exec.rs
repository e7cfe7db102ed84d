//! `taskwright exec`: a command inside a task that runs.

use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::Args;
use http::header;
use serde_json::{Value, json};

use super::follow::{self, Wanted};
use crate::cli::ConnectArgs;
use crate::client::http::{Ask, Refused};
use crate::client::sse::Events;
use crate::client::tasks::path_of;
use crate::exit::Code;
use crate::failure::Advise as _;
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
    let answer = match client.open(ask).await {
        Ok(answer) => answer,
        Err(error) => {
            let refused = error.downcast_ref::<Refused>();
            let code = code_for(refused.and_then(|refused| refused.cause.as_deref()));
            return Err(error).exit_with(code).with_context(said);
        }
    };
    let mut events = Events::new(answer);
    while let Some(event) = events.next().await.with_context(said)? {
        match event.kind.as_str() {
            "output" => drop(follow::show(&event, Wanted::Both)?),
            "end" => {
                let end: Value = serde_json::from_str(&event.data).with_context(said)?;
                let code = end.get("exitCode").and_then(Value::as_i64);
                let code = code.and_then(|code| u8::try_from(code).ok());
                return Ok(Code(code.unwrap_or(u8::MAX)));
            }
            "error" => {
                let failure = Failure::read(&event.data);
                let error = Err(anyhow!("{}", failure.message));
                let code = code_for(failure.cause.as_deref());
                return error.exit_with(code).with_context(said);
            }
            _ => {}
        }
    }
    Err(anyhow!("the stream ended before the command did")).with_context(said)
}

/// What the program ends with where the command did not.
fn code_for(cause: Option<&str>) -> Code {
    match cause {
        Some("timeout") => Code::TIMEOUT,
        Some("not-executable") => Code::NOT_EXECUTABLE,
        Some("not-found") => Code::NOT_FOUND,
        _ => Code::OURS,
    }
}

/// Why there is no end to tell of.
#[derive(Debug, PartialEq, Eq)]
struct Failure {
    cause: Option<String>,
    message: String,
}

impl Failure {
    /// An object with a cause and a message; of other daemons, a sentence as a JSON text.
    fn read(data: &str) -> Self {
        let value: Value = serde_json::from_str(data).unwrap_or_default();
        let text = |key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
        let message = text("message").or_else(|| value.as_str().map(str::to_owned));
        Self {
            cause: text("cause"),
            message: message.unwrap_or_else(|| data.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(data: &str, code: Code, message: &str) {
        let failure = Failure::read(data);
        assert_eq!(code_for(failure.cause.as_deref()), code, "{data}");
        assert_eq!(failure.message, message);
    }

    #[test]
    fn a_failure_is_told_by_its_code_and_its_sentence() {
        check(
            r#"{"cause":"timeout","message":"\"a\""}"#,
            Code::TIMEOUT,
            "\"a\"",
        );
        check(
            r#"{"cause":"not-executable","message":"b"}"#,
            Code::NOT_EXECUTABLE,
            "b",
        );
        check(
            r#"{"cause":"not-found","message":"c"}"#,
            Code::NOT_FOUND,
            "c",
        );
        check(r#"{"cause":"unavailable","message":"d"}"#, Code::OURS, "d");
        check(r#""a sentence alone""#, Code::OURS, "a sentence alone");
        check("no JSON", Code::OURS, "no JSON");
    }
}
