//! The book of tasks: indexes, queue, timers and undo. No async, no I/O.
//!
//! The dispatcher opens a page with [`Book::begin`], writes on it, takes the
//! [`Batch`] to the journal, and then either keeps the page ([`Book::keep`])
//! or tears it out ([`Book::tear_out`]), which restores everything as it was.
//! All indexes follow from `Book::replace`, so undo is the same walk backwards.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use taskwright_model::deadline::{Due, next_due};
use taskwright_model::{
    Decision, Effect, Event, Happening, Hold, Limit, Namespace, Refusal, Round, Task, TaskId,
    TaskKey, TaskState, Timestamp, state,
};

use crate::handle::Prepared;
use crate::port::{Batch, FeedEntry, IdempotencyRecord, KEY_LIFETIME, MOST_KEYS};
use crate::request::{SetProblem, Submission, SubmitError, Submitted};

/// Timers fired in one turn; the rest come with the next.
const MOST_DUE_PER_TURN: usize = 1024;
/// Attempts launched in one turn; the rest come with the next.
const MOST_LAUNCHES_PER_TURN: usize = 256;

/// The limits of the book.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Attempts under way at once, at least 1.
    pub max_active: usize,
    /// Tasks on record at once.
    pub max_tasks: usize,
}

/// What a kept page asks for.
#[derive(Debug, Default)]
pub struct Kept {
    /// Tasks as they are now, or `None` for gone.
    pub changes: Vec<(TaskId, Option<Arc<Task>>)>,
    /// New feed lines.
    pub feed: Vec<FeedEntry>,
    /// What to do now, in order, each with the task as of the end of the page.
    pub effects: Vec<(Arc<Task>, Effect)>,
    /// Tasks about which policies are to be asked before they are launched.
    pub reviews: Vec<Arc<Task>>,
}

enum Undo {
    Task(TaskId, Option<Arc<Task>>),
    Key(String, Option<IdempotencyRecord>),
}

/// Every task there is, and what follows from it.
pub struct Book {
    limits: Limits,
    tasks: HashMap<TaskId, Arc<Task>>,
    names: HashMap<TaskKey, TaskId>,
    /// Launchable tasks, first to last.
    ready: BTreeSet<(Reverse<i32>, TaskId)>,
    /// The next moment of each task that has one.
    timers: BTreeSet<(Timestamp, TaskId)>,
    due: HashMap<TaskId, Timestamp>,
    /// When running tasks with an idle limit last printed something.
    last_output: HashMap<TaskId, Timestamp>,
    active: usize,
    /// Launchable tasks about which policies are being asked: each holds a place for its attempt.
    reviewing: HashSet<TaskId>,
    /// Tasks that wait for a policy without a verdict and are to wait no longer.
    again: VecDeque<TaskId>,
    /// Those of them that the open page took.
    hurried: Vec<TaskId>,
    /// Those of `reviewing` that policies may be asked about which are not there any more.
    outdated: HashSet<TaskId>,
    keys: HashMap<String, IdempotencyRecord>,
    key_order: VecDeque<(Timestamp, String)>,
    next_sequence: u64,
    // The open page.
    undo: Vec<Undo>,
    page_sequence: u64,
    feed: Vec<FeedEntry>,
    new_keys: Vec<IdempotencyRecord>,
    effects: Vec<(TaskId, Effect)>,
    reviews: Vec<TaskId>,
}

impl Book {
    /// A book with what a store held.
    #[must_use]
    pub fn new(
        limits: Limits,
        tasks: Vec<Task>,
        next_sequence: u64,
        keys: Vec<IdempotencyRecord>,
    ) -> Self {
        let mut book = Self {
            limits,
            tasks: HashMap::with_capacity(tasks.len()),
            names: HashMap::with_capacity(tasks.len()),
            ready: BTreeSet::new(),
            timers: BTreeSet::new(),
            due: HashMap::new(),
            last_output: HashMap::new(),
            active: 0,
            reviewing: HashSet::new(),
            again: VecDeque::new(),
            hurried: Vec::new(),
            outdated: HashSet::new(),
            keys: HashMap::new(),
            key_order: VecDeque::new(),
            next_sequence,
            undo: Vec::new(),
            page_sequence: next_sequence,
            feed: Vec::new(),
            new_keys: Vec::new(),
            effects: Vec::new(),
            reviews: Vec::new(),
        };
        for task in tasks {
            book.replace(task.id, Some(Arc::new(task)));
        }
        for key in keys {
            book.remember_key(key);
        }
        book
    }

