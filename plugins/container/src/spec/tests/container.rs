//! Containers by themselves.

use taskwright_plugin_sdk::container::Network;

use super::*;

#[test]
fn the_guides_own_example_is_taken() {
    let plan = container(&json!({
        "image": "ubuntu:latest",
        "command": ["/bin/bash", "-c"],
        "args": ["apt update && apt install -y curl"],
        "env": [{"name": "http_proxy", "value": "http://myproxy.com:5758"}],
        "volumeMounts": [{"name": "data-volume", "mountPath": "/data"}],
    }));
    assert!(!plan.is_pod);
    assert_eq!(plan.init, 0);
    assert_eq!(plan.sandbox.network, Network::Pod);
    assert_eq!(plan.images[0].name, "ubuntu:latest");
    assert_eq!(plan.images[0].policy, PullPolicy::IfNotPresent);
    assert_eq!(plan.containers[0].name, MAIN);
    let request = plan.containers[0].request(None).unwrap();
    assert_eq!(request.command, ["/bin/bash", "-c"]);
    assert_eq!(request.args, ["apt update && apt install -y curl"]);
    assert_eq!(request.env[0].value, "http://myproxy.com:5758");
    assert_eq!(request.mounts, [empty_dir("data-volume", "/data")]);
}

#[test]
fn null_is_absent() {
    let plan = container(&json!({
        "image": "a", "command": null, "args": null, "env": null, "workingDir": null,
        "volumeMounts": null, "volumes": null, "network": null, "resources": null,
        "securityContext": null, "user": null, "imagePullPolicy": null, "hostname": null,
        "lifecycle": null, "whatever": {"x": 1},
    }));
    let request = plan.containers[0].request(None).unwrap();
    assert!(request.command.is_empty() && request.args.is_empty() && request.env.is_empty());
    assert_eq!(request.identity.uid, None);
}

#[test]
fn volumes_are_what_the_list_says() {
    let plan = container(&json!({
        "image": "a",
        "volumes": [
            {"name": "scratch", "emptyDir": {}},
            {"name": "long", "hostPath": {"path": "/srv/long", "type": "Directory"}},
            {"name": "short", "hostPath": "/srv/short"},
            {"name": "bare"},
            {"name": "nil", "emptyDir": null},
        ],
        "volumeMounts": [
            {"name": "scratch", "mountPath": "/a"},
            {"name": "long", "mountPath": "/b", "readOnly": true},
            {"name": "short", "mountPath": "/c"},
            {"name": "bare", "mountPath": "/d"},
            {"name": "nil", "mountPath": "/e"},
            {"name": "unlisted", "mountPath": "/f"},
        ],
    }));
    let mounts = plan.containers[0].request(None).unwrap().mounts;
    let path = |path: &str| MountSource::HostPath(path.to_owned());
    assert_eq!(mounts[0], empty_dir("scratch", "/a"));
    assert_eq!(mounts[1].source, path("/srv/long"));
    assert!(mounts[1].read_only && !mounts[2].read_only);
    assert_eq!(mounts[2].source, path("/srv/short"));
    assert_eq!(
        mounts[3..],
        [
            empty_dir("bare", "/d"),
            empty_dir("nil", "/e"),
            empty_dir("unlisted", "/f")
        ]
    );
}

#[test]
fn limits_are_read_in_both_forms() {
    for resources in [
        json!({"limits": {"cpu": "500m", "memory": "64Mi"}, "requests": {"cpu": "9"}}),
        json!({"cpu": 0.5, "memory": 67_108_864}),
    ] {
        let plan = container(&json!({"image": "a", "resources": resources}));
        let found = plan.containers[0].request(None).unwrap().resources;
        assert_eq!(found.cpu_millis, Some(500));
        assert_eq!(found.memory_bytes, Some(64 << 20));
    }
}

