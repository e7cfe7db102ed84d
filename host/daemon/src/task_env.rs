//! The environment that tasks begin with: an allow-list, never the daemon's own.

use std::ffi::{OsStr, OsString};

use crate::env::PREFIX;

/// What every task inherits where the daemon has it.
const ALLOWED: [&str; 8] = [
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "TZ", "TMPDIR",
];
/// And everything that begins with this: the parts of the locale.
const ALLOWED_PREFIX: &str = "LC_";
/// Where programs are looked for when the daemon itself has no `PATH`.
const FALLBACK_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The base environment of tasks: what is allowed of `own`, and what the operator
/// `configured`, as `NAME` to inherit or `NAME=VALUE` to give.
///
/// What begins with `TASKWRIGHT_` is never passed on, not even by configuration: tokens
/// are kept there. Values that are not UTF-8 are left out: a task's environment is text.
pub(crate) fn base(
    own: impl IntoIterator<Item = (OsString, OsString)>,
    configured: &[String],
) -> Vec<(String, String)> {
    let inherited: Vec<&str> = configured
        .iter()
        .filter(|word| !word.contains('='))
        .map(String::as_str)
        .collect();
    let given = configured.iter().filter_map(|word| word.split_once('='));
    let mut variables: Vec<(String, String)> = own
        .into_iter()
        .filter(|(name, _)| is_allowed(name, &inherited))
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    for (name, value) in given.filter(|(name, _)| !name.starts_with(PREFIX)) {
        variables.retain(|(present, _)| present != name);
        variables.push((name.to_owned(), value.to_owned()));
    }
    if !variables.iter().any(|(name, _)| name == "PATH") {
        variables.push(("PATH".to_owned(), FALLBACK_PATH.to_owned()));
    }
    variables.sort();
    variables
}

fn is_allowed(name: &OsStr, inherited: &[&str]) -> bool {
    let Some(name) = name.to_str() else {
        return false;
    };
    let wanted =
        ALLOWED.contains(&name) || name.starts_with(ALLOWED_PREFIX) || inherited.contains(&name);
    wanted && !name.starts_with(PREFIX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(own: &[(&str, &str)], configured: &[&str], expected: &[(&str, &str)]) {
        let own = own.iter().map(|(name, value)| (name.into(), value.into()));
        let configured: Vec<String> = configured.iter().map(|word| (*word).to_owned()).collect();
        let got = base(own, &configured);
        let got: Vec<_> = got
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        assert_eq!(got, expected);
    }

    #[test]
    fn secrets_of_the_daemon_stay_with_the_daemon() {
        check(
            &[
                ("PATH", "/bin"),
                ("LC_ALL", "C"),
                ("AWS_SECRET_ACCESS_KEY", "x"),
                ("TASKWRIGHT_TOKEN", "x"),
                ("NOTIFY_SOCKET", "x"),
            ],
            &["TASKWRIGHT_TOKEN", "TASKWRIGHT_X=1"],
            &[("LC_ALL", "C"), ("PATH", "/bin")],
        );
    }

    #[test]
    fn configured_names_are_inherited_and_values_given() {
        check(
            &[("PATH", "/bin"), ("HTTP_PROXY", "p"), ("CI", "false")],
            &["HTTP_PROXY", "MISSING", "CI=true=yes"],
            &[("CI", "true=yes"), ("HTTP_PROXY", "p"), ("PATH", "/bin")],
        );
    }

    #[test]
    fn there_is_always_a_path() {
        check(&[], &[], &[("PATH", FALLBACK_PATH)]);
    }
}
