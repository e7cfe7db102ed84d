//! `taskwright policy`: the policies of a daemon, and what policies would say about tasks.

mod trial;
mod tried;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use self::trial::TrialArgs;
use super::health;
use crate::cli::ConnectArgs;
use crate::exit::Code;
use crate::output::style::Colours;
use crate::output::table::Table;
use crate::output::{self, Format, OutputArgs};

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyVerb {
    /// List the daemon's policies, in the order in which they are asked
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Say what policies would make of tasks, from files or of a daemon; nothing is submitted
    Test(TrialArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

pub(crate) async fn carry_out(verb: PolicyVerb) -> anyhow::Result<Code> {
    match verb {
        PolicyVerb::List(args) => list(args).await,
        PolicyVerb::Test(args) => trial::carry_out(args).await,
    }
}

async fn list(args: ListArgs) -> anyhow::Result<Code> {
    let answer = args.connect.client()?.plugins().await?;
    let mut policies: Vec<&Value> = answer
        .get("items")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter(|plugin| plugin.get("policy").is_some())
        .collect();
    policies.sort_by_key(|plugin| number(plugin, "/policy/order"));
    let format = args.output.format();
    if output::structured(format, &json!({ "items": policies }))? {
        return Ok(Code::DONE);
    }
    if format == Format::Name {
        let names = policies.iter().map(|plugin| text(plugin, "/name") + "\n");
        output::print(&names.collect::<String>())?;
        return Ok(Code::DONE);
    }
    let mut table = Table::new(&[
        "ORDER", "NAME", "VERSION", "MODE", "ON ERROR", "SCOPE", "HEALTH", "CALLS", "FAULTS",
    ]);
    let mut troubles = String::new();
    for plugin in policies {
        troubles.push_str(&health::lines(plugin));
        table.row(vec![
            number(plugin, "/policy/order").to_string().into(),
            text(plugin, "/name").into(),
            text(plugin, "/version").into(),
            text(plugin, "/policy/mode").into(),
            text(plugin, "/policy/onError").into(),
            scope(plugin).into(),
            health::cell(plugin),
            number(plugin, "/calls").to_string().into(),
            number(plugin, "/faults").to_string().into(),
        ]);
    }
    output::print(&(table.render(Colours::of_stdout()) + &troubles))?;
    Ok(Code::DONE)
}

/// About which tasks it is asked, in few words.
fn scope(plugin: &Value) -> String {
    let parts = ["namespaces", "runtimes", "labels"]
        .into_iter()
        .filter_map(|key| {
            let words = plugin.pointer(&format!("/policy/{key}"))?.as_array()?;
            let words: Vec<&str> = words.iter().filter_map(Value::as_str).collect();
            (!words.is_empty()).then(|| format!("{key}: {}", words.join(", ")))
        });
    let parts: Vec<String> = parts.collect();
    if parts.is_empty() {
        "all".to_owned()
    } else {
        parts.join("; ")
    }
}

fn text(plugin: &Value, pointer: &str) -> String {
    let found = plugin.pointer(pointer).and_then(Value::as_str);
    found.unwrap_or_default().to_owned()
}

fn number(plugin: &Value, pointer: &str) -> i64 {
    plugin.pointer(pointer).and_then(Value::as_i64).unwrap_or(0)
}