    /// Every task, in no order.
    pub fn tasks(&self) -> impl Iterator<Item = &Arc<Task>> {
        self.tasks.values()
    }

    /// A task by id, as of the open page.
    #[must_use]
    pub fn get(&self, id: TaskId) -> Option<&Arc<Task>> {
        self.tasks.get(&id)
    }

    /// A task by name, as of the open page.
    #[must_use]
    pub fn find(&self, key: &TaskKey) -> Option<&Arc<Task>> {
        self.names.get(key).and_then(|id| self.tasks.get(id))
    }

    /// How many attempts are under way.
    #[must_use]
    pub fn active(&self) -> usize {
        self.active
    }

    /// When something is due next.
    #[must_use]
    pub fn next_due(&self) -> Option<Timestamp> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Nothing is due for this task before `until`, unless it changes.
    pub fn hold_off(&mut self, id: TaskId, until: Timestamp) {
        if self.due.get(&id).is_some_and(|at| *at < until) {
            self.set_timer(id, Some(until));
        }
    }

    /// What gave no verdict may give one now: whatever waits to be asked again is asked with the
    /// next turns instead of after its pause.
    pub fn ask_again(&mut self) {
        let waits = |task: &&Arc<Task>| {
            let pauses = matches!(
                task.state,
                TaskState::Pending {
                    not_before: Some(_)
                }
            );
            pauses && matches!(task.hold(), Some(Hold::Broken { .. }))
        };
        let waiting = self.tasks.values().filter(waits).map(|task| task.id);
        self.again = waiting.collect();
        self.outdated.clone_from(&self.reviewing);
    }

    /// Whether there is more to ask about than one turn takes.
    #[must_use]
    pub fn has_to_ask(&self) -> bool {
        !self.again.is_empty()
    }

    /// Opens a page.
    pub fn begin(&mut self) {
        self.undo.clear();
        self.feed.clear();
        self.new_keys.clear();
        self.effects.clear();
        self.reviews.clear();
        self.hurried.clear();
        self.page_sequence = self.next_sequence;
    }

    /// What the open page makes durable.
    #[must_use]
    pub fn batch(&self) -> Batch {
        let mut batch = Batch {
            feed: self.feed.clone(),
            idempotency: self.new_keys.clone(),
            ..Batch::default()
        };
        for (id, change) in self.changes() {
            match change {
                Some(task) => batch.put.push(task),
                None => batch.remove.push(id),
            }
        }
        batch
    }

    /// Keeps the page: what it says is true now.
    pub fn keep(&mut self) -> Kept {
        let changes = self.changes();
        self.undo.clear();
        self.new_keys.clear();
        self.next_sequence = self.page_sequence;
        let effects = std::mem::take(&mut self.effects);
        let with_task = |(id, effect)| self.tasks.get(&id).map(|task| (task.clone(), effect));
        Kept {
            effects: effects.into_iter().filter_map(with_task).collect(),
            feed: std::mem::take(&mut self.feed),
            reviews: std::mem::take(&mut self.reviews)
                .into_iter()
                .filter_map(|id| self.tasks.get(&id).cloned())
                .collect(),
            changes,
        }
    }

    /// Tears the page out: everything is as it was when it was opened.
    pub fn tear_out(&mut self) {
        self.again.extend(std::mem::take(&mut self.hurried));
        for id in std::mem::take(&mut self.reviews) {
            self.reviewing.remove(&id);
            if let Some(task) = self.tasks.get(&id) {
                self.ready.insert((Reverse(task.spec.priority), id));
            }
        }
        while let Some(undo) = self.undo.pop() {
            match undo {
                Undo::Task(id, old) => {
                    self.replace(id, old);
                }
                Undo::Key(key, before) => {
                    self.key_order.pop_back();
                    match before {
                        Some(record) => self.keys.insert(key, record),
                        None => self.keys.remove(&key),
                    };
                }
            }
        }
        self.begin();
    }

