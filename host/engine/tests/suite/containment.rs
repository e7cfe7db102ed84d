//! Whatever a guest does: this call fails, in words, and the next one works.
//!
//! | what a plugin may do | shown by |
//! |---|---|
//! | loop without end, in code or in one long instruction | `an_endless_loop_uses_up_its_cpu_time`, `bulk_memory_work_without_end_is_ended_too` |
//! | take memory without end | `a_memory_hog_meets_its_limit` |
//! | recurse without end | `deep_recursion_ends_in_a_trap` |
//! | sleep | `sleeping_meets_the_deadline_and_costs_no_cpu_time` |
//! | trap, panic or exit in `validate`, `start`, `on-event` | `a_trap_in_any_export_ends_that_call_only` and the two after it |
//! | the same in `describe` and `probe` | `a_plugin_that_cannot_describe_itself_is_not_loaded`, `a_probe_that_traps_is_ill_health` |
//! | all of it as a policy or an observer | `roles::whatever_a_policy_or_an_observer_does_its_call_fails_alone`, `roles::a_role_that_cannot_describe_itself_is_not_loaded` |
//! | answer with too much: state, problems, sentences, kinds, schemas | `a_huge_answer_is_not_taken`, `what_is_said_of_health_and_ends_is_cut`, `a_plugin_that_cannot_describe_itself_is_not_loaded` |
//! | answer with too much: patches, reasons, questions | `roles::what_is_too_much_to_say_is_cut_or_not_taken` |
//! | ask with too much | `a_huge_argument_is_not_taken`, `talking_too_much_is_cut_not_punished` |
//! | call any function of the host without end | `imports::a_guest_that_calls_without_end_is_ended_by_its_own_fault` |
//! | wait in any function of the host that is never answered | `imports::a_function_that_is_never_answered_ends_the_call_and_is_named` |
//! | wait in one that meets a bug of ours | `imports::a_function_that_panics_is_not_the_plugins_fault` |
//! | put a pipe where the host looks for a file | `imports::a_pipe_in_the_place_of_a_file_makes_nobody_wait` |
//! | hang in many calls at a time | `a_crowd_of_calls_that_hang_leaves_turns_to_built_in_plugins`, `a_spinning_guest_leaves_its_thread_to_others` |
//! | fail again and again | `roles::a_policy_that_only_fails_rests_and_is_not_asked`, and a hundred thousand times: `isolation` |
//! | be no component, or a part of one | `world::bytes_that_are_no_component_are_named_so`, `hostile::a_file_that_is_cut_off_anywhere_is_refused` |
//! | be too large | `world::a_component_that_is_too_large_is_not_even_read`, and at the daemon `plugins::huge_files_and_those_that_anybody_may_write_are_not_read` |
//! | import everything, and what is not there | `hostile::a_component_that_imports_everything_is_told_some_of_it`, `hostile::interfaces_of_wasi_that_are_not_there_are_refused_with_their_name` |
//! | consist of thousands of types, functions, instances, or of itself | the others of `hostile` |
//! | miss the contract, in any function and any type of it | `corpus` |

use std::sync::Arc;
use std::time::{Duration, Instant};

use taskwright_capability::fake::Mood;
use taskwright_control::port::{Plugins, Step, Strategies, StrategyError, StrategyEvent};
use taskwright_engine::CallLimits;
use taskwright_model::Outcome;

use crate::support::{Bench, given, misbehaving, mischief, said, tight};

/// Calls an export of a guest told to misbehave in it, and gives what was said of it.
async fn provoke(export: &str, what: &str) -> String {
    let bench = Bench::with_misbehaving(&[(export, what)]).await;
    let task = given(mischief());
    let runtimes = &bench.runtimes;
    let error = match export {
        "validate" => runtimes.validate(task).await.map(drop),
        "start" => runtimes.start(task).await.map(drop),
        "on-event" => {
            let event = StrategyEvent::Recovered;
            let state = Arc::from(&b"kept"[..]);
            runtimes.on_event(task, state, event).await.map(drop)
        }
        other => panic!("{other} is not called here"),
    };
    bench.check_that_others_work().await;
    let faults = |list: Vec<taskwright_control::port::PluginInfo>| {
        let found = list.into_iter().find(|info| info.name == "misbehave");
        found.map(|info| (info.faults, info.health.is_err()))
    };
    match error {
        Err(StrategyError::Plugin { runtime, message }) => {
            assert_eq!(runtime, "misbehave");
            assert_eq!(faults(bench.runtimes.list().await), Some((1, true)));
            message
        }
        other => panic!("{export} {what}: {other:?}"),
    }
}

#[track_caller]
fn check(said: &str, expected: &str) {
    assert!(said.contains(expected), "{said:?} lacks {expected:?}");
}

#[tokio::test]
async fn a_trap_in_any_export_ends_that_call_only() {
    for export in ["validate", "start", "on-event"] {
        check(&provoke(export, "trap").await, "it gave up");
    }
}

#[tokio::test]
async fn a_panic_is_told_in_the_guests_own_words_and_with_its_place() {
    let said = provoke("start", "panic").await;
    check(&said, "in taskwright_guest_misbehave::fault");
    check(&said, "a bug in start");
}

