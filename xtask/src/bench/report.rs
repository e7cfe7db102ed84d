//! What was measured: as tables for people, as JSON for programs, and against an
//! earlier run.

use std::io::{self, Write};

use serde_json::{Map, Value, json};

/// One benchmark's numbers.
#[derive(Debug)]
pub(super) struct Table {
    /// Its letter.
    pub(super) id: &'static str,
    /// What it is about.
    pub(super) title: &'static str,
    /// How it was measured, so that the numbers can be judged.
    pub(super) method: String,
    /// The numbers.
    pub(super) rows: Vec<Row>,
}

/// One number.
#[derive(Debug)]
pub(super) struct Row {
    /// Its name in JSON: it is what an earlier run is compared by, so it does not change.
    key: &'static str,
    label: String,
    value: f64,
    unit: Unit,
    goal: Option<Goal>,
}

/// What a number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// So many times something else.
    Ratio,
    /// Hundredths of something else.
    Percent,
    /// A time, given in seconds and shown as people say it.
    Seconds,
    /// So many in a second.
    PerSecond,
    /// A size, given in bytes and shown as people say it.
    Bytes,
    /// So many.
    Count,
}

/// What a number should be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Goal {
    /// Not more than this.
    AtMost(f64),
    /// Not less than this.
    AtLeast(f64),
}

impl Row {
    /// A number that just is.
    pub(super) fn fact(key: &'static str, label: &str, value: f64, unit: Unit) -> Self {
        Self {
            key,
            label: label.to_owned(),
            value,
            unit,
            goal: None,
        }
    }

    /// A number with a goal.
    pub(super) fn goal(key: &'static str, label: &str, value: f64, unit: Unit, goal: Goal) -> Self {
        Self {
            key,
            label: label.to_owned(),
            value,
            unit,
            goal: Some(goal),
        }
    }

    fn verdict(&self) -> &'static str {
        match self.goal {
            None => "",
            Some(goal) if goal.is_met(self.value) => "ok",
            Some(_) => "MISSED",
        }
    }

    fn goal_text(&self) -> String {
        match self.goal {
            None => String::new(),
            Some(Goal::AtMost(most)) => format!("<= {}", self.unit.show(most)),
            Some(Goal::AtLeast(least)) => format!(">= {}", self.unit.show(least)),
        }
    }

    fn cells(&self) -> Vec<String> {
        vec![
            self.label.clone(),
            self.unit.show(self.value),
            self.goal_text(),
            self.verdict().to_owned(),
        ]
    }

    fn json(&self) -> Value {
        let mut object =
            json!({ "label": self.label, "value": self.value, "unit": self.unit.name() });
        if let (Some(object), Some(goal)) = (object.as_object_mut(), self.goal) {
            let (word, limit) = match goal {
                Goal::AtMost(most) => ("atMost", most),
                Goal::AtLeast(least) => ("atLeast", least),
            };
            object.insert(word.to_owned(), json!(limit));
            object.insert("ok".to_owned(), json!(goal.is_met(self.value)));
        }
        object
    }
}

impl Goal {
    fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtMost(most) => value <= most,
            Self::AtLeast(least) => value >= least,
        }
    }
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Self::Ratio => "ratio",
            Self::Percent => "percent",
            Self::Seconds => "seconds",
            Self::PerSecond => "per second",
            Self::Bytes => "bytes",
            Self::Count => "count",
        }
    }

    fn show(self, value: f64) -> String {
        match self {
            Self::Ratio => format!("{}x", three_digits(value)),
            Self::Percent => format!("{} %", three_digits(value)),
            Self::PerSecond => format!("{}/s", three_digits(value)),
            Self::Count => format!("{value:.0}"),
            Self::Seconds => match value {
                _ if value.abs() < 1e-3 => format!("{} µs", three_digits(value * 1e6)),
                _ if value.abs() < 1.0 => format!("{} ms", three_digits(value * 1e3)),
                _ => format!("{} s", three_digits(value)),
            },
            Self::Bytes => match value {
                _ if value.abs() < 1024.0 => format!("{value:.0} B"),
                _ if value.abs() < 1_048_576.0 => format!("{} KiB", three_digits(value / 1024.0)),
                _ => format!("{} MiB", three_digits(value / 1_048_576.0)),
            },
        }
    }
}

