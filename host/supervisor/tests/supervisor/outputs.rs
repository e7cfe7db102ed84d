//! Output goes to the task's own files, owner-only, never through a link, and is capped.

use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::Path;

use taskwright_capability::{ProcessHost as _, SpawnError};
use taskwright_supervisor::{OutputReader, OutputStream};

use taskwright_model::AttemptNumber;

use crate::harness::{Host, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn output_is_the_owners_alone() {
    let mut host = Host::start().await;
    let running = host.shell("echo out; echo err >&2; pwd").await;
    host.status_of(&running).await;
    let directory = running.request.directory.clone();
    assert_eq!(directory.metadata().unwrap().mode() & 0o777, 0o700);
    for (name, expected) in [("stdout.log", "out\n"), ("stderr.log", "err\n")] {
        let file = running.file(name);
        assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o600);
        assert!(std::fs::read_to_string(file).unwrap().starts_with(expected));
    }
    host.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn links_and_pipes_in_place_of_output_are_refused() {
    let mut host = Host::start().await;
    let target = host.data.path().join("precious");
    std::fs::write(&target, "kept").unwrap();
    let mut request = host.request(&["echo", "overwritten"]);
    // Planted by its first attempt: what stands there before that one is set aside.
    request.unit.attempt = AttemptNumber(2);
    std::fs::create_dir(&request.directory).unwrap();
    symlink(&target, request.directory.join("stdout.log")).unwrap();
    let refused = host.client.spawn(request).await;
    assert!(
        matches!(refused, Err(SpawnError::Unavailable { .. })),
        "{refused:?}"
    );
    assert_eq!(std::fs::read_to_string(target).unwrap(), "kept");

    let mut pipe = host.request(&["true"]);
    pipe.unit.attempt = AttemptNumber(2);
    std::fs::create_dir(&pipe.directory).unwrap();
    let path = pipe.directory.join("stdout.log");
    let made = host.run(&["mkfifo", path.to_str().unwrap()]).await;
    host.status_of(&made).await;
    let refused = host.client.spawn(pipe).await;
    assert!(
        matches!(refused, Err(SpawnError::Unavailable { .. })),
        "{refused:?}"
    );
    host.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_keeps_its_head_and_its_tail() {
    const CAP: u64 = 4 * 1024 * 1024;
    let mut host = Host::start_with(|config| config.options.output_cap = CAP).await;
    let script = "echo first; head -c 30000000 /dev/zero | tr '\\0' x; sleep 0.3; \
                  head -c 30000000 /dev/zero | tr '\\0' y; echo; echo last";
    let running = host.shell(script).await;
    host.status_of(&running).await;
    let file = running.file("stdout.log");
    eventually("the file takes no more than its cap", || {
        (file.metadata().ok()?.blocks() * 512 <= CAP).then_some(())
    });
    let end = 60_000_000 + 6 + 1 + 5;
    assert_eq!(file.metadata().unwrap().len(), end);
    let reader = OutputReader::open(host.data.path()).unwrap();
    let task = Path::new(running.request.name.as_str());
    let head = reader.read(task, OutputStream::Stdout, 0, 10).unwrap();
    assert_eq!(
        (head.offset, head.bytes.as_slice()),
        (0, &b"first\nxxxx"[..])
    );
    let (mut offset, mut tail, mut jumps) = (0, Vec::new(), 0);
    while offset < end {
        let piece = reader
            .read(task, OutputStream::Stdout, offset, 1 << 20)
            .unwrap();
        jumps += u32::from(piece.offset != offset);
        offset = piece.offset + piece.bytes.len() as u64;
        tail = piece.bytes;
    }
    assert!(tail.ends_with(b"y\nlast\n"));
    assert_eq!(jumps, 1);
    host.finish().await;
}
