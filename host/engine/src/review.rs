//! The ports `Policies` and `Observers` over loaded plugins.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use taskwright_control::port::{
    Notice, Observers, Policies, PolicyEntry, PolicyVerdict, ReviewRequest, StrategyError,
};
use taskwright_model::{Answer, Stage};
use tokio::sync::watch;

use crate::bindings::{observer, policy};
use crate::call::{CallError, Scope};
use crate::convert;
use crate::plugin::Plugin;
use crate::strategy::Runtimes;
use crate::supervise::Call;

/// The largest task that a policy is asked about, in bytes of its document. The host takes no
/// larger ones either; a change may make one.
const MOST_DOCUMENT_BYTES: usize = 4 << 20;
/// The largest patch that is taken, in bytes.
const MOST_PATCH_BYTES: usize = 64 << 10;
/// The longest JSON pointer that is taken, in bytes.
const MOST_FIELD_BYTES: usize = 1024;

impl Policies for Runtimes {
    fn in_order(&self) -> Arc<[PolicyEntry]> {
        self.policies()
    }

    fn renewals(&self) -> watch::Receiver<()> {
        self.renewals.subscribe()
    }

    fn review(
        &self,
        policy: &str,
        asked: ReviewRequest,
    ) -> BoxFuture<'_, Result<PolicyVerdict, String>> {
        let found = self.named(policy);
        Box::pin(async move {
            let plugin = found.ok_or("it is not loaded; `/plugins` says why")?;
            let export = plugin.loaded.exports.policy.as_ref();
            let export = export.ok_or("it is no policy any more")?;
            if asked.document.len() > MOST_DOCUMENT_BYTES {
                let length = asked.document.len();
                return Err(format!(
                    "the task has {length} bytes, a policy is told of at most {MOST_DOCUMENT_BYTES}"
                ));
            }
            let request = request(&asked);
            let tape = plugin.tape(&plugin.review, &(&request,));
            plugin.admit(Call::Attempt).map_err(told)?;
            let answer = self
                .call(
                    (&*plugin, export),
                    &plugin.review,
                    (Scope::Check(asked.task), tape),
                    |guest, store| {
                        Box::pin(async move { guest.call_review(store, &request).await })
                    },
                    |answer| match answer {
                        Ok(said) => verdict(said).map(Ok),
                        Err(why) => Ok(Err(convert::text(why))),
                    },
                )
                .await;
            let answer = answer.map(|(answer, _)| answer);
            if let Ok(Err(why)) = &answer {
                plugin.review.erred.increment(1);
                plugin.supervision.answered_error(why);
                return Err(why.clone());
            }
            settle(&plugin, answer)?
        })
    }
}

impl Observers for Runtimes {
    fn names(&self) -> watch::Receiver<Arc<[String]>> {
        self.observers()
    }

    fn notice(&self, observer: &str, told_of: Notice) -> BoxFuture<'_, Result<(), String>> {
        let found = self.named(observer);
        Box::pin(async move {
            let plugin = found.ok_or("it is not loaded any more")?;
            let export = plugin.loaded.exports.observer.as_ref();
            let export = export.ok_or("it is no observer any more")?;
            let event = event(told_of);
            let tape = plugin.tape(&plugin.notice, &(&event,));
            plugin.admit(Call::Attempt).map_err(told)?;
            let answer = self
                .call(
                    (&*plugin, export),
                    &plugin.notice,
                    (Scope::Plugin, tape),
                    |guest, store| Box::pin(async move { guest.call_notice(store, &event).await }),
                    |answer| Ok(answer.map_err(convert::text)),
                )
                .await;
            settle(&plugin, answer.map(|(answer, _)| answer))?
        })
    }
}

/// Notes how a call went, and says why there is no answer.
fn settle<T>(plugin: &Plugin, answer: Result<T, CallError>) -> Result<T, String> {
    match answer {
        Ok(answer) => {
            plugin.supervision.went_well(Call::Attempt);
            Ok(answer)
        }
        Err(error) => Err(told(plugin.failed(error))),
    }
}

/// Why a call gave no answer. The plugin's name is said by whoever tells it.
fn told(error: StrategyError) -> String {
    match error {
        StrategyError::Plugin { message, .. }
        | StrategyError::Resting { message, .. }
        | StrategyError::Host { message } => message,
    }
}

fn request(asked: &ReviewRequest) -> policy::Request {
    let task = &asked.task.task;
    policy::Request {
        stage: match asked.stage {
            Stage::Submit => policy::Stage::Submit,
            Stage::Launch => policy::Stage::Launch,
        },
        id: task.id.to_string(),
        namespace: task.key.namespace.as_str().to_owned(),
        name: task.key.name.as_str().to_owned(),
        attempt: asked.task.attempt.0,
        runtime: asked.runtime.as_str().to_owned(),
        task: asked.document.to_string(),
        approved: asked.approved,
        extra: Vec::new(),
    }
}

fn verdict(said: policy::Verdict) -> Result<PolicyVerdict, CallError> {
    Ok(match said {
        policy::Verdict::Allow => PolicyVerdict::Allow,
        policy::Verdict::Change(policy::Change { patch, reason }) => {
            if patch.len() > MOST_PATCH_BYTES {
                let length = patch.len();
                return Err(CallError::Plugin(format!(
                    "its patch has {length} bytes, at most {MOST_PATCH_BYTES} are taken"
                )));
            }
            let reason = convert::text(reason);
            PolicyVerdict::Change { patch, reason }
        }
        policy::Verdict::Deny(policy::Denial { reason, mut field }) => {
            convert::cut(&mut field, MOST_FIELD_BYTES);
            let reason = convert::text(reason);
            PolicyVerdict::Deny { reason, field }
        }
        policy::Verdict::Ask(question) => PolicyVerdict::Ask {
            question: convert::text(question.text),
            within: question.within_ms.map(Duration::from_millis),
            otherwise: question.otherwise.map(|answer| match answer {
                policy::Answer::Approve => Answer::Approve,
                policy::Answer::Deny => Answer::Deny,
            }),
        },
    })
}

fn event(told_of: Notice) -> observer::Event {
    let Notice {
        entry,
        document,
        missed,
    } = told_of;
    observer::Event {
        sequence: entry.sequence,
        at_ms: u64::try_from(entry.at.as_millis()).unwrap_or(0),
        kind: entry.happening.as_str().to_owned(),
        id: entry.task.to_string(),
        namespace: entry.key.namespace.as_str().to_owned(),
        name: entry.key.name.as_str().to_owned(),
        document,
        missed,
        extra: Vec::new(),
    }
}
