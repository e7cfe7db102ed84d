//! The command line: verbs and who carries them out. Each verb's own flags stand beside it,
//! in `command/`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::client::{Client, Server};
use crate::command::{
    answer, completion, config, delete, doctor, exec, explain, export, get, list, logs, plugin,
    policy, run, serve, set, stop, submit, version, wait, worker,
};
use crate::env;
use crate::failure::Advise as _;

/// Runs tasks on this machine, and tells truthfully how they ended.
#[derive(Debug, Parser)]
#[command(
    name = "taskwright",
    version,
    max_term_width = 100,
    after_help = "\
Exit codes: 0 done; 1 `serve` could not start or a check found a problem; 2 wrong usage;
124 a time limit of the task fired; 125 Taskwright failed, not the task; 126 not executable;
127 not found; 128+n ended by signal n; otherwise, with `run` and `wait`, the task's own code.

Flags of the reference executor without a verb, as in `taskwright --data-dir=/x`, mean `serve`."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Start the daemon
    Serve(serve::ServeArgs),
    /// Take tasks from a queue elsewhere and run them on this machine
    Worker(worker::WorkerArgs),
    /// Run a command as a task, follow its output, and end with its exit code
    Run(run::RunArgs),
    /// Hand a task to the daemon and return
    Submit(submit::SubmitArgs),
    /// List tasks
    #[command(visible_alias = "ls")]
    List(list::ListArgs),
    /// Show tasks by name
    Get(get::GetArgs),
    /// Show what a task prints
    Logs(logs::LogsArgs),
    /// Run a command inside a task that runs in a container; end with its exit code
    Exec(exec::ExecArgs),
    /// Wait for tasks to end; end with the exit code of the first that failed
    Wait(wait::WaitArgs),
    /// Stop tasks: TERM to the whole tree, then KILL
    Stop(stop::StopArgs),
    /// Stop tasks and remove their records and their output
    #[command(visible_alias = "rm")]
    Delete(delete::DeleteArgs),
    /// Say yes to what a policy asks about tasks
    Approve(answer::AnswerArgs),
    /// Say no to what a policy asks about tasks
    Deny(answer::AnswerArgs),
    /// Say what policies and people said about a task
    Explain(explain::ExplainArgs),
    /// Write what ended in the queue to a file: conversations, tasks with their steps, columns
    Export(export::ExportArgs),
    /// Make the daemon's tasks be those of a file: create what is missing, delete the rest
    Set(set::SetArgs),
    /// Look at plugins, make and try your own, sign, publish and install them
    #[command(subcommand)]
    Plugin(plugin::PluginVerb),
    /// Look at policies, or try some on tasks
    #[command(subcommand)]
    Policy(policy::PolicyVerb),
    /// Look at the daemon's configuration
    #[command(subcommand)]
    Config(config::ConfigVerb),
    /// Check whether this machine has what the daemon needs
    Doctor(doctor::DoctorArgs),
    /// Print a completion script for a shell
    Completion(completion::CompletionArgs),
    /// Show versions
    Version(version::VersionArgs),
    /// Compile a component from standard input; started by the daemon
    #[command(hide = true)]
    CompileComponent,
}

/// Which daemon to speak to, and as whom.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Daemon")]
pub(crate) struct ConnectArgs {
    /// The daemon: http://HOST:PORT or unix:PATH [default: http://127.0.0.1:5758]
    #[arg(long, value_name = "URL", env = env::SERVER)]
    server: Option<Server>,
    /// The token to show (in the process list for all to see: better a file or the variable)
    #[arg(long, value_name = "TOKEN", env = env::TOKEN, hide_env_values = true)]
    token: Option<String>,
    /// A file with the token to show
    #[arg(long, value_name = "FILE", env = env::TOKEN_FILE, conflicts_with = "token")]
    token_file: Option<PathBuf>,
}

impl ConnectArgs {
    /// The daemon to speak to.
    pub(crate) fn server(&self) -> Server {
        self.server.clone().unwrap_or_default()
    }

    /// Whether anybody said which daemon to speak to.
    pub(crate) fn names_a_server(&self) -> bool {
        self.server.is_some()
    }

    /// The client that these words describe.
    ///
    /// # Errors
    /// When the token cannot be read.
    pub(crate) fn client(&self) -> anyhow::Result<Client> {
        let from_file = match &self.token_file {
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|error| {
                        anyhow::Error::new(error)
                            .context(format!("read the token file {}", path.display()))
                    })
                    .hint("name a readable file that holds the token alone")?;
                Some(text.trim().to_owned())
            }
            None => None,
        };
        Client::new(
            self.server(),
            self.token.as_deref().or(from_file.as_deref()),
        )
    }

    /// The same token for the daemon at `server`.
    pub(crate) fn at(self, server: Server) -> Self {
        Self {
            server: Some(server),
            ..self
        }
    }

    /// Words that lead to a daemon of one's own, which asks for no token.
    pub(crate) fn private(server: Server) -> Self {
        Self {
            server: Some(server),
            token: None,
            token_file: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
