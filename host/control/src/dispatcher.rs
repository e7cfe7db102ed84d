//! The loop, the only writer of state: gather, decide, commit, publish, act.
//!
//! It has a thread of its own, because a commit to a local store blocks for the
//! time of one `fdatasync`. Whatever arrives meanwhile is decided together and
//! made durable by the next commit, so one sync serves all that waited for it.
//! Nothing is answered, published or done before it is durable.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use taskwright_model::{
    AttemptNumber, Effect, Event, Namespace, Task, TaskId, TaskState, Timestamp,
};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};

use crate::attempts::Attempts;
use crate::core::{Book, Kept, Limits};
use crate::feed::Feed;
use crate::handle::{Control, Health};
use crate::message::{Fact, Message, TaskAnswer, Waiter};
use crate::orders::{Order, Orders};
use crate::port::{
    Clock, CommitError, Documents, Execs, FeedHistory, IdempotencyRecord, Journal, Outputs,
    Plugins, Policies, Recovered, Strategies, StrategyEvent, Units,
};
use crate::recover;
use crate::request::{ControlError, SetAnswer, SetProblem, SubmitError, Submitted};
use crate::review::Reviewer;
use crate::view::View;

/// Messages taken in one turn.
const MOST_PER_TURN: usize = 512;
/// The pause after a commit that failed, so that a full disk does not make a busy loop.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(250);
/// How often a store that refuses is asked whether it takes changes again.
const PROBE_EVERY: Duration = Duration::from_secs(1);
/// How long limits that passed while no daemon was there wait for ends that came before them.
const LONGEST_SETTLING: Duration = Duration::from_secs(10);
/// With as many attempts under way, more is about to happen: a turn waits a moment for it, so that
/// one sync serves many. With fewer, waiting would only cost time.
const CROWD: usize = 16;
const COMPANY: Duration = Duration::from_millis(1);
/// How long a look at a task's output may take.
const LONGEST_LOOK: Duration = Duration::from_secs(5);

/// How much the loop takes on.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Attempts under way at once, at least 1.
    pub max_active: usize,
    /// Tasks on record at once.
    pub max_tasks: usize,
    /// Clients waiting for an end at once.
    pub max_waiters: usize,
    /// Requests that may wait for the loop.
    pub inbox: usize,
    /// Whether the machine was restarted since the store was last open: then nothing that ran
    /// runs any more.
    pub rebooted: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_active: 10_000,
            max_tasks: 100_000,
            max_waiters: 20_000,
            inbox: 16_384,
            rebooted: false,
        }
    }
}

/// What the loop is made of.
pub struct Parts<J> {
    /// Where state becomes durable.
    pub journal: J,
    /// Where old feed lines are read.
    pub history: Arc<dyn FeedHistory>,
    /// The strategies.
    pub strategies: Arc<dyn Strategies>,
    /// What the host can do to units by itself.
    pub units: Arc<dyn Units>,
    /// The policies.
    pub policies: Arc<dyn Policies>,
    /// What policies see of tasks.
    pub documents: Arc<dyn Documents>,
    /// The plugins, for people.
    pub plugins: Arc<dyn Plugins>,
    /// What tasks print.
    pub outputs: Arc<dyn Outputs>,
    /// Commands inside tasks.
    pub execs: Arc<dyn Execs>,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

/// A loop that runs. Dropping it does not stop it; [`Running::stop`] does.
pub struct Running {
    /// The loop's front.
    pub control: Control,
    thread: Option<std::thread::JoinHandle<()>>,
    recovered: Option<oneshot::Receiver<()>>,
}

impl Running {
    /// Resolves once all that recovery found is on record; `None` if this was asked before.
    pub fn recovered(&mut self) -> Option<oneshot::Receiver<()>> {
        self.recovered.take()
    }

