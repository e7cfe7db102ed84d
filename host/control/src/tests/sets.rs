//! Wanted sets and idempotency keys.

use taskwright_model::{Namespace, TaskKey, TaskName};

use super::support::*;
use crate::request::{IdempotencyKey, SetAnswer, SetElement, SubmitError};

async fn set(world: &FakeWorld, names: &[&str]) -> SetAnswer {
    let wanted = names.iter();
    let wanted = wanted.map(|name| SetElement::Wanted(submission(name, spec())));
    let native = Namespace::native();
    world.control.set(native, wanted.collect()).await.unwrap()
}

fn names(answer: &SetAnswer) -> Vec<String> {
    let tasks = answer.tasks.iter();
    tasks.map(|task| task.key.name.to_string()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_set_makes_what_is_missing_and_deletes_the_rest() {
    let world = world().await;
    let answer = set(&world, &["a", "b"]).await;
    assert_eq!(names(&answer), ["a", "b"]);
    let answer = set(&world, &["b", "c"]).await;
    // Live ones first, those being deleted last.
    assert_eq!(names(&answer), ["b", "c", "a"]);
    assert!(answer.tasks[2].deleting_since.is_some());
    world
        .until("a is gone", |world| world.get("a").is_none())
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_repeated_set_commits_nothing() {
    let world = world().await;
    set(&world, &["a", "b"]).await;
    world.until_state("a", "running").await;
    world.until_state("b", "running").await;
    let before = world.journal.asked();
    for _ in 0..10 {
        let answer = set(&world, &["a", "b"]).await;
        assert!(answer.problems.is_empty());
        settle().await;
    }
    assert_eq!(world.journal.asked(), before);
}

#[tokio::test(start_paused = true)]
async fn an_empty_set_leaves_other_namespaces_alone() {
    let world = world().await;
    let mut other = submission("a", spec());
    other.key.namespace = Namespace::parse("tessia").unwrap();
    let key = other.key.clone();
    world.control.submit(other).await.unwrap();
    set(&world, &["a"]).await;
    set(&world, &[]).await;
    world
        .until("ours is gone", |world| world.get("a").is_none())
        .await;
    assert!(world.control.get(&key).unwrap().deleting_since.is_none());
}

#[tokio::test(start_paused = true)]
async fn another_spec_under_a_present_name_is_told_and_the_present_one_kept() {
    let world = world().await;
    set(&world, &["a"]).await;
    let mut other = spec();
    other.priority = 9;
    let wanted = vec![
        SetElement::Wanted(submission("a", other)),
        SetElement::Wanted(submission("b", spec())),
    ];
    let answer = world
        .control
        .set(Namespace::native(), wanted)
        .await
        .unwrap();
    assert_eq!(names(&answer), ["a", "b"]);
    assert_eq!(answer.problems.len(), 1);
    assert!(answer.problems[0].kept_present);
    assert_eq!(world.get("a").unwrap().spec.priority, 0);
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_read_is_kept() {
    let world = world().await;
    set(&world, &["a", "b"]).await;
    let keep = SetElement::Keep(TaskName::parse("a").unwrap());
    let answer = world
        .control
        .set(Namespace::native(), vec![keep])
        .await
        .unwrap();
    assert_eq!(names(&answer), ["a", "b"]);
    assert!(answer.tasks[0].deleting_since.is_none());
    assert!(answer.tasks[1].deleting_since.is_some());
}

#[tokio::test(start_paused = true)]
async fn an_element_that_cannot_be_had_spoils_no_other() {
    let world = world_with(|config| config.max_tasks = 2).await;
    let problem = crate::port::SpecProblem {
        field: "/spec/process/command".into(),
        message: "is empty".into(),
    };
    let bad = Script {
        problems: vec![problem],
        ..Script::default()
    };
    script(&world, "bad", bad);
    let answer = set(&world, &["bad", "a", "b", "c"]).await;
    assert_eq!(names(&answer), ["a", "b"]);
    let told: Vec<_> = answer
        .problems
        .iter()
        .map(|problem| problem.name.as_str())
        .collect();
    assert_eq!(told, ["c", "bad"]);
}

fn keyed(name: &str, key: &str, fingerprint: u8) -> crate::Submission {
    let mut submission = submission(name, spec());
    submission.idempotency = Some(IdempotencyKey {
        key: key.into(),
        fingerprint: [fingerprint; 32],
    });
    submission
}

#[tokio::test(start_paused = true)]
async fn a_repeat_with_the_same_key_answers_with_the_first_task() {
    let mut world = world().await;
    let first = world.control.submit(keyed("a", "k", 1)).await.unwrap();
    assert!(!first.replayed);
    for _ in 0..2 {
        let again = world.control.submit(keyed("a", "k", 1)).await.unwrap();
        assert!(again.replayed);
        assert_eq!(again.task.id, first.task.id);
        // And a restart forgets no key.
        world.restart(crate::Config::default()).await;
    }
    assert_eq!(
        world
            .control
            .counts()
            .iter()
            .map(|one| one.1)
            .sum::<usize>(),
        1
    );
}

#[tokio::test(start_paused = true)]
async fn a_key_used_for_another_request_is_refused() {
    let world = world().await;
    world.control.submit(keyed("a", "k", 1)).await.unwrap();
    let refused = world.control.submit(keyed("b", "k", 2)).await;
    assert!(matches!(refused, Err(SubmitError::KeyReused)));
    // Another namespace has keys of its own.
    let mut other = keyed("b", "k", 2);
    other.key = TaskKey {
        namespace: Namespace::parse("tessia").unwrap(),
        ..other.key
    };
    assert!(world.control.submit(other).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_key_is_forgotten_after_a_day() {
    let world = world().await;
    world.control.submit(keyed("a", "k", 1)).await.unwrap();
    tokio::time::sleep(crate::port::KEY_LIFETIME).await;
    let anew = world.control.submit(keyed("b", "k", 2)).await.unwrap();
    assert!(!anew.replayed);
}

#[tokio::test(start_paused = true)]
async fn a_key_of_a_request_that_was_not_kept_is_free() {
    let world = world().await;
    world.journal.fail_next(1);
    assert!(world.control.submit(keyed("a", "k", 1)).await.is_err());
    let other = world.control.submit(keyed("b", "k", 2)).await.unwrap();
    assert!(!other.replayed);
    let again = world.control.submit(keyed("b", "k", 2)).await.unwrap();
    assert!(again.replayed);
}

#[tokio::test(start_paused = true)]
async fn a_name_in_use_and_a_full_book_are_refused() {
    let world = world_with(|config| config.max_tasks = 1).await;
    world.submit("a", spec()).await.unwrap();
    let refused = world.submit("a", spec()).await.unwrap_err();
    assert!(matches!(
        refused,
        SubmitError::Exists {
            deleting: false,
            ..
        }
    ));
    let refused = world.submit("b", spec()).await.unwrap_err();
    assert!(matches!(refused, SubmitError::TooMany { most: 1 }));
}
