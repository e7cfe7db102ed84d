//! What policies make of one task, and what they would make of it once their questions were
//! answered with yes.

use std::sync::Arc;

use anyhow::Context as _;
use serde_json::{Value, json};
use taskwright_api::TaskDocuments;
use taskwright_control::port::{Clock, Documents as _, Strategies as _};
use taskwright_control::review::Reviewer;
use taskwright_model::{
    Answer, Decision, Event, Namespace, Round, Said, Task, TaskKey, TaskSpec, Verdict, state,
};

use super::trial::Here;
use crate::command::explain::toned;
use crate::output::diff::diff;
use crate::output::style::{Colours, tame};
use crate::output::table::Table;
use crate::serve::clock::RealClock;

/// Questions, one after another, that are taken as answered with yes.
const MOST_QUESTIONS: usize = 8;

/// What came of one task.
pub(super) struct Tried {
    name: String,
    outcome: Outcome,
}

enum Outcome {
    /// What would become of it.
    Decided {
        submitted: Value,
        at_first: Box<Course>,
        /// And then, if it waits for an answer and that is yes.
        approved: Option<Box<Course>>,
    },
    /// It is no task here, which no policy would be asked about.
    NoTask(String),
}

/// How far a task comes until somebody has to answer, or nobody.
struct Course {
    verdicts: Vec<Verdict>,
    decision: Decision,
    /// The task's document then.
    effective: Value,
    is_changed: bool,
}

impl Tried {
    /// Asks about the task that this document is.
    pub(super) async fn asking(
        here: &Here,
        reviewer: &Reviewer,
        document: &Value,
    ) -> anyhow::Result<Self> {
        let name = document.get("name").and_then(Value::as_str).unwrap_or("?");
        let no_task = |why: String| Self {
            name: name.to_owned(),
            outcome: Outcome::NoTask(why),
        };
        let (task_name, spec) = match TaskDocuments.read(document) {
            Ok(read) => read,
            Err(problems) => return Ok(no_task(problems.join("; "))),
        };
        let runtime = match here.resolve(&spec) {
            Ok(runtime) => runtime,
            Err(problem) => return Ok(no_task(problem.message)),
        };
        let namespace = Namespace::native();
        let key = TaskKey {
            namespace,
            name: task_name,
        };
        let (id, now) = (RealClock.new_id(), RealClock.now());
        let mut task = Task::new(id, key, spec.into(), runtime, now);
        let submitted = written(&task, &task.spec)?;

        let round = reviewer.at_submission(Arc::new(task.clone())).await;
        let mut at_first = Course::after(&task, &round, &submitted)?;
        task = task.reviewed(&round);
        if round.decision == Decision::Pass {
            let launch = reviewer.before_launch(Arc::new(task.clone())).await;
            at_first.go_on(&task, &launch, &submitted)?;
            task = after(&task, &Event::Reviewed(Box::new(launch)))?;
        }
        let mut approved: Option<Box<Course>> = None;
        for _ in 0..MOST_QUESTIONS {
            let course = approved.as_deref().unwrap_or(&at_first);
            if !matches!(course.decision, Decision::Ask { .. }) {
                break;
            }
            let answer = Event::Answered {
                answer: Answer::Approve,
                by: "policy test".to_owned(),
                reason: String::new(),
            };
            task = after(&task, &answer)?;
            let launch = reviewer.before_launch(Arc::new(task.clone())).await;
            match &mut approved {
                Some(course) => course.go_on(&task, &launch, &submitted)?,
                None => approved = Some(Course::after(&task, &launch, &submitted)?.into()),
            }
            task = after(&task, &Event::Reviewed(Box::new(launch)))?;
        }
        Ok(Self {
            name: name.to_owned(),
            outcome: Outcome::Decided {
                submitted,
                at_first: at_first.into(),
                approved,
            },
        })
    }

    /// Whether it would run, if everybody says yes.
    pub(super) fn is_fine(&self) -> bool {
        match &self.outcome {
            Outcome::Decided {
                at_first, approved, ..
            } => {
                let course = approved.as_ref().unwrap_or(at_first);
                matches!(course.decision, Decision::Pass | Decision::Ask { .. })
            }
            Outcome::NoTask(_) => false,
        }
    }

    /// For programs.
    pub(super) fn to_json(&self) -> Value {
        let mut told = match &self.outcome {
            Outcome::NoTask(why) => json!({"result": "no task", "why": why, "verdicts": []}),
            Outcome::Decided {
                submitted,
                at_first,
                approved,
            } => {
                let mut told = at_first.to_json();
                if at_first.is_changed {
                    put(&mut told, "submitted", submitted.clone());
                }
                if let Some(approved) = approved {
                    put(&mut told, "approved", approved.to_json());
                }
                told
            }
        };
        put(&mut told, "name", self.name.clone().into());
        told
    }
}

