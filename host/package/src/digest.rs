//! SHA-256 of bytes, written `sha256:HEX` as registries do.

use std::fmt;

use sha2::{Digest as _, Sha256};

/// The digest of some bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

/// It is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a digest is `sha256:` and 64 hexadecimal digits in small letters")]
pub struct NoDigest;

impl Digest {
    /// That of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Reads `sha256:HEX`, in small letters only: there is one way to write each.
    ///
    /// # Errors
    /// [`NoDigest`].
    pub fn parse(text: &str) -> Result<Self, NoDigest> {
        let digits = text.strip_prefix("sha256:").ok_or(NoDigest)?;
        if digits.bytes().any(|digit| digit.is_ascii_uppercase()) {
            return Err(NoDigest);
        }
        let mut bytes = [0; 32];
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| NoDigest)?;
        Ok(Self(bytes))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", hex::encode(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    //! Written and read.

    use super::*;

    #[test]
    fn there_is_one_way_to_write_a_digest() {
        let digest = Digest::of(b"");
        let text = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(digest.to_string(), text);
        assert_eq!(Digest::parse(text), Ok(digest));
        for wrong in [
            "",
            "sha256:",
            &text[7..],
            &text[..70],
            &text.to_uppercase(),
            &text.replace("sha256", "sha512"),
            &format!("{text}00"),
            &format!(" {text}"),
        ] {
            assert_eq!(Digest::parse(wrong), Err(NoDigest), "{wrong}");
        }
        let upper = format!("sha256:{}", text[7..].to_uppercase());
        assert_eq!(Digest::parse(&upper), Err(NoDigest));
    }
}
