//! `taskwright logs`: what a task printed, or prints.

use anyhow::Context as _;
use clap::Args;
use http::HeaderMap;
use http_body_util::BodyExt as _;

use super::follow::{self, Wanted};
use super::progress::Progress;
use crate::cli::ConnectArgs;
use crate::client::Client;
use crate::client::http::Ask;
use crate::client::tasks::path_of;
use crate::client::wire::TaskView;
use crate::exit::Code;

#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// The task
    name: String,
    /// Go on until the task has ended
    #[arg(short, long)]
    follow: bool,
    /// Begin so many lines before the end
    #[arg(long, value_name = "LINES")]
    tail: Option<u64>,
    /// Standard output alone
    #[arg(long, conflicts_with = "stderr")]
    stdout: bool,
    /// Standard error alone
    #[arg(long)]
    stderr: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

pub(crate) async fn carry_out(args: LogsArgs) -> anyhow::Result<Code> {
    let client = args.connect.client()?;
    let wanted = match (args.stdout, args.stderr) {
        (true, _) => Wanted::Stdout,
        (_, true) => Wanted::Stderr,
        _ => Wanted::Both,
    };
    if args.follow {
        let progress = Progress::without_line();
        if let Ok(task) = client.get(&args.name).await {
            progress.tell_of_hold(TaskView(&task));
        }
        tokio::select! {
            followed = follow::follow(&client, &args.name, wanted, args.tail, || {}) => followed?,
            never = progress.watch(&client, &args.name) => match never {},
        }
        return Ok(Code::DONE);
    }
    let streams: &[&str] = match wanted {
        Wanted::Both => &["stdout", "stderr"],
        Wanted::Stdout => &["stdout"],
        Wanted::Stderr => &["stderr"],
    };
    for stream in streams {
        whole(&client, &args.name, stream, args.tail, wanted).await?;
    }
    Ok(Code::DONE)
}

/// Shows one stream as far as it goes now, piece by piece.
async fn whole(
    client: &Client,
    name: &str,
    stream: &str,
    tail: Option<u64>,
    wanted: Wanted,
) -> anyhow::Result<()> {
    let mut from = match tail {
        Some(lines) => format!("tail={lines}"),
        None => "offset=0".to_owned(),
    };
    // A task may print faster than we read: what comes after this point is for `--follow`.
    let mut until = None;
    loop {
        let ask = Ask::get(path_of(name, &format!("/logs?stream={stream}&{from}")));
        let answer = client.open(ask).await;
        let mut answer = answer.with_context(|| format!("read the output of task {name}"))?;
        let number = |name: &str| number(answer.response.headers(), name);
        let (next, end) = (number("x-log-next-offset"), number("x-log-end"));
        if let Some(dropped) = number("x-log-dropped").filter(|dropped| *dropped > 0) {
            follow::note_gap(dropped);
        }
        while let Some(frame) = answer.response.body_mut().frame().await {
            let frame = frame.with_context(|| format!("read the output of task {name}"))?;
            if let Ok(data) = frame.into_data() {
                follow::write(&data, stream == "stderr", wanted)?;
            }
        }
        let until = *until.get_or_insert(end.unwrap_or(0));
        match next {
            Some(next) if next < until => from = format!("offset={next}"),
            _ => return Ok(()),
        }
    }
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}
