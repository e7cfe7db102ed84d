#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(
    clippy::indexing_slicing,
    reason = "a test that cannot go on has failed"
)]

mod crashes;
mod ends;
mod faults;
mod people;
mod stops;
mod walks;
mod world;

use taskwright_plugin_sdk::container::ContainerState;
use taskwright_plugin_sdk::{Outcome, Step};

use self::world::{Play, code, single, three};

#[test]
fn a_pod_goes_through_its_stations_in_order() {
    let mut play = Play::of(three());
    play.waits_not_running();
    play.asked(&[
        "image busybox",
        "image python",
        "sandbox",
        "create setup",
        "start setup",
    ]);
    play.exits("setup", code(0));
    play.waits_running();
    play.asked(&["create main", "create helper", "start main", "start helper"]);
    play.exits("helper", code(0));
    play.waits_running();
    play.exits("main", code(0));
    play.ends_with(&Outcome::Exited(0));
    play.asked(&[]);
}

#[test]
fn a_container_by_itself_ends_as_it_did() {
    for (end, outcome) in [
        (code(0), Outcome::Exited(0)),
        (code(7), Outcome::Exited(7)),
        (world::signal(9), Outcome::Signaled(9)),
        (world::out_of_memory(), Outcome::OutOfMemory),
    ] {
        let mut play = Play::of(single());
        play.waits_running();
        play.asked(&["image busybox", "sandbox", "create main", "start main"]);
        play.exits("main", end);
        play.ends_with(&outcome);
    }
}

#[test]
fn a_container_that_is_over_at_once_is_seen_to_run() {
    let mut play = Play::unplayed(single());
    let end = code(3);
    play.world.ends_at_once("main", end);
    play.start();
    let Ok(Step::Wait(waiting)) = &play.last else {
        panic!("{:?}", play.last)
    };
    assert!(waiting.running);
    // For a host that lost the event.
    assert_eq!(waiting.wake_after_ms, Some(1000));
    let state = play.state.clone();
    play.exits("main", end);
    play.ends_with(&Outcome::Exited(3));
    play.state = state;
    play.wakes();
    play.ends_with(&Outcome::Exited(3));
}

#[test]
fn init_containers_that_are_over_at_once_need_no_event() {
    let mut play = Play::unplayed(three());
    play.world.ends_at_once("setup", code(0));
    play.start();
    play.waits_running();
    // The event comes all the same, and counts once.
    play.exits("setup", code(0));
    play.waits_running();
}

#[test]
fn images_are_waited_for_with_growing_pauses() {
    let mut play = Play::unplayed(single());
    play.world.pulls = vec![0, 1, 2, 3, 9];
    play.start();
    let mut pauses = Vec::new();
    while let Ok(Step::Wait(waiting)) = &play.last
        && !waiting.running
    {
        pauses.push(waiting.wake_after_ms.unwrap());
        play.wakes();
    }
    assert_eq!(pauses, [100, 250, 500, 750, 1000]);
    play.waits_running();
}

#[test]
fn the_address_reaches_the_variables_of_a_pod() {
    let mut play = Play::of(world::addressed());
    play.waits_running();
    assert_eq!(play.world.env_of("main"), [("IP", "10.0.0.7")]);
    play.world.address = None;
    play.restart();
    let Ok(Step::Done(Outcome::ExitedBecause((126, sentence)))) = &play.last else {
        panic!("{:?}", play.last)
    };
    assert!(sentence.contains("container main") && sentence.contains("status.podIP"));
}

#[test]
fn a_container_found_running_keeps_its_time() {
    let mut play = Play::unplayed(single());
    play.world.now = 99_000;
    play.world.put("main", ContainerState::Running(5));
    play.start();
    play.waits_running();
    assert!(play.state_text().contains("\"since\":5"));
}
