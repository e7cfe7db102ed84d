//! `taskwright submit`: hands tasks over and returns, or waits for their ends.

use std::path::PathBuf;

use clap::Args;
use serde_json::Value;

use super::spec::TaskArgs;
use super::{manifest, wait};
use crate::cli::ConnectArgs;
use crate::client::wire::TaskView;
use crate::exit::Code;
use crate::output::style::tame;
use crate::output::{OutputArgs, note, tasks};

/// Tasks that are named on either side of one that was refused.
const MOST_NAMED: usize = 10;

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
                if wanted.len() > 1 {
                    let told = how_far(&wanted, submitted.len());
                    note(&format!("taskwright: {told}"));
                }
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

/// What became of the tasks of a file of which one was refused.
fn how_far(wanted: &[Value], submitted: usize) -> String {
    let names = |tasks: &[Value]| {
        let shown = tasks.iter().take(MOST_NAMED);
        let shown: Vec<String> = shown.map(|task| tame(TaskView(task).name())).collect();
        match tasks.len().saturating_sub(MOST_NAMED) {
            _ if tasks.is_empty() => "none".to_owned(),
            0 => shown.join(", "),
            more => format!("{} and {more} more", shown.join(", ")),
        }
    };
    let (before, others) = wanted.split_at(submitted.min(wanted.len()));
    let (refused, behind) = others.split_at(others.len().min(1));
    format!(
        "submitted: {}; refused: {}; not sent: {}",
        names(before),
        names(refused),
        names(behind)
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(count: usize, submitted: usize, expected: &str) {
        let wanted: Vec<Value> = (0..count)
            .map(|number| json!({"name": format!("t{number}")}))
            .collect();
        assert_eq!(how_far(&wanted, submitted), expected);
    }

    #[test]
    fn a_refusal_says_what_was_submitted_and_what_was_not() {
        check(3, 0, "submitted: none; refused: t0; not sent: t1, t2");
        check(3, 1, "submitted: t0; refused: t1; not sent: t2");
        check(3, 2, "submitted: t0, t1; refused: t2; not sent: none");
        let many = "submitted: none; refused: t0; \
                    not sent: t1, t2, t3, t4, t5, t6, t7, t8, t9, t10 and 2 more";
        check(13, 0, many);
    }
}
