//! The runtime for containers and pods, as a component: one sandbox per attempt, in it one
//! container or several.
//!
//! What a task asks for is read in [`spec`], what to do next is decided in [`life`]; this file
//! only asks the host. The state of an attempt is what [`life`] remembers of its containers.

mod life;
mod spec;

use std::time::{SystemTime, UNIX_EPOCH};

use taskwright_plugin_sdk::{
    Description, Event, Failure, Outcome, Problem, Runtime, Step, Task, container, export, log,
    settings, status, units,
};

use taskwright_plugin_sdk::container::Error;

use crate::life::{Answer, Ask, Life, Next};
use crate::spec::Plan;

/// The setting with the seconds that the container runtime may be away before the work runs.
const RUNTIME_WAIT: &str = "runtime-wait";
const DEFAULT_RUNTIME_WAIT_SECONDS: u64 = 30;
/// What a shell says of a program that is there and does not start.
const NOT_EXECUTABLE: u8 = 126;

struct ContainerRuntime;

impl Runtime for ContainerRuntime {
    fn describe() -> Description {
        Description {
            name: "container".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            kinds: vec![spec::CONTAINER.to_owned(), spec::POD.to_owned()],
            config_schema: String::new(),
        }
    }

    fn probe() -> Result<(), String> {
        runtime_wait_ms(settings::get(RUNTIME_WAIT).as_deref())?;
        container::check().map_err(sentence)
    }

    fn validate(task: Task) -> Result<(), Vec<Problem>> {
        let plan = spec::parse(&task)?;
        let problems = not_allowed(&plan);
        if problems.is_empty() {
            Ok(())
        } else {
            Err(problems)
        }
    }

    fn start(task: Task) -> Result<Step, Failure> {
        let plan = match spec::parse(&task) {
            Ok(plan) => plan,
            // It was accepted by another version of this plugin, and nothing of it runs.
            Err(problems) => {
                let sentence = listed(&problems);
                return Ok(Step::Done(Outcome::ExitedBecause((
                    NOT_EXECUTABLE,
                    sentence,
                ))));
            }
        };
        live(Life::begin(&plan, patience_ms()))
    }

    fn on_event(task: Task, state: Vec<u8>, event: Event) -> Result<Step, Failure> {
        let plan = spec::parse(&task).map_err(|problems| Failure::Bug(listed(&problems)))?;
        let mut life = Life::resume(&plan, patience_ms(), &state)?;
        life.hear(&event, now_ms());
        live(life)
    }
}

export!(ContainerRuntime);

/// What the operator does not allow, or nobody could keep. Told before anything is stored; the
/// host sees to it once more when the time comes.
fn not_allowed(plan: &Plan) -> Vec<Problem> {
    let place = if plan.is_pod {
        "/podTemplateSpec"
    } else {
        "/container"
    };
    let sandbox = container::may_run(&plan.sandbox).map_err(|error| (None, error));
    let containers = plan.containers.iter().map(|one| {
        // Of its address nothing depends but the values of variables.
        match one.request(Some("")) {
            Ok(request) => container::may_create(&request).map_err(|error| (Some(one), error)),
            Err(sentence) => Err((Some(one), Error::Refused(sentence))),
        }
    });
    let refused = std::iter::once(sandbox).chain(containers);
    refused
        .filter_map(|answer| match answer.err()? {
            (whose, Error::Denied(sentence) | Error::Refused(sentence)) => Some(Problem {
                field: place.to_owned(),
                message: match whose.filter(|_| plan.is_pod) {
                    Some(one) => format!("container {}: {sentence}", one.name),
                    None => sentence,
                },
            }),
            // Whether it can be had is found out when it is started.
            _ => None,
        })
        .collect()
}

/// Goes as far as it can without waiting.
fn live(mut life: Life<'_>) -> Result<Step, Failure> {
    let answer = loop {
        match life.next() {
            Next::Ask(ask) => {
                let answer = ask_host(&ask);
                life.take(&ask, answer, now_ms());
            }
            Next::Answer(answer) => break answer,
        }
    };
    if let Ok(step) = &answer {
        let ended_at = matches!(step, Step::Done(_)).then(now_ms);
        if let Some(parts) = life.news(ended_at) {
            status::parts(&parts);
        }
        if let (Step::Wait(_), Some(note)) = (step, life.note()) {
            status::note(&note);
        }
    }
    answer
}

fn ask_host(ask: &Ask) -> Answer {
    match ask {
        Ask::Image(image) => Answer::Image(container::image(&image.name, image.policy)),
        Ask::Sandbox(request) => Answer::Sandbox(container::run_sandbox(request)),
        Ask::Create(unit, request) => Answer::Create(container::create(&unit.name, request)),
        Ask::Start(unit) => Answer::Start(container::start(&unit.name)),
        Ask::Inspect(unit) => Answer::Inspect(container::inspect(&unit.name)),
        Ask::Stop(unit, grace_ms) => Answer::Stop(units::stop(&unit.name, *grace_ms)),
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

/// What the operator set; what is no number is told to the operator and not used.
fn patience_ms() -> u64 {
    runtime_wait_ms(settings::get(RUNTIME_WAIT).as_deref()).unwrap_or_else(|sentence| {
        log::write(log::Level::Warn, &sentence);
        DEFAULT_RUNTIME_WAIT_SECONDS * 1000
    })
}

fn runtime_wait_ms(setting: Option<&str>) -> Result<u64, String> {
    let Some(text) = setting else {
        return Ok(DEFAULT_RUNTIME_WAIT_SECONDS * 1000);
    };
    let seconds: Option<u64> = text.trim().parse().ok();
    seconds
        .and_then(|seconds| seconds.checked_mul(1000))
        .ok_or_else(|| format!("the setting {RUNTIME_WAIT} is {text:?}, not a number of seconds"))
}

fn listed(problems: &[Problem]) -> String {
    let each = problems
        .iter()
        .map(|problem| format!("{}: {}", problem.field, problem.message));
    let all: Vec<String> = each.collect();
    format!("the task cannot be run as it is: {}", all.join("; "))
}

fn sentence(error: container::Error) -> String {
    match error {
        container::Error::ImageUnavailable(sentence)
        | container::Error::NotFound(sentence)
        | container::Error::NotExecutable(sentence)
        | container::Error::Refused(sentence)
        | container::Error::Denied(sentence)
        | container::Error::NotRunning(sentence)
        | container::Error::SandboxLost(sentence)
        | container::Error::NeverBegun(sentence)
        | container::Error::PerhapsBegun(sentence)
        | container::Error::UnderWay(sentence)
        | container::Error::Unavailable(sentence)
        | container::Error::Other(sentence) => sentence,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_for_the_runtime_is_a_number_of_seconds() {
        assert_eq!(runtime_wait_ms(None), Ok(30_000));
        assert_eq!(runtime_wait_ms(Some("0")), Ok(0));
        assert_eq!(runtime_wait_ms(Some(" 90 ")), Ok(90_000));
        for bad in ["", "30s", "-1", "18446744073709551615"] {
            let sentence = runtime_wait_ms(Some(bad));
            assert!(sentence.is_err_and(|it| it.contains(RUNTIME_WAIT)), "{bad}");
        }
    }
}
