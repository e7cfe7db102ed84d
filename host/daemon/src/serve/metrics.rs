//! Metrics: the recorder that every crate writes to, and what the process says of itself.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use rustix::process::{Resource, getrlimit};

use crate::versions;

/// Bounds of every histogram of seconds: from a plugin call to a task of hours.
const SECONDS: [f64; 22] = [
    0.000_005, 0.000_01, 0.000_015, 0.000_02, 0.000_03, 0.000_05, 0.000_1, 0.000_25, 0.000_5,
    0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 0.5, 1.0, 5.0, 30.0, 120.0, 600.0, 3600.0,
];
/// How often samples are folded into their buckets, so that they do not pile up unread.
const UPKEEP: Duration = Duration::from_secs(10);

/// The recorder's reading side. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Metrics {
    handle: PrometheusHandle,
    started: f64,
}

impl Metrics {
    /// Makes the recorder that the whole process writes to.
    ///
    /// # Errors
    /// When there is one already, or the bounds are refused.
    pub(crate) fn install() -> anyhow::Result<Self> {
        let handle = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)
            .context("set the bounds of histograms")?
            .install_recorder()
            .context("install the recorder of metrics")?;
        metrics::gauge!(
            "taskwright_build_info",
            "version" => versions::PRODUCT,
            "wasmtime" => versions::wasmtime(),
            "plugin_api" => versions::plugin_api(),
        )
        .set(1.0);
        let started = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        Ok(Self {
            handle,
            started: started.as_secs_f64(),
        })
    }

    /// Everything, in the Prometheus text format.
    pub(crate) fn render(&self) -> String {
        self.process();
        self.handle.render()
    }

    /// The same, as the API wants it.
    pub(crate) fn renderer(&self) -> Arc<dyn Fn() -> String + Send + Sync> {
        let metrics = self.clone();
        Arc::new(move || metrics.render())
    }

    /// Keeps samples from piling up. Runs until it is dropped.
    pub(crate) async fn upkeep(self) {
        let mut ticks = tokio::time::interval(UPKEEP);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.handle.run_upkeep();
        }
    }

    /// What a scrape wants to know of the process itself, by the names that every Prometheus
    /// client library uses.
    fn process(&self) {
        metrics::gauge!("process_start_time_seconds").set(self.started);
        if let Some(usage) = Usage::read() {
            metrics::gauge!("process_resident_memory_bytes").set(usage.resident_bytes as f64);
            metrics::gauge!("process_virtual_memory_bytes").set(usage.virtual_bytes as f64);
            metrics::gauge!("process_cpu_seconds_total").set(usage.cpu_seconds);
            metrics::gauge!("process_threads").set(usage.threads as f64);
        }
        if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
            metrics::gauge!("process_open_fds").set(open.count() as f64);
        }
        if let Some(most) = getrlimit(Resource::Nofile).current {
            metrics::gauge!("process_max_fds").set(most as f64);
        }
    }
}

/// Fields of `/proc/self/stat` (proc_pid_stat(5)).
#[derive(Debug, PartialEq)]
struct Usage {
    cpu_seconds: f64,
    threads: u64,
    virtual_bytes: u64,
    resident_bytes: u64,
}

impl Usage {
    fn read() -> Option<Self> {
        let text = std::fs::read_to_string("/proc/self/stat").ok()?;
        let ticks = rustix::param::clock_ticks_per_second();
        Self::parse(&text, ticks as f64, rustix::param::page_size() as u64)
    }

    fn parse(text: &str, ticks: f64, page: u64) -> Option<Self> {
        // The program's name stands in brackets and may hold anything, brackets too.
        let (_, after) = text.rsplit_once(')')?;
        let fields: Vec<&str> = after.split_ascii_whitespace().collect();
        // The first field here is number 3 in the manual.
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self {
            cpu_seconds: (field(14)? + field(15)?) as f64 / ticks,
            threads: field(20)?,
            virtual_bytes: field(23)?,
            resident_bytes: field(24)? * page,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_line_is_read_by_the_manuals_numbers() {
        let line = "7 (a) b) S 1 1 1 0 -1 4194560 9 0 0 0 150 50 0 0 20 0 3 0 99 4096 25 1844";
        let usage = Usage::parse(line, 100.0, 4096);
        let expected = Usage {
            cpu_seconds: 2.0,
            threads: 3,
            virtual_bytes: 4096,
            resident_bytes: 25 * 4096,
        };
        assert_eq!(usage, Some(expected));
        assert!(Usage::read().is_some());
    }
}
