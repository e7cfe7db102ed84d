//! `taskwright get`: tasks by name.

use clap::Args;

use crate::cli::ConnectArgs;
use crate::exit::Code;
use crate::failure;
use crate::output::{OutputArgs, tasks};

#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// The tasks
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// Every name is tried; the last failure decides the exit code.
pub(crate) async fn carry_out(args: GetArgs) -> anyhow::Result<Code> {
    let client = args.connect.client()?;
    let mut found = Vec::with_capacity(args.names.len());
    let mut code = Code::DONE;
    for name in &args.names {
        match client.get(name).await {
            Ok(task) => found.push(task),
            Err(error) => code = failure::report(&error),
        }
    }
    match found.as_slice() {
        [] => {}
        [one] if args.names.len() == 1 => tasks::show_one(args.output.format(), one)?,
        many => tasks::show_many(args.output.format(), many)?,
    }
    Ok(code)
}
