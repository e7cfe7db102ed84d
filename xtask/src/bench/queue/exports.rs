//! Conversations, exported to a file by the command that people use.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, ensure};

use super::super::report::{Goal, Row, Unit};
use super::fill::Tasks;
use super::{Scene, Sizes};

/// Messages of one conversation, and the bytes of each.
const MESSAGES: u64 = 20;
const CONTENT: usize = 5000;

pub(super) fn measure(scene: &Scene<'_>, sizes: &Sizes) -> anyhow::Result<Vec<Row>> {
    let (kind, many) = (scene.kind, sizes.conversations);
    scene.target.add(Tasks::Ended, 1, many)?;
    scene.target.conversations(many, MESSAGES, CONTENT)?;
    let daemon = scene.daemon()?;
    let file = scene.place.path("chats.jsonl");
    let mut rates = Vec::new();
    // The first gives the ended tasks their numbers, once and for all.
    for _ in 0..=sizes.turns {
        let begun = Instant::now();
        let ended = Command::new(&scene.bench.binary)
            .args(["export", "--format", "chat", "--output"])
            .arg(&file)
            .arg(format!("--server=http://{}", daemon.address))
            .status()
            .context("run the export")?;
        let took = begun.elapsed().as_secs_f64();
        ensure!(ended.success(), "the export ended with {ended}");
        let bytes = std::fs::metadata(&file)
            .context("look at the export")?
            .len();
        let least = many * MESSAGES * CONTENT as u64;
        ensure!(
            bytes > least,
            "the export has {bytes} bytes of at least {least}"
        );
        rates.push(bytes as f64 / 1e6 / took);
    }
    daemon.stop(&scene.place)?;
    let text = std::fs::read_to_string(&file).context("read the export")?;
    let rows = text.lines().count() as u64;
    ensure!(
        rows == many,
        "{rows} conversations were exported, of {many}"
    );
    rates.sort_by(f64::total_cmp);
    let rate = rates.get(rates.len() / 2).copied().unwrap_or_default();
    let label = format!(
        "{}, MB exported as chats, {MESSAGES} messages of {CONTENT} bytes each",
        kind.word()
    );
    let key = kind.key("export", "exportPostgres");
    Ok(vec![Row::goal(
        key,
        &label,
        rate,
        Unit::PerSecond,
        Goal::AtLeast(50.0),
    )])
}
