//! Addresses of servers, as libpq writes them: `postgres://USER:PASSWORD@HOST:PORT/DATABASE?...`.
//!
//! The client library knows the parameters but those of TLS beyond `require`; these are
//! taken out before it reads the rest. A password is in no message.

use std::borrow::Cow;
use std::path::PathBuf;

use percent_encoding::percent_decode_str;
use tokio_postgres::config::{Config, Host, SslMode};

use super::tls::{Checked, Roots, TlsSettings};

/// An address that was read.
#[derive(Debug)]
pub(super) struct Address {
    pub(super) config: Config,
    pub(super) tls: TlsSettings,
}

/// Reads an address.
pub(super) fn read(address: &str) -> Result<Address, String> {
    let (before, query) = split(address);
    // Otherwise a part of a password would count as the host, and be told as such.
    if before.matches('@').count() > 1 || query.is_some_and(|query| query.contains('@')) {
        return Err("it has more than one @: write %40 for one in a password".to_owned());
    }
    let mut words = Words::default();
    let mut rest = String::new();
    for parameter in query
        .unwrap_or_default()
        .split('&')
        .filter(|text| !text.is_empty())
    {
        if !words.take(parameter)? {
            rest.push(if rest.is_empty() { '?' } else { '&' });
            rest.push_str(parameter);
        }
    }
    let mut config: Config = format!("{before}{rest}")
        .parse()
        .map_err(|error| super::detail(&error))?;
    let tls = words.settings(&mut config)?;
    Ok(Address { config, tls })
}

/// What comes before the parameters, and them.
fn split(address: &str) -> (&str, Option<&str>) {
    // A password may hold a question mark; the client library looks for the first @, too.
    let from = address.find('@').unwrap_or(0);
    let question = address
        .get(from..)
        .and_then(|rest| rest.find('?'))
        .map(|place| from + place);
    match question.and_then(|place| address.split_at_checked(place)) {
        Some((before, query)) => (before, query.strip_prefix('?')),
        None => (address, None),
    }
}

/// The parameters that are read here.
#[derive(Debug, Default)]
struct Words {
    mode: Option<String>,
    roots: Option<String>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
}

impl Words {
    /// Whether this was one of them.
    fn take(&mut self, parameter: &str) -> Result<bool, String> {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let value = decoded(value)
            .ok_or_else(|| format!("the value of {name} is no text in UTF-8"))?
            .into_owned();
        match decoded(name).as_deref() {
            Some("sslmode") => self.mode = Some(value),
            Some("sslrootcert") => self.roots = Some(value),
            Some("sslcert") => self.certificate = Some(value.into()),
            Some("sslkey") => self.key = Some(value.into()),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// What they mean, for a server at this address.
    fn settings(self, config: &mut Config) -> Result<TlsSettings, String> {
        let roots = self.roots.map(|roots| match roots.as_str() {
            "system" => Roots::System,
            _ => Roots::File(roots.into()),
        });
        let (mode, checked) = match self.mode.as_deref().unwrap_or("prefer") {
            "disable" => (SslMode::Disable, Checked::Nothing),
            "prefer" => (SslMode::Prefer, Checked::Nothing),
            // As libpq does it: who names roots wants them looked at.
            "require" if roots.is_some() => (SslMode::Require, Checked::Chain),
            "require" => (SslMode::Require, Checked::Nothing),
            "verify-ca" => (SslMode::Require, Checked::Chain),
            "verify-full" => (SslMode::Require, Checked::ChainAndName),
            other => {
                let shown: String = other.chars().take(40).collect();
                return Err(format!(
                    "sslmode={shown:?} is none of disable, prefer, require, verify-ca, verify-full"
                ));
            }
        };
        if checked != Checked::Nothing && roots.is_none() {
            return Err(
                "this sslmode needs to know whom to trust: add sslrootcert=FILE, or \
                        sslrootcert=system for the authorities that this machine trusts"
                    .to_owned(),
            );
        }
        if roots == Some(Roots::System) && checked != Checked::ChainAndName {
            // An authority of the public signs anybody's certificate.
            return Err(
                "sslrootcert=system says something only with sslmode=verify-full".to_owned(),
            );
        }
        let client = match (self.certificate, self.key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(_), None) => return Err("sslcert needs sslkey=FILE beside it".to_owned()),
            (None, Some(_)) => return Err("sslkey needs sslcert=FILE beside it".to_owned()),
        };
        // As libpq does it: a socket of this machine needs no TLS, and offers none.
        let local = |host: &Host| matches!(host, Host::Unix(_));
        let local = !config.get_hosts().is_empty() && config.get_hosts().iter().all(local);
        config.ssl_mode(if local { SslMode::Disable } else { mode });
        Ok(TlsSettings {
            checked,
            roots,
            client,
        })
    }
}

fn decoded(text: &str) -> Option<Cow<'_, str>> {
    percent_decode_str(text).decode_utf8().ok()
}

/// Where a server is, for people, without what nobody should see.
pub(super) fn place(config: &Config) -> String {
    let host = match config.get_hosts().first() {
        Some(Host::Tcp(host)) => host.clone(),
        Some(Host::Unix(path)) => path.display().to_string(),
        None => "localhost".to_owned(),
    };
    let port = config.get_ports().first().copied().unwrap_or(5432);
    let database = config
        .get_dbname()
        .or(config.get_user())
        .unwrap_or("postgres");
    format!("{host}:{port}/{database}")
}

