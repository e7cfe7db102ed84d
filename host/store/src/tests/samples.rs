//! Tasks, feed lines and batches to test with: one of each shape, and any at all.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use taskwright_control::port::{Batch, FeedEntry, IdempotencyRecord};
use taskwright_model::*;

/// The causes there were when the bytes of form 1 were frozen.
const CAUSES_THEN: [&str; 7] = [
    "exit",
    "signal",
    "out-of-memory",
    "timeout",
    "plugin-fault",
    "infrastructure",
    "lost",
];

pub(crate) const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);
/// Feed lines that [`batch`] makes of each task.
pub(crate) const LINES_EACH: u64 = 4;

pub(crate) fn id(number: u64) -> TaskId {
    TaskId::from_u128((0x0190_0000_0000_7000_u128 << 64) | u128::from(number))
}

pub(crate) fn key(number: u64) -> TaskKey {
    let name = TaskName::parse(&format!("build-{number}")).unwrap();
    TaskKey {
        namespace: Namespace::native(),
        name,
    }
}

fn process() -> Work {
    Work::Process(ProcessSpec {
        command: vec!["/bin/sh".into(), "-c".into()],
        args: vec!["echo begin; make all; echo end".into()],
        env: vec![EnvVar {
            name: "TARGET".into(),
            value: "release".into(),
        }],
        working_dir: Some("/srv/build".into()),
    })
}

pub(crate) fn task(number: u64, state: TaskState) -> Task {
    let spec = TaskSpec {
        work: process(),
        runtime: None,
        labels: [("team".to_owned(), "tools".to_owned())].into(),
        priority: 0,
        limits: TimeLimits::default(),
        retry: RetryPolicy {
            on: CAUSES_THEN.map(str::to_owned).to_vec(),
            ..RetryPolicy::default()
        },
        confinement: taskwright_model::Confinement::default(),
        config: String::new(),
    };
    let runtime = RuntimeName::parse("process").unwrap();
    let mut task = Task::new(id(number), key(number), Arc::new(spec), runtime, NOW);
    task.state = state;
    if !matches!(task.state, TaskState::Pending { .. }) {
        task.attempts.push(Attempt {
            number: AttemptNumber(1),
            launched_at: NOW,
            started_at: Some(NOW),
            ended_at: None,
            outcome: None,
            process: Some(ProcessIdentity {
                pid: 4711,
                start_ticks: 123_456,
            }),
            strategy_state: Arc::from(*b"main"),
            remarks: Remarks::default(),
        });
    }
    task
}

pub(crate) fn ended() -> TaskState {
    TaskState::Ended {
        at: NOW,
        outcome: Outcome::Exited {
            code: 0,
            message: None,
        },
    }
}

/// `count` ended tasks whose feed lines begin with number `first`.
pub(crate) fn batch(first: u64, count: u64) -> Batch {
    let mut batch = Batch::default();
    let mut sequence = first;
    for number in first..first + count {
        batch.put.push(Arc::new(task(number, ended())));
        let attempt = AttemptNumber(1);
        let Some(TaskState::Ended { outcome, .. }) = Some(ended()) else {
            continue;
        };
        for happening in [
            Happening::Submitted,
            Happening::Launched(attempt),
            Happening::Running(attempt),
            Happening::Ended(outcome),
        ] {
            batch.feed.push(line(sequence, number, happening));
            sequence += 1;
        }
    }
    batch.idempotency.push(used(first));
    batch
}

pub(crate) fn line(sequence: u64, number: u64, happening: Happening) -> FeedEntry {
    FeedEntry {
        sequence,
        at: NOW,
        task: id(number),
        key: key(number),
        happening,
    }
}

pub(crate) fn used(number: u64) -> IdempotencyRecord {
    let key = format!("default/request-{number}");
    IdempotencyRecord {
        key,
        fingerprint: [7; 32],
        task: id(number),
        at: NOW,
    }
}

// From here on: any value at all.