#[tokio::test]
async fn an_exit_is_not_an_exit_of_ours() {
    check(&provoke("start", "exit").await, "3");
}

#[tokio::test]
async fn an_endless_loop_uses_up_its_cpu_time() {
    check(&provoke("start", "spin").await, "200 ms of CPU time");
}

#[tokio::test]
async fn bulk_memory_work_without_end_is_ended_too() {
    check(&provoke("on-event", "fill").await, "200 ms of CPU time");
}

#[tokio::test]
async fn a_memory_hog_meets_its_limit() {
    check(&provoke("start", "hog").await, "more memory");
}

#[tokio::test]
async fn deep_recursion_ends_in_a_trap() {
    let said = provoke("validate", "recurse").await;
    assert!(
        said.contains("out of stack") || said.contains("out of bounds"),
        "{said}"
    );
    check(&said, "deeper");
}

#[tokio::test]
async fn sleeping_meets_the_deadline_and_costs_no_cpu_time() {
    let since = Instant::now();
    check(&provoke("start", "sleep").await, "longer than the 2000 ms");
    assert!(since.elapsed() < Duration::from_secs(30));
}

#[tokio::test]
async fn a_huge_answer_is_not_taken() {
    check(&provoke("start", "huge").await, "bytes of state");
    check(&provoke("validate", "huge").await, "");
}

#[tokio::test]
async fn an_answer_of_many_mebibytes_is_not_even_copied() {
    check(&provoke("start", "giant").await, "");
}

#[tokio::test]
async fn what_is_said_of_health_and_ends_is_cut() {
    let bench = Bench::with_misbehaving(&[("probe", "huge"), ("on-event", "huge")]).await;
    let list = bench.runtimes.list().await;
    let found = list.into_iter().find(|info| info.name == "misbehave");
    let health = found.unwrap().health.unwrap_err();
    assert!(health.len() <= 4 << 10, "{}", health.len());
    let state = Arc::from(&b"kept"[..]);
    let event = StrategyEvent::Recovered;
    let ended = bench.runtimes.on_event(given(mischief()), state, event);
    let Step::Done(Outcome::Lost { message }) = ended.await.unwrap().step else {
        panic!("it said that the end is lost");
    };
    assert!(message.len() <= 4 << 10, "{}", message.len());
    let bench = Bench::with_misbehaving(&[("start", "blame")]).await;
    let error = bench.start(mischief()).await.unwrap_err();
    assert!(error.len() <= 5 << 10, "{}", error.len());
}

#[tokio::test]
async fn a_huge_argument_is_not_taken() {
    provoke("start", "spawn-huge").await;
}

#[tokio::test]
async fn talking_too_much_is_cut_not_punished() {
    let limits = CallLimits {
        cpu: Duration::from_secs(20),
        deadline: Duration::from_secs(30),
        ..tight()
    };
    let bench = Bench::with(limits, Arc::new(tempfile::tempdir().unwrap()));
    let source = misbehaving(&[("start", "shout")]);
    bench.runtimes.load(source).await.unwrap();
    bench.start(mischief()).await.unwrap();
}

#[tokio::test]
async fn orders_that_break_the_contract_are_refused_by_name() {
    let cases = [
        ("spawn-many", "at most 16 units"),
        ("spawn-odd-unit", "unit name"),
        ("spawn-odd-key", "does not know the key"),
    ];
    for (what, expected) in cases {
        check(&provoke("start", what).await, expected);
    }
}

#[tokio::test]
async fn files_stay_in_the_tasks_own_directory() {
    let bench = Bench::with_misbehaving(&[("start", "files")]).await;
    let task = mischief();
    let scratch = bench
        .folder
        .path()
        .join("scratch")
        .join(task.id.to_string());
    std::fs::create_dir_all(&scratch).unwrap();
    std::os::unix::fs::symlink("/etc", scratch.join("link")).unwrap();
    bench.start(task).await.unwrap();
}

#[tokio::test]
async fn sockets_that_can_be_imported_cannot_be_made() {
    // Somebody listens: it is not for want of a peer.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let wishes = [("start", "network"), ("address", &*address)];
    let bench = Bench::with_misbehaving(&wishes).await;
    let list = bench.runtimes.list().await;
    let found = list.iter().find(|info| info.name == "misbehave").unwrap();
    let ours = |name: &String| name.starts_with("taskwright:");
    assert!(found.imports.iter().all(ours), "{:?}", found.imports);
    let said = bench.start(mischief()).await.unwrap_err();
    let refused = "connect: refused, listen: refused, datagram: refused, look up: refused";
    check(&said, refused);
}

#[tokio::test]
async fn a_host_that_never_answers_is_not_the_plugins_fault() {
    let bench = Bench::with_misbehaving(&[("start", "spawn")]).await;
    bench.processes.set_mood(Mood::Silent);
    let error = bench.runtimes.start(given(mischief())).await;
    let Err(StrategyError::Host { message }) = error else {
        panic!("{error:?}");
    };
    check(&message, "process.spawn gave no answer within the 2000 ms");
    bench.processes.set_mood(Mood::Well);
    bench.check_that_others_work().await;
}

