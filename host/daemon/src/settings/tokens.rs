//! The tokens that the API accepts. Only their digests are kept, in memory as on disk.

use std::path::Path;

use anyhow::{Context as _, bail};
use sha2::{Digest as _, Sha256};
use taskwright_api::Scope;

/// The largest token file that is read.
const MOST_FILE_BYTES: u64 = 1 << 20;

/// One token.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct TokenEntry {
    /// What people call it.
    pub(crate) name: String,
    /// SHA-256 of the token.
    pub(crate) sha256: [u8; 32],
    /// What it allows.
    pub(crate) scope: Scope,
}

impl std::fmt::Debug for TokenEntry {
    /// A digest of a weak token can be guessed, so it stays out of logs too.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.name, self.scope.as_str())
    }
}

/// Reads a digest: 64 hexadecimal digits, with or without `sha256:` before them.
///
/// # Errors
/// A sentence that says what is allowed.
pub(crate) fn parse_digest(text: &str) -> Result<[u8; 32], String> {
    let digits = text.strip_prefix("sha256:").unwrap_or(text);
    let mut digest = [0; 32];
    hex::decode_to_slice(digits, &mut digest)
        .map_err(|_| "64 hexadecimal digits are wanted, as sha256sum prints them".to_owned())?;
    Ok(digest)
}

/// Reads a token file: one token on each line, `SCOPE TOKEN`, or a token alone, which then
/// may do everything. A token may stand there as `sha256:DIGEST`. `#` begins a comment.
///
/// # Errors
/// With the line that is wrong; never with its content.
pub(crate) fn read_file(path: &Path) -> anyhow::Result<Vec<TokenEntry>> {
    let size = std::fs::metadata(path)
        .with_context(|| format!("read the token file {}", path.display()))?
        .len();
    if size > MOST_FILE_BYTES {
        bail!(
            "the token file {} has {size} bytes, which is too large",
            path.display()
        );
    }
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("read the token file {}", path.display()))?;
    let tokens = parse_lines(&text).with_context(|| format!("token file {}", path.display()))?;
    if tokens.is_empty() {
        bail!("the token file {} holds no token", path.display());
    }
    Ok(tokens)
}

fn parse_lines(text: &str) -> anyhow::Result<Vec<TokenEntry>> {
    let mut tokens = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        let (scope, token) = match words.as_slice() {
            // A scope whose token was forgotten is not a token that everybody can guess.
            [word] if Scope::parse(word).is_ok() => return Err(bad_line(number)),
            [token] => (Scope::Admin, *token),
            [scope, token] => (Scope::parse(scope).map_err(|_| bad_line(number))?, *token),
            _ => return Err(bad_line(number)),
        };
        let sha256 = if token.starts_with("sha256:") {
            parse_digest(token).map_err(|_| bad_line(number))?
        } else {
            Sha256::digest(token.as_bytes()).into()
        };
        tokens.push(TokenEntry {
            name: format!("line {number}"),
            sha256,
            scope,
        });
    }
    Ok(tokens)
}

/// Without the line itself: it may hold a secret.
fn bad_line(number: usize) -> anyhow::Error {
    anyhow::anyhow!("line {number}: `SCOPE TOKEN` is wanted, the scope being read, submit or admin")
}

#[cfg(test)]
mod tests {
    #![expect(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        reason = "a test that cannot go on has failed"
    )]

    use super::*;

    #[test]
    fn lines_are_read_and_hashed() {
        let tokens = parse_lines("# ours\n\nread abc\nsecret\n").unwrap();
        let told: Vec<_> = tokens
            .iter()
            .map(|token| (token.name.as_str(), token.scope))
            .collect();
        assert_eq!(told, [("line 3", Scope::Read), ("line 4", Scope::Admin)]);
        let digest = hex::encode(tokens[0].sha256);
        assert_eq!(
            digest,
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(
            parse_lines(&format!("sha256:{digest}")).unwrap()[0].sha256,
            tokens[0].sha256
        );
    }

    #[test]
    fn a_wrong_line_is_named_and_not_shown() {
        let error = parse_lines("read abc\nwrite s3cret\n")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("line 2") && !error.contains("s3cret"),
            "{error}"
        );
        for scope in ["read", "submit", "admin"] {
            assert!(parse_lines(scope).is_err(), "{scope}");
        }
    }
}
