#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use super::*;

const TARGET: Target = Target {
    pid: 41,
    start_ticks: 7,
    candidates: 3,
    is_init: true,
};

fn wanted() -> Wanted {
    let config = r#"{"target":{"mainContainer":"app"},"targetWaitSeconds":2}"#;
    Wanted::with(config, &|_| None).unwrap()
}

fn end(status: ExitStatus) -> End {
    End {
        status,
        out_of_memory: false,
    }
}

#[test]
fn a_target_is_looked_for_more_and_more_slowly_and_not_for_ever() {
    let mut memory = Memory::default();
    let mut pauses = Vec::new();
    let outcome = loop {
        match look_again(&wanted(), memory) {
            Step::Wait(waiting) => {
                assert!(!waiting.running);
                pauses.push(waiting.wake_after_ms.unwrap());
                memory = Memory::read(&waiting.state);
                assert!(memory.is_looking());
            }
            Step::Done(outcome) => break outcome,
        }
    };
    assert_eq!(pauses.iter().sum::<u64>(), 2000);
    assert!(pauses.is_sorted_by(|a, b| a <= b || *b == *pauses.last().unwrap()));
    assert!(matches!(
        outcome,
        Outcome::TargetLost(why) if why.contains("SANDBOX_MAIN_CONTAINER=app") && why.contains("2 s")
    ));
}

#[test]
fn a_number_is_not_waited_for() {
    let wanted = Wanted::with(r#"{"target":{"pid":41}}"#, &|_| None).unwrap();
    let step = look_again(&wanted, Memory::default());
    assert!(matches!(step, Step::Done(Outcome::TargetLost(why)) if why.contains("no process 41 ")));
}

#[test]
fn the_target_is_remembered() {
    let Seen::Step(Ok(Step::Wait(waiting))) = after_spawn(
        Ok(Spawned {
            pid: 9,
            ended: None,
        }),
        TARGET,
    ) else {
        unreachable!("it runs");
    };
    assert!(waiting.running);
    let memory = Memory::read(&waiting.state);
    assert!(!memory.is_looking());
    assert_eq!(Target::from(memory.target.unwrap()).pid, 41);
    assert_eq!(Memory::read(b""), Memory::default());
}

#[test]
fn a_target_that_went_away_is_looked_for_again() {
    let answer = Err(SpawnError::TargetGone("41".to_owned()));
    assert!(matches!(after_spawn(answer, TARGET), Seen::TargetGone));
}

#[test]
fn the_outcome_says_that_the_main_container_ended() {
    let memory = Memory::inside(TARGET);
    let told = |status, alive| match after_exit(&memory, end(status), Some(alive)) {
        Step::Done(outcome) => outcome,
        Step::Wait(_) => unreachable!("it ended"),
    };
    assert_eq!(told(ExitStatus::Code(3), true), Outcome::Exited(3));
    assert_eq!(told(ExitStatus::Signal(KILL), true), Outcome::Signaled(9));
    assert!(matches!(
        told(ExitStatus::Signal(KILL), false),
        Outcome::TargetLost(_)
    ));
    assert!(matches!(
        told(ExitStatus::Unknown, false),
        Outcome::TargetLost(_)
    ));
    assert!(matches!(
        told(ExitStatus::Code(3), false),
        Outcome::ExitedBecause((3, why)) if why.contains("process 41 ended meanwhile")
    ));
    assert_eq!(told(ExitStatus::Signal(15), false), Outcome::Signaled(15));
    let starved = End {
        status: ExitStatus::Signal(KILL),
        out_of_memory: true,
    };
    assert!(matches!(
        after_exit(&memory, starved, Some(false)),
        Step::Done(Outcome::OutOfMemory)
    ));
}

#[test]
fn an_end_without_a_known_target_is_told_as_it_is() {
    let step = after_exit(&Memory::default(), end(ExitStatus::Code(0)), None);
    assert!(matches!(step, Step::Done(Outcome::Exited(0))));
}
