//! The state machine of a task: state, event and time in; state and effects out.
//!
//! ```text
//!                   Launched             Started
//!   ┌─────────┐ ───────────► ┌──────────┐ ─────► ┌─────────┐
//!   │ Pending │              │ Starting │        │ Running │
//!   └─────────┘ ◄─────────── └──────────┘        └─────────┘
//!      │   ▲    AttemptEnded,    │    │             │   │
//!      │   │    retry is due     │    │ stop, limit │   │ AttemptEnded
//!      │   │                     │    ▼             │   │
//!      │   │                     │ ┌──────────┐     │   │
//!      │   └─────────────────────┼─│ Stopping │ ◄───┘   │
//!      │                         │ └──────────┘         │
//!      │ stop, queue limit       │    │ AttemptEnded,   │
//!      ▼                         ▼    ▼ or overdue      ▼
//!   ┌───────────────────────────────────────────────────────┐
//!   │ Ended(outcome)               nothing leaves this state│
//!   └───────────────────────────────────────────────────────┘
//! ```
//!
//! *Deleting* is a wish beside the state: the task is stopped if need be, and
//! removed once it has ended.

use std::sync::Arc;
use std::time::Duration;

use crate::deadline::{Due, Limit};
use crate::event::{Effect, Event, Happening, Refusal};
use crate::id::AttemptNumber;
use crate::outcome::{Fault, Outcome};
use crate::retry;
use crate::review::{Answer, Answered, Decision, Hold, LONGEST_BROKEN, Round};
use crate::task::{Attempt, Remarks, Task};
use crate::time::Timestamp;

/// Where a task is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskState {
    /// Waits for its turn, or for the moment of its next attempt.
    Pending {
        /// Not to be launched before, because a retry backs off.
        not_before: Option<Timestamp>,
    },
    /// The strategy was asked to start the newest attempt.
    Starting {
        /// Since when.
        since: Timestamp,
    },
    /// The newest attempt runs.
    Running {
        /// Since when.
        since: Timestamp,
    },
    /// The strategy was asked to stop the newest attempt.
    Stopping {
        /// Since when.
        since: Timestamp,
        /// Why; the outcome will say it.
        reason: StopReason,
        /// Time between TERM and KILL.
        grace: Duration,
    },
    /// It ended. Nothing leaves this state.
    Ended {
        /// When.
        at: Timestamp,
        /// How.
        outcome: Outcome,
    },
}

impl TaskState {
    /// The word for it in JSON, metrics and prose.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Pending { .. } => "pending",
            Self::Starting { .. } => "starting",
            Self::Running { .. } => "running",
            Self::Stopping { .. } => "stopping",
            Self::Ended { .. } => "ended",
        }
    }

    /// Whether an attempt is under way, so that it counts against the concurrency limit.
    #[must_use]
    pub fn is_active(&self) -> bool {
        match self {
            Self::Starting { .. } | Self::Running { .. } | Self::Stopping { .. } => true,
            Self::Pending { .. } | Self::Ended { .. } => false,
        }
    }

    /// Whether it has ended.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        matches!(self, Self::Ended { .. })
    }
}

/// Why a task is being stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// Somebody asked for it.
    Canceled,
    /// A time limit fired.
    TimedOut(Limit),
}

/// What `apply` answers: the task as it is now, and what to do about it.
pub type Applied = (Task, Vec<Effect>);

/// Applies `event` at `now`.
///
/// # Errors
/// A [`Refusal`] when the event does not fit the state; the task is then unchanged.
pub fn apply(task: &Task, event: &Event, now: Timestamp) -> Result<Applied, Refusal> {
    match &task.state {
        TaskState::Pending { .. } => pending(task, event, now),
        TaskState::Starting { .. } => starting(task, event, now),
        TaskState::Running { .. } => running(task, event, now),
        TaskState::Stopping {
            since,
            reason,
            grace,
        } => stopping(task, event, now, (*since, *reason, *grace)),
        TaskState::Ended { .. } => ended(task, event, now),
    }
}

