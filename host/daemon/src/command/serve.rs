//! `taskwright serve`: the daemon.

use std::num::NonZero;

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

use crate::exit::Code;
use crate::failure::Advise as _;
use crate::serve;
use crate::settings::flags::Flags;
use crate::settings::{self, Config, Sources};

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// The configuration file [default: /etc/taskwright/config.toml, if it is there]
    #[arg(long, value_name = "FILE", env = crate::env::CONFIG)]
    config: Option<PathBuf>,
    #[command(flatten)]
    flags: Flags,
}

/// A daemon that does not start ends with 1, as the reference executor.
pub(crate) fn carry_out(args: &ServeArgs) -> anyhow::Result<Code> {
    start(args).exit_with(Code::PROBLEM)?;
    Ok(Code::DONE)
}

fn start(args: &ServeArgs) -> anyhow::Result<()> {
    let settings = settings::resolve(&Sources {
        flags: &args.flags,
        config_flag: args.config.as_deref(),
        variable: &settings::process_variable,
    });
    let config = Config::from_settings(&settings)?;
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers())
        .enable_all()
        .build()
        .context("start the runtime")?
        .block_on(serve::run(config))
}

/// Half of the processors: the rest is for the tasks. On a small machine one worker is faster
/// than two, which wake each other up for every step of a task.
fn workers() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
    (processors / 2).max(1)
}
