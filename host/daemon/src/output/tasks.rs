//! Tasks as tables, names, JSON or YAML.

use jiff::Timestamp;
use serde_json::Value;

use super::style::{Colours, Tone, shorten, tame};
use super::table::{Cell, Table};
use super::{Format, print, structured};
use crate::client::wire::{TaskView, ago};
use crate::units::human_duration;

/// The longest command shown in a table.
const MOST_COMMAND: usize = 60;
/// And in a wide one.
const MOST_WIDE_COMMAND: usize = 200;

/// Prints one task: an object in JSON and YAML.
///
/// # Errors
/// When standard output takes nothing.
pub(crate) fn show_one(format: Format, task: &Value) -> anyhow::Result<()> {
    if structured(format, task)? {
        return Ok(());
    }
    show_rows(format, std::slice::from_ref(task))
}

/// Prints tasks: a list in JSON and YAML.
///
/// # Errors
/// When standard output takes nothing.
pub(crate) fn show_many(format: Format, tasks: &[Value]) -> anyhow::Result<()> {
    if matches!(format, Format::Json | Format::Yaml) {
        structured(format, &Value::Array(tasks.to_vec()))?;
        return Ok(());
    }
    show_rows(format, tasks)
}

fn show_rows(format: Format, tasks: &[Value]) -> anyhow::Result<()> {
    if format == Format::Name {
        let names: String = tasks
            .iter()
            .flat_map(|task| [tame(TaskView(task).name()), "\n".to_owned()])
            .collect();
        return print(&names);
    }
    print(&table(format, tasks, Timestamp::now()).render(Colours::of_stdout()))
}

fn table(format: Format, tasks: &[Value], now: Timestamp) -> Table {
    let wide = format == Format::Wide;
    let mut headings = vec!["NAME", "STATE", "RESULT", "RAN", "AGE"];
    if wide {
        headings.extend(["RUNTIME", "ATTEMPTS", "PID", "LABELS"]);
    }
    headings.push("COMMAND");
    let mut table = Table::new(&headings);
    for task in tasks.iter().map(TaskView) {
        let mut cells = vec![
            task.name().into(),
            Cell::toned(task.state(), tone(task)),
            result(task),
            task.ran_for(now)
                .map(human_duration)
                .unwrap_or_default()
                .into(),
            ago(task.created_at(), now).into(),
        ];
        if wide {
            cells.extend([
                task.runtime().into(),
                task.attempt_count().to_string().into(),
                task.pid()
                    .map(|pid| pid.to_string())
                    .unwrap_or_default()
                    .into(),
                task.labels().join(",").into(),
            ]);
        }
        let most = if wide {
            MOST_WIDE_COMMAND
        } else {
            MOST_COMMAND
        };
        cells.push(shorten(&tame(&task.command()), most).into());
        table.row(cells);
    }
    table
}

fn result(task: TaskView<'_>) -> Cell {
    match (task.ending(), task.problem()) {
        (Some(ending), _) => Cell::toned(&ending.summary(), tone(task)),
        (None, Some(_)) => Cell::toned("refused", Tone::Bad),
        (None, None) => "".into(),
    }
}

fn tone(task: TaskView<'_>) -> Tone {
    match (task.state(), task.ending()) {
        (_, Some(ending)) if ending.is_success() => Tone::Good,
        (_, Some(_)) => Tone::Bad,
        ("pending", None) => Tone::Faint,
        _ => Tone::Busy,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use serde_json::json;

    use super::*;

    #[test]
    fn a_task_is_one_line_of_plain_words() {
        let now: Timestamp = "2026-01-01T00:01:00Z".parse().unwrap();
        let tasks = [
            json!({"name": "a", "state": "ended", "createdAt": "2026-01-01T00:00:00.000Z",
                "outcome": {"cause": "exit", "exitCode": 3},
                "attempts": [{"number": 1, "startedAt": "2026-01-01T00:00:10Z", "finishedAt": "2026-01-01T00:00:14Z"}],
                "spec": {"process": {"command": ["sh", "-c"], "args": ["exit 3\n"]}}}),
            json!({"name": "b", "state": "pending"}),
        ];
        let shown = table(Format::Table, &tasks, now).render(Colours::No);
        assert_eq!(
            shown,
            "NAME  STATE    RESULT  RAN  AGE  COMMAND\n\
             a     ended    exit 3  4s   1m   sh -c exit 3\\n\n\
             b     pending\n"
        );
    }
}
