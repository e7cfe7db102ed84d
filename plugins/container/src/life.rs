//! The life of an attempt: what to ask the host next, given what it answered.
//!
//! Nothing here asks by itself and nothing looks at a clock, so a scripted host can play every
//! life there is. The order is: images, the sandbox, the containers of initialization one by
//! one, then all others created and started. A call goes as far as it can without waiting.
//! Asking again after a crash finds what is there, so a life that lost its memory begins anew.

mod ask;
mod outcome;
mod parts;
mod state;

use taskwright_plugin_sdk::container::{ContainerState, Error, ImageState, PullProgress};
use taskwright_plugin_sdk::status::Part;
use taskwright_plugin_sdk::{End, Event, ExitStatus, Failure, Outcome, Step, Waiting, units};

pub(crate) use self::ask::{Answer, Ask};
use self::state::{Doubt, Stage, State, Status, Unit};
use crate::spec::Plan;

/// The first and the last pause before the host is asked again.
const SHORTEST_PAUSE_MS: u64 = 100;
const LONGEST_PAUSE_MS: u64 = 1000;
/// Starts of one container that may be cut off. Each takes an end of the daemon, or two minutes.
const MOST_CUT_OFF: u32 = 5;
/// What a shell says of a program that is not there.
const NOT_FOUND: u8 = 127;
/// What a shell says of a program that is there and does not start.
const NOT_EXECUTABLE: u8 = 126;

/// What comes next.
#[derive(Debug)]
pub(crate) enum Next {
    /// Ask this, and tell [`Life::take`] the answer.
    Ask(Ask),
    /// The call is over with this.
    Answer(Result<Step, Failure>),
}

/// Why the call ends although there is something left to ask.
enum Rest {
    Pulling {
        image: String,
        progress: PullProgress,
    },
    /// The container runtime is away, for so many milliseconds already.
    Away { sentence: String, for_ms: u64 },
    /// The host is doing it, or others come first.
    UnderWay,
}

/// An attempt during one call.
pub(crate) struct Life<'a> {
    plan: &'a Plan,
    /// How long the runtime may be away before the work runs.
    patience_ms: u64,
    state: State,
    /// What people were told of its containers before this call; nothing, if nothing is remembered.
    told: Option<Vec<Part>>,
    rest: Option<Rest>,
    over: Option<Outcome>,
    failed: Option<Failure>,
}

impl<'a> Life<'a> {
    /// A life of which nothing is remembered.
    pub(crate) fn begin(plan: &'a Plan, patience_ms: u64) -> Self {
        let state = State::new(plan.containers.len());
        Self::of(plan, patience_ms, state)
    }

    /// A life that goes on. No bytes at all are a host that crashed before it kept any.
    ///
    /// # Errors
    /// [`Failure::Bug`] for bytes that no state was written as.
    pub(crate) fn resume(plan: &'a Plan, patience_ms: u64, bytes: &[u8]) -> Result<Self, Failure> {
        if bytes.is_empty() {
            return Ok(Self::begin(plan, patience_ms));
        }
        let state = State::read(bytes, plan.containers.len()).map_err(Failure::Bug)?;
        let mut life = Self::of(plan, patience_ms, state);
        life.told = Some(parts::of(&life, None));
        Ok(life)
    }

    fn of(plan: &'a Plan, patience_ms: u64, state: State) -> Self {
        Self {
            plan,
            patience_ms,
            state,
            told: None,
            rest: None,
            over: None,
            failed: None,
        }
    }

    fn remembers(&self) -> bool {
        self.told.is_some()
    }

    /// Hears of an event, before anything is asked.
    pub(crate) fn hear(&mut self, event: &Event, now: u64) {
        match event {
            Event::Exited(exit) => {
                let mut names = self.plan.containers.iter();
                let index = names.position(|container| container.name == exit.unit);
                if let Some(unit) = index.and_then(|index| self.state.units.get_mut(index)) {
                    unit.hear_end(exit.end, now);
                }
            }
            Event::StopRequested(request) => {
                let grace = request.grace_ms;
                self.state.stop = Some(self.state.stop.map_or(grace, |told| told.min(grace)));
                // Nothing is remembered, but something may be there.
                if !self.remembers() {
                    for unit in &mut self.state.units {
                        unit.doubt = Some(Doubt::Trace);
                    }
                }
            }
            Event::Woke => {}
            Event::Recovered => {
                for unit in &mut self.state.units {
                    if matches!(unit.stage, Stage::Running { .. }) {
                        unit.doubt = unit.doubt.or(Some(Doubt::Recovered));
                    }
                }
            }
        }
    }

