//! Main containers are what they claim to be, and nothing is left of them.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use super::*;
use crate::eventually;

/// What a process inside of `container` sees.
fn inside(container: &MainContainer, words: &[&str]) -> String {
    let pid = container.pid().to_string();
    let mut command = Command::new("nsenter");
    command.args(["-t", &pid, "-m", "-u", "-i", "-n", "-p", "--"]);
    let finished = cli::finish(command.args(words), b"", SOON);
    finished.expect(0).stdout.trim().to_owned()
}

fn status(pid: u32, field: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let words: Vec<&str> = line.unwrap().split_whitespace().collect();
    words.join(" ")
}

#[test]
fn it_shares_nothing_with_us_and_leaves_nothing() {
    let mounts = || fs::read_to_string("/proc/self/mountinfo").unwrap();
    let Some(mut container) = MainContainer::start("main") else {
        return;
    };
    let own = std::process::id();
    assert_eq!(shared_namespaces(own, container.pid()), [""; 0]);
    assert_eq!(namespace(own, "user"), namespace(container.pid(), "user"));
    assert!(status(container.pid(), "NSpid:").ends_with(" 1"));
    assert_eq!(inside(&container, &["/bin/hostname"]), "main");
    assert_eq!(
        inside(&container, &["/bin/ls", "/"]).split('\n').count(),
        8,
        "the old root is out of sight"
    );
    let directory = container.directory.path().to_owned();
    let named = directory.display().to_string();
    assert!(!mounts().contains(&named), "nothing is mounted out here");

    let before = container.pid();
    container.kill();
    assert!(!processes::is_alive(before));
    container.restart();
    let after = container.pid();
    assert_ne!(before, after);
    assert_eq!(shared_namespaces(own, after), [""; 0]);
    drop(container);
    eventually(SOON, "its processes are dead", || {
        !processes::is_alive(after) && processes::holding(&directory).is_empty()
    });
    assert!(!directory.exists());
}

#[test]
fn its_variables_are_its_own_and_not_its_makers() {
    let main = MainOptions::new("other").variable("A", "b c");
    let Some(container) = main.start() else {
        return;
    };
    let wanted = [format!("{VARIABLE}=other"), "A=b c".to_owned()];
    let environment = processes::environment(container.pid());
    assert!(wanted.iter().all(|one| environment.contains(one)));
    let maker = processes::look(container.pid()).unwrap().parent;
    assert!(!processes::environment(maker).contains(&wanted[0]));
}

#[test]
fn a_distroless_one_has_one_program_and_no_shell() {
    let Some(container) = MainOptions::new("bare").distroless().start() else {
        return;
    };
    let seen = inside(
        &container,
        &["/busybox", "find", "/", "-xdev", "-type", "f"],
    );
    assert_eq!(seen, "/busybox");
    assert!(!container.root().join("bin").exists());
}

#[test]
fn one_of_another_user_has_no_privilege() {
    for options in [MainOptions::new("a"), MainOptions::new("b").distroless()] {
        let Some(container) = options.user(1234).start() else {
            return;
        };
        assert_eq!(status(container.pid(), "Uid:"), "1234 1234 1234 1234");
        assert_eq!(status(container.pid(), "Gid:"), "1234 1234 1234 1234");
        assert_eq!(status(container.pid(), "CapEff:"), "0000000000000000");
    }
}

#[test]
fn one_in_a_user_namespace_is_root_there_alone() {
    let Some(mut container) = MainOptions::new("mapped").user_namespace().start() else {
        return;
    };
    for _ in 0..2 {
        let own = std::process::id();
        assert_ne!(namespace(own, "user"), namespace(container.pid(), "user"));
        assert_eq!(shared_namespaces(own, container.pid()), [""; 0]);
        let shifted = SHIFTED.to_string();
        assert_eq!(
            status(container.pid(), "Uid:"),
            [shifted.as_str(); 4].join(" ")
        );
        container.restart();
    }
}

#[test]
fn one_does_not_outlive_whoever_made_it() {
    for options in [
        MainOptions::new("a"),
        MainOptions::new("b").distroless(),
        MainOptions::new("c").user(1234),
        MainOptions::new("d").user_namespace(),
    ] {
        let Some(mut container) = options.start() else {
            return;
        };
        let pid = container.pid();
        // As the kernel does it for a test that was killed.
        if let Some(running) = &mut container.running {
            drop(running.maker.child().stdin.take());
        }
        eventually(SOON, "it has ended", || !processes::is_alive(pid));
    }
}
