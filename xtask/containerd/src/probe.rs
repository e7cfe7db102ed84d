//! Whether the socket answers CRI calls: one `Version`, by hand.
//!
//! containerd opens its socket before its CRI service is ready, and refuses calls until then.
//! A whole gRPC client is too much for one question: the request is the same bytes each time,
//! and of the answer only its kind matters. HTTP/2 frames are as in RFC 9113, header fields are
//! literals without indexing as in RFC 7541, 6.2.2.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(5);
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADERS: [(&str, &str); 6] = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/runtime.v1.RuntimeService/Version"),
    (":authority", "localhost"),
    ("content-type", "application/grpc"),
    ("te", "trailers"),
];
/// Not compressed, no bytes: `VersionRequest` without its one field.
const MESSAGE: &[u8] = &[0, 0, 0, 0, 0];

const DATA_FRAME: u8 = 0;
const HEADERS_FRAME: u8 = 1;
const RESET_FRAME: u8 = 3;
const SETTINGS_FRAME: u8 = 4;
const GOODBYE_FRAME: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// Asks once.
///
/// # Errors
/// When nobody answers, or with a refusal.
pub fn version(socket: &Path) -> io::Result<()> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut request = PREFACE.to_vec();
    frame(&mut request, SETTINGS_FRAME, 0, 0, &[]);
    frame(&mut request, HEADERS_FRAME, END_HEADERS, 1, &fields());
    frame(&mut request, DATA_FRAME, END_STREAM, 1, MESSAGE);
    stream.write_all(&request)?;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head)?;
        let [a, b, c, kind, flags, ..] = head;
        let length = u32::from_be_bytes([0, a, b, c]);
        let mut payload = io::Read::by_ref(&mut stream).take(length.into());
        io::copy(&mut payload, &mut io::sink())?;
        match kind {
            // Only an answer has a message.
            DATA_FRAME => return Ok(()),
            HEADERS_FRAME if flags & END_STREAM != 0 => {
                return Err(io::Error::other("the CRI service refuses calls"));
            }
            RESET_FRAME | GOODBYE_FRAME => {
                return Err(io::Error::other("the server of the socket hung up"));
            }
            _ => {}
        }
    }
}

fn fields() -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in HEADERS {
        bytes.push(0);
        for text in [name, value] {
            // Shorter than 127 bytes, so the length is one byte.
            bytes.push(u8::try_from(text.len()).unwrap_or_default());
            bytes.extend_from_slice(text.as_bytes());
        }
    }
    bytes
}

fn frame(bytes: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap_or_default();
    let [_, length @ ..] = length.to_be_bytes();
    bytes.extend_from_slice(&length);
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use std::os::unix::net::UnixListener;

    use super::*;

    /// Answers one call with these frames.
    fn answered(name: &str, frames: &[(u8, u8)]) -> io::Result<()> {
        let socket = std::env::temp_dir().join(format!("tw-{name}-{}", std::process::id()));
        let listener = UnixListener::bind(&socket).unwrap();
        let mut bytes = Vec::new();
        for (kind, flags) in frames {
            frame(&mut bytes, *kind, *flags, 1, &[0; 3]);
        }
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(&bytes).unwrap();
            // Until the client hangs up.
            let _ = io::copy(&mut stream, &mut io::sink());
        });
        let answer = version(&socket);
        server.join().unwrap();
        std::fs::remove_file(socket).unwrap();
        answer
    }

    #[test]
    fn a_message_is_an_answer() {
        let frames = [
            (SETTINGS_FRAME, 0),
            (HEADERS_FRAME, END_HEADERS),
            (DATA_FRAME, 0),
        ];
        answered("answer", &frames).unwrap();
    }

    #[test]
    fn a_refusal_or_silence_is_none() {
        let refusal = [
            (SETTINGS_FRAME, 0),
            (HEADERS_FRAME, END_HEADERS | END_STREAM),
        ];
        answered("refusal", &refusal).unwrap_err();
        answered("goodbye", &[(GOODBYE_FRAME, 0)]).unwrap_err();
        version(Path::new("/nowhere/containerd.sock")).unwrap_err();
    }
}
