//! A request as the kernel takes it, and what the kernel says as whoever asked knows it.

use std::collections::HashSet;
use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStringExt as _;
use std::path::Path;

use taskwright_capability::{SpawnError, SpawnRequest};
use taskwright_native::{SpawnFault, spawn};

use super::confining::{Confined, not_enforceable};
use super::inside::{Target, hint};
use crate::unit::mark;

/// Where it starts: with another user or inside another root its own directory, which is
/// owner-only and outside, is no place to be.
fn working_dir(request: &SpawnRequest) -> &Path {
    match &request.working_dir {
        Some(path) => path,
        None if request.inside.is_some() || request.confinement.user.is_some() => Path::new("/"),
        None => &request.directory,
    }
}

/// `base`, then the request's, then the mark; of each name the last one.
fn environment(request: &SpawnRequest, base: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let own = request
        .env
        .iter()
        .map(|(name, value)| format!("{name}={value}").into_bytes());
    let all = base.iter().cloned().chain(own);
    let all: Vec<Vec<u8>> = all.chain([mark(&request.unit).into_bytes()]).collect();
    if base.is_empty() {
        // Whoever asked has seen to it.
        return all;
    }
    let name = |entry: &[u8]| {
        let end = entry.iter().position(|byte| *byte == b'=');
        entry.get(..end.unwrap_or(entry.len())).map(<[u8]>::to_vec)
    };
    let mut seen = HashSet::with_capacity(all.len());
    let mut kept: Vec<Vec<u8>> = all
        .into_iter()
        .rev()
        .filter(|entry| seen.insert(name(entry)))
        .collect();
    kept.reverse();
    kept
}

/// The texts of a request as the kernel takes them.
pub(super) struct Prepared {
    pub(super) argv: Vec<CString>,
    pub(super) env: Vec<CString>,
    pub(super) working_dir: CString,
}

impl Prepared {
    pub(super) fn new(request: &SpawnRequest, target: Option<&Target>) -> Result<Self, SpawnError> {
        let text = |bytes: Vec<u8>| {
            CString::new(bytes).map_err(|_| SpawnError::BadCommand {
                detail: "a text holds a NUL character".to_owned(),
            })
        };
        let argv = request
            .argv
            .iter()
            .map(|argument| text(argument.clone().into_bytes()))
            .collect::<Result<_, _>>()?;
        let base = target.map_or(&[][..], |target| &target.environment);
        let env = environment(request, base)
            .into_iter()
            .map(text)
            .collect::<Result<_, _>>()?;
        let working_dir = working_dir(request).to_owned();
        Ok(Self {
            argv,
            env,
            working_dir: text(working_dir.into_os_string().into_vec())?,
        })
    }
}

pub(super) fn explain(
    fault: SpawnFault,
    request: &SpawnRequest,
    confined: &Confined,
    target: Option<&Target>,
) -> SpawnError {
    let program = || request.argv.first().cloned().unwrap_or_default();
    let gone = || target.and_then(Target::gone);
    match fault {
        SpawnFault::NotFound { looked_at } => SpawnError::NotFound {
            program: program(),
            detail: format!("looked at {looked_at}"),
        },
        SpawnFault::NotExecutable { source } => SpawnError::NotExecutable {
            program: program(),
            detail: source.to_string(),
        },
        SpawnFault::WorkingDirectory { source } => SpawnError::WorkingDirectory {
            path: OsStr::to_string_lossy(working_dir(request).as_os_str()).into_owned(),
            detail: source.to_string(),
        },
        SpawnFault::BadCommand { detail } => SpawnError::BadCommand {
            detail: detail.to_owned(),
        },
        SpawnFault::NoRoom { source } => SpawnError::NoRoom {
            detail: source.to_string(),
        },
        SpawnFault::Restriction {
            restriction,
            step,
            index,
            source,
        } => {
            let path = confined
                .read_only
                .get(index)
                .filter(|_| restriction == spawn::Restriction::ReadOnlyPath);
            let theirs = request.confinement.read_only_paths.get(index);
            if let Some(path) = theirs.filter(|_| path.is_some() && is_missing(&source))
                && !request.confinement.best_effort
            {
                return SpawnError::ReadOnlyPath {
                    path: path.clone(),
                    detail: source.to_string(),
                };
            }
            let detail = match path {
                Some(path) => format!("{}: {source}", path.to_string_lossy()),
                None => format!("cannot {step}: {source}"),
            };
            match confined.failed(restriction, index) {
                Some(restriction) => not_enforceable(restriction, detail),
                None => SpawnError::Unavailable { detail },
            }
        }
        SpawnFault::Enter { step, source } => gone().unwrap_or_else(|| SpawnError::Unavailable {
            detail: format!(
                "cannot {step}: {source}{}",
                hint(&source, "CAP_SYS_ADMIN and CAP_SYS_CHROOT")
            ),
        }),
        SpawnFault::Held { detail } => gone().unwrap_or_else(|| SpawnError::Unavailable {
            detail: detail.to_owned(),
        }),
        SpawnFault::Other { step, source } => SpawnError::Unavailable {
            detail: format!("cannot {step}: {source}"),
        },
    }
}

fn is_missing(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{NotADirectory, NotFound};
    matches!(error.kind(), NotFound | NotADirectory)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use taskwright_capability::Lifetime;
    use taskwright_model::{AttemptNumber, Confinement, TaskId, TaskName, UnitKey, UnitName, User};

    use super::*;

    fn request(env: &[(&str, &str)]) -> SpawnRequest {
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        SpawnRequest {
            unit: UnitKey {
                task: TaskId::from_u128(1),
                attempt: AttemptNumber(1),
                unit: UnitName::parse("main").unwrap(),
            },
            name: TaskName::parse("task").unwrap(),
            directory: "/data/task".into(),
            argv: vec!["true".to_owned()],
            env: env.iter().map(pair).collect(),
            working_dir: None,
            lifetime: Lifetime::LeaveDescendants,
            inside: None,
            confinement: Confinement::default(),
        }
    }

    #[test]
    fn of_each_variable_the_last_one_counts_and_the_mark_is_ours() {
        let request = request(&[("A", "ours"), ("C", "")]);
        let base: Vec<Vec<u8>> = [
            &b"A=theirs"[..],
            b"A=again",
            b"B=\xff\xfe=x",
            b"TASKWRIGHT_UNIT=another",
        ]
        .map(<[u8]>::to_vec)
        .to_vec();
        let mark = mark(&request.unit).into_bytes();
        let expected = [&b"B=\xff\xfe=x"[..], b"A=ours", b"C=", &mark];
        assert_eq!(environment(&request, &base), expected);
        // Without a base nothing is looked at twice.
        assert_eq!(environment(&request, &[]), [&b"A=ours"[..], b"C=", &mark]);
    }

    #[test]
    fn a_unit_starts_where_it_may_be() {
        let mut request = request(&[]);
        assert_eq!(working_dir(&request), Path::new("/data/task"));
        request.confinement.user = Some(User {
            uid: 1,
            gid: 1,
            groups: Vec::new(),
        });
        assert_eq!(working_dir(&request), Path::new("/"));
        request.working_dir = Some("/there".into());
        assert_eq!(working_dir(&request), Path::new("/there"));
    }
}
