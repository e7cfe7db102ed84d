//! `cargo xtask check`: everything that can be judged without running the product.

use std::process::Command;

use anyhow::Result;

use crate::shell::{cargo, root, step, target_dir};
use crate::{imports, rules};

/// Projects in Rust that stand alone, as those of others do. The first is what `taskwright plugin
/// new` writes.
const EXAMPLES: [&str; 3] = ["examples/hello", "examples/gatekeeper", "examples/webhook"];

/// Format, lints, imports, house rules, documentation.
pub(crate) fn check() -> Result<()> {
    step("format", &mut cargo(&["fmt", "--all", "--check"]))?;
    step(
        "format of the plugins",
        &mut in_plugins(&["fmt", "--all", "--check"]),
    )?;
    for example in EXAMPLES {
        step(
            &format!("format of {example}"),
            &mut beside_the_house(example, &["fmt", "--check"]),
        )?;
    }
    imports::check()?;
    rules::check()?;
    let lints = [
        "clippy",
        "--workspace",
        "--all-targets",
        "--locked",
        "--",
        "-D",
        "warnings",
    ];
    step("lints", &mut cargo(&lints))?;
    // For their own target: some of what guests do exists nowhere else.
    let lints = [
        "clippy",
        "--locked",
        "--target",
        "wasm32-wasip2",
        "--",
        "-D",
        "warnings",
    ];
    step("lints of the plugins", &mut in_plugins(&lints))?;
    for example in EXAMPLES {
        step(
            &format!("lints of {example}"),
            &mut beside_the_house(example, &lints),
        )?;
    }
    let mut docs = cargo(&["doc", "--workspace", "--no-deps", "--locked"]);
    step("documentation", docs.env("RUSTDOCFLAGS", "-D warnings"))
}

/// Writes the OpenAPI document as the code describes it.
pub(crate) fn write_openapi() -> Result<()> {
    let mut test = cargo(&["test", "--package", "taskwright-api", "openapi"]);
    step(
        "write the OpenAPI document",
        test.env("TASKWRIGHT_UPDATE_OPENAPI", "1"),
    )
}

/// A cargo command in the workspace of the plugins, which builds beside the house.
pub(crate) fn in_plugins(words: &[&str]) -> Command {
    beside_the_house("plugins", words)
}

fn beside_the_house(folder: &str, words: &[&str]) -> Command {
    let mut command = cargo(words);
    command
        .current_dir(root().join(folder))
        .env("CARGO_TARGET_DIR", target_dir().join("plugins"));
    command
}