    /// Ends the loop after what it has taken. Tasks go on running.
    pub async fn stop(mut self) {
        let _ = self.control.inbox.send(Message::Close).await;
        if let Some(thread) = self.thread.take() {
            // The thread ends within one commit of the message.
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}

/// An answer that waits for the commit.
enum Reply {
    /// A refusal waits as well: what it saw, as a name in use, may be undone.
    Submit(
        oneshot::Sender<Result<Submitted, SubmitError>>,
        Result<Submitted, SubmitError>,
        Option<Waiter>,
    ),
    Set(
        oneshot::Sender<Result<SetAnswer, ControlError>>,
        Namespace,
        Vec<SetProblem>,
    ),
    Task(oneshot::Sender<TaskAnswer>, Option<TaskId>),
}

/// Starts the loop on a thread of its own, after recovering what a crash left.
///
/// # Errors
/// A sentence, when the live units could not be listed or no thread could be started.
pub async fn start<J: Journal>(
    parts: Parts<J>,
    recovered: Recovered,
    config: Config,
) -> Result<Running, String> {
    let (control, mut dispatcher) = assemble(parts, recovered, config, Handle::current()).await?;
    let (on_record, recovered) = oneshot::channel();
    dispatcher.on_record = Some(on_record);
    let body = move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        match runtime {
            Ok(runtime) => runtime.block_on(dispatcher.run()),
            Err(error) => tracing::error!(%error, "the dispatcher has no runtime"),
        }
    };
    let thread = std::thread::Builder::new()
        .name("dispatcher".into())
        .spawn(body);
    let thread = thread.map_err(|error| format!("start the dispatcher's thread: {error}"))?;
    let thread = Some(thread);
    Ok(Running {
        control,
        thread,
        recovered: Some(recovered),
    })
}

/// Builds the loop and recovers, without running it. Calls to strategies run on `runtime`.
pub(crate) async fn assemble<J: Journal>(
    parts: Parts<J>,
    recovered: Recovered,
    config: Config,
    runtime: Handle,
) -> Result<(Control, Dispatcher<J>), String> {
    let (inbox, requests) = mpsc::channel(config.inbox.max(1));
    let (fact_sender, facts) = mpsc::unbounded_channel();
    let attempts = Arc::new(Attempts::new(
        parts.strategies.clone(),
        parts.units.clone(),
        fact_sender.clone(),
        runtime.clone(),
    ));
    let orders = Arc::new(Orders::new(
        attempts.clone(),
        parts.units.clone(),
        fact_sender.clone(),
        runtime.clone(),
    ));
    let limits = Limits {
        max_active: config.max_active.max(1),
        max_tasks: config.max_tasks.max(1),
    };
    let next_sequence = recovered.next_sequence.max(1);
    let feed = Feed::new(recovered.feed, next_sequence - 1, parts.history);
    let book = Book::new(
        limits,
        recovered.tasks,
        next_sequence,
        recovered.idempotency,
    );
    let reviewer = Arc::new(Reviewer::new(
        parts.policies,
        parts.documents,
        parts.strategies.clone(),
        parts.clock.clone(),
    ));
    let view = Arc::new(View::default());
    view.publish(book.tasks().map(|task| (task.id, Some(task.clone()))));
    let known = parts.units.list().await?;
    let plan = recover::plan(book.tasks().cloned(), &known, config.rebooted);
    let (health_sender, health) = watch::channel(Health::default());
    let mut dispatcher = Dispatcher {
        renewals: reviewer.renewals(),
        journal: parts.journal,
        units: parts.units,
        clock: parts.clock.clone(),
        book,
        view: view.clone(),
        feed: Arc::new(feed),
        attempts: attempts.clone(),
        orders,
        reviewer: reviewer.clone(),
        requests,
        facts,
        fact_sender,
        runtime,
        health: health_sender,
        waiters: HashMap::new(),
        waiting: 0,
        max_waiters: config.max_waiters,
        held: Vec::new(),
        strays: Vec::new(),
        on_record: None,
    };
    // A pause that began with another set of policies says nothing of the present one.
    dispatcher.book.ask_again();
    dispatcher.take_over(plan);
    let control = Control {
        inbox,
        view,
        feed: dispatcher.feed.clone(),
        attempts,
        strategies: parts.strategies,
        reviewer,
        plugins: parts.plugins,
        outputs: parts.outputs,
        execs: parts.execs,
        clock: parts.clock,
        health,
    };
    Ok((control, dispatcher))
}

pub(crate) struct Dispatcher<J> {
    /// Told whenever policies that gave no verdict may give one.
    renewals: watch::Receiver<()>,
    journal: J,
    units: Arc<dyn Units>,
    clock: Arc<dyn Clock>,
    book: Book,
    view: Arc<View>,
    feed: Arc<Feed>,
    attempts: Arc<Attempts>,
    orders: Arc<Orders>,
    reviewer: Arc<Reviewer>,
    requests: mpsc::Receiver<Message>,
    facts: mpsc::UnboundedReceiver<Fact>,
    fact_sender: mpsc::UnboundedSender<Fact>,
    runtime: Handle,
    health: watch::Sender<Health>,
    waiters: HashMap<TaskId, Vec<Waiter>>,
    waiting: usize,
    max_waiters: usize,
    /// Facts of a turn that the store refused.
    held: Vec<Fact>,
    /// Units whose end nobody waits for; released once this turn is durable.
    strays: Vec<(TaskId, AttemptNumber)>,
    /// Told once all that recovery found is on record.
    on_record: Option<oneshot::Sender<()>>,
}

impl<J: Journal> Dispatcher<J> {
    pub(crate) async fn run(mut self) {
        let mut requests = Vec::new();
        let mut facts = Vec::new();
        let mut more_to_do = true;
        loop {
            if self.held.is_empty()
                && self.facts.is_empty()
                && let Some(on_record) = self.on_record.take()
            {
                let _nobody_asks = on_record.send(());
            }
            if !more_to_do && self.held.is_empty() {
                self.gather(&mut requests, &mut facts).await;
                if self.book.active() >= CROWD {
                    tokio::time::sleep(COMPANY).await;
                }
            }
            while facts.len() < MOST_PER_TURN
                && let Ok(fact) = self.facts.try_recv()
            {
                facts.push(fact);
            }
            while requests.len() < MOST_PER_TURN
                && let Ok(request) = self.requests.try_recv()
            {
                requests.push(request);
            }
            let closing = requests
                .iter()
                .any(|request| matches!(request, Message::Close));
            facts.splice(0..0, self.held.drain(..));
            more_to_do = self.turn(&mut requests, &mut facts).await;
            if closing || self.requests.is_closed() && self.requests.is_empty() {
                self.health.send_modify(|health| health.closing = true);
                return;
            }
        }
    }

