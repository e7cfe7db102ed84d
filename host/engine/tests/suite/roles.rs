//! Policies and observers that misbehave, as `containment` has it of runtimes.

use std::sync::Arc;

use taskwright_control::port::{
    FeedEntry, Notice, Observers, Plugins, Policies, PolicyVerdict, ReviewRequest, Strategies,
};
use taskwright_model::{Happening, RuntimeName, Stage, Timestamp};

use crate::support::{Bench, given, misbehaving, mischief, said};

/// The guest as runtime, policy and observer, told what to do besides.
fn in_all_roles(export: &str, what: &str) -> taskwright_engine::PluginSource {
    let roles = [("policy", "misbehave"), ("observer", "misbehave")];
    misbehaving(&[&roles[..], &[(export, what)]].concat())
}

pub(crate) fn request(attempt: u32) -> ReviewRequest {
    let mut task = given(mischief());
    task.attempt = taskwright_model::AttemptNumber(attempt);
    ReviewRequest {
        stage: Stage::Submit,
        task,
        runtime: RuntimeName::parse("misbehave").unwrap(),
        document: Arc::from("{}"),
        approved: false,
    }
}

pub(crate) fn notice() -> Notice {
    let task = mischief();
    Notice {
        entry: FeedEntry {
            sequence: 1,
            at: Timestamp::from_millis(0),
            task: task.id,
            key: task.key,
            happening: Happening::Submitted,
        },
        document: "{}".to_owned(),
        missed: 0,
    }
}

/// What a call of the role gave, after which everything else works.
async fn provoke(export: &str, what: &str) -> Result<String, String> {
    let bench = Bench::with_process().await;
    let source = in_all_roles(export, what);
    bench.runtimes.load(source).await.unwrap();
    let answer = match export {
        "review" => {
            let answer = bench.runtimes.review("misbehave", request(1)).await;
            answer.map(|verdict| match verdict {
                PolicyVerdict::Allow => String::new(),
                PolicyVerdict::Change { patch, reason } => patch + &reason,
                PolicyVerdict::Deny { reason, field } => reason + &field,
                PolicyVerdict::Ask { question, .. } => question,
            })
        }
        "notice" => {
            let answer = bench.runtimes.notice("misbehave", notice()).await;
            answer.map(|()| String::new())
        }
        other => panic!("{other} is not called here"),
    };
    bench.check_that_others_work().await;
    // The role that fails takes nothing from the plugin's others.
    bench.start(mischief()).await.unwrap();
    answer
}

#[track_caller]
fn check(said: &str, expected: &str) {
    assert!(said.contains(expected), "{said:?} lacks {expected:?}");
}

#[tokio::test]
async fn a_good_policy_and_a_good_observer_answer() {
    assert_eq!(provoke("review", "well").await, Ok(String::new()));
    assert_eq!(provoke("notice", "well").await, Ok(String::new()));
}

#[tokio::test]
async fn whatever_a_policy_or_an_observer_does_its_call_fails_alone() {
    for export in ["review", "notice"] {
        for (what, expected) in [
            ("trap", "it gave up"),
            ("panic", "a bug in"),
            ("exit", "3"),
            ("spin", "200 ms of CPU time"),
            ("fill", "200 ms of CPU time"),
            ("hog", "more memory"),
            ("recurse", "deeper"),
            ("sleep", "longer than the 2000 ms"),
        ] {
            let said = provoke(export, what).await.unwrap_err();
            check(&said, expected);
        }
    }
}

#[tokio::test]
async fn what_is_too_much_to_say_is_cut_or_not_taken() {
    check(
        &provoke("review", "huge-patch").await.unwrap_err(),
        "its patch has 1048576 bytes, at most 65536 are taken",
    );
    provoke("review", "giant-patch").await.unwrap_err();
    for (export, what) in [
        ("review", "huge-denial"),
        ("review", "huge-question"),
        ("review", "huge-error"),
        ("notice", "huge-error"),
    ] {
        let (Ok(said) | Err(said)) = provoke(export, what).await;
        assert!(
            !said.is_empty() && said.len() <= 8 << 10,
            "{what}: {}",
            said.len()
        );
    }
}

#[tokio::test]
async fn a_role_that_cannot_describe_itself_is_not_loaded() {
    for export in ["policy-describe", "observer-describe"] {
        for (what, expected) in [
            ("trap", "it gave up"),
            ("spin", "CPU time"),
            ("hog", "memory"),
        ] {
            let bench = Bench::with_process().await;
            let error = bench.runtimes.load(in_all_roles(export, what)).await;
            let said = said(&error.unwrap_err());
            check(&said, "could not describe itself");
            check(&said, expected);
            bench.check_that_others_work().await;
        }
    }
    for role in ["policy", "observer"] {
        let bench = Bench::with_process().await;
        let error = bench.runtimes.load(misbehaving(&[(role, "process")])).await;
        check(&said(&error.unwrap_err()), "it calls itself \"process\"");
    }
}

#[tokio::test]
async fn a_policy_that_only_fails_rests_and_is_not_asked() {
    let bench = Bench::with_process().await;
    let source = in_all_roles("review", "trap");
    bench.runtimes.load(source).await.unwrap();
    for _ in 0..5 {
        let error = bench.runtimes.review("misbehave", request(1)).await;
        check(&error.unwrap_err(), "it gave up");
    }
    let error = bench.runtimes.review("misbehave", request(1)).await;
    check(&error.unwrap_err(), "it rests for");
    let list = bench.runtimes.list().await;
    let found = list.iter().find(|info| info.name == "misbehave");
    assert_eq!(found.map(|info| (info.calls, info.faults)), Some((5, 5)));
    // A new load begins with a clean account.
    let source = in_all_roles("review", "well");
    bench.runtimes.load(source).await.unwrap();
    let verdict = bench.runtimes.review("misbehave", request(1)).await;
    assert_eq!(verdict, Ok(PolicyVerdict::Allow));
    let checked = bench.runtimes.validate(given(mischief())).await;
    assert_eq!(checked, Ok(Vec::new()));
}
