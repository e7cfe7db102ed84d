//! Fields that are refused by name, and the values of them that are taken.

use super::*;

#[test]
fn fields_of_the_pod_are_refused_by_name() {
    for (key, value) in [
        ("restartPolicy", json!("Always")),
        ("restartPolicy", json!("OnFailure")),
        ("hostPID", json!(true)),
        ("hostIPC", json!(true)),
        ("hostAliases", json!([{"ip": "1.2.3.4"}])),
        ("dnsConfig", json!({"nameservers": ["1.1.1.1"]})),
        ("setHostnameAsFQDN", json!(true)),
        ("subdomain", json!("x")),
        ("hostnameOverride", json!("x")),
        ("runtimeClassName", json!("gvisor")),
        ("ephemeralContainers", json!([{"name": "x"}])),
        ("resources", json!({"limits": {"cpu": 1}})),
        ("resourceClaims", json!([{"name": "x"}])),
        ("hostUsers", json!(false)),
    ] {
        let mut document = pod_of(json!({}));
        document["spec"][key] = value;
        let place = format!("/podTemplateSpec/spec/{key}");
        refused(POD, &document, &place, "");
        // The place names the field already.
        let problems = parse(&task(POD, &document)).expect_err(key);
        assert!(!problems[0].message.starts_with(key), "{key}");
    }
    let mut document = pod_of(json!({}));
    document["spec"]["os"] = json!({"name": "windows"});
    refused(POD, &document, "/podTemplateSpec/spec/os/name", "Linux");
    document["spec"]["os"] = json!({});
    document["spec"]["restartPolicy"] = json!("Always");
    refused(
        POD,
        &document,
        "/podTemplateSpec/spec/restartPolicy",
        "retry",
    );
}

#[test]
fn fields_of_a_container_are_refused_by_name() {
    for (place, fields) in [
        (
            "envFrom",
            json!({"envFrom": [{"secretRef": {"name": "x"}}]}),
        ),
        ("lifecycle", json!({"lifecycle": {"preStop": {}}})),
        ("livenessProbe", json!({"livenessProbe": {"exec": {}}})),
        ("readinessProbe", json!({"readinessProbe": {"exec": {}}})),
        ("startupProbe", json!({"startupProbe": {"exec": {}}})),
        ("stdin", json!({"stdin": true})),
        ("stdinOnce", json!({"stdinOnce": true})),
        ("tty", json!({"tty": true})),
        ("volumeDevices", json!({"volumeDevices": [{}]})),
        ("restartPolicy", json!({"restartPolicy": "Always"})),
        ("restartPolicyRules", json!({"restartPolicyRules": [{}]})),
        (
            "ports/0/hostPort",
            json!({"ports": [{"containerPort": 80, "hostPort": 80}]}),
        ),
        (
            "resources/claims",
            json!({"resources": {"claims": [{"name": "x"}]}}),
        ),
        (
            "resources/limits/ephemeral-storage",
            json!({"resources": {"limits": {"ephemeral-storage": "1Gi"}}}),
        ),
        (
            "securityContext/seLinuxOptions",
            json!({"securityContext": {"seLinuxOptions": {"level": "s0"}}}),
        ),
        (
            "securityContext/windowsOptions",
            json!({"securityContext": {"windowsOptions": {"hostProcess": true}}}),
        ),
        (
            "securityContext/procMount",
            json!({"securityContext": {"procMount": "Unmasked"}}),
        ),
        (
            "securityContext/seccompProfile/type",
            json!({"securityContext": {"seccompProfile": {"type": "Unconfined"}}}),
        ),
        (
            "securityContext/appArmorProfile/type",
            json!({"securityContext": {"appArmorProfile": {"type": "Unconfined"}}}),
        ),
        (
            "securityContext/capabilities/add/0",
            json!({"securityContext": {"capabilities": {"add": ["net admin"]}}}),
        ),
        (
            "securityContext/allowPrivilegeEscalation",
            json!({"securityContext": {"privileged": true, "allowPrivilegeEscalation": false}}),
        ),
    ] {
        let place = format!("/podTemplateSpec/spec/containers/0/{place}");
        refused(POD, &pod_of(fields), &place, "");
    }
}

#[test]
fn fields_of_security_of_the_pod_are_refused_by_name() {
    for (place, context) in [
        ("fsGroup", json!({"fsGroup": 1})),
        ("sysctls", json!({"sysctls": [{"name": "a", "value": "b"}]})),
        (
            "supplementalGroupsPolicy",
            json!({"supplementalGroupsPolicy": "Strict"}),
        ),
        ("seLinuxOptions", json!({"seLinuxOptions": {"level": "s0"}})),
        (
            "seccompProfile/type",
            json!({"seccompProfile": {"type": "Unconfined"}}),
        ),
    ] {
        let mut document = pod_of(json!({}));
        document["spec"]["securityContext"] = context;
        let place = format!("/podTemplateSpec/spec/securityContext/{place}");
        refused(POD, &document, &place, "");
    }
    let mut document = pod_of(json!({}));
    document["spec"]["securityContext"] = json!({
        "seccompProfile": {"type": "Localhost", "localhostProfile": "x.json"}});
    assert_eq!(places(POD, &document).len(), 2);
}

#[test]
fn volumes_and_mounts_are_refused_by_name() {
    for kind in [
        "configMap",
        "secret",
        "persistentVolumeClaim",
        "projected",
        "nfs",
        "csi",
        "ephemeral",
        "image",
    ] {
        let mut document = pod_of(json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]}));
        document["spec"]["volumes"] = json!([{"name": "v", kind: {}}]);
        refused(
            POD,
            &document,
            &format!("/podTemplateSpec/spec/volumes/0/{kind}"),
            kind,
        );
    }
    for (place, volume) in [
        (
            "emptyDir/medium",
            json!({"name": "v", "emptyDir": {"medium": "Memory"}}),
        ),
        (
            "emptyDir/sizeLimit",
            json!({"name": "v", "emptyDir": {"sizeLimit": "1Gi"}}),
        ),
        (
            "hostPath/type",
            json!({"name": "v", "hostPath": {"path": "/a", "type": "DirectoryOrCreate"}}),
        ),
    ] {
        let mut document = pod_of(json!({}));
        document["spec"]["volumes"] = json!([volume]);
        refused(
            POD,
            &document,
            &format!("/podTemplateSpec/spec/volumes/0/{place}"),
            "",
        );
    }
    for (key, value) in [
        ("subPath", json!("a")),
        ("subPathExpr", json!("$(A)")),
        ("mountPropagation", json!("Bidirectional")),
        ("recursiveReadOnly", json!("Enabled")),
    ] {
        let mut document =
            pod_of(json!({"volumeMounts": [{"name": "v", "mountPath": "/v", key: value}]}));
        document["spec"]["volumes"] = json!([{"name": "v", "emptyDir": {}}]);
        let place = format!("/podTemplateSpec/spec/containers/0/volumeMounts/0/{key}");
        refused(POD, &document, &place, "");
    }
    let document = pod_of(json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]}));
    let place = "/podTemplateSpec/spec/containers/0/volumeMounts/0/name";
    refused(POD, &document, place, "no volume");
}
