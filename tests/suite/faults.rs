//! Faults of the machine and of the data directory: told with a next step, and nothing lost.

use std::path::Path;
use std::time::Instant;

use taskwright_tests::mount::Tmpfs;
use taskwright_tests::task::{exit_code, flat, shell, state};
use taskwright_tests::{Daemon, Finished, Home, Options, Request, SOON, eventually, skip};

const MIB: u64 = 1024 * 1024;

/// A start that was refused: exit code 1, an error, and a next step.
fn assert_told(refused: &Finished, words: &[&str]) {
    assert_eq!(refused.code, 1, "{refused:?}");
    for word in words.iter().chain(&["error: "]) {
        assert!(
            refused.stderr.contains(word),
            "{word:?} is not told: {}",
            refused.stderr
        );
    }
    assert_eq!(refused.stdout, "");
}

#[test]
fn a_file_where_the_data_directory_should_be_is_told() {
    let home = Home::new();
    let _file = home.file("data", "in the way");
    let refused = Options::new().refused_in(&home);
    assert_told(&refused, &["data", "hint: "]);
    assert_eq!(std::fs::read_to_string(home.data()).unwrap(), "in the way");
}

#[test]
fn a_read_only_data_directory_is_told() {
    let home = Home::new();
    let mounted = Tmpfs::mount(&home.data(), 8 * MIB).and_then(|tmpfs| {
        tmpfs.make_read_only()?;
        Ok(tmpfs)
    });
    match mounted {
        Ok(_tmpfs) => assert_told(&Options::new().refused_in(&home), &["read-only", "hint: "]),
        Err(reason) => skip(&reason),
    }
}

#[test]
fn a_disk_that_is_full_at_the_start_is_told() {
    let home = Home::new();
    let tmpfs = match Tmpfs::mount(&home.data(), 64 * 1024) {
        Ok(tmpfs) => tmpfs,
        Err(reason) => return skip(&reason),
    };
    fill(&home.data());
    assert_told(&Options::new().refused_in(&home), &["hint: "]);
    drop(tmpfs);
}

/// Fills a file system to its last byte.
fn fill(directory: &Path) {
    use std::io::Write as _;
    let mut file = std::fs::File::options()
        .create(true)
        .append(true)
        .open(directory.join(".filler"))
        .unwrap();
    for size in [MIB as usize, 4096, 1] {
        let piece = vec![0; size];
        while file.write_all(&piece).is_ok() {}
    }
}

#[test]
fn a_full_disk_refuses_changes_and_loses_nothing() {
    let home = Home::new();
    let tmpfs = match Tmpfs::mount(&home.data(), 64 * MIB) {
        Ok(tmpfs) => tmpfs,
        Err(reason) => return skip(&reason),
    };
    let mut daemon = Options::new().start_in(home);
    let client = daemon.client();
    let data = daemon.home().data();
    let gate = daemon.home().path().join("gate");
    client.run(&shell("before", "exit 21"));
    let script = format!(
        "echo up; while [ ! -e {} ]; do sleep 0.05; done; exit 22",
        gate.display()
    );
    client.submit(&shell("running", &script));
    client.until_state("running", "running", SOON);
    fill(&data);

    let mut acknowledged = Vec::new();
    let mut refused = None;
    // What was set aside for the log before may still take a few.
    for index in 0..10_000 {
        let name = format!("late-{index}");
        let answer = client.post("/tasks", &flat(&name, &["true"]));
        if answer.status != 201 {
            refused = Some(answer);
            break;
        }
        acknowledged.push(name);
    }
    let refused = refused.unwrap().expect(507);
    assert!(refused.header("retry-after").is_some());
    assert!(
        refused.json()["hint"].as_str().unwrap().contains("disk"),
        "{}",
        refused.text()
    );
    assert_eq!(exit_code(&client.task("before")), 21, "reads go on");
    eventually(SOON, "it says that it is not well", || {
        client.get("/health").status == 503
    });
    assert_eq!(client.get("/readyz").status, 503);
    // An end that happens now is kept until there is room.
    std::fs::write(&gate, "").unwrap();
    eventually(SOON, "the command has ended", || {
        !daemon
            .home()
            .task_processes()
            .iter()
            .any(|process| process.name == "sh")
    });

    std::fs::remove_file(data.join(".filler")).unwrap();
    eventually(SOON, "it recovers by itself", || {
        client.get("/readyz").status == 200
    });
    assert_eq!(exit_code(&client.until_ended("running", SOON)), 22);
    assert_eq!(exit_code(&client.run(&shell("after", "exit 23"))), 23);
    daemon.kill();
    daemon.start_again();
    for (name, code) in [("before", 21), ("running", 22), ("after", 23)] {
        assert_eq!(exit_code(&client.until_ended(name, SOON)), code);
    }
    for name in acknowledged {
        assert_eq!(exit_code(&client.until_ended(&name, SOON)), 0);
    }
    // Before its home, which cannot be removed while something is mounted there.
    drop(tmpfs);
}

