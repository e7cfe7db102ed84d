//! What policies add to a submission: tasks that stay queued, as in (e), with labels that put some
//! or none of the policies in charge, in turns.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::json;

use super::made::Made;
use super::{Lengths, with_folder};
use crate::bench::Bench;
use crate::bench::client::{Connection, Request};
use crate::bench::daemon;
use crate::bench::stats::{quantile, seconds};

/// Submissions in one block.
const BLOCK: usize = 20;

/// Median times of a submission.
pub(super) struct Submissions {
    pub(super) without: f64,
    /// By the lengths of the chain.
    pub(super) scripts: Lengths,
    pub(super) components: Lengths,
}

pub(super) fn measure(
    bench: &Bench,
    script: &Made,
    component: &Made,
    lengths: [usize; 3],
) -> anyhow::Result<Submissions> {
    let rounds = bench.pick(20, 3);
    let place = bench.place()?;
    let folder = place.path("plugins");
    fs::create_dir(&folder)?;
    // Each chain is about the tasks with its label.
    let mut labels = vec![String::new()];
    let mut policies = Vec::new();
    for (letter, policy) in [('s', script), ('c', component)] {
        for length in lengths {
            let label = format!("{letter}{length:02}");
            let lent =
                format!("[policy]\nlabels = [\"{label}\"]\n[settings]\nnobody-is-root = false\n");
            for number in 0..length {
                let name = format!("gate-{label}{number:02}");
                policies.push(policy.renamed(&name, &lent)?);
            }
            labels.push(label);
        }
    }
    for policy in &policies {
        policy.put(&folder)?;
    }
    // One place, taken by a sleeper: whatever else comes stays in the queue.
    let flags = ["--max-running", "1"];
    let daemon = with_folder(bench, &place, &folder, &flags)?;
    let mut connection = daemon.connect()?;
    for policy in &policies {
        policy.until_serving(&mut connection)?;
    }
    let sleeper = daemon::task("sleeper", &["/bin/sleep", "100000"]);
    connection
        .ask(&Request::post("/tasks", &sleeper))?
        .expect(&[201])?;
    let mut times: Vec<Vec<Duration>> = vec![Vec::new(); labels.len()];
    for round in 0..=rounds {
        for (label, times) in labels.iter().zip(&mut times) {
            let block = submit(&mut connection, round, label)?;
            // The first round fills caches.
            if round > 0 {
                times.extend(block);
            }
        }
    }
    daemon.stop(&place)?;
    let mut medians = times.iter().map(|times| quantile(&seconds(times), 0.5));
    let mut next = || medians.next().unwrap_or(0.0);
    Ok(Submissions {
        without: next(),
        scripts: [next(), next(), next()],
        components: [next(), next(), next()],
    })
}

/// Submits one block of tasks, one after another; the time of each.
fn submit(connection: &mut Connection, round: usize, label: &str) -> anyhow::Result<Vec<Duration>> {
    let labels = match label {
        "" => json!({}),
        label => json!({ label: "" }),
    };
    let one = |number| {
        let body = json!({
            "name": format!("k-{round}-{number}-of{label}"), "labels": labels,
            "process": {"command": ["/bin/true"]}, "limits": {"runSeconds": 60},
        });
        let request = Request::post("/tasks", &body.to_string());
        let begun = Instant::now();
        let answer = connection.ask(&request)?;
        let took = begun.elapsed();
        answer.expect(&[201])?;
        Ok(took)
    };
    (0..BLOCK).map(one).collect()
}
