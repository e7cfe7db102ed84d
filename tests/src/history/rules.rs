//! The rules, each with the violation that it finds.

use std::collections::{BTreeMap, BTreeSet};

use super::{Heard, History, Hold, Record, Said, Tried};

/// What must not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// An acknowledged task is not on record.
    Lost {
        /// Its id.
        task: String,
        /// Who acknowledged it.
        daemon: String,
    },
    /// A task did not come to an end.
    Stuck {
        /// Its id.
        task: String,
        /// Where it got stuck.
        status: String,
    },
    /// One submission became two tasks.
    Doubled {
        /// Its key.
        key: String,
    },
    /// Nobody submitted it.
    Strange {
        /// Its id.
        task: String,
    },
    /// Two workers have the same attempt.
    GivenTwice {
        /// The task's id.
        task: String,
        /// The attempt.
        attempt: u64,
        /// Who they are.
        workers: Vec<String>,
    },
    /// One attempt was begun twice.
    RanTwice {
        /// Which.
        hold: Hold,
    },
    /// The results of two attempts were accepted.
    BothCount {
        /// The task's id.
        task: String,
    },
    /// A report was accepted, and the record says otherwise.
    Contradicted {
        /// What the report was about.
        hold: Hold,
    },
    /// A report was refused, and its attempt counts nevertheless.
    RefusedCounts {
        /// What the report was about.
        hold: Hold,
    },
    /// The record has an end that nobody reported, or of work that never ended.
    Unwitnessed {
        /// The attempt that counts.
        hold: Hold,
    },
    /// The result on record is not that of the attempt that counts.
    WrongResult {
        /// The attempt that counts.
        hold: Hold,
    },
    /// The numbers of the attempts on record are not 1, 2, 3 ..., or not all are there.
    Misnumbered {
        /// The task's id.
        task: String,
    },
    /// A task was with two workers at the same time, or ended before it began.
    Overlap {
        /// The task's id.
        task: String,
        /// The attempt that was over too late.
        attempt: u64,
    },
    /// A worker held more than it may.
    TooMany {
        /// Who.
        worker: String,
        /// How many.
        held: usize,
    },
    /// An attempt ended in a way that no fault explains.
    Unexplained {
        /// Which.
        hold: Hold,
        /// How.
        cause: String,
    },
}

/// Compares everything with everything; answers what must not be.
#[must_use]
pub fn check(history: &History) -> Vec<Violation> {
    let mut found = Vec::new();
    acknowledged(history, &mut found);
    given(history, &mut found);
    for record in &history.records {
        match record.status.as_str() {
            "pending" | "running" => found.push(Violation::Stuck {
                task: record.task.clone(),
                status: record.status.clone(),
            }),
            _ => ended(history, record, &mut found),
        }
    }
    places(history, &mut found);
    found
}

/// None is lost, none is there twice, none comes from nowhere.
fn acknowledged(history: &History, found: &mut Vec<Violation>) {
    let on_record: BTreeSet<&str> = history
        .records
        .iter()
        .map(|one| one.task.as_str())
        .collect();
    let mut by_key: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for submission in &history.submissions {
        by_key
            .entry(&submission.key)
            .or_default()
            .insert(&submission.task);
        if !on_record.contains(submission.task.as_str()) {
            found.push(Violation::Lost {
                task: submission.task.clone(),
                daemon: submission.daemon.clone(),
            });
        }
    }
    for record in &history.records {
        match by_key.get_mut(record.key.as_str()) {
            Some(tasks) => drop(tasks.insert(&record.task)),
            None => found.push(Violation::Strange {
                task: record.task.clone(),
            }),
        }
    }
    let doubled = by_key.into_iter().filter(|(_, tasks)| tasks.len() > 1);
    found.extend(doubled.map(|(key, _)| Violation::Doubled {
        key: key.to_owned(),
    }));
}

/// An attempt is one worker's, whoever tells of it, and is made once.
fn given(history: &History, found: &mut Vec<Violation>) {
    let mut workers: BTreeMap<(&str, u64), BTreeSet<&str>> = BTreeMap::new();
    let executed = history.executions.iter().map(|one| &one.hold);
    let reported = history.reports.iter().map(|one| &one.hold);
    for hold in history.claims.iter().chain(executed).chain(reported) {
        let attempt = workers.entry((&hold.task, hold.attempt));
        attempt.or_default().insert(&hold.worker);
    }
    for record in &history.records {
        for tried in &record.attempts {
            let attempt = workers.entry((&record.task, tried.number));
            attempt.or_default().insert(&tried.worker);
        }
    }
    for ((task, attempt), workers) in workers {
        if workers.len() > 1 {
            found.push(Violation::GivenTwice {
                task: task.to_owned(),
                attempt,
                workers: workers.into_iter().map(str::to_owned).collect(),
            });
        }
    }
    let mut begun = BTreeSet::new();
    for execution in history.executions.iter().filter(|one| !one.ended) {
        if !begun.insert(&execution.hold) {
            found.push(Violation::RanTwice {
                hold: execution.hold.clone(),
            });
        }
    }
}

