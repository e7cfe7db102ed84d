//! JSON, written by hand into a buffer that is there: documents that are kept go through
//! without being read again.

use std::io::Write as _;

use taskwright_model::Timestamp;
use taskwright_queue::Json;

/// An object that is being written.
pub(super) struct Object<'o> {
    out: &'o mut Vec<u8>,
    first: bool,
}

impl<'o> Object<'o> {
    /// Opens one.
    pub(super) fn open(out: &'o mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, first: true }
    }

    /// Goes on with one that has fields already.
    pub(super) fn more(out: &'o mut Vec<u8>) -> Self {
        Self { out, first: false }
    }

    /// The name of the next field; its value is the caller's to write. Names are plain.
    pub(super) fn name(&mut self, name: &str) -> &mut Vec<u8> {
        if !self.first {
            self.out.push(b',');
        }
        self.first = false;
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }

    pub(super) fn text(&mut self, name: &str, value: &str) {
        text(self.name(name), value);
    }

    pub(super) fn opt_text(&mut self, name: &str, value: Option<&str>) {
        match value {
            Some(value) => self.text(name, value),
            None => self.null(name),
        }
    }

    /// A number, a switch, or a text that needs no escapes and is written with its quotes.
    pub(super) fn plain(&mut self, name: &str, value: impl std::fmt::Display) {
        // Writing to memory cannot fail.
        let _ = write!(self.name(name), "{value}");
    }

    pub(super) fn opt_plain(&mut self, name: &str, value: Option<impl std::fmt::Display>) {
        match value {
            Some(value) => self.plain(name, value),
            None => self.null(name),
        }
    }

    /// A finite number, as JSON has it.
    pub(super) fn opt_real(&mut self, name: &str, value: Option<f64>) {
        match value.and_then(serde_json::Number::from_f64) {
            Some(value) => self.plain(name, value),
            None => self.null(name),
        }
    }

    pub(super) fn time(&mut self, name: &str, at: Timestamp) {
        let time = jiff::Timestamp::from_millisecond(at.as_millis()).unwrap_or_default();
        self.plain(name, format_args!("\"{time:.3}\""));
    }

    pub(super) fn opt_time(&mut self, name: &str, at: Option<Timestamp>) {
        match at {
            Some(at) => self.time(name, at),
            None => self.null(name),
        }
    }

    pub(super) fn raw(&mut self, name: &str, value: &Json) {
        raw(self.name(name), value);
    }

    pub(super) fn opt_raw(&mut self, name: &str, value: Option<&Json>) {
        match value {
            Some(value) => self.raw(name, value),
            None => self.null(name),
        }
    }

    pub(super) fn null(&mut self, name: &str) {
        self.name(name).extend_from_slice(b"null");
    }

    pub(super) fn close(self) {
        self.out.push(b'}');
    }
}

/// A text with its escapes.
pub(super) fn text(out: &mut Vec<u8>, value: &str) {
    // Writing to memory cannot fail.
    let _ = serde_json::to_writer(out, value);
}

/// A document as it is kept, on one line: between the tokens of one, and nowhere else, may be
/// line breaks.
pub(super) fn raw(out: &mut Vec<u8>, value: &Json) {
    let bytes = value.as_str().as_bytes();
    let from = out.len();
    out.extend_from_slice(bytes);
    if bytes.contains(&b'\n') || bytes.contains(&b'\r') {
        for byte in out.iter_mut().skip(from) {
            if matches!(*byte, b'\n' | b'\r') {
                *byte = b' ';
            }
        }
    }
}

#[cfg(test)]
mod tests {
    //! What is written is JSON on one line.
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn an_object_is_json_on_one_line() {
        let mut out = Vec::new();
        let mut object = Object::open(&mut out);
        object.text("a", "x\n\"y\u{0}");
        object.opt_text("b", None);
        object.plain("c", 7);
        object.opt_real("d", Some(0.5));
        object.opt_real("e", Some(f64::NAN));
        object.time("f", Timestamp::from_millis(0));
        object.raw("g", &Json::parse("{\"a\":\r\n [1.0e2]}").unwrap());
        object.close();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(
            text,
            "{\"a\":\"x\\n\\\"y\\u0000\",\"b\":null,\"c\":7,\"d\":0.5,\"e\":null,\
             \"f\":\"1970-01-01T00:00:00.000Z\",\"g\":{\"a\":   [1.0e2]}}"
        );
        serde_json::from_str::<serde_json::Value>(&text).unwrap();
    }
}
