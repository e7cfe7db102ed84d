//! What containers print, byte for byte.

use std::time::Duration;

use sha2::{Digest as _, Sha256};
use taskwright_capability::OutputStream;

use super::scene::{wait_until, with_runtime};

#[test]
fn output_is_kept_byte_for_byte() {
    with_runtime(|scene| async move {
        let script = r#"
            printf 'one\n\ntwo\r \n'
            printf '\000\001\377\n' >&2
            head -c 100000 /dev/zero | tr '\0' x
            printf '\n'
            printf 'no newline'
        "#;
        let unit = scene.run(script).await;
        assert_eq!(scene.exit(&unit).await, Some(0));
        let expected = format!("one\n\ntwo\r \n{}\nno newline", "x".repeat(100_000));
        assert_eq!(scene.stdout(&unit), expected);
        assert_eq!(scene.bytes(&unit, OutputStream::Stderr), b"\0\x01\xff\n");
        scene.clean().await;
    });
}

#[test]
fn random_bytes_come_out_as_they_went_in() {
    with_runtime(|scene| async move {
        // Without carriage returns: containerd drops them before newlines.
        let script = "dd if=/dev/urandom bs=1k count=700 2>/dev/null | tr -d '\\r' > /tmp/x; \
                      cat /tmp/x; sha256sum < /tmp/x >&2";
        let unit = scene.run(script).await;
        assert_eq!(scene.exit(&unit).await, Some(0));
        let printed = scene.bytes(&unit, OutputStream::Stdout);
        let sum = hex::encode(Sha256::digest(&printed));
        let told = scene.bytes(&unit, OutputStream::Stderr);
        assert!(String::from_utf8(told).unwrap().starts_with(&sum));
        scene.clean().await;
    });
}

#[test]
fn a_long_log_is_rotated_and_nothing_is_lost() {
    with_runtime(|scene| async move {
        // It lives on for a moment: containerd 1.6 drops what it has not yet copied at an end.
        let unit = scene.run("seq 1 2000000; echo end; sleep 1").await;
        let place = scene.config.state_dir.join(unit.task.to_string()).join("1");
        let mut longest = 0;
        let mut rotated = false;
        wait_until("it has ended", || {
            let entries = std::fs::read_dir(&place).into_iter().flatten();
            let found = entries.filter_map(Result::ok);
            let logs = found.filter(|entry| entry.file_name().to_string_lossy().contains(".log"));
            let sizes: Vec<u64> = logs
                .filter_map(|log| Some(log.metadata().ok()?.len()))
                .collect();
            rotated |= sizes.len() > 1;
            longest = longest.max(sizes.iter().sum());
            let printed = scene.bytes_end(&unit);
            std::future::ready(printed.ends_with(b"end\n"))
        })
        .await;
        assert_eq!(scene.exit(&unit).await, Some(0));
        println!("the logs took {longest} bytes at most; rotated: {rotated}");
        assert!(rotated);
        let expected: String = (1..=2_000_000)
            .map(|number| format!("{number}\n"))
            .collect();
        let printed = scene.bytes(&unit, OutputStream::Stdout);
        assert_eq!(printed.len(), expected.len() + 4);
        assert!(printed.starts_with(expected.as_bytes()));
        scene.clean().await;
    });
}

#[test]
fn a_daemon_that_dies_while_a_container_prints_goes_on_exactly() {
    with_runtime(|scene| async move {
        let unit = scene
            .run("i=0; while [ $i -lt 3000 ]; do echo $i; i=$((i+1)); done")
            .await;
        let mut scene = scene;
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_millis(7)).await;
            scene = scene.restart_daemon().await;
        }
        assert_eq!(scene.exit(&unit).await, Some(0));
        let expected: String = (0..3000).map(|number| format!("{number}\n")).collect();
        assert_eq!(scene.stdout(&unit), expected);
        scene.clean().await;
    });
}
