//! (i) One container, from its submission to the answer that it has ended, against the same
//! calls to the container runtime made back to back by a client that does nothing else.
//!
//! Two spans are measured on both sides. **To the end**: the daemon from sending the request to
//! the answer that the task has ended, durable; the client from ImageStatus over RunPodSandbox,
//! CreateContainer and StartContainer to the look that finds the container exited. **With
//! removal**: until the runtime has no sandbox any more; the client goes on with StopPodSandbox
//! and RemovePodSandbox, and with the daemon, which removes after it has answered, it is looked
//! for until there is none. The next launch begins after that, so none meets the removal of
//! another.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Bench;
use super::client::Connection;
use super::component::Spent;
use super::cri::{Client, Launch, Network, Plan};
use super::daemon::Daemon;
use super::place::Place;
use super::report::{Row, Table, Unit};
use super::runtime::{self, Runtime};
use super::stats::{median, quantile, sorted};
use super::submit;

/// Launches in one block. Ours and the bare calls take turns block by block.
const BLOCK: usize = 5;
/// How long the daemon may take to remove a sandbox after the task has ended.
const LONGEST_REMOVAL: Duration = Duration::from_secs(60);

pub(super) fn measure(bench: &Bench) -> anyhow::Result<Table> {
    let blocks = bench.pick(8, 1);
    let place = bench.place()?;
    let runtime = Runtime::start(bench)?;
    let flags = runtime.flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let daemon = Daemon::start(&bench.binary, &place, &flags)?;
    let mut sides = Sides {
        connection: daemon.connect()?,
        client: Client::connect(&runtime.socket())?,
        cgroup: format!("{}/bare", runtime.cgroup()),
        place: &place,
        launches: 0,
    };

    let pod = sides.take_turns(&daemon, Network::Pod, blocks)?;
    let host = sides.take_turns(&daemon, Network::Host, blocks)?;
    daemon.stop(&place)?;
    let version = runtime.version.clone();
    runtime.stop()?;

    let mut rows = pod.rows(&POD);
    rows.extend(host.rows(&HOST));
    Ok(Table {
        id: "i",
        title: "One container, submit to end",
        method: format!(
            "containerd {version}; {} launches of `true` on a pod network and as many on the machine's, through POST \
             /tasks?wait on one connection, and as many of ImageStatus, RunPodSandbox, CreateContainer, \
             StartContainer, ContainerStatus every 2 ms (to the end), StopPodSandbox, RemovePodSandbox (with removal), \
             in turns of {BLOCK}",
            pod.ours.len()
        ),
        rows,
    })
}

/// The daemon and the bare client, on one container runtime.
struct Sides<'a> {
    connection: Connection,
    client: Client,
    cgroup: String,
    place: &'a Place,
    /// So that no name comes twice.
    launches: usize,
}

impl Sides<'_> {
    fn take_turns(
        &mut self,
        daemon: &Daemon,
        network: Network,
        blocks: usize,
    ) -> anyhow::Result<Measured> {
        // The first launch of each side fills caches.
        self.ours(network)?;
        self.bare(network)?;
        let before = daemon.metrics()?;
        let mut measured = Measured::default();
        for _ in 0..blocks {
            let ours = block(|| self.ours(network))?;
            let bare = block(|| self.bare(network))?;
            let middle = |launches: &[Launch]| median(&spans(launches, |launch| launch.ended));
            measured.ratios.push(middle(&ours) / middle(&bare));
            measured.more.push(middle(&ours) - middle(&bare));
            measured.ours.extend(ours);
            measured.bare.extend(bare);
        }
        let spent = Spent::between(&before, &daemon.metrics()?, "");
        measured.in_component = spent.in_component / measured.ours.len() as f64;
        Ok(measured)
    }

    fn ours(&mut self, network: Network) -> anyhow::Result<Launch> {
        let body = task(&self.next_name(), network, &["true"]).to_string();
        let begun = Instant::now();
        let ended = submit::run_to_end(&mut self.connection, &body)?;
        self.client.wait_until_empty(LONGEST_REMOVAL)?;
        let gone = begun.elapsed();
        Ok(Launch { ended, gone })
    }

    fn bare(&mut self, network: Network) -> anyhow::Result<Launch> {
        let name = self.next_name();
        let logs = self.place.path("bare-logs");
        self.client.launch(Plan {
            name: &name,
            image: runtime::IMAGE,
            command: &["true"],
            network,
            cgroup: &self.cgroup,
            logs: &logs,
        })
    }

    fn next_name(&mut self) -> String {
        self.launches += 1;
        format!("i-{}", self.launches)
    }
}

