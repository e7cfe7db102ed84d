//! What a failed call means to whoever asked for it.
//!
//! Runtimes say most things as `Unknown` with words, so words are looked at: those of runc and
//! crun as containerd passes them on. They may hold a whole command, so what is passed on is cut.

use taskwright_capability::{ContainerError, StopError};
use tonic::Code;

use crate::rpc::RpcError;

/// What is passed on of a runtime's words, in bytes. The beginning says what was tried, the end why
/// it failed; what a task put between them may be long.
const MOST_WORDS: usize = 1024;
const MOST_LAST_WORDS: usize = 384;
const LEFT_OUT: &str = " … ";

/// A runtime's words at a length for people, cut at characters.
pub(crate) fn brief(words: &str) -> String {
    if words.len() <= MOST_WORDS {
        return words.to_owned();
    }
    let first = words.floor_char_boundary(MOST_WORDS - MOST_LAST_WORDS - LEFT_OUT.len());
    let last = words.ceil_char_boundary(words.len() - MOST_LAST_WORDS);
    let (first, last) = (words.get(..first), words.get(last..));
    [
        first.unwrap_or_default(),
        LEFT_OUT,
        last.unwrap_or_default(),
    ]
    .concat()
}

/// What is refused before the runtime is asked.
pub(crate) fn refused(detail: &str) -> ContainerError {
    ContainerError::Refused {
        detail: detail.to_owned(),
    }
}

/// A call that has no reason of its own to fail.
pub(crate) fn general(error: RpcError) -> ContainerError {
    match error {
        RpcError::Unreachable(detail) => ContainerError::Unavailable { detail },
        RpcError::Overdue(after) => ContainerError::Overdue(after),
        RpcError::Said { code, words } => match code {
            Code::NotFound => ContainerError::NotRunning {
                detail: brief(&words),
            },
            Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::PermissionDenied
            | Code::Unimplemented => ContainerError::Refused {
                detail: brief(&words),
            },
            _ => ContainerError::Unavailable {
                detail: brief(&words),
            },
        },
    }
}

/// An order about something that exists, or existed.
pub(crate) fn order(error: &RpcError) -> StopError {
    StopError::Unavailable {
        detail: brief(&error.words()),
    }
}

/// A sandbox that the runtime did not make. Mostly its network could not be set up, which is no
/// fault of the request.
pub(crate) fn making_sandbox(error: RpcError) -> ContainerError {
    match error {
        RpcError::Said { words, .. } if words.contains("no runtime for") => {
            ContainerError::Refused {
                detail: brief(&words),
            }
        }
        other => general(other),
    }
}

/// A container that the runtime did not make.
pub(crate) fn making(error: RpcError, image: &str, user: Option<&str>) -> ContainerError {
    match error {
        RpcError::Said { code, words } => {
            if is_lost_sandbox(&words) {
                return ContainerError::SandboxLost {
                    detail: brief(&words),
                };
            }
            if words.contains("no space left") {
                return ContainerError::Unavailable {
                    detail: brief(&words),
                };
            }
            if code == Code::NotFound && words.contains("image") {
                return ContainerError::ImageUnavailable {
                    image: image.to_owned(),
                    detail: brief(&words),
                };
            }
            // Of containerd, which does not say whom it looked for, and of CRI-O.
            let no_user = ["no users found", "unable to find user"];
            if let Some(user) = user
                && no_user.iter().any(|text| words.contains(text))
            {
                let detail = format!("its image knows no user {user:?}: {}", brief(&words));
                return ContainerError::Refused { detail };
            }
            ContainerError::Refused {
                detail: brief(&words),
            }
        }
        other => general(other),
    }
}

/// A pull that failed.
pub(crate) fn pulling(error: RpcError, image: &str) -> ContainerError {
    match error {
        RpcError::Unreachable(detail) => ContainerError::Unavailable { detail },
        other => ContainerError::ImageUnavailable {
            image: image.to_owned(),
            detail: brief(&other.words()),
        },
    }
}

/// A program that was not started, in a container's first process or beside it.
pub(crate) fn starting(words: &str) -> ContainerError {
    let detail = brief(words);
    if is_lost_sandbox(words) {
        return ContainerError::SandboxLost { detail };
    }
    let lower = words.to_lowercase();
    let says = |texts: &[&str]| texts.iter().any(|text| lower.contains(text));
    // containerd gives a start up when its caller is gone: that is the daemon's end.
    if says(&["context canceled", "deadline exceeded"])
        || (says(&["start shim"]) && says(&["signal: killed"]))
    {
        return match says(&["failed to create containerd task"]) {
            true => ContainerError::NeverBegun { detail },
            false => ContainerError::PerhapsBegun { detail },
        };
    }
    if says(&["chdir to cwd", "chdir to `"]) {
        return ContainerError::NotExecutable { detail };
    }
    // Mounts fail with the same words of the kernel: only those about the program count.
    let of_the_program = says(&[
        "exec: \"",
        "executable file",
        "exec user process",
        "open executable",
        "find executable",
        "exec /",
        "exec failed",
    ]);
    if of_the_program && says(&["not found", "no such file"]) {
        return ContainerError::NotFound { detail };
    }
    if of_the_program
        && says(&[
            "permission denied",
            "exec format error",
            "is a directory",
            "not a directory",
            "too many levels",
            "operation not permitted",
        ])
    {
        return ContainerError::NotExecutable { detail };
    }
    ContainerError::Refused { detail }
}

