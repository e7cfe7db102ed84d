//! What one call asked of the host: noted as it was answered, or answered as it was noted.
//!
//! Off, which is the rule, it costs the look whether it is on. All that reaches a guest beside its
//! arguments passes here: the host functions by `import::taped`, the clocks and random numbers that
//! it was lent by `wasi::lent`. What else there is of WASI is the same for every repeat by itself.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::call::CallError;
use crate::convert;
use crate::record::{HostCall, MOST_LINE_BYTES, Record};

/// How long a call waits until it is on record. A disk that hangs must not hold tasks up.
const MOST_WRITING: Duration = Duration::from_secs(5);

/// The tape of one call. Clones are the same tape.
#[derive(Clone, Default)]
pub(crate) struct Tape(Option<Arc<Mutex<Reel>>>);

enum Reel {
    Recording(Recording),
    Playing(Playing),
}

/// A call that is being noted.
struct Recording {
    record: Arc<Record>,
    export: &'static str,
    /// As JSON.
    arguments: String,
    /// The host calls so far, as elements of a JSON list.
    calls: String,
    /// Whether the last of them has no answer yet.
    open: bool,
    /// Whether there was more than a line holds.
    too_long: bool,
}

/// A call that is being repeated.
struct Playing {
    about: String,
    left: VecDeque<HostCall>,
    /// The host call that comes next, counted from 1.
    number: usize,
    /// Where it left the record.
    differs: Option<String>,
    /// Whether it came to a host call that was never answered.
    cut_off: bool,
}

/// How a call that was repeated went along its record.
pub(crate) enum Along {
    /// As noted to the end.
    Same,
    /// To a host call that was not answered then either.
    CutOff,
    /// It left it; the sentence says where.
    Left(String),
}

/// A repeated call that asks for what its record does not have.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct OffRecord(String);

impl Tape {
    /// Notes a call of `export`, if there is a record.
    pub(crate) fn recording(
        record: Option<&Arc<Record>>,
        export: &'static str,
        arguments: &impl Serialize,
    ) -> Self {
        let Some(record) = record.filter(|record| record.takes_more()) else {
            return Self::default();
        };
        let (arguments, too_long) = match serde_json::to_string(arguments) {
            Ok(arguments) if arguments.len() <= MOST_LINE_BYTES => (arguments, false),
            Ok(_) | Err(_) => ("null".to_owned(), true),
        };
        Self::of(Reel::Recording(Recording {
            record: Arc::clone(record),
            export,
            arguments,
            calls: String::new(),
            open: false,
            too_long,
        }))
    }

    /// Answers as was noted of a call that was about `about`.
    pub(crate) fn playing(about: String, calls: Vec<HostCall>) -> Self {
        Self::of(Reel::Playing(Playing {
            about,
            left: calls.into(),
            number: 1,
            differs: None,
            cut_off: false,
        }))
    }

    fn of(reel: Reel) -> Self {
        Self(Some(Arc::new(Mutex::new(reel))))
    }

    /// Whether anything is noted or played.
    pub(crate) fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// What the call is about, if that was noted.
    pub(crate) fn about(&self) -> Option<String> {
        match &*self.0.as_ref()?.lock() {
            Reel::Recording(_) => None,
            Reel::Playing(playing) => Some(playing.about.clone()),
        }
    }

    /// The guest asks the host for something. The noted answer, or none where the host is to give
    /// one, which [`Tape::answered`] is then told.
    pub(crate) fn asked<R: DeserializeOwned>(
        &self,
        function: &str,
        arguments: &impl Serialize,
    ) -> wasmtime::Result<Option<R>> {
        let Some(reel) = &self.0 else {
            return Ok(None);
        };
        match &mut *reel.lock() {
            Reel::Recording(recording) => {
                recording.asked(function, arguments);
                Ok(None)
            }
            Reel::Playing(playing) => {
                let noted = playing.asked(function, arguments);
                noted.map(Some).map_err(wasmtime::Error::new)
            }
        }
    }

    /// What the host answered.
    pub(crate) fn answered(&self, answer: &impl Serialize) {
        if let Some(reel) = &self.0
            && let Reel::Recording(recording) = &mut *reel.lock()
        {
            recording.answered(answer);
        }
    }

    /// A value that cannot be refused: noted if it is made, played if it was noted. None where the
    /// record has another, which ends the call when it next asks for anything.
    pub(crate) fn value<R: Serialize + DeserializeOwned>(
        &self,
        function: &str,
        arguments: &impl Serialize,
        make: impl FnOnce() -> R,
    ) -> Option<R> {
        match self.asked(function, arguments) {
            Ok(Some(noted)) => Some(noted),
            Ok(None) => {
                let made = make();
                self.answered(&made);
                Some(made)
            }
            Err(_) => None,
        }
    }

    /// The call is over: it goes on record, if it is noted.
    pub(crate) async fn finish<T: Serialize>(
        &self,
        about: &str,
        used_http: bool,
        answer: &Result<T, CallError>,
        took: Duration,
    ) {
        let Some((record, line)) = self.line(about, used_http, answer, took) else {
            return;
        };
        let writing = tokio::task::spawn_blocking(move || record.write(&line));
        // What a disk does that takes longer, it does without this call.
        let _late = tokio::time::timeout(MOST_WRITING, writing).await;
    }

