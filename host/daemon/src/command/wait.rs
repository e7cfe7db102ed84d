//! `taskwright wait`: for tasks to end, and what their ends say.
//!
//! A failure of a task and a failure of ours are told apart by the exit code, and by a line
//! on standard error wherever the code is not the task's own.

use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::progress::{Progress, Until};
use crate::cli::ConnectArgs;
use crate::client::Client;
use crate::client::wire::TaskView;
use crate::exit::Code;
use crate::output::{self, Format, OutputArgs, tasks};
use crate::units::parse_duration;

#[derive(Debug, Args)]
pub(crate) struct WaitArgs {
    /// The tasks
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// How long to wait; the tasks are left alone when it is over, and the exit code is 125
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    timeout: Option<Duration>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

pub(crate) async fn carry_out(args: WaitArgs) -> anyhow::Result<Code> {
    let client = args.connect.client()?;
    for_all(&client, &args.names, args.timeout, args.output).await
}

/// Waits for all of `names`, shows them, and answers with the code of the first that failed.
pub(crate) async fn for_all(
    client: &Client,
    names: &[String],
    at_most: Option<Duration>,
    output: OutputArgs,
) -> anyhow::Result<Code> {
    let begun = tokio::time::Instant::now();
    let mut ended: Vec<Value> = Vec::with_capacity(names.len());
    for name in names {
        let left = at_most.map(|most| most.saturating_sub(begun.elapsed()));
        let progress = Progress::new(output.quiet, Until::Ended);
        let task = tokio::select! {
            task = client.wait(name, left) => task,
            never = progress.watch(client, name) => match never {},
        };
        progress.end();
        ended.push(task?);
    }
    // `-q` is for scripts that want the exit code alone.
    if !(output.quiet && output.output == Format::Table) {
        match ended.as_slice() {
            [one] => tasks::show_one(output.format(), one)?,
            many => tasks::show_many(output.format(), many)?,
        }
    }
    let codes: Vec<Code> = ended.iter().map(|task| conclude(TaskView(task))).collect();
    Ok(codes
        .into_iter()
        .find(|code| *code != Code::DONE)
        .unwrap_or(Code::DONE))
}

/// The code that a task's end gives, and a line for people where the code does not say it all.
pub(crate) fn conclude(task: TaskView<'_>) -> Code {
    let Some(ending) = task.ending() else {
        let how = match task.hold() {
            Some(hold) => format!("the time to wait is over, and {hold}"),
            None => format!("task {} has not ended: it is {}", task.name(), task.state()),
        };
        output::note(&format!("taskwright: {how}"));
        return Code::OURS;
    };
    if let Some(remark) = ending.remark() {
        output::note(&format!(
            "taskwright: task {}: {}",
            task.name(),
            output::style::tame(&remark)
        ));
    }
    ending.code()
}
