//! `taskwright completion`: a script that completes verbs and flags.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use crate::cli::Cli;
use crate::exit::Code;
use crate::output;

#[derive(Debug, Args)]
#[command(after_help = "For bash: taskwright completion bash > /etc/bash_completion.d/taskwright")]
pub(crate) struct CompletionArgs {
    /// The shell
    shell: Shell,
}

pub(crate) fn carry_out(args: CompletionArgs) -> anyhow::Result<Code> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "taskwright", &mut script);
    output::write(&script)?;
    Ok(Code::DONE)
}