    /// Waits until there is something to do.
    async fn gather(&mut self, requests: &mut Vec<Message>, facts: &mut Vec<Fact>) {
        let now = self.clock.now();
        let mut due = self.book.next_due().map(|at| at.since(now));
        if self.health.borrow().store.is_some() {
            due = Some(due.map_or(PROBE_EVERY, |due| due.min(PROBE_EVERY)));
        }
        let timer = async {
            match due {
                // Timers are in whole milliseconds: never wake before the moment.
                Some(after) => tokio::time::sleep(after).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            _ = self.facts.recv_many(facts, MOST_PER_TURN) => {}
            _ = self.requests.recv_many(requests, MOST_PER_TURN) => {}
            Ok(()) = self.renewals.changed() => self.book.ask_again(),
            () = timer => {}
        }
    }

    /// One turn: decide everything at hand, make it durable, then let it be seen and done.
    /// Answers whether there is more to do at once.
    async fn turn(&mut self, requests: &mut Vec<Message>, facts: &mut Vec<Fact>) -> bool {
        let now = self.clock.now();
        if self.renewals.has_changed().unwrap_or(false) {
            self.renewals.mark_unchanged();
            self.book.ask_again();
        }
        self.book.begin();
        let mut replies = Vec::new();
        for fact in facts.iter() {
            self.take_fact(fact, now);
        }
        for request in requests.drain(..) {
            replies.extend(self.take_request(request, now));
        }
        for task in self.book.fire_due(now) {
            self.look_at_output(task);
        }
        let reviewer = &self.reviewer;
        let more_to_launch = self.book.schedule(now, |task| reviewer.concerns(task));
        let mut batch = self.book.batch();
        if self.health.borrow().store.is_some() {
            batch.idempotency.push(probe(now));
        }
        let nothing_to_write = batch == crate::port::Batch::default();
        let committed = if nothing_to_write {
            Ok(())
        } else {
            self.journal.commit(&batch).await
        };
        match committed {
            Ok(()) => {
                facts.clear();
                let kept = self.book.keep();
                self.publish(kept);
                for (task, attempt) in std::mem::take(&mut self.strays) {
                    self.orders.push(task, Order::Release(attempt));
                }
                for reply in replies {
                    self.answer(reply);
                }
                if !nothing_to_write && self.health.borrow().store.is_some() {
                    tracing::info!("the store takes changes again");
                    self.health.send_modify(|health| health.store = None);
                }
                more_to_launch || self.book.has_to_ask()
            }
            Err(error) => {
                self.book.tear_out();
                self.strays.clear();
                self.held.append(facts);
                keep_newest(&mut self.held);
                for reply in replies {
                    refuse(reply, &error);
                }
                if self.health.borrow().store.is_none() {
                    tracing::error!(%error, "changes are refused until the store takes them");
                }
                self.health
                    .send_modify(|health| health.store = Some(error.message.clone()));
                tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
                // Timers and launches are still due.
                true
            }
        }
    }

    fn take_fact(&mut self, fact: &Fact, now: Timestamp) {
        match fact {
            Fact::Event { task, event } => self.take_event(*task, event, now),
            Fact::Ran {
                task,
                started,
                ended,
            } => {
                self.take_event(*task, started, now);
                self.take_event(*task, ended, now);
            }
            Fact::Reviewed { task, round } => self.book.reviewed(*task, round, now),
            Fact::Removed(task) => self.book.removed(*task, now),
            Fact::Output { task, seen } => self.book.saw_output(*task, *seen, now),
            Fact::StrayUnit { task, attempt } => {
                let awaited = self.book.get(*task).is_some_and(|task| {
                    task.state.is_active()
                        && task
                            .attempt()
                            .is_some_and(|present| present.number == *attempt)
                });
                if !awaited {
                    self.strays.push((*task, *attempt));
                }
            }
        }
    }

    fn take_event(&mut self, task: TaskId, event: &Event, now: Timestamp) {
        if let Err(refusal) = self.book.event(task, event, now) {
            tracing::debug!(%task, ?event, %refusal, "an event changed nothing");
        }
    }

    fn take_request(&mut self, request: Message, now: Timestamp) -> Option<Reply> {
        match request {
            Message::Submit {
                prepared,
                reply,
                waiter,
            } => {
                let submitted = self.book.submit(prepared, now);
                Some(Reply::Submit(reply, submitted, waiter))
            }
            Message::Set {
                namespace,
                prepared,
                present,
                keep,
                reply,
            } => {
                let problems = self.book.set(&namespace, prepared, &present, &keep, now);
                Some(Reply::Set(reply, namespace, problems))
            }
            Message::Stop { key, grace, reply } => {
                let id = self.book.find(&key).map(|task| task.id);
                if let Some(id) = id {
                    // An ended task is answered as it is.
                    let _ = self.book.event(id, &Event::StopRequested { grace }, now);
                }
                Some(Reply::Task(reply, id))
            }
            Message::Delete { key, reply } => {
                let id = self.book.find(&key).map(|task| task.id);
                if let Some(id) = id {
                    // Every state takes the wish.
                    let _ = self.book.event(id, &Event::DeleteRequested, now);
                }
                Some(Reply::Task(reply, id))
            }
            Message::Answer {
                key,
                id: meant,
                answer,
                by,
                reason,
                reply,
            } => {
                let Some(id) = self.book.find(&key).map(|task| task.id) else {
                    return Some(Reply::Task(reply, None));
                };
                if meant.is_some_and(|meant| meant != id) {
                    let _ = reply.send(Err(ControlError::OtherTask { id }));
                    return None;
                }
                let event = Event::Answered { answer, by, reason };
                match self.book.event(id, &event, now) {
                    Ok(()) => Some(Reply::Task(reply, Some(id))),
                    Err(_) => {
                        let _ = reply.send(Err(ControlError::NotAsked));
                        None
                    }
                }
            }
            Message::Wait { id, reply } => {
                self.add_waiter(id, reply);
                None
            }
            Message::Close => None,
        }
    }

    fn add_waiter(&mut self, id: TaskId, reply: Waiter) {
        // What ended in this very turn is not durable yet: publishing it will answer.
        if let Some(task) = self.view.by_id(id).filter(|task| task.state.is_ended()) {
            let _ = reply.send(Ok(Some(task)));
            return;
        }
        if self.book.get(id).is_none() {
            // It was removed after the client looked it up.
            let _ = reply.send(Ok(None));
            return;
        }
        if self.waiting >= self.max_waiters {
            // Those who gave up are only noticed here.
            self.waiters.retain(|_, waiters| {
                waiters.retain(|waiter| !waiter.is_closed());
                !waiters.is_empty()
            });
            self.waiting = self.waiters.values().map(Vec::len).sum();
        }
        if self.waiting >= self.max_waiters {
            let _ = reply.send(Err(ControlError::Busy));
            return;
        }
        self.waiters.entry(id).or_default().push(reply);
        self.waiting += 1;
    }

    fn publish(&mut self, kept: Kept) {
        let Kept {
            changes,
            feed,
            effects,
            reviews,
        } = kept;
        let mut answers = Vec::new();
        for (id, change) in &changes {
            let over = change.as_ref().is_none_or(|task| task.state.is_ended());
            if over && let Some(waiters) = self.waiters.remove(id) {
                self.waiting -= waiters.len();
                let last = change.clone().or_else(|| self.view.by_id(*id));
                answers.push((waiters, last));
            }
        }
        crate::feed::count(&feed, &self.book);
        self.view.publish(changes);
        self.feed.publish(feed);
        for (waiters, last) in answers {
            for waiter in waiters {
                let _ = waiter.send(Ok(last.clone()));
            }
        }
        for (task, effect) in effects {
            self.perform(task, effect);
        }
        for task in reviews {
            self.review(task);
        }
    }

    /// Asks policies about a task that could be launched. The answer comes as a fact.
    fn review(&self, task: Arc<Task>) {
        let (reviewer, facts) = (self.reviewer.clone(), self.fact_sender.clone());
        self.runtime.spawn(async move {
            let id = task.id;
            let round = Box::new(reviewer.before_launch(task).await);
            let _ = facts.send(Fact::Reviewed { task: id, round });
        });
    }

    fn perform(&self, task: Arc<Task>, effect: Effect) {
        let id = task.id;
        let order = match effect {
            Effect::Start(attempt) => Order::Start(task, attempt),
            Effect::Stop { attempt, grace } => Order::Stop(attempt, grace),
            Effect::Terminate(attempt) => {
                // At once, too: from here on the attempt hears of nothing more.
                self.attempts.forget(id, attempt);
                Order::Terminate(attempt)
            }
            Effect::Release(attempt) => Order::Release(attempt),
            Effect::Remove => Order::Remove(task),
            // Told already, as part of the page.
            Effect::Tell(_) => return,
        };
        self.orders.push(id, order);
    }

    fn look_at_output(&self, task: Arc<Task>) {
        let units = self.units.clone();
        let clock = self.clock.clone();
        let facts = self.fact_sender.clone();
        self.runtime.spawn(async move {
            let id = task.id;
            let look = tokio::time::timeout(LONGEST_LOOK, units.last_output(task)).await;
            // Never end a task because nobody could look: take it as printing just now.
            let seen = match look {
                Ok(Ok(seen)) => seen,
                Ok(Err(_)) | Err(_) => Some(clock.now()),
            };
            let _ = facts.send(Fact::Output { task: id, seen });
        });
    }

    fn answer(&mut self, reply: Reply) {
        match reply {
            Reply::Submit(reply, Err(error), _) => {
                let _ = reply.send(Err(error));
            }
            Reply::Submit(reply, Ok(submitted), waiter) => {
                if let Some(waiter) = waiter {
                    self.add_waiter(submitted.task.id, waiter);
                }
                // It may have been launched in the same turn: answer with what is durable.
                let task = self.view.by_id(submitted.task.id).unwrap_or(submitted.task);
                let replayed = submitted.replayed;
                let _ = reply.send(Ok(Submitted { task, replayed }));
            }
            Reply::Set(reply, namespace, problems) => {
                let tasks = self.view.all(&namespace);
                let _ = reply.send(Ok(SetAnswer { tasks, problems }));
            }
            Reply::Task(reply, id) => {
                let _ = reply.send(Ok(id.and_then(|id| self.view.by_id(id))));
            }
        }
    }

    /// Carries out what recovery decided. Facts go through the loop like any other.
    fn take_over(&mut self, plan: recover::Plan) {
        // First of all: what is started below must not run beside what is killed here.
        for (task, attempt, act) in plan.units {
            let order = match act {
                UnitAct::Terminate => Order::Terminate(attempt),
                UnitAct::Release => Order::Release(attempt),
            };
            self.orders.push(task, order);
        }
        for (task, attempt) in plan.launch {
            self.orders.push(task.id, Order::Start(task, attempt));
        }
        for (task, attempt) in plan.start {
            let (id, state) = (task.id, task.state.clone());
            self.attempts.start(task, attempt);
            if let TaskState::Stopping { grace, .. } = state {
                let event = StrategyEvent::StopRequested { grace };
                self.attempts.tell(id, attempt, event);
            }
        }
        for (task, attempt, event) in plan.adopt {
            let id = task.id;
            self.attempts.adopt(task, attempt, true);
            self.attempts.tell(id, attempt, event);
        }
        let settled = self.clock.now().plus(LONGEST_SETTLING);
        for report in plan.ended {
            self.book.hold_off(report.task, settled);
            self.attempts.report(report);
        }
        for (task, event) in plan.facts {
            let _ = self.fact_sender.send(Fact::Event { task, event });
        }
        for task in plan.remove {
            self.orders.push(task.id, Order::Remove(task));
        }
    }
}

/// What the loop does to an attempt's units by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnitAct {
    /// Kill them all.
    Terminate,
    /// Their ends are on record.
    Release,
}

/// Something small to write, to see whether the store takes changes again: the same record
/// over and over, under a key that no client can have.
fn probe(now: Timestamp) -> IdempotencyRecord {
    IdempotencyRecord {
        key: "/probe".to_owned(),
        fingerprint: [0; 32],
        task: TaskId::from_u128(0),
        at: now,
    }
}

/// Of what only says how things stand, the newest is enough: so what is held while the store
/// refuses is bounded by the tasks, however long that takes.
fn keep_newest(held: &mut Vec<Fact>) {
    let mut seen = HashSet::new();
    let mut newest = Vec::with_capacity(held.len());
    for fact in held.drain(..).rev() {
        let superseded = match &fact {
            Fact::Event {
                task,
                event: Event::Progressed { .. },
            } => !seen.insert((0, *task)),
            Fact::Output { task, .. } => !seen.insert((1, *task)),
            Fact::Event { .. }
            | Fact::Ran { .. }
            | Fact::Reviewed { .. }
            | Fact::Removed(_)
            | Fact::StrayUnit { .. } => false,
        };
        if !superseded {
            newest.push(fact);
        }
    }
    newest.reverse();
    *held = newest;
}

fn refuse(reply: Reply, error: &CommitError) {
    let refused = || ControlError::Store {
        message: error.message.clone(),
        disk_full: error.disk_full,
    };
    match reply {
        Reply::Submit(reply, ..) => {
            let _ = reply.send(Err(refused().into()));
        }
        Reply::Set(reply, ..) => {
            let _ = reply.send(Err(refused()));
        }
        Reply::Task(reply, _) => {
            let _ = reply.send(Err(refused()));
        }
    }
}
