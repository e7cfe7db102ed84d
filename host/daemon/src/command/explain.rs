//! `taskwright explain`: what policies and people said about a task, and what became of it.

use clap::Args;
use serde_json::Value;

use crate::cli::ConnectArgs;
use crate::client::wire::TaskView;
use crate::exit::Code;
use crate::output::diff::diff;
use crate::output::style::{Colours, Tone, tame};
use crate::output::table::{Cell, Table};
use crate::output::{self, OutputArgs};

#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// The task
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

pub(crate) async fn carry_out(args: ExplainArgs) -> anyhow::Result<Code> {
    let task = args.connect.client()?.get(&args.name).await?;
    let review = task.get("review").cloned().unwrap_or_default();
    if !output::structured(args.output.format(), &review)? {
        output::print(&describe(&task, &review, Colours::of_stdout()))?;
    }
    Ok(Code::DONE)
}

fn describe(task: &Value, review: &Value, colours: Colours) -> String {
    let mut told = String::new();
    let mut line = |text: &str| {
        told.push_str(&tame(text));
        told.push('\n');
    };
    let (name, state) = (word(task, "name"), TaskView(task).state());
    match task.get("outcome") {
        Some(outcome) => {
            let code = outcome.get("exitCode").map(Value::to_string);
            let how = [word(outcome, "cause"), code.as_deref().unwrap_or_default()];
            let why = match word(outcome, "message") {
                "" => String::new(),
                message => format!(": {message}"),
            };
            line(&format!(
                "{name} has {state} ({}){why}",
                how.join(" ").trim()
            ));
        }
        None => line(&format!("{name} is {state}")),
    }
    if review.is_null() {
        line("No policy was asked about it.");
        return told;
    }
    if let Some(hold) = review.get("hold") {
        let policies = list(hold, "policies");
        let (message, since) = (word(hold, "message"), word(hold, "since"));
        match word(hold, "reason") {
            "asked" => {
                line(&format!("Held since {since}: {policies} asks: {message}"));
                line(&format!(
                    "  hint: `taskwright approve {name}` or `taskwright deny {name}`; without an \
                     answer until {} it is `{}`",
                    word(hold, "until"),
                    word(hold, "otherwise")
                ));
            }
            _ => {
                line(&format!(
                    "Held since {since}: {policies} gives no verdict: {message}"
                ));
                line(
                    "  hint: mend the policy, or take it out of the plugin folder; it is asked \
                     again by itself",
                );
            }
        }
    }
    let verdicts = items(review, "verdicts").map(verdict_row);
    let answers = items(review, "answers").map(answer_row);
    let mut rows: Vec<(&str, Vec<Cell>)> = verdicts.chain(answers).collect();
    // All times are written alike, so their texts are in their order.
    rows.sort_by_key(|(at, _)| *at);
    let mut table = Table::new(&["AT", "STAGE", "POLICY", "MODE", "VERDICT", "WHY"]);
    for (_, row) in rows {
        table.row(row);
    }
    told.push_str(&table.render(colours));
    if let (Some(submitted), Some(effective)) = (review.get("submitted"), review.get("effective")) {
        told.push_str("Changed by policies:\n");
        told.push_str(&diff(submitted, effective, colours));
    }
    told
}

fn verdict_row(verdict: &Value) -> (&str, Vec<Cell>) {
    let (field, message) = (word(verdict, "field"), word(verdict, "message"));
    let at = word(verdict, "at");
    let row = vec![
        at.into(),
        word(verdict, "stage").into(),
        word(verdict, "policy").into(),
        word(verdict, "mode").into(),
        toned(word(verdict, "verdict")),
        format!("{field} {message}").trim().into(),
    ];
    (at, row)
}

fn answer_row(answer: &Value) -> (&str, Vec<Cell>) {
    let by = match word(answer, "by") {
        // What daemons of the first versions wrote down.
        "anyone" => "an unauthenticated client",
        by => by,
    };
    let why = match (by, word(answer, "reason")) {
        ("", reason) => reason.to_owned(),
        (by, "") => format!("by {by}"),
        (by, reason) => format!("by {by}: {reason}"),
    };
    let at = word(answer, "at");
    let row = vec![
        at.into(),
        "answer".into(),
        list(answer, "policies").into(),
        "".into(),
        toned(word(answer, "answer")),
        why.into(),
    ];
    (at, row)
}

/// A verdict or an answer, in its colour.
pub(super) fn toned(said: &str) -> Cell {
    match said {
        "deny" | "policy-error" => Cell::toned(said, Tone::Bad),
        "allow" | "approve" => Cell::toned(said, Tone::Good),
        _ => said.into(),
    }
}

fn word<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn items<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    let list = value.get(key).and_then(Value::as_array);
    list.into_iter().flatten()
}

fn list(value: &Value, key: &str) -> String {
    let words: Vec<&str> = items(value, key).filter_map(Value::as_str).collect();
    words.join(", ")
}