#[test]
fn a_port_in_use_is_told_with_its_holder() {
    let daemon = Daemon::start();
    let home = Home::new();
    let data = format!("--data-dir={}", home.data().display());
    let listen = format!("--listen-addr={}", daemon.address());
    let refused = home.taskwright(&["serve", &data, &listen]);
    assert_told(
        &refused,
        &["in use", &daemon.address().to_string(), "hint: "],
    );
    daemon.client().get("/health").expect(200);
}

#[test]
fn two_daemons_never_share_a_data_directory() {
    let daemon = Daemon::start();
    let client = daemon.client();
    client.submit(&flat("kept", &["sleep", "60"]));
    client.until_state("kept", "running", SOON);
    let refused = Options::new().refused_in(daemon.home());
    assert_told(&refused, &["in use", &daemon.pid().to_string()]);
    assert_eq!(
        state(&client.task("kept")),
        "running",
        "the first one does not suffer"
    );
    assert_eq!(exit_code(&client.run(&flat("new", &["true"]))), 0);
}

#[test]
fn a_stale_lock_is_no_obstacle() {
    let mut daemon = Daemon::start();
    let client = daemon.client();
    client.run(&shell("kept", "exit 5"));
    daemon.kill();
    // As if its pid had been taken by somebody else meanwhile.
    std::fs::write(daemon.home().data().join(".taskwright/lock"), "1\n").unwrap();
    daemon.start_again();
    assert_eq!(exit_code(&client.task("kept")), 5);
}

fn database(home: &Home) -> std::path::PathBuf {
    home.data().join(".taskwright/store.db")
}

#[test]
fn a_data_directory_of_a_newer_version_is_left_untouched() {
    let mut daemon = Daemon::start();
    daemon.client().run(&shell("kept", "exit 6"));
    daemon.terminate();
    let path = database(daemon.home());
    let set_version = |version: u32| {
        let connection = rusqlite::Connection::open(&path).unwrap();
        connection
            .pragma_update(None, "user_version", version)
            .unwrap();
    };
    set_version(99);
    let before = std::fs::read(&path).unwrap();
    assert_told(&Options::new().refused_in(daemon.home()), &["newer", "99"]);
    assert!(
        std::fs::read(&path).unwrap() == before,
        "not a byte was changed"
    );
    set_version(1);
    daemon.start_again();
    assert_eq!(exit_code(&daemon.client().task("kept")), 6);
}

#[test]
fn a_database_of_somebody_else_is_left_untouched() {
    let home = Home::new();
    std::fs::create_dir_all(database(&home).parent().unwrap()).unwrap();
    let connection = rusqlite::Connection::open(database(&home)).unwrap();
    connection
        .execute_batch("CREATE TABLE songs (title TEXT); INSERT INTO songs VALUES ('x');")
        .unwrap();
    drop(connection);
    let before = std::fs::read(database(&home)).unwrap();
    assert_told(&Options::new().refused_in(&home), &["another program"]);
    assert!(std::fs::read(database(&home)).unwrap() == before);
}

#[test]
fn a_damaged_record_is_reported_and_the_rest_is_kept() {
    let mut daemon = Daemon::start();
    let client = daemon.client();
    for name in ["first", "second", "third"] {
        client.run(&shell(name, "exit 7"));
    }
    let id = client.task("second")["id"]
        .as_str()
        .unwrap()
        .replace('-', "");
    daemon.terminate();
    let connection = rusqlite::Connection::open(database(daemon.home())).unwrap();
    let sql = "UPDATE tasks SET body = zeroblob(length(body)) WHERE hex(id) = upper(?1)";
    assert_eq!(connection.execute(sql, [&id]).unwrap(), 1);
    drop(connection);
    daemon.start_again();
    for name in ["first", "third"] {
        assert_eq!(exit_code(&client.task(name)), 7);
    }
    client.get("/tasks/second").expect(404);
    assert!(daemon.log().contains("damaged"), "{}", daemon.log());
    assert_eq!(exit_code(&client.run(&flat("new", &["true"]))), 0);
}

