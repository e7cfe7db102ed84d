//! `units`: stop and signal what an attempt started.

use std::sync::Arc;
use std::time::Duration;

use taskwright_control::port::StrategyTask;
use taskwright_model::{UnitKey, UnitName};

use crate::bindings::units::{Error, Host};
use crate::call::CallState;
use crate::convert;

impl Host for CallState {
    async fn stop(&mut self, unit: String, grace_ms: u64) -> wasmtime::Result<Result<(), Error>> {
        let key = match self.unit_key(&unit) {
            Ok(key) => key,
            Err(error) => return Ok(Err(error.into())),
        };
        let host = Arc::clone(&self.host);
        let grace = Duration::from_millis(grace_ms).min(convert::MOST_WAIT);
        let answer = self
            .outlast(
                "units.stop",
                async move { host.units.stop(key, grace).await },
            )
            .await?;
        Ok(answer.map_err(|error| convert::stop_error(&error)))
    }

    async fn signal(&mut self, unit: String, number: u32) -> wasmtime::Result<Result<(), Error>> {
        let key = match self.unit_key(&unit) {
            Ok(key) => key,
            Err(error) => return Ok(Err(error.into())),
        };
        let Some(signal) = i32::try_from(number)
            .ok()
            .filter(|signal| (1..=64).contains(signal))
        else {
            return Ok(Err(Error::Other(format!("there is no signal {number}"))));
        };
        let host = Arc::clone(&self.host);
        let answer = self
            .outlast("units.signal", async move {
                host.units.signal(key, signal).await
            })
            .await?;
        Ok(answer.map_err(|error| convert::stop_error(&error)))
    }
}

/// Why a call may not act on a unit.
#[derive(Clone, Debug)]
pub(super) enum NotActing {
    /// It is no call about an attempt.
    Scope,
    /// The word for the unit is none.
    Name(String),
}

impl From<NotActing> for Error {
    fn from(why: NotActing) -> Self {
        match why {
            NotActing::Scope => Self::Denied(why.to_string()),
            NotActing::Name(sentence) => Self::Other(sentence),
        }
    }
}

impl std::fmt::Display for NotActing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Scope => f.write_str("units are started and stopped in start and on-event only"),
            Self::Name(sentence) => f.write_str(sentence),
        }
    }
}

/// Units that one call may start. An attempt starts them in its first calls, so this is the
/// bound of an attempt too, for every strategy that is not set on walking around it.
const MOST_UNITS: usize = 16;

impl CallState {
    /// The attempt this call may act for, and the unit it names.
    pub(super) fn acting_on(&self, unit: &str) -> Result<(StrategyTask, UnitName), NotActing> {
        let given = self.scope.attempt().ok_or(NotActing::Scope)?;
        let unit = UnitName::parse(unit).map_err(|error| NotActing::Name(error.to_string()))?;
        Ok((given.clone(), unit))
    }

    pub(super) fn unit_key(&self, unit: &str) -> Result<UnitKey, NotActing> {
        let (given, unit) = self.acting_on(unit)?;
        Ok(UnitKey {
            task: given.task.id,
            attempt: given.attempt,
            unit,
        })
    }

    /// Notes that a unit is started by this call; the sentence says why it may not be.
    pub(super) fn count_unit(&mut self, unit: &UnitName) -> Result<(), String> {
        if self.account.units.contains(unit) {
            return Ok(());
        }
        if self.account.units.len() >= MOST_UNITS {
            return Err(format!("an attempt has at most {MOST_UNITS} units"));
        }
        self.account.units.push(unit.clone());
        Ok(())
    }
}
