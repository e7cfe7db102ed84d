//! The containers of a pod as people see them, in the words of Kubernetes.
//!
//! Those of initialization are left out: a pod's status has a list of their own for them.

use taskwright_plugin_sdk::Outcome;
use taskwright_plugin_sdk::status::{Part, PartEnd, PartState};

use super::Life;
use super::outcome::{self, code_of_signal};
use super::state::{Stage, Status, Unit};

/// All parts. `ended_at` is there once the attempt is over: what still runs then ends with it.
pub(super) fn of(life: &Life<'_>, ended_at: Option<u64>) -> Vec<Part> {
    let main = life
        .main()
        .zip(life.plan.containers.iter().skip(life.plan.init));
    main.map(|((_, unit), container)| Part {
        name: container.name.clone(),
        state: state(life, unit, container.image(), ended_at),
    })
    .collect()
}

fn state(life: &Life<'_>, unit: &Unit, image: &str, ended_at: Option<u64>) -> PartState {
    match unit.stage {
        Stage::Absent | Stage::Created => PartState::Waiting(waits_for(life, image).to_owned()),
        Stage::Running { since } => match ended_at {
            None => PartState::Running(since),
            Some(at) => PartState::Ended(PartEnd {
                code: None,
                out_of_memory: false,
                started_ms: Some(since),
                ended_ms: at,
            }),
        },
        Stage::Ended {
            status,
            out_of_memory,
            started,
            ended,
        } => PartState::Ended(PartEnd {
            code: match status {
                Status::Code(code) => Some(i32::from(code)),
                Status::Signal(number) => Some(i32::from(code_of_signal(number))),
                Status::Lost => None,
            },
            out_of_memory,
            started_ms: started,
            ended_ms: ended,
        }),
    }
}

fn waits_for(life: &Life<'_>, image: &str) -> &'static str {
    let wanted = life.plan.images.get(life.state.images);
    let is_refused = matches!(life.over, Some(Outcome::ImageUnavailable(_)))
        && wanted.is_some_and(|wanted| wanted.name == image);
    if is_refused {
        "ErrImagePull"
    } else if life.init().any(|(_, unit)| !outcome::has_succeeded(unit)) {
        "PodInitializing"
    } else {
        "ContainerCreating"
    }
}
