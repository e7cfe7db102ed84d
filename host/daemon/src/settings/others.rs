//! Variables by which other programs of the queue's users are told the same thing.
//!
//! Names like `PORT` and `LOG_LEVEL` are many programs': they count less than everything that is
//! ours, the file included, and what cannot be meant for us is not read.

use super::table::Setting;
use crate::env;

/// When such a variable counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rank {
    /// More than the setting's own variable.
    BeforeOurs,
    /// Less than the file, and more than the default.
    AfterFile,
}

struct Other {
    key: &'static str,
    variable: &'static str,
    rank: Rank,
    /// The value in our words, if it is meant for us.
    read: fn(&str, &Variables<'_>) -> Option<String>,
}

/// Reads an environment variable.
type Variables<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// In the order in which they count.
static OTHERS: [Other; 7] = [
    Other {
        key: "queue.default-agent-model",
        variable: env::OPENROUTER_MODEL,
        rank: Rank::BeforeOurs,
        read: as_it_is,
    },
    Other {
        key: "queue.default-agent-model",
        variable: env::OPENAI_MODEL,
        rank: Rank::BeforeOurs,
        read: as_it_is,
    },
    Other {
        key: "queue.worker-heartbeat-timeout",
        variable: env::OFFLINE_THRESHOLD,
        rank: Rank::AfterFile,
        read: as_it_is,
    },
    Other {
        key: "log.level",
        variable: env::PLAIN_LOG_LEVEL,
        rank: Rank::AfterFile,
        read: log_level,
    },
    Other {
        key: "log.format",
        variable: env::PLAIN_LOG_FORMAT,
        rank: Rank::AfterFile,
        read: log_format,
    },
    Other {
        key: "listen-addr",
        variable: env::PORT,
        rank: Rank::AfterFile,
        read: port,
    },
    Other {
        key: "listen-addr",
        variable: env::HOST,
        rank: Rank::AfterFile,
        read: host,
    },
];

/// What one of them says of a setting, in our words, and which.
pub(super) fn said(
    setting: &Setting,
    rank: Rank,
    variable: &Variables<'_>,
) -> Option<(&'static str, String)> {
    let mut of_it = OTHERS
        .iter()
        .filter(|other| other.key == setting.key && other.rank == rank);
    of_it.find_map(|other| {
        let text = variable(other.variable)?;
        let text = text.trim();
        let read = (!text.is_empty()).then(|| (other.read)(text, variable))?;
        Some((other.variable, read?))
    })
}

fn as_it_is(text: &str, _: &Variables<'_>) -> Option<String> {
    Some(text.to_owned())
}

/// Python's words for levels.
fn log_level(text: &str, _: &Variables<'_>) -> Option<String> {
    let level = match text.to_ascii_lowercase().as_str() {
        "trace" | "notset" => "trace",
        "debug" => "debug",
        "info" => "info",
        "warn" | "warning" => "warn",
        "error" | "critical" | "fatal" => "error",
        _ => return None,
    };
    Some(level.to_owned())
}

fn log_format(text: &str, _: &Variables<'_>) -> Option<String> {
    let format = match text.to_ascii_lowercase().as_str() {
        "json" => "json",
        "text" | "plain" | "console" => "text",
        _ => return None,
    };
    Some(format.to_owned())
}

/// A number alone: Kubernetes puts addresses of services into variables that end so.
fn port(text: &str, variable: &Variables<'_>) -> Option<String> {
    let port = text.parse::<u16>().ok().filter(|port| *port > 0)?;
    let host = variable(env::HOST).filter(|host| !host.trim().is_empty());
    let host = host.map_or_else(|| "0.0.0.0".to_owned(), |host| in_brackets(host.trim()));
    Some(format!("{host}:{port}"))
}

/// Shells put the machine's name there: without a port only an address is meant for us.
fn host(text: &str, _: &Variables<'_>) -> Option<String> {
    let is_address = text == "localhost" || text.parse::<std::net::IpAddr>().is_ok();
    is_address.then(|| format!("{}:5758", in_brackets(text)))
}

fn in_brackets(host: &str) -> String {
    match host.parse::<std::net::Ipv6Addr>() {
        Ok(address) => format!("[{address}]"),
        Err(_) => host.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    //! What is read, and what is another program's.
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::super::table;
    use super::*;

    fn said_of(key: &str, rank: Rank, variables: &[(&str, &str)]) -> Option<String> {
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, text)| (*text).to_owned())
        };
        said(table::by_key(key).unwrap(), rank, &variable).map(|(_, text)| text)
    }

    #[test]
    fn the_first_model_that_is_set_counts() {
        let model = |variables: &[(&str, &str)]| {
            said_of("queue.default-agent-model", Rank::BeforeOurs, variables)
        };
        let both = [("OPENAI_MODEL", "b"), ("OPENROUTER_MODEL", "a")];
        assert_eq!(model(&both).unwrap(), "a");
        let one = [("OPENAI_MODEL", "b"), ("OPENROUTER_MODEL", " ")];
        assert_eq!(model(&one).unwrap(), "b");
        assert_eq!(model(&[]), None);
    }

    #[test]
    fn what_is_another_programs_is_not_read() {
        let after =
            |key: &str, name: &str, text: &str| said_of(key, Rank::AfterFile, &[(name, text)]);
        assert_eq!(after("log.level", "LOG_LEVEL", "WARNING").unwrap(), "warn");
        assert_eq!(after("log.level", "LOG_LEVEL", "loud"), None);
        assert_eq!(after("log.format", "LOG_FORMAT", "JSON").unwrap(), "json");
        assert_eq!(after("log.format", "LOG_FORMAT", "%(message)s"), None);
        assert_eq!(
            after("listen-addr", "PORT", "8000").unwrap(),
            "0.0.0.0:8000"
        );
        assert_eq!(after("listen-addr", "PORT", "tcp://10.0.0.1:80"), None);
        assert_eq!(after("listen-addr", "HOST", "::1").unwrap(), "[::1]:5758");
        assert_eq!(after("listen-addr", "HOST", "my-laptop"), None);
        let both = [("HOST", "127.0.0.1"), ("PORT", "8000")];
        let address = said_of("listen-addr", Rank::AfterFile, &both);
        assert_eq!(address.unwrap(), "127.0.0.1:8000");
    }
}
