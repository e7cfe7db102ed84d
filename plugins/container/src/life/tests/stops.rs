//! Stops at every step. What is stopped starts nothing more.

use taskwright_plugin_sdk::Failure;
use taskwright_plugin_sdk::container::Error;

use super::world::{Fault, signal};
use super::*;

fn starts_nothing_more(play: &Play) {
    let more = ["image", "sandbox", "create", "start"];
    for asked in &play.world.asked {
        assert!(!more.iter().any(|word| asked.starts_with(word)), "{asked}");
    }
}

fn before_it_ran() -> Outcome {
    Outcome::Lost("stopped before it ran".to_owned())
}

#[test]
fn a_stop_before_anything_runs_ends_at_once() {
    // While an image is pulled.
    let mut play = Play::unplayed(three());
    play.world.pulls = vec![0];
    play.start();
    play.world.asked.clear();
    play.is_stopped(500);
    play.ends_with(&before_it_ran());
    play.asked(&[]);
    // While the runtime is away, with what was created.
    for step in 0..5 {
        let mut play = Play::unplayed(three());
        let away = Error::Unavailable("no socket".to_owned());
        play.world.fault = Some((step, Fault::Answer(away)));
        play.start();
        play.world.asked.clear();
        play.world.is_away = true;
        play.is_stopped(500);
        play.ends_with(&before_it_ran());
        starts_nothing_more(&play);
    }
}

#[test]
fn a_stop_during_initialization_starts_nothing_more() {
    for (end, outcome) in [
        (code(0), before_it_ran()),
        (
            signal(15),
            Outcome::ExitedBecause((
                143,
                "init container setup was ended by signal 15".to_owned(),
            )),
        ),
    ] {
        let mut play = Play::of(three());
        play.world.asked.clear();
        play.is_stopped(500);
        play.waits_not_running();
        play.asked(&["stop setup 500", "inspect setup"]);
        play.exits("setup", end);
        play.ends_with(&outcome);
        starts_nothing_more(&play);
    }
}

#[test]
fn a_stop_reaches_every_unit_that_has_not_ended() {
    let mut play = Play::of(three());
    play.exits("setup", code(0));
    play.exits("helper", code(0));
    play.world.asked.clear();
    play.is_stopped(500);
    play.waits_running();
    play.asked(&["stop main 500", "inspect main"]);
    // A repeat that ends nothing sooner is not passed on, a shorter one is.
    play.is_stopped(900);
    play.asked(&[]);
    play.is_stopped(0);
    play.asked(&["stop main 0", "inspect main"]);
    play.exits("main", signal(9));
    let expected = (137, "container main was ended by signal 9".to_owned());
    play.ends_with(&Outcome::ExitedBecause(expected));
}

#[test]
fn a_stop_between_two_starts_waits_for_what_runs() {
    let mut play = Play::of(three());
    play.world.put("setup", ContainerState::Ended(code(0)));
    let away = Error::Unavailable("no socket".to_owned());
    // create, create, start main, start helper
    play.world.fault = Some((3, Fault::Answer(away)));
    play.hears_exit("setup", code(0));
    play.world.asked.clear();
    play.is_stopped(500);
    play.asked(&["stop main 500", "inspect main", "stop helper 500"]);
    play.waits_not_running();
    play.exits("main", code(0));
    let expected = "stopped before all of its containers ran".to_owned();
    play.ends_with(&Outcome::Lost(expected));
}

#[test]
fn a_stop_waits_for_a_runtime_that_is_away() {
    let mut play = Play::of(single());
    play.world.is_away = true;
    play.world.asked.clear();
    play.is_stopped(500);
    for _ in 0..100 {
        play.waits_running();
        play.wakes();
    }
    play.world.is_away = false;
    play.world.asked.clear();
    play.wakes();
    play.asked(&["stop main 500", "inspect main"]);
    play.exits("main", signal(15));
    play.ends_with(&Outcome::Signaled(15));
}

#[test]
fn a_stop_of_what_is_gone_finds_out_how() {
    let mut play = Play::of(single());
    play.world.remove("main");
    play.is_stopped(500);
    assert!(matches!(
        &play.last,
        Ok(Step::Done(Outcome::SandboxLost(_)))
    ));
    // What ended before it was told to has an event under way.
    for gone in [None, Some(Error::NotRunning("it ended".to_owned()))] {
        let mut play = Play::of(single());
        play.world.put("main", ContainerState::Ended(code(3)));
        play.world.fault = gone.map(|gone| (0, Fault::Answer(gone)));
        play.is_stopped(500);
        play.waits_running();
        play.hears_exit("main", code(3));
        play.ends_with(&Outcome::Exited(3));
    }
    let mut play = Play::of(single());
    let denied = Error::Denied("no".to_owned());
    play.world.fault = Some((0, Fault::Answer(denied)));
    play.is_stopped(500);
    assert!(matches!(&play.last, Err(Failure::Infrastructure(_))));
}

#[test]
fn a_stop_without_any_memory_looks_for_what_is_there() {
    let mut play = Play::unplayed(three());
    play.is_stopped(500);
    play.asked(&["inspect setup", "inspect main", "inspect helper"]);
    play.ends_with(&before_it_ran());

    let mut play = Play::unplayed(three());
    play.world.put("setup", ContainerState::Ended(code(0)));
    play.world.put("main", ContainerState::Running(7));
    play.world.put("helper", ContainerState::Created);
    play.is_stopped(500);
    play.waits_not_running();
    let asked = play.world.asked.split_off(3);
    assert_eq!(asked, ["stop main 500", "inspect main", "stop helper 500"]);
    play.exits("main", code(1));
    let expected = (1, "container main ended with exit code 1".to_owned());
    play.ends_with(&Outcome::ExitedBecause(expected));

    let mut play = Play::unplayed(three());
    play.world.is_away = true;
    play.is_stopped(500);
    while matches!(play.last, Ok(Step::Wait(_))) {
        play.wakes();
    }
    assert!(matches!(
        &play.last,
        Ok(Step::Done(Outcome::RuntimeUnavailable(_)))
    ));
}
