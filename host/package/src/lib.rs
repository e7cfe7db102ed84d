//! What a plugin is outside of a daemon: an artifact in a registry, a signature beside a file, a
//! line in a lock file. And whose signature counts.
//!
//! All of it is read from strangers. So everything has a bound, nothing is believed that does not
//! match a digest, and only [`registry`] talks to anybody; the rest is pure.
//!
//! | module | about |
//! |---|---|
//! | [`digest`] | SHA-256 as it is written everywhere |
//! | [`mod@reference`] | `oci://HOST/REPOSITORY:TAG@DIGEST` |
//! | [`lock`] | `plugins.lock`: what belongs into a plugin folder |
//! | [`signature`] | what is signed, and the file that a signature is |
//! | [`trust`] | which keys count, and for which plugins |
//! | [`artifact`] | a plugin as a manifest with one layer |
//! | [`credentials`] | who we are to a registry |
//! | [`registry`] | pull and push, the only part that has a network |

pub mod artifact;
pub mod credentials;
pub mod digest;
pub mod lock;
pub mod reference;
pub mod registry;
pub mod signature;
pub mod trust;

pub use artifact::{Artifact, Kind};
pub use digest::Digest;
pub use lock::{Entry, Lock};
pub use reference::Reference;
pub use signature::{Signature, Statement};
pub use trust::{Trust, TrustedKey, Verdict};

/// The longest version that a plugin is published under, in bytes.
pub const MOST_VERSION_BYTES: usize = 64;

/// Whether a text can be a version: it is shown to people, and is a line of what is signed.
#[must_use]
pub fn is_version(text: &str) -> bool {
    let plain = |letter: u8| letter.is_ascii_alphanumeric() || b".-_+".contains(&letter);
    (1..=MOST_VERSION_BYTES).contains(&text.len()) && text.bytes().all(plain)
}