    /// Each task the page changed, once, as it is at its end.
    fn changes(&self) -> Vec<(TaskId, Option<Arc<Task>>)> {
        let mut seen = std::collections::HashSet::new();
        let mut changes = Vec::new();
        for undo in &self.undo {
            if let Undo::Task(id, before) = undo
                && seen.insert(*id)
            {
                let now = self.tasks.get(id).cloned();
                // Made and gone within one page: nobody ever saw it.
                if before.is_some() || now.is_some() {
                    changes.push((*id, now));
                }
            }
        }
        changes
    }

    /// Accepts a task.
    ///
    /// # Errors
    /// [`SubmitError`] when its name is in use, its key was used otherwise, or the book is full.
    pub fn submit(&mut self, prepared: Prepared, now: Timestamp) -> Result<Submitted, SubmitError> {
        let Prepared {
            submission,
            runtime,
            id,
            round,
        } = prepared;
        let key = submission.idempotency.as_ref();
        let scoped = key.map(|key| format!("{}/{}", submission.key.namespace, key.key));
        if let (Some(key), Some(scoped)) = (key, &scoped)
            && let Some(used) = self.keys.get(scoped)
            && now.since(used.at) < KEY_LIFETIME
        {
            if used.fingerprint != key.fingerprint {
                return Err(SubmitError::KeyReused);
            }
            // Its task was deleted since: running it once more is what the key is to prevent.
            let task = self.tasks.get(&used.task).cloned();
            let task = task.ok_or(SubmitError::KeySpent)?;
            let replayed = true;
            return Ok(Submitted { task, replayed });
        }
        if let Some(present) = self.find(&submission.key) {
            return Err(SubmitError::Exists {
                name: submission.key.name.clone(),
                deleting: present.deleting_since.is_some(),
            });
        }
        if self.tasks.len() >= self.limits.max_tasks {
            let most = self.limits.max_tasks;
            return Err(SubmitError::TooMany { most });
        }
        let mut task = Task::new(id, submission.key, submission.spec, runtime, now);
        if let Some(round) = round {
            task = task.reviewed(&round);
        }
        let task = Arc::new(task);
        self.put(id, Some(task.clone()));
        self.tell(&task, Happening::Submitted, now);
        if let Some(hold) = task.hold() {
            self.tell(&task, hold.told(), now);
        }
        if let (Some(key), Some(scoped)) = (submission.idempotency, scoped) {
            let record = IdempotencyRecord {
                key: scoped.clone(),
                fingerprint: key.fingerprint,
                task: id,
                at: now,
            };
            let before = self.keys.get(&scoped).cloned();
            self.undo.push(Undo::Key(scoped, before));
            self.new_keys.push(record.clone());
            self.remember_key(record);
        }
        let replayed = false;
        Ok(Submitted { task, replayed })
    }

    /// Makes the tasks of `namespace` be the wanted ones. `present` were there when asked and
    /// are compared, `keep` are left alone, `prepared` are made where missing.
    pub fn set(
        &mut self,
        namespace: &Namespace,
        prepared: Vec<Prepared>,
        present: &[Submission],
        keep: &[taskwright_model::TaskName],
        now: Timestamp,
    ) -> Vec<SetProblem> {
        let mut problems = Vec::new();
        let wanted: std::collections::HashSet<_> = prepared
            .iter()
            .map(|one| one.submission.key.name.clone())
            .chain(present.iter().map(|one| one.key.name.clone()))
            .chain(keep.iter().cloned())
            .collect();
        let unwanted: Vec<TaskId> = self
            .tasks
            .values()
            .filter(|task| task.key.namespace == *namespace && !wanted.contains(&task.key.name))
            .map(|task| task.id)
            .collect();
        for id in unwanted {
            // A task can always be wished away: there is nothing to refuse.
            let _ = self.event(id, &Event::DeleteRequested, now);
        }
        for one in present {
            problems.extend(self.compare(one));
        }
        for one in prepared {
            if self.find(&one.submission.key).is_some() {
                problems.extend(self.compare(&one.submission));
                continue;
            }
            let name = one.submission.key.name.clone();
            if let Err(error) = self.submit(one, now) {
                problems.push(SetProblem {
                    name,
                    message: error.to_string(),
                    details: Vec::new(),
                    kept_present: false,
                });
            }
        }
        problems
    }

