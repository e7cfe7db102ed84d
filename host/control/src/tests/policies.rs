//! What policies can do to a task, and what they cannot.

use taskwright_model::{Answer, Hold, Mode, TaskState};

use super::support::*;
use crate::dispatcher::Config;
use crate::fake::CANNOT_RUN;
use crate::port::{Clock as _, OnError, PolicyScope, PolicyTerms, PolicyVerdict, StrategyEvent};
use crate::request::{ControlError, LabelMatch, SetElement, SubmitError};

fn terms() -> PolicyTerms {
    PolicyTerms::default()
}

fn ordered(order: i32) -> PolicyTerms {
    PolicyTerms { order, ..terms() }
}

fn warns() -> PolicyTerms {
    let mode = Mode::Warn;
    PolicyTerms { mode, ..terms() }
}

fn deny(reason: &str) -> PolicyVerdict {
    PolicyVerdict::Deny {
        reason: reason.to_owned(),
        field: "/priority".to_owned(),
    }
}

fn change(priority: i32) -> PolicyVerdict {
    PolicyVerdict::Change {
        patch: priority.to_string(),
        reason: String::new(),
    }
}

fn ask() -> PolicyVerdict {
    PolicyVerdict::Ask {
        question: "may it?".to_owned(),
        within: None,
        otherwise: None,
    }
}

fn put(world: &FakeWorld, name: &str, terms: PolicyTerms, verdict: PolicyVerdict) {
    world
        .policies
        .put(name, terms, move |_| Ok(verdict.clone()));
}

/// The verdicts on a task, as `policy stage word`.
fn verdicts(world: &FakeWorld, name: &str) -> Vec<String> {
    let task = world.get(name).unwrap();
    let review = task.review.as_ref().unwrap();
    let told = review.verdicts.iter().map(|verdict| {
        let (stage, said) = (verdict.stage.as_str(), verdict.said.as_str());
        format!("{} {stage} {said}", verdict.policy)
    });
    told.collect()
}

fn happenings(world: &FakeWorld) -> Vec<&'static str> {
    let feed = world.journal.feed();
    feed.iter().map(|entry| entry.happening.as_str()).collect()
}

async fn answer(world: &FakeWorld, name: &str, answer: Answer) -> Result<(), ControlError> {
    let reason = "because".to_owned();
    let answered = world
        .control
        .answer(task_key(name), None, answer, "ann".to_owned(), reason);
    answered.await.map(|task| assert!(task.is_some()))
}

#[tokio::test(start_paused = true)]
async fn all_are_asked_in_order_at_submission_and_before_the_launch() {
    let world = world().await;
    put(&world, "second", ordered(2), PolicyVerdict::Allow);
    put(&world, "first", ordered(1), PolicyVerdict::Allow);
    running(&world, "a", spec()).await;
    let wanted = [
        "first submit allow",
        "second submit allow",
        "first launch allow",
        "second launch allow",
    ];
    assert_eq!(verdicts(&world, "a"), wanted);
    assert_eq!(happenings(&world), ["submitted", "launched", "running"]);
}

#[tokio::test(start_paused = true)]
async fn without_policies_nobody_is_asked_and_nothing_is_kept() {
    let world = world().await;
    let task = running(&world, "a", spec()).await;
    assert_eq!(task.review, None);
}

#[tokio::test(start_paused = true)]
async fn what_is_denied_at_submission_is_not_stored() {
    let world = world().await;
    put(&world, "strict", terms(), deny("too dear"));
    put(&world, "after", ordered(1), PolicyVerdict::Allow);
    let refused = world.submit("a", spec()).await.unwrap_err();
    let SubmitError::Denied { policy, field, .. } = &refused else {
        panic!("{refused}");
    };
    assert_eq!((&**policy, &**field), ("strict", "/priority"));
    assert_eq!(
        refused.to_string(),
        "policy strict refuses the task: too dear"
    );
    assert!(world.get("a").is_none());
    assert_eq!(world.policies.asked().len(), 1, "nobody else is asked");
}

