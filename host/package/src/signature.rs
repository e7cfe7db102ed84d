//! Signatures of plugins: what is signed, and how a signature is written down.
//!
//! Signed is a statement, not a file: these bytes and no others, each line ended by `\n`.
//!
//! ```text
//! taskwright plugin 1
//! name greeter
//! kind wasm
//! version 1.2.0
//! digest sha256:024c...
//! lent sha256:77aa...
//! ```
//!
//! The first line keeps a signature from meaning anything elsewhere, the name from meaning another
//! plugin, the version from being told as another, the digest from meaning other bytes. `lent` is
//! the digest of the `NAME.toml` that the publisher suggests, or `none`.
//!
//! The file `FILE.sig` is the statement, then who signed and the signature:
//!
//! ```text
//! key ed25519:HEX
//! signature HEX
//! ```

use std::fmt;

use ed25519_dalek::pkcs8::{DecodePrivateKey as _, DecodePublicKey as _};
use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use taskwright_model::RuntimeName;

use crate::artifact::Kind;
use crate::digest::Digest;
use crate::is_version;

/// The first line: what the rest means, and in which edition.
const DOMAIN: &str = "taskwright plugin 1";
/// The largest file that is read as a signature: longer than any is.
pub const MOST_BYTES: usize = 4096;
const ALGORITHM: &str = "ed25519:";

/// What somebody who signs says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// The plugin.
    pub name: RuntimeName,
    /// A component or a script.
    pub kind: Kind,
    /// Its version, as the publisher counts.
    pub version: String,
    /// The digest of the component or the script.
    pub digest: Digest,
    /// The digest of the `NAME.toml` that is suggested.
    pub lent: Option<Digest>,
}

/// A statement with the key that signed it. That the signature holds is a question by itself:
/// [`Signature::holds`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// What is said.
    pub statement: Statement,
    /// Who is told to say it.
    pub key: PublicKey,
    bytes: [u8; 64],
}

/// A public key, as it is written down.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey([u8; 32]);

/// A private key. It is never shown.
pub struct PrivateKey(SigningKey);

/// Why a text is no signature.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSignature {
    /// Longer than any is.
    #[error("it has more than {MOST_BYTES} bytes")]
    TooLong,
    /// A line that is not there, or not as it should be.
    #[error("line {line} is not `{wanted}`")]
    Line {
        /// Which one, from 1.
        line: usize,
        /// What is wanted there.
        wanted: &'static str,
    },
    /// More than there should be.
    #[error("it goes on after its end")]
    GoesOn,
}

/// Why a text is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadKey {
    /// No public key.
    #[error("it is no ed25519 public key as `openssl pkey -pubout` writes it")]
    Public,
    /// One that anybody can sign for.
    #[error("it is a weak ed25519 key: anybody could sign for it")]
    Weak,
    /// No private key.
    #[error("it is no ed25519 private key as `openssl genpkey -algorithm ed25519` writes it")]
    Private,
}

impl Statement {
    /// The bytes that are signed.
    #[must_use]
    pub fn payload(&self) -> String {
        let lent = self.lent.map(|digest| digest.to_string());
        format!(
            "{DOMAIN}\nname {}\nkind {}\nversion {}\ndigest {}\nlent {}\n",
            self.name,
            self.kind.word(),
            self.version,
            self.digest,
            lent.as_deref().unwrap_or("none"),
        )
    }
}

impl Signature {
    /// Signs a statement.
    #[must_use]
    pub fn sign(statement: Statement, key: &PrivateKey) -> Self {
        let bytes = key.0.sign(statement.payload().as_bytes()).to_bytes();
        Self {
            statement,
            key: key.public(),
            bytes,
        }
    }

    /// Whether its key signed its statement.
    #[must_use]
    pub fn holds(&self) -> bool {
        let signature = ed25519_dalek::Signature::from_bytes(&self.bytes);
        let payload = self.statement.payload();
        let key = VerifyingKey::from_bytes(&self.key.0);
        key.is_ok_and(|key| key.verify_strict(payload.as_bytes(), &signature).is_ok())
    }

