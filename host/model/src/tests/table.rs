//! Every event in every state, and the stories that take more than one step.

use super::script::{EVENTS, STATES, attempts, check, check_with};

/// State, event, what comes of it. Complete: see [`every_pair_is_written_down`].
#[rustfmt::skip]
const TABLE: &[(&str, &str, &str)] = &[
    ("pending", "launch", "starting; tell launched, start 1"),
    ("pending", "started", "refused: NotStarted"),
    ("pending", "progress", "refused: NotStarted"),
    ("pending", "exit 7", "refused: NotStarted"),
    ("pending", "lost", "refused: NotStarted"),
    ("pending", "other-exit", "refused: NotStarted"),
    ("pending", "stop", "ended(canceled); tell ended"),
    ("pending", "stop 3", "ended(canceled); tell ended"),
    ("pending", "delete", "ended(canceled)+delete; tell deleting, tell ended, remove"),
    ("pending", "due queue", "ended(queue timeout); tell ended"),
    ("pending", "due start", "refused: NotDue"),
    ("pending", "due idle", "refused: NotDue"),
    ("pending", "due run", "refused: NotDue"),
    ("pending", "due retry", "unchanged pending"),
    ("pending", "due idle-check", "refused: NotDue"),
    ("pending", "due overdue", "refused: NotDue"),
    ("pending", "other-started", "refused: NotStarted"),
    ("starting", "launch", "refused: AlreadyStarted"),
    ("starting", "started", "running; tell running"),
    ("starting", "progress", "starting"),
    ("starting", "exit 7", "ended(exit 7); release 1, tell ended"),
    ("starting", "lost", "ended(lost); release 1, tell ended"),
    ("starting", "other-exit", "refused: OtherAttempt"),
    ("starting", "stop", "stopping(canceled, 10s); tell stopping, stop 1 10s"),
    ("starting", "stop 3", "stopping(canceled, 3s); tell stopping, stop 1 3s"),
    ("starting", "delete", "stopping(canceled, 10s)+delete; tell deleting, tell stopping, stop 1 10s"),
    ("starting", "due queue", "refused: NotDue"),
    ("starting", "due start", "stopping(start, 10s); tell stopping, stop 1 10s"),
    ("starting", "due idle", "refused: NotDue"),
    ("starting", "due run", "refused: NotDue"),
    ("starting", "due retry", "refused: NotDue"),
    ("starting", "due idle-check", "refused: NotDue"),
    ("starting", "due overdue", "refused: NotDue"),
    ("starting", "other-started", "refused: OtherAttempt"),
    ("running", "launch", "refused: AlreadyStarted"),
    ("running", "started", "refused: AlreadyStarted"),
    ("running", "progress", "running"),
    ("running", "exit 7", "ended(exit 7); release 1, tell ended"),
    ("running", "lost", "ended(lost); release 1, tell ended"),
    ("running", "other-exit", "refused: OtherAttempt"),
    ("running", "stop", "stopping(canceled, 10s); tell stopping, stop 1 10s"),
    ("running", "stop 3", "stopping(canceled, 3s); tell stopping, stop 1 3s"),
    ("running", "delete", "stopping(canceled, 10s)+delete; tell deleting, tell stopping, stop 1 10s"),
    ("running", "due queue", "refused: NotDue"),
    ("running", "due start", "refused: NotDue"),
    ("running", "due idle", "stopping(idle, 10s); tell stopping, stop 1 10s"),
    ("running", "due run", "stopping(run, 10s); tell stopping, stop 1 10s"),
    ("running", "due retry", "refused: NotDue"),
    ("running", "due idle-check", "refused: NotDue"),
    ("running", "due overdue", "refused: NotDue"),
    ("running", "other-started", "refused: AlreadyStarted"),
    ("stopping", "launch", "refused: AlreadyStarted"),
    ("stopping", "started", "stopping(canceled, 10s); stop 1 10s"),
    ("stopping", "progress", "stopping(canceled, 10s)"),
    ("stopping", "exit 7", "ended(canceled exit 7); release 1, tell ended"),
    ("stopping", "lost", "ended(canceled); release 1, tell ended"),
    ("stopping", "other-exit", "refused: OtherAttempt"),
    ("stopping", "stop", "unchanged stopping(canceled, 10s)"),
    ("stopping", "stop 3", "stopping(canceled, 3s); stop 1 3s"),
    ("stopping", "delete", "stopping(canceled, 10s)+delete; tell deleting"),
    ("stopping", "due queue", "refused: NotDue"),
    ("stopping", "due start", "refused: NotDue"),
    ("stopping", "due idle", "refused: NotDue"),
    ("stopping", "due run", "refused: NotDue"),
    ("stopping", "due retry", "refused: NotDue"),
    ("stopping", "due idle-check", "refused: NotDue"),
    ("stopping", "due overdue", "ended(canceled); terminate 1, release 1, tell ended"),
    ("stopping", "other-started", "refused: OtherAttempt"),
    ("timed", "launch", "refused: AlreadyStarted"),
    ("timed", "started", "stopping(run, 10s); stop 1 10s"),
    ("timed", "progress", "stopping(run, 10s)"),
    ("timed", "exit 7", "ended(run timeout exit 7); release 1, tell ended"),
    ("timed", "lost", "ended(run timeout); release 1, tell ended"),
    ("timed", "other-exit", "refused: OtherAttempt"),
    ("timed", "stop", "unchanged stopping(run, 10s)"),
    ("timed", "stop 3", "stopping(run, 3s); stop 1 3s"),
    ("timed", "delete", "stopping(run, 10s)+delete; tell deleting"),
    ("timed", "due queue", "refused: NotDue"),
    ("timed", "due start", "refused: NotDue"),
    ("timed", "due idle", "refused: NotDue"),
    ("timed", "due run", "refused: NotDue"),
    ("timed", "due retry", "refused: NotDue"),
    ("timed", "due idle-check", "refused: NotDue"),
    ("timed", "due overdue", "ended(run timeout); terminate 1, release 1, tell ended"),
    ("timed", "other-started", "refused: OtherAttempt"),
    ("deleting", "launch", "refused: AlreadyStarted"),
    ("deleting", "started", "stopping(canceled, 10s)+delete; stop 1 10s"),
    ("deleting", "progress", "stopping(canceled, 10s)+delete"),
    ("deleting", "exit 7", "ended(canceled exit 7)+delete; release 1, tell ended, remove"),
    ("deleting", "lost", "ended(canceled)+delete; release 1, tell ended, remove"),
    ("deleting", "other-exit", "refused: OtherAttempt"),
    ("deleting", "stop", "unchanged stopping(canceled, 10s)+delete"),
    ("deleting", "stop 3", "stopping(canceled, 3s)+delete; stop 1 3s"),
    ("deleting", "delete", "unchanged stopping(canceled, 10s)+delete"),
    ("deleting", "due queue", "refused: NotDue"),
    ("deleting", "due start", "refused: NotDue"),
    ("deleting", "due idle", "refused: NotDue"),
    ("deleting", "due run", "refused: NotDue"),
    ("deleting", "due retry", "refused: NotDue"),
    ("deleting", "due idle-check", "refused: NotDue"),
    ("deleting", "due overdue", "ended(canceled)+delete; terminate 1, release 1, tell ended, remove"),
    ("deleting", "other-started", "refused: OtherAttempt"),
    ("ended", "launch", "refused: AlreadyEnded"),
    ("ended", "started", "refused: AlreadyEnded"),
    ("ended", "progress", "refused: AlreadyEnded"),
    ("ended", "exit 7", "refused: AlreadyEnded"),
    ("ended", "lost", "refused: AlreadyEnded"),
    ("ended", "other-exit", "refused: AlreadyEnded"),
    ("ended", "stop", "refused: AlreadyEnded"),
    ("ended", "stop 3", "refused: AlreadyEnded"),
    ("ended", "delete", "ended(exit 0)+delete; tell deleting, remove"),
    ("ended", "due queue", "refused: AlreadyEnded"),
    ("ended", "due start", "refused: AlreadyEnded"),
    ("ended", "due idle", "refused: AlreadyEnded"),
    ("ended", "due run", "refused: AlreadyEnded"),
    ("ended", "due retry", "refused: AlreadyEnded"),
    ("ended", "due idle-check", "refused: AlreadyEnded"),
    ("ended", "due overdue", "refused: AlreadyEnded"),
    ("ended", "other-started", "refused: AlreadyEnded"),
    ("pending", "reviewed pass", "unchanged pending"),
    ("pending", "reviewed deny", "ended(denied); tell ended"),
    ("pending", "reviewed ask", "asked; tell held"),
    ("pending", "reviewed silent", "silent; tell held"),
    ("pending", "answer yes", "refused: NotAsked"),
    ("pending", "answer no", "refused: NotAsked"),
    ("pending", "due answer", "refused: NotDue"),
    ("asked", "launch", "refused: Held"),
    ("asked", "started", "refused: NotStarted"),
    ("asked", "progress", "refused: NotStarted"),
    ("asked", "exit 7", "refused: NotStarted"),
    ("asked", "lost", "refused: NotStarted"),
    ("asked", "other-exit", "refused: NotStarted"),
    ("asked", "stop", "ended(canceled); tell ended"),
    ("asked", "stop 3", "ended(canceled); tell ended"),
    ("asked", "delete", "ended(canceled)+delete; tell deleting, tell ended, remove"),
    ("asked", "due queue", "ended(queue timeout); tell ended"),
    ("asked", "due start", "refused: NotDue"),
    ("asked", "due idle", "refused: NotDue"),
    ("asked", "due run", "refused: NotDue"),
    ("asked", "due retry", "unchanged asked"),
    ("asked", "due idle-check", "refused: NotDue"),
    ("asked", "due overdue", "refused: NotDue"),
    ("asked", "other-started", "refused: NotStarted"),
    ("asked", "reviewed pass", "pending"),
    ("asked", "reviewed deny", "ended(denied); tell ended"),
    ("asked", "reviewed ask", "asked"),
    ("asked", "reviewed silent", "silent; tell held"),
    ("asked", "answer yes", "pending; tell approved"),
    ("asked", "answer no", "ended(denied); tell ended"),
    ("asked", "due answer", "ended(denied); tell ended"),
    ("silent", "launch", "refused: Held"),
    ("silent", "started", "refused: NotStarted"),
    ("silent", "progress", "refused: NotStarted"),
    ("silent", "exit 7", "refused: NotStarted"),
    ("silent", "lost", "refused: NotStarted"),
    ("silent", "other-exit", "refused: NotStarted"),
    ("silent", "stop", "ended(canceled); tell ended"),
    ("silent", "stop 3", "ended(canceled); tell ended"),
    ("silent", "delete", "ended(canceled)+delete; tell deleting, tell ended, remove"),
    ("silent", "due queue", "ended(queue timeout); tell ended"),
    ("silent", "due start", "refused: NotDue"),
    ("silent", "due idle", "refused: NotDue"),
    ("silent", "due run", "refused: NotDue"),
    ("silent", "due retry", "silent, due"),
    ("silent", "due idle-check", "refused: NotDue"),
    ("silent", "due overdue", "refused: NotDue"),
    ("silent", "other-started", "refused: NotStarted"),
    ("silent", "reviewed pass", "pending"),
    ("silent", "reviewed deny", "ended(denied); tell ended"),
    ("silent", "reviewed ask", "asked; tell held"),
    ("silent", "reviewed silent", "silent"),
    ("silent", "answer yes", "refused: NotAsked"),
    ("silent", "answer no", "refused: NotAsked"),
    ("silent", "due answer", "refused: NotDue"),
    ("starting", "reviewed pass", "refused: AlreadyStarted"),
    ("starting", "reviewed deny", "refused: AlreadyStarted"),
    ("starting", "reviewed ask", "refused: AlreadyStarted"),
    ("starting", "reviewed silent", "refused: AlreadyStarted"),
    ("starting", "answer yes", "refused: NotAsked"),
    ("starting", "answer no", "refused: NotAsked"),
    ("starting", "due answer", "refused: NotDue"),
    ("running", "reviewed pass", "refused: AlreadyStarted"),
    ("running", "reviewed deny", "refused: AlreadyStarted"),
    ("running", "reviewed ask", "refused: AlreadyStarted"),
    ("running", "reviewed silent", "refused: AlreadyStarted"),
    ("running", "answer yes", "refused: NotAsked"),
    ("running", "answer no", "refused: NotAsked"),
    ("running", "due answer", "refused: NotDue"),
    ("stopping", "reviewed pass", "refused: AlreadyStarted"),
    ("stopping", "reviewed deny", "refused: AlreadyStarted"),
    ("stopping", "reviewed ask", "refused: AlreadyStarted"),
    ("stopping", "reviewed silent", "refused: AlreadyStarted"),
    ("stopping", "answer yes", "refused: NotAsked"),
    ("stopping", "answer no", "refused: NotAsked"),
    ("stopping", "due answer", "refused: NotDue"),
    ("timed", "reviewed pass", "refused: AlreadyStarted"),
    ("timed", "reviewed deny", "refused: AlreadyStarted"),
    ("timed", "reviewed ask", "refused: AlreadyStarted"),
    ("timed", "reviewed silent", "refused: AlreadyStarted"),
    ("timed", "answer yes", "refused: NotAsked"),
    ("timed", "answer no", "refused: NotAsked"),
    ("timed", "due answer", "refused: NotDue"),
    ("deleting", "reviewed pass", "refused: AlreadyStarted"),
    ("deleting", "reviewed deny", "refused: AlreadyStarted"),
    ("deleting", "reviewed ask", "refused: AlreadyStarted"),
    ("deleting", "reviewed silent", "refused: AlreadyStarted"),
    ("deleting", "answer yes", "refused: NotAsked"),
    ("deleting", "answer no", "refused: NotAsked"),
    ("deleting", "due answer", "refused: NotDue"),
    ("ended", "reviewed pass", "refused: AlreadyEnded"),
    ("ended", "reviewed deny", "refused: AlreadyEnded"),
    ("ended", "reviewed ask", "refused: AlreadyEnded"),
    ("ended", "reviewed silent", "refused: AlreadyEnded"),
    ("ended", "answer yes", "refused: AlreadyEnded"),
    ("ended", "answer no", "refused: AlreadyEnded"),
    ("ended", "due answer", "refused: AlreadyEnded"),
];

