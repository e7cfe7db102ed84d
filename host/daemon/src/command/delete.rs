//! `taskwright delete`: ends tasks and removes their records and their output.

use clap::Args;

use crate::cli::ConnectArgs;
use crate::exit::Code;
use crate::failure;
use crate::output;

#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    /// The tasks
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Do not complain about tasks that are not there
    #[arg(short, long)]
    force: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// Every name is tried and told as it is done; the last failure decides the exit code.
pub(crate) async fn carry_out(args: DeleteArgs) -> anyhow::Result<Code> {
    let client = args.connect.client()?;
    let mut code = Code::DONE;
    for name in &args.names {
        match delete(&client, name, args.force).await {
            Ok(()) => output::print(&format!("{name}\n"))?,
            Err(error) => code = failure::report(&error),
        }
    }
    Ok(code)
}

async fn delete(client: &crate::client::Client, name: &str, force: bool) -> anyhow::Result<()> {
    // The API answers alike whether there was such a task or not, as its contract wants it;
    // people want to hear of a name that they mistyped.
    if !force {
        client.get(name).await?;
    }
    client.delete(name).await
}
