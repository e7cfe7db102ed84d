//! `taskwright approve` and `taskwright deny`: answers to what a policy asks about tasks.

use clap::Args;

use super::for_each_name;
use crate::cli::ConnectArgs;
use crate::exit::Code;
use crate::failure::Advise as _;
use crate::output::{OutputArgs, tasks};

#[derive(Debug, Args)]
pub(crate) struct AnswerArgs {
    /// The tasks
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// The id of the task that you looked at: another that has its name by now is not answered
    #[arg(long, value_name = "ID")]
    id: Option<String>,
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
    if args.id.is_some() && args.names.len() > 1 {
        return Err(anyhow::anyhow!("--id names one task, and so does one NAME"))
            .exit_with(Code::USAGE)
            .hint(format!("taskwright {verb} NAME --id ID"));
    }
    let client = args.connect.client()?;
    let id = args.id.as_deref();
    let answer = async |name: &str| client.answer(name, verb, &args.reason, id).await;
    let (answered, code) = for_each_name(&args.names, answer).await;
    if !answered.is_empty() {
        tasks::show_many(args.output.format(), &answered)?;
    }
    Ok(code)
}
