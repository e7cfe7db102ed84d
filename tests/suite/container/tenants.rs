//! Several users of one containerd: nobody touches what another one made.

use serde_json::json;
use taskwright_tests::task::{exit_code, state};
use taskwright_tests::{SOON, processes};

use super::{Contained, groups};

/// A container that no daemon knows, made with containerd's own client in the namespace of CRI.
struct Stranger<'a> {
    it: &'a Contained,
    id: String,
}

impl<'a> Stranger<'a> {
    fn run(it: &'a Contained, label: &str) -> Self {
        let id = format!("stranger-{}-{}", std::process::id(), it.daemon.pid());
        let words = [
            "run",
            "--detach",
            "--label",
            label,
            it.containerd.image(),
            &id,
            "sleep",
            "600",
        ];
        let _silent = it.containerd.ctr(&words);
        Self { it, id }
    }

    fn pid(&self) -> u32 {
        let shown = self.it.containerd.ctr(&["tasks", "ls"]);
        let line = shown
            .lines()
            .find(|line| line.starts_with(&self.id))
            .unwrap()
            .to_owned();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Stranger<'_> {
    fn drop(&mut self) {
        let _gone = self
            .it
            .containerd
            .try_ctr(&["tasks", "rm", "--force", &self.id]);
        let _gone = self.it.containerd.try_ctr(&["containers", "rm", &self.id]);
    }
}

#[test]
fn what_a_stranger_runs_is_left_alone() {
    let Some(mut it) = Contained::start() else {
        return;
    };
    // Even one that looks like ours, but for the instance.
    let pid = {
        let stranger = Stranger::run(
            &it,
            "taskwright.dev/task=019b0000-0000-7000-8000-000000000000",
        );
        let pid = stranger.pid();
        std::mem::forget(stranger);
        pid
    };
    let id = format!("stranger-{}-{}", std::process::id(), it.daemon.pid());
    let client = it.client();
    client.run(&it.shell("ours", "echo hi"));
    client.delete("/tasks/ours").expect(204);
    client.until_gone("ours", SOON);
    it.daemon.kill();
    it.daemon.start_again();
    client.submit(&it.shell("more", "exec sleep 600"));
    client.until_state("more", "running", SOON);
    client.post("/setTasks", &json!([])).expect(200);
    client.until_gone("more", SOON);
    let lives = processes::is_alive(pid);
    let stranger = Stranger { it: &it, id };
    assert!(lives && stranger.pid() == pid, "it runs on");
}

#[test]
fn two_daemons_at_one_runtime_do_not_meet() {
    let (Some(mut one), Some(two)) = (Contained::start(), Contained::start()) else {
        return;
    };
    assert_ne!(one.instance(), two.instance());
    let client = two.client();
    // The same names in both; a limit of processes needs a group of its own.
    for it in [&one, &two] {
        let mut body = it.shell("same", "echo ready; exec sleep 600");
        body["resources"] = json!({"pids": 20});
        it.client().submit(&body);
        it.client()
            .submit(&it.pod("pod", &[("a", "exec sleep 600")], json!({})));
    }
    for it in [&one, &two] {
        it.until_printed("same", "ready");
        it.client().until_state("pod", "running", SOON);
        assert_eq!(it.ids().len(), 4);
    }
    let theirs = two.ids();
    let id = client.task("same")["id"].as_str().unwrap().to_owned();
    let limits = |it: &Contained| {
        let found = groups(it.containerd, &id).into_iter().filter_map(|group| {
            let inner = std::fs::read_dir(group).ok()?.flatten();
            inner
                .filter_map(|entry| std::fs::read_to_string(entry.path().join("pids.max")).ok())
                .find(|limit| limit.trim() != "max")
        });
        found.collect::<Vec<String>>()
    };
    assert_eq!(limits(&two), ["20\n"]);
    for _ in 0..2 {
        one.daemon.kill();
        one.daemon.start_again();
    }
    one.client().post("/setTasks", &json!([])).expect(200);
    one.client().until_gone("same", SOON);
    one.client().until_gone("pod", SOON);
    one.until_nothing_is_left();
    assert_eq!(two.ids(), theirs, "nothing of the other one changed");
    assert_eq!(limits(&two), ["20\n"]);
    for name in ["same", "pod"] {
        assert_eq!(state(&client.task(name)), "running");
    }
    let ended = client.run(&two.shell("still", "echo still"));
    assert_eq!(exit_code(&ended), 0);
}

#[test]
fn the_sweep_of_one_daemon_leaves_the_groups_of_another() {
    let (Some(mut one), Some(two)) = (Contained::start(), Contained::start()) else {
        return;
    };
    // A group that was made and is still empty, as between a create and a start.
    let task = "019b0000-0000-7000-8000-000000000001";
    let parent = one.containerd.cgroup();
    let parent = parent.trim_start_matches('/');
    let hierarchy = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"]
        .into_iter()
        .find(|path| std::path::Path::new(path).join("cgroup.procs").exists());
    let below = std::path::Path::new(hierarchy.unwrap()).join(parent);
    let foreign = below.join(format!("tw-{}-{task}-1", two.instance()));
    let own = below.join(format!("tw-{}-{task}-1", one.instance()));
    std::fs::create_dir_all(&foreign).unwrap();
    std::fs::create_dir_all(&own).unwrap();
    one.daemon.kill();
    one.daemon.start_again();
    taskwright_tests::eventually(SOON, "its own leftover is swept", || !own.exists());
    assert!(foreign.exists(), "the other's is not");
    std::fs::remove_dir(foreign).unwrap();
}
