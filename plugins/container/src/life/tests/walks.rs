//! Lives nobody thought of: random faults, crashes, ends and stops, the same ones every time.

use taskwright_plugin_sdk::container::Error;
use taskwright_plugin_sdk::{Event, Failure};

use super::world::{Fault, signal, unknown};
use super::*;

/// A xorshift generator: the walks must be the same on every machine.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    fn step(&mut self) -> usize {
        usize::try_from(self.below(6)).unwrap()
    }
}

fn fault(dice: &mut Dice) -> Option<(usize, Fault)> {
    let fault = match dice.below(9) {
        0 => Fault::CrashBefore,
        1 => Fault::CrashAfter,
        2 => Fault::Answer(Error::Unavailable("away".to_owned())),
        3 => Fault::Answer(Error::NotRunning("gone".to_owned())),
        4 => Fault::Answer(Error::UnderWay("others come first".to_owned())),
        _ => return None,
    };
    Some((dice.step(), fault))
}

/// One step of the world: what the host tells next. The answer is whether the host lived on.
fn happens(play: &mut Play, dice: &mut Dice, stopped: &mut bool) -> bool {
    let wakes = matches!(&play.last, Ok(Step::Wait(it)) if it.wake_after_ms.is_some());
    match dice.below(10) {
        0 => {
            *stopped = true;
            play.event(Event::StopRequested(taskwright_plugin_sdk::StopRequest {
                grace_ms: dice.below(1000),
            }))
        }
        1..=4 if wakes => {
            play.world.now += 500;
            play.event(Event::Woke)
        }
        5..=7 => {
            let running = play.world.running();
            let Some(name) = running.get(usize::try_from(dice.below(3)).unwrap()) else {
                return true;
            };
            let end = match dice.below(4) {
                0 => signal(15),
                1 => unknown(),
                2 => code(1),
                _ => code(0),
            };
            play.world.put(name, ContainerState::Ended(end));
            play.hears_exit(name, end)
        }
        8 if *stopped => true,
        8 => play.event(Event::Recovered),
        _ => true,
    }
}

fn walk(seed: u64) -> Outcome {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut play = Play::unplayed(three());
    play.world.pulls = (0..dice.below(3)).collect();
    let mut stopped = false;
    let mut lived = play.start();
    for _ in 0..2_000 {
        let asked = std::mem::take(&mut play.world.asked);
        let more = |asked: &&String| !asked.starts_with("stop") && !asked.starts_with("inspect");
        if stopped {
            assert_eq!(asked.iter().find(more), None, "seed {seed}");
        }
        assert!(
            play.world.starts.values().all(|times| *times == 1),
            "seed {seed}"
        );
        if !lived {
            // The next life: what was kept is kept, and a stop is told again.
            play.world.fault = None;
            lived = if stopped {
                play.event(Event::StopRequested(taskwright_plugin_sdk::StopRequest {
                    grace_ms: 1000,
                }))
            } else if play.state.is_empty() || dice.below(2) == 0 {
                play.state.clear();
                play.start()
            } else {
                play.event(Event::Recovered)
            };
            // Ends are told again, too.
            for name in ["setup", "main", "helper"] {
                if let (Some(end), Ok(Step::Wait(_))) = (play.world.end_of(name), &play.last) {
                    play.hears_exit(name, end);
                }
            }
            continue;
        }
        match &play.last {
            Ok(Step::Done(outcome)) => return outcome.clone(),
            Err(Failure::Infrastructure(_)) | Ok(Step::Wait(_)) => {}
            Err(failure) => panic!("seed {seed}: {failure:?}"),
        }
        if dice.below(4) == 0 {
            play.world.fault = fault(&mut dice);
        }
        lived = happens(&mut play, &mut dice, &mut stopped);
    }
    panic!(
        "seed {seed} never ends: {:?}, state {}",
        play.last,
        play.state_text()
    )
}

#[test]
fn every_walk_ends_and_starts_nothing_twice_nor_after_a_stop() {
    let mut outcomes = std::collections::BTreeMap::new();
    for seed in 1..=3_000 {
        let outcome = format!("{:?}", walk(seed));
        let kind = outcome.split('(').next().unwrap_or_default().to_owned();
        *outcomes.entry(kind).or_insert(0) += 1;
    }
    // Walks that all went the same way would prove nothing.
    assert!(outcomes.len() >= 4, "{outcomes:?}");
}
