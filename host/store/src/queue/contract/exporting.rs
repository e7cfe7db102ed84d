//! Steps, who may write, and the order of ends.

use std::time::Duration;

use taskwright_model::{TaskId, Timestamp};
use taskwright_queue::conversation::{ConversationUpdate, NewMessage};
use taskwright_queue::export::{ExportPage, ExportParts, ExportPlace, ExportQuery, ProblemPattern};
use taskwright_queue::log::LogQuery;
use taskwright_queue::port::StoreError;
use taskwright_queue::step::{StepPlace, StepQuery};
use taskwright_queue::{
    Cause, Json, LogLevel, Mark, NewConversation, NewLogEntry, NewStep, ProblemId, QueuedTask,
    Role, TaskStatus, WorkerId, Writer,
};

use super::moving::{RELEASED, client};
use super::{Stage, database, on_both};
use crate::queue::{QueueLimits, open_postgres, open_sqlite};

on_both! {
    a_step_is_kept_once
    steps_are_read_in_parts
    only_the_holder_writes_under_its_name
    ends_keep_their_order
    a_page_has_what_belongs_to_its_tasks
    a_task_too_large_for_a_page_comes_alone
    what_is_not_asked_for_is_passed_over
}

fn step(number: u64, body: &str) -> NewStep {
    NewStep {
        number,
        at: None,
        reward: Some(0.5),
        terminated: false,
        truncated: false,
        body: Json::parse(body).unwrap(),
    }
}

fn writer(worker: &WorkerId, attempt: Option<u32>) -> Option<Writer> {
    Some(Writer {
        worker: worker.clone(),
        attempt,
    })
}

fn steps_of(task: TaskId, most: u32) -> StepQuery {
    StepQuery {
        task,
        attempt: None,
        from: None,
        most,
    }
}

