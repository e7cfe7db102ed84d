//! `taskwright approve` and `taskwright deny`: answers to what a policy asks about tasks.

use clap::Args;

use super::for_each_name;
use crate::cli::ConnectArgs;
use crate::exit::Code;
use crate::output::{OutputArgs, tasks};

#[derive(Debug, Args)]
pub(crate) struct AnswerArgs {
    /// The tasks
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Why, for the record
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// `verb` is the word of the API for the answer.
pub(crate) async fn carry_out(args: AnswerArgs, verb: &str) -> anyhow::Result<Code> {
    let client = args.connect.client()?;
    let answer = async |name: &str| client.answer(name, verb, &args.reason).await;
    let (answered, code) = for_each_name(&args.names, answer).await;
    if !answered.is_empty() {
        tasks::show_many(args.output.format(), &answered)?;
    }
    Ok(code)
}