fn span() -> impl Strategy<Value = Duration> {
    (any::<u64>(), 0..1_000_000_000_u32).prop_map(|(seconds, nanos)| Duration::new(seconds, nanos))
}

fn time() -> impl Strategy<Value = Timestamp> {
    any::<i64>().prop_map(Timestamp::from_millis)
}

fn label() -> impl Strategy<Value = String> {
    "[a-z0-9][a-z0-9-]{0,20}"
}

fn limit() -> impl Strategy<Value = Limit> {
    prop_oneof![
        Just(Limit::Queue),
        Just(Limit::Start),
        Just(Limit::Idle),
        Just(Limit::Run)
    ]
}

fn exit() -> impl Strategy<Value = Option<ExitStatus>> {
    proptest::option::of(prop_oneof![
        any::<u8>().prop_map(ExitStatus::Code),
        any::<i32>().prop_map(ExitStatus::Signal),
    ])
}

pub(crate) fn outcome() -> impl Strategy<Value = Outcome> {
    let text = any::<String>;
    prop_oneof![
        (any::<u8>(), any::<Option<String>>())
            .prop_map(|(code, message)| Outcome::Exited { code, message }),
        any::<i32>().prop_map(|signal| Outcome::Signaled { signal }),
        exit().prop_map(|exit| Outcome::OutOfMemory { exit }),
        (limit(), exit()).prop_map(|(limit, exit)| Outcome::TimedOut { limit, exit }),
        exit().prop_map(|exit| Outcome::Canceled { exit }),
        (text(), text()).prop_map(|(policy, reason)| Outcome::Denied { policy, reason }),
        (text(), text()).prop_map(|(runtime, message)| Outcome::PluginFault { runtime, message }),
        (proptest::sample::select(Fault::ALL.as_slice()), text())
            .prop_map(|(fault, message)| Outcome::Infrastructure { fault, message }),
        text().prop_map(|message| Outcome::Lost { message }),
    ]
}

fn state() -> impl Strategy<Value = TaskState> {
    let reason = prop_oneof![
        Just(StopReason::Canceled),
        limit().prop_map(StopReason::TimedOut)
    ];
    prop_oneof![
        proptest::option::of(time()).prop_map(|not_before| TaskState::Pending { not_before }),
        time().prop_map(|since| TaskState::Starting { since }),
        time().prop_map(|since| TaskState::Running { since }),
        (time(), reason, span()).prop_map(|(since, reason, grace)| TaskState::Stopping {
            since,
            reason,
            grace
        }),
        (time(), outcome()).prop_map(|(at, outcome)| TaskState::Ended { at, outcome }),
    ]
}

fn attempt() -> impl Strategy<Value = Attempt> {
    let process = (any::<u32>(), any::<u64>())
        .prop_map(|(pid, start_ticks)| ProcessIdentity { pid, start_ticks });
    (
        any::<u32>(),
        time(),
        proptest::option::of(time()),
        proptest::option::of(time()),
        proptest::option::of(outcome()),
        proptest::option::of(process),
        proptest::collection::vec(any::<u8>(), 0..40),
        remarks(),
    )
        .prop_map(
            |(number, launched_at, started_at, ended_at, outcome, process, kept, remarks)| {
                Attempt {
                    remarks,
                    number: AttemptNumber(number),
                    launched_at,
                    started_at,
                    ended_at,
                    outcome,
                    process,
                    strategy_state: kept.into(),
                }
            },
        )
}

fn work() -> impl Strategy<Value = Work> {
    let words = || proptest::collection::vec(any::<String>(), 0..4);
    let variable = (any::<String>(), any::<String>());
    let env = proptest::collection::vec(variable, 0..4).prop_map(|all| {
        all.into_iter()
            .map(|(name, value)| EnvVar { name, value })
            .collect::<Vec<_>>()
    });
    prop_oneof![
        (words(), words(), env, any::<Option<String>>()).prop_map(
            |(command, args, env, working_dir)| Work::Process(ProcessSpec {
                command,
                args,
                env,
                working_dir,
            })
        ),
        (any::<String>(), any::<String>()).prop_map(|(kind, json)| Work::Document { kind, json }),
    ]
}

