//! The table `[grants]` of `NAME.toml`.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use anyhow::{Context as _, anyhow, bail, ensure};
use serde::Deserialize;
use taskwright_capability::grant::http::{HttpGrant, Scheme};
use taskwright_capability::grant::terms::ProcessTerms;
use taskwright_capability::{Capability, Directory, Grants, Secret, SecretSource};
use taskwright_model::User;

use crate::units::parse_bytes;

const MOST_PROGRAMS: usize = 256;
const MOST_DIRECTORIES: usize = 64;
const MOST_SECRETS: usize = 64;
const MOST_HOSTS: usize = 256;
/// Bytes of a word that a plugin has for something it was lent.
const MOST_WORD_BYTES: usize = 63;

/// Reads it.
///
/// # Errors
/// The first thing that is wrong, with its place.
pub(super) fn read(table: &toml::Table) -> anyhow::Result<Grants> {
    let mut grants = Grants::default();
    for (word, value) in table {
        let capability = Capability::ALL
            .into_iter()
            .find(|capability| capability.as_str() == word);
        let Some(capability) = capability else {
            let all = Capability::ALL.map(Capability::as_str).join(", ");
            bail!("grants.{word}: there is no such grant; there are {all}");
        };
        let lent = grant(&mut grants, capability, value).with_context(|| format!("grants.{word}"));
        if lent? {
            grants.capabilities.insert(capability);
        }
    }
    Ok(grants)
}

/// Whether a capability is lent.
fn grant(grants: &mut Grants, capability: Capability, value: &toml::Value) -> anyhow::Result<bool> {
    match (capability, value) {
        (_, toml::Value::Boolean(false)) => return Ok(false),
        (Capability::Process, toml::Value::Boolean(true)) => {}
        (Capability::Process, toml::Value::Table(_)) => {
            let process: Process = value.clone().try_into()?;
            grants.programs = process.programs.clone().map(programs).transpose()?;
            grants.process = terms(&process)?;
        }
        (Capability::Process, _) => {
            bail!(
                "true, false or {{ programs = [\"/PATH\"], user = \"UID:GID\", memory = \"512MiB\" }}"
            )
        }
        (Capability::Directories, toml::Value::Table(table)) => {
            grants.directories = directories(table)?;
        }
        (Capability::Directories, _) => {
            bail!("{{ NAME = {{ path = \"/PATH\", write = false }} }} or false")
        }
        (Capability::Http, toml::Value::Table(_)) => grants.http = http(value.clone())?,
        (Capability::Http, _) => {
            bail!("{{ hosts = [\"api.example.org\"], schemes = [\"https\"] }} or false")
        }
        (Capability::Secrets, _) => {
            bail!(
                "secrets are lent in a table of their own: [secrets] with NAME = {{ file = \"/PATH\" }}"
            )
        }
        (_, toml::Value::Boolean(true)) => {}
        _ => bail!("true or false"),
    }
    Ok(true)
}

/// `process = { .. }`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Process {
    programs: Option<Vec<String>>,
    user: Option<String>,
    memory: Option<String>,
    cpu: Option<String>,
    pids: Option<u32>,
}

fn terms(process: &Process) -> anyhow::Result<ProcessTerms> {
    let memory = process.memory.as_deref().map(parse_bytes).transpose();
    let memory_bytes = memory.map_err(|why| anyhow!("memory: {why}"))?;
    ensure!(memory_bytes != Some(0), "memory: more than 0");
    ensure!(process.pids != Some(0), "pids: more than 0");
    let user = process.user.as_deref().map(user).transpose()?;
    Ok(ProcessTerms {
        user,
        memory_bytes,
        cpu_millis: process.cpu.as_deref().map(millis).transpose()?,
        pids: process.pids,
    })
}

/// `UID:GID`, in numbers: names are another machine's business.
fn user(text: &str) -> anyhow::Result<User> {
    let wrong = || anyhow!("user: {text:?} is none: UID:GID is wanted, as \"1000:1000\"");
    let (uid, gid) = text.split_once(':').ok_or_else(wrong)?;
    let number = |text: &str| text.parse().ok().filter(|id| *id != u32::MAX);
    Ok(User {
        uid: number(uid).ok_or_else(wrong)?,
        gid: number(gid).ok_or_else(wrong)?,
        groups: Vec::new(),
    })
}

/// Cores: `2`, or thousandths of one: `500m`.
fn millis(text: &str) -> anyhow::Result<u32> {
    let wrong = || {
        anyhow!(
            "cpu: {text:?} is none: thousandths of a core are wanted as \"500m\", cores as \"2\""
        )
    };
    let read = match text.strip_suffix('m') {
        Some(millis) => millis.parse().ok(),
        None => text
            .parse()
            .ok()
            .and_then(|cores: u32| cores.checked_mul(1000)),
    };
    read.filter(|millis| *millis > 0).ok_or_else(wrong)
}