#[tokio::test]
async fn a_bug_in_a_host_function_is_not_the_plugins_fault() {
    let bench = Bench::with_misbehaving(&[("start", "spawn")]).await;
    bench.processes.set_mood(Mood::Panics);
    let error = bench.runtimes.start(given(mischief())).await;
    let Err(StrategyError::Host { message }) = error else {
        panic!("{error:?}");
    };
    check(&message, "process.spawn");
    bench.processes.set_mood(Mood::Well);
    bench.check_that_others_work().await;
}

#[tokio::test]
async fn a_spawn_outlives_the_call_that_was_dropped() {
    let bench = Bench::with_misbehaving(&[("start", "spawn")]).await;
    {
        let mut call = bench.runtimes.start(given(mischief()));
        // Polled often enough to wait in the host, however often the guest had to yield; the
        // host's part needs this thread too and has not begun.
        for _ in 0..100 {
            assert!(futures::poll!(&mut call).is_pending());
        }
        assert_eq!(bench.processes.spawned().len(), 0);
    }
    let spawned = async {
        while bench.processes.spawned().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    let spawned = tokio::time::timeout(Duration::from_secs(10), spawned).await;
    assert!(spawned.is_ok());
    bench.check_that_others_work().await;
}

#[tokio::test]
async fn a_plugin_that_cannot_describe_itself_is_not_loaded() {
    let cases = [
        ("describe", "trap", "could not describe itself"),
        ("describe", "spin", "CPU time"),
        ("describe", "huge", "config-schema"),
        ("describe", "many", "kinds of work"),
        ("name", "process", "it calls itself \"process\""),
    ];
    for (key, what, expected) in cases {
        let bench = Bench::with_process().await;
        let error = bench.runtimes.load(misbehaving(&[(key, what)])).await;
        check(&said(&error.unwrap_err()), expected);
        bench.check_that_others_work().await;
    }
}

#[tokio::test]
async fn looking_at_a_plugin_does_not_make_it_well() {
    let bench = Bench::with_misbehaving(&[("start", "trap")]).await;
    for _ in 0..3 {
        bench.start(mischief()).await.unwrap_err();
    }
    for _ in 0..2 {
        let list = bench.runtimes.list().await;
        let found = list.into_iter().find(|info| info.name == "misbehave");
        let found = found.unwrap();
        assert_eq!((found.calls, found.faults), (3, 3));
        check(&found.health.unwrap_err(), "its last 3 calls failed");
    }
    // That a task can be checked says nothing of the starts.
    let checked = bench.runtimes.validate(given(mischief())).await;
    assert_eq!(checked, Ok(Vec::new()));
    let list = bench.runtimes.list().await;
    assert!(list.iter().any(|info| info.health.is_err()));
    let state = b"kept"[..].into();
    let heard = bench
        .runtimes
        .on_event(given(mischief()), state, StrategyEvent::Woke)
        .await;
    assert!(heard.is_ok());
    let list = bench.runtimes.list().await;
    assert!(list.iter().all(|info| info.health.is_ok()));
}

#[tokio::test]
async fn a_probe_that_traps_is_ill_health() {
    let bench = Bench::with_misbehaving(&[("probe", "trap")]).await;
    let list = bench.runtimes.list().await;
    let health = list.into_iter().find(|info| info.name == "misbehave");
    check(&health.unwrap().health.unwrap_err(), "it gave up");
}

#[tokio::test]
async fn more_calls_than_the_pool_has_slots_wait_for_their_turn() {
    let bench = Bench::with_process().await;
    let calls = (0..100).map(|_| bench.check_that_others_work());
    futures::future::join_all(calls).await;
    assert_eq!(bench.processes.spawned().len(), 100);
}

#[tokio::test]
async fn a_crowd_of_calls_that_hang_leaves_turns_to_built_in_plugins() {
    let bench = Bench::with_misbehaving(&[("start", "sleep")]).await;
    let hanging: Vec<_> = (0..100)
        .map(|_| {
            let runtimes = bench.runtimes.clone();
            tokio::spawn(async move { runtimes.start(given(mischief())).await })
        })
        .collect();
    let begun = Instant::now();
    for _ in 0..100 {
        bench.check_that_others_work().await;
    }
    assert!(begun.elapsed() < tight().deadline, "{:?}", begun.elapsed());
    for call in hanging {
        call.abort();
    }
}

#[tokio::test]
async fn a_spinning_guest_leaves_its_thread_to_others() {
    let bench = Bench::with_misbehaving(&[("start", "spin")]).await;
    let spin = bench.runtimes.start(given(mischief()));
    // One thread: this only ends before the spin does because the guest yields.
    let others = async {
        for _ in 0..5 {
            bench.check_that_others_work().await;
        }
        Instant::now()
    };
    let ended = async {
        let answer = spin.await;
        assert!(answer.is_err());
        Instant::now()
    };
    let (spun, served) = tokio::join!(ended, others);
    assert!(served < spun);
}
