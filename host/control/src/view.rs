//! What readers see: the tasks as of the last commit. Nothing here is ahead of the store.
//!
//! The dispatcher is the only writer; readers share one lock for the time it
//! takes to clone an `Arc`.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use parking_lot::RwLock;
use taskwright_model::{Namespace, Task, TaskId, TaskKey};

use crate::request::{Page, Selector};

/// The states in the order of a life, for counts.
const STATES: [&str; 5] = ["pending", "starting", "running", "stopping", "ended"];

/// The published tasks.
#[derive(Default)]
pub struct View {
    inner: RwLock<Inner>,
}

#[derive(Default)]
struct Inner {
    by_key: HashMap<TaskKey, Arc<Task>>,
    by_id: BTreeMap<TaskId, Arc<Task>>,
    counts: HashMap<&'static str, usize>,
}

impl View {
    /// Replaces, adds (`Some`) and removes (`None`) tasks.
    pub fn publish(&self, changes: impl IntoIterator<Item = (TaskId, Option<Arc<Task>>)>) {
        let mut inner = self.inner.write();
        for (id, change) in changes {
            let old = match &change {
                Some(task) => {
                    *inner.counts.entry(task.state.as_str()).or_default() += 1;
                    inner.by_key.insert(task.key.clone(), task.clone());
                    inner.by_id.insert(id, task.clone())
                }
                None => inner.by_id.remove(&id),
            };
            let Some(old) = old else { continue };
            if let Some(count) = inner.counts.get_mut(old.state.as_str()) {
                *count = count.saturating_sub(1);
            }
            let name_is_stale = inner
                .by_key
                .get(&old.key)
                .is_some_and(|present| present.id == id)
                && change.is_none();
            if name_is_stale {
                inner.by_key.remove(&old.key);
            }
        }
    }

    /// A task by name.
    #[must_use]
    pub fn get(&self, key: &TaskKey) -> Option<Arc<Task>> {
        self.inner.read().by_key.get(key).cloned()
    }

    /// A task by id.
    #[must_use]
    pub fn by_id(&self, id: TaskId) -> Option<Arc<Task>> {
        self.inner.read().by_id.get(&id).cloned()
    }

    /// Every task of a namespace: live ones first, then ended ones, then those being deleted;
    /// in order of submission within each.
    #[must_use]
    pub fn all(&self, namespace: &Namespace) -> Vec<Arc<Task>> {
        let mut tasks: Vec<Arc<Task>> = {
            let inner = self.inner.read();
            let of_namespace = |task: &&Arc<Task>| task.key.namespace == *namespace;
            inner.by_id.values().filter(of_namespace).cloned().collect()
        };
        // Stable: the order of submission stays within each group.
        tasks.sort_by_key(|task| {
            let deleting = task.deleting_since.is_some();
            (deleting, Reverse(!task.state.is_ended()))
        });
        tasks
    }

    /// Up to `most` matching tasks in order of submission, after the task with id `after`.
    #[must_use]
    pub fn page(&self, selector: &Selector, after: Option<TaskId>, most: usize) -> Page {
        let inner = self.inner.read();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut tasks: Vec<Arc<Task>> = Vec::new();
        for task in inner
            .by_id
            .range((from, Bound::Unbounded))
            .map(|(_, task)| task)
        {
            if !selector.matches(task) {
                continue;
            }
            if tasks.len() == most {
                let next = tasks.last().map(|task| task.id);
                return Page { tasks, next };
            }
            tasks.push(task.clone());
        }
        Page { tasks, next: None }
    }

    /// How many tasks are in each state, in the order of a life.
    #[must_use]
    pub fn counts(&self) -> Vec<(&'static str, usize)> {
        let inner = self.inner.read();
        let count = |state| inner.counts.get(state).copied().unwrap_or(0);
        STATES.iter().map(|state| (*state, count(*state))).collect()
    }
}

impl Selector {
    /// Whether the selector takes this task.
    #[must_use]
    pub fn matches(&self, task: &Task) -> bool {
        let labels = &task.spec.labels;
        let namespace = self.namespace.as_ref();
        namespace.is_none_or(|namespace| task.key.namespace == *namespace)
            && (self.states.is_empty() || self.states.iter().any(|s| s == task.state.as_str()))
            && self.labels.iter().all(|term| term.matches(labels))
    }
}
