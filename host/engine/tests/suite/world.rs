//! A component that does not fit is refused, in words.
//!
//! The components are made from WIT alone: their functions trap, which is enough
//! for a loader that never calls them.

use taskwright_capability::{Capability, Grants};
use taskwright_engine::{LoadFault, PluginSource, inspect};

use crate::support::{Bench, misbehaving, process, said};
use crate::wit::{component, replaced};

async fn refused(component: Vec<u8>, grants: &[Capability]) -> String {
    let bench = Bench::with_process().await;
    let source = PluginSource {
        name: "odd".to_owned(),
        origin: "odd.wasm".to_owned(),
        component: component.into(),
        script: None,
        grants: Grants::of(grants),
        limits: None,
        policy: None,
    };
    let error = bench.runtimes.load(source).await.unwrap_err();
    bench.check_that_others_work().await;
    said(&error)
}

async fn check(component: Vec<u8>, expected: &[&str]) {
    let said = refused(component, &Capability::ALL).await;
    for text in expected {
        assert!(said.contains(text), "{said:?} lacks {text:?}");
    }
}

#[tokio::test]
async fn bytes_that_are_no_component_are_named_so() {
    check(b"hello".to_vec(), &["it is not a WebAssembly component"]).await;
    check(Vec::new(), &["it is not a WebAssembly component"]).await;
    check(b"\0asm\x01\0\0\0".to_vec(), &["it is a core module"]).await;
    let mut cut = process().component.to_vec();
    cut.truncate(1000);
    check(cut, &["it is not a WebAssembly component"]).await;
}

#[tokio::test]
async fn a_component_that_is_too_large_is_not_even_read() {
    let large = vec![0; (32 << 20) + 1];
    check(large, &["at most 33554432"]).await;
}

#[tokio::test]
async fn a_missing_grant_is_refused_with_the_line_to_add() {
    let said = refused(process().component.to_vec(), &[]).await;
    assert!(
        said.contains("it imports `taskwright:plugin/process@0.1.0` and may not use `process`"),
        "{said}"
    );
    assert!(
        said.contains("add `process = true` under `[grants]` in odd.toml"),
        "{said}"
    );
}

#[tokio::test]
async fn everything_that_is_missing_is_said_at_once() {
    let said = refused(misbehaving(&[]).component.to_vec(), &[]).await;
    assert!(said.contains("`process = true`"), "{said}");
    assert!(said.contains("`files = true`"), "{said}");
}

#[tokio::test]
async fn another_track_of_versions_is_refused_with_both() {
    check(
        replaced("", "taskwright:plugin@0.1.0", "taskwright:plugin@0.2.0"),
        &[
            "it exports `taskwright:plugin/runtime@0.2.0`, but this host speaks `taskwright:plugin/runtime@0.1.0`",
            "it imports `taskwright:plugin/process@0.2.0`",
            "hint: build it against the WIT of this host",
        ],
    )
    .await;
}

#[tokio::test]
async fn a_later_version_of_the_same_track_is_no_reason() {
    let later = replaced("", "taskwright:plugin@0.1.0", "taskwright:plugin@0.1.7");
    let grants = Grants::of(&Capability::ALL);
    let found = inspect(later.clone().into(), "odd", &grants).await.unwrap();
    assert_eq!(found.refusals, []);
    assert_eq!(found.profile.exports, ["taskwright:plugin/runtime@0.1.7"]);
    assert_eq!(
        found.profile.wants,
        [
            Capability::Process,
            Capability::Namespace,
            Capability::Container,
            Capability::Files,
            Capability::Directories,
            Capability::Secrets
        ]
    );
    // It links as well: what fails is its first call, because it has no program.
    check(later, &["it could not describe itself: it gave up"]).await;
}

#[tokio::test]
async fn a_function_that_came_later_is_named() {
    check(
        replaced(
            "log.wit",
            "  write: func(",
            "  flush: func();\n  @since(version = 0.1.0)\n  write: func(",
        ),
        &["it calls `taskwright:plugin/log@0.1.0#flush`, which this host (version 0.1.0) does not have yet"],
    )
    .await;
}

#[tokio::test]
async fn an_import_that_nobody_has_is_named() {
    let odd = component(|name, text| match name {
        "world.wit" => text.replace(
            "  import log;",
            "  import log;\n  @since(version = 0.1.0)\n  import gpu;",
        ),
        "log.wit" => format!(
            "{text}\n@since(version = 0.1.0)\ninterface gpu {{\n  @since(version = 0.1.0)\n  count: func() -> u32;\n}}\n"
        ),
        _ => text,
    });
    check(
        odd,
        &["it imports `taskwright:plugin/gpu@0.1.0`, which this host does not have"],
    )
    .await;
}

#[tokio::test]
async fn a_runtime_without_a_function_that_we_call_is_refused() {
    check(
        replaced("runtime.wit", "  probe: func()", "  feel: func()"),
        &["its `taskwright:plugin/runtime@0.1.0` lacks the function `probe`"],
    )
    .await;
}

#[tokio::test]
async fn one_more_field_is_named_with_its_place() {
    check(
        replaced(
            "types.wit",
            "    argv: list<string>,",
            "    argv: list<string>,\n    nice: u32,",
        ),
        &[
            "`taskwright:plugin/process@0.1.0#spawn` does not fit",
            "`nice` in the plugin only",
        ],
    )
    .await;
    check(
        replaced("types.wit", "    attempt: u32,", "    attempt: u64,"),
        &["field `attempt` is u32 here, u64 in the plugin"],
    )
    .await;
}

#[tokio::test]
async fn a_component_that_is_no_plugin_is_told_what_one_is() {
    let none = component(|name, text| match name {
        "world.wit" => text
            .replace("  @since(version = 0.1.0)\n  import log;\n", "")
            .replace("  export runtime;", "  export log;"),
        _ => text,
    });
    check(
        none,
        &["none of which this host calls; a runtime exports `taskwright:plugin/runtime`"],
    )
    .await;
}

#[tokio::test]
async fn an_async_function_is_refused_as_such() {
    let said = inspect(
        replaced("process.wit", "  spawn: func(", "  spawn: async func(").into(),
        "odd",
        &Grants::of(&Capability::ALL),
    )
    .await;
    match said {
        Ok(found) => {
            let words: Vec<String> = found.refusals.iter().map(ToString::to_string).collect();
            assert!(
                words.iter().any(|word| word.contains("is an async func")),
                "{words:?}"
            );
        }
        Err(LoadFault::NotAComponent { detail }) => panic!("{detail}"),
        Err(other) => panic!("{other}"),
    }
}
