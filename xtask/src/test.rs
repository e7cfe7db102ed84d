//! `cargo xtask test`: everything that CI runs, in the order in which it fails fastest.

use std::process::Command;

use anyhow::{Result, bail};

use taskwright_test_containerd::environment;

use crate::check;
use crate::containerd::ForTests;
use crate::languages::{self, Languages};
use crate::programs;
use crate::shell::{cargo, step};

/// The plugins that have tests which run natively. Guests that misbehave can only be components.
const NATIVE_TESTS: [&str; 12] = [
    "test",
    "--locked",
    "--package",
    "taskwright-plugin-sdk",
    "--package",
    "taskwright-plugin-process",
    "--package",
    "taskwright-plugin-sidecar",
    "--package",
    "taskwright-plugin-container",
    "--package",
    "taskwright-plugin-script",
];

/// Check, the daemon, then every test.
pub(crate) fn test(words: &[String]) -> Result<()> {
    let quick = match words {
        [] => false,
        [word] if word == "--quick" => true,
        _ => bail!("usage: cargo xtask test [--quick]"),
    };
    check::check()?;
    // The end-to-end suite runs the real binary. With the features of the whole workspace, as the
    // tests below: otherwise Wasmtime would be compiled twice.
    step(
        "build the daemon",
        &mut cargo(&["build", "--workspace", "--bin", "taskwright", "--locked"]),
    )?;
    step(
        "tests of the plugins",
        &mut check::in_plugins(&NATIVE_TESTS),
    )?;
    let mut words = vec!["test", "--workspace", "--locked"];
    if quick {
        words.extend(["--exclude", "taskwright-tests"]);
        return step("tests", &mut cargo(&words));
    }
    postgres()?;
    namespaces()?;
    let languages = Languages::make()?;
    // As late as possible: nothing before needs it, and most failures come before.
    let containerd = ForTests::start()?;
    let mut command = cargo(&words);
    let told = languages.tell_to(containerd.tell(&mut command));
    let tests = programs::tell(told).and_then(|all| step("tests", all));
    // The tests' own failure is told first.
    let stopped = containerd.stop();
    // At the end, where it is seen.
    languages.tell();
    tests.and(stopped)
}

/// Tests of the queue start a PostgreSQL server of their own, of the distribution's programs.
fn postgres() -> Result<()> {
    if taskwright_test_postgres::programs().is_some() {
        return Ok(());
    }
    if environment::is_ci() {
        return languages::install(&["postgresql"]);
    }
    eprintln!("    tests with PostgreSQL will be skipped: apt-get install postgresql");
    Ok(())
}

/// Tests of several daemons put each into a network namespace of its own.
fn namespaces() -> Result<()> {
    let asked = Command::new("ip").arg("-V").output();
    if asked.is_ok_and(|answer| answer.status.success()) {
        return Ok(());
    }
    if environment::is_ci() {
        return languages::install(&["iproute2"]);
    }
    eprintln!("    tests with network namespaces will be skipped: apt-get install iproute2");
    Ok(())
}