#[test]
fn every_event_does_what_the_table_says() {
    for (state, event, expected) in TABLE {
        check(&format!("{state}; {event}"), expected);
    }
}

#[test]
fn every_pair_is_written_down() {
    for state in STATES {
        for event in EVENTS {
            let rows = TABLE
                .iter()
                .filter(|row| (row.0, row.1) == (state, event))
                .count();
            assert_eq!(rows, 1, "rows for {event} in {state}");
        }
    }
}

#[test]
fn stop_before_start_ends_without_an_attempt() {
    check("pending; stop", "ended(canceled); tell ended");
}

#[test]
fn exit_after_stop_keeps_the_exit_code() {
    check(
        "running; stop; exit 7",
        "ended(canceled exit 7); release 1, tell ended",
    );
}

#[test]
fn exit_after_timeout_keeps_limit_and_exit_code() {
    check(
        "running; due idle; exit 3",
        "ended(idle timeout exit 3); release 1, tell ended",
    );
}

#[test]
fn a_stop_does_not_rename_the_limit_that_fired_first() {
    check(
        "running; due run; stop; lost",
        "ended(run timeout); release 1, tell ended",
    );
}

#[test]
fn a_start_that_comes_after_the_stop_is_stopped_too() {
    check(
        "starting; stop; started",
        "stopping(canceled, 10s); stop 1 10s",
    );
}