fn spec() -> impl Strategy<Value = TaskSpec> {
    let limit = || proptest::option::of(span());
    let limits = (limit(), limit(), limit(), limit(), span()).prop_map(
        |(queue, start, idle, run, grace)| TimeLimits {
            queue,
            start,
            idle,
            run,
            grace,
        },
    );
    let causes = proptest::collection::vec(any::<String>(), 0..4);
    let retry = (any::<u32>(), span(), span(), causes).prop_map(
        |(max_attempts, backoff, max_backoff, on)| RetryPolicy {
            max_attempts,
            backoff,
            max_backoff,
            on,
        },
    );
    let labels = proptest::collection::btree_map(any::<String>(), any::<String>(), 0..4);
    (
        work(),
        proptest::option::of(label()),
        labels,
        any::<i32>(),
        limits,
        retry,
        confinement(),
        any::<String>(),
    )
        .prop_map(
            |(work, runtime, labels, priority, limits, retry, confinement, config)| TaskSpec {
                work,
                runtime: runtime.map(|name| RuntimeName::parse(&name).unwrap()),
                labels,
                priority,
                limits,
                retry,
                confinement,
                config,
            },
        )
}

fn confinement() -> impl Strategy<Value = Confinement> {
    let user = (any::<u32>(), any::<u32>(), any::<Vec<u32>>())
        .prop_map(|(uid, gid, groups)| User { uid, gid, groups });
    (
        any::<(
            Option<u32>,
            Option<u64>,
            Option<u32>,
            Option<u64>,
            Option<u64>,
        )>(),
        proptest::option::of(user),
        any::<(bool, Vec<String>, bool)>(),
    )
        .prop_map(
            |(
                (cpu_millis, memory_bytes, pids, open_files, file_size_bytes),
                user,
                (no_new_privileges, read_only_paths, best_effort),
            )| Confinement {
                cpu_millis,
                memory_bytes,
                pids,
                open_files,
                file_size_bytes,
                user,
                no_new_privileges,
                read_only_paths,
                best_effort,
            },
        )
}

fn remarks() -> impl Strategy<Value = Remarks> {
    let state = prop_oneof![
        any::<String>().prop_map(PartState::Waiting),
        time().prop_map(PartState::Running),
        (
            any::<Option<i32>>(),
            any::<bool>(),
            proptest::option::of(time()),
            time()
        )
            .prop_map(|(code, out_of_memory, started_at, ended_at)| {
                PartState::Ended {
                    code,
                    out_of_memory,
                    started_at,
                    ended_at,
                }
            }),
    ];
    let part = (any::<String>(), state).prop_map(|(name, state)| Part { name, state });
    let enforced = proptest::collection::vec(
        (
            proptest::sample::select(Restriction::ALL.as_slice()),
            proptest::sample::select(Mechanism::ALL.as_slice()),
        ),
        0..4,
    );
    (
        any::<Option<String>>(),
        proptest::collection::vec(part, 0..3),
        enforced,
    )
        .prop_map(|(note, parts, pairs)| {
            let mut enforced = Enforced::default();
            for (restriction, mechanism) in pairs {
                enforced.set(restriction, mechanism);
            }
            Remarks {
                note: note.map(Into::into),
                parts: parts.into(),
                enforced,
            }
        })
}

fn any_key() -> impl Strategy<Value = TaskKey> {
    (label(), "[a-zäöß0-9_][a-zäöß0-9._@:+=~-]{0,40}").prop_map(|(namespace, name)| TaskKey {
        namespace: Namespace::parse(&namespace).unwrap(),
        name: TaskName::parse(&name).unwrap(),
    })
}

