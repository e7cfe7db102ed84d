//! The same statements by PostgreSQL's own load generator.

use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use taskwright_store::queue::statements::{CLAIM_POSTGRES, COMPLETE_POSTGRES};
use taskwright_test_postgres::Server;

use super::super::place::Place;

/// What one transaction of pgbench does: it claims as one worker and completes what it got, each in
/// a statement with a commit of its own, prepared once. The claim is in its place because a
/// completed task has to have been claimed.
fn script() -> String {
    let claim = CLAIM_POSTGRES
        .replace("?1", ":worker")
        .replace("?2", "1")
        .replace("?3", ":now")
        .replace("?4", ":now")
        .replace("?5", "'kind'");
    let complete = COMPLETE_POSTGRES
        .replace("?1", ":task_id")
        .replace("?2", ":worker")
        .replace("?3", ":task_attempt")
        .replace("?4", ":result")
        .replace("?5", ":now");
    // Names are texts, and only a query makes those; once for each client.
    format!(
        "\\if :begun\n\\else\n\
         SELECT 'worker-' || lpad(CAST(:client_id AS TEXT), 3, '0') || '-kind' AS worker \\gset\n\
         \\set begun 1\n\\endif\n\
         {claim} \\gset task_\n{complete};\n"
    )
}

/// Claims and completions a second by so many clients.
pub(super) fn rate(
    server: &Server,
    database: &str,
    place: &Place,
    clients: usize,
    time: Duration,
) -> anyhow::Result<f64> {
    let file = place.path("claims.pgbench");
    std::fs::write(&file, script())?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
    let ran = Command::new(server.programs().join("pgbench"))
        .arg("-h")
        .arg(server.socket())
        .args([
            "-p",
            &server.port().to_string(),
            "-U",
            "tester",
            "-n",
            "-M",
            "prepared",
        ])
        .args([
            "-c",
            &clients.to_string(),
            "-j",
            &clients.min(2).to_string(),
        ])
        .args(["-T", &time.as_secs().max(1).to_string()])
        .args([
            "-D",
            "begun=0",
            "-D",
            &format!("now={now}"),
            "-D",
            "result={\"ok\":true}",
        ])
        .arg("-f")
        .arg(&file)
        .arg(database)
        .output()
        .context("start pgbench")?;
    let told = String::from_utf8_lossy(&ran.stdout).into_owned();
    let complained = String::from_utf8_lossy(&ran.stderr);
    ensure!(ran.status.success(), "pgbench: {}", complained.trim());
    let number = |line: &str| {
        let after = told.split_once(line).map(|(_, after)| after)?;
        after.split_whitespace().next()?.parse::<f64>().ok()
    };
    ensure!(
        number("number of failed transactions: ").unwrap_or(0.0) == 0.0,
        "pgbench had failures: {told}"
    );
    number("tps = ").with_context(|| format!("pgbench told no rate: {told}"))
}