/// `http = { .. }`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Http {
    hosts: Vec<String>,
    schemes: Option<Vec<String>>,
    #[serde(default)]
    private: bool,
}

fn http(value: toml::Value) -> anyhow::Result<HttpGrant> {
    let read: Http = value.try_into()?;
    ensure!(
        read.hosts.len() <= MOST_HOSTS,
        "hosts: at most {MOST_HOSTS}"
    );
    let hosts = read.hosts.iter().map(|host| host.parse());
    let schemes = read.schemes.unwrap_or_else(|| vec!["https".to_owned()]);
    let schemes = schemes.iter().map(|word| {
        let scheme = Scheme::parse(word);
        scheme.ok_or_else(|| anyhow!("schemes: {word:?} is none; there are http and https"))
    });
    Ok(HttpGrant {
        hosts: hosts.collect::<Result<_, _>>().context("hosts")?,
        schemes: schemes.collect::<anyhow::Result<_>>()?,
        private: read.private,
    })
}

/// One of `[secrets]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OneSecret {
    file: Option<PathBuf>,
    env: Option<String>,
}

/// Reads the table `[secrets]`. A file is not read here, a variable is.
///
/// # Errors
/// The first thing that is wrong, with its place.
pub(super) fn secrets(table: &toml::Table) -> anyhow::Result<BTreeMap<String, SecretSource>> {
    ensure!(
        table.len() <= MOST_SECRETS,
        "secrets: at most {MOST_SECRETS}"
    );
    let read = |(name, value): (&String, &toml::Value)| {
        let source = check_word(name).and_then(|()| secret(value));
        Ok((
            name.clone(),
            source.with_context(|| format!("secrets.{name}"))?,
        ))
    };
    table.iter().map(read).collect()
}

fn secret(value: &toml::Value) -> anyhow::Result<SecretSource> {
    // What stands there may be the value itself, by mistake: it is not told.
    let wrong =
        || anyhow!("{{ file = \"/PATH\" }} or {{ env = \"NAME\" }}: where it is, not what it is");
    let read: OneSecret = value.clone().try_into().map_err(|_| wrong())?;
    match (read.file, read.env) {
        (Some(path), None) if path.is_absolute() => Ok(SecretSource::File(path)),
        (Some(_), None) => bail!("file: an absolute path is wanted"),
        (None, Some(name)) if !name.is_empty() && !name.contains(['=', '\0']) => {
            let value = std::env::var_os(&name).map(OsStringExt::into_vec);
            let value = value.map(Secret::new);
            Ok(SecretSource::Variable { name, value })
        }
        _ => Err(wrong()),
    }
}

fn programs(list: Vec<String>) -> anyhow::Result<BTreeSet<String>> {
    ensure!(
        list.len() <= MOST_PROGRAMS,
        "programs: at most {MOST_PROGRAMS}"
    );
    let relative = list.iter().find(|path| !path.starts_with('/'));
    if let Some(path) = relative {
        bail!("programs: {path:?} is no absolute path");
    }
    Ok(list.into_iter().collect())
}

/// One of `directories = { .. }`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OneDirectory {
    path: PathBuf,
    #[serde(default)]
    write: bool,
}

fn directories(table: &toml::Table) -> anyhow::Result<BTreeMap<String, Directory>> {
    ensure!(
        table.len() <= MOST_DIRECTORIES,
        "at most {MOST_DIRECTORIES}"
    );
    let read = |(name, value): (&String, &toml::Value)| {
        check_word(name)?;
        let one: OneDirectory = value.clone().try_into().with_context(|| name.clone())?;
        ensure!(
            one.path.is_absolute(),
            "{name}.path: {:?} is no absolute path",
            one.path
        );
        let directory = Directory {
            path: one.path,
            write: one.write,
        };
        Ok((name.clone(), directory))
    };
    table.iter().map(read).collect()
}

/// A word that stands in messages and in a plugin's code.
fn check_word(word: &str) -> anyhow::Result<()> {
    let fits = (1..=MOST_WORD_BYTES).contains(&word.len())
        && word.bytes().all(|byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte)
        });
    if fits {
        return Ok(());
    }
    Err(anyhow!(
        "{word:?} is no name: 1 to {MOST_WORD_BYTES} of a-z, 0-9, -, _ and . are wanted"
    ))
}

#[cfg(test)]
mod tests {
    //! What an operator may write, and what is said of a slip of the pen.
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    fn parse(line: &str) -> anyhow::Result<Grants> {
        read(&toml::from_str(line).unwrap())
    }

