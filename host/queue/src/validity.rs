//! Whether what came of an attempt says anything about whoever made it.
//!
//! A data set must not take a machine's failure for the model's: so each row of an export
//! says whose doing its end was, and whether it may be learned from.

use crate::task::Cause;

/// Where an attempt was cut off, though nobody failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Its last step says so.
    Told,
    /// It made as many steps as it may, and none of them was its own end.
    StepLimit,
    /// It is longer than a row may be: what follows is left out here.
    Size,
}

impl Cut {
    /// The word for it, on the wire.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Told => "cut-off",
            Self::StepLimit => "step-limit",
            Self::Size => "size",
        }
    }
}

/// What an attempt, or a task, may be taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mark {
    /// It came to an end of its own, good or bad.
    Valid,
    /// It says nothing about whoever made it.
    Invalid,
    /// It is true as far as it goes, and does not go to an end of its own.
    Truncated,
}

impl Mark {
    /// Each of them.
    pub const ALL: [Self; 3] = [Self::Valid, Self::Invalid, Self::Truncated];

    /// The word for it, on the wire.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::Invalid => "invalid",
            Self::Truncated => "truncated",
        }
    }

    /// The mark with this word.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mark| mark.word() == word)
    }
}

/// A mark, and why it is not [`Mark::Valid`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The mark.
    pub mark: Mark,
    /// Why: the word of a cause or of a cut, or `not-ended`.
    pub reason: Option<&'static str>,
}

impl Validity {
    /// Judges by whose doing the end was (`None` where it has not ended) and where it was cut off.
    #[must_use]
    pub fn judge(cause: Option<Cause>, cut: Option<Cut>) -> Self {
        let marked = |mark, reason| Self {
            mark,
            reason: Some(reason),
        };
        match (cause, cut) {
            // A machine's failure outweighs everything: nothing after it was seen.
            (Some(cause), _) if cause.is_machines() => marked(Mark::Invalid, cause.word()),
            (Some(cause @ Cause::Cancelled), _) => marked(Mark::Invalid, cause.word()),
            (Some(cause @ Cause::TimeLimit), _) => marked(Mark::Truncated, cause.word()),
            (None, _) => marked(Mark::Truncated, "not-ended"),
            (Some(_), Some(cut)) => marked(Mark::Truncated, cut.word()),
            (Some(_), None) => Self {
                mark: Mark::Valid,
                reason: None,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    //! The whole table.
    use super::*;

    #[test]
    fn each_end_is_judged() {
        use Mark::{Invalid, Truncated, Valid};
        let table = [
            (Some(Cause::Reported), None, Valid, None),
            (
                Some(Cause::Reported),
                Some(Cut::Told),
                Truncated,
                Some("cut-off"),
            ),
            (
                Some(Cause::Reported),
                Some(Cut::StepLimit),
                Truncated,
                Some("step-limit"),
            ),
            (
                Some(Cause::Reported),
                Some(Cut::Size),
                Truncated,
                Some("size"),
            ),
            (Some(Cause::TimeLimit), None, Truncated, Some("time-limit")),
            (
                Some(Cause::TimeLimit),
                Some(Cut::Size),
                Truncated,
                Some("time-limit"),
            ),
            (Some(Cause::WorkerLost), None, Invalid, Some("worker-lost")),
            (
                Some(Cause::WorkerLost),
                Some(Cut::Told),
                Invalid,
                Some("worker-lost"),
            ),
            (
                Some(Cause::WorkerRestarted),
                None,
                Invalid,
                Some("worker-restarted"),
            ),
            (
                Some(Cause::Infrastructure),
                Some(Cut::StepLimit),
                Invalid,
                Some("infrastructure"),
            ),
            (Some(Cause::Cancelled), None, Invalid, Some("cancelled")),
            (None, None, Truncated, Some("not-ended")),
            (None, Some(Cut::Size), Truncated, Some("not-ended")),
        ];
        for (cause, cut, mark, reason) in table {
            assert_eq!(
                Validity::judge(cause, cut),
                Validity { mark, reason },
                "{cause:?} {cut:?}"
            );
        }
    }

    #[test]
    fn no_failure_of_a_machine_is_ever_valid() {
        for cause in Cause::ALL {
            for cut in [None, Some(Cut::Told), Some(Cut::StepLimit), Some(Cut::Size)] {
                let judged = Validity::judge(Some(cause), cut);
                if cause.is_machines() {
                    assert_eq!(judged.mark, Mark::Invalid, "{cause:?} {cut:?}");
                }
            }
        }
    }
}