fn pending(task: &Task, event: &Event, now: Timestamp) -> Result<Applied, Refusal> {
    match event {
        Event::Launched if task.hold().is_some() => Err(Refusal::Held),
        Event::Launched => {
            let mut next = task.clone();
            let number = AttemptNumber(task.attempts.len() as u32 + 1);
            next.attempts.push(Attempt {
                number,
                launched_at: now,
                started_at: None,
                ended_at: None,
                outcome: None,
                process: None,
                strategy_state: [].into(),
                remarks: Remarks::default(),
            });
            next.state = TaskState::Starting { since: now };
            let effects = vec![
                Effect::Tell(Happening::Launched(number)),
                Effect::Start(number),
            ];
            Ok((next, effects))
        }
        Event::StopRequested { .. } => Ok(end(task.clone(), Outcome::Canceled { exit: None }, now)),
        Event::DeleteRequested => {
            let (next, mut effects) = with_delete_wish(task, now);
            let (next, ending) = end(next, Outcome::Canceled { exit: None }, now);
            effects.extend(ending);
            Ok((next, effects))
        }
        Event::Due(Due::Limit(Limit::Queue)) => {
            let outcome = Outcome::TimedOut {
                limit: Limit::Queue,
                exit: None,
            };
            Ok(end(task.clone(), outcome, now))
        }
        Event::Due(Due::Retry) => {
            let mut next = task.clone();
            next.state = TaskState::Pending { not_before: None };
            Ok((next, Vec::new()))
        }
        Event::Reviewed(round) => Ok(reviewed(task, round, now)),
        Event::Answered { answer, by, reason } => answered(task, (*answer, by, reason), now),
        Event::Due(Due::Answer) => match task.hold() {
            Some(Hold::Asked { otherwise, .. }) => {
                let reason = "nobody answered in time";
                answered(task, (*otherwise, "", reason), now)
            }
            Some(Hold::Broken { .. }) | None => Err(Refusal::NotDue),
        },
        Event::Due(Due::Limit(_) | Due::IdleCheck | Due::StopOverdue) => Err(Refusal::NotDue),
        Event::Started { .. } | Event::Progressed { .. } | Event::AttemptEnded { .. } => {
            Err(Refusal::NotStarted)
        }
    }
}

fn starting(task: &Task, event: &Event, now: Timestamp) -> Result<Applied, Refusal> {
    match event {
        Event::Launched => Err(Refusal::AlreadyStarted),
        Event::Started { attempt, .. } => {
            let mut next = for_attempt(task, *attempt)?;
            take_started(&mut next, event, now);
            next.state = TaskState::Running { since: now };
            let told = Effect::Tell(Happening::Running(*attempt));
            Ok((next, vec![told]))
        }
        Event::Progressed { .. } => with_progress(task, event),
        Event::AttemptEnded {
            attempt,
            outcome,
            remarks,
        } => {
            let next = with_remarks(for_attempt(task, *attempt)?, remarks);
            Ok(attempt_ended(next, outcome.clone(), now))
        }
        Event::StopRequested { grace } => {
            Ok(begin_stop(task.clone(), StopReason::Canceled, *grace, now))
        }
        Event::DeleteRequested => Ok(stop_for_delete(task, now)),
        Event::Due(Due::Limit(Limit::Start)) => {
            let reason = StopReason::TimedOut(Limit::Start);
            Ok(begin_stop(task.clone(), reason, None, now))
        }
        Event::Due(
            Due::Limit(_) | Due::IdleCheck | Due::Retry | Due::Answer | Due::StopOverdue,
        ) => Err(Refusal::NotDue),
        Event::Reviewed(_) => Err(Refusal::AlreadyStarted),
        Event::Answered { .. } => Err(Refusal::NotAsked),
    }
}

