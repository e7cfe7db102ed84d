//! The `taskwright` binary: wiring and command line. It assembles and decides nothing.
//!
//! | module | about |
//! |---|---|
//! | [`argv`] | command lines of the reference executor, made ours |
//! | [`cli`], [`command`] | the verbs |
//! | [`settings`], [`mod@env`] | what the daemon is told, and by whom |
//! | [`serve`] | the daemon: its parts, its start, its end |
//! | [`client`] | the other side of the API |
//! | [`output`], [`failure`], [`exit`] | what people and scripts see |
//! | [`doctor`] | whether the machine has what it needs |
//! | [`task_env`] | what tasks inherit |
//! | [`tessia`] | the files of the Tessia task runner |

mod argv;
mod builtin;
mod cli;
mod client;
mod command;
mod doctor;
mod env;
mod exit;
mod failure;
mod folder;
mod offline;
mod output;
mod serve;
mod settings;
mod task_env;
mod tessia;
mod units;
mod versions;

use std::process::ExitCode;

use clap::Parser as _;
use taskwright_supervisor::options::VERB as SUPERVISE;

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    // Before anything else: the supervisor forks, so it must be alone in its process.
    if words.next().is_some_and(|verb| verb == SUPERVISE) {
        return taskwright_supervisor::supervise(words);
    }
    let cli = cli::Cli::parse_from(argv::normalise(
        std::env::args_os(),
        settings::table::reference_is_configured(&settings::process_variable),
    ));
    let code = command::carry_out(cli.verb).unwrap_or_else(|error| failure::report(&error));
    code.into()
}
