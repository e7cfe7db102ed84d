//! From how a task of this machine ended to what its worker reports.

use serde_json::{Map, Value, json};
use taskwright_model::{ExitStatus, Limit, Outcome};
use taskwright_queue::port::ReportedEnd;
use taskwright_queue::{Cause, Json};

use crate::folder::Written;

/// The report of an attempt that ended so, and wrote that.
///
/// A machine's failure is never told as the work's: the queue tries such an attempt again, and no
/// export takes it for the model's.
#[must_use]
pub fn of(outcome: &Outcome, written: Written) -> ReportedEnd {
    let failed = |error: String, cause| ReportedEnd::Failed {
        error,
        document: document(outcome, &written),
        cause,
    };
    match outcome {
        Outcome::Exited { code: 0, .. } => match &written {
            Written::Result(result) => ReportedEnd::Completed {
                result: result.clone(),
            },
            Written::Nothing => ReportedEnd::Completed {
                result: Json::of(&json!({"success": true, "exit_code": 0})),
            },
            Written::Unusable(why) => failed(
                format!("the command ended with 0, but its result cannot be taken: {why}"),
                Cause::Reported,
            ),
        },
        Outcome::Exited { code, message } => {
            let beside = message.as_deref().map(|text| format!(": {text}"));
            let beside = beside.unwrap_or_default();
            failed(
                format!("the command ended with {code}{beside}"),
                Cause::Reported,
            )
        }
        Outcome::Signaled { signal } => failed(
            format!("the command was ended by signal {signal}"),
            Cause::Reported,
        ),
        Outcome::OutOfMemory { .. } => failed(
            "the command needed more memory than it may have".to_owned(),
            Cause::Reported,
        ),
        Outcome::TimedOut { limit, .. } => {
            let (cause, text) = match limit {
                Limit::Run => (Cause::Reported, "it ran longer than its template allows"),
                Limit::Idle => (
                    Cause::Reported,
                    "it printed nothing for longer than its template allows",
                ),
                Limit::Queue => (
                    Cause::Infrastructure,
                    "this machine had no room for it in time",
                ),
                Limit::Start => (Cause::Infrastructure, "it could not be started in time"),
            };
            failed(text.to_owned(), cause)
        }
        // Neither was the work's doing, so neither may be read as its failure.
        Outcome::Canceled { .. } => failed(
            "somebody stopped it on the worker's machine".to_owned(),
            Cause::Infrastructure,
        ),
        Outcome::Denied { policy, reason } => failed(
            format!("the policy {policy} of the worker's machine refused it: {reason}"),
            Cause::Infrastructure,
        ),
        Outcome::PluginFault { runtime, message } => failed(
            format!("the runtime {runtime} failed: {message}"),
            Cause::Infrastructure,
        ),
        Outcome::Infrastructure { message, .. } => failed(message.clone(), Cause::Infrastructure),
        Outcome::Lost { message } => failed(
            format!("how it ended is not known: {message}"),
            Cause::Infrastructure,
        ),
    }
}

/// What programs may want to know of a failure.
fn document(outcome: &Outcome, written: &Written) -> Option<Json> {
    let mut document = Map::new();
    document.insert("outcome".to_owned(), outcome.cause().into());
    match outcome.exit() {
        Some(ExitStatus::Code(code)) => {
            document.insert("exit_code".to_owned(), code.into());
        }
        Some(ExitStatus::Signal(signal)) => {
            document.insert("signal".to_owned(), signal.into());
        }
        None => {}
    }
    if let Written::Result(result) = written {
        let value = serde_json::from_str(result.as_str()).unwrap_or(Value::Null);
        document.insert("result".to_owned(), value);
    }
    Some(Json::of(&Value::Object(document)))
}

#[cfg(test)]
mod tests {
    //! Whose doing an end is.
    #![expect(clippy::panic, reason = "tests")]
    use taskwright_model::Fault;

    use super::*;

    #[test]
    fn a_result_that_was_written_is_the_result() {
        let result = Json::of(&json!({"answer": 42}));
        let done = Outcome::Exited {
            code: 0,
            message: None,
        };
        let ReportedEnd::Completed { result: told } = of(&done, Written::Result(result)) else {
            panic!("it was completed");
        };
        assert_eq!(told.as_str(), r#"{"answer":42}"#);
        let ReportedEnd::Completed { result: told } = of(&done, Written::Nothing) else {
            panic!("it was completed");
        };
        assert!(told.as_str().contains("\"success\":true"));
        let unusable = of(&done, Written::Unusable("it is a link".to_owned()));
        assert!(matches!(unusable, ReportedEnd::Failed { .. }));
    }

    #[test]
    fn a_machines_failure_is_not_the_works() {
        let cause = |outcome: &Outcome| match of(outcome, Written::Nothing) {
            ReportedEnd::Failed { cause, .. } => cause,
            ReportedEnd::Completed { .. } => panic!("{outcome:?} is no success"),
        };
        let exited = Outcome::Exited {
            code: 3,
            message: None,
        };
        assert_eq!(cause(&exited), Cause::Reported);
        let timed_out = |limit| Outcome::TimedOut { limit, exit: None };
        assert_eq!(cause(&timed_out(Limit::Run)), Cause::Reported);
        assert_eq!(cause(&timed_out(Limit::Start)), Cause::Infrastructure);
        for fault in Fault::ALL {
            let outcome = Outcome::Infrastructure {
                fault,
                message: "x".to_owned(),
            };
            assert_eq!(cause(&outcome), Cause::Infrastructure, "{fault:?}");
        }
        let lost = Outcome::Lost {
            message: "x".to_owned(),
        };
        assert_eq!(cause(&lost), Cause::Infrastructure);
    }

    #[test]
    fn a_failure_keeps_what_it_wrote() {
        let exited = Outcome::Exited {
            code: 3,
            message: Some("no".to_owned()),
        };
        let written = Written::Result(Json::of(&json!({"steps": 4})));
        let ReportedEnd::Failed {
            error, document, ..
        } = of(&exited, written)
        else {
            panic!("it failed");
        };
        assert_eq!(error, "the command ended with 3: no");
        let document = document.map(|json| json.as_str().to_owned());
        let document = document.unwrap_or_default();
        assert!(document.contains("\"exit_code\":3") && document.contains("\"steps\":4"));
    }
}