#[test]
fn a_file_that_is_no_database_any_more_is_kept_aside() {
    let mut daemon = Daemon::start();
    let client = daemon.client();
    client.run(&flat("lost", &["true"]));
    daemon.terminate();
    let path = database(daemon.home());
    let garbage: Vec<u8> = (0..65_536_u32)
        .map(|number| (number * 7 % 251) as u8)
        .collect();
    std::fs::write(&path, &garbage).unwrap();
    daemon.start_again();
    assert!(
        daemon.log().to_lowercase().contains("damage"),
        "{}",
        daemon.log()
    );
    let kept = std::fs::read_dir(path.parent().unwrap()).unwrap().flatten();
    let kept = kept.filter(|entry| entry.path() != path);
    let kept = kept.filter_map(|entry| std::fs::read(entry.path()).ok());
    assert!(
        kept.into_iter().any(|bytes| bytes == garbage),
        "the bytes are kept"
    );
    assert_eq!(exit_code(&client.run(&flat("new", &["true"]))), 0);
}

#[test]
fn a_torn_tail_of_the_journal_is_survived() {
    let mut daemon = Daemon::start();
    let client = daemon.client();
    client.run(&shell("early", "exit 8"));
    daemon.terminate();
    daemon.start_again();
    client.run(&shell("late", "exit 9"));
    daemon.kill();
    let mut wal = database(daemon.home()).into_os_string();
    wal.push("-wal");
    let bytes = std::fs::read(&wal).unwrap();
    // Power was lost in the middle of a write: of the last one, before the room made of zeros.
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() as u64;
    std::fs::File::options()
        .write(true)
        .open(&wal)
        .unwrap()
        .set_len(end - 100)
        .unwrap();
    daemon.start_again();
    assert_eq!(exit_code(&client.task("early")), 8);
    assert_eq!(exit_code(&client.run(&flat("new", &["true"]))), 0);
}

#[test]
fn requests_in_flight_are_answered_before_it_ends() {
    let mut daemon = Daemon::start();
    let client = daemon.client();
    let posted = std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            let mut posted = Vec::new();
            for index in 0.. {
                let name = format!("t-{index}");
                let request = Request::new("POST", "/tasks").json(&flat(&name, &["true"]));
                match client.try_send(request) {
                    Ok(answer) if answer.status == 201 => posted.push(name),
                    _ => break,
                }
            }
            posted
        });
        eventually(SOON, "some were taken", || {
            client.get("/getTasks").json().as_array().unwrap().len() > 20
        });
        let begun = Instant::now();
        assert_eq!(daemon.terminate().code(), Some(0));
        assert!(begun.elapsed() < SOON);
        load.join().unwrap()
    });
    daemon.start_again();
    for name in posted {
        assert_eq!(exit_code(&client.until_ended(&name, SOON)), 0);
    }
}

#[test]
fn what_a_task_mounted_is_not_removed_through_the_mount() {
    let daemon = Daemon::start();
    let client = daemon.client();
    let outside = daemon.home().path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("precious"), "kept").unwrap();
    let script = format!("mkdir m && mount --bind {} m", outside.display());
    if exit_code(&client.run(&shell("mounts", &script))) != 0 {
        return skip("a task cannot mount here");
    }
    let mount_point = daemon.home().data().join("mounts/m");
    client.delete("/tasks/mounts").expect(204);
    // Tried at once and again and again; none of it may reach through the mount.
    let until = Instant::now() + std::time::Duration::from_secs(1);
    eventually(SOON, "its removal was tried a few times", || {
        assert!(outside.join("precious").exists());
        Instant::now() >= until
    });
    assert!(client.task("mounts")["deletionTimestamp"].is_string());
    let unmounted = std::process::Command::new("umount")
        .arg(&mount_point)
        .status();
    assert!(unmounted.unwrap().success());
    client.until_gone("mounts", SOON);
    assert!(outside.join("precious").exists());
}
