//! Names of images, as registries and runtimes have them: `[host[:port]/]path[:tag][@algorithm:hex]`.
//!
//! Only what no runtime could take is a problem: whether an image is there is found out when it
//! is needed. The id of an image, `sha256:hex`, has the form of a path with a tag.

use super::json::Node;

/// The longest name, as a path of the kernel's: runtimes keep it in labels and files.
const MOST_BYTES: usize = 4096;
/// The longest path of a repository that registries have.
const MOST_PATH_BYTES: usize = 255;
/// The longest tag.
const MOST_TAG_BYTES: usize = 128;
/// The shortest digest that is one.
const LEAST_DIGEST_DIGITS: usize = 32;

/// Adds a problem for a name that no image can have.
pub(super) fn check(node: &Node<'_>, name: &str) {
    if let Err(why) = parse(name) {
        node.problem(format!(
            "is no name of an image: {why}; write [host[:port]/]path[:tag][@algorithm:hex], as \
             registry.example:5000/team/app:1.2"
        ));
    }
}

fn parse(name: &str) -> Result<(), &'static str> {
    if name.len() > MOST_BYTES {
        return Err("it has more than 4096 bytes");
    }
    if name.chars().any(|it| it.is_whitespace() || it.is_control()) {
        return Err("it holds a space or a control character");
    }
    let (rest, digest) = match name.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (name, None),
    };
    // Before the last `/` a colon is a port's.
    let path_begins = rest.rfind('/').map_or(0, |slash| slash + 1);
    let (repository, tag) = match rest.rfind(':').filter(|colon| *colon >= path_begins) {
        Some(colon) => (rest.get(..colon).unwrap_or_default(), rest.get(colon + 1..)),
        None => (rest, None),
    };
    let path = match repository.split_once('/') {
        Some((host, path)) if is_meant_as_host(host) => {
            if !is_host(host) {
                return Err("before its first / is no host, with a port or without");
            }
            path
        }
        _ => repository,
    };
    if path.len() > MOST_PATH_BYTES {
        return Err("its repository has more than 255 bytes");
    }
    if path.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err("its repository must be in lower case");
    }
    if !path.split('/').all(is_component) {
        return Err(
            "each part of its repository must be of a-z and 0-9, with one of . or _, with __ or \
             with - between them",
        );
    }
    if !tag.is_none_or(is_tag) {
        return Err("its tag must be at most 128 of a-z, A-Z, 0-9, _, . and -, first no . or -");
    }
    if !digest.is_none_or(is_digest) {
        return Err("its digest must be an algorithm and what it makes, as sha256:hex");
    }
    Ok(())
}

/// Whether what stands before the first `/` is a host and no part of a path. Paths are in lower
/// case, so a name in upper case is taken for a host as well.
fn is_meant_as_host(text: &str) -> bool {
    text == "localhost"
        || text
            .bytes()
            .any(|byte| b".:[".contains(&byte) || byte.is_ascii_uppercase())
}

