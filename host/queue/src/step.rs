//! Steps of a trajectory: what a worker saw, did and got for it, one after another.
//!
//! A step is one JSON object, kept verbatim; what the queue needs to know of it (its number,
//! its reward, whether it was the last) stands beside it.

use taskwright_model::{TaskId, Timestamp};

use crate::json::Json;

/// A step to be kept.
#[derive(Clone, Debug)]
pub struct NewStep {
    /// Its number in the attempt. The same number again is the same step.
    pub number: u64,
    /// When it was made; the time of arrival where nobody told.
    pub at: Option<Timestamp>,
    /// What it was worth: finite, and no larger than [`Step::LARGEST_REWARD`].
    pub reward: Option<f64>,
    /// Whether the episode came to its own end with it.
    pub terminated: bool,
    /// Whether the episode was cut off after it.
    pub truncated: bool,
    /// The whole step as it was sent: an object.
    pub body: Json,
}

/// A step on record.
#[derive(Clone, Debug)]
pub struct Step {
    /// Of which task.
    pub task: TaskId,
    /// Of which attempt at it; 0 is that of a task which nobody had claimed yet.
    pub attempt: u32,
    /// Its number in the attempt.
    pub number: u64,
    /// When it was made.
    pub at: Timestamp,
    /// What it was worth.
    pub reward: Option<f64>,
    /// Whether the episode came to its own end with it.
    pub terminated: bool,
    /// Whether the episode was cut off after it.
    pub truncated: bool,
    /// The whole step as it was sent: an object.
    pub body: Json,
}

impl Step {
    /// The largest number, and so the bound on how many steps an attempt has.
    pub const LARGEST_NUMBER: u64 = 99_999;
    /// The largest reward, up or down: the sum of as many as there may be is finite, too.
    pub const LARGEST_REWARD: f64 = 1e200;
}

/// A reader's place among the steps of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StepPlace {
    /// The attempt.
    pub attempt: u32,
    /// The number in it.
    pub number: u64,
}

/// Which steps are asked for, in order of attempt and number.
#[derive(Clone, Copy, Debug)]
pub struct StepQuery {
    /// Of which task.
    pub task: TaskId,
    /// Only those of this attempt.
    pub attempt: Option<u32>,
    /// Only those from this place on.
    pub from: Option<StepPlace>,
    /// At most so many, and fewer where they are large: the first that is left out is told.
    pub most: u32,
}

/// A part of a task's steps.
#[derive(Clone, Debug, Default)]
pub struct StepPage {
    /// The steps.
    pub steps: Vec<Step>,
    /// Where to go on, if there are more.
    pub next: Option<StepPlace>,
}

/// What came of a request to keep steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepsKept {
    /// Of which attempt they are.
    pub attempt: u32,
    /// How many of them were new.
    pub new: u64,
}

/// The steps of one attempt, summed up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepSum {
    /// The attempt.
    pub attempt: u32,
    /// How many there are.
    pub steps: u64,
    /// Their rewards together, where any was told.
    pub reward: Option<f64>,
    /// Whether the episode came to its own end.
    pub terminated: bool,
    /// Whether it was cut off.
    pub truncated: bool,
}
