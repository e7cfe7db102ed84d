//! `cargo xtask`: the one tool of the workshop.
//!
//! | verb | does |
//! |---|---|
//! | `run` | builds the daemon, starts it, runs a first task to its end |
//! | `test` | everything CI runs: `check`, then every test |
//! | `check` | format, lints, imports, house rules, documentation; no tests |
//! | `openapi` | writes the OpenAPI document anew |
//! | `containerd` | starts and stops a private containerd for container tasks |
//! | `programs` | unpacks the programs that tests start: a registry, bubblewrap |
//! | `languages` | makes the toolchains by which plugins in other languages are tested |
//! | `bench` | measures and compares with a baseline |

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line tool speaks to a person"
)]

mod bench;
mod check;
mod containerd;
mod imports;
mod languages;
mod programs;
mod rules;
mod run;
mod shell;
mod test;

use std::process::ExitCode;

const USAGE: &str =
    "usage: cargo xtask <run|test|check|openapi|containerd|programs|languages|bench> [options]

  run [--data-dir DIR]   build the daemon, start it, run a first task to its end
  test [--quick]         check, then every test; --quick leaves out the end-to-end suite
  check                  format, lints, imports, house rules, documentation
  openapi                write host/api/openapi/openapi.json anew
  containerd VERB        start, status, stop, wipe: a private containerd for container tasks
  programs               unpack the programs that tests start: a registry, bubblewrap
  languages              make the toolchains of the tests of plugins in other languages
  bench [options]        measure; --help lists the options";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (verb, rest) = match words.split_first() {
        Some((verb, rest)) => (verb.as_str(), rest),
        None => ("help", &[][..]),
    };
    let done = match verb {
        "run" => run::run(rest),
        "test" => test::test(rest),
        "check" => check::check(),
        "openapi" => check::write_openapi(),
        "containerd" => containerd::containerd(rest),
        "programs" => programs::programs(rest),
        "languages" => languages::languages(rest),
        "bench" => bench::bench(rest),
        "help" | "--help" | "-h" => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        other => {
            eprintln!("error: there is no verb {other:?}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