fn running(task: &Task, event: &Event, now: Timestamp) -> Result<Applied, Refusal> {
    match event {
        Event::Launched | Event::Started { .. } | Event::Reviewed(_) => {
            Err(Refusal::AlreadyStarted)
        }
        Event::Progressed { .. } => with_progress(task, event),
        Event::AttemptEnded {
            attempt,
            outcome,
            remarks,
        } => {
            let next = with_remarks(for_attempt(task, *attempt)?, remarks);
            Ok(attempt_ended(next, outcome.clone(), now))
        }
        Event::StopRequested { grace } => {
            Ok(begin_stop(task.clone(), StopReason::Canceled, *grace, now))
        }
        Event::DeleteRequested => Ok(stop_for_delete(task, now)),
        Event::Due(Due::Limit(limit @ (Limit::Run | Limit::Idle))) => {
            let reason = StopReason::TimedOut(*limit);
            Ok(begin_stop(task.clone(), reason, None, now))
        }
        Event::Due(
            Due::Limit(Limit::Queue | Limit::Start)
            | Due::IdleCheck
            | Due::Retry
            | Due::Answer
            | Due::StopOverdue,
        ) => Err(Refusal::NotDue),
        Event::Answered { .. } => Err(Refusal::NotAsked),
    }
}

fn stopping(
    task: &Task,
    event: &Event,
    now: Timestamp,
    (since, reason, grace): (Timestamp, StopReason, Duration),
) -> Result<Applied, Refusal> {
    match event {
        Event::Launched | Event::Reviewed(_) => Err(Refusal::AlreadyStarted),
        Event::Answered { .. } => Err(Refusal::NotAsked),
        // The start was under way when the stop came: what it started must hear of it too.
        Event::Started { attempt, .. } => {
            let mut next = for_attempt(task, *attempt)?;
            take_started(&mut next, event, now);
            let again = Effect::Stop {
                attempt: *attempt,
                grace,
            };
            Ok((next, vec![again]))
        }
        Event::Progressed { .. } => with_progress(task, event),
        Event::AttemptEnded {
            attempt,
            outcome,
            remarks,
        } => {
            let next = with_remarks(for_attempt(task, *attempt)?, remarks);
            Ok(attempt_ended(next, stopped(reason, outcome), now))
        }
        Event::StopRequested { grace: wanted } => {
            let mut next = task.clone();
            let mut effects = Vec::new();
            let reason = reason_after_stop(task, reason);
            // Only a wish that ends it sooner counts: asking again must never win it time.
            let sooner = wanted.filter(|wanted| now.plus(*wanted) < since.plus(grace));
            if let (Some(grace), Some(attempt)) = (sooner, task.attempt()) {
                let attempt = attempt.number;
                effects.push(Effect::Stop { attempt, grace });
            }
            next.state = TaskState::Stopping {
                since: sooner.map_or(since, |_| now),
                reason,
                grace: sooner.unwrap_or(grace),
            };
            Ok((next, effects))
        }
        Event::DeleteRequested => Ok(with_delete_wish(task, now)),
        Event::Due(Due::StopOverdue) => {
            let number = current(task);
            let nothing_known = Outcome::Lost {
                message: String::new(),
            };
            let outcome = stopped(reason, &nothing_known);
            let (next, ending) = attempt_ended(task.clone(), outcome, now);
            let mut effects = vec![Effect::Terminate(number)];
            effects.extend(ending);
            Ok((next, effects))
        }
        Event::Due(Due::Limit(_) | Due::IdleCheck | Due::Retry | Due::Answer) => {
            Err(Refusal::NotDue)
        }
    }
}

fn ended(task: &Task, event: &Event, now: Timestamp) -> Result<Applied, Refusal> {
    match event {
        Event::DeleteRequested => {
            let (next, mut effects) = with_delete_wish(task, now);
            if task.deleting_since.is_none() {
                effects.push(Effect::Remove);
            }
            Ok((next, effects))
        }
        Event::Launched
        | Event::Started { .. }
        | Event::Progressed { .. }
        | Event::AttemptEnded { .. }
        | Event::StopRequested { .. }
        | Event::Reviewed(_)
        | Event::Answered { .. }
        | Event::Due(_) => Err(Refusal::AlreadyEnded),
    }
}

