//! Which keys count, and for which plugins.

use taskwright_model::RuntimeName;

use crate::artifact::Kind;
use crate::digest::Digest;
use crate::signature::{PublicKey, Signature};

/// Names of plugins that one key may be limited to.
pub const MOST_PATTERNS: usize = 64;
/// The longest of them, in bytes.
const MOST_PATTERN_BYTES: usize = 64;
/// Keys that may be trusted.
pub const MOST_KEYS: usize = 64;

/// What the operator says of signatures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// Whether a plugin needs a signature that counts.
    pub required: bool,
    /// The keys that count.
    pub keys: Vec<TrustedKey>,
}

/// A key whose signatures count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedKey {
    /// What the operator calls it.
    pub name: String,
    /// The key.
    pub key: PublicKey,
    /// The plugins that it may sign, as `acme-*`. Empty: all of them.
    pub plugins: Vec<String>,
}

/// What is signed, as it lies here.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// What the plugin is called here.
    pub name: &'a RuntimeName,
    /// What it is.
    pub kind: Kind,
    /// The digest of its bytes.
    pub digest: Digest,
}

/// What became of a signature. One that is wrong is no verdict, but [`Distrust`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is signed by a key that counts for it.
    Trusted {
        /// What the operator calls the key.
        by: String,
        /// The version that was signed.
        version: String,
    },
    /// It is not signed, and need not be.
    Unsigned,
    /// It is signed, but by a key that does not count for it, and need not be signed at all.
    Unknown {
        /// The key that it is told to be of.
        key: PublicKey,
    },
}

/// Why a plugin is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Distrust {
    /// It has to be signed.
    #[error(
        "it is not signed, and `require-signature` is set: sign it by `taskwright plugin sign` with \
         a key that is trusted here, or install one that is signed"
    )]
    Unsigned,
    /// By somebody else.
    #[error(
        "it is signed by {key}, which is not among the trusted keys: put it under \
         `[[plugins.trusted-keys]]` in the configuration if you do trust it"
    )]
    UnknownKey {
        /// The key that it is told to be of.
        key: PublicKey,
    },
    /// By somebody who may sign others.
    #[error("it is signed by the key {by:?}, which may sign {} and not {name}", patterns.join(", "))]
    NotForThis {
        /// What the operator calls the key.
        by: String,
        /// What it may sign.
        patterns: Vec<String>,
        /// The plugin.
        name: RuntimeName,
    },
    /// Another plugin was signed.
    #[error("its signature is for a plugin {signed}, and this one is called {name}")]
    OtherName {
        /// As it was signed.
        signed: RuntimeName,
        /// As it is called here.
        name: RuntimeName,
    },
    /// Other bytes were signed.
    #[error(
        "its signature is for {signed}, and it has {found}: it was changed after it was signed"
    )]
    OtherDigest {
        /// As it was signed.
        signed: Digest,
        /// As it is.
        found: Digest,
    },
    /// A component was signed as a script, or the other way round.
    #[error("its signature is for a {signed}, and it is a {found}")]
    OtherKind {
        /// As it was signed.
        signed: Kind,
        /// As it is.
        found: Kind,
    },
    /// Nobody signed that with this key.
    #[error("its signature does not hold: {key} did not sign it")]
    Forged {
        /// The key that it is told to be of.
        key: PublicKey,
    },
}

impl Trust {
    /// Whether a plugin may be taken with this signature.
    ///
    /// A signature that is wrong in itself is never taken, required or not: somebody changed
    /// something.
    ///
    /// # Errors
    /// Why not.
    pub fn judge(
        &self,
        subject: Subject<'_>,
        signature: Option<&Signature>,
    ) -> Result<Verdict, Distrust> {
        let Some(signature) = signature else {
            return if self.required {
                Err(Distrust::Unsigned)
            } else {
                Ok(Verdict::Unsigned)
            };
        };
        let (said, key) = (&signature.statement, &signature.key);
        if !signature.holds() {
            return Err(Distrust::Forged { key: key.clone() });
        }
        if said.name != *subject.name {
            let (signed, name) = (said.name.clone(), subject.name.clone());
            return Err(Distrust::OtherName { signed, name });
        }
        if said.kind != subject.kind {
            let (signed, found) = (said.kind, subject.kind);
            return Err(Distrust::OtherKind { signed, found });
        }
        if said.digest != subject.digest {
            let (signed, found) = (said.digest, subject.digest);
            return Err(Distrust::OtherDigest { signed, found });
        }
        let of_key = || self.keys.iter().filter(|trusted| trusted.key == *key);
        // The same key may stand there twice, for different plugins.
        let name = subject.name.as_str();
        if let Some(trusted) = of_key().find(|trusted| trusted.may_sign(name)) {
            return Ok(Verdict::Trusted {
                by: trusted.name.clone(),
                version: said.version.clone(),
            });
        }
        match (self.required, of_key().next()) {
            (false, _) => Ok(Verdict::Unknown { key: key.clone() }),
            (true, None) => Err(Distrust::UnknownKey { key: key.clone() }),
            (true, Some(trusted)) => Err(Distrust::NotForThis {
                by: trusted.name.clone(),
                patterns: trusted.plugins.clone(),
                name: subject.name.clone(),
            }),
        }
    }
}

