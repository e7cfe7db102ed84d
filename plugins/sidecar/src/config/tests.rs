#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use super::*;

fn read(config: &str, settings: &[(&str, &str)]) -> Result<Wanted, Vec<String>> {
    let setting = |key: &str| {
        let found = settings.iter().find(|(name, _)| *name == key)?;
        Some(found.1.to_owned())
    };
    Wanted::with(config, &setting)
        .map_err(|problems| problems.into_iter().map(|one| one.field).collect())
}

#[test]
fn without_a_word_it_is_the_references_main_container() {
    let wanted = read("", &[]).unwrap();
    assert_eq!(
        wanted.selector(),
        Selector::Variable(EnvVar {
            name: "SANDBOX_MAIN_CONTAINER".to_owned(),
            value: "main".to_owned(),
        })
    );
    assert_eq!(wanted.wait_ms, 10_000);
    let entry = wanted.entry();
    assert!(!entry.identity && !entry.cgroup && !entry.user_namespace && !entry.cgroup_namespace);
}

#[test]
fn the_operator_names_the_main_container_and_the_task_names_another() {
    let settings = [
        ("main-container-name", "app"),
        ("identity", "target"),
        ("cgroup", "target"),
        ("target-wait-seconds", "2.5"),
    ];
    let wanted = read("", &settings).unwrap();
    assert!(wanted.described().contains("=app "));
    assert!(wanted.entry().identity && wanted.entry().cgroup);
    assert_eq!(wanted.wait_ms, 2500);
    let config = r#"{"target":{"pid":7},"identity":"daemon","cgroup":"own","targetWaitSeconds":0}"#;
    let wanted = read(config, &settings).unwrap();
    assert_eq!(wanted.selector(), Selector::Pid(7));
    assert!(!wanted.entry().identity && !wanted.entry().cgroup);
    assert_eq!(wanted.wait_ms, 0);
}

#[test]
fn every_target_is_read() {
    let selector = |target: &str| {
        read(&format!(r#"{{"target":{target}}}"#), &[])
            .unwrap()
            .selector()
    };
    let id = "0123456789abcdef";
    assert_eq!(
        selector(&format!(r#"{{"containerId":"{id}"}}"#)),
        Selector::ContainerId(id.to_owned())
    );
    for scheme in ["containerd", "cri-o", "docker"] {
        assert_eq!(
            selector(&format!(r#"{{"containerId":"{scheme}://{id}"}}"#)),
            Selector::ContainerId(id.to_owned())
        );
    }
    assert_eq!(
        selector(r#"{"cgroup":"/kubepods/pod1"}"#),
        Selector::Cgroup("/kubepods/pod1".to_owned())
    );
    assert!(matches!(
        selector(r#"{"variable":{"name":"APP","value":"x"}}"#),
        Selector::Variable(EnvVar { name, .. }) if name == "APP"
    ));
}

#[test]
fn what_means_nothing_is_refused_at_its_field() {
    for (config, field) in [
        ("{", "/config"),
        (r#"{"tarket":{}}"#, "/config"),
        (r#"{"target":{"pid":1,"cgroup":"/x"}}"#, "/config"),
        (r#"{"identity":"root"}"#, "/config"),
        (r#"{"target":{"pid":0}}"#, "/config/target/pid"),
        (
            r#"{"target":{"containerId":"abc"}}"#,
            "/config/target/containerId",
        ),
        (
            r#"{"target":{"containerId":"../../../../etc"}}"#,
            "/config/target/containerId",
        ),
        (
            r#"{"target":{"containerId":"ftp://0123456789abcdef"}}"#,
            "/config/target/containerId",
        ),
        (r#"{"target":{"cgroup":"x"}}"#, "/config/target/cgroup"),
        (r#"{"target":{"cgroup":"/"}}"#, "/config/target/cgroup"),
        (
            r#"{"target":{"mainContainer":""}}"#,
            "/config/target/mainContainer",
        ),
        (
            r#"{"target":{"variable":{"name":"a=b","value":""}}}"#,
            "/config/target/variable/name",
        ),
        (r#"{"targetWaitSeconds":-1}"#, "/config/targetWaitSeconds"),
    ] {
        assert_eq!(read(config, &[]).unwrap_err(), [field], "{config}");
    }
}

#[test]
fn the_schema_is_json() {
    assert!(serde_json::from_str::<serde_json::Value>(SCHEMA).is_ok());
}