/// What a round of questions before a launch makes of a task that waits.
fn reviewed(task: &Task, round: &Round, now: Timestamp) -> Applied {
    let mut next = task.clone();
    next.take_round(round, now);
    if let Decision::Deny { policy, reason, .. } = &round.decision {
        let (policy, reason) = (policy.clone(), reason.clone());
        return end(next, Outcome::Denied { policy, reason }, now);
    }
    if let Some(Hold::Broken {
        policy,
        message,
        since,
        ..
    }) = next.hold()
        && now.since(*since) >= LONGEST_BROKEN
    {
        let outcome = Outcome::Infrastructure {
            fault: Fault::Policy,
            message: format!("policy {policy} gave no verdict: {message}"),
        };
        return end(next, outcome, now);
    }
    let is_new = |held: &&Hold| {
        let kind = |hold| std::mem::discriminant::<Hold>(hold);
        task.hold().is_none_or(|before| kind(before) != kind(held))
    };
    let held = next.hold().filter(is_new);
    let told = held.map(Hold::told);
    (next, told.into_iter().map(Effect::Tell).collect())
}

/// Somebody decided about what policies asked, or nobody did in time.
fn answered(
    task: &Task,
    (answer, by, reason): (Answer, &str, &str),
    now: Timestamp,
) -> Result<Applied, Refusal> {
    let (Some(review), Some(Hold::Asked { policies, .. })) = (&task.review, task.hold()) else {
        return Err(Refusal::NotAsked);
    };
    let asked_by = policies.join(", ");
    let answered = Answered {
        policies: policies.clone(),
        answer,
        by: by.to_owned(),
        reason: reason.to_owned(),
        at: now,
    };
    let mut review = (**review).clone();
    review.answer(answered);
    let mut next = task.clone();
    next.review = Some(review.into());
    Ok(match answer {
        Answer::Approve => {
            let by = by.to_owned();
            (next, vec![Effect::Tell(Happening::Approved { by })])
        }
        Answer::Deny => {
            let reason = match (by, reason) {
                ("", reason) => reason.to_owned(),
                (by, "") => format!("{by} decided so"),
                (by, reason) => format!("{by} decided so: {reason}"),
            };
            let policy = asked_by;
            end(next, Outcome::Denied { policy, reason }, now)
        }
    })
}

/// The number of the newest attempt; every state but Pending has one.
fn current(task: &Task) -> AttemptNumber {
    task.attempt()
        .map_or(AttemptNumber(1), |attempt| attempt.number)
}

/// A copy to change, if `number` is the newest attempt.
fn for_attempt(task: &Task, number: AttemptNumber) -> Result<Task, Refusal> {
    if task
        .attempt()
        .is_some_and(|attempt| attempt.number == number)
    {
        Ok(task.clone())
    } else {
        Err(Refusal::OtherAttempt)
    }
}

fn with_remarks(mut task: Task, remarks: &Remarks) -> Task {
    if let Some(attempt) = task.attempts.last_mut() {
        attempt.remarks.note = None;
        attempt.remarks.take(remarks);
    }
    task
}

fn take_started(task: &mut Task, event: &Event, now: Timestamp) {
    let Event::Started {
        process,
        strategy_state,
        remarks,
        ..
    } = event
    else {
        return;
    };
    if let Some(attempt) = task.attempts.last_mut() {
        // What it waited for is over.
        attempt.remarks.note = None;
        attempt.remarks.take(remarks);
        attempt.started_at = Some(now);
        attempt.process = *process;
        attempt.strategy_state = strategy_state.clone();
    }
}