fn is_host(text: &str) -> bool {
    let is_port = |port: &str| {
        (1..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit())
    };
    if let Some((address, behind)) = text.strip_prefix('[').and_then(|it| it.split_once(']')) {
        let allowed = |byte: u8| byte.is_ascii_hexdigit() || byte == b':';
        return !address.is_empty()
            && address.bytes().all(allowed)
            && (behind.is_empty() || behind.strip_prefix(':').is_some_and(is_port));
    }
    let (name, port) = match text.split_once(':') {
        Some((name, port)) => (name, Some(port)),
        None => (text, None),
    };
    let is_label = |label: &str| {
        !label.is_empty()
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.split('.').all(is_label) && port.is_none_or(is_port)
}

/// Letters and digits, with separators only between them.
fn is_component(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let edges = [text.bytes().next(), text.bytes().next_back()];
    if !edges.into_iter().all(|edge| edge.is_some_and(is_word)) {
        return false;
    }
    let mut separators = text.split(|it: char| it.is_ascii_lowercase() || it.is_ascii_digit());
    separators.all(|between| {
        matches!(between, "." | "_" | "__") || between.bytes().all(|byte| byte == b'-')
    })
}

fn is_tag(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (1..=MOST_TAG_BYTES).contains(&text.len())
        && text.bytes().next().is_some_and(is_word)
        && text
            .bytes()
            .all(|byte| is_word(byte) || byte == b'.' || byte == b'-')
}

fn is_digest(text: &str) -> bool {
    let Some((algorithm, digits)) = text.split_once(':') else {
        return false;
    };
    let mut words = algorithm.split(['-', '_', '+', '.']);
    let is_algorithm = words.all(|word| {
        word.starts_with(|first: char| first.is_ascii_alphabetic())
            && word.bytes().all(|byte| byte.is_ascii_alphanumeric())
    });
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let is_long_enough = match algorithm {
        "sha256" => digits.len() == 64,
        "sha384" => digits.len() == 96,
        "sha512" => digits.len() == 128,
        _ => digits.len() >= LEAST_DIGEST_DIGITS,
    };
    is_algorithm && is_long_enough && digits.bytes().all(is_hex)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_images_have_are_taken() {
        let hex = "0123456789abcdef".repeat(4);
        for name in [
            "a",
            "busybox",
            "ubuntu:latest",
            "library/busybox",
            "localhost/x/y:1",
            "localhost:5000/x",
            "localhost:5000",
            "registry.example:5000/team/app:1.2",
            "10.0.0.7:5000/app",
            "[2001:db8::1]:5000/app:1",
            "REGISTRY/app",
            "a-b--c/d__e/f.g_h:V1.0-rc_2",
            "aaaa",
            &hex,
            &hex[..12],
            &format!("sha256:{hex}"),
            &format!("busybox@sha256:{hex}"),
            &format!("localhost/x:1@sha256:{hex}"),
            &format!("x@sha512:{hex}{hex}"),
            &format!("x@sha256+b64u.k:{hex}"),
            &format!("x:{}", "t".repeat(128)),
            &"x".repeat(255),
        ] {
            assert_eq!(parse(name), Ok(()), "{name}");
        }
    }

    #[test]
    fn what_no_image_is_named_is_refused() {
        let hex = "0123456789abcdef".repeat(4);
        for (name, text) in [
            (" busybox", "space"),
            ("busy box", "space"),
            ("busybox\n", "control"),
            ("busy\u{7f}box", "control"),
            ("Busybox", "lower case"),
            ("team/App:1", "lower case"),
            ("registry.example/Team/app", "lower case"),
            ("busyböx", "a-z"),
            ("-x", "a-z"),
            ("x.", "a-z"),
            ("x..y", "a-z"),
            ("x___y", "a-z"),
            ("x._y", "a-z"),
            ("x//y", "a-z"),
            ("/x", "a-z"),
            ("x/", "a-z"),
            ("localhost/", "a-z"),
            ("", "a-z"),
            (":1", "a-z"),
            ("https://registry.example/app", "host"),
            ("regi_stry.example/app", "host"),
            ("registry.example:port/app", "host"),
            ("registry.example:123456/app", "host"),
            ("-registry.example/app", "host"),
            ("registry..example/app", "host"),
            ("[::1/app", "host"),
            ("[]/app", "host"),
            ("x:", "tag"),
            ("x:-1", "tag"),
            ("x:1:2", "a-z"),
            ("x:a+b", "tag"),
            (&format!("x:{}", "t".repeat(129)), "tag"),
            ("x@", "digest"),
            ("x@sha256", "digest"),
            ("x@sha256:0123", "digest"),
            (&format!("x@sha256:{}", hex.to_uppercase()), "digest"),
            (&format!("x@sha256:{hex}0"), "digest"),
            (&format!("x@:{hex}"), "digest"),
            (&format!("x@sha256:{hex}@sha256:{hex}"), "digest"),
            (&format!("@sha256:{hex}"), "a-z"),
            (&"x".repeat(256), "255"),
            (&"x".repeat(4097), "4096"),
        ] {
            let found = parse(name);
            assert!(
                found.is_err_and(|why| why.contains(text)),
                "{name}: {found:?}"
            );
        }
    }
}
