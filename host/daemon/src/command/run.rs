//! `taskwright run`: a task like a plain command. Its output is ours, its exit code is ours,
//! Ctrl-C stops it.

mod tessia;

use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::follow::{self, Wanted};
use super::progress::{Progress, Until};
use super::spec::TaskArgs;
use super::wait::conclude;
use crate::cli::ConnectArgs;
use crate::client::Client;
use crate::client::wire::TaskView;
use crate::exit::Code;
use crate::failure::{Advise as _, OutputGone};
use crate::output;
use crate::serve::local::LocalDaemon;

#[derive(Debug, Args)]
#[command(
    after_help = "Ctrl-C stops the task, a second one kills it, a third one leaves it alone.\n\n\
        `taskwright run FILE.json` runs a task file of the Tessia task runner, {\"machine\": ..., \"parameters\": ...},\n\
        on its own unless --server names a daemon; cli.result and output.log are kept in the current directory."
)]
pub(crate) struct RunArgs {
    /// Without a daemon: one of our own, for this task alone, whatever --server says
    #[arg(long)]
    local: bool,
    /// Remove the task with its record and its output once it has ended
    #[arg(long)]
    rm: bool,
    /// No progress line and no notes
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    task: TaskArgs,
}

pub(crate) fn carry_out(args: RunArgs) -> anyhow::Result<Code> {
    // What can be wrong with the words is told before anything is started.
    let file = tessia::task_file(&args.task)?;
    let task = match &file {
        Some(_) => serde_json::Value::Null,
        None => args.task.to_task()?,
    };
    // The original ran such a file on its own, so nobody needs a daemon for it.
    let local = args.local || (file.is_some() && !args.connect.names_a_server());
    let mut runtime = if local {
        tokio::runtime::Builder::new_multi_thread()
    } else {
        tokio::runtime::Builder::new_current_thread()
    };
    let runtime = runtime.enable_all().build().context("start the runtime")?;
    runtime.block_on(async {
        let run = async |client: &Client| match &file {
            Some(file) => tessia::to_the_end(client, file, &args).await,
            None => to_the_end(client, &task, &args).await,
        };
        if !local {
            return run(&args.connect.client()?).await;
        }
        let daemon = LocalDaemon::start().await?;
        let client = ConnectArgs::private(daemon.server()).client()?;
        let code = run(&client).await;
        daemon.stop().await?;
        code
    })
}

async fn to_the_end(
    client: &Client,
    task: &serde_json::Value,
    args: &RunArgs,
) -> anyhow::Result<Code> {
    let signals = Signals::new()?;
    // Sent again after a broken connection, the same word finds the first task.
    let key = uuid::Uuid::now_v7().to_string();
    let submitted = client.submit(task, Some(&key)).await?;
    let name = TaskView(&submitted).name().to_owned();
    let id = TaskView(&submitted).id().to_owned();
    let progress = Progress::new(args.quiet, Until::Running);
    // Also where quiet is wanted: otherwise it would wait without a word.
    progress.tell_of_hold(TaskView(&submitted));
    let followed = tokio::select! {
        followed = follow::follow(client, &name, Wanted::Both, None, || progress.end()) => followed,
        never = progress.watch(client, &name) => match never {},
        left = obey(&name, signals, async |grace| client.stop(&name, grace).await) => {
            output::note(&format!("taskwright: `taskwright wait {name}` tells how the task ends"));
            return Ok(left);
        }
    };
    progress.end();
    if let Err(error) = followed {
        return give_up(client, &name, error).await;
    }
    let ended = client.wait(&name, None).await?;
    let ended = TaskView(&ended);
    if ended.id() != id {
        anyhow::bail!("task {name} was removed by somebody else, its end is not known");
    }
    let code = conclude(ended);
    if args.rm {
        client.delete(&name).await?;
    }
    Ok(code)
}

/// Nobody can see the output any more, or the daemon is gone.
async fn give_up(client: &Client, name: &str, error: anyhow::Error) -> anyhow::Result<Code> {
    if error.chain().any(|cause| cause.is::<OutputGone>()) {
        // A plain command would be ended by SIGPIPE here.
        client.stop(name, None).await?;
        return Err(error);
    }
    Err(error).hint(format!(
        "the task was not stopped: `taskwright logs -f {name}` goes on where this ended"
    ))
}

/// Ctrl-C and TERM.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("listen for signals");
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// The first signal stops the task, the second kills it, the third leaves it alone and ends
/// this program. Until then the task's end ends it.
async fn obey(
    name: &str,
    mut signals: Signals,
    stop: impl AsyncFn(Option<Duration>) -> anyhow::Result<serde_json::Value>,
) -> Code {
    signals.next().await;
    output::note(&format!(
        "\ntaskwright: stopping task {name}; once more to kill it"
    ));
    tell_if_failed(stop(None).await);
    signals.next().await;
    output::note(&format!(
        "\ntaskwright: killing task {name}; once more to leave it alone"
    ));
    tell_if_failed(stop(Some(Duration::ZERO)).await);
    signals.next().await;
    output::note("\ntaskwright: left");
    Code::signal(2)
}

fn tell_if_failed(stopped: anyhow::Result<serde_json::Value>) {
    if let Err(error) = stopped {
        crate::failure::report(&error);
    }
}
