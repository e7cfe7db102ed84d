//! How ends are noticed, and reported when the output is whole.
//!
//! Three ways tell that a container may have ended: the runtime's events, where it has them; its
//! log being closed; and a look at all containers, often after a start, rarely when they have
//! grown old. Each only leads to asking the runtime how that container is. Nothing is reported
//! from hearsay.

use std::collections::HashSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use taskwright_capability::{UnitEnd, UnitEvent, UnitReport};
use taskwright_model::{ExitStatus, UnitKey};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tonic::Code;

use crate::container::{Beginning, WHOLE_OUTPUT_WITHIN, at, never_started};
use crate::host::Inner;
use crate::messages as m;
use crate::rpc::RpcError;
use crate::track::Unit;

/// How long the output of a container that ended may take to be whole.
const DRAINED_WITHIN: Duration = Duration::from_secs(10);
/// Looks after a hint: the runtime notes an end a moment after it closed the log.
const HINT_PAUSES_MS: [u64; 12] = [0, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000, 2000];
/// The shortest pause between two looks at everything.
const SHORTEST: Duration = Duration::from_millis(25);
/// The longest one, without and with events.
const LONGEST: Duration = Duration::from_secs(2);
const LONGEST_WITH_EVENTS: Duration = Duration::from_secs(10);
/// The longest one while the runtime cannot be reached.
const LONGEST_UNREACHABLE: Duration = Duration::from_secs(2);
/// A runtime that has events says nothing at all until there is one; one that has none says so
/// at once.
const EVENTS_SILENCE: Duration = Duration::from_millis(300);
/// Until a runtime that has no events is asked again: it may have been upgraded.
const NO_EVENTS_PAUSE: Duration = Duration::from_secs(60);

/// What is known of the runtime's events.
pub(crate) struct EventsState(watch::Sender<Option<bool>>);

impl Default for EventsState {
    fn default() -> Self {
        Self(watch::channel(None).0)
    }
}

impl EventsState {
    fn is(&self, there: bool) {
        self.0.send_replace(Some(there));
    }

    fn are_there(&self) -> bool {
        *self.0.borrow() == Some(true)
    }

    /// Whether there are events; waits for that to be known.
    pub(crate) async fn told(&self, within: Duration) -> bool {
        let mut known = self.0.subscribe();
        let told = known.wait_for(Option::is_some);
        match tokio::time::timeout(within, told).await {
            Ok(Ok(told)) => *told == Some(true),
            Ok(Err(_)) | Err(_) => false,
        }
    }
}

