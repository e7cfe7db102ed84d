//! Each rule with a history that breaks it, and one that breaks none.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use super::super::{Execution, Report, Submission};
use super::*;

/// A good one: the first worker of `a` was lost, its report came too late; `b` went well.
fn good() -> History {
    let mut history = History {
        submissions: vec![submission("ka", "a"), submission("kb", "b")],
        sightings: vec![("w1".to_owned(), 1)],
        records: vec![
            Record {
                task: "a".to_owned(),
                key: "ka".to_owned(),
                status: "completed".to_owned(),
                attempt: 2,
                by: Some(hold("a", 2, "w2")),
                attempts: vec![
                    tried(1, "w1", (0, 2000), ("lost", "worker-lost")),
                    tried(2, "w2", (3000, 4000), ("completed", "reported")),
                ],
            },
            Record {
                task: "b".to_owned(),
                key: "kb".to_owned(),
                status: "completed".to_owned(),
                attempt: 1,
                by: Some(hold("b", 1, "w1")),
                attempts: vec![tried(1, "w1", (2500, 2600), ("completed", "reported"))],
            },
        ],
        places: [("w1".to_owned(), 1), ("w2".to_owned(), 1)].into(),
        explained: ["worker-lost".to_owned()].into(),
        skew: 10,
        ..History::default()
    };
    history.take_lines(
        "claimed w1 a 1\nbegin w1 a 1\nclaimed w2 a 2\nbegin w2 a 2\nend w2 a 2\n\
         sent w2 a 2 completed\nanswered w2 a 2 completed 200\nend w1 a 1\n\
         sent w1 a 1 completed\nanswered w1 a 1 completed 409\n\
         claimed w1 b 1\nbegin w1 b 1\nend w1 b 1\nsent w1 b 1 completed\n",
    );
    history
}

fn submission(key: &str, task: &str) -> Submission {
    Submission {
        key: key.to_owned(),
        task: task.to_owned(),
        daemon: "one".to_owned(),
    }
}

fn hold(task: &str, attempt: u64, worker: &str) -> Hold {
    Hold {
        task: task.to_owned(),
        attempt,
        worker: worker.to_owned(),
    }
}

fn tried(number: u64, worker: &str, (started, ended): (i64, i64), how: (&str, &str)) -> Tried {
    Tried {
        number,
        worker: worker.to_owned(),
        started,
        ended,
        outcome: how.0.to_owned(),
        cause: how.1.to_owned(),
    }
}

/// Breaks the good history; answers what is found.
#[track_caller]
fn after(break_it: impl FnOnce(&mut History)) -> Vec<Violation> {
    let mut history = good();
    break_it(&mut history);
    check(&history)
}

/// That a broken history shows this, and nothing else.
#[track_caller]
fn shows(violation: Violation, break_it: impl FnOnce(&mut History)) {
    assert_eq!(after(break_it), [violation]);
}

#[test]
fn a_good_history_shows_nothing() {
    assert_eq!(check(&good()), []);
    let of_b = good().reports.into_iter().find(|one| one.hold.task == "b");
    assert_eq!(of_b.map(|one| one.answer), Some(Heard::Unknown));
}

#[test]
fn a_lost_task_is_found() {
    let lost = Violation::Lost {
        task: "c".to_owned(),
        daemon: "one".to_owned(),
    };
    shows(lost, |history| {
        history.submissions.push(submission("kc", "c"))
    });
}

#[test]
fn a_stuck_task_is_found() {
    for status in ["pending", "running"] {
        let stuck = Violation::Stuck {
            task: "b".to_owned(),
            status: status.to_owned(),
        };
        shows(stuck, |history| {
            history.records[1].status = status.to_owned()
        });
    }
}

#[test]
fn one_submission_with_two_tasks_is_found_and_one_that_nobody_made() {
    let doubled = Violation::Doubled {
        key: "ka".to_owned(),
    };
    let strange = Violation::Strange {
        task: "b".to_owned(),
    };
    shows(doubled.clone(), |history| {
        // Both were acknowledged.
        history.submissions[1].key = "ka".to_owned();
        history.records[1].key = "ka".to_owned();
    });
    shows(doubled, |history| {
        // One was not, and is there nevertheless.
        history.submissions.pop();
        history.records[1].key = "ka".to_owned();
    });
    shows(strange, |history| drop(history.submissions.pop()));
}

#[test]
fn an_attempt_of_two_workers_is_found_whoever_tells() {
    let twice = |worker: &str| Violation::GivenTwice {
        task: "b".to_owned(),
        attempt: 1,
        workers: vec!["w1".to_owned(), worker.to_owned()],
    };
    shows(twice("w2"), |history| {
        history.claims.push(hold("b", 1, "w2"))
    });
    shows(twice("w3"), |history| {
        history.executions.push(Execution {
            hold: hold("b", 1, "w3"),
            ended: false,
        });
    });
    // The record names another than the witnesses.
    let found = after(|history| history.records[1].attempts[0].worker = "w2".to_owned());
    assert!(found.contains(&twice("w2")), "{found:?}");
}

