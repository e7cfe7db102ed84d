//! `taskwright set`: the daemon's tasks become those of a file.

use std::path::PathBuf;

use clap::Args;
use serde_json::Value;

use super::manifest;
use crate::cli::ConnectArgs;
use crate::client::wire::TaskView;
use crate::exit::Code;
use crate::output::{self, OutputArgs, tasks};

#[derive(Debug, Args)]
pub(crate) struct SetArgs {
    /// The tasks, as JSON or YAML; `-` reads standard input. An empty list deletes all tasks
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

pub(crate) async fn carry_out(args: SetArgs) -> anyhow::Result<Code> {
    let wanted = manifest::read(&args.file)?;
    let client = args.connect.client()?;
    let answer = client.set(&Value::Array(wanted)).await?;
    tasks::show_many(args.output.format(), &answer)?;
    let mut code = Code::DONE;
    for task in answer.iter().map(TaskView) {
        if let Some(problem) = task.problem() {
            output::note(&format!(
                "error: task {}: {}",
                task.name(),
                output::style::tame(problem)
            ));
            code = Code::OURS;
        }
    }
    Ok(code)
}
