//! `cargo xtask programs`: programs of the distribution that tests start, unpacked and not
//! installed, by `xtask/containerd`.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use taskwright_test_containerd::environment;
use taskwright_test_containerd::program::{BUBBLEWRAP, Program, REGISTRY};

use crate::shell::target_dir;

const ALL: [Program; 2] = [REGISTRY, BUBBLEWRAP];

/// Unpacks them and says where they are.
pub(crate) fn programs(words: &[String]) -> Result<()> {
    if !words.is_empty() {
        bail!("usage: cargo xtask programs");
    }
    for program in ALL {
        println!("{}", unpacked(program)?.display());
    }
    Ok(())
}

fn unpacked(program: Program) -> Result<PathBuf> {
    program.ensure(&std::path::absolute(target_dir())?.join(program.folder))
}

/// Tells a command that runs tests where they are. Where one cannot be had, tests say why they
/// are skipped; in CI it is an error.
pub(crate) fn tell(mut command: &mut Command) -> Result<&mut Command> {
    for program in ALL {
        command.env_remove(program.none);
        command = match unpacked(program) {
            Ok(path) => command.env(program.variable, path),
            Err(error) if environment::is_ci() => {
                return Err(error).context("in CI no test may be skipped, and some need a program");
            }
            Err(error) => {
                eprintln!("    tests with a real program will be skipped: {error:#}");
                let reason = format!("{error:#}").replace('\n', "; ");
                command.env(program.none, reason)
            }
        };
    }
    Ok(command)
}
