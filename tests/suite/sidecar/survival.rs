//! Commands in main containers, and the deaths of those around them.

use super::*;

#[test]
fn the_death_of_the_supervisor_loses_nothing_in_there() {
    let Some((mut daemon, main)) = both() else {
        return;
    };
    let client = daemon.client();
    for (name, code) in [("kept", 23), ("too", 29)] {
        client.submit(&shell(name, &gated(code)));
        until_printed(&daemon, name, "up");
    }
    reaper::kill(&daemon.supervisor());
    assert_eq!(state(&client.task("kept")), "running");
    until_true(&client, &name_of(&client.run(&shell("new", "exit 5"))), 5);
    // Both at once, as a machine out of memory would.
    let supervisor = daemon.supervisor();
    reaper::send(supervisor.pid, rustix::process::Signal::KILL);
    daemon.kill();
    reaper::kill(&supervisor);
    daemon.start_again();
    fs::write(main.root().join("gate"), "").unwrap();
    until_true(&client, "kept", 23);
    until_true(&client, "too", 29);
}

fn name_of(task: &Value) -> String {
    taskwright_tests::task::name(task).to_owned()
}

#[test]
fn the_death_of_the_main_container_while_the_daemon_is_down_is_told() {
    let Some((mut daemon, mut main)) = both() else {
        return;
    };
    let client = daemon.client();
    client.submit(&shell("inside", "echo up; sleep 300"));
    until_printed(&daemon, "inside", "up");
    client.until_state("inside", "running", SOON);
    daemon.kill();
    main.kill();
    daemon.start_again();
    let ended = client.until_ended("inside", SOON);
    assert_eq!(ended["outcome"]["cause"], "target-lost", "{ended:#}");
}

#[test]
fn a_wait_for_the_main_container_goes_on_after_a_kill() {
    let name = unique();
    let mut daemon = mode(&name).flag("--sidecar-wait=60s").start();
    let client = daemon.client();
    client.submit(&shell("early", "exit 6"));
    eventually(SOON, "it waits", || {
        !client.task("early")["attempts"][0]["note"].is_null()
    });
    daemon.kill();
    daemon.start_again();
    let Some(_main) = MainContainer::start(&name) else {
        return;
    };
    until_true(&client, "early", 6);
}