    /// What is wrong with wanting this where something of that name is, or was a moment ago.
    fn compare(&self, wanted: &Submission) -> Option<SetProblem> {
        let Some(present) = self.find(&wanted.key) else {
            return Some(SetProblem {
                name: wanted.key.name.clone(),
                message: "the task of that name was removed a moment ago; send it again".into(),
                details: Vec::new(),
                kept_present: false,
            });
        };
        // Asking again for what is being deleted is usual: it is made anew once it is gone.
        if present.deleting_since.is_some() || *present.submitted_spec() == wanted.spec {
            return None;
        }
        let message = "a task of that name with another spec is there and was kept as it is; \
                       delete it first, or use another name";
        Some(SetProblem {
            name: wanted.key.name.clone(),
            message: message.into(),
            details: Vec::new(),
            kept_present: true,
        })
    }

    /// Says an event to the state machine.
    ///
    /// # Errors
    /// [`Refusal`] when it does not fit, or there is no such task (`AlreadyEnded`).
    pub fn event(&mut self, id: TaskId, event: &Event, now: Timestamp) -> Result<(), Refusal> {
        let task = self.tasks.get(&id).ok_or(Refusal::AlreadyEnded)?;
        let (next, effects) = state::apply(task, event, now)?;
        if next != **task {
            self.put(id, Some(Arc::new(next)));
        }
        for effect in effects {
            match effect {
                Effect::Tell(happening) => {
                    if let Some(task) = self.tasks.get(&id).cloned() {
                        self.tell(&task, happening, now);
                    }
                }
                other => self.effects.push((id, other)),
            }
        }
        Ok(())
    }

    /// The task's leftovers and files are gone: so is its record.
    pub fn removed(&mut self, id: TaskId, now: Timestamp) {
        if let Some(task) = self.tasks.get(&id).cloned() {
            self.put(id, None);
            self.tell(&task, Happening::Removed, now);
        }
    }

    /// Fires what is due; answers with the tasks whose output must be looked at.
    pub fn fire_due(&mut self, now: Timestamp) -> Vec<Arc<Task>> {
        let hurried = self.again.len().min(MOST_DUE_PER_TURN);
        self.hurried = self.again.drain(..hurried).collect();
        for id in self.hurried.clone() {
            let holds = |task: &Arc<Task>| matches!(task.hold(), Some(Hold::Broken { .. }));
            if self.tasks.get(&id).is_some_and(holds) {
                // Meanwhile it may have been stopped, or asked about.
                let _ = self.event(id, &Event::Due(Due::Retry), now);
            }
        }
        let mut idle_checks = Vec::new();
        for _ in 0..MOST_DUE_PER_TURN {
            let Some((_, id)) = self.timers.first().copied().filter(|(at, _)| *at <= now) else {
                break;
            };
            let Some(task) = self.tasks.get(&id).cloned() else {
                self.set_timer(id, None);
                continue;
            };
            match next_due(&task, self.last_output.get(&id).copied()) {
                Some((at, Due::IdleCheck)) if at <= now => {
                    idle_checks.push(task);
                    self.set_timer(id, None);
                }
                Some((at, due)) if at <= now => {
                    if self.event(id, &Event::Due(due), now).is_err() {
                        self.set_timer(id, None);
                    }
                }
                other => self.set_timer(id, other.map(|(at, _)| at)),
            }
        }
        idle_checks
    }

    /// A running task was found to have printed something last at `seen`.
    pub fn saw_output(&mut self, id: TaskId, seen: Option<Timestamp>, now: Timestamp) {
        let Some(task) = self.tasks.get(&id).cloned() else {
            return;
        };
        if !matches!(task.state, TaskState::Running { .. }) {
            return;
        }
        if let Some(seen) = seen {
            self.last_output.insert(id, seen);
        }
        match next_due(&task, self.last_output.get(&id).copied()) {
            Some((at, Due::IdleCheck)) if at <= now => {
                // The task runs, so its idle limit may fire.
                let _ = self.event(id, &Event::Due(Due::Limit(Limit::Idle)), now);
            }
            other => self.set_timer(id, other.map(|(at, _)| at)),
        }
    }

