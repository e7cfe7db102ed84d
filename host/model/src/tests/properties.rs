//! What holds after any events in any order.

use std::time::Duration;

use proptest::prelude::*;

use super::script::{at, round, spec, task};
use crate::deadline::{Due, next_due};
use crate::id::AttemptNumber;
use crate::state::apply;
use crate::{
    Answer, Effect, Event, ExitStatus, Happening, Limit, Outcome, RetryPolicy, StopReason, Task,
    TaskState,
};

fn outcomes() -> impl Strategy<Value = Outcome> {
    let message = String::new;
    prop_oneof![
        any::<u8>().prop_map(|code| Outcome::Exited {
            code,
            message: None
        }),
        Just(Outcome::Signaled { signal: 9 }),
        Just(Outcome::OutOfMemory {
            exit: Some(ExitStatus::Signal(9))
        }),
        Just(Outcome::Lost { message: message() }),
        Just(Outcome::Infrastructure {
            fault: crate::Fault::Machine,
            message: message()
        }),
    ]
}

fn dues() -> impl Strategy<Value = Due> {
    prop::sample::select(vec![
        Due::Limit(Limit::Queue),
        Due::Limit(Limit::Start),
        Due::Limit(Limit::Idle),
        Due::Limit(Limit::Run),
        Due::IdleCheck,
        Due::Retry,
        Due::StopOverdue,
        Due::Answer,
    ])
}

fn events() -> impl Strategy<Value = Event> {
    let attempt = || (1..4_u32).prop_map(AttemptNumber);
    prop_oneof![
        4 => Just(Event::Launched),
        3 => attempt().prop_map(|attempt| Event::Started {
            attempt, process: None, strategy_state: b"s".as_slice().into(), remarks: crate::Remarks::default() }),
        1 => attempt().prop_map(|attempt| Event::Progressed {
            attempt, strategy_state: b"t".as_slice().into(), remarks: crate::Remarks::default() }),
        3 => (attempt(), outcomes()).prop_map(|(attempt, outcome)| {
            Event::AttemptEnded { attempt, outcome, remarks: crate::Remarks::default() } }),
        1 => prop::option::of(0..20_u64).prop_map(|grace| Event::StopRequested {
            grace: grace.map(Duration::from_secs) }),
        1 => Just(Event::DeleteRequested),
        2 => prop::sample::select(vec!["pass", "deny", "ask", "silent"])
            .prop_map(|word| Event::Reviewed(Box::new(round(word)))),
        1 => prop::sample::select(vec![Answer::Approve, Answer::Deny]).prop_map(|answer| {
            Event::Answered { answer, by: String::new(), reason: String::new() } }),
        4 => dues().prop_map(Event::Due),
    ]
}

fn check_shape(task: &Task) {
    let most = usize::try_from(task.spec.retry.max_attempts.max(1)).unwrap();
    assert!(task.attempts.len() <= most, "more attempts than allowed");
    for (number, attempt) in (1..).zip(&task.attempts) {
        assert_eq!(attempt.number, AttemptNumber(number), "numbered in order");
        assert_eq!(attempt.outcome.is_some(), attempt.ended_at.is_some());
    }
    let open = task.attempts.iter().filter(|one| one.ended_at.is_none());
    assert_eq!(
        open.count(),
        usize::from(task.state.is_active()),
        "an attempt is open just while the task is active"
    );
    if task.state.is_active() {
        assert!(task.attempt().unwrap().ended_at.is_none());
    }
    assert!(!task.state.is_ended() || next_due(task, None).is_none());
    let waits = matches!(task.state, TaskState::Pending { .. });
    assert!(waits || task.hold().is_none(), "held and not waiting");
}

fn check_step(before: &Task, event: &Event, after: &Task, effects: &[Effect]) {
    assert!(
        !before.state.is_ended() || after.state == before.state,
        "an ended task left its end"
    );
    assert!(before.deleting_since.is_none() || after.deleting_since == before.deleting_since);
    for (old, new) in before.attempts.iter().zip(&after.attempts) {
        assert!(
            old.ended_at.is_none() || old == new,
            "a former attempt was rewritten"
        );
    }
    let ended = effects
        .iter()
        .any(|effect| matches!(effect, Effect::Tell(Happening::Ended(_))));
    assert_eq!(ended, after.state.is_ended() && !before.state.is_ended());
    let (TaskState::Stopping { reason, .. }, Event::AttemptEnded { outcome, .. }) =
        (&before.state, event)
    else {
        return;
    };
    let kept = after.attempt().unwrap().outcome.as_ref().unwrap();
    assert_eq!(kept.exit(), outcome.exit(), "a stop lost the exit");
    match (reason, kept) {
        (StopReason::Canceled, Outcome::Canceled { .. }) => {}
        (StopReason::TimedOut(fired), Outcome::TimedOut { limit, .. }) => assert_eq!(fired, limit),
        other => panic!("the reason of the stop was lost: {other:?}"),
    }
}

proptest! {
    #[test]
    fn no_order_of_events_breaks_a_task(
        max_attempts in 0..4_u32,
        events in prop::collection::vec(events(), 0..60),
    ) {
        let retry = RetryPolicy { max_attempts, ..RetryPolicy::default() };
        let mut task = task(spec(retry));
        let mut starts = Vec::new();
        let mut removals = 0;
        let mut releases = Vec::new();
        for (second, event) in (1..).zip(&events) {
            // A refusal has no task to give, so it cannot have changed one.
            let Ok((next, effects)) = apply(&task, event, at(second)) else { continue };
            check_step(&task, event, &next, &effects);
            for effect in &effects {
                match effect {
                    Effect::Start(attempt) => starts.push(*attempt),
                    Effect::Release(attempt) => releases.push(*attempt),
                    Effect::Remove => {
                        removals += 1;
                        prop_assert!(next.state.is_ended() && next.deleting_since.is_some());
                    }
                    Effect::Stop { attempt, .. } | Effect::Terminate(attempt) => {
                        prop_assert_eq!(*attempt, task.attempt().unwrap().number);
                    }
                    Effect::Tell(_) => {}
                }
            }
            task = next;
            check_shape(&task);
        }
        let made: Vec<_> = task.attempts.iter().map(|attempt| attempt.number).collect();
        prop_assert_eq!(starts, made, "each attempt is started exactly once");
        let over = task.attempts.iter().filter(|one| one.ended_at.is_some());
        let over: Vec<_> = over.map(|attempt| attempt.number).collect();
        prop_assert_eq!(releases, over, "each attempt that ended is released exactly once");
        let gone = task.state.is_ended() && task.deleting_since.is_some();
        prop_assert_eq!(removals, usize::from(gone), "removed exactly once");
    }

    #[test]
    fn the_same_event_at_the_same_time_gives_the_same_answer(
        events in prop::collection::vec(events(), 0..30),
    ) {
        let mut task = task(spec(RetryPolicy { max_attempts: 3, ..RetryPolicy::default() }));
        for (second, event) in (1..).zip(&events) {
            let before = task.clone();
            let first = apply(&task, event, at(second));
            prop_assert_eq!(&first, &apply(&task, event, at(second)));
            prop_assert_eq!(&task, &before);
            if let Ok((next, _)) = first {
                task = next;
            }
        }
    }
}