fn with_progress(task: &Task, event: &Event) -> Result<Applied, Refusal> {
    let Event::Progressed {
        attempt,
        strategy_state,
        remarks,
    } = event
    else {
        return Err(Refusal::OtherAttempt);
    };
    let mut next = for_attempt(task, *attempt)?;
    if let Some(attempt) = next.attempts.last_mut() {
        attempt.remarks.take(remarks);
        attempt.strategy_state = strategy_state.clone();
    }
    Ok((next, Vec::new()))
}

fn begin_stop(
    mut task: Task,
    reason: StopReason,
    grace: Option<Duration>,
    now: Timestamp,
) -> Applied {
    let attempt = current(&task);
    let grace = grace.unwrap_or(task.spec.limits.grace);
    task.state = TaskState::Stopping {
        since: now,
        reason,
        grace,
    };
    let effects = vec![
        Effect::Tell(Happening::Stopping(attempt)),
        Effect::Stop { attempt, grace },
    ];
    (task, effects)
}

fn stop_for_delete(task: &Task, now: Timestamp) -> Applied {
    let (next, mut effects) = with_delete_wish(task, now);
    let (next, stop) = begin_stop(next, StopReason::Canceled, None, now);
    effects.extend(stop);
    (next, effects)
}

fn with_delete_wish(task: &Task, now: Timestamp) -> Applied {
    let mut next = task.clone();
    if next.deleting_since.is_some() {
        return (next, Vec::new());
    }
    next.deleting_since = Some(now);
    (next, vec![Effect::Tell(Happening::Deleting)])
}

/// Somebody asks for a stop while a limit is stopping the attempt. The limit keeps its name,
/// unless it would be tried again: then it is this wish that makes the end final.
fn reason_after_stop(task: &Task, reason: StopReason) -> StopReason {
    let outcome = stopped(
        reason,
        &Outcome::Lost {
            message: String::new(),
        },
    );
    match retry::next_attempt_after(&task.spec.retry, current(task).0, &outcome) {
        Some(_) => StopReason::Canceled,
        None => reason,
    }
}

/// What a stop makes of the way an attempt ended: the reason, with the exit.
fn stopped(reason: StopReason, outcome: &Outcome) -> Outcome {
    let exit = outcome.exit();
    match reason {
        StopReason::Canceled => Outcome::Canceled { exit },
        StopReason::TimedOut(limit) => Outcome::TimedOut { limit, exit },
    }
}

/// Ends the newest attempt, and the task with it unless another attempt is due.
fn attempt_ended(mut task: Task, outcome: Outcome, now: Timestamp) -> Applied {
    let number = current(&task);
    if let Some(attempt) = task.attempts.last_mut() {
        attempt.ended_at = Some(now);
        attempt.outcome = Some(outcome.clone());
        attempt.strategy_state = [].into();
    }
    let again = retry::next_attempt_after(&task.spec.retry, number.0, &outcome)
        .filter(|_| task.deleting_since.is_none());
    match again {
        Some(wait) => {
            task.state = TaskState::Pending {
                not_before: Some(now.plus(wait)),
            };
            let effects = vec![
                Effect::Tell(Happening::Retrying {
                    attempt: number,
                    outcome,
                }),
                // Two attempts of one task never run side by side.
                Effect::Terminate(number),
                Effect::Release(number),
            ];
            (task, effects)
        }
        None => {
            let (task, mut effects) = end(task, outcome, now);
            effects.insert(0, Effect::Release(number));
            (task, effects)
        }
    }
}

fn end(mut task: Task, outcome: Outcome, now: Timestamp) -> Applied {
    if task.hold().is_some()
        && let Some(review) = &mut task.review
    {
        Arc::make_mut(review).hold = None;
    }
    task.state = TaskState::Ended {
        at: now,
        outcome: outcome.clone(),
    };
    let mut effects = vec![Effect::Tell(Happening::Ended(outcome))];
    if task.deleting_since.is_some() {
        effects.push(Effect::Remove);
    }
    (task, effects)
}