    /// Launches what order and limits allow; what `is_reviewed` is put aside instead, until
    /// [`Book::reviewed`] tells what came of it. Answers whether more could be launched.
    pub fn schedule(&mut self, now: Timestamp, is_reviewed: impl Fn(&Task) -> bool) -> bool {
        for _ in 0..MOST_LAUNCHES_PER_TURN {
            if !self.has_room() {
                return false;
            }
            let Some((_, id)) = self.ready.first().copied() else {
                return false;
            };
            if self.tasks.get(&id).is_some_and(|task| is_reviewed(task)) {
                self.ready.pop_first();
                self.reviewing.insert(id);
                self.reviews.push(id);
                continue;
            }
            if self.event(id, &Event::Launched, now).is_err() {
                self.ready.pop_first();
            }
        }
        self.has_room() && !self.ready.is_empty()
    }

    fn has_room(&self) -> bool {
        self.active + self.reviewing.len() < self.limits.max_active
    }

    /// Policies were asked about a task that was put aside: launches it if none is against it.
    pub fn reviewed(&mut self, id: TaskId, round: &Round, now: Timestamp) {
        self.reviewing.remove(&id);
        if self.outdated.remove(&id) && matches!(round.decision, Decision::Retry { .. }) {
            self.again.push_back(id);
        }
        let event = Event::Reviewed(Box::new(round.clone()));
        // Meanwhile it may have been stopped.
        if self.event(id, &event, now).is_ok() && round.decision == Decision::Pass {
            // It waits, and nothing holds it back.
            let _ = self.event(id, &Event::Launched, now);
        }
    }

    fn tell(&mut self, task: &Task, happening: Happening, now: Timestamp) {
        self.feed.push(FeedEntry {
            sequence: self.page_sequence,
            at: now,
            task: task.id,
            key: task.key.clone(),
            happening,
        });
        self.page_sequence += 1;
    }

    fn put(&mut self, id: TaskId, task: Option<Arc<Task>>) {
        let old = self.replace(id, task);
        self.undo.push(Undo::Task(id, old));
    }

    /// Puts a task in place of another and brings every index along.
    fn replace(&mut self, id: TaskId, new: Option<Arc<Task>>) -> Option<Arc<Task>> {
        let old = match &new {
            Some(task) => self.tasks.insert(id, task.clone()),
            None => self.tasks.remove(&id),
        };
        if let Some(old) = &old {
            self.ready.remove(&(Reverse(old.spec.priority), id));
            self.active -= usize::from(old.state.is_active());
            if new.is_none() {
                self.names.remove(&old.key);
            }
        }
        let Some(new) = new else {
            self.reviewing.remove(&id);
            self.outdated.remove(&id);
            self.last_output.remove(&id);
            self.set_timer(id, None);
            return old;
        };
        if old.is_none() {
            self.names.insert(new.key.clone(), id);
        }
        self.active += usize::from(new.state.is_active());
        let waits = matches!(new.state, TaskState::Pending { not_before: None });
        let is_asked_about = matches!(new.hold(), Some(Hold::Asked { .. }));
        if waits && !is_asked_about && !self.reviewing.contains(&id) {
            self.ready.insert((Reverse(new.spec.priority), id));
        }
        if !matches!(new.state, TaskState::Running { .. }) {
            self.last_output.remove(&id);
        }
        let due = next_due(&new, self.last_output.get(&id).copied());
        self.set_timer(id, due.map(|(at, _)| at));
        old
    }

    fn set_timer(&mut self, id: TaskId, at: Option<Timestamp>) {
        let old = match at {
            Some(at) => self.due.insert(id, at),
            None => self.due.remove(&id),
        };
        if let Some(old) = old {
            self.timers.remove(&(old, id));
        }
        if let Some(at) = at {
            self.timers.insert((at, id));
        }
    }

    fn remember_key(&mut self, record: IdempotencyRecord) {
        self.key_order.push_back((record.at, record.key.clone()));
        let horizon = record.at;
        self.keys.insert(record.key.clone(), record);
        while let Some((at, key)) = self.key_order.front() {
            let too_old = horizon.since(*at) >= KEY_LIFETIME;
            if !too_old && self.key_order.len() <= MOST_KEYS {
                break;
            }
            // A key used again after its time stands further back in the order, too.
            if self.keys.get(key).is_some_and(|present| present.at == *at) {
                self.keys.remove(key);
            }
            self.key_order.pop_front();
        }
    }
}