impl Course {
    /// What `round` makes of a task.
    fn after(task: &Task, round: &Round, submitted: &Value) -> anyhow::Result<Self> {
        let mut course = Self {
            verdicts: Vec::new(),
            decision: Decision::Pass,
            effective: Value::Null,
            is_changed: false,
        };
        course.go_on(task, round, submitted)?;
        Ok(course)
    }

    /// What a further round makes of it.
    fn go_on(&mut self, task: &Task, round: &Round, submitted: &Value) -> anyhow::Result<()> {
        let spec = round.changed.as_ref().map_or(&task.spec, |(spec, _)| spec);
        self.verdicts.extend(round.verdicts.iter().cloned());
        self.decision = round.decision.clone();
        self.effective = written(task, spec)?;
        // What is refused, or asked about again, is not changed either.
        let goes_on = matches!(round.decision, Decision::Pass | Decision::Ask { .. });
        self.is_changed = goes_on && self.effective != *submitted;
        Ok(())
    }

    /// What would become of it, and why.
    fn told(&self) -> (&'static str, String) {
        match &self.decision {
            Decision::Pass if self.is_changed => ("change", self.reasons()),
            Decision::Pass => ("allow", self.reasons()),
            Decision::Deny {
                policy,
                reason,
                field,
            } => {
                let why = [field.as_str(), reason].join(" ");
                ("deny", format!("{policy}: {}", why.trim()))
            }
            Decision::Ask {
                policies, question, ..
            } => ("ask", format!("{}: {question}", policies.join(", "))),
            Decision::Retry {
                policy, message, ..
            } => ("policy-error", format!("{policy}: {message}")),
        }
    }

    /// Everything that was said beside "allow", warnings too.
    fn reasons(&self) -> String {
        let mut told: Vec<String> = Vec::new();
        for verdict in &self.verdicts {
            let why = match &verdict.said {
                Said::Allow => continue,
                Said::Change { reason, .. } => reason,
                Said::Deny { reason, .. } => reason,
                Said::Ask { question } => question,
                Said::Fault { message } => message,
            };
            let (policy, mode) = (&verdict.policy, verdict.mode.as_str());
            let said = format!("{policy} ({mode} {})", verdict.said.as_str());
            let said = match why.as_str() {
                "" => said,
                why => format!("{said}: {why}"),
            };
            if !told.contains(&said) {
                told.push(said);
            }
        }
        told.join("; ")
    }

    fn to_json(&self) -> Value {
        let (result, why) = self.told();
        let verdicts = self.verdicts.iter().map(|verdict| {
            json!({
                "policy": verdict.policy,
                "stage": verdict.stage.as_str(),
                "mode": verdict.mode.as_str(),
                "verdict": verdict.said.as_str(),
            })
        });
        let verdicts: Vec<Value> = verdicts.collect();
        let mut told = json!({"result": result, "why": why, "verdicts": verdicts});
        if self.is_changed {
            put(&mut told, "effective", self.effective.clone());
        }
        told
    }
}

/// For people: a line for each task and one more for what an answer would change, then the
/// changes.
pub(super) fn describe(tried: &[Tried], colours: Colours) -> String {
    let mut table = Table::new(&["TASK", "RESULT", "WHY"]);
    let mut changes = String::new();
    for one in tried {
        let name = tame(&one.name);
        let (submitted, at_first, approved) = match &one.outcome {
            Outcome::NoTask(why) => {
                table.row(vec![
                    name.as_str().into(),
                    toned("no task"),
                    why.as_str().into(),
                ]);
                continue;
            }
            Outcome::Decided {
                submitted,
                at_first,
                approved,
            } => (submitted, at_first, approved),
        };
        let (result, why) = at_first.told();
        table.row(vec![name.as_str().into(), toned(result), why.into()]);
        if at_first.is_changed {
            let how = match at_first.decision {
                Decision::Ask { .. } => "would be held as changed so far",
                _ => "would be changed",
            };
            changes.push_str(&format!("{name} {how}:\n"));
            changes.push_str(&diff(submitted, &at_first.effective, colours));
        }
        let Some(approved) = approved else { continue };
        let (result, why) = approved.told();
        table.row(vec!["  once approved".into(), toned(result), why.into()]);
        if approved.is_changed && approved.effective != at_first.effective {
            changes.push_str(&format!("{name} would be changed, once approved:\n"));
            changes.push_str(&diff(submitted, &approved.effective, colours));
        }
    }
    table.render(colours) + &changes
}

fn written(task: &Task, spec: &TaskSpec) -> anyhow::Result<Value> {
    let text = TaskDocuments.write(&task.key, spec);
    serde_json::from_str(&text).context("read what was written of the task")
}

/// The task after `event`, as the daemon's state machine has it.
fn after(task: &Task, event: &Event) -> anyhow::Result<Task> {
    let (task, _) = state::apply(task, event, RealClock.now())?;
    Ok(task)
}

fn put(object: &mut Value, key: &str, value: Value) {
    if let Some(object) = object.as_object_mut() {
        object.insert(key.to_owned(), value);
    }
}
