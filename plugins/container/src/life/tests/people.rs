//! What people are told beside the state.

use taskwright_plugin_sdk::container::Error;
use taskwright_plugin_sdk::status::{Part, PartEnd, PartState};

use super::world::{Fault, sixteen, unknown};
use super::*;

fn waiting(word: &str) -> PartState {
    PartState::Waiting(word.to_owned())
}

fn ended(code: Option<i32>, started_ms: Option<u64>, ended_ms: u64) -> PartState {
    PartState::Ended(PartEnd {
        code,
        out_of_memory: false,
        started_ms,
        ended_ms,
    })
}

/// Claims what was told of `main` and `helper` since the last claim.
fn told(play: &mut Play, main: PartState, helper: PartState) {
    let part = |name: &str, state| Part {
        name: name.to_owned(),
        state,
    };
    let expected = vec![part("main", main), part("helper", helper)];
    assert_eq!(play.parts.take(), Some(expected));
}

#[test]
fn a_pod_tells_of_its_containers_after_each_change() {
    let mut play = Play::unplayed(three());
    play.world.pulls = vec![3];
    play.start();
    told(
        &mut play,
        waiting("PodInitializing"),
        waiting("PodInitializing"),
    );
    assert_eq!(
        play.note.as_deref(),
        Some("pulling image busybox for 3 s, 2 tasks wait for it")
    );
    play.wakes();
    assert_eq!(play.parts, None, "nothing changed");
    assert_eq!(
        play.note.as_deref(),
        Some("init container setup runs, 1 of 1")
    );
    play.exits("setup", code(0));
    let since = play.world.now;
    told(
        &mut play,
        PartState::Running(since),
        PartState::Running(since),
    );
    assert_eq!(play.note, None);
    play.exits("helper", world::signal(9));
    let helper = ended(Some(137), Some(since), since + 1_000);
    told(&mut play, PartState::Running(since), helper.clone());
    play.exits("main", code(2));
    told(
        &mut play,
        ended(Some(2), Some(since), since + 2_000),
        helper,
    );
}

#[test]
fn a_pod_tells_why_a_container_was_not_started() {
    let mut play = Play::unplayed(three());
    play.world.ends_at_once("setup", code(0));
    let error = Error::NotFound("no such program".to_owned());
    play.world.fault = Some((8, Fault::Answer(error)));
    play.start();
    let now = play.world.now;
    // What ran ends with the attempt, and nobody knows how.
    told(
        &mut play,
        ended(None, Some(now), now),
        ended(Some(127), None, now),
    );

    let mut play = Play::unplayed(three());
    let error = Error::ImageUnavailable("no such image".to_owned());
    play.world.fault = Some((1, Fault::Answer(error)));
    play.start();
    told(
        &mut play,
        waiting("ErrImagePull"),
        waiting("PodInitializing"),
    );
}

#[test]
fn containers_that_never_had_their_turn_wait_for_it() {
    for end in [code(4), world::signal(9), world::out_of_memory()] {
        let mut play = Play::unplayed(three());
        play.start();
        told(
            &mut play,
            waiting("PodInitializing"),
            waiting("PodInitializing"),
        );
        play.exits("setup", end);
        assert!(matches!(play.last, Ok(Step::Done(_))), "{:?}", play.last);
        assert_eq!(play.parts, None, "nothing changed for them");
    }
    let mut play = Play::unplayed(three());
    play.world.ends_at_once("setup", code(4));
    play.start();
    told(
        &mut play,
        waiting("PodInitializing"),
        waiting("PodInitializing"),
    );
}

#[test]
fn an_end_that_nobody_knows_has_no_code() {
    let mut play = Play::unplayed(three());
    play.world.ends_at_once("setup", code(0));
    play.start();
    let since = play.world.now;
    play.exits("main", unknown());
    told(
        &mut play,
        ended(None, Some(since), since + 1_000),
        PartState::Running(since),
    );
}

#[test]
fn pods_without_initialization_say_so_and_containers_tell_nothing() {
    let mut play = Play::unplayed(sixteen());
    play.world.pulls = vec![0];
    play.start();
    let parts = play.parts.take().unwrap();
    assert_eq!(parts.len(), 16);
    assert!(
        parts
            .iter()
            .all(|part| part.state == waiting("ContainerCreating"))
    );

    let mut play = Play::unplayed(single());
    play.world.pulls = vec![0];
    play.start();
    play.wakes();
    play.exits("main", code(0));
    play.ends_with(&Outcome::Exited(0));
    assert_eq!(play.parts, None);
}