#[tokio::test(start_paused = true)]
async fn what_is_denied_before_its_launch_ends_without_an_attempt() {
    let world = world().await;
    world.policies.put("late", terms(), |request| {
        Ok(match request.stage {
            taskwright_model::Stage::Submit => PolicyVerdict::Allow,
            taskwright_model::Stage::Launch => deny("not now"),
        })
    });
    world.submit("a", spec()).await.unwrap();
    assert_eq!(end_of(&world, "a").await, "denied");
    assert!(world.get("a").unwrap().attempts.is_empty());
    assert_eq!(world.strategies.starts(), []);
}

#[tokio::test(start_paused = true)]
async fn a_change_counts_for_what_comes_after_it_and_is_remembered() {
    let world = world().await;
    put(&world, "first", ordered(1), change(5));
    world.policies.put("second", ordered(2), |request| {
        assert_eq!(&*request.document, "5");
        Ok(PolicyVerdict::Allow)
    });
    let task = running(&world, "a", spec()).await;
    assert_eq!(task.spec.priority, 5);
    assert_eq!(task.submitted_spec().priority, 0);
    // What a controller repeats is what it submitted, not what became of it.
    let wanted = vec![SetElement::Wanted(submission("a", spec()))];
    let namespace = task.key.namespace.clone();
    let answer = world.control.set(namespace, wanted).await.unwrap();
    assert!(answer.problems.is_empty(), "{:?}", answer.problems);
}

#[tokio::test(start_paused = true)]
async fn a_change_that_cannot_run_undoes_nobody_elses() {
    let world = world().await;
    let open = |order| PolicyTerms {
        on_error: OnError::Open,
        ..ordered(order)
    };
    put(&world, "capper", ordered(1), change(5));
    put(&world, "opener", open(2), change(CANNOT_RUN));
    let task = running(&world, "a", spec()).await;
    assert_eq!(task.spec.priority, 5, "what the first made of it holds");
    // The other way round: the one whose change cannot run holds the task, whoever comes after it.
    let world = self::world().await;
    put(&world, "box", ordered(1), change(CANNOT_RUN));
    put(&world, "tag", open(2), change(7));
    world.submit("a", spec()).await.unwrap();
    settle().await;
    let held = world.get("a").unwrap();
    let Some(Hold::Broken { policy, .. }) = held.hold() else {
        panic!("{:?}", held.state);
    };
    assert_eq!(policy, "box");
    assert_eq!(world.strategies.starts(), []);
}

#[tokio::test(start_paused = true)]
async fn a_warning_changes_nothing_and_is_told() {
    let world = world().await;
    put(&world, "a", warns(), deny("no"));
    put(
        &world,
        "b",
        PolicyTerms {
            order: 1,
            ..warns()
        },
        change(5),
    );
    put(
        &world,
        "c",
        PolicyTerms {
            order: 2,
            ..warns()
        },
        ask(),
    );
    let broken = PolicyTerms {
        order: 3,
        ..warns()
    };
    world.policies.put("d", broken, |_| Err("trap".to_owned()));
    let task = running(&world, "a", spec()).await;
    assert_eq!(task.spec.priority, 0);
    let told = verdicts(&world, "a");
    let submit = ["a submit deny", "b submit change", "c submit ask"];
    assert_eq!(told[..3], submit);
    assert_eq!(told[3], "d submit policy-error");
}

#[tokio::test(start_paused = true)]
async fn what_is_so_already_is_no_change() {
    let world = world().await;
    put(&world, "capper", ordered(1), change(5));
    put(&world, "again", ordered(2), change(5));
    let task = running(&world, "a", spec()).await;
    assert_eq!(task.spec.priority, 5);
    let told = [
        "capper submit change",
        "again submit allow",
        "capper launch allow",
        "again launch allow",
    ];
    assert_eq!(verdicts(&world, "a"), told);
}

#[tokio::test(start_paused = true)]
async fn a_question_waits_for_its_answer_also_across_a_restart() {
    let mut world = world().await;
    put(&world, "careful", terms(), ask());
    world.submit("a", spec()).await.unwrap();
    settle().await;
    world.restart(crate::Config::default()).await;
    settle().await;
    assert!(matches!(
        world.get("a").unwrap().hold(),
        Some(Hold::Asked { .. })
    ));
    assert_eq!(world.strategies.starts(), []);
    answer(&world, "a", Answer::Approve).await.unwrap();
    world.until_state("a", "running").await;
    let last = world.policies.asked().pop().unwrap().1;
    assert!(last.approved, "and it is told that it was answered");
    assert_eq!(
        happenings(&world),
        ["submitted", "held", "approved", "launched", "running"]
    );
    let again = answer(&world, "a", Answer::Deny).await.unwrap_err();
    assert!(matches!(again, ControlError::NotAsked));
}