impl TrustedKey {
    fn may_sign(&self, name: &str) -> bool {
        let mut patterns = self.plugins.iter();
        self.plugins.is_empty() || patterns.any(|pattern| matches(pattern, name))
    }
}

/// Whether a text can be a pattern of names: `*` is anything, everything else is itself.
#[must_use]
pub fn is_pattern(text: &str) -> bool {
    let letter = |letter: u8| letter.is_ascii_lowercase() || letter.is_ascii_digit();
    let fits = (1..=MOST_PATTERN_BYTES).contains(&text.len());
    fits && text
        .bytes()
        .all(|one| letter(one) || b"-_.*".contains(&one))
}

/// Whether a name is one of a pattern's. Takes the first place for each part between stars, so
/// that no pattern takes long.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((begin, rest)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let Some(mut left) = name.strip_prefix(begin) else {
        return false;
    };
    let (between, end) = rest.rsplit_once('*').unwrap_or(("", rest));
    for part in between.split('*') {
        match left.split_once(part) {
            Some((_, after)) => left = after,
            None => return false,
        }
    }
    left.ends_with(end)
}

#[cfg(test)]
mod tests {
    //! Who is believed, and what for.

    use super::*;
    use crate::signature::PrivateKey;
    use crate::signature::tests::{key, statement};

    fn trusting(key: &PrivateKey, plugins: &[&str], required: bool) -> Trust {
        let key = TrustedKey {
            name: "acme".to_owned(),
            key: key.public(),
            plugins: plugins.iter().map(|&name| name.to_owned()).collect(),
        };
        Trust {
            required,
            keys: vec![key],
        }
    }

    /// What is told of the plugin `greeter` with the bytes `component`.
    fn told(trust: &Trust, signature: Option<&Signature>) -> String {
        let said = statement("greeter");
        let subject = Subject {
            name: &said.name,
            kind: Kind::Component,
            digest: Digest::of(b"component"),
        };
        match trust.judge(subject, signature) {
            Ok(verdict) => format!("{verdict:?}"),
            Err(why) => why.to_string(),
        }
    }

    #[test]
    fn a_trusted_key_counts_for_its_plugins() {
        let signature = Signature::sign(statement("greeter"), &key(1));
        for (plugins, is_trusted) in [
            (&[][..], true),
            (&["greeter"], true),
            (&["other", "greet*"], true),
            (&["other"], false),
            (&["greet"], false),
        ] {
            let required = told(&trusting(&key(1), plugins, true), Some(&signature));
            assert_eq!(required.contains("Trusted"), is_trusted, "{required}");
            assert!(is_trusted || required.contains("may sign"), "{required}");
            let free = told(&trusting(&key(1), plugins, false), Some(&signature));
            assert_eq!(free.contains("Unknown"), !is_trusted, "{free}");
        }
        let mut both = trusting(&key(1), &["other"], true);
        both.keys.extend(trusting(&key(1), &["greeter"], true).keys);
        assert!(told(&both, Some(&signature)).contains("Trusted"));
    }

    #[test]
    fn what_is_not_signed_is_taken_only_where_it_need_not_be() {
        assert!(told(&trusting(&key(1), &[], true), None).contains("not signed"));
        assert_eq!(told(&trusting(&key(1), &[], false), None), "Unsigned");
        let by_other = Signature::sign(statement("greeter"), &key(2));
        let refused = told(&trusting(&key(1), &[], true), Some(&by_other));
        assert!(refused.contains("not among the trusted keys"), "{refused}");
        assert!(told(&Trust::default(), Some(&by_other)).contains("Unknown"));
    }

    #[test]
    fn a_wrong_signature_is_refused_even_where_none_is_needed() {
        let sign = |statement| Signature::sign(statement, &key(1));
        let mut forged = sign(statement("greeter"));
        forged.key = key(2).public();
        let mut version = sign(statement("greeter"));
        version.statement.version = "9".to_owned();
        let mut digest = statement("greeter");
        digest.digest = Digest::of(b"other");
        let mut kind = statement("greeter");
        kind.kind = Kind::Script;
        for (signature, why) in [
            (forged, "does not hold"),
            (version, "does not hold"),
            (sign(statement("other")), "for a plugin other"),
            (sign(digest), "changed after it was signed"),
            (sign(kind), "for a script"),
        ] {
            for required in [true, false] {
                let found = told(&trusting(&key(1), &[], required), Some(&signature));
                assert!(found.contains(why), "{found}");
            }
        }
    }

    #[test]
    fn patterns_are_names_with_stars() {
        for (pattern, name, fits) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("*", "anything", true),
            ("a*", "a", true),
            ("a*", "ba", false),
            ("*a", "ba", true),
            ("a*b", "ab", true),
            ("a*b", "a", false),
            ("a*a", "a", false),
            ("a**b", "a-b", true),
            ("a*b*c", "a1b2b3c", true),
            ("a*b*c", "a1c", false),
            ("a*bc*c", "abc", false),
        ] {
            assert_eq!(matches(pattern, name), fits, "{pattern} {name}");
        }
        assert!(is_pattern("acme-*") && !is_pattern("") && !is_pattern("a?") && !is_pattern("A"));
    }
}
