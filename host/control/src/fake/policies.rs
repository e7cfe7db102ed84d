//! Policies that say what a test wants.

use std::collections::HashMap;
use std::sync::Arc;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use taskwright_model::{TaskKey, TaskSpec};
use tokio::sync::watch;

use crate::port::{
    Documents, FeedEntry, Policies, PolicyEntry, PolicyTerms, PolicyVerdict, ReviewRequest,
};

type Say = Arc<dyn Fn(&ReviewRequest) -> Result<PolicyVerdict, String> + Send + Sync>;

/// Policies in the order in which they were put.
#[derive(Default)]
pub struct FakePolicies {
    entries: Mutex<Vec<(PolicyEntry, Say)>>,
    asked: Mutex<Vec<(String, ReviewRequest)>>,
    renewals: watch::Sender<()>,
}

impl FakePolicies {
    /// A policy that says this from now on.
    pub fn put(
        &self,
        name: &str,
        terms: PolicyTerms,
        say: impl Fn(&ReviewRequest) -> Result<PolicyVerdict, String> + Send + Sync + 'static,
    ) {
        let name = name.to_owned();
        let mut entries = self.entries.lock();
        entries.retain(|(entry, _)| entry.name != name);
        entries.push((PolicyEntry { name, terms }, Arc::new(say)));
        entries.sort_by_key(|(entry, _)| entry.terms.order);
        self.renewals.send_replace(());
    }

    /// No policy any more.
    pub fn clear(&self) {
        self.entries.lock().clear();
        self.renewals.send_replace(());
    }

    /// Who was asked what so far.
    #[must_use]
    pub fn asked(&self) -> Vec<(String, ReviewRequest)> {
        self.asked.lock().clone()
    }
}

impl Policies for FakePolicies {
    fn in_order(&self) -> Arc<[PolicyEntry]> {
        let entries = self.entries.lock();
        entries.iter().map(|(entry, _)| entry.clone()).collect()
    }

    fn renewals(&self) -> watch::Receiver<()> {
        self.renewals.subscribe()
    }

    fn review(
        &self,
        policy: &str,
        request: ReviewRequest,
    ) -> BoxFuture<'_, Result<PolicyVerdict, String>> {
        self.asked.lock().push((policy.to_owned(), request.clone()));
        let entries = self.entries.lock();
        let found = entries.iter().find(|(entry, _)| entry.name == policy);
        let said = match found {
            Some((_, say)) => say(&request),
            None => Err("it is gone".to_owned()),
        };
        Box::pin(std::future::ready(said))
    }
}

/// Documents that say nothing but a task's priority, which is all that a patch can change.
#[derive(Default)]
pub struct FakeDocuments {
    written: Mutex<HashMap<String, TaskSpec>>,
}

impl Documents for FakeDocuments {
    fn write(&self, _: &TaskKey, spec: &TaskSpec) -> String {
        let document = spec.priority.to_string();
        self.written.lock().insert(document.clone(), spec.clone());
        document
    }

    fn patch(&self, document: &str, patch: &str) -> Result<(TaskSpec, String), String> {
        let mut written = self.written.lock();
        let mut spec = written.get(document).cloned().ok_or("nobody wrote that")?;
        spec.priority = patch.parse().map_err(|_| "no number".to_owned())?;
        written.insert(patch.to_owned(), spec.clone());
        Ok((spec, patch.to_owned()))
    }

    fn event(&self, entry: &FeedEntry) -> String {
        entry.sequence.to_string()
    }
}
