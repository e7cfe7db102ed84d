//! What happened to a queue under faults, told by everybody who saw a part of it, and a checker
//! of the whole.
//!
//! The witnesses are: who submitted and was answered, workers that claimed and reported, the work
//! itself, whoever looked at workers meanwhile, and in the end the record. [`check`] is pure; what
//! it finds are contradictions between them, or between the record and what a queue promises.
//!
//! Workers write a line to a file for each event, before and after it, so that nothing is unknown
//! but the answer that a killed one did not hear:
//!
//! | line | says |
//! |---|---|
//! | `started WORKER` | it begins anew, and knows of nothing before |
//! | `claimed WORKER TASK ATTEMPT` | it was given an attempt |
//! | `begin WORKER TASK ATTEMPT`, `end` … | the work itself began, and came to its end |
//! | `sent WORKER TASK ATTEMPT SAID` | a report goes out: `completed`, `failed` or `infrastructure` |
//! | `answered WORKER TASK ATTEMPT SAID STATUS` | what a report was answered with |

mod rules;

use std::collections::{BTreeMap, BTreeSet};

pub use rules::{Violation, check};

/// Everything that was seen.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Submissions that were acknowledged.
    pub submissions: Vec<Submission>,
    /// Attempts that workers know they were given.
    pub claims: Vec<Hold>,
    /// Reports, one for each time it was sent.
    pub reports: Vec<Report>,
    /// What the work itself says.
    pub executions: Vec<Execution>,
    /// How many tasks a worker was seen to hold at one moment.
    pub sightings: Vec<(String, usize)>,
    /// The record, when all is over.
    pub records: Vec<Record>,
    /// How many tasks each worker may hold.
    pub places: BTreeMap<String, usize>,
    /// Causes of failed and lost attempts that the faults explain.
    pub explained: BTreeSet<String>,
    /// By how many milliseconds the times of two daemons may differ.
    pub skew: i64,
}

/// An acknowledged submission.
#[derive(Clone, Debug)]
pub struct Submission {
    /// Its idempotency key, and the id of its problem.
    pub key: String,
    /// The task's id.
    pub task: String,
    /// Who acknowledged it.
    pub daemon: String,
}

/// One attempt at one task by one worker.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hold {
    /// The task's id.
    pub task: String,
    /// The number of the attempt.
    pub attempt: u64,
    /// Who makes it.
    pub worker: String,
}

/// A report that was sent.
#[derive(Clone, Debug)]
pub struct Report {
    /// What it is about.
    pub hold: Hold,
    /// What it says.
    pub said: Said,
    /// What it was answered.
    pub answer: Heard,
}

/// What a report says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// The work is done.
    Completed,
    /// The work failed.
    Failed,
    /// The machine failed.
    Infrastructure,
}

/// What a report was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It was taken.
    Accepted,
    /// It changed nothing.
    Refused,
    /// Nobody heard the answer, or it was none.
    Unknown,
}

/// What the work says of itself.
#[derive(Clone, Debug)]
pub struct Execution {
    /// What is carried out.
    pub hold: Hold,
    /// Whether this is its end.
    pub ended: bool,
}

/// A task, as it is on record.
#[derive(Clone, Debug)]
pub struct Record {
    /// Its id.
    pub task: String,
    /// The key it was submitted under.
    pub key: String,
    /// `pending`, `running`, `completed` ...
    pub status: String,
    /// The number of its last attempt.
    pub attempt: u64,
    /// Who says in its result or error that it is theirs.
    pub by: Option<Hold>,
    /// The attempts that are over.
    pub attempts: Vec<Tried>,
}

/// An attempt, as it is on record.
#[derive(Clone, Debug)]
pub struct Tried {
    /// Its number.
    pub number: u64,
    /// Who made it.
    pub worker: String,
    /// When it was claimed, in milliseconds.
    pub started: i64,
    /// When it was over.
    pub ended: i64,
    /// `completed`, `failed`, `lost` ...
    pub outcome: String,
    /// Whose doing that was.
    pub cause: String,
}

impl History {
    /// Takes in what workers and the work wrote.
    ///
    /// # Panics
    /// When a line is none of the documented ones.
    pub fn take_lines(&mut self, text: &str) {
        let mut sent: Vec<(Hold, Said)> = Vec::new();
        for line in text.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let known = match words.as_slice() {
                ["started", _] => true,
                ["claimed", worker, task, attempt] => {
                    self.claims.push(hold(worker, task, attempt));
                    true
                }
                [word @ ("begin" | "end"), worker, task, attempt] => {
                    self.executions.push(Execution {
                        hold: hold(worker, task, attempt),
                        ended: *word == "end",
                    });
                    true
                }
                ["sent", worker, task, attempt, said] => {
                    sent.push((hold(worker, task, attempt), said_of(said)));
                    true
                }
                ["answered", worker, task, attempt, said, status] => {
                    let report = (hold(worker, task, attempt), said_of(said));
                    let place = sent.iter().position(|one| *one == report);
                    place.map(|place| sent.remove(place));
                    self.reports.push(Report {
                        hold: report.0,
                        said: report.1,
                        answer: match *status {
                            "200" => Heard::Accepted,
                            "404" | "409" => Heard::Refused,
                            _ => Heard::Unknown,
                        },
                    });
                    place.is_some()
                }
                _ => false,
            };
            assert!(known, "no event: {line:?}");
        }
        self.reports
            .extend(sent.into_iter().map(|(hold, said)| Report {
                hold,
                said,
                answer: Heard::Unknown,
            }));
    }
}

fn hold(worker: &str, task: &str, attempt: &str) -> Hold {
    match attempt.parse() {
        Ok(attempt) => Hold {
            task: task.to_owned(),
            attempt,
            worker: worker.to_owned(),
        },
        Err(error) => panic!("the number of an attempt: {attempt:?}: {error}"),
    }
}

fn said_of(word: &str) -> Said {
    match word {
        "completed" => Said::Completed,
        "failed" => Said::Failed,
        "infrastructure" => Said::Infrastructure,
        _ => panic!("no report: {word:?}"),
    }
}