impl Inner {
    /// Follows the runtime's events, for ever. To be run once.
    pub(crate) async fn follow_events(self: Arc<Self>) {
        loop {
            let pause = match self.follow_events_once().await {
                RpcError::Said {
                    code: Code::Unimplemented,
                    ..
                } => {
                    self.events.is(false);
                    NO_EVENTS_PAUSE
                }
                RpcError::Unreachable(_) | RpcError::Overdue(_) | RpcError::Said { .. } => {
                    self.notices.runtime_went_away();
                    self.look.notify_one();
                    Duration::from_secs(1)
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    async fn follow_events_once(&self) -> RpcError {
        let mut opening = pin!(self.runtime.events());
        let opened = match tokio::time::timeout(EVENTS_SILENCE, &mut opening).await {
            Ok(opened) => opened,
            Err(_) => {
                self.events.is(true);
                opening.await
            }
        };
        let mut events = match opened {
            Ok(events) => events,
            Err(error) => return error,
        };
        self.events.is(true);
        loop {
            match events.message().await {
                Ok(Some(event)) => self.hear(event),
                Ok(None) => return RpcError::Unreachable("the runtime ended its events".into()),
                Err(status) => return self.runtime.explain(&status, Duration::MAX),
            }
        }
    }

    fn hear(&self, event: m::ContainerEvent) {
        let ends = [
            m::ContainerEventType::Stopped,
            m::ContainerEventType::Deleted,
        ];
        let about_an_end = ends.contains(&event.container_event_type());
        if about_an_end && self.hints.try_send(event.container_id).is_err() {
            self.look.notify_one();
        }
    }

    /// Looks at everything again and again, and at once where there is a hint. To be run once.
    pub(crate) async fn look_for_ends(self: Arc<Self>, mut hints: mpsc::Receiver<String>) {
        let mut next = Instant::now();
        let mut unreachable: Option<Duration> = None;
        loop {
            tokio::select! {
                hint = hints.recv() => {
                    let Some(container) = hint else { return };
                    if let Some(unit) = self.tracker.by_container(&container) {
                        self.expect_end(unit);
                    }
                }
                () = self.look.notified() => {
                    next = next.min(Instant::now() + self.pause());
                }
                () = tokio::time::sleep_until(next) => {
                    match self.look_at_all().await {
                        Ok(()) => {
                            if unreachable.take().is_some() {
                                tracing::info!("the container runtime can be reached again");
                            }
                            next = Instant::now() + self.pause();
                        }
                        Err(error) => {
                            if unreachable.is_none() {
                                tracing::warn!(error = error.words(),
                                    "containers cannot be looked at");
                                self.notices.runtime_went_away();
                            }
                            let pause = unreachable.unwrap_or(SHORTEST) * 2;
                            let pause = pause.min(LONGEST_UNREACHABLE);
                            unreachable = Some(pause);
                            next = Instant::now() + pause;
                        }
                    }
                }
            }
        }
    }

    /// Until everything is looked at again: short while a container is young.
    fn pause(&self) -> Duration {
        let longest = match self.events.are_there() {
            true => LONGEST_WITH_EVENTS,
            false => LONGEST,
        };
        let units = self.tracker.all();
        let running = units.iter().filter(|unit| !unit.is_finishing());
        let youngest = running.map(|unit| unit.since.elapsed()).min();
        youngest.map_or(longest, |age| (age / 20).clamp(SHORTEST, longest))
    }

    async fn look_at_all(self: &Arc<Self>) -> Result<(), RpcError> {
        let asked = Instant::now();
        let found = self.containers(self.marks.all()).await?;
        for container in &found {
            let Some(key) = self.marks.unit_of(&container.labels) else {
                continue;
            };
            let exited = container.state == m::ContainerState::Exited as i32;
            let created = container.state == m::ContainerState::Created as i32;
            let unit = match self.tracker.get(&key) {
                Some(unit) => unit,
                None if created => continue,
                None => match self.adopt(&key, container, asked).await? {
                    Some(unit) => unit,
                    None => continue,
                },
            };
            if exited && !unit.is_finishing() {
                self.expect_end(unit);
            }
        }
        let ids: HashSet<&str> = found.iter().map(|found| found.id.as_str()).collect();
        for unit in self.tracker.all() {
            let there = ids.contains(unit.container.as_str());
            if !there && unit.since < asked && !unit.is_finishing() {
                self.expect_end(unit);
            }
        }
        Ok(())
    }

    /// Takes in a container that was started in an earlier life of the daemon.
    async fn adopt(
        &self,
        key: &UnitKey,
        container: &m::Container,
        asked: Instant,
    ) -> Result<Option<Arc<Unit>>, RpcError> {
        if container.state == m::ContainerState::Exited as i32 {
            match self.status(&container.id).await {
                Ok(status) if never_started(&status) => return Ok(None),
                Ok(_) => {}
                // Removed since it was listed, which says nothing of the runtime.
                Err(error) if error.is_not_found() => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        let taken_in = self.take_in(key, container, asked, Beginning::Found).await;
        Ok(taken_in.unwrap_or_else(|error| {
            tracing::warn!(unit = %key, %error, "the output of a container cannot be followed");
            None
        }))
    }

    /// Looks at a container that has probably ended until it has, or for a few seconds.
    fn expect_end(self: &Arc<Self>, unit: Arc<Unit>) {
        if unit.is_finishing() || !unit.begin_watching() {
            return;
        }
        let inner = self.clone();
        self.spawn(async move {
            inner.await_end(&unit).await;
            unit.end_watching();
        });
    }

    async fn await_end(&self, unit: &Arc<Unit>) {
        for pause in HINT_PAUSES_MS {
            tokio::time::sleep(Duration::from_millis(pause)).await;
            match self.status(&unit.container).await {
                Ok(status) if status.state == m::ContainerState::Exited as i32 => {
                    return self.finish(unit, Some(&status)).await;
                }
                Ok(_) => {}
                Err(error) if error.is_not_found() => return self.finish(unit, None).await,
                Err(_) => {
                    // The next look at everything finds out.
                    self.notices.runtime_went_away();
                    return;
                }
            }
            if !self.tracker.knows(unit) {
                return;
            }
        }
        // Its log was closed and it runs: the runtime was restarted, or the log begun anew.
        self.notices.runtime_went_away();
    }

    /// Reports an end, when the output is whole. `None`: the container is gone, removed by
    /// somebody else.
    async fn finish(&self, unit: &Arc<Unit>, status: Option<&m::ContainerStatus>) {
        if status.is_some_and(never_started) || !self.tracker.knows(unit) || !unit.begin_finishing()
        {
            return;
        }
        if !unit.pump.finish(DRAINED_WITHIN).await {
            tracing::warn!(unit = %unit.key,
                "a container has ended and not all of its output could be kept yet");
        }
        let end = self.end_from(status);
        unit.end.send_replace(Some(end));
        let report = UnitReport {
            unit: unit.key.clone(),
            event: UnitEvent::Ended(end),
        };
        if self.tracker.knows(unit) && self.reports.send(report).await.is_err() {
            tracing::debug!(unit = %unit.key, "nobody takes reports of ends any more");
        }
    }

    fn end_from(&self, status: Option<&m::ContainerStatus>) -> UnitEnd {
        let Some(status) = status else {
            return UnitEnd {
                status: None,
                out_of_memory: false,
                at: (self.clock)(),
            };
        };
        UnitEnd {
            status: exit_of(status),
            out_of_memory: status.reason == "OOMKilled",
            at: at(status.finished_at).unwrap_or_else(self.clock),
        }
    }

    /// The end of a container that has ended, when its output is whole.
    pub(crate) async fn end_of(
        self: &Arc<Self>,
        key: &UnitKey,
        container: &m::Container,
        status: &m::ContainerStatus,
        asked: Instant,
    ) -> Result<UnitEnd, String> {
        let unit = self.take_in(key, container, asked, Beginning::Found).await;
        let Some(unit) = unit.map_err(|error| format!("output of {key}: {error}"))? else {
            // Its attempt is being removed: its output was given up.
            return Ok(self.end_from(Some(status)));
        };
        self.expect_end(unit.clone());
        let mut end = unit.end.subscribe();
        let whole = end.wait_for(Option::is_some);
        let ended = tokio::time::timeout(WHOLE_OUTPUT_WITHIN, whole).await;
        let ended = ended.ok().and_then(|ended| ended.ok().and_then(|end| *end));
        ended.ok_or_else(|| format!("the output of {key} is not whole yet"))
    }
}

/// What the runtime knows of how a container ended.
fn exit_of(status: &m::ContainerStatus) -> Option<ExitStatus> {
    // After a restart some runtimes find a container ended and cannot know how.
    if status.reason == "Unknown" {
        return None;
    }
    u8::try_from(status.exit_code).ok().map(ExitStatus::Code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(exit_code: i32, reason: &str, expected: Option<ExitStatus>) {
        let status = m::ContainerStatus {
            exit_code,
            reason: reason.to_owned(),
            ..m::ContainerStatus::default()
        };
        assert_eq!(exit_of(&status), expected, "{exit_code} {reason}");
    }

    #[test]
    fn exits_are_told_and_never_guessed() {
        check(0, "Completed", Some(ExitStatus::Code(0)));
        check(3, "Error", Some(ExitStatus::Code(3)));
        check(137, "OOMKilled", Some(ExitStatus::Code(137)));
        check(255, "Error", Some(ExitStatus::Code(255)));
        check(255, "Unknown", None);
        check(-1, "Error", None);
        check(4242, "Error", None);
    }
}