fn is_lost_sandbox(words: &str) -> bool {
    words.contains("sandbox") && (words.contains("not running") || words.contains("not ready"))
}

/// Whether words say that the container a command was for does not run.
pub(crate) fn is_not_running(words: &str) -> bool {
    words.contains("is in CONTAINER_") || words.contains("not running") || words.contains("stopped")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::panic, reason = "a test that cannot go on has failed")]

    use std::time::Duration;

    use super::*;

    fn check(words: &str, expected: fn(String) -> ContainerError) {
        assert_eq!(starting(words), expected(words.to_owned()), "{words}");
    }

    #[test]
    fn words_of_runtimes_are_told_apart() {
        let not_found = |detail| ContainerError::NotFound { detail };
        let not_executable = |detail| ContainerError::NotExecutable { detail };
        let refused = |detail| ContainerError::Refused { detail };
        let lost = |detail| ContainerError::SandboxLost { detail };
        check(
            "runc create failed: unable to start container process: exec: \"nope\": executable \
             file not found in $PATH: unknown",
            not_found,
        );
        check(
            "unable to start container process: exec: \"/nope\": stat /nope: no such file or \
             directory: unknown",
            not_found,
        );
        check(
            "crun: executable file `nope` not found in $PATH: No such file",
            not_found,
        );
        check(
            "exec: \"/etc/passwd\": permission denied: unknown",
            not_executable,
        );
        check(
            "chdir to cwd (\"/root\") set in config.json failed: permission denied",
            not_executable,
        );
        check(
            "error mounting \"/a\" to rootfs at \"/b\": no such file or directory",
            refused,
        );
        check("sandbox container \"x\" is not running", lost);
        let never_begun = |detail| ContainerError::NeverBegun { detail };
        check(
            "failed to create containerd task: failed to start shim: start failed: context canceled",
            never_begun,
        );
        check(
            "failed to create containerd task: failed to start shim: start failed: : signal: \
             killed: unknown",
            never_begun,
        );
        let perhaps_begun = |detail| ContainerError::PerhapsBegun { detail };
        check(
            "failed to start containerd task \"x\": context canceled",
            perhaps_begun,
        );
    }

    #[test]
    fn words_that_hold_a_whole_command_are_cut_and_still_understood() {
        let words = format!(
            "exec: \"{}\": executable file not found in $PATH",
            "ä".repeat(9_000)
        );
        let ContainerError::NotFound { detail } = starting(&words) else {
            panic!("what is cut out says nothing of the failure");
        };
        assert!(
            (1000..=MOST_WORDS).contains(&detail.len()),
            "{}",
            detail.len()
        );
        assert!(detail.starts_with("exec: \"ä"), "{detail}");
        assert!(
            detail.ends_with("ä\": executable file not found in $PATH"),
            "{detail}"
        );
        assert!(detail.contains("ä … ä"), "{detail}");
        let fitting = "x".repeat(MOST_WORDS);
        assert_eq!(brief(&fitting), fitting);
        let said = RpcError::Said {
            code: Code::Unknown,
            words,
        };
        for error in [
            general(said.clone()),
            making(said.clone(), "a", None),
            making_sandbox(said.clone()),
            pulling(said, "a"),
        ] {
            let sentence = error.to_string();
            assert!(sentence.len() < MOST_WORDS + 100, "{sentence}");
        }
    }

    #[test]
    fn an_unreachable_runtime_is_nobodys_fault_but_its_own() {
        let gone = || RpcError::Unreachable("gone".to_owned());
        let unavailable = ContainerError::Unavailable {
            detail: "gone".to_owned(),
        };
        assert_eq!(general(gone()), unavailable);
        assert_eq!(pulling(gone(), "a"), unavailable);
        assert_eq!(making(gone(), "a", None), unavailable);
        let overdue = Duration::from_secs(1);
        assert_eq!(
            general(RpcError::Overdue(overdue)),
            ContainerError::Overdue(overdue)
        );
    }

    #[test]
    fn a_user_that_the_image_lacks_is_named() {
        let said = RpcError::Said {
            code: Code::Unknown,
            words: "mount callback failed: no users found".to_owned(),
        };
        let ContainerError::Refused { detail } = making(said, "a", Some("web")) else {
            panic!("it is the request that is wrong");
        };
        assert!(detail.contains("\"web\""), "{detail}");
    }

    #[test]
    fn a_pull_that_failed_is_about_its_image() {
        let said = RpcError::Said {
            code: Code::Unknown,
            words: "no such host".to_owned(),
        };
        let expected = ContainerError::ImageUnavailable {
            image: "a".to_owned(),
            detail: "no such host".to_owned(),
        };
        assert_eq!(pulling(said, "a"), expected);
    }
}
