//! `taskwright get`: tasks by name.

use clap::Args;

use crate::cli::ConnectArgs;
use crate::exit::Code;
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

pub(crate) async fn carry_out(args: GetArgs) -> anyhow::Result<Code> {
    let client = args.connect.client()?;
    let mut found = Vec::with_capacity(args.names.len());
    for name in &args.names {
        found.push(client.get(name).await?);
    }
    match found.as_slice() {
        [one] => tasks::show_one(args.output.format(), one)?,
        many => tasks::show_many(args.output.format(), many)?,
    }
    Ok(Code::DONE)
}
