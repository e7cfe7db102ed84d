#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixListener;

use taskwright_capability::{Lifetime, UnitEnd};
use taskwright_model::{
    AttemptNumber, Confinement, Enforced, ExitStatus, ProcessIdentity, TaskName, Timestamp,
    UnitName,
};

use super::*;

#[test]
fn the_last_value_of_a_variable_wins() {
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let mut env = vec![pair("A", "1"), pair("B", "2"), pair("A", "3")];
    keep_last_of_each_name(&mut env);
    assert_eq!(env, [pair("B", "2"), pair("A", "3")]);
}

fn request(confinement: Confinement) -> SpawnRequest {
    SpawnRequest {
        unit: UnitKey {
            task: TaskId::from_u128(1),
            attempt: AttemptNumber(1),
            unit: UnitName::parse("main").unwrap(),
        },
        name: TaskName::parse("task").unwrap(),
        directory: PathBuf::from("/data/task"),
        argv: vec!["true".to_owned()],
        env: Vec::new(),
        working_dir: None,
        lifetime: Lifetime::LeaveDescendants,
        inside: None,
        confinement,
    }
}

/// A supervisor that speaks this version and answers every spawn; how many it was asked for comes
/// back once its daemon is gone.
fn pretend(listener: UnixListener, version: u32) -> std::thread::JoinHandle<usize> {
    std::thread::spawn(move || {
        let mut spawns = 0;
        let (mut stream, _) = listener.accept().unwrap();
        let mut input = Vec::new();
        let mut piece = [0; 4096];
        loop {
            let mut out = Vec::new();
            let mut done = 0;
            while let Some((frame, taken)) =
                wire::next_frame(input.get(done..).unwrap_or_default()).unwrap()
            {
                done += taken;
                match Request::take(&frame).unwrap() {
                    Some(Request::Hello { .. }) => Answer::Welcome { version }.put(0, &mut out),
                    Some(Request::Spawn(_)) => {
                        spawns += 1;
                        Answer::Spawned(spawned()).put(frame.id, &mut out);
                    }
                    _ => Answer::Unsupported { kind: frame.kind }.put(frame.id, &mut out),
                }
            }
            input.drain(..done);
            stream.write_all(&out).unwrap();
            match stream.read(&mut piece) {
                Ok(0) | Err(_) => return spawns,
                Ok(count) => input.extend(piece.iter().take(count)),
            }
        }
    })
}

fn spawned() -> Spawned {
    Spawned {
        process: ProcessIdentity {
            pid: 1,
            start_ticks: 1,
        },
        started_at: Timestamp::from_millis(0),
        exit: Some(UnitEnd {
            status: Some(ExitStatus::Code(0)),
            out_of_memory: false,
            at: Timestamp::from_millis(0),
        }),
        enforced: Enforced::default(),
    }
}

#[tokio::test]
async fn an_older_supervisor_is_not_asked_for_what_it_would_leave_out() {
    for (version, asked) in [(2, 1), (3, 2)] {
        let dir = tempfile::tempdir().unwrap();
        let place = place::Place::open(&dir.path().join("state")).unwrap();
        let older = pretend(UnixListener::bind(place.socket()).unwrap(), version);
        let config = SupervisorConfig::new(dir.path().join("state"), "/no/such".into());
        let (client, _reports) = SupervisorClient::connect_or_start(config).await.unwrap();
        let confined = Confinement {
            pids: Some(1),
            ..Confinement::default()
        };
        // The first thing it is asked: its version is not known yet.
        let limited = client.spawn(request(confined)).await;
        if version < wire::CONFINES {
            let detail = OLDER.to_owned();
            assert_eq!(limited, Err(SpawnError::Unavailable { detail }));
            assert!(client.enforceable().await.is_err());
        } else {
            assert_eq!(limited, Ok(spawned()));
        }
        let plain = client.spawn(request(Confinement::default())).await;
        assert_eq!(plain, Ok(spawned()));
        drop(client);
        let asked_for = tokio::task::spawn_blocking(move || older.join().unwrap());
        assert_eq!(asked_for.await.unwrap(), asked);
    }
}
