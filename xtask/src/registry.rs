//! `cargo xtask registry`: the registry program for the tests of packaging. Each of those tests
//! starts one of its own; here it is only unpacked, by `xtask/containerd`.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use taskwright_test_containerd::{docker_registry, environment};

use crate::shell::target_dir;

/// Unpacks it and says where it is.
pub(crate) fn registry(words: &[String]) -> Result<()> {
    if !words.is_empty() {
        bail!("usage: cargo xtask registry");
    }
    println!("{}", program()?.display());
    Ok(())
}

fn program() -> Result<PathBuf> {
    let folder = std::path::absolute(target_dir())?.join(docker_registry::FOLDER);
    docker_registry::ensure(&folder)
}

/// Tells a command that runs tests where it is. Where it cannot be had, tests say why they are
/// skipped; in CI it is an error.
pub(crate) fn tell(command: &mut Command) -> Result<&mut Command> {
    command.env_remove(docker_registry::NONE);
    Ok(match program() {
        Ok(program) => command.env(docker_registry::VARIABLE, program),
        Err(error) if environment::is_ci() => {
            return Err(error).context("in CI no test may be skipped, and some need a registry");
        }
        Err(error) => {
            eprintln!("    tests with a real registry will be skipped: {error:#}");
            let reason = format!("{error:#}").replace('\n', "; ");
            command.env(docker_registry::NONE, reason)
        }
    })
}
