//! `taskwright submit`: hands tasks over and returns, or waits for their ends.

use std::path::PathBuf;

use clap::Args;
use serde_json::Value;

use super::spec::TaskArgs;
use super::{manifest, wait};
use crate::cli::ConnectArgs;
use crate::client::wire::TaskView;
use crate::exit::Code;
use crate::output::{OutputArgs, note, tasks};

#[derive(Debug, Args)]
pub(crate) struct SubmitArgs {
    /// Tasks as JSON or YAML, instead of a command; `-` reads standard input
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["command", "name", "env",
        "label", "working_dir", "timeout", "queue_timeout", "start_timeout", "idle_timeout",
        "grace", "priority", "attempts", "runtime"])]
    file: Option<PathBuf>,
    /// A word for this request: sent again with the same word, it makes no second task
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Wait for the end, and end with the exit code of the first task that failed
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    task: TaskArgs,
}

pub(crate) async fn carry_out(args: SubmitArgs) -> anyhow::Result<Code> {
    let wanted = match &args.file {
        Some(file) => manifest::read(file)?,
        None => vec![args.task.to_task()?],
    };
    let client = args.connect.client()?;
    let mut submitted: Vec<Value> = Vec::with_capacity(wanted.len());
    for task in &wanted {
        let key = args
            .idempotency_key
            .as_deref()
            .map(|key| match wanted.as_slice() {
                [_] => key.to_owned(),
                // One word for several requests: each needs its own.
                _ => format!("{key}/{}", TaskView(task).name()),
            });
        match client.submit(task, key.as_deref()).await {
            Ok(task) => {
                // Whoever waits for a single task is told there.
                let told_by_wait = args.wait && wanted.len() == 1;
                let tells = !args.output.quiet && !told_by_wait;
                if let Some(hold) = TaskView(&task).hold().filter(|_| tells) {
                    note(&format!("taskwright: {hold}"));
                }
                submitted.push(task);
            }
            Err(error) => {
                // What was accepted so far runs: say so before the error.
                tasks::show_many(args.output.format(), &submitted)?;
                return Err(error);
            }
        }
    }
    if args.wait {
        let names: Vec<String> = submitted
            .iter()
            .map(|task| TaskView(task).name().to_owned())
            .collect();
        return wait::for_all(&client, &names, None, args.output).await;
    }
    match submitted.as_slice() {
        [one] if args.file.is_none() => tasks::show_one(args.output.format(), one)?,
        many => tasks::show_many(args.output.format(), many)?,
    }
    Ok(Code::DONE)
}
