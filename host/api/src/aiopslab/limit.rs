//! How fast one client may submit: a bucket of tokens for each, refilled as time goes by.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use axum::http::{Extensions, StatusCode};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::auth::{Caller, Peer};
use crate::problem::Problem;
use crate::server::Line;
use crate::state::ApiState;

/// Clients that are told apart at a time.
const MOST_CLIENTS: usize = 10_000;

/// The limit on each client's submissions.
#[derive(Debug, Default)]
pub struct SubmissionLimit {
    rate: Option<Rate>,
    buckets: Mutex<HashMap<Client, Bucket>>,
}

/// How many submissions are taken.
#[derive(Clone, Copy, Debug)]
struct Rate {
    per_second: f64,
    burst: f64,
}

/// Whom submissions are counted for: a token, if there are any; else where they come from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Client {
    Token(String),
    /// An address, of version 6 the network that its owner has at least.
    Address(IpAddr),
    Machine,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl SubmissionLimit {
    /// No limit.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// So many in a second on average, and at most `burst` at once.
    #[must_use]
    pub fn new(per_second: f64, burst: u32) -> Self {
        Self {
            rate: Some(Rate {
                per_second: per_second.max(1e-6),
                burst: f64::from(burst.max(1)),
            }),
            buckets: Mutex::default(),
        }
    }

    /// Takes `many` submissions for a client, or answers how long it has to wait.
    fn take(&self, client: Client, many: u32, now: Instant) -> Result<(), Duration> {
        let Some(rate) = self.rate else {
            return Ok(());
        };
        let mut buckets = self.buckets.lock();
        if buckets.len() >= MOST_CLIENTS && !buckets.contains_key(&client) {
            make_room(&mut buckets, rate, now);
        }
        let full = Bucket {
            left: rate.burst,
            at: now,
        };
        let bucket = buckets.entry(client).or_insert(full);
        bucket.left = bucket.filled(rate, now);
        bucket.at = now;
        // More at once than a bucket holds is taken from a full one, and owed.
        let needed = f64::from(many).min(rate.burst);
        if bucket.left >= needed {
            bucket.left -= f64::from(many);
            return Ok(());
        }
        let missing = (needed - bucket.left) / rate.per_second;
        Err(Duration::try_from_secs_f64(missing).unwrap_or(Duration::MAX))
    }
}

impl Bucket {
    fn filled(&self, rate: Rate, now: Instant) -> f64 {
        let gone = now.saturating_duration_since(self.at).as_secs_f64();
        (self.left + gone * rate.per_second).min(rate.burst)
    }
}

/// Forgets clients whose buckets are full again, which changes nothing for them; if there are
/// none, the one that was here longest ago.
fn make_room(buckets: &mut HashMap<Client, Bucket>, rate: Rate, now: Instant) {
    buckets.retain(|_, bucket| bucket.filled(rate, now) < rate.burst);
    if buckets.len() >= MOST_CLIENTS {
        let oldest = buckets.iter().min_by_key(|(_, bucket)| bucket.at);
        if let Some(oldest) = oldest.map(|(client, _)| client.clone()) {
            buckets.remove(&oldest);
        }
    }
}

/// Takes `many` submissions of the client that a request comes from.
pub(super) fn admit(state: &ApiState, request: &Extensions, many: u32) -> Result<(), Problem> {
    let caller = request.get::<Caller>();
    let client = match caller {
        Some(caller) if state.auth.asks() => Client::Token(caller.name.to_string()),
        _ => match (request.get::<Peer>(), request.get::<Line>()) {
            // This machine has 16 million addresses of its own to ask from.
            (_, Some(Line { from: Some(at), .. })) if at.is_loopback() => Client::Machine,
            (_, Some(Line { from: Some(at), .. })) => Client::Address(network(*at)),
            (Some(Peer::Unix { uid: Some(uid) }), _) => Client::Token(format!("uid:{uid}")),
            _ => Client::Machine,
        },
    };
    let limit = &state.queue_api.submissions;
    limit.take(client, many, Instant::now()).map_err(|wait| {
        metrics::counter!("taskwright_queue_submissions_refused_total").increment(1);
        let seconds = wait
            .as_secs()
            .saturating_add(u64::from(wait.subsec_nanos() > 0));
        let seconds = u32::try_from(seconds).unwrap_or(u32::MAX).max(1);
        Problem::new(
            StatusCode::TOO_MANY_REQUESTS,
            "this client submits faster than it may",
        )
        .hint(format!("try again in {seconds} s"))
        .retry_after(seconds)
    })
}

fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => {
            let bits = u128::from(address) >> 64 << 64;
            IpAddr::V6(bits.into())
        }
    }
}

#[cfg(test)]
mod tests {
    //! Buckets, filled and forgotten.
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn client(number: u32) -> Client {
        Client::Token(number.to_string())
    }

    #[test]
    fn a_burst_is_taken_and_then_as_many_as_the_rate_allows() {
        let limit = SubmissionLimit::new(2.0, 3);
        let now = Instant::now();
        for _ in 0..3 {
            limit.take(client(1), 1, now).unwrap();
        }
        let wait = limit.take(client(1), 1, now).unwrap_err();
        assert_eq!(wait, Duration::from_millis(500));
        limit.take(client(2), 1, now).unwrap();
        let later = now + Duration::from_millis(500);
        limit.take(client(1), 1, later).unwrap();
        assert!(limit.take(client(1), 1, later).is_err());
        let much_later = now + Duration::from_secs(3600);
        for _ in 0..3 {
            limit.take(client(1), 1, much_later).unwrap();
        }
        assert!(
            limit.take(client(1), 1, much_later).is_err(),
            "a burst at most"
        );
    }

    #[test]
    fn many_at_once_are_owed() {
        let limit = SubmissionLimit::new(1.0, 10);
        let now = Instant::now();
        limit.take(client(1), 100, now).unwrap();
        let wait = limit.take(client(1), 1, now).unwrap_err();
        assert_eq!(wait, Duration::from_secs(91));
    }

    #[test]
    fn the_table_of_clients_is_bounded() {
        let limit = SubmissionLimit::new(1.0, 2);
        let now = Instant::now();
        for number in 0..u32::try_from(MOST_CLIENTS).unwrap() + 500 {
            let at = now + Duration::from_nanos(number.into());
            limit.take(client(number), 1, at).unwrap();
        }
        assert_eq!(limit.buckets.lock().len(), MOST_CLIENTS);
        let later = now + Duration::from_secs(60);
        limit.take(client(u32::MAX), 1, later).unwrap();
        assert_eq!(limit.buckets.lock().len(), 1, "all others are full again");
    }

    #[test]
    fn addresses_of_one_network_are_one_client() {
        let at = |text: &str| network(text.parse().unwrap());
        assert_eq!(at("2001:db8::1"), at("2001:db8::2:1"));
        assert_ne!(at("2001:db8::1"), at("2001:db8:0:1::1"));
        assert_ne!(at("10.0.0.1"), at("10.0.0.2"));
    }

    #[test]
    fn without_a_limit_nothing_is_counted() {
        let limit = SubmissionLimit::none();
        limit.take(client(1), u32::MAX, Instant::now()).unwrap();
        assert!(limit.buckets.lock().is_empty());
    }
}