    /// What to do next.
    pub(crate) fn next(&self) -> Next {
        if let Some(failure) = &self.failed {
            return Next::Answer(Err(failure.clone()));
        }
        if let Some(outcome) = &self.over {
            return done(outcome.clone());
        }
        if let Some(rest) = &self.rest {
            return self.wait(self.state.told_running, Some(rest.pause_ms()));
        }
        let mut units = self.state.units.iter();
        if let Some(unit) = units.position(|unit| unit.doubt.is_some()) {
            return Next::Ask(Ask::Inspect(self.named(unit)));
        }
        match self.state.stop {
            Some(grace_ms) => self.next_of_stop(grace_ms),
            None => self.next_of_start(),
        }
    }

    fn next_of_start(&self) -> Next {
        if let Some(image) = self.plan.images.get(self.state.images) {
            return Next::Ask(Ask::Image(image.clone()));
        }
        if self.state.sandbox.is_none() {
            return Next::Ask(Ask::Sandbox(self.plan.sandbox.clone()));
        }
        for (index, unit) in self.init() {
            match unit.stage {
                Stage::Absent => return self.create(index),
                Stage::Created => return Next::Ask(Ask::Start(self.named(index))),
                Stage::Running { .. } => return self.wait(false, None),
                Stage::Ended { .. } => {
                    if let Some(outcome) = outcome::of_init(&self.named(index).name, unit) {
                        return done(outcome);
                    }
                }
            }
        }
        if let Some((index, _)) = self.main().find(|(_, unit)| unit.stage == Stage::Absent) {
            return self.create(index);
        }
        if let Some((index, _)) = self.main().find(|(_, unit)| unit.stage == Stage::Created) {
            return Next::Ask(Ask::Start(self.named(index)));
        }
        let is_over = self.main().all(|(_, unit)| unit.has_ended());
        if is_over && self.state.told_running {
            return done(outcome::of_all(self));
        }
        // Short as it was, it ran, and people are to see that. The events of its ends come at
        // once; the pause is for a host that lost them.
        self.wait(true, is_over.then_some(LONGEST_PAUSE_MS))
    }

    fn create(&self, index: usize) -> Next {
        let named = self.named(index);
        let address = self
            .state
            .sandbox
            .as_ref()
            .and_then(|it| it.address.as_deref());
        let container = self.plan.containers.get(index);
        match container.map(|container| container.request(address)) {
            Some(Ok(request)) => Next::Ask(Ask::Create(named, Box::new(request))),
            Some(Err(sentence)) => done(Outcome::ExitedBecause((
                NOT_EXECUTABLE,
                format!("container {}: {sentence}", named.name),
            ))),
            None => Next::Answer(Err(Failure::Bug(format!("there is no container {index}")))),
        }
    }

    /// Stops whatever is there. Nothing more is started.
    fn next_of_stop(&self, grace_ms: u64) -> Next {
        for (index, unit) in self.state.units.iter().enumerate() {
            let must_hear = match unit.stage {
                Stage::Absent | Stage::Ended { .. } => false,
                Stage::Created => unit.told_grace.is_none(),
                Stage::Running { .. } => unit.told_grace.is_none_or(|told| told > grace_ms),
            };
            if must_hear {
                return Next::Ask(Ask::Stop(self.named(index), grace_ms));
            }
        }
        let mut units = self.state.units.iter();
        if units.any(|unit| matches!(unit.stage, Stage::Running { .. })) {
            return self.wait(self.state.told_running, None);
        }
        done(outcome::of_stopped(self))
    }

    /// Takes the answer to what was asked.
    pub(crate) fn take(&mut self, ask: &Ask, answer: Answer, now: u64) {
        if !answer.is_unavailable() {
            self.state.away_since = None;
        }
        match (ask, answer) {
            (Ask::Image(image), Answer::Image(Ok(ImageState::Pulling(progress)))) => {
                self.rest = Some(Rest::Pulling {
                    image: image.name.clone(),
                    progress,
                });
            }
            (Ask::Image(_), Answer::Image(Ok(ImageState::Present(_)))) => self.state.images += 1,
            (Ask::Sandbox(_), Answer::Sandbox(Ok(address))) => {
                self.state.sandbox = Some(state::Sandbox { address });
            }
            (Ask::Create(named, _), Answer::Create(Ok(()))) => {
                self.change(named.index, |unit| unit.stage = Stage::Created);
            }
            (Ask::Start(named), Answer::Start(Ok(found))) => {
                self.change(named.index, |unit| unit.started(found, now));
            }
            (Ask::Inspect(named), Answer::Inspect(found)) => self.inspected(named, found, now),
            (Ask::Stop(named, grace_ms), Answer::Stop(answer)) => {
                self.stopped(named, *grace_ms, answer, now);
            }
            (Ask::Image(_), Answer::Image(Err(error)))
            | (Ask::Sandbox(_), Answer::Sandbox(Err(error))) => self.refused(None, error, now),
            (Ask::Create(named, _), Answer::Create(Err(error)))
            | (Ask::Start(named), Answer::Start(Err(error))) => {
                self.refused(Some(named), error, now);
            }
            (ask, _) => {
                let sentence = format!("the answer is none to what was asked: {ask:?}");
                self.failed = Some(Failure::Bug(sentence));
            }
        }
    }

