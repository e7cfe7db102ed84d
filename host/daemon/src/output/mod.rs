//! What commands print: data on standard output, everything else on standard error.
//!
//! Commands make values; whether they become a table, JSON or YAML is decided here.

pub(crate) mod diff;
pub(crate) mod style;
pub(crate) mod table;
pub(crate) mod tasks;

use std::io::{ErrorKind, Write};

use clap::ValueEnum;
use serde_json::Value;

use crate::failure::OutputGone;

/// How a result is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A table for people.
    #[default]
    Table,
    /// A table with more columns.
    Wide,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
    /// Names alone, one on each line.
    Name,
}

/// `-o`, `-q`.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct OutputArgs {
    /// How the result is shown
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub(crate) output: Format,
    /// Names alone, and no notes on standard error
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

impl OutputArgs {
    /// The format, `-q` being short for names.
    pub(crate) fn format(self) -> Format {
        match (self.output, self.quiet) {
            (Format::Table | Format::Wide, true) => Format::Name,
            (format, _) => format,
        }
    }
}

/// Writes `bytes` to standard output.
///
/// # Errors
/// [`OutputGone`] when its reader has left, or what the kernel said.
pub(crate) fn write(bytes: &[u8]) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(OutputGone.into()),
        other => Ok(other?),
    }
}

/// Writes `text` to standard output.
///
/// # Errors
/// As [`write()`].
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    write(text.as_bytes())
}

/// Writes a line for people to standard error. Nothing can be done when that fails.
pub(crate) fn note(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Prints `value` as JSON or YAML. Any other format is for the caller to show: `false`.
///
/// # Errors
/// As [`write()`].
pub(crate) fn structured(format: Format, value: &Value) -> anyhow::Result<bool> {
    let text = match format {
        Format::Json => serde_json::to_string_pretty(value)? + "\n",
        Format::Yaml => serde_yaml_ng::to_string(value)?,
        Format::Table | Format::Wide | Format::Name => return Ok(false),
    };
    print(&text)?;
    Ok(true)
}