async fn a_step_is_kept_once(stage: Stage) {
    let task = stage.queue(|_| {}).await.id;
    let body = r#"{"step": 0, "z": 1.0e2, "a": "\u0000"}"#;
    let several: Vec<NewStep> = (0..250)
        .map(|number| step(number, &format!(r#"{{"step":{number}}}"#)))
        .chain([step(99_999, body)])
        .collect();
    let store = &stage.store;
    let kept = store
        .append_steps(task, None, several.clone())
        .await
        .unwrap();
    assert_eq!((kept.new, kept.attempt), (251, 0));
    let again = store.append_steps(task, None, several).await.unwrap();
    assert_eq!(again.new, 0, "the same once more");
    let mixed = vec![step(250, "{}"), step(3, r#"{"another":3}"#)];
    let refused = store.append_steps(task, None, mixed).await.unwrap_err();
    assert!(matches!(refused, StoreError::Conflict(_)), "{refused}");
    let all = store.steps(steps_of(task, 1000)).await.unwrap();
    assert_eq!(all.steps.len(), 251, "nothing of a refused request is kept");
    let last = all.steps.last().unwrap();
    assert_eq!((last.number, last.body.as_str()), (99_999, body));
    assert_eq!(last.reward, Some(0.5));
    let nobody = TaskId::from_u128(1);
    let refused = store.append_steps(nobody, None, Vec::new()).await;
    assert!(matches!(refused, Err(StoreError::NoSuchTask(_))));
    let refused = store.steps(steps_of(nobody, 1)).await;
    assert!(matches!(refused, Err(StoreError::NoSuchTask(_))));
}

async fn steps_are_read_in_parts(stage: Stage) {
    let worker = stage.register(1, |_| {}).await;
    let task = stage.queue(|new| new.tries.failures = 2).await;
    let store = &stage.store;
    for attempt in 1..=2 {
        stage.clock.pass(Duration::from_secs(5));
        let held = stage.claim(&worker).await.unwrap();
        let steps = (0..3).map(|number| step(number, "{}")).collect();
        let kept = store
            .append_steps(task.id, writer(&worker, None), steps)
            .await
            .unwrap();
        assert_eq!(kept.attempt, attempt);
        stage
            .fail(&worker, &held, "no", Cause::Reported)
            .await
            .unwrap();
    }
    let places = |page: &taskwright_queue::step::StepPage| -> Vec<(u32, u64)> {
        page.steps
            .iter()
            .map(|step| (step.attempt, step.number))
            .collect()
    };
    let first = store.steps(steps_of(task.id, 4)).await.unwrap();
    assert_eq!(places(&first), [(1, 0), (1, 1), (1, 2), (2, 0)]);
    let next = StepPlace {
        attempt: 2,
        number: 1,
    };
    assert_eq!(first.next, Some(next));
    let mut query = steps_of(task.id, 4);
    query.from = first.next;
    let rest = store.steps(query).await.unwrap();
    assert_eq!((places(&rest), rest.next), (vec![(2, 1), (2, 2)], None));
    let mut query = steps_of(task.id, 2);
    query.attempt = Some(1);
    let one = store.steps(query).await.unwrap();
    assert_eq!(places(&one), [(1, 0), (1, 1)]);
    // Large ones come in smaller parts, one at least.
    let large = format!(r#"{{"x":"{}"}}"#, "x".repeat(6 << 20));
    let large = (10..14).map(|number| step(number, &large)).collect();
    store.append_steps(task.id, None, large).await.unwrap();
    let mut query = steps_of(task.id, 100);
    query.from = Some(StepPlace {
        attempt: 2,
        number: 10,
    });
    let mut seen = Vec::new();
    while query.from.is_some() {
        let part = store.steps(query).await.unwrap();
        assert!(part.steps.len() <= 2, "{}", part.steps.len());
        seen.extend(part.steps.iter().map(|step| step.number));
        query.from = part.next;
    }
    assert_eq!(seen, [10, 11, 12, 13]);
}

fn line(text: &str) -> Vec<NewLogEntry> {
    vec![NewLogEntry {
        at: None,
        level: LogLevel::Info,
        message: text.to_owned(),
        context: Json::empty_object(),
    }]
}

fn conversation(task: TaskId, id: u128, writer: Option<Writer>) -> NewConversation {
    NewConversation {
        id: TaskId::from_u128(id),
        task,
        writer,
        session: TaskId::from_u128(9),
        started_at: None,
        model_name: Some("m".to_owned()),
        config: Json::empty_object(),
        metadata: Json::empty_object(),
    }
}

fn said(text: &str) -> Vec<NewMessage> {
    let body = serde_json::json!({"role": "user", "content": text});
    vec![NewMessage {
        sequence: None,
        at: None,
        role: Role::User,
        characters: text.len() as u64,
        body: Json::of(&body),
    }]
}

/// Every kind of write; each has to be taken, or each refused as a conflict.
async fn writes(stage: &Stage, task: TaskId, by: Option<Writer>, number: u128, taken: bool) {
    let store = &stage.store;
    let judge = |what: &str, refused: Option<StoreError>| match refused {
        None => assert!(taken, "{what} by {by:?} is taken"),
        Some(StoreError::Conflict(told)) => {
            assert!(
                !taken && told.contains("nothing was written"),
                "{what}: {told}"
            );
        }
        Some(other) => panic!("{what}: {other}"),
    };
    judge(
        "lines",
        store.append_logs(task, by.clone(), line("l")).await.err(),
    );
    let steps = vec![step(u64::try_from(number).unwrap(), "{}")];
    judge(
        "steps",
        store.append_steps(task, by.clone(), steps).await.err(),
    );
    let new = conversation(task, 1000 + number, by.clone());
    judge("a conversation", store.begin_conversation(new).await.err());
    // There is one, whoever began it.
    let id = 2000 + number;
    store
        .begin_conversation(conversation(task, id, None))
        .await
        .unwrap();
    let id = TaskId::from_u128(id);
    judge(
        "messages",
        store.append_messages(id, by.clone(), said("x")).await.err(),
    );
    let update = ConversationUpdate {
        success: Some(true),
        ..ConversationUpdate::default()
    };
    judge(
        "an update",
        store
            .update_conversation(id, by.clone(), update)
            .await
            .err(),
    );
    let found = store.conversation(id).await.unwrap().unwrap();
    assert_eq!(found.messages, u64::from(taken));
    assert_eq!(found.success, taken.then_some(true));
}

async fn only_the_holder_writes_under_its_name(stage: Stage) {
    let one = stage.register(1, |_| {}).await;
    let two = stage.register(2, |_| {}).await;
    let task = stage.queue(|_| {}).await.id;
    writes(&stage, task, writer(&one, None), 1, false).await;
    let held = stage.claim(&one).await.unwrap();
    writes(&stage, task, writer(&one, Some(1)), 2, true).await;
    writes(&stage, task, writer(&one, None), 3, true).await;
    writes(&stage, task, writer(&one, Some(2)), 4, false).await;
    writes(&stage, task, writer(&two, None), 5, false).await;
    writes(&stage, task, None, 6, true).await;
    // It is lost, and its say with it, even while nobody else has the task.
    stage.clock.pass(Duration::from_secs(61));
    stage.store.sweep().await.unwrap();
    assert_eq!(stage.now(&held).await.status, TaskStatus::Pending);
    writes(&stage, task, writer(&one, Some(1)), 7, false).await;
    stage.clock.pass(Duration::from_secs(5));
    stage.beat(&two).await;
    let held = stage.claim(&two).await.unwrap();
    assert_eq!(held.attempt, 2);
    writes(&stage, task, writer(&one, Some(1)), 8, false).await;
    writes(&stage, task, writer(&two, Some(2)), 9, true).await;
    // A conversation stays that of its attempt.
    let first = TaskId::from_u128(1002);
    let by = writer(&two, Some(2));
    let refused = stage
        .store
        .append_messages(first, by.clone(), said("x"))
        .await;
    let told = refused.unwrap_err().to_string();
    assert!(told.contains("attempt 1"), "{told}");
    let refused = stage
        .store
        .begin_conversation(conversation(task, 1002, by))
        .await;
    assert!(matches!(refused, Err(StoreError::Conflict(_))));
    // Whoever ended it may say the rest.
    stage.complete(&two, &held, "{}").await.unwrap();
    writes(&stage, task, writer(&two, Some(2)), 10, true).await;
    writes(&stage, task, writer(&one, Some(1)), 11, false).await;
    // Each knows its attempt.
    let found = stage.store.conversation(first).await.unwrap().unwrap();
    assert_eq!(found.attempt, Some(1));
    let query = LogQuery {
        task,
        level: None,
        since: None,
        after: None,
        most: 1000,
    };
    let lines = stage.store.logs(query).await.unwrap();
    let of: Vec<Option<u32>> = lines
        .iter()
        .filter(|line| line.message == "l")
        .map(|line| line.attempt)
        .collect();
    assert_eq!(of, [Some(1), Some(1), None, Some(2), Some(2)]);
    let steps = stage.store.steps(steps_of(task, 100)).await.unwrap().steps;
    let of: Vec<(u32, u64)> = steps
        .iter()
        .map(|step| (step.attempt, step.number))
        .collect();
    assert_eq!(of, [(1, 2), (1, 3), (1, 6), (2, 9), (2, 10)]);
    // One that was called off is nobody's.
    let other = stage.queue(|_| {}).await;
    let held = stage.claim(&two).await.unwrap();
    stage.store.cancel(held.id).await.unwrap();
    writes(&stage, other.id, writer(&two, Some(1)), 12, false).await;
}

fn all() -> ExportQuery {
    ExportQuery {
        place: ExportPlace::Ended(0),
        through: u64::MAX / 2,
        most: 100,
        status: None,
        problem: None,
        worker: None,
        since: None,
        until: None,
        parts: ExportParts {
            conversations: true,
            steps: true,
            logs: true,
        },
    }
}

fn later() -> Timestamp {
    Timestamp::from_millis(i64::MAX / 2)
}

fn ids(page: &ExportPage) -> Vec<TaskId> {
    page.tasks.iter().map(|task| task.task.id).collect()
}

async fn ended(stage: &Stage, worker: &WorkerId) -> QueuedTask {
    stage.queue(|_| {}).await;
    let held = stage.claim(worker).await.unwrap();
    stage.complete(worker, &held, "{}").await.unwrap()
}

async fn ends_keep_their_order(stage: Stage) {
    let worker = stage.register(1, |_| {}).await;
    let mut order = Vec::new();
    for _ in 0..3 {
        order.push(ended(&stage, &worker).await.id);
    }
    stage.queue(|_| {}).await;
    let ordered = stage.store.order_ends(later()).await.unwrap();
    assert_eq!((ordered.last, ordered.more), (3, false));
    let page = stage.store.export_page(all()).await.unwrap();
    assert_eq!(ids(&page).len(), 3);
    // Ties are by id; here that is the order of submission.
    assert_eq!(ids(&page), order);
    let again = stage.store.order_ends(later()).await.unwrap();
    assert_eq!(again.last, 3, "numbers are given once");
    // What ended before, and was only now written down, comes behind all the same.
    stage.clock.pass(Duration::from_secs(10));
    stage
        .store
        .cancel(stage.claim(&worker).await.unwrap().id)
        .await
        .unwrap();
    stage.store.order_ends(later()).await.unwrap();
    let late = ended(&stage, &worker).await;
    assert_eq!(
        stage
            .store
            .order_ends(Timestamp::from_millis(0))
            .await
            .unwrap()
            .last,
        4,
        "only what ended by then"
    );
    stage.store.order_ends(later()).await.unwrap();
    let mut query = all();
    query.place = page.next;
    query.through = 5;
    let ExportPlace::Ended(next) = page.next else {
        panic!("{:?}", page.next)
    };
    assert!(next >= 3, "{next}");
    query.place = ExportPlace::Ended(3);
    let rest = stage.store.export_page(query).await.unwrap();
    assert_eq!((ids(&rest).len(), rest.over), (2, true));
    assert_eq!(rest.tasks[1].task.id, late.id);
    assert_eq!(rest.tasks[1].number, Some(5));
    // Several at a time do not get in each other's way.
    for _ in 0..5 {
        ended(&stage, &worker).await;
    }
    let mut numbering = Vec::new();
    for _ in 0..4 {
        let store = stage.store.clone();
        numbering.push(tokio::spawn(async move { store.order_ends(later()).await }));
    }
    for number in numbering {
        assert_eq!(number.await.unwrap().unwrap().last, 10);
    }
    let mut query = all();
    query.most = 4;
    let mut seen = Vec::new();
    loop {
        query.through = 10;
        let page = stage.store.export_page(query.clone()).await.unwrap();
        seen.extend(page.tasks.iter().filter_map(|task| task.number));
        query.place = page.next;
        if page.over {
            break;
        }
    }
    assert_eq!(seen, (1..=10).collect::<Vec<u64>>());
}

async fn a_page_has_what_belongs_to_its_tasks(stage: Stage) {
    let worker = stage.register(1, |_| {}).await;
    for number in 0..3_u64 {
        stage.queue(|_| {}).await;
        let held = stage.claim(&worker).await.unwrap();
        let by = writer(&worker, Some(1));
        for part in 0..2 {
            let id = u128::from(number * 10 + part);
            let new = conversation(held.id, id, by.clone());
            stage.store.begin_conversation(new).await.unwrap();
            for text in ["a", "b"] {
                let text = format!("{text}{number}{part}");
                let id = TaskId::from_u128(id);
                stage
                    .store
                    .append_messages(id, None, said(&text))
                    .await
                    .unwrap();
            }
        }
        let mut last = step(number, "{}");
        last.truncated = number == 1;
        let steps = vec![step(10 + number, "{}"), last];
        stage
            .store
            .append_steps(held.id, by.clone(), steps)
            .await
            .unwrap();
        stage
            .store
            .append_logs(held.id, by, line("l"))
            .await
            .unwrap();
        stage.complete(&worker, &held, "{}").await.unwrap();
    }
    stage.store.order_ends(later()).await.unwrap();
    let page = stage.store.export_page(all()).await.unwrap();
    for (number, task) in page.tasks.iter().enumerate() {
        assert!(task.whole);
        assert_eq!(task.attempts.len(), 1);
        let sum = task.sum_of(1).unwrap();
        assert_eq!((sum.steps, sum.reward), (2, Some(1.0)));
        assert_eq!((sum.terminated, sum.truncated), (false, number == 1));
        let mark = if number == 1 {
            Mark::Truncated
        } else {
            Mark::Valid
        };
        assert_eq!(task.validity(None).mark, mark);
        assert_eq!(task.steps.len(), 2);
        assert!(task.steps[0].number < task.steps[1].number);
        let lines: Vec<&str> = task.logs.iter().map(|line| line.message.as_str()).collect();
        assert_eq!(lines, ["Task created", "l"]);
        let said: Vec<String> = task
            .conversations
            .iter()
            .flat_map(|(_, messages)| messages)
            .map(|message| message.body.value()["content"].as_str().unwrap().to_owned())
            .collect();
        let expected: Vec<String> = ["a0", "b0", "a1", "b1"]
            .iter()
            .map(|text| format!("{}{number}{}", &text[..1], &text[1..]))
            .collect();
        assert_eq!(said, expected);
    }
    let mut query = all();
    query.parts = ExportParts {
        conversations: false,
        steps: false,
        logs: false,
    };
    let page = stage.store.export_page(query).await.unwrap();
    let task = &page.tasks[0];
    assert!(task.conversations.is_empty() && task.steps.is_empty() && task.logs.is_empty());
    assert_eq!(task.sums.len(), 1, "which is what it is judged by");
}

async fn a_task_too_large_for_a_page_comes_alone(stage: Stage) {
    let worker = stage.register(1, |_| {}).await;
    let large = "x".repeat(3 << 20);
    for number in 0..4_u128 {
        let task = ended(&stage, &worker).await;
        stage
            .store
            .begin_conversation(conversation(task.id, number, None))
            .await
            .unwrap();
        let id = TaskId::from_u128(number);
        let times = if number == 2 { 4 } else { 1 };
        for _ in 0..times {
            stage
                .store
                .append_messages(id, None, said(&large))
                .await
                .unwrap();
        }
    }
    stage.store.order_ends(later()).await.unwrap();
    let mut query = all();
    query.through = 4;
    let mut seen = Vec::new();
    loop {
        let page = stage.store.export_page(query.clone()).await.unwrap();
        for task in &page.tasks {
            seen.push((task.number.unwrap(), task.whole));
            let (_, messages) = match task.conversations.first() {
                Some(said) => said,
                None => continue,
            };
            assert_eq!(messages.len(), 1);
        }
        if page.tasks.iter().any(|task| !task.whole) {
            assert_eq!(page.tasks.len(), 1, "alone");
        }
        query.place = page.next;
        if page.over {
            break;
        }
    }
    assert_eq!(seen, [(1, true), (2, true), (3, false), (4, true)]);
    // It is read piece by piece.
    let task = stage.store.export_page({
        let mut query = all();
        query.place = ExportPlace::Ended(2);
        query.through = 3;
        query
    });
    let task = task.await.unwrap().tasks.remove(0).task.id;
    let found = stage.store.conversations_after(task, None).await.unwrap();
    let id = found[0].id;
    assert!(
        stage
            .store
            .conversations_after(task, Some(id))
            .await
            .unwrap()
            .is_empty()
    );
    let (mut from, mut parts) = (0, 0);
    loop {
        let part = stage.store.messages(id, None, from, 10_000).await.unwrap();
        let part = part.messages;
        let Some(last) = part.last() else { break };
        assert!(part.len() <= 3);
        from = last.sequence + 1;
        parts += 1;
    }
    assert_eq!((from, parts), (4, 2));
    let part = stage.store.logs_after(task, 0, usize::MAX).await.unwrap();
    assert_eq!((part.lines.len(), part.more), (1, false));
    let part = stage.store.logs_after(task, 1, usize::MAX).await.unwrap();
    assert!(part.lines.is_empty());
}

async fn what_is_not_asked_for_is_passed_over(stage: Stage) {
    let one = stage.register(1, |_| {}).await;
    let two = stage.register(2, |_| {}).await;
    for (number, worker) in [(1, &one), (2, &two), (3, &one)] {
        stage.clock.pass(Duration::from_secs(10));
        stage.beat(worker).await;
        stage
            .queue(|new| new.problem_id = ProblemId::parse(&format!("p-{number}")).unwrap())
            .await;
        let held = stage.claim(worker).await.unwrap();
        match number {
            2 => stage
                .fail(worker, &held, "no", Cause::Reported)
                .await
                .unwrap(),
            _ => stage.complete(worker, &held, "{}").await.unwrap(),
        };
    }
    let open = stage.queue(|_| {}).await.id;
    stage.store.order_ends(later()).await.unwrap();
    let check = async |change: &dyn Fn(&mut ExportQuery), expected: &[u64]| {
        let mut query = all();
        query.through = 3;
        change(&mut query);
        let page = stage.store.export_page(query).await.unwrap();
        let seen: Vec<u64> = page.tasks.iter().filter_map(|task| task.number).collect();
        assert_eq!((seen.as_slice(), page.over), (expected, true));
    };
    check(&|query| query.status = Some(TaskStatus::Failed), &[2]).await;
    check(&|query| query.worker = Some(WorkerId::numbered(1)), &[1, 3]).await;
    let pattern = |text: &str| Some(ProblemPattern::parse(text).unwrap());
    check(&|query| query.problem = pattern("p-[23]"), &[2, 3]).await;
    check(&|query| query.problem = pattern("p-1"), &[1]).await;
    check(&|query| query.problem = pattern("q-*"), &[]).await;
    let second = stage.store.now().as_millis() - 10_000;
    let at = Timestamp::from_millis(second);
    check(&|query| query.since = Some(at), &[2, 3]).await;
    check(&|query| query.until = Some(at), &[1]).await;
    let mut query = all();
    query.place = ExportPlace::Open(None);
    let page = stage.store.export_page(query.clone()).await.unwrap();
    assert_eq!((ids(&page), page.over), (vec![open], true));
    assert_eq!(page.tasks[0].number, None);
    assert_eq!(page.tasks[0].validity(None).reason, Some("not-ended"));
    query.place = ExportPlace::Open(Some(open));
    assert!(
        stage
            .store
            .export_page(query)
            .await
            .unwrap()
            .tasks
            .is_empty()
    );
}

/// What the first version of the tables held.
const EARLIER: &str = "INSERT INTO queue_schema (version) VALUES (1); \
     INSERT INTO queue_tasks (id, problem_id, parameters, priority, backend, \
     limit_ms, failures_allowed, losses_allowed, status, attempt, losses, created_at, updated_at, \
     completed_at, cause, not_before, revision) VALUES ('01920000-0000-7000-8000-000000000001', \
     'p', '{}', 5, '', 1000, 1, 3, 'cancelled', 0, 0, 1, 1, 1, 'cancelled', 0, 1); \
     INSERT INTO queue_logs (task_id, sequence, at, level, message, context) VALUES \
     ('01920000-0000-7000-8000-000000000001', 1, 1, 1, 'old', '{}');";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_earlier_program_wrote_is_taken_over() {
    let look = async |store: std::sync::Arc<dyn taskwright_queue::QueueStore>| {
        let ordered = store.order_ends(later()).await.unwrap();
        assert_eq!(ordered.last, 1);
        let page = store.export_page(all()).await.unwrap();
        let task = &page.tasks[0];
        assert_eq!(task.task.status, TaskStatus::Cancelled);
        assert_eq!(
            (task.logs[0].message.as_str(), task.logs[0].attempt),
            ("old", None)
        );
        let steps = vec![step(1, "{}")];
        store.append_steps(task.task.id, None, steps).await.unwrap();
    };
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("queue.db");
    let [first, ..] = &RELEASED;
    let file = rusqlite::Connection::open(&path).unwrap();
    file.execute_batch(first.sqlite).unwrap();
    file.execute_batch(EARLIER).unwrap();
    drop(file);
    look(open_sqlite(path, QueueLimits::default()).await.unwrap()).await;

    let Some(address) = database() else { return };
    let raw = client(&address).await;
    raw.batch_execute(first.postgres).await.unwrap();
    raw.batch_execute(EARLIER).await.unwrap();
    look(
        open_postgres(&address, QueueLimits::default())
            .await
            .unwrap(),
    )
    .await;
}
