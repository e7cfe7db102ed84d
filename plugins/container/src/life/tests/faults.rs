//! Every error at every step.

use taskwright_plugin_sdk::Failure;
use taskwright_plugin_sdk::container::Error;

use super::world::{Fault, PATIENCE_MS};
use super::*;

/// What a pod of three asks for until it runs, when its first container ends at once.
const STEPS: [&str; 9] = [
    "image busybox",
    "image python",
    "sandbox",
    "create setup",
    "start setup",
    "create main",
    "create helper",
    "start main",
    "start helper",
];

fn played(step: usize, error: Error) -> Play {
    let mut play = Play::unplayed(three());
    play.world.ends_at_once("setup", code(0));
    play.world.fault = Some((step, Fault::Answer(error)));
    play.start();
    play.asked(&STEPS[..=step]);
    play
}

#[test]
fn an_error_at_any_step_ends_the_attempt_with_its_sentence() {
    let text = || "why".to_owned();
    for (step, asked) in STEPS.iter().enumerate() {
        for (error, expected) in [
            (Error::ImageUnavailable(text()), "ImageUnavailable"),
            (Error::NotFound(text()), "ExitedBecause((127"),
            (Error::NotExecutable(text()), "ExitedBecause((126"),
            (Error::Refused(text()), "ExitedBecause((126"),
            (Error::Denied(text()), "ExitedBecause((126"),
            (Error::NotRunning(text()), "SandboxLost"),
            (Error::SandboxLost(text()), "SandboxLost"),
            (Error::PerhapsBegun(text()), "Lost"),
        ] {
            let play = played(step, error.clone());
            let Ok(Step::Done(outcome)) = &play.last else {
                panic!("{asked}: {:?}", play.last)
            };
            let said = format!("{outcome:?}");
            let said = said.trim_start_matches("Outcome::");
            assert!(said.starts_with(expected), "{asked}, {error:?}: {said}");
            assert!(said.contains("why"), "{said}");
            if said.starts_with("ExitedBecause")
                && let Some((_, name)) = asked.split_once(' ')
                && !asked.starts_with("image")
            {
                assert!(said.contains(&format!("container {name}")), "{said}");
            }
        }
        let play = played(step, Error::Other(text()));
        assert!(matches!(play.last, Err(Failure::Other(_))), "{asked}");
    }
}

#[test]
fn a_container_whose_start_was_cut_off_is_made_anew() {
    let cut_off = || Fault::Answer(Error::NeverBegun("cut off".to_owned()));
    let mut play = Play::unplayed(single());
    play.world.fault = Some((3, cut_off()));
    play.start();
    play.waits_running();
    play.asked(&[
        "image busybox",
        "sandbox",
        "create main",
        "start main",
        "create main",
        "start main",
    ]);
}

#[test]
fn a_container_whose_start_is_always_cut_off_is_given_up() {
    let mut play = Play::unplayed(single());
    play.world.is_cut_off = true;
    play.start();
    play.ends_with(&Outcome::RuntimeUnavailable("cut off".to_owned()));
    let starts = play.world.asked.iter().filter(|it| *it == "start main");
    assert_eq!(starts.count(), 6);
}

#[test]
fn a_runtime_that_is_away_for_a_moment_is_waited_for() {
    for step in 0..STEPS.len() {
        let mut play = played(step, Error::Unavailable("no socket".to_owned()));
        play.waits_not_running();
        let note = play.note.clone().unwrap();
        assert!(note.contains("no socket"), "{note}");
        play.wakes();
        play.waits_running();
        play.asked(&STEPS[step..]);
        assert!(!play.state_text().contains("\"away_since\":1"));
        assert!(play.world.starts.values().all(|times| *times == 1));
    }
}

#[test]
fn a_runtime_that_stays_away_ends_the_attempt() {
    for step in 0..STEPS.len() {
        let mut play = played(step, Error::Unavailable("no socket".to_owned()));
        play.world.is_away = true;
        let began = play.world.now;
        while matches!(play.last, Ok(Step::Wait(_))) {
            let Ok(Step::Wait(waiting)) = &play.last else {
                unreachable!()
            };
            assert!((100..=1000).contains(&waiting.wake_after_ms.unwrap()));
            play.wakes();
        }
        play.ends_with(&Outcome::RuntimeUnavailable("no socket".to_owned()));
        let waited = play.world.now - began;
        assert!(
            (PATIENCE_MS..PATIENCE_MS + 1000).contains(&waited),
            "{waited}"
        );
    }
}

#[test]
fn patience_begins_anew_once_the_runtime_answered() {
    let mut play = Play::unplayed(single());
    play.world.is_away = true;
    play.start();
    play.world.now += PATIENCE_MS - 1000;
    play.wakes();
    play.waits_not_running();
    play.world.is_away = false;
    play.world.pulls = vec![0];
    play.wakes();
    play.world.is_away = true;
    play.wakes();
    play.world.now += PATIENCE_MS - 2000;
    play.wakes();
    play.waits_not_running();
}