#[test]
fn an_attempt_that_began_twice_is_found() {
    let twice = Violation::RanTwice {
        hold: hold("b", 1, "w1"),
    };
    shows(twice, |history| history.take_lines("begin w1 b 1\n"));
}

#[test]
fn two_results_that_count_are_found() {
    let found = after(|history| {
        let first = history.reports.iter_mut().find(|one| one.hold.attempt == 1);
        first.unwrap().answer = Heard::Accepted;
    });
    let both = Violation::BothCount {
        task: "a".to_owned(),
    };
    let contradicted = Violation::Contradicted {
        hold: hold("a", 1, "w1"),
    };
    assert_eq!(found, [both, contradicted]);
    let found = after(|history| {
        let first = &mut history.records[0].attempts[0];
        (first.outcome, first.cause) = ("completed".to_owned(), "reported".to_owned());
    });
    assert!(
        found.contains(&Violation::BothCount {
            task: "a".to_owned()
        }),
        "{found:?}"
    );
}

#[test]
fn an_accepted_report_that_the_record_denies_is_found() {
    let contradicted = Violation::Contradicted {
        hold: hold("a", 1, "w1"),
    };
    shows(contradicted, |history| {
        history.reports.push(Report {
            hold: hold("a", 1, "w1"),
            said: Said::Infrastructure,
            answer: Heard::Accepted,
        });
    });
}

#[test]
fn a_refused_report_that_counts_is_found() {
    let refuse = |history: &mut History| {
        let of_b = history.reports.iter_mut().find(|one| one.hold.task == "b");
        of_b.unwrap().answer = Heard::Refused;
    };
    let hold = hold("b", 1, "w1");
    assert_eq!(
        after(refuse),
        [
            Violation::RefusedCounts { hold: hold.clone() },
            Violation::Unwitnessed { hold: hold.clone() }
        ]
    );
    // The answer to the first may have been lost on the way.
    let found = after(|history| {
        refuse(history);
        history.reports.push(Report {
            hold,
            said: Said::Completed,
            answer: Heard::Unknown,
        });
    });
    assert_eq!(found, []);
}

#[test]
fn an_end_that_nobody_saw_is_found() {
    let unseen = || Violation::Unwitnessed {
        hold: hold("b", 1, "w1"),
    };
    shows(unseen(), |history| {
        history
            .executions
            .retain(|one| one.hold.task != "b" || !one.ended);
    });
    shows(unseen(), |history| {
        // What it said was something else.
        let of_b = history.reports.iter_mut().find(|one| one.hold.task == "b");
        of_b.unwrap().said = Said::Failed;
    });
}

#[test]
fn a_result_of_another_attempt_is_found() {
    let wrong = || Violation::WrongResult {
        hold: hold("a", 2, "w2"),
    };
    shows(wrong(), |history| {
        history.records[0].by = Some(hold("a", 1, "w1"))
    });
    shows(wrong(), |history| history.records[0].by = None);
}

#[test]
fn wrong_numbers_are_found() {
    let misnumbered = || Violation::Misnumbered {
        task: "a".to_owned(),
    };
    shows(misnumbered(), |history| history.records[0].attempt = 3);
    shows(misnumbered(), |history| {
        drop(history.records[0].attempts.remove(0))
    });
}

#[test]
fn a_task_with_two_workers_at_the_same_time_is_found() {
    let overlap = |attempt| Violation::Overlap {
        task: "a".to_owned(),
        attempt,
    };
    shows(overlap(2), |history| {
        history.records[0].attempts[1].started = 1999;
    });
    shows(overlap(1), |history| {
        history.records[0].attempts[0].started = 2001;
    });
}

#[test]
fn a_worker_that_holds_too_much_is_found() {
    let many = |worker: &str, held| Violation::TooMany {
        worker: worker.to_owned(),
        held,
    };
    shows(many("w1", 2), |history| {
        history.sightings.push(("w1".to_owned(), 2))
    });
    shows(many("w1", 2), |history| {
        history.records[0].attempts[0].ended = 2550
    });
    shows(many("w2", 1), |history| {
        history.places.remove("w2");
    });
    // Less than the clocks differ.
    assert_eq!(
        after(|history| history.records[0].attempts[0].ended = 2509),
        []
    );
}

#[test]
fn an_end_that_no_fault_explains_is_found() {
    let unexplained = Violation::Unexplained {
        hold: hold("a", 1, "w1"),
        cause: "worker-lost".to_owned(),
    };
    shows(unexplained, |history| history.explained.clear());
}