#[test]
fn users_are_read_as_people_write_them() {
    for (user, uid, gid, name) in [
        (json!("1000"), Some(1000), None, None),
        (json!(1000), Some(1000), None, None),
        (json!("1000:100"), Some(1000), Some(100), None),
        (json!("node"), None, None, Some("node")),
        (json!(""), None, None, None),
    ] {
        let plan = container(&json!({"image": "a", "user": user}));
        let identity = plan.containers[0].request(None).unwrap().identity;
        assert_eq!((identity.uid, identity.gid), (uid, gid), "{user}");
        assert_eq!(identity.username.as_deref(), name, "{user}");
    }
    for user in [
        json!("-1"),
        json!("1:x"),
        json!("node:100"),
        json!("a b"),
        json!(-1),
        json!(true),
    ] {
        let document = json!({"image": "a", "user": user});
        assert_eq!(places(CONTAINER, &document), ["/container/user"], "{user}");
    }
    let twice = json!({"image": "a", "user": "1", "securityContext": {"runAsUser": 1}});
    refused(CONTAINER, &twice, "/container/user", "securityContext");
}

#[test]
fn networks_hosts_and_policies_are_read() {
    for (word, network) in [
        ("pod", Network::Pod),
        ("none", Network::None),
        ("host", Network::Host),
    ] {
        let document = json!({
            "image": "a", "network": word, "hostname": "box", "imagePullPolicy": "Always",
        });
        let plan = container(&document);
        assert_eq!(plan.sandbox.network, network);
        assert_eq!(plan.sandbox.hostname.as_deref(), Some("box"));
        assert_eq!(plan.images[0].policy, PullPolicy::Always);
    }
    let document = json!({"image": "a", "imagePullPolicy": "Sometimes"});
    refused(CONTAINER, &document, "/container/imagePullPolicy", "Never");
}

#[test]
fn mistakes_of_containers_are_refused_at_their_places() {
    for (fields, place, text) in [
        (json!({"command": [""]}), "/command/0", "empty"),
        (
            json!({"securityContext": []}),
            "/securityContext",
            "an object",
        ),
        (
            json!({"resources": {"claims": [{"name": "gpu"}]}}),
            "/resources/claims",
            "devices",
        ),
        (json!({"command": "ls"}), "/command", "a list"),
        (json!({"args": ["a\0b"]}), "/args/0", "NUL"),
        (
            json!({"resources": {"cpu": 1, "limits": {"cpu": 2}}}),
            "/resources/limits",
            "beside it",
        ),
        (
            json!({"resources": {"limits": {"nvidia.com/gpu": 1}}}),
            "/resources/limits/nvidia.com~1gpu",
            "gpu",
        ),
        (
            json!({"volumes": [{"name": "a", "secret": {}}]}),
            "/volumes/0/secret",
            "secret",
        ),
        (
            json!({"volumes": [{"name": "a", "emptyDir": {}, "hostPath": "/"}]}),
            "/volumes/0",
            "one kind",
        ),
        (
            json!({"volumes": [{"name": "a", "hostPath": "etc"}]}),
            "/volumes/0/hostPath",
            "absolute",
        ),
        (
            json!({"volumes": [{"name": "a", "hostPath": {"path": "/a/../b"}}]}),
            "/volumes/0/hostPath/path",
            "..",
        ),
        (
            json!({"volumes": [{"name": "a", "hostPath": {}}]}),
            "/volumes/0/hostPath/path",
            "absolute",
        ),
        (
            json!({"volumes": [{"name": "A"}]}),
            "/volumes/0/name",
            "DNS label",
        ),
        (
            json!({"volumes": [{"emptyDir": {}}]}),
            "/volumes/0/name",
            "DNS label",
        ),
        (
            json!({"volumes": [{"name": "a"}, {"name": "a"}]}),
            "/volumes/1/name",
            "another",
        ),
        (
            json!({"volumeMounts": [{"name": "a"}]}),
            "/volumeMounts/0/mountPath",
            "absolute",
        ),
        (
            json!({"volumeMounts": [{"mountPath": "/a"}]}),
            "/volumeMounts/0/name",
            "volume",
        ),
        (
            json!({"volumeMounts": [{"name": "../x", "mountPath": "/a"}]}),
            "/volumeMounts/0/name",
            "DNS label",
        ),
        (
            json!({"volumeMounts": [{"name": "a", "mountPath": "/a"}, {"name": "b", "mountPath": "/a"}]}),
            "/volumeMounts/1/mountPath",
            "another",
        ),
        (
            json!({"volumeMounts": [{"name": "a", "mountPath": "/a/b"}, {"name": "b", "mountPath": "//a/./b/"}]}),
            "/volumeMounts/1/mountPath",
            "another",
        ),
        (json!({"workingDir": "srv/app"}), "/workingDir", "absolute"),
        (json!({"workingDir": "."}), "/workingDir", "absolute"),
        (json!({"image": "Busybox"}), "/image", "lower case"),
        (json!({"image": "a b"}), "/image", "space"),
        (json!({"image": "a".repeat(5000)}), "/image", "4096"),
        (
            json!({"resources": {"memory": "6291455"}}),
            "/resources/memory",
            "6Mi",
        ),
        (
            json!({"resources": {"limits": {"memory": 1}}}),
            "/resources/limits/memory",
            "6Mi",
        ),
        (
            json!({"securityContext": {"capabilities": {"add": ["KILL", "FLY"]}}}),
            "/securityContext/capabilities/add/1",
            "FLY",
        ),
        (
            json!({"securityContext": {"capabilities": {"drop": [""]}}}),
            "/securityContext/capabilities/drop/0",
            "NET_ADMIN",
        ),
        (
            json!({"ports": [{"containerPort": 80, "hostPort": 80}]}),
            "/ports/0/hostPort",
            "forwarded",
        ),
    ] {
        let mut document = fields;
        if document.get("image").is_none() {
            document["image"] = json!("a");
        }
        refused(CONTAINER, &document, &format!("/container{place}"), text);
    }
}

