//! What is kept of a run, how it is read, and the sums.

use std::time::Duration;

use taskwright_model::TaskId;
use taskwright_queue::conversation::{ConversationQuery, ConversationUpdate, NewMessage, Usage};
use taskwright_queue::log::LogQuery;
use taskwright_queue::port::{StoreError, TaskKeyed, TaskOrder, TaskQuery};
use taskwright_queue::{
    Cause, Json, LogLevel, NewConversation, NewLogEntry, ProblemId, Role, TaskStatus,
};

use super::{Stage, on_both};

on_both! {
    lines_are_numbered_without_gaps
    the_newest_lines_come_first_and_are_told_in_order
    messages_are_kept_once
    a_conversation_is_told_more_of
    pages_hold_what_was_asked_for
    a_heavy_page_tells_which_tasks_are_left_out
    what_stands_beside_a_conversation_is_bounded
    sums_are_those_of_the_tasks
    a_queue_has_an_end
}

fn line(level: LogLevel, message: &str) -> NewLogEntry {
    NewLogEntry {
        at: None,
        level,
        message: message.to_owned(),
        context: Json::parse(r#"{"step":1}"#).unwrap(),
    }
}

fn newest(task: TaskId, most: u32) -> LogQuery {
    LogQuery {
        task,
        level: None,
        since: None,
        after: None,
        most,
    }
}

async fn lines_are_numbered_without_gaps(stage: Stage) {
    let task = stage.queue(|_| {}).await.id;
    let mut appending = Vec::new();
    for writer in 0..6 {
        let store = stage.store.clone();
        appending.push(tokio::spawn(async move {
            for _ in 0..4 {
                let text = format!("from {writer}");
                let lines = vec![line(LogLevel::Info, &text), line(LogLevel::Info, &text)];
                store.append_logs(task, None, lines).await.unwrap();
            }
        }));
    }
    for append in appending {
        append.await.unwrap();
    }
    let many = (0..1203).map(|_| line(LogLevel::Debug, "many")).collect();
    assert_eq!(
        stage.store.append_logs(task, None, many).await.unwrap(),
        1 + 48 + 1203
    );
    let all = stage.store.logs(newest(task, 5000)).await.unwrap();
    let numbers: Vec<u64> = all.iter().map(|line| line.sequence).collect();
    assert_eq!(numbers, (1..=1252).collect::<Vec<u64>>());
    assert_eq!(all[0].message, "Task created");
    for pair in all[1..49].chunks(2) {
        assert_eq!(
            pair[0].message, pair[1].message,
            "lines of one call stay together"
        );
    }
    let nobody = TaskId::from_u128(1);
    let refused = stage
        .store
        .append_logs(nobody, None, Vec::new())
        .await
        .unwrap_err();
    assert!(matches!(refused, StoreError::NoSuchTask(_)), "{refused}");
}

async fn the_newest_lines_come_first_and_are_told_in_order(stage: Stage) {
    let task = stage.queue(|_| {}).await.id;
    for number in 0..10 {
        stage.clock.pass(Duration::from_secs(1));
        let level = if number % 2 == 0 {
            LogLevel::Error
        } else {
            LogLevel::Info
        };
        let lines = vec![line(level, &number.to_string())];
        stage.store.append_logs(task, None, lines).await.unwrap();
    }
    let texts = async |query: LogQuery| -> Vec<String> {
        let found = stage.store.logs(query).await.unwrap();
        found.into_iter().map(|line| line.message).collect()
    };
    assert_eq!(texts(newest(task, 3)).await, ["7", "8", "9"]);
    let errors = LogQuery {
        level: Some(LogLevel::Error),
        ..newest(task, 2)
    };
    assert_eq!(texts(errors).await, ["6", "8"]);
    let late = LogQuery {
        since: Some(stage.store.now()),
        ..newest(task, 9)
    };
    assert_eq!(texts(late).await, ["9"]);
    let on = LogQuery {
        after: Some(3),
        ..newest(task, 2)
    };
    assert_eq!(texts(on).await, ["2", "3"]);
    let one = stage.store.logs(newest(task, 1)).await.unwrap();
    assert_eq!(one[0].context.as_str(), r#"{"step":1}"#);
    assert_eq!(one[0].at, stage.store.now());
}

fn conversation(task: TaskId) -> NewConversation {
    NewConversation {
        id: TaskId::from_u128(77),
        task,
        writer: None,
        session: TaskId::from_u128(78),
        started_at: None,
        model_name: Some("gpt-4".to_owned()),
        config: Json::parse(r#"{"temperature":0.7}"#).unwrap(),
        metadata: Json::parse(r#"{"problem_id":"p"}"#).unwrap(),
    }
}

fn message(sequence: Option<u64>, role: Role, text: &str) -> NewMessage {
    let body = format!("{{\"role\":\"{}\",\"content\":\"{text}\"}}", role.word());
    NewMessage {
        sequence,
        at: None,
        role,
        characters: text.len() as u64,
        body: Json::parse(&body).unwrap(),
    }
}

async fn messages_are_kept_once(stage: Stage) {
    let task = stage.queue(|_| {}).await.id;
    let begun = stage
        .store
        .begin_conversation(conversation(task))
        .await
        .unwrap();
    let again = stage
        .store
        .begin_conversation(conversation(task))
        .await
        .unwrap();
    assert_eq!((begun.id, begun.messages), (again.id, 0));
    let id = begun.id;
    let first = vec![
        message(Some(0), Role::System, "be good"),
        message(Some(1), Role::User, "ok"),
    ];
    let said = stage
        .store
        .append_messages(id, None, first.clone())
        .await
        .unwrap();
    assert_eq!((said.messages, said.characters), (2, 9));
    // Once more, and one further: only that is new.
    let mut more = first;
    more.push(message(Some(2), Role::Assistant, "done"));
    let said = stage.store.append_messages(id, None, more).await.unwrap();
    assert_eq!((said.messages, said.characters), (3, 13));
    let gap = vec![message(Some(9), Role::User, "late")];
    let refused = stage
        .store
        .append_messages(id, None, gap)
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("leaves a gap"), "{refused}");
    let other = vec![message(Some(1), Role::User, "not ok")];
    let refused = stage
        .store
        .append_messages(id, None, other)
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("another content"), "{refused}");
    let uncounted = vec![message(None, Role::Tool, "x")];
    assert_eq!(
        stage
            .store
            .append_messages(id, None, uncounted)
            .await
            .unwrap()
            .messages,
        4
    );
    let all = stage.store.messages(id, None, 0, 100).await.unwrap();
    assert!(!all.more);
    let all = all.messages;
    let roles: Vec<Role> = all.iter().map(|message| message.role).collect();
    assert_eq!(
        roles,
        [Role::System, Role::User, Role::Assistant, Role::Tool]
    );
    assert_eq!(
        all[2].body.as_str(),
        r#"{"role":"assistant","content":"done"}"#
    );
    let users = stage
        .store
        .messages(id, Some(Role::User), 0, 100)
        .await
        .unwrap();
    let users = users.messages;
    assert_eq!((users.len(), users[0].sequence), (1, 1));
    let nobody = stage
        .store
        .messages(TaskId::from_u128(5), None, 0, 1)
        .await
        .unwrap_err();
    assert!(
        matches!(nobody, StoreError::NoSuchConversation(_)),
        "{nobody}"
    );
}

async fn a_conversation_is_told_more_of(stage: Stage) {
    let task = stage.queue(|_| {}).await.id;
    let id = stage
        .store
        .begin_conversation(conversation(task))
        .await
        .unwrap()
        .id;
    let words = vec![message(None, Role::User, "12345678")];
    stage.store.append_messages(id, None, words).await.unwrap();
    let estimated = stage.store.conversation_stats().await.unwrap();
    assert_eq!((estimated.tokens, estimated.successful), (2, 0));
    let usage = Usage {
        input_tokens: 100,
        output_tokens: 20,
        cost: Some(0.5),
    };
    let update = ConversationUpdate {
        ended_at: Some(stage.store.now()),
        success: Some(true),
        usage: Some(usage.clone()),
        metadata: Some(Json::parse(r#"{"worker_id":"w"}"#).unwrap()),
    };
    stage
        .store
        .update_conversation(id, None, update)
        .await
        .unwrap();
    let kept = stage
        .store
        .update_conversation(id, None, ConversationUpdate::default())
        .await
        .unwrap();
    assert_eq!((kept.success, kept.usage), (Some(true), Some(usage)));
    assert_eq!(
        kept.metadata.as_str(),
        r#"{"problem_id":"p","worker_id":"w"}"#
    );
    let stats = stage.store.conversation_stats().await.unwrap();
    assert_eq!(
        (stats.conversations, stats.tokens, stats.successful),
        (1, 120, 1)
    );
    assert_eq!(stats.by_model, [("gpt-4".to_owned(), 1)]);
    let query = ConversationQuery {
        task: Some(task),
        most: 10,
        ..ConversationQuery::default()
    };
    let (found, total) = stage.store.conversations(query).await.unwrap();
    assert_eq!((found.len(), total, found[0].id), (1, 1, id));
    let model_name = Some("other".to_owned());
    let query = ConversationQuery {
        model_name,
        most: 10,
        ..ConversationQuery::default()
    };
    assert_eq!(stage.store.conversations(query).await.unwrap().1, 0);
}

fn all(most: u32) -> TaskQuery {
    TaskQuery {
        status: None,
        problem: None,
        worker: None,
        order: TaskOrder {
            by: TaskKeyed::CreatedAt,
            descending: true,
        },
        offset: 0,
        most,
        count: true,
    }
}

async fn a_heavy_page_tells_which_tasks_are_left_out(stage: Stage) {
    let heavy = Json::parse(&format!(r#"{{"x":"{}"}}"#, "x".repeat(3 << 20))).unwrap();
    let mut made = Vec::new();
    for _ in 0..7 {
        stage.clock.pass(Duration::from_secs(1));
        made.push(stage.queue(|task| task.parameters = heavy.clone()).await.id);
    }
    made.reverse();
    for by in [TaskKeyed::CreatedAt, TaskKeyed::CompletedAt] {
        let order = TaskOrder {
            by,
            descending: true,
        };
        let query = TaskQuery {
            offset: 1,
            order,
            ..all(5)
        };
        let page = stage.store.tasks(query).await.unwrap();
        let mut told: Vec<TaskId> = page.tasks.iter().map(|task| task.id).collect();
        assert_eq!((told.len(), page.total), (3, Some(7)), "8 MiB and no more");
        told.extend(page.rest);
        assert_eq!(told, made[1..6]);
    }
}

async fn what_stands_beside_a_conversation_is_bounded(stage: Stage) {
    let task = stage.queue(|_| {}).await.id;
    let begun = stage.store.begin_conversation(conversation(task)).await;
    let begun = begun.unwrap();
    let other = NewConversation {
        id: begun.id,
        model_name: Some("another".to_owned()),
        ..conversation(task)
    };
    let refused = stage.store.begin_conversation(other).await.unwrap_err();
    assert!(matches!(refused, StoreError::Conflict(_)), "{refused}");
    let tell = async |name: &str, bytes: usize| {
        let more = format!(r#"{{"{name}":"{}"}}"#, "x".repeat(bytes));
        let update = ConversationUpdate {
            metadata: Json::parse(&more).ok(),
            ..ConversationUpdate::default()
        };
        stage
            .store
            .update_conversation(begun.id, None, update)
            .await
    };
    tell("a", 600_000).await.unwrap();
    let refused = tell("b", 600_000).await.unwrap_err();
    assert!(matches!(refused, StoreError::TooLarge(_)), "{refused}");
    // In place of what was there it fits.
    tell("a", 700_000).await.unwrap();
    let query = ConversationQuery {
        most: 10,
        ..ConversationQuery::default()
    };
    let (found, _) = stage.store.conversations(query).await.unwrap();
    assert_eq!(found[0].metadata.as_str(), "{}", "lists are light");
    let kept = stage.store.conversation(begun.id).await.unwrap().unwrap();
    assert!(kept.metadata.as_str().len() > 700_000);
}

async fn pages_hold_what_was_asked_for(stage: Stage) {
    let worker = stage.register(1, |_| {}).await;
    let mut made = Vec::new();
    for number in 0..5 {
        stage.clock.pass(Duration::from_secs(1));
        let problem = ProblemId::parse(&format!("p-{}", number % 2)).unwrap();
        made.push(stage.queue(|task| task.problem_id = problem).await.id);
    }
    let page = stage
        .store
        .tasks(TaskQuery {
            offset: 1,
            ..all(2)
        })
        .await
        .unwrap();
    let ids: Vec<_> = page.tasks.iter().map(|task| task.id).collect();
    assert_eq!((ids, page.total), (vec![made[3], made[2]], Some(5)));
    let claimed = stage.claim(&worker).await.unwrap();
    let running = TaskQuery {
        status: Some(TaskStatus::Running),
        ..all(9)
    };
    let page = stage.store.tasks(running).await.unwrap();
    assert_eq!((page.tasks[0].id, page.total), (claimed.id, Some(1)));
    let problem = TaskQuery {
        problem: ProblemId::parse("p-1").ok(),
        ..all(9)
    };
    assert_eq!(
        stage.store.tasks(problem.clone()).await.unwrap().total,
        Some(2)
    );
    let both = TaskQuery {
        status: Some(TaskStatus::Pending),
        ..problem
    };
    assert_eq!(stage.store.tasks(both).await.unwrap().total, Some(2));
    let held = TaskQuery {
        worker: Some(worker),
        ..all(9)
    };
    assert_eq!(stage.store.tasks(held).await.unwrap().total, Some(1));
    for by in [TaskKeyed::StartedAt, TaskKeyed::CompletedAt] {
        let order = TaskOrder {
            by,
            descending: true,
        };
        let page = stage
            .store
            .tasks(TaskQuery { order, ..all(9) })
            .await
            .unwrap();
        assert_eq!(page.tasks.len(), 5);
        if by == TaskKeyed::StartedAt {
            assert_eq!(
                page.tasks[0].id, claimed.id,
                "what has no such time comes last"
            );
        }
    }
}

async fn sums_are_those_of_the_tasks(stage: Stage) {
    let worker = stage
        .register(1, |worker| worker.capabilities.max_parallel = 5)
        .await;
    for _ in 0..5 {
        stage.queue(|_| {}).await;
    }
    stage.clock.pass(Duration::from_secs(10));
    let done = stage.claim(&worker).await.unwrap();
    let failed = stage.claim(&worker).await.unwrap();
    stage.claim(&worker).await.unwrap();
    stage.clock.pass(Duration::from_secs(4));
    stage.complete(&worker, &done, "{}").await.unwrap();
    stage
        .fail(&worker, &failed, "no", Cause::Reported)
        .await
        .unwrap();
    let waiting = stage.store.tasks(TaskQuery {
        status: Some(TaskStatus::Pending),
        ..all(9)
    });
    let waiting = waiting.await.unwrap().tasks;
    stage.store.cancel(waiting[0].id).await.unwrap();
    let counts = stage.store.counts().await.unwrap();
    assert_eq!(
        (counts.pending, counts.running, counts.completed),
        (1, 1, 1)
    );
    assert_eq!((counts.failed, counts.cancelled, counts.timeout), (1, 1, 0));
    assert_eq!(counts.total(), 5);
    let stats = stage.store.task_stats().await.unwrap();
    assert_eq!(stats.counts, counts);
    assert_eq!(stats.average_wait, Some(10.0));
    assert_eq!(stats.average_execution, Some(4.0));
    assert_eq!(stats.by_problem, [("test-problem-1".to_owned(), 5)]);
    assert_eq!(stats.by_worker, [("worker-001-kind".to_owned(), 3)]);
}

async fn a_queue_has_an_end(stage: Stage) {
    for _ in 0..1000 {
        stage.queue(|_| {}).await;
    }
    let refused = stage.store.create(stage.new_task()).await.unwrap_err();
    assert!(matches!(refused, StoreError::Full(_)), "{refused}");
    let worker = stage.register(1, |_| {}).await;
    let task = stage.claim(&worker).await.unwrap();
    stage.complete(&worker, &task, "{}").await.unwrap();
    stage.store.create(stage.new_task()).await.unwrap();
}