/// An address of a server without its passwords, for people.
#[must_use]
pub fn without_password(address: &str) -> String {
    let Some((scheme, rest)) = address.split_once("://") else {
        return address.to_owned();
    };
    // As much as may be a password is left out, also where it was not written as it should be.
    let (who, rest) = match rest.rsplit_once('@') {
        // What follows may be the end of a password among the parameters.
        Some((who, _)) if who.contains('?') => (who.split([':', '@', '/', '?']).next(), "***"),
        Some((who, rest)) => (who.split([':', '@']).next(), rest),
        None => (None, rest),
    };
    let (place, query) = match rest.split_once('?') {
        Some((place, query)) => (place, Some(query)),
        None => (rest, None),
    };
    let mut shown = match who {
        Some(user) => format!("{scheme}://{user}:***@{place}"),
        None => format!("{scheme}://{place}"),
    };
    for (place, parameter) in query
        .into_iter()
        .flat_map(|query| query.split('&'))
        .enumerate()
    {
        shown.push(if place == 0 { '?' } else { '&' });
        let name = parameter.split('=').next().unwrap_or_default();
        match decoded(name).as_deref() {
            // Parameters that are shown because they help; any other may be a secret.
            Some("sslmode" | "sslrootcert" | "sslcert" | "sslkey" | "host" | "port" | "dbname") => {
                shown.push_str(parameter);
            }
            _ => {
                shown.push_str(name);
                shown.push_str("=***");
            }
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    //! What addresses mean, and what is shown of them.
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn mode(query: &str) -> Result<(SslMode, Checked), String> {
        let read = read(&format!("postgres://me:secret@db.example/queue{query}"))?;
        Ok((read.config.get_ssl_mode(), read.tls.checked))
    }

    #[test]
    fn modes_are_those_of_libpq() {
        let roots = "&sslrootcert=%2Fetc%2Froots.pem";
        for (query, wanted) in [
            ("", (SslMode::Prefer, Checked::Nothing)),
            ("?sslmode=disable", (SslMode::Disable, Checked::Nothing)),
            ("?sslmode=prefer", (SslMode::Prefer, Checked::Nothing)),
            ("?sslmode=require", (SslMode::Require, Checked::Nothing)),
            (
                &format!("?sslmode=require{roots}"),
                (SslMode::Require, Checked::Chain),
            ),
            (
                &format!("?sslmode=verify-ca{roots}"),
                (SslMode::Require, Checked::Chain),
            ),
            (
                &format!("?sslmode=verify-full{roots}"),
                (SslMode::Require, Checked::ChainAndName),
            ),
            (
                "?sslmode=verify-full&sslrootcert=system",
                (SslMode::Require, Checked::ChainAndName),
            ),
        ] {
            assert_eq!(mode(query), Ok(wanted), "{query}");
        }
        for (query, wanted) in [
            ("?sslmode=allow", "none of disable"),
            ("?sslmode=verify-full", "sslrootcert=FILE"),
            ("?sslmode=verify-ca&sslrootcert=system", "verify-full"),
            ("?sslcert=a.pem", "sslkey"),
            ("?sslkey=a.pem", "sslcert"),
            (
                "?sslmode=require&sslwhatever=1",
                "unknown option `sslwhatever`",
            ),
        ] {
            let refused = mode(query).unwrap_err();
            assert!(
                refused.contains(wanted) && !refused.contains("secret"),
                "{query}: {refused}"
            );
        }
    }

    #[test]
    fn other_parameters_are_left_to_the_library() {
        let address =
            "postgres://me@%2Frun%2Fpostgres:5433/queue?sslmode=require&connect_timeout=3";
        let read = read(address).unwrap();
        assert_eq!(
            read.config.get_ssl_mode(),
            SslMode::Disable,
            "a socket of this machine"
        );
        assert_eq!(
            read.config.get_connect_timeout().map(|time| time.as_secs()),
            Some(3)
        );
        assert_eq!(place(&read.config), "/run/postgres:5433/queue");
    }

    #[test]
    fn a_password_is_never_told() {
        for address in [
            "postgres://me:secret@h/d",
            "postgres://me:secret?x@h/d",
            "postgres://me:pa@secret@h/d",
            "postgres://me:pa@secret?x=secret@h/d",
            "postgres://h/d?user=me&password=secret&sslmode=nonsense",
            "postgres://me@h/d?p%61ssword=secret&sslmode=nonsense",
            "postgres://me@h:port/d?passwrod=secret",
            "postgres://me@h/d?password=secret@secret",
        ] {
            let shown = without_password(address);
            assert!(!shown.contains("secret"), "{shown}");
            if let Err(message) = read(address) {
                assert!(!message.contains("secret"), "{message}");
            }
        }
        let refused = read("postgres://me:pa@ss@h/d").unwrap_err();
        assert!(refused.contains("%40"), "{refused}");
        assert_eq!(
            without_password("postgres://me:secret@h/d?sslmode=require&password=secret"),
            "postgres://me:***@h/d?sslmode=require&password=***"
        );
    }
}