fn hold_of(record: &Record, tried: &Tried) -> Hold {
    Hold {
        task: record.task.clone(),
        attempt: tried.number,
        worker: tried.worker.clone(),
    }
}

/// One attempt counts: the last, whose report was accepted and whose result is on record.
fn ended(history: &History, record: &Record, found: &mut Vec<Violation>) {
    let numbers = record.attempts.iter().map(|one| one.number);
    if !numbers.eq(1..=record.attempt) {
        found.push(Violation::Misnumbered {
            task: record.task.clone(),
        });
    }
    let mut before = i64::MIN;
    for tried in &record.attempts {
        if tried.started < before || tried.ended < tried.started {
            found.push(Violation::Overlap {
                task: record.task.clone(),
                attempt: tried.number,
            });
        }
        before = tried.ended;
        if tried.outcome != "completed" && !history.explained.contains(&tried.cause) {
            found.push(Violation::Unexplained {
                hold: hold_of(record, tried),
                cause: tried.cause.clone(),
            });
        }
    }
    reports(history, record, found);
    let Some(last) = record.attempts.last() else {
        return;
    };
    let counts = hold_of(record, last);
    // What the machines lost has no result, and nobody reported it.
    if last.outcome != "completed" && last.cause != "reported" {
        return;
    }
    if record.by.as_ref() != Some(&counts) {
        found.push(Violation::WrongResult {
            hold: counts.clone(),
        });
    }
    let said = match last.outcome.as_str() {
        "completed" => Said::Completed,
        _ => Said::Failed,
    };
    let of_it = || history.reports.iter().filter(|one| one.hold == counts);
    // Some workers leave no reports: then the work alone is the witness.
    let may_be_reported = of_it().next().is_none()
        || of_it().any(|one| one.said == said && one.answer != Heard::Refused);
    let ended = history.executions.iter();
    let was_done = ended.filter(|one| one.ended).any(|one| one.hold == counts);
    if !may_be_reported || !was_done {
        found.push(Violation::Unwitnessed { hold: counts });
    }
}

fn reports(history: &History, record: &Record, found: &mut Vec<Violation>) {
    let of_it = || {
        let all = history.reports.iter();
        all.filter(|report| report.hold.task == record.task)
    };
    let accepted: BTreeSet<&Hold> = of_it()
        .filter(|one| one.answer == Heard::Accepted && one.said != Said::Infrastructure)
        .map(|one| &one.hold)
        .collect();
    let completed = record
        .attempts
        .iter()
        .filter(|one| one.outcome == "completed");
    if accepted.len() > 1 || completed.count() > 1 {
        found.push(Violation::BothCount {
            task: record.task.clone(),
        });
    }
    for report in of_it() {
        let hold = &report.hold;
        let tried = record
            .attempts
            .iter()
            .find(|one| one.number == hold.attempt);
        let as_said = tried.is_some_and(|tried| {
            let outcome = match report.said {
                Said::Completed => ("completed", "reported"),
                Said::Failed => ("failed", "reported"),
                Said::Infrastructure => ("failed", "infrastructure"),
            };
            tried.worker == hold.worker && (tried.outcome.as_str(), tried.cause.as_str()) == outcome
        });
        let never_unknown = || {
            let mut same = of_it().filter(|one| one.hold == *hold);
            same.all(|one| one.answer == Heard::Refused)
        };
        match report.answer {
            Heard::Accepted if !as_said => {
                found.push(Violation::Contradicted { hold: hold.clone() })
            }
            // Of two that were sent, the first may have been taken, and its answer was lost.
            Heard::Refused if as_said && never_unknown() => {
                found.push(Violation::RefusedCounts { hold: hold.clone() });
            }
            Heard::Accepted | Heard::Refused | Heard::Unknown => {}
        }
    }
}

/// No worker held more than its places, whoever looked and by the times on record.
fn places(history: &History, found: &mut Vec<Violation>) {
    let mut most: BTreeMap<&str, usize> = BTreeMap::new();
    let mut changes: BTreeMap<&str, Vec<(i64, i32)>> = BTreeMap::new();
    for tried in history.records.iter().flat_map(|record| &record.attempts) {
        // Two daemons wrote those times: what overlaps by less than their clocks differ does not.
        let ended = tried.ended - history.skew;
        if ended > tried.started {
            let of_worker = changes.entry(&tried.worker).or_default();
            of_worker.extend([(tried.started, 1), (ended, -1)]);
        }
    }
    for (worker, mut changes) in changes {
        changes.sort_unstable();
        let (mut held, mut peak) = (0, 0);
        for (_, change) in changes {
            held += change;
            peak = peak.max(held);
        }
        most.insert(worker, usize::try_from(peak).unwrap_or(0));
    }
    for (worker, held) in &history.sightings {
        let peak = most.entry(worker).or_default();
        *peak = (*peak).max(*held);
    }
    for (worker, held) in most {
        if history.places.get(worker).is_none_or(|may| held > *may) {
            found.push(Violation::TooMany {
                worker: worker.to_owned(),
                held,
            });
        }
    }
}

#[cfg(test)]
mod tests;
