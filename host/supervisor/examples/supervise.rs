//! The hidden verb alone, for the tests of this crate: the product's binary does the same.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    if arguments
        .next()
        .is_none_or(|verb| verb != taskwright_supervisor::options::VERB)
    {
        return ExitCode::from(2);
    }
    taskwright_supervisor::supervise(arguments)
}
