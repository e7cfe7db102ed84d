//! Crashes of the host at every step: starting again finds the first.

use taskwright_plugin_sdk::{Event, Failure};

use super::world::{Fault, sixteen, unknown};
use super::*;

/// Lets what runs end with 0, one after the other, until the attempt is over.
fn play_out(play: &mut Play) -> Outcome {
    for _ in 0..40 {
        match &play.last {
            Ok(Step::Done(outcome)) => return outcome.clone(),
            Ok(Step::Wait(waiting)) if waiting.wake_after_ms.is_some() => play.wakes(),
            Ok(Step::Wait(_)) => {
                let running = play.world.running();
                let name = running.first().expect("waits for what does not run");
                play.exits(name, code(0));
            }
            Err(failure) => panic!("{failure:?}"),
        }
    }
    panic!("it never ends: {:?}", play.last)
}

fn crash(after: bool) -> Fault {
    if after {
        Fault::CrashAfter
    } else {
        Fault::CrashBefore
    }
}

#[test]
fn a_crash_during_the_start_leaves_nothing_twice() {
    for step in 0..5 {
        for after in [false, true] {
            let mut play = Play::unplayed(three());
            play.world.fault = Some((step, crash(after)));
            assert!(!play.start(), "it did not crash");
            play.start();
            assert_eq!(play_out(&mut play), Outcome::Exited(0));
            assert_eq!(play.world.starts.len(), 3);
            assert!(play.world.starts.values().all(|times| *times == 1));
        }
    }
}

#[test]
fn a_crash_after_initialization_finds_what_is_there() {
    for step in 0..4 {
        for after in [false, true] {
            for offered_again in [false, true] {
                let mut play = Play::of(three());
                play.world.put("setup", ContainerState::Ended(code(0)));
                play.world.fault = Some((step, crash(after)));
                assert!(!play.hears_exit("setup", code(0)));
                if offered_again {
                    // The host kept the last state and tells of the end once more.
                    play.hears_exit("setup", code(0));
                } else {
                    // Nothing was kept, and the end is told after the start.
                    play.state.clear();
                    play.start();
                    play.hears_exit("setup", code(0));
                }
                play.waits_running();
                assert_eq!(play_out(&mut play), Outcome::Exited(0));
                assert!(play.world.starts.values().all(|times| *times == 1));
            }
        }
    }
}

#[test]
fn a_start_that_finds_everything_over_needs_no_event() {
    let mut play = Play::unplayed(three());
    for (name, end) in [("setup", 0), ("main", 3), ("helper", 0)] {
        play.world.put(name, ContainerState::Ended(code(end)));
    }
    play.start();
    play.waits_running();
    play.wakes();
    assert!(matches!(
        &play.last,
        Ok(Step::Done(Outcome::ExitedBecause((3, _))))
    ));
    assert!(play.world.starts.is_empty());
}

#[test]
fn a_start_that_finds_an_end_nobody_saw_does_not_guess() {
    let mut play = Play::unplayed(single());
    play.world.put("main", ContainerState::Ended(unknown()));
    play.start();
    play.wakes();
    assert!(matches!(&play.last, Ok(Step::Done(Outcome::Lost(_)))));
}

#[test]
fn an_event_without_any_memory_begins_anew() {
    for event in [Event::Woke, Event::Recovered] {
        let mut play = Play::of(single());
        play.state.clear();
        play.event(event);
        play.waits_running();
        assert_eq!(play.world.starts["main"], 1);
    }
    let mut play = Play::of(single());
    play.state.clear();
    play.world.put("main", ContainerState::Ended(code(6)));
    play.hears_exit("main", code(6));
    play.waits_running();
    play.wakes();
    play.ends_with(&Outcome::Exited(6));
}

#[test]
fn the_largest_state_is_small() {
    let mut play = Play::of(sixteen());
    play.waits_running();
    play.is_stopped(u64::MAX);
    assert!(play.state.len() < 4096, "{}", play.state.len());
}

#[test]
fn bytes_that_are_no_state_are_a_bug() {
    let mut play = Play::of(single());
    let good = play.state_text();
    for bad in [
        "x".to_owned(),
        "{}".to_owned(),
        good.replace("\"version\":1", "\"version\":2"),
        good.replace(
            "\"units\":[",
            "\"units\":[{\"stage\":\"Absent\",\"doubt\":null,\"told_grace\":null},",
        ),
    ] {
        play.state = bad.clone().into_bytes();
        play.event(Event::Woke);
        assert!(matches!(&play.last, Err(Failure::Bug(_))), "{bad}");
    }
}