    /// Reads what [`Display`](fmt::Display) writes, and nothing else: no other spacing, no other
    /// order, no further line.
    ///
    /// # Errors
    /// The line that is wrong.
    pub fn parse(text: &str) -> Result<Self, BadSignature> {
        if text.len() > MOST_BYTES {
            return Err(BadSignature::TooLong);
        }
        let mut reader = Reader {
            lines: text.split_inclusive('\n'),
            line: 0,
        };
        reader.read(DOMAIN, |line| (line == DOMAIN).then_some(()))?;
        let name = |rest: &str| RuntimeName::parse(rest).ok();
        let name = reader.read("name NAME", |line| name(line.strip_prefix("name ")?))?;
        let kind = reader.read("kind wasm|rhai", |line| {
            Kind::from_word(line.strip_prefix("kind ")?)
        })?;
        let version = reader.read("version VERSION", |line| {
            let version = line.strip_prefix("version ")?;
            is_version(version).then(|| version.to_owned())
        })?;
        let digest = |rest: &str| Digest::parse(rest).ok();
        let digest_line = "digest sha256:HEX";
        let found = reader.read(digest_line, |line| digest(line.strip_prefix("digest ")?))?;
        let lent = reader.read("lent sha256:HEX|none", |line| {
            match line.strip_prefix("lent ")? {
                "none" => Some(None),
                other => digest(other).map(Some),
            }
        })?;
        let key = reader.read("key ed25519:HEX", |line| {
            PublicKey::from_word(line.strip_prefix("key ")?)
        })?;
        let bytes = reader.read("signature HEX", |line| {
            small_hex(line.strip_prefix("signature ")?)
        })?;
        if reader.lines.next().is_some() {
            return Err(BadSignature::GoesOn);
        }
        Ok(Self {
            statement: Statement {
                name,
                kind,
                version,
                digest: found,
                lent,
            },
            key,
            bytes,
        })
    }
}

struct Reader<'a> {
    lines: std::str::SplitInclusive<'a, char>,
    line: usize,
}

impl Reader<'_> {
    fn read<T>(
        &mut self,
        wanted: &'static str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, BadSignature> {
        self.line += 1;
        let line = self.lines.next().and_then(|line| line.strip_suffix('\n'));
        let line_number = self.line;
        line.and_then(parse).ok_or(BadSignature::Line {
            line: line_number,
            wanted,
        })
    }
}

/// Hexadecimal digits in small letters, so that there is one way to write each.
fn small_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let small = !text.bytes().any(|digit| digit.is_ascii_uppercase());
    (small && hex::decode_to_slice(text, &mut bytes).is_ok()).then_some(bytes)
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.statement.payload())?;
        writeln!(f, "key {}", self.key)?;
        writeln!(f, "signature {}", hex::encode(self.bytes))
    }
}

impl PublicKey {
    /// Reads a key as `openssl pkey -pubout` writes it: PEM, or the one line between its ends.
    ///
    /// # Errors
    /// When it is none, or a weak one.
    pub fn parse(text: &str) -> Result<Self, BadKey> {
        let text = text.trim();
        let whole = if text.starts_with("-----BEGIN") {
            text.to_owned()
        } else {
            format!("-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n")
        };
        let key = VerifyingKey::from_public_key_pem(&whole).map_err(|_| BadKey::Public)?;
        if key.is_weak() {
            return Err(BadKey::Weak);
        }
        Ok(Self(key.to_bytes()))
    }

    fn from_word(word: &str) -> Option<Self> {
        small_hex(word.strip_prefix(ALGORITHM)?).map(Self)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{ALGORITHM}{}", hex::encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl PrivateKey {
    /// Reads a key as `openssl genpkey -algorithm ed25519` writes it.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(text: &str) -> Result<Self, BadKey> {
        let key = SigningKey::from_pkcs8_pem(text.trim()).map_err(|_| BadKey::Private)?;
        Ok(Self(key))
    }

    /// The public key that belongs to it.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(***)")
    }
}

#[cfg(test)]
pub(crate) mod tests {
    //! What is signed holds, and nothing else does.
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use proptest::prelude::*;

    use super::*;

    /// As `openssl genpkey` writes it, of a seed of one repeated byte.
    pub(crate) fn key(byte: u8) -> PrivateKey {
        PrivateKey(SigningKey::from_bytes(&[byte; 32]))
    }

    pub(crate) fn statement(name: &str) -> Statement {
        Statement {
            name: RuntimeName::parse(name).unwrap(),
            kind: Kind::Component,
            version: "1.2.0".to_owned(),
            digest: Digest::of(b"component"),
            lent: None,
        }
    }

