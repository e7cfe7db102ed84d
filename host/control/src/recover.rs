//! What a restart makes of the journal and of the units that are still known.
//!
//! Pure: tasks and units in, a plan out. The supervisor remembers every unit it
//! was ever told to start until it is released, so within one boot of the
//! machine "not known" means "never started". After a reboot nothing runs, and
//! what was under way is lost, not guessed.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use taskwright_model::{AttemptNumber, Event, Outcome, Remarks, Task, TaskId, TaskState};

use crate::dispatcher::UnitAct;
use crate::port::{KnownUnit, StrategyEvent, UnitReport};

/// What to do before the first request is taken.
#[derive(Debug, Default)]
pub struct Plan {
    /// Attempts of which nothing was started. They wait for what is killed of former attempts.
    pub launch: Vec<(Arc<Task>, AttemptNumber)>,
    /// Attempts that were started before that was on record: starting again finds the first. One
    /// that is being stopped hears of the stop after its start.
    pub start: Vec<(Arc<Task>, AttemptNumber)>,
    /// Attempts that go on, and what to tell their strategies first.
    pub adopt: Vec<(Arc<Task>, AttemptNumber, StrategyEvent)>,
    /// Events to say to the machine.
    pub facts: Vec<(TaskId, Event)>,
    /// Ended tasks whose removal was under way.
    pub remove: Vec<Arc<Task>>,
    /// Ends of units that live attempts have not heard of. They came before anything that is
    /// overdue by now, as a limit that nobody was there to watch.
    pub ended: Vec<UnitReport>,
    /// Units of attempts that are over, or of tasks that are not on record.
    pub units: Vec<(TaskId, AttemptNumber, UnitAct)>,
}

/// Makes the plan.
pub fn plan(tasks: impl Iterator<Item = Arc<Task>>, known: &[KnownUnit], rebooted: bool) -> Plan {
    let mut plan = Plan::default();
    let mut units: HashMap<(TaskId, AttemptNumber), Vec<&KnownUnit>> = HashMap::new();
    for unit in known {
        units
            .entry((unit.task, unit.attempt))
            .or_default()
            .push(unit);
    }
    let mut live = HashSet::new();
    let mut newest = HashMap::new();
    for task in tasks {
        let number = task.attempt().map(|attempt| attempt.number);
        newest.insert(task.id, (number, task.state.is_ended()));
        let Some(attempt) = task.attempt().map(|attempt| attempt.number) else {
            // It never ran, and its removal may have been cut short all the same.
            if task.state.is_ended() && task.deleting_since.is_some() {
                plan.remove.push(task);
            }
            continue;
        };
        if task.state.is_active() {
            live.insert((task.id, attempt));
        }
        let is_known = units.contains_key(&(task.id, attempt));
        plan.add(task, attempt, is_known, rebooted);
    }
    for ((task, attempt), units) in units {
        if live.contains(&(task, attempt)) {
            plan.ended.extend(units.into_iter().filter_map(report));
            continue;
        }
        // The order to kill may have been lost with the daemon that gave it: only what a normal
        // end of the newest attempt left behind may stay.
        let may_stay = match newest.get(&task) {
            Some((number, ended)) => {
                *ended && *number == Some(attempt) && units.iter().all(|unit| unit.ended.is_some())
            }
            None => {
                tracing::warn!(%task, "processes of a task that is not on record are ended");
                false
            }
        };
        if !may_stay {
            plan.units.push((task, attempt, UnitAct::Terminate));
        }
        plan.units.push((task, attempt, UnitAct::Release));
    }
    plan
}

fn report(unit: &KnownUnit) -> Option<UnitReport> {
    unit.ended.map(|ended| UnitReport {
        task: unit.task,
        attempt: unit.attempt,
        unit: unit.unit.clone(),
        ended,
    })
}

impl Plan {
    fn add(&mut self, task: Arc<Task>, attempt: AttemptNumber, is_known: bool, rebooted: bool) {
        let had_process = task
            .attempt()
            .is_some_and(|attempt| attempt.process.is_some());
        let never_started = task
            .attempt()
            .is_some_and(|attempt| attempt.started_at.is_none());
        let lost = |message: &str| Event::AttemptEnded {
            attempt,
            outcome: Outcome::Lost {
                message: message.to_owned(),
            },
            remarks: Remarks::default(),
        };
        match &task.state {
            TaskState::Starting { .. } if rebooted && !is_known => {
                let event = lost("the machine was restarted while the task was being started");
                self.facts.push((task.id, event));
            }
            TaskState::Starting { .. } if is_known => self.start.push((task, attempt)),
            TaskState::Starting { .. } => self.launch.push((task, attempt)),
            TaskState::Running { .. } | TaskState::Stopping { .. } if !is_known && had_process => {
                let event = lost(if rebooted {
                    "the machine was restarted while the task ran"
                } else {
                    "the record of its process is gone"
                });
                self.facts.push((task.id, event));
            }
            TaskState::Running { .. } => {
                self.adopt.push((task, attempt, StrategyEvent::Recovered));
            }
            // The strategy's own state came too late for the record: only a start gives it back.
            TaskState::Stopping { .. } if never_started && is_known => {
                self.start.push((task, attempt));
            }
            TaskState::Stopping { grace, .. } => {
                let event = StrategyEvent::StopRequested { grace: *grace };
                self.adopt.push((task, attempt, event));
            }
            TaskState::Ended { .. } if task.deleting_since.is_some() => self.remove.push(task),
            TaskState::Ended { .. } | TaskState::Pending { .. } => {}
        }
    }
}