/// Three digits that mean something; the rest of a measurement is noise.
fn three_digits(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// Prints one benchmark.
pub(super) fn print(table: &Table) -> io::Result<()> {
    let rows: Vec<_> = table.rows.iter().map(Row::cells).collect();
    let mut out = io::stdout().lock();
    writeln!(out, "\n({}) {}", table.id, table.title)?;
    writeln!(out, "    {}\n", table.method)?;
    columns(&mut out, &["", "measured", "goal", ""], &rows)
}

/// Prints every number that has a goal, once more.
pub(super) fn print_summary(tables: &[Table]) -> io::Result<()> {
    let rows: Vec<_> = tables
        .iter()
        .flat_map(|table| table.rows.iter().map(move |row| (table.id, row)))
        .filter(|(_, row)| row.goal.is_some())
        .map(|(id, row)| [vec![format!("({id})")], row.cells()].concat())
        .collect();
    if rows.is_empty() {
        return Ok(());
    }
    let mut out = io::stdout().lock();
    writeln!(out, "\nAll goals\n")?;
    columns(&mut out, &["", "", "measured", "goal", ""], &rows)
}

/// Prints every number beside that of an earlier run. What differs by less than a tenth is
/// not remarked upon: two runs on one machine differ by as much.
pub(super) fn print_comparison(now: &Value, before: &Value, file: &str) -> io::Result<()> {
    let mut rows = Vec::new();
    for (id, benchmark) in objects(now.get("benchmarks")) {
        for (key, row) in objects(benchmark.get("rows")) {
            let value = row.get("value").and_then(Value::as_f64);
            let pointer = format!("/benchmarks/{id}/rows/{key}/value");
            let earlier = before.pointer(&pointer).and_then(Value::as_f64);
            let (Some(value), Some(earlier)) = (value, earlier) else {
                continue;
            };
            if earlier == 0.0 {
                continue;
            }
            let label = row.get("label").and_then(Value::as_str).unwrap_or(key);
            let ratio = value / earlier;
            rows.push(vec![
                format!("({id})"),
                label.to_owned(),
                format!("{}x", three_digits(ratio)),
                remark(row, ratio).to_owned(),
            ]);
        }
    }
    let mut out = io::stdout().lock();
    writeln!(out, "\nAgainst {file}\n")?;
    columns(&mut out, &["", "", "now / then", ""], &rows)
}

fn remark(row: &Value, ratio: f64) -> &'static str {
    if (0.9..=1.1).contains(&ratio) {
        return "";
    }
    let more_is_better = row.get("atLeast").is_some()
        || row.get("unit").and_then(Value::as_str) == Some(Unit::PerSecond.name());
    if (ratio > 1.0) == more_is_better {
        "better"
    } else {
        "worse"
    }
}

fn objects(value: Option<&Value>) -> impl Iterator<Item = (&String, &Value)> {
    value.and_then(Value::as_object).into_iter().flatten()
}

/// The whole run as JSON.
pub(super) fn json(machine: &Value, tables: &[Table]) -> Value {
    let mut benchmarks = Map::new();
    for table in tables {
        let rows: Map<_, _> = table
            .rows
            .iter()
            .map(|row| (row.key.to_owned(), row.json()))
            .collect();
        let benchmark = json!({ "title": table.title, "method": table.method, "rows": rows });
        benchmarks.insert(table.id.to_owned(), benchmark);
    }
    json!({ "machine": machine, "benchmarks": benchmarks })
}

/// Writes `rows` under `heads`, each column as wide as its widest cell, texts to the left and
/// numbers to the right.
fn columns(out: &mut impl Write, heads: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
    let heads: Vec<String> = heads.iter().map(|head| (*head).to_owned()).collect();
    let width = |column: usize| {
        let all = std::iter::once(&heads).chain(rows);
        let cells = all.filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let first_number = heads.iter().position(|head| !head.is_empty()).unwrap_or(0);
    for row in std::iter::once(&heads).chain(rows) {
        let mut line = String::from("   ");
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let is_number = column >= first_number && column + 1 < widths.len();
            let cell = if is_number {
                format!("  {cell:>width$}")
            } else {
                format!(" {cell:<width$}")
            };
            line.push_str(&cell);
            if column + 2 == widths.len() {
                line.push(' ');
            }
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_shown_as_people_say_them() {
        assert_eq!(Unit::Seconds.show(0.000_012_345), "12.3 µs");
        assert_eq!(Unit::Seconds.show(0.0456), "45.6 ms");
        assert_eq!(Unit::Seconds.show(2.0), "2.00 s");
        assert_eq!(Unit::Seconds.show(-0.0109), "-10.9 ms");
        assert_eq!(Unit::Bytes.show(64.0 * 1_048_576.0), "64.0 MiB");
        assert_eq!(Unit::PerSecond.show(20_000.0), "20000/s");
        assert_eq!(Unit::Ratio.show(1.5), "1.50x");
    }

    #[test]
    fn goals_include_their_limit() {
        assert!(Goal::AtMost(1.5).is_met(1.5));
        assert!(Goal::AtLeast(60.0).is_met(60.0));
        assert!(!Goal::AtLeast(60.0).is_met(59.9));
    }

    #[test]
    fn more_requests_are_better_and_more_time_is_worse() {
        let rate = Row::fact("rate", "rate", 1.0, Unit::PerSecond).json();
        let delay = Row::fact("delay", "delay", 1.0, Unit::Seconds).json();
        assert_eq!(remark(&rate, 2.0), "better");
        assert_eq!(remark(&delay, 2.0), "worse");
        assert_eq!(remark(&delay, 1.05), "");
    }

    #[test]
    fn columns_line_up() {
        let mut out = Vec::new();
        let rows = [vec![
            "median".to_owned(),
            "9 ms".to_owned(),
            String::new(),
            "ok".to_owned(),
        ]];
        columns(&mut out, &["", "measured", "goal", ""], &rows).expect("write to memory");
        let text = String::from_utf8(out).expect("text");
        assert_eq!(
            text,
            "            measured  goal\n    median      9 ms        ok\n"
        );
    }
}