    /// What was to be started was not.
    fn refused(&mut self, named: Option<&ask::Named>, error: Error, now: u64) {
        let mut not_started = |code: u8, sentence: String| {
            let sentence = match named {
                Some(named) if self.plan.is_pod => format!("container {}: {sentence}", named.name),
                _ => sentence,
            };
            if let Some(unit) = named.and_then(|it| self.state.units.get_mut(it.index)) {
                unit.stage = Stage::Ended {
                    status: Status::Code(code),
                    out_of_memory: false,
                    started: None,
                    ended: now,
                };
            }
            Outcome::ExitedBecause((code, sentence))
        };
        self.over = Some(match error {
            Error::ImageUnavailable(sentence) => Outcome::ImageUnavailable(sentence),
            Error::NotFound(sentence) => not_started(NOT_FOUND, sentence),
            Error::NotExecutable(sentence) | Error::Refused(sentence) | Error::Denied(sentence) => {
                not_started(NOT_EXECUTABLE, sentence)
            }
            Error::NotRunning(sentence) | Error::SandboxLost(sentence) => {
                Outcome::SandboxLost(sentence)
            }
            Error::NeverBegun(sentence) => {
                let unit = named.and_then(|it| self.state.units.get_mut(it.index));
                match unit.filter(|unit| unit.cut_off < MOST_CUT_OFF) {
                    Some(unit) => {
                        unit.stage = Stage::Absent;
                        unit.cut_off += 1;
                        return;
                    }
                    None => Outcome::RuntimeUnavailable(sentence),
                }
            }
            Error::PerhapsBegun(sentence) => Outcome::Lost(sentence),
            Error::UnderWay(_) => {
                // Whatever was away is there.
                self.state.away_since = None;
                self.rest = Some(Rest::UnderWay);
                return;
            }
            Error::Unavailable(sentence) => return self.away(sentence, now),
            Error::Other(sentence) => {
                self.failed = Some(Failure::Other(sentence));
                return;
            }
        });
    }

    /// The runtime may be restarting. Before the work runs that is waited for only so long.
    fn away(&mut self, sentence: String, now: u64) {
        let since = *self.state.away_since.get_or_insert(now);
        let for_ms = now.saturating_sub(since);
        let runs = self.state.units.iter().any(|unit| !unit.is_untouched());
        let may_end = !self.state.told_running && (self.state.stop.is_none() || !runs);
        if may_end && for_ms >= self.patience_ms {
            self.over = Some(Outcome::RuntimeUnavailable(sentence));
        } else {
            self.rest = Some(Rest::Away { sentence, for_ms });
        }
    }

    fn inspected(
        &mut self,
        named: &ask::Named,
        answer: Result<Option<ContainerState>, Error>,
        now: u64,
    ) {
        let Some(unit) = self.state.units.get_mut(named.index) else {
            return;
        };
        let Some(doubt) = unit.doubt else {
            return;
        };
        let found = match answer {
            Ok(found) => found,
            Err(Error::NotRunning(_)) => None,
            Err(Error::Unavailable(sentence)) if doubt == Doubt::Recovered => {
                // The host offers the event again, for as long as it takes.
                self.failed = Some(Failure::Infrastructure(sentence));
                return;
            }
            Err(error) => return self.refused(None, error, now),
        };
        unit.doubt = None;
        let name = &named.name;
        self.over = match (doubt, found) {
            (Doubt::Trace, None) => None,
            (_, None) => Some(Outcome::SandboxLost(format!(
                "container {name} was removed by somebody else, so nobody knows how it ended"
            ))),
            (Doubt::Trace, Some(found)) => {
                match found {
                    ContainerState::Created => unit.stage = Stage::Created,
                    ContainerState::Running(since) => unit.stage = Stage::Running { since },
                    ContainerState::Ended(end) => unit.end(end, now),
                }
                None
            }
            (Doubt::Recovered | Doubt::Stopping, Some(ContainerState::Created)) => {
                Some(Outcome::Lost(format!(
                    "container {name} ran, and is there now as if it never had"
                )))
            }
            // If it ended, the host tells of that with an event of its own.
            (Doubt::Recovered | Doubt::Stopping, Some(_)) => None,
            (Doubt::End, Some(ContainerState::Ended(end))) => {
                unit.end(end, now);
                None
            }
            (Doubt::End, Some(ContainerState::Created | ContainerState::Running(_))) => {
                unit.end(UNSEEN, now);
                None
            }
        };
    }