#[tokio::test(start_paused = true)]
async fn a_no_ends_it_and_says_who_said_so() {
    let world = world().await;
    put(&world, "careful", terms(), ask());
    world.submit("a", spec()).await.unwrap();
    answer(&world, "a", Answer::Deny).await.unwrap();
    let ended = world.until_state("a", "ended").await;
    assert_eq!(ending(&ended), "denied");
    let told = format!("{:?}", ended.outcome().unwrap());
    assert!(told.contains("ann decided so: because"), "{told}");
}

#[tokio::test(start_paused = true)]
async fn nobody_answers_and_the_policys_own_answer_counts() {
    for (otherwise, wanted) in [(Answer::Approve, "running"), (Answer::Deny, "ended")] {
        let world = world().await;
        let terms = PolicyTerms {
            ask_within: Some(seconds(60)),
            ask_otherwise: Some(otherwise),
            ..terms()
        };
        put(&world, "careful", terms, ask());
        world.submit("a", spec()).await.unwrap();
        let began = world.clock.now();
        let task = world.until_state("a", wanted).await;
        let waited = world.clock.now().since(began);
        assert!(waited >= seconds(60) && waited < seconds(62), "{waited:?}");
        assert_eq!(task.review.as_ref().unwrap().answers.len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_policy_without_a_verdict_holds_the_task_and_is_asked_again() {
    let world = world().await;
    world
        .policies
        .put("broken", terms(), |_| Err("it trapped".to_owned()));
    let task = world.submit("a", spec()).await.unwrap();
    let Some(Hold::Broken { message, .. }) = task.hold() else {
        panic!("{task:?}");
    };
    assert_eq!(message, "it trapped");
    tokio::time::sleep(seconds(600)).await;
    let task = world.get("a").unwrap();
    assert_eq!(task.state.as_str(), "pending");
    let Some(Hold::Broken { tries, .. }) = task.hold() else {
        panic!("{task:?}");
    };
    assert!((10..20).contains(tries), "{tries} tries in 10 minutes");
    put(&world, "broken", terms(), PolicyVerdict::Allow);
    world.until_state("a", "running").await;
    let told = verdicts(&world, "a");
    assert_eq!(told, ["broken submit allow", "broken launch allow"]);
}

/// A task that was asked about so often in vain that the pauses are long.
async fn held_for_long(world: &FakeWorld) {
    world
        .policies
        .put("broken", terms(), |_| Err("it trapped".to_owned()));
    world.submit("a", spec()).await.unwrap();
    tokio::time::sleep(seconds(600)).await;
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_is_loaded_anew_is_asked_at_once() {
    let world = world().await;
    held_for_long(&world).await;
    let began = world.clock.now();
    put(&world, "broken", terms(), PolicyVerdict::Allow);
    world.until_state("a", "running").await;
    let waited = world.clock.now().since(began);
    assert!(waited < seconds(1), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_what_gave_no_verdict_is_asked_at_once() {
    let mut world = world().await;
    held_for_long(&world).await;
    let before = world.policies.asked().len();
    let began = world.clock.now();
    world.restart(Config::default()).await;
    world
        .until("it is asked again", |world| {
            world.policies.asked().len() > before
        })
        .await;
    let waited = world.clock.now().since(began);
    assert!(waited < seconds(1), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_is_gone_holds_nothing_any_longer() {
    let world = world().await;
    world
        .policies
        .put("broken", terms(), |_| Err("it trapped".to_owned()));
    world.submit("a", spec()).await.unwrap();
    world.policies.clear();
    world.until_state("a", "running").await;
}

#[tokio::test(start_paused = true)]
async fn a_day_without_a_verdict_ends_the_task_and_does_not_blame_it() {
    let world = world().await;
    world
        .policies
        .put("broken", terms(), |_| Err("it trapped".to_owned()));
    world.submit("a", spec()).await.unwrap();
    tokio::time::sleep(seconds(25 * 3600)).await;
    assert_eq!(end_of(&world, "a").await, "policy-error");
}

#[tokio::test(start_paused = true)]
async fn what_fails_open_lets_the_task_go_on() {
    let world = world().await;
    let open = PolicyTerms {
        on_error: OnError::Open,
        ..terms()
    };
    world
        .policies
        .put("broken", open, |_| Err("it trapped".to_owned()));
    running(&world, "a", spec()).await;
}

#[tokio::test(start_paused = true)]
async fn a_change_that_makes_no_task_is_the_policys_fault() {
    let world = world().await;
    let nonsense = PolicyVerdict::Change {
        patch: "nonsense".to_owned(),
        reason: String::new(),
    };
    put(&world, "broken", terms(), nonsense);
    let task = world.submit("a", spec()).await.unwrap();
    assert!(matches!(task.hold(), Some(Hold::Broken { .. })));
}

#[tokio::test(start_paused = true)]
async fn only_tasks_in_its_scope_are_its_business() {
    let world = world().await;
    let scope = |change: fn(&mut PolicyScope)| {
        let mut terms = terms();
        change(&mut terms.scope);
        terms
    };
    for (name, terms) in [
        (
            "a",
            scope(|scope| scope.namespaces = vec!["other-*".into()]),
        ),
        (
            "b",
            scope(|scope| scope.runtimes = vec!["contain?r".into()]),
        ),
        (
            "c",
            scope(|scope| scope.labels = vec![LabelMatch::Exists("gpu".into())]),
        ),
    ] {
        put(&world, name, terms, deny("mine"));
    }
    running(&world, "a", spec()).await;
    let mut labelled = spec();
    labelled.labels.insert("gpu".into(), "1".into());
    let refused = world.submit("b", labelled).await.unwrap_err();
    assert!(refused.to_string().contains("policy c "), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn every_attempt_is_reviewed() {
    let world = world().await;
    world.policies.put("twice", terms(), |request| {
        Ok(match request.task.attempt.0 {
            1 => PolicyVerdict::Allow,
            _ => deny("once is enough"),
        })
    });
    let task = running(&world, "a", retried(3, seconds(1))).await;
    world.exit(task.id, 1);
    assert_eq!(end_of(&world, "a").await, "denied");
    assert_eq!(world.get("a").unwrap().attempts.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_held_task_can_be_stopped_and_a_limit_of_one_goes_on() {
    let world = world_with(|config| config.max_active = 1).await;
    let labelled = PolicyTerms {
        scope: PolicyScope {
            labels: vec![LabelMatch::Exists("ask".into())],
            ..PolicyScope::default()
        },
        ..terms()
    };
    put(&world, "careful", labelled, ask());
    let mut asked = spec();
    asked.priority = 9;
    asked.labels.insert("ask".into(), String::new());
    world.submit("held", asked).await.unwrap();
    running(&world, "free", spec()).await;
    let stopped = world.control.stop(task_key("held"), None).await;
    let stopped = stopped.unwrap().unwrap();
    assert!(matches!(stopped.state, TaskState::Ended { .. }));
    assert_eq!(ending(&stopped), "canceled");
    assert!(
        !world
            .strategies
            .events()
            .iter()
            .any(|(.., event)| matches!(event, StrategyEvent::StopRequested { .. }))
    );
}

#[tokio::test(start_paused = true)]
async fn a_store_that_refuses_loses_no_verdict() {
    let world = world().await;
    put(&world, "careful", terms(), ask());
    world.submit("a", spec()).await.unwrap();
    world.journal.fail_next(3);
    let refused = answer(&world, "a", Answer::Approve).await;
    assert!(matches!(refused, Err(ControlError::Store { .. })));
    answer_until(&world).await;
    world.until_state("a", "running").await;
}

async fn answer_until(world: &FakeWorld) {
    for _ in 0..100 {
        if answer(world, "a", Answer::Approve).await.is_ok() {
            return;
        }
        settle().await;
    }
    panic!("the answer is never taken");
}
