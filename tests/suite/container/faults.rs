//! What goes wrong outside of a task, each under a cause of its own.

use std::time::Duration;

use serde_json::{Value, json};
use taskwright_tests::task::{exit_code, message, state};
use taskwright_tests::{SOON, eventually, eventually_some};

use super::{Contained, cause, told};

fn of_image(it: &Contained, name: &str, image: &str, policy: &str) -> Value {
    it.container(
        name,
        json!({"image": image, "imagePullPolicy": policy, "command": ["true"]}),
    )
}

#[test]
fn an_image_that_cannot_be_had_is_its_own_cause() {
    let Some(it) = Contained::start() else { return };
    let registry = it.containerd.registry();
    let there = it.containerd.serve(&registry, "team/there:1");
    let missing = there.replace(":1", ":2");
    let client = it.client();
    for (name, image, policy) in [
        ("no-registry", it.containerd.absent_image(), "IfNotPresent"),
        ("no-tag", missing.as_str(), "IfNotPresent"),
        ("never", there.as_str(), "Never"),
    ] {
        let ended = client.run(&of_image(&it, name, image, policy));
        assert_eq!(cause(&ended), "image-unavailable", "{ended:#}");
        assert_eq!(exit_code(&ended), 125, "{ended:#}");
        assert!(message(&ended).contains(image), "{ended:#}");
    }
    let ended = client.task("never");
    assert!(told(&ended).contains("never"), "{ended:#}");
    assert!(!it.containerd.has_image(&there), "it was not pulled");
    // A cause that a task may ask to be tried again for.
    let mut again = of_image(&it, "again", &missing, "IfNotPresent");
    again["retry"] = json!({
        "maxAttempts": 50, "backoffSeconds": 0.2, "maxBackoffSeconds": 0.2,
        "on": ["image-unavailable"],
    });
    client.submit(&again);
    eventually(SOON, "it was tried once", || {
        client.task("again")["attempts"].as_array().unwrap().len() > 1
    });
    let _name = it.containerd.serve(&registry, "team/there:2");
    let ended = client.until_ended("again", SOON);
    assert_eq!(exit_code(&ended), 0, "{ended:#}");
    let _shown = it.containerd.ctr(&["images", "rm", &missing]);
}

#[test]
fn an_image_is_pulled_once_for_all_who_wait() {
    let Some(it) = Contained::start() else { return };
    let client = it.client();
    let registry = it.containerd.registry();
    let image = it.containerd.serve(&registry, "team/slow:1");
    let alone = {
        let other = it.containerd.serve(&registry, "team/alone:1");
        client.run(&of_image(&it, "alone", &other, "IfNotPresent"));
        let _shown = it.containerd.ctr(&["images", "rm", "--sync", &other]);
        registry.requests()
    };
    registry.delay(Duration::from_millis(600));
    for index in 0..6 {
        client.submit(&of_image(
            &it,
            &format!("pull-{index}"),
            &image,
            "IfNotPresent",
        ));
    }
    let waiting = eventually_some(SOON, "the pull is told while a task waits", || {
        let task = client.task("pull-0");
        let told = message(&task).contains("pulling image");
        (state(&task) == "waiting" && told).then_some(task)
    });
    assert!(message(&waiting).contains(&image), "{waiting:#}");
    assert!(
        waiting["attempts"][0]["note"]
            .as_str()
            .unwrap()
            .contains("wait"),
        "{waiting:#}"
    );
    for index in 0..6 {
        let ended = client.until_ended(&format!("pull-{index}"), SOON);
        assert_eq!(exit_code(&ended), 0, "{ended:#}");
    }
    assert!(
        registry.requests() - alone <= alone,
        "{} after {alone}",
        registry.requests()
    );
    let before = registry.requests();
    client.run(&of_image(&it, "present", &image, "IfNotPresent"));
    assert_eq!(
        registry.requests(),
        before,
        "what is there is not asked for"
    );
    client.run(&of_image(&it, "always", &image, "Always"));
    assert!(registry.requests() > before, "Always asks");
    let _shown = it.containerd.ctr(&["images", "rm", &image]);
}

