//! `taskwright get`: tasks by name.

use clap::Args;

use super::for_each_name;
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
    let (found, code) = for_each_name(&args.names, async |name| client.get(name).await).await;
    match found.as_slice() {
        [] => {}
        [one] if args.names.len() == 1 => tasks::show_one(args.output.format(), one)?,
        many => tasks::show_many(args.output.format(), many)?,
    }
    Ok(code)
}