#[test]
fn nothing_is_mounted_where_the_kernel_or_the_runtime_is() {
    let mounted_at =
        |path: &str| json!({"image": "a", "volumeMounts": [{"name": "v", "mountPath": path}]});
    for path in [
        "/",
        "//",
        "/.",
        "/proc",
        "/proc/",
        "/./proc",
        "//proc/meminfo",
        "/sys",
        "/sys/fs/cgroup",
        "/dev",
        "/dev/",
        "/a/..",
        "/dev/../proc",
        "/a\0b",
        "a",
        "",
    ] {
        let found = places(CONTAINER, &mounted_at(path));
        assert_eq!(found, ["/container/volumeMounts/0/mountPath"], "{path:?}");
    }
    for path in [
        "/a", "/dev/shm", "/dev/x", "/process", "/system", "/a/proc", "/a/..b", "/a/",
    ] {
        assert!(places(CONTAINER, &mounted_at(path)).is_empty(), "{path:?}");
    }
    // The machine's own are the operator's to allow.
    let document = json!({
        "image": "a", "volumes": [{"name": "v", "hostPath": "/proc"}],
        "volumeMounts": [{"name": "v", "mountPath": "/host/proc"}],
    });
    assert!(places(CONTAINER, &document).is_empty());
}

#[test]
fn capabilities_are_named_as_runtimes_want_them() {
    let plan = container(&json!({"image": "a", "securityContext": {"capabilities": {
        "add": ["CAP_NET_ADMIN", "sys_time"], "drop": ["all", "cap_kill"],
    }}}));
    let request = plan.containers[0].request(None).unwrap();
    assert_eq!(request.add_capabilities, ["NET_ADMIN", "SYS_TIME"]);
    assert_eq!(request.drop_capabilities, ["ALL", "KILL"]);
}

#[test]
fn the_least_memory_is_enough() {
    let plan = container(&json!({"image": "a", "resources": {"memory": "6Mi"}}));
    let found = plan.containers[0].request(None).unwrap().resources;
    assert_eq!(found.memory_bytes, Some(6 << 20));
}