pub(crate) fn any_task() -> impl Strategy<Value = Task> {
    let attempts = proptest::collection::vec(attempt(), 0..4);
    let head = (any::<u128>(), any_key(), spec(), label(), time());
    let rest = (proptest::option::of(time()), proptest::option::of(review()));
    (head, state(), attempts, rest).prop_map(
        |((id, key, spec, runtime, submitted_at), state, attempts, (deleting_since, review))| {
            Task {
                id: TaskId::from_u128(id),
                key,
                spec: Arc::new(spec),
                runtime: RuntimeName::parse(&runtime).unwrap(),
                submitted_at,
                state,
                attempts,
                deleting_since,
                review: review.map(Arc::new),
            }
        },
    )
}

fn review() -> impl Strategy<Value = Review> {
    let answer = || prop_oneof![Just(Answer::Approve), Just(Answer::Deny)];
    let stage = || prop_oneof![Just(Stage::Submit), Just(Stage::Launch)];
    let mode = prop_oneof![Just(Mode::Enforce), Just(Mode::Warn)];
    let text = any::<String>;
    let texts = || proptest::collection::vec(any::<String>(), 0..3);
    let said = prop_oneof![
        Just(Said::Allow),
        (text(), text()).prop_map(|(patch, reason)| Said::Change { patch, reason }),
        (text(), text()).prop_map(|(reason, field)| Said::Deny { reason, field }),
        text().prop_map(|question| Said::Ask { question }),
        text().prop_map(|message| Said::Fault { message }),
    ];
    let verdict =
        (text(), stage(), mode, time(), said).prop_map(|(policy, stage, mode, at, said)| Verdict {
            policy,
            stage,
            mode,
            at,
            said,
        });
    let answered = (texts(), answer(), text(), text(), time()).prop_map(
        |(policies, answer, by, reason, at)| Answered {
            policies,
            answer,
            by,
            reason,
            at,
        },
    );
    let hold = prop_oneof![
        (texts(), text(), time(), time(), answer()).prop_map(
            |(policies, question, since, until, otherwise)| Hold::Asked {
                policies,
                question,
                since,
                until,
                otherwise,
            }
        ),
        (text(), text(), time(), any::<u32>(), stage()).prop_map(
            |(policy, message, since, tries, stage)| Hold::Broken {
                policy,
                message,
                since,
                tries,
                stage,
            }
        ),
    ];
    let lists = (
        proptest::collection::vec(verdict, 0..4),
        proptest::collection::vec(answered, 0..3),
    );
    let rest = (texts(), proptest::option::of(hold));
    (proptest::option::of(spec()), lists, rest).prop_map(
        |(submitted, (verdicts, answers), (approved, hold))| Review {
            submitted: submitted.map(Arc::new),
            verdicts,
            approved,
            answers,
            hold,
        },
    )
}

pub(crate) fn any_line() -> impl Strategy<Value = FeedEntry> {
    let number = || any::<u32>().prop_map(AttemptNumber);
    let happening = prop_oneof![
        Just(Happening::Submitted),
        (
            proptest::collection::vec(any::<String>(), 0..3),
            any::<String>()
        )
            .prop_map(|(policies, why)| Happening::Held { policies, why }),
        any::<String>().prop_map(|by| Happening::Approved { by }),
        number().prop_map(Happening::Launched),
        number().prop_map(Happening::Running),
        number().prop_map(Happening::Stopping),
        (number(), outcome())
            .prop_map(|(attempt, outcome)| Happening::Retrying { attempt, outcome }),
        outcome().prop_map(Happening::Ended),
        Just(Happening::Deleting),
        Just(Happening::Removed),
    ];
    (any::<u64>(), time(), any::<u128>(), any_key(), happening).prop_map(
        |(sequence, at, task, key, happening)| FeedEntry {
            sequence,
            at,
            task: TaskId::from_u128(task),
            key,
            happening,
        },
    )
}

pub(crate) fn any_used() -> impl Strategy<Value = IdempotencyRecord> {
    (any::<String>(), any::<[u8; 32]>(), any::<u128>(), time()).prop_map(
        |(key, fingerprint, task, at)| IdempotencyRecord {
            key,
            fingerprint,
            task: TaskId::from_u128(task),
            at,
        },
    )
}
