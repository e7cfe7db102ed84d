//! What systemd is told: ready, stopping, alive. Without systemd none of it does anything.

use std::time::Duration;

use sd_notify::NotifyState;
use taskwright_control::Control;

/// The daemon answers requests.
pub(crate) fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The daemon goes down.
pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Says that the daemon is alive, twice in each period that systemd allows, as long as the loop
/// answers. Ends at once where no watchdog is asked for.
pub(crate) async fn watchdog(control: Control) {
    let Some(period) = sd_notify::watchdog_enabled() else {
        return;
    };
    let mut ticks = tokio::time::interval((period / 2).max(Duration::from_millis(50)));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // A store that takes nothing is no reason to be restarted: that would not mend it.
        if !control.health().closing {
            tell(&[NotifyState::Watchdog]);
        }
    }
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "systemd could not be told");
    }
}
