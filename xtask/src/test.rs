//! `cargo xtask test`: everything that CI runs, in the order in which it fails fastest.

use anyhow::{Result, bail};

use crate::check;
use crate::shell::{cargo, step};

/// Check, the daemon, then every test.
pub(crate) fn test(words: &[String]) -> Result<()> {
    let quick = match words {
        [] => false,
        [word] if word == "--quick" => true,
        _ => bail!("usage: cargo xtask test [--quick]"),
    };
    check::check()?;
    // The end-to-end suite runs the real binary.
    step(
        "build the daemon",
        &mut cargo(&["build", "--package", "taskwright", "--locked"]),
    )?;
    step(
        "tests of the plugins",
        &mut check::in_plugins(&["test", "--locked", "--package", "taskwright-plugin-process"]),
    )?;
    let mut words = vec!["test", "--workspace", "--locked"];
    if quick {
        words.extend(["--exclude", "taskwright-tests"]);
    }
    step("tests", &mut cargo(&words))
}
