//! `taskwright list`: the tasks of a daemon, page by page.

use clap::Args;
use serde_json::Value;

use crate::cli::ConnectArgs;
use crate::client::tasks::Selection;
use crate::exit::Code;
use crate::output::{OutputArgs, tasks};

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only tasks with these labels: key=value, key!=value, key, !key; several with commas
    #[arg(short = 'l', long = "selector", value_name = "SELECTOR")]
    selector: Option<String>,
    /// Only tasks in this state: pending, starting, running, stopping, ended
    #[arg(long, value_name = "STATE", value_delimiter = ',',
        value_parser = ["pending", "starting", "running", "stopping", "ended"])]
    state: Vec<String>,
    /// At most so many
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

pub(crate) async fn carry_out(args: ListArgs) -> anyhow::Result<Code> {
    let client = args.connect.client()?;
    let selection = Selection {
        selector: args.selector,
        states: args.state,
    };
    let most = args.limit.unwrap_or(usize::MAX);
    let mut found: Vec<Value> = Vec::new();
    let mut cursor = None;
    while found.len() < most {
        let page = client
            .list(&selection, most - found.len(), cursor.as_deref())
            .await?;
        found.extend(page.tasks);
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    tasks::show_many(args.output.format(), &found)?;
    Ok(Code::DONE)
}