    #[track_caller]
    fn refused(line: &str, place: &str) {
        let error = format!("{:#}", parse(line).unwrap_err());
        assert!(error.contains(place), "{line}: {error}");
    }

    #[test]
    fn directories_are_lent_by_name_and_for_reading_unless_it_says_otherwise() {
        let grants = parse(
            r#"directories = { models = { path = "/srv/models" }, out = { path = "/o", write = true } }"#,
        )
        .unwrap();
        assert!(grants.allows(Capability::Directories));
        let lent: Vec<_> = grants
            .directories
            .iter()
            .map(|(name, one)| (name.as_str(), one.path.to_str().unwrap(), one.write))
            .collect();
        assert_eq!(
            lent,
            [("models", "/srv/models", false), ("out", "/o", true)]
        );
        refused("directories = true", "grants.directories: { NAME =");
        refused("directories = { a = \"/x\" }", "grants.directories: a");
        refused("directories = { a = { path = \"x\" } }", "a.path: \"x\"");
        refused("directories = { a = { path = \"/x\", mode = 1 } }", "mode");
        refused("directories = { A = { path = \"/x\" } }", "no name");
    }

    #[test]
    fn processes_are_started_on_terms() {
        let line =
            "process = { user = \"1000:100\", memory = \"512MiB\", cpu = \"500m\", pids = 64 }";
        let terms = parse(line).unwrap().process;
        let user = terms.user.unwrap();
        assert_eq!((user.uid, user.gid, user.groups), (1000, 100, vec![]));
        assert_eq!(terms.memory_bytes, Some(512 << 20));
        assert_eq!((terms.cpu_millis, terms.pids), (Some(500), Some(64)));
        refused("process = { user = \"root\" }", "user: \"root\"");
        refused("process = { user = \"1:4294967295\" }", "UID:GID");
        refused("process = { cpu = \"0m\" }", "cpu: \"0m\"");
        refused("process = { cpu = \"half\" }", "500m");
        refused("process = { memory = \"0\" }", "memory: more than 0");
        refused("process = { pids = 0 }", "pids: more than 0");
    }

    #[test]
    fn hosts_are_listed_with_how_they_may_be_asked() {
        let http = |line| parse(line).unwrap().http;
        let grant = http("http = { hosts = [\"api.example.org\", \"*.a:8443\"] }");
        assert_eq!((grant.hosts.len(), grant.private), (2, false));
        assert_eq!(grant.schemes, [Scheme::Https].into());
        let grant = http("http = { hosts = [\"[::1]:80\"], schemes = [\"http\"], private = true }");
        assert!(grant.private && grant.schemes.contains(&Scheme::Http));
        refused("http = true", "grants.http: { hosts");
        refused(
            "http = { hosts = [\"https://a\"] }",
            "\"https://a\" is no host",
        );
        refused("http = { hosts = [], schemes = [\"ftp\"] }", "\"ftp\"");
        refused("http = { host = \"a\" }", "unknown field `host`");
        refused("secrets = true", "a table of their own");
    }

    #[test]
    fn secrets_are_lent_by_reference_and_never_told() {
        let read = |line: &str| secrets(&toml::from_str(line).unwrap());
        let found = read("api-key = { file = \"/etc/key\" }").unwrap();
        assert_eq!(
            found.get("api-key"),
            Some(&SecretSource::File("/etc/key".into()))
        );
        let found = read("a = { env = \"SURELY_NOT_SET_7\" }").unwrap();
        let name = "SURELY_NOT_SET_7".to_owned();
        let absent = SecretSource::Variable { name, value: None };
        assert_eq!(found.get("a"), Some(&absent));
        for line in [
            "a = \"hunter2\"",
            "a = { value = \"hunter2\" }",
            "a = { file = \"hunter2\" }",
            "a = { file = \"/a\", env = \"hunter2\" }",
            "a = { env = \"hunter2=\" }",
            "a = { }",
        ] {
            let told = format!("{:#}", read(line).unwrap_err());
            assert!(
                told.contains("secrets.a") && !told.contains("hunter2"),
                "{told}"
            );
        }
    }

    #[test]
    fn programs_are_absolute() {
        let grants = parse("process = { programs = [\"/bin/sh\"] }").unwrap();
        assert!(grants.allows_program("/bin/sh") && !grants.allows_program("/bin/ls"));
        assert!(parse("process = { }").unwrap().allows_program("/bin/ls"));
        refused("process = { programs = [\"sh\"] }", "absolute");
        refused("process = { users = [] }", "grants.process: unknown field");
        refused("proces = true", "grants.proces: there is no such grant");
    }
}