    fn stopped(
        &mut self,
        named: &ask::Named,
        grace_ms: u64,
        answer: Result<(), units::Error>,
        now: u64,
    ) {
        let Some(unit) = self.state.units.get_mut(named.index) else {
            return;
        };
        let never_started = unit.stage == Stage::Created;
        match answer {
            // It goes with the attempt, whatever the host says of it now.
            _ if never_started => unit.told_grace = Some(grace_ms),
            // Stopping what is not there is no error, and of that no end would ever be told.
            Ok(()) | Err(units::Error::NotRunning(_)) => {
                unit.told_grace = Some(grace_ms);
                unit.doubt = Some(Doubt::Stopping);
            }
            Err(units::Error::Unavailable(sentence)) => self.away(sentence, now),
            Err(units::Error::Denied(sentence) | units::Error::Other(sentence)) => {
                self.failed = Some(Failure::Infrastructure(sentence));
            }
        }
    }

    /// What people are to know beside the state.
    pub(crate) fn note(&self) -> Option<String> {
        match &self.rest {
            _ if self.over.is_some() || self.failed.is_some() => None,
            Some(Rest::Pulling { image, progress }) => Some(format!(
                "pulling image {image} for {} s, {}",
                progress.seconds,
                match progress.waiters {
                    1 => "1 task waits for it".to_owned(),
                    waiters => format!("{waiters} tasks wait for it"),
                }
            )),
            Some(Rest::Away { sentence, .. }) => {
                Some(format!("waiting for the container runtime: {sentence}"))
            }
            Some(Rest::UnderWay) => {
                Some("waiting for its turn at the container runtime".to_owned())
            }
            None => {
                let mut init = self.init();
                let (index, _) =
                    init.find(|(_, unit)| matches!(unit.stage, Stage::Running { .. }))?;
                Some(format!(
                    "init container {} runs, {} of {}",
                    self.named(index).name,
                    index + 1,
                    self.plan.init
                ))
            }
        }
    }

    /// How the containers of a pod are, if people have not been told that yet. `ended_at` is
    /// there once the attempt is over.
    pub(crate) fn news(&self, ended_at: Option<u64>) -> Option<Vec<Part>> {
        if !self.plan.is_pod {
            return None;
        }
        let parts = parts::of(self, ended_at);
        (self.told.as_ref() != Some(&parts)).then_some(parts)
    }

    fn wait(&self, running: bool, wake_after_ms: Option<u64>) -> Next {
        let mut state = self.state.clone();
        state.told_running |= running;
        Next::Answer(state.write().map_err(Failure::Bug).map(|state| {
            Step::Wait(Waiting {
                running,
                state,
                wake_after_ms,
            })
        }))
    }

    fn change(&mut self, index: usize, change: impl FnOnce(&mut Unit)) {
        if let Some(unit) = self.state.units.get_mut(index) {
            change(unit);
        }
    }

    fn named(&self, index: usize) -> ask::Named {
        let container = self.plan.containers.get(index);
        ask::Named {
            index,
            name: container.map_or_else(String::new, |container| container.name.clone()),
        }
    }

    fn init(&self) -> impl Iterator<Item = (usize, &Unit)> {
        self.state.units.iter().enumerate().take(self.plan.init)
    }

    fn main(&self) -> impl Iterator<Item = (usize, &Unit)> {
        self.state.units.iter().enumerate().skip(self.plan.init)
    }
}

/// An end that nobody saw.
const UNSEEN: End = End {
    status: ExitStatus::Unknown,
    out_of_memory: false,
};

impl Rest {
    /// Short pauses at first, since most of what is waited for is soon there.
    fn pause_ms(&self) -> u64 {
        let waited_ms = match self {
            Self::Pulling { progress, .. } => progress.seconds.saturating_mul(1000),
            Self::Away { for_ms, .. } => *for_ms,
            Self::UnderWay => 0,
        };
        (waited_ms / 4).clamp(SHORTEST_PAUSE_MS, LONGEST_PAUSE_MS)
    }
}

fn done(outcome: Outcome) -> Next {
    Next::Answer(Ok(Step::Done(outcome)))
}

#[cfg(test)]
mod tests;