fn block(launch: impl FnMut() -> anyhow::Result<Launch>) -> anyhow::Result<Vec<Launch>> {
    std::iter::repeat_with(launch).take(BLOCK).collect()
}

/// The body that submits a container.
pub(super) fn task(name: &str, network: Network, command: &[&str]) -> Value {
    json!({
        "name": name,
        "spec": { "container": {
            "image": runtime::IMAGE, "command": command, "network": network.name(),
        } },
    })
}

#[derive(Default)]
struct Measured {
    ours: Vec<Launch>,
    bare: Vec<Launch>,
    /// How many times as long ours took, by block.
    ratios: Vec<f64>,
    /// How many seconds longer ours took, by block.
    more: Vec<f64>,
    /// Seconds for each launch.
    in_component: f64,
}

/// What the numbers of one kind of network are called.
struct Names {
    network: &'static str,
    ratio: &'static str,
    median: &'static str,
    p99: &'static str,
    bare: &'static str,
    own: &'static str,
    component: &'static str,
    removed: &'static str,
    removed_bare: &'static str,
}

const POD: Names = Names {
    network: "pod network",
    ratio: "ratio",
    median: "median",
    p99: "p99",
    bare: "bareMedian",
    own: "own",
    component: "component",
    removed: "removedMedian",
    removed_bare: "bareRemovedMedian",
};
const HOST: Names = Names {
    network: "machine's network",
    ratio: "hostRatio",
    median: "hostMedian",
    p99: "hostP99",
    bare: "hostBareMedian",
    own: "hostOwn",
    component: "hostComponent",
    removed: "hostRemovedMedian",
    removed_bare: "hostBareRemovedMedian",
};

impl Measured {
    fn rows(&self, names: &Names) -> Vec<Row> {
        let network = names.network;
        let ours = sorted(spans(&self.ours, |launch| launch.ended));
        let bare = sorted(spans(&self.bare, |launch| launch.ended));
        let removed = |launches| median(&spans(launches, |launch| launch.gone));
        let middle = |times: &[f64]| quantile(times, 0.5);
        let time = |key, label: &str, value| {
            Row::fact(key, &format!("{network}: {label}"), value, Unit::Seconds)
        };
        vec![
            Row::fact(
                names.ratio,
                &format!("{network}: ours / bare calls, to the end"),
                median(&self.ratios),
                Unit::Ratio,
            ),
            time(names.median, "ours, to the end, median", middle(&ours)),
            time(
                names.p99,
                "ours, to the end, 99th percentile",
                quantile(&ours, 0.99),
            ),
            time(names.bare, "bare calls, to the end, median", middle(&bare)),
            time(
                names.own,
                "ours less bare calls: the daemon's own",
                median(&self.more),
            ),
            time(
                names.component,
                "of it in the component, mean",
                self.in_component,
            ),
            time(
                names.removed,
                "ours, with removal, median",
                removed(&self.ours),
            ),
            time(
                names.removed_bare,
                "bare calls, with removal, median",
                removed(&self.bare),
            ),
        ]
    }
}

/// One span of each launch, in seconds.
fn spans(launches: &[Launch], span: impl Fn(&Launch) -> Duration) -> Vec<f64> {
    let spans = launches.iter().map(span);
    spans.map(|span| span.as_secs_f64()).collect()
}
