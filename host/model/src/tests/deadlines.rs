//! When something is due, and how long a retry waits.

use std::time::Duration;

use super::script::{at, attempts, spec, task};
use crate::deadline::{Due, STOP_MARGIN, next_due};
use crate::id::AttemptNumber;
use crate::outcome::Outcome;
use crate::retry::next_attempt_after;
use crate::state::apply;
use crate::{Event, Limit, RetryPolicy, Task, TaskState, TimeLimits, Timestamp};

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn limits() -> TimeLimits {
    TimeLimits {
        queue: Some(seconds(100)),
        start: Some(seconds(200)),
        idle: Some(seconds(30)),
        run: Some(seconds(400)),
        grace: seconds(10),
    }
}

fn limited(limits: TimeLimits) -> Task {
    let mut spec = spec(RetryPolicy::default());
    spec.limits = limits;
    task(spec)
}

fn after(task: &Task, event: &Event, now: Timestamp) -> Task {
    apply(task, event, now).unwrap().0
}

fn running(limits: TimeLimits, since: i64) -> Task {
    let started = Event::Started {
        attempt: AttemptNumber(1),
        process: None,
        strategy_state: [].into(),
        remarks: crate::Remarks::default(),
    };
    let launched = after(&limited(limits), &Event::Launched, at(1));
    after(&launched, &started, at(since))
}

#[test]
fn a_task_without_limits_is_never_due() {
    let none = TimeLimits::default();
    assert_eq!(next_due(&limited(none.clone()), None), None);
    assert_eq!(next_due(&running(none, 5), None), None);
}

#[test]
fn the_queue_limit_counts_from_submission_and_only_to_the_first_attempt() {
    let waiting = limited(limits());
    assert_eq!(
        next_due(&waiting, None),
        Some((at(100), Due::Limit(Limit::Queue)))
    );
    let mut again = after(&waiting, &Event::Launched, at(1));
    again.state = TaskState::Pending {
        not_before: Some(at(500)),
    };
    assert_eq!(next_due(&again, None), Some((at(500), Due::Retry)));
    again.state = TaskState::Pending { not_before: None };
    assert_eq!(next_due(&again, None), None);
}

#[test]
fn the_start_limit_counts_from_launch() {
    let launched = after(&limited(limits()), &Event::Launched, at(7));
    assert_eq!(
        next_due(&launched, None),
        Some((at(207), Due::Limit(Limit::Start)))
    );
}

#[test]
fn the_idle_limit_moves_with_the_output_and_never_before_the_start() {
    let task = running(limits(), 50);
    assert_eq!(next_due(&task, None), Some((at(80), Due::IdleCheck)));
    assert_eq!(
        next_due(&task, Some(at(60))),
        Some((at(90), Due::IdleCheck))
    );
    assert_eq!(next_due(&task, Some(at(3))), Some((at(80), Due::IdleCheck)));
}

#[test]
fn the_earlier_of_idle_and_run_comes_first() {
    let task = running(limits(), 50);
    assert_eq!(
        next_due(&task, Some(at(440))),
        Some((at(450), Due::Limit(Limit::Run)))
    );
}

#[test]
fn a_stop_is_overdue_after_grace_and_margin() {
    let stopping = after(
        &running(limits(), 50),
        &Event::StopRequested { grace: None },
        at(60),
    );
    assert_eq!(
        next_due(&stopping, None),
        Some((at(70).plus(STOP_MARGIN), Due::StopOverdue))
    );
}

#[test]
fn an_ended_task_is_never_due() {
    let ended = after(
        &limited(limits()),
        &Event::StopRequested { grace: None },
        at(3),
    );
    assert_eq!(next_due(&ended, Some(at(2))), None);
}

#[test]
fn endless_limits_do_not_overflow() {
    let mut endless = limits();
    endless.idle = Some(Duration::MAX);
    endless.run = Some(Duration::MAX);
    let (moment, _) = next_due(&running(endless, 50), None).unwrap();
    assert_eq!(moment, Timestamp::from_millis(i64::MAX));
}

fn failed() -> Outcome {
    Outcome::Exited {
        code: 1,
        message: None,
    }
}

#[test]
fn the_wait_doubles_up_to_its_longest() {
    let policy = RetryPolicy {
        max_attempts: u32::MAX,
        backoff: seconds(1),
        max_backoff: seconds(60),
        ..RetryPolicy::default()
    };
    let wait = |number| next_attempt_after(&policy, number, &failed());
    let waits: Vec<_> = (1..=8).map(|number| wait(number).unwrap()).collect();
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60].map(seconds));
    assert_eq!(wait(u32::MAX - 1), Some(seconds(60)));
    assert_eq!(wait(u32::MAX), None);
}

#[test]
fn the_longest_wait_rules_over_the_first() {
    let policy = RetryPolicy {
        max_backoff: Duration::ZERO,
        ..attempts(3)
    };
    assert_eq!(
        next_attempt_after(&policy, 1, &failed()),
        Some(Duration::ZERO)
    );
    let policy = RetryPolicy {
        backoff: Duration::MAX,
        max_backoff: Duration::MAX,
        ..attempts(9)
    };
    assert_eq!(
        next_attempt_after(&policy, 8, &failed()),
        Some(Duration::MAX)
    );
}

#[test]
fn only_named_causes_are_tried_again() {
    let policy = RetryPolicy {
        on: vec!["lost".into()],
        ..attempts(3)
    };
    let lost = Outcome::Lost {
        message: String::new(),
    };
    assert!(next_attempt_after(&policy, 1, &lost).is_some());
    assert_eq!(next_attempt_after(&policy, 1, &failed()), None);
}

#[test]
fn success_stop_and_refusal_are_final_even_if_named() {
    let policy = RetryPolicy {
        on: ["exit", "canceled", "denied"].map(str::to_owned).to_vec(),
        ..attempts(3)
    };
    let success = Outcome::Exited {
        code: 0,
        message: None,
    };
    let denied = Outcome::Denied {
        policy: "hours".into(),
        reason: "at night".into(),
    };
    for outcome in [success, denied, Outcome::Canceled { exit: None }] {
        assert_eq!(next_attempt_after(&policy, 1, &outcome), None);
    }
    assert!(next_attempt_after(&policy, 1, &failed()).is_some());
}