#[test]
fn asking_again_never_wins_time() {
    check(
        "running; stop 3; stop 8",
        "unchanged stopping(canceled, 3s)",
    );
    // One second of three went by, so another three would be later than the first.
    check(
        "running; stop 3; stop 3",
        "unchanged stopping(canceled, 3s)",
    );
    check(
        "running; stop 9; stop 3",
        "stopping(canceled, 3s); stop 1 3s",
    );
}

#[test]
fn an_overdue_stop_ends_and_terminates() {
    check(
        "running; stop; due overdue",
        "ended(canceled); terminate 1, release 1, tell ended",
    );
}

#[test]
fn deleting_twice_removes_once() {
    check("ended; delete; delete", "unchanged ended(exit 0)+delete");
}

#[test]
fn a_failure_is_tried_again_while_attempts_are_left() {
    check_with(
        attempts(2),
        "running; exit 7",
        "waiting; tell retrying, terminate 1, release 1",
    );
    check_with(attempts(2), "running; exit 7; due retry", "pending");
    check_with(
        attempts(2),
        "running; exit 7; due retry; launch",
        "starting; tell launched, start 2",
    );
    check_with(
        attempts(2),
        "running; exit 7; due retry; launch; exit 8",
        "ended(exit 8); release 2, tell ended",
    );
}

#[test]
fn success_is_not_tried_again() {
    check_with(
        attempts(5),
        "running; exit 0",
        "ended(exit 0); release 1, tell ended",
    );
}

#[test]
fn a_stop_ends_the_waiting_for_a_retry() {
    check_with(
        attempts(5),
        "running; exit 7; stop",
        "ended(canceled); tell ended",
    );
}

#[test]
fn a_stop_during_a_timeout_is_not_answered_with_another_attempt() {
    check_with(
        attempts(5),
        "timed; exit 7",
        "waiting; tell retrying, terminate 1, release 1",
    );
    check_with(
        attempts(5),
        "timed; stop; exit 7",
        "ended(canceled exit 7); release 1, tell ended",
    );
}

#[test]
fn a_task_wished_away_is_not_tried_again() {
    check_with(
        attempts(5),
        "timed; delete; exit 7",
        "ended(run timeout exit 7)+delete; release 1, tell ended, remove",
    );
}

#[test]
fn an_end_of_a_former_attempt_changes_nothing() {
    check_with(
        attempts(2),
        "running; exit 7; due retry; launch; other-exit",
        "refused: OtherAttempt",
    );
    check_with(
        attempts(2),
        "running; exit 7; exit 8",
        "refused: NotStarted",
    );
}