    fn line<T: Serialize>(
        &self,
        about: &str,
        used_http: bool,
        answer: &Result<T, CallError>,
        took: Duration,
    ) -> Option<(Arc<Record>, String)> {
        let reel = self.0.as_ref()?;
        let Reel::Recording(recording) = &mut *reel.lock() else {
            return None;
        };
        recording.close();
        let record = Arc::clone(&recording.record);
        let export = recording.export;
        let line = outcome(answer).ok().and_then(|outcome| {
            let about = serde_json::to_string(about).ok()?;
            let took = took.as_micros();
            let Recording {
                arguments, calls, ..
            } = recording;
            let line = format!(
                "{{\"export\":\"{export}\",\"about\":{about},\"http\":{used_http},\
                 \"arguments\":{arguments},\"calls\":[{calls}],{outcome},\"took_us\":{took}}}\n"
            );
            (!recording.too_long && line.len() <= MOST_LINE_BYTES).then_some(line)
        });
        let line = line.unwrap_or_else(|| {
            format!("{{\"export\":\"{export}\",\"about\":\"\",\"left_out\":true}}\n")
        });
        Some((record, line))
    }

    /// How a repeated call went along its record.
    pub(crate) fn along(&self) -> Along {
        let Some(reel) = &self.0 else {
            return Along::Same;
        };
        match &*reel.lock() {
            Reel::Recording(_) => Along::Same,
            Reel::Playing(playing) => playing.along(),
        }
    }
}

/// How a call ended, as a field of a JSON object.
fn outcome<T: Serialize>(answer: &Result<T, CallError>) -> serde_json::Result<String> {
    let (word, sentence) = match answer {
        Ok(answer) => return Ok(format!("\"answer\":{}", serde_json::to_string(answer)?)),
        Err(CallError::Plugin(sentence)) => ("plugin", sentence),
        Err(CallError::Host(sentence)) => ("host", sentence),
    };
    let sentence = serde_json::to_string(sentence)?;
    Ok(format!("\"error\":{{\"{word}\":{sentence}}}"))
}

impl Recording {
    fn asked(&mut self, function: &str, arguments: &impl Serialize) {
        self.close();
        let arguments = serde_json::to_string(arguments).unwrap_or_default();
        if !self.has_room(arguments.len()) {
            return;
        }
        if !self.calls.is_empty() {
            self.calls.push(',');
        }
        self.calls.push_str(&format!(
            "{{\"function\":\"{function}\",\"arguments\":{arguments}"
        ));
        self.open = true;
    }

    fn answered(&mut self, answer: &impl Serialize) {
        let answer = serde_json::to_string(answer).unwrap_or_default();
        if self.open && self.has_room(answer.len()) {
            self.calls.push_str(",\"answer\":");
            self.calls.push_str(&answer);
        }
        self.close();
    }

    /// Nothing that is left out is played as if it were all.
    fn has_room(&mut self, bytes: usize) -> bool {
        if bytes == 0 || self.calls.len().saturating_add(bytes) > MOST_LINE_BYTES {
            self.too_long = true;
            self.calls.clear();
            self.open = false;
        }
        !self.too_long
    }

    fn close(&mut self) {
        if self.open {
            self.calls.push('}');
            self.open = false;
        }
    }
}

impl Playing {
    fn asked<R: DeserializeOwned>(
        &mut self,
        function: &str,
        arguments: &impl Serialize,
    ) -> Result<R, OffRecord> {
        if let Some(before) = &self.differs {
            return Err(OffRecord(before.clone()));
        }
        let arguments = serde_json::to_value(arguments).unwrap_or_default();
        let number = self.number;
        let asked = format!("host call {number}: it asked for {function} {arguments}");
        let Some(noted) = self.left.pop_front() else {
            return Err(self.leave(format!("{asked}, where the record has no more")));
        };
        self.number += 1;
        if noted.function != function || noted.arguments != arguments {
            let sentence = format!("{asked}, where the record has {noted}");
            return Err(self.leave(sentence));
        }
        let Some(answer) = noted.answer else {
            self.cut_off = true;
            let sentence = format!("host call {number} to {function} was never answered");
            return Err(OffRecord(sentence));
        };
        serde_json::from_value(answer).map_err(|error| {
            self.leave(format!(
                "{asked}, whose noted answer is none that this version knows: {error}"
            ))
        })
    }

    fn leave(&mut self, sentence: String) -> OffRecord {
        let sentence = convert::text(sentence);
        self.differs = Some(sentence.clone());
        OffRecord(sentence)
    }

    fn along(&self) -> Along {
        match (&self.differs, self.left.front()) {
            (Some(sentence), _) => Along::Left(sentence.clone()),
            (None, _) if self.cut_off => Along::CutOff,
            (None, Some(next)) => Along::Left(convert::text(format!(
                "host call {}: it ended, where the record has {next}",
                self.number
            ))),
            (None, None) => Along::Same,
        }
    }
}

/// How a call ended, as a record has it.
pub(crate) fn ended<T: Serialize>(answer: &Result<T, CallError>) -> serde_json::Result<Value> {
    serde_json::from_str(&format!("{{{}}}", outcome(answer)?))
}
