//! `taskwright stop`: ends tasks and keeps their records.

use std::time::Duration;

use clap::Args;

use super::for_each_name;
use crate::cli::ConnectArgs;
use crate::exit::Code;
use crate::output::{OutputArgs, tasks};
use crate::units::parse_duration;

#[derive(Debug, Args)]
pub(crate) struct StopArgs {
    /// The tasks
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Time between TERM and KILL, instead of the task's own
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    grace: Option<Duration>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

pub(crate) async fn carry_out(args: StopArgs) -> anyhow::Result<Code> {
    let client = args.connect.client()?;
    let stop = async |name: &str| client.stop(name, args.grace).await;
    let (stopped, code) = for_each_name(&args.names, stop).await;
    if !stopped.is_empty() {
        tasks::show_many(args.output.format(), &stopped)?;
    }
    Ok(code)
}
