//! What the ends of containers make of their attempt.

use taskwright_plugin_sdk::Outcome;

use super::Life;
use super::state::{Stage, Status, Unit};

/// The outcome of a container of initialization, if it keeps the others from being started.
pub(super) fn of_init(name: &str, unit: &Unit) -> Option<Outcome> {
    failed(unit, Some(&format!("init container {name}")))
}

/// Whether a container ended, and well.
pub(super) fn has_succeeded(unit: &Unit) -> bool {
    unit.has_ended() && failed(unit, None).is_none()
}

/// The outcome of containers that all ended: that of the first, in their order, that did not end
/// with 0.
pub(super) fn of_all(life: &Life<'_>) -> Outcome {
    first_failed(life).unwrap_or(Outcome::Exited(0))
}

/// The outcome of an attempt that was stopped, when nothing of it runs any more. What was seen
/// counts; that it was stopped is known to the host.
pub(super) fn of_stopped(life: &Life<'_>) -> Outcome {
    if life.main().all(|(_, unit)| unit.has_ended()) {
        return of_all(life);
    }
    let mut init = life.init();
    let of_init = || init.find_map(|(index, unit)| of_init(&life.named(index).name, unit));
    first_failed(life).or_else(of_init).unwrap_or_else(|| {
        let some_ran = life.main().any(|(_, unit)| unit.has_ended());
        Outcome::Lost(if some_ran {
            "stopped before all of its containers ran".to_owned()
        } else {
            "stopped before it ran".to_owned()
        })
    })
}

fn first_failed(life: &Life<'_>) -> Option<Outcome> {
    let is_only = life.main().count() == 1;
    let mut main = life.main();
    main.find_map(|(index, unit)| {
        let whose = format!("container {}", life.named(index).name);
        failed(unit, (!is_only).then_some(&whose))
    })
}

/// The outcome by a container that ended badly. `whose` is said where it is not clear.
fn failed(unit: &Unit, whose: Option<&str>) -> Option<Outcome> {
    let Stage::Ended {
        status,
        out_of_memory,
        ..
    } = unit.stage
    else {
        return None;
    };
    if out_of_memory {
        return Some(Outcome::OutOfMemory);
    }
    Some(match (status, whose) {
        (Status::Code(0), _) => return None,
        (Status::Code(code), None) => Outcome::Exited(code),
        (Status::Code(code), Some(whose)) => {
            Outcome::ExitedBecause((code, format!("{whose} ended with exit code {code}")))
        }
        (Status::Signal(number), None) => Outcome::Signaled(number),
        // No outcome holds a signal and a sentence: the code is what a shell makes of a signal.
        (Status::Signal(number), Some(whose)) => Outcome::ExitedBecause((
            code_of_signal(number),
            format!("{whose} was ended by signal {number}"),
        )),
        (Status::Lost, whose) => Outcome::Lost(format!(
            "{} ended while the container runtime was away, so nobody knows how",
            whose.unwrap_or("the container")
        )),
    })
}

/// The exit code that a shell makes of a signal.
pub(super) fn code_of_signal(number: u32) -> u8 {
    u8::try_from(number.saturating_add(128)).unwrap_or(u8::MAX)
}
