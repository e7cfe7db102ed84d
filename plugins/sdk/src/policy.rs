//! What policies are written with: the trait [`Policy`] and what it speaks of.

pub use crate::generated_policy::exports::taskwright::plugin::policy::{
    Answer, Change, Denial, Description, Guest as Policy, Question, Request, Stage, Verdict,
};