    #[test]
    fn the_payload_is_these_bytes_for_ever() {
        let digest = Digest::of(b"component");
        let mut said = statement("greeter");
        let text = format!(
            "taskwright plugin 1\nname greeter\nkind wasm\nversion 1.2.0\ndigest {digest}\nlent none\n"
        );
        assert_eq!(said.payload(), text);
        said.lent = Some(digest);
        assert_eq!(said.payload(), text.replace("none", &digest.to_string()));
    }

    #[test]
    fn what_was_signed_is_read_again_and_holds() {
        let signature = Signature::sign(statement("greeter"), &key(1));
        let text = signature.to_string();
        let read = Signature::parse(&text).unwrap();
        assert_eq!(read, signature);
        assert!(read.holds());
        let others = Signature {
            key: key(2).public(),
            ..read.clone()
        };
        assert!(!others.holds(), "it is of another key");
        for other in [
            Statement {
                name: RuntimeName::parse("other").unwrap(),
                ..statement("greeter")
            },
            Statement {
                kind: Kind::Script,
                ..statement("greeter")
            },
            Statement {
                version: "1.2.1".to_owned(),
                ..statement("greeter")
            },
            Statement {
                digest: Digest::of(b"other"),
                ..statement("greeter")
            },
            Statement {
                lent: Some(Digest::of(b"")),
                ..statement("greeter")
            },
        ] {
            let moved = Signature {
                statement: other,
                ..read.clone()
            };
            assert!(!moved.holds(), "{:?}", moved.statement);
        }
    }

    #[test]
    fn there_is_one_way_to_write_a_signature() {
        let text = Signature::sign(statement("greeter"), &key(1)).to_string();
        for wrong in [
            String::new(),
            text.replace("plugin 1", "plugin 2"),
            text.replace('\n', "\r\n"),
            text.replace("name greeter", "name  greeter"),
            text.replace("name greeter", "name ../greeter"),
            text.replace("kind wasm", "kind zip"),
            text.replace("version 1.2.0", "version 1 2"),
            text.replace("lent none", "lent"),
            text.replace("ed25519:", "rsa:"),
            text.to_uppercase(),
            format!("{text}\n"),
            format!("\n{text}"),
            text.trim_end().to_owned(),
            "x".repeat(MOST_BYTES + 1),
        ] {
            assert!(Signature::parse(&wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn keys_of_openssl_are_read() {
        let private = "-----BEGIN PRIVATE KEY-----\n\
            MC4CAQAwBQYDK2VwBCIEIAEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB\n\
            -----END PRIVATE KEY-----\n";
        let read = PrivateKey::parse(private).unwrap();
        assert_eq!(read.public(), key(1).public());
        assert!(!format!("{read:?}").contains("01"), "it is never shown");
        let line = "MCowBQYDK2VwAyEAiojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w=";
        let public = PublicKey::parse(line).unwrap();
        assert_eq!(public, key(1).public());
        let whole = format!("-----BEGIN PUBLIC KEY-----\n{line}\n-----END PUBLIC KEY-----\n");
        assert_eq!(PublicKey::parse(&whole).unwrap(), public);
        for wrong in ["", "x", private, &line[..40]] {
            assert!(PublicKey::parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(PrivateKey::parse(&whole).unwrap_err(), BadKey::Private);
        // The neutral element: every signature by it can be made up.
        let weak = "MCowBQYDK2VwAyEAAQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        assert_eq!(PublicKey::parse(weak).unwrap_err(), BadKey::Weak);
    }

    proptest! {
        #[test]
        fn no_text_ends_the_reader(text in "\\PC{0,300}") {
            let _either = Signature::parse(&text);
        }

        #[test]
        fn a_changed_letter_never_holds(at in 0_usize..500, letter in 0x20_u8..0x7f) {
            let text = Signature::sign(statement("greeter"), &key(1)).to_string();
            let mut bytes = text.clone().into_bytes();
            prop_assume!(at < bytes.len() && bytes.get(at) != Some(&letter));
            if let Some(byte) = bytes.get_mut(at) { *byte = letter; }
            let changed = String::from_utf8(bytes).unwrap();
            prop_assert!(!Signature::parse(&changed).is_ok_and(|read| read.holds()));
        }
    }
}
