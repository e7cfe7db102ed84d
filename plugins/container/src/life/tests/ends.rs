//! Ends of containers, and what they make of the attempt.

use taskwright_plugin_sdk::{End, Event, Failure};

use super::world::{out_of_memory, signal, unknown};
use super::*;

fn because(code: u8, sentence: &str) -> Outcome {
    Outcome::ExitedBecause((code, sentence.to_owned()))
}

#[test]
fn the_first_in_their_order_that_failed_decides() {
    for (main, helper, outcome) in [
        (code(0), code(0), Outcome::Exited(0)),
        (
            code(0),
            code(4),
            because(4, "container helper ended with exit code 4"),
        ),
        (
            code(3),
            code(4),
            because(3, "container main ended with exit code 3"),
        ),
        (
            signal(15),
            code(4),
            because(143, "container main was ended by signal 15"),
        ),
        (code(0), out_of_memory(), Outcome::OutOfMemory),
        (
            code(1),
            out_of_memory(),
            because(1, "container main ended with exit code 1"),
        ),
    ] {
        for helper_first in [true, false] {
            let mut play = Play::unplayed(three());
            play.world.ends_at_once("setup", code(0));
            play.start();
            let mut ends = [("main", main), ("helper", helper)];
            if helper_first {
                ends.reverse();
            }
            play.exits(ends[0].0, ends[0].1);
            play.waits_running();
            // Told twice, it counts once.
            play.hears_exit(ends[0].0, code(99));
            play.waits_running();
            play.exits(ends[1].0, ends[1].1);
            play.ends_with(&outcome);
        }
    }
}

#[test]
fn a_failed_init_container_keeps_the_others_from_starting() {
    for (end, outcome) in [
        (
            code(2),
            because(2, "init container setup ended with exit code 2"),
        ),
        (
            signal(9),
            because(137, "init container setup was ended by signal 9"),
        ),
        (out_of_memory(), Outcome::OutOfMemory),
    ] {
        let mut play = Play::of(three());
        play.asked(&[
            "image busybox",
            "image python",
            "sandbox",
            "create setup",
            "start setup",
        ]);
        play.exits("setup", end);
        play.ends_with(&outcome);
        play.asked(&[]);
    }
}

/// Plays a container by itself to where it runs, and lets the runtime have this of it then.
fn running(found: Option<ContainerState>) -> Play {
    let mut play = Play::of(single());
    match found {
        Some(state) => play.world.put("main", state),
        None => play.world.remove("main"),
    }
    play.world.asked.clear();
    play
}

#[test]
fn an_end_that_nobody_saw_is_looked_for() {
    let ended = |end: End| Some(ContainerState::Ended(end));
    for (found, outcome) in [
        (
            None,
            "SandboxLost(\"container main was removed by somebody else",
        ),
        (ended(code(5)), "Exited(5)"),
        (
            ended(unknown()),
            "Lost(\"the container ended while the container runtime was away",
        ),
        (Some(ContainerState::Running(1)), "Lost("),
    ] {
        let mut play = running(found);
        play.hears_exit("main", unknown());
        play.asked(&["inspect main"]);
        let Ok(Step::Done(got)) = &play.last else {
            panic!("{:?}", play.last)
        };
        assert!(format!("{got:?}").contains(outcome), "{found:?}: {got:?}");
    }
}

#[test]
fn the_look_for_an_end_waits_for_the_runtime_for_ever() {
    let mut play = running(Some(ContainerState::Ended(code(5))));
    play.world.is_away = true;
    play.hears_exit("main", unknown());
    for _ in 0..100 {
        play.waits_running();
        play.wakes();
    }
    play.world.is_away = false;
    play.wakes();
    play.ends_with(&Outcome::Exited(5));
}

#[test]
fn a_recovered_attempt_goes_on_with_what_is_there() {
    let mut play = running(Some(ContainerState::Running(1_000)));
    play.event(Event::Recovered);
    play.asked(&["inspect main"]);
    play.waits_running();

    // The end comes as an event of its own.
    let mut play = running(Some(ContainerState::Ended(code(4))));
    play.event(Event::Recovered);
    play.waits_running();
    play.hears_exit("main", code(4));
    play.ends_with(&Outcome::Exited(4));

    let mut play = running(None);
    play.event(Event::Recovered);
    assert!(matches!(
        &play.last,
        Ok(Step::Done(Outcome::SandboxLost(_)))
    ));

    let mut play = running(Some(ContainerState::Created));
    play.event(Event::Recovered);
    assert!(matches!(&play.last, Ok(Step::Done(Outcome::Lost(_)))));

    let mut play = running(Some(ContainerState::Running(1_000)));
    play.world.is_away = true;
    play.event(Event::Recovered);
    assert!(matches!(&play.last, Err(Failure::Infrastructure(_))));
    play.world.is_away = false;
    play.event(Event::Recovered);
    play.waits_running();
}

#[test]
fn an_event_of_a_unit_that_is_not_ours_changes_nothing() {
    let mut play = Play::of(single());
    let before = play.state.clone();
    play.hears_exit("other", code(1));
    play.waits_running();
    assert_eq!(play.state, before);
}
