//! Commands in containers, waited for and streamed.

use std::time::{Duration, Instant};

use futures::StreamExt as _;
use taskwright_capability::container::ExecPiece;
use taskwright_capability::{ContainerError, ContainerHost as _};

use super::scene::with_runtime;

fn argv(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

const LONG: Duration = Duration::from_secs(20);

#[test]
fn a_command_is_answered_whole() {
    with_runtime(|scene| async move {
        let unit = scene.run("sleep 1000").await;
        let exec = |words: &[&str], timeout| scene.host.exec(unit.clone(), argv(words), timeout);
        let end = exec(&["sh", "-c", "echo out; echo err >&2; exit 3"], LONG)
            .await
            .unwrap();
        assert_eq!(
            (end.code, end.stdout.as_slice(), end.stderr.as_slice()),
            (3, &b"out\n"[..], &b"err\n"[..])
        );
        let missing = exec(&["no-such-program"], LONG).await;
        assert!(
            matches!(missing, Err(ContainerError::NotFound { .. })),
            "{missing:?}"
        );
        let refused = exec(&["/etc/passwd"], LONG).await;
        assert!(
            matches!(refused, Err(ContainerError::NotExecutable { .. })),
            "{refused:?}"
        );
        let big = exec(&["head", "-c", "10000000", "/dev/zero"], LONG)
            .await
            .unwrap();
        assert_eq!(big.stdout.len(), 10_000_000);
        let begun = Instant::now();
        let second = Duration::from_secs(1);
        let slow = exec(&["sh", "-c", "sleep 30; true"], second).await;
        assert_eq!(slow, Err(ContainerError::Overdue(second)));
        println!("overdue after {:?}", begun.elapsed());
        assert!(begun.elapsed() < Duration::from_secs(10));
        let stats = scene.host.stats(unit.clone()).await.unwrap();
        println!("{stats:?}");
        assert!(stats.memory_bytes.is_some());
        scene.host.terminate(unit.task, unit.attempt).await.unwrap();
        let gone = exec(&["true"], LONG).await;
        assert!(
            matches!(gone, Err(ContainerError::NotRunning { .. })),
            "{gone:?}"
        );
        scene.clean().await;
    });
}

#[test]
fn a_command_is_told_as_it_prints() {
    with_runtime(|scene| async move {
        let unit = scene.run("sleep 1000").await;
        let stream =
            |words: &[&str], timeout| scene.host.exec_stream(unit.clone(), argv(words), timeout);
        let script = "echo one; while [ ! -e /tmp/go ]; do sleep 0.02; done; echo two >&2; exit 9";
        let mut pieces = stream(&["sh", "-c", script], LONG).await.unwrap();
        assert_eq!(
            pieces.next().await,
            Some(Ok(ExecPiece::Stdout(b"one\n".to_vec())))
        );
        // The first piece came while it was still running.
        scene
            .host
            .exec(unit.clone(), argv(&["touch", "/tmp/go"]), LONG)
            .await
            .unwrap();
        let rest: Vec<_> = pieces.collect().await;
        assert_eq!(
            rest,
            [
                Ok(ExecPiece::Stderr(b"two\n".to_vec())),
                Ok(ExecPiece::Ended(9))
            ]
        );

        let pieces = stream(&["head", "-c", "30000000", "/dev/zero"], LONG)
            .await
            .unwrap();
        let pieces: Vec<_> = pieces.collect().await;
        let length: usize = pieces
            .iter()
            .map(|piece| match piece {
                Ok(ExecPiece::Stdout(bytes)) => bytes.len(),
                _ => 0,
            })
            .sum();
        assert_eq!(length, 30_000_000);
        assert_eq!(pieces.last(), Some(&Ok(ExecPiece::Ended(0))));

        let pieces = stream(&["no-such-program"], LONG).await.unwrap();
        let pieces: Vec<_> = pieces.collect().await;
        assert!(
            matches!(pieces.as_slice(), [Err(ContainerError::NotFound { .. })]),
            "{pieces:?}"
        );

        let second = Duration::from_secs(1);
        let pieces: Vec<_> = stream(&["sleep", "30"], second)
            .await
            .unwrap()
            .collect()
            .await;
        assert_eq!(pieces, [Err(ContainerError::Overdue(second))]);
        scene.clean().await;
    });
}
