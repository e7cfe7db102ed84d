//! The settings of the queue's API: streams, callbacks, limits on clients, web pages.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use taskwright_api::{Cors, Live, QueueApi, SubmissionLimit};
use taskwright_capability::grant::http::HostPattern;

use super::{Settings, Source};
use crate::exit::Code;
use crate::failure::Advise as _;
use crate::serve::callbacks::policy::CallbackPolicy;

/// The largest file with a secret in it.
const MOST_SECRET_BYTES: u64 = 4096;

/// What the queue's API does beside the queue.
#[derive(Clone, Debug)]
pub(crate) struct QueueApiSettings {
    streams: usize,
    /// How long a reader may take nothing.
    pub(crate) reader_patience: Duration,
    /// Submissions of a client in a second, and at once.
    submissions: Option<(f64, u32)>,
    cors: Cors,
    docs: bool,
    metrics: bool,
    /// Who may be told of ends.
    pub(crate) callbacks: Arc<CallbackPolicy>,
    /// What that is signed with.
    pub(crate) callback_secret: Option<Arc<[u8]>>,
}

impl QueueApiSettings {
    pub(super) fn from_settings(settings: &Settings) -> anyhow::Result<Self> {
        let small = |key: &str| -> anyhow::Result<u32> {
            u32::try_from(settings.number(key)?).with_context(|| format!("setting {key}"))
        };
        let hosts = settings.list("queue.callback-hosts")?;
        let hosts: Result<Vec<HostPattern>, _> = hosts.iter().map(|host| host.parse()).collect();
        let callbacks = CallbackPolicy::new(
            hosts.context("setting queue.callback-hosts")?,
            settings.switch("queue.callback-private-addresses")?,
            small("queue.callback-tries")?,
        );
        let callback_secret = match settings.path("queue.callback-secret-file")? {
            Some(path) => Some(read_secret(&path).exit_with(Code::PROBLEM)?),
            None => None,
        };
        Ok(Self {
            streams: settings.count("queue.max-streams")?,
            reader_patience: settings.duration("api.reader-patience")?,
            submissions: submissions(settings, small("queue.submission-burst")?)?,
            cors: cors(settings)?,
            docs: settings.switch("api.docs")?,
            metrics: settings.switch("api.metrics")?,
            callbacks: Arc::new(callbacks),
            callback_secret,
        })
    }

    /// What handlers are given.
    pub(crate) fn queue_api(&self) -> QueueApi {
        let callbacks = Arc::clone(&self.callbacks);
        QueueApi {
            live: Live::new(self.streams, self.reader_patience),
            submissions: match self.submissions {
                Some((per_second, burst)) => SubmissionLimit::new(per_second, burst),
                None => SubmissionLimit::none(),
            },
            callbacks: Box::new(move |address| callbacks.target(address).map(|_| ())),
            cors: self.cors.clone(),
            docs: self.docs,
            metrics: self.metrics,
        }
    }
}

fn submissions(settings: &Settings, burst: u32) -> anyhow::Result<Option<(f64, u32)>> {
    const KEY: &str = "queue.submissions-per-second";
    if settings.value(KEY).is_none() {
        return Ok(None);
    }
    let rate: f64 = settings.text(KEY)?.parse().context(KEY)?;
    if rate <= 0.0 {
        return Err(anyhow::anyhow!("{KEY} is {rate}, and must be more than 0"))
            .exit_with(Code::PROBLEM)
            .hint("leave it out for no limit");
    }
    Ok(Some((rate, burst)))
}

fn cors(settings: &Settings) -> anyhow::Result<Cors> {
    const KEY: &str = "api.cors-origins";
    if matches!(settings.source(KEY), None | Some(Source::Default)) {
        return Ok(Cors::Unsaid);
    }
    let origins = settings.list(KEY)?;
    Cors::parse(origins.iter().map(String::as_str)).map_err(anyhow::Error::msg)
}

/// The file's bytes, without the line break at its end.
fn read_secret(path: &Path) -> anyhow::Result<Arc<[u8]>> {
    let shown = path.display();
    let length = std::fs::metadata(path)
        .with_context(|| format!("read the secret of callbacks in {shown}"))?
        .len();
    anyhow::ensure!(
        length <= MOST_SECRET_BYTES,
        "the secret of callbacks in {shown} has {length} bytes, {MOST_SECRET_BYTES} are allowed"
    );
    let bytes =
        std::fs::read(path).with_context(|| format!("read the secret of callbacks in {shown}"))?;
    let secret = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let secret = secret.strip_suffix(b"\r").unwrap_or(secret);
    anyhow::ensure!(
        !secret.is_empty(),
        "the secret of callbacks in {shown} is empty"
    );
    Ok(secret.into())
}

#[cfg(test)]
mod tests {
    //! Limits and secrets, checked before anything starts.
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::super::flags::Flags;
    use super::super::{Sources, resolve, table};
    use super::*;

    fn settings(flags: &[(&str, &str)]) -> anyhow::Result<QueueApiSettings> {
        let mut given = Flags::default();
        for (flag, word) in flags {
            given.set(table::by_flag(flag).unwrap(), vec![(*word).to_owned()]);
        }
        let resolved = resolve(&Sources {
            flags: &given,
            config_flag: Some(Path::new("/dev/null")),
            variable: &|_| None,
        });
        QueueApiSettings::from_settings(&resolved)
    }

    #[test]
    fn nothing_is_limited_and_nobody_told_until_somebody_says_so() {
        let plain = settings(&[]).unwrap();
        assert!(plain.submissions.is_none() && !plain.callbacks.is_open());
        assert_eq!(plain.cors, Cors::Unsaid);
        let limited = settings(&[("queue-submissions-per-second", "0.5")]).unwrap();
        assert_eq!(limited.submissions, Some((0.5, 20)));
        assert!(settings(&[("queue-submissions-per-second", "0")]).is_err());
        assert_eq!(
            settings(&[("cors-origins", "*")]).unwrap().cors,
            Cors::Anybody
        );
    }

    #[test]
    fn a_secret_is_read_without_its_line_break() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let flag = path.to_str().unwrap().to_owned();
        for (content, expected) in [("k\n", Some("k")), ("k\r\n", Some("k")), ("\n", None)] {
            std::fs::write(&path, content).unwrap();
            let read = settings(&[("queue-callback-secret-file", &flag)]);
            let secret = read.ok().and_then(|read| read.callback_secret);
            assert_eq!(
                secret.as_deref(),
                expected.map(str::as_bytes),
                "{content:?}"
            );
        }
    }
}
