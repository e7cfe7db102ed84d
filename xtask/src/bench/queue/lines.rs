//! Lines of tasks, as workers send them.

use anyhow::ensure;
use serde_json::{Value, json};

use super::super::client::{Request, Swarm};
use super::super::report::{Goal, Row, Unit};
use super::fill::Tasks;
use super::{Scene, Sizes};

/// Workers that send lines at once.
const SENDERS: usize = 4;
/// Lines of one request.
const LINES: usize = 1000;

pub(super) fn measure(scene: &Scene<'_>, sizes: &Sizes) -> anyhow::Result<Vec<Row>> {
    let kind = scene.kind;
    scene.target.add(Tasks::Pending, 1, SENDERS as u64)?;
    let daemon = scene.daemon()?;
    let line = json!({
        "timestamp": "2026-01-02T03:04:05.678Z",
        "level": "info",
        "message": "step 17 of 30: kubectl get pods -n hotel-reservation told 12 pods, of which 1 is not ready",
    });
    let body = json!({ "logs": vec![line; LINES] }).to_string();
    let path = |sender: usize| {
        format!(
            "/api/v1/tasks/01900000-0000-7000-8000-{:012x}/logs",
            sender + 1
        )
    };
    let requests: Vec<Request> = (0..SENDERS)
        .map(|sender| Request::post(&path(sender), &body))
        .collect();
    let mut sent = [0_u64; SENDERS];
    let mut swarm = Swarm::open(daemon.address, SENDERS)?;
    let tally = swarm.converse(sizes.turn * 2, |sender, answer| {
        if let (Some(answer), Some(sent)) = (answer, sent.get_mut(sender)) {
            answer.expect(&[201])?;
            *sent += LINES as u64;
            let last = answer.json()?.get("last_sequence").and_then(Value::as_u64);
            ensure!(
                last == Some(*sent),
                "{last:?} is told as the last line, of {sent}"
            );
        }
        Ok(requests.get(sender).cloned())
    })?;
    daemon.stop(&scene.place)?;
    let kept = scene.target.number("SELECT count(*) FROM queue_logs")?;
    let told: u64 = sent.iter().sum();
    ensure!(
        kept == told,
        "{kept} lines are kept, of {told} that were acknowledged"
    );
    let label = format!(
        "{}, lines kept, {LINES} to a request, {SENDERS} senders",
        kind.word()
    );
    let rate = tally.per_second() * LINES as f64;
    let key = kind.key("lines", "linesPostgres");
    Ok(vec![Row::goal(
        key,
        &label,
        rate,
        Unit::PerSecond,
        Goal::AtLeast(100_000.0),
    )])
}