#[test]
fn a_task_is_stopped_and_deleted_while_its_image_is_pulled() {
    let Some(it) = Contained::start() else { return };
    let client = it.client();
    let registry = it.containerd.registry();
    let image = it.containerd.serve(&registry, "team/stopped:1");
    registry.delay(Duration::from_secs(3));
    for name in ["stopped", "deleted"] {
        client.submit(&of_image(&it, name, &image, "IfNotPresent"));
    }
    eventually(SOON, "both wait", || {
        ["stopped", "deleted"]
            .iter()
            .all(|name| message(&client.task(name)).contains("pulling"))
    });
    let begun = std::time::Instant::now();
    client.post("/tasks/stopped/stop", &json!({})).expect(200);
    client.delete("/tasks/deleted").expect(204);
    let ended = client.until_ended("stopped", SOON);
    assert_eq!(
        (cause(&ended), exit_code(&ended)),
        ("canceled", 143),
        "{ended:#}"
    );
    client.until_gone("deleted", SOON);
    assert!(
        begun.elapsed() < Duration::from_secs(4),
        "nobody waits for the pull"
    );
    assert_eq!(it.ids(), Vec::<String>::new());
}

#[test]
fn a_container_that_somebody_removes_is_told_as_lost() {
    let Some(it) = Contained::start() else { return };
    let client = it.client();
    client.submit(&it.shell("removed", "echo ready; exec sleep 600"));
    it.until_printed("removed", "ready");
    let container = it.containers().remove(0);
    // As `ctr` does it: behind the back of CRI, which keeps its own record for a while.
    // CRI may be the first to take its task away.
    for words in [
        vec!["tasks", "rm", "--force", &container.id],
        vec!["containers", "rm", &container.id],
    ] {
        let _may_be_gone = it.containerd.try_ctr(&words);
    }
    let ended = client.until_ended("removed", SOON);
    assert!(
        ["sandbox-lost", "lost", "signal", "exit"].contains(&cause(&ended)),
        "{ended:#}"
    );
    assert_ne!(exit_code(&ended), 0, "{ended:#}");
}

#[test]
fn a_pod_that_somebody_kills_takes_its_containers_along() {
    let Some(it) = Contained::start() else { return };
    let client = it.client();
    client.submit(&it.pod("pod", &[("a", "echo ready; exec sleep 600")], json!({})));
    it.until_printed("pod", "ready");
    let objects = it.objects();
    let sandbox = objects
        .iter()
        .find(|object| object.is_pod())
        .unwrap()
        .clone();
    // The pause container alone: its containers go on without one.
    let _shown = it
        .containerd
        .ctr(&["tasks", "kill", "--signal", "SIGKILL", &sandbox.id]);
    let container = objects
        .iter()
        .find(|object| !object.is_pod())
        .unwrap()
        .clone();
    let _shown = it
        .containerd
        .ctr(&["tasks", "kill", "--signal", "SIGKILL", &container.id]);
    let ended = client.until_ended("pod", SOON);
    assert_eq!(exit_code(&ended), 137, "{ended:#}");
    it.until_nothing_is_left();
}

#[test]
fn a_sandbox_that_is_gone_before_the_next_container_is_lost() {
    let Some(it) = Contained::start() else { return };
    let client = it.client();
    let mut body = it.pod("lost", &[("main", "true")], json!({}));
    let wait = it.in_pod("wait", "until [ -e /tmp/go ]; do sleep 0.05; done");
    body["podTemplateSpec"]["spec"]["initContainers"] = json!([wait]);
    client.submit(&body);
    let objects = eventually_some(SOON, "its init container runs", || {
        let objects = it.objects();
        let running = objects
            .iter()
            .filter(|object| object.status == "RUNNING")
            .count();
        (running == 2).then_some(objects)
    });
    let sandbox = objects.iter().find(|object| object.is_pod()).unwrap();
    let init = objects.iter().find(|object| !object.is_pod()).unwrap();
    let _shown = it
        .containerd
        .ctr(&["tasks", "kill", "--signal", "SIGKILL", &sandbox.id]);
    eventually(SOON, "its pod has ended", || {
        let shown = it.containerd.ctr(&["tasks", "ls"]);
        !shown
            .lines()
            .any(|line| line.starts_with(&sandbox.id) && line.contains("RUNNING"))
    });
    let words = [
        "tasks",
        "exec",
        "--exec-id",
        "gate",
        init.id.as_str(),
        "touch",
        "/tmp/go",
    ];
    let _may_be_gone = it.containerd.try_ctr(&words);
    let ended = client.until_ended("lost", SOON);
    assert_eq!(cause(&ended), "sandbox-lost", "{ended:#}");
    assert_eq!(exit_code(&ended), 125, "{ended:#}");
}
