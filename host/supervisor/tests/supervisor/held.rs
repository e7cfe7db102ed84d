//! Children that somebody inside a container holds on their way: nobody else waits for them.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use taskwright_capability::{ProcessHost as _, SpawnError, SpawnRequest, Spawned, UnitState};
use taskwright_model::ExitStatus;
use taskwright_native::cgroup::{self, Version};
use taskwright_native::process;
use taskwright_supervisor::{SupervisorClient, TreeLevel};
use tokio::task::JoinHandle;

use crate::container::Container;
use crate::harness::{Host, PATIENCE, Running, eventually, kill, lives, wait_until_dead};

/// How long a child may take in these tests. Long enough to tell a wait from none.
const START_PATIENCE: Duration = Duration::from_secs(3);
/// What nobody has to wait longer for while somebody else is held.
const SOON: Duration = Duration::from_millis(500);

type Started = JoinHandle<Result<Spawned, SpawnError>>;

impl Host {
    pub(crate) async fn with_start_patience(level: TreeLevel) -> Self {
        Self::start_with(|config| {
            config.options.tree_level = Some(level);
            config.options.start_patience = START_PATIENCE;
        })
        .await
    }

    /// Asks for it and goes on.
    fn ask(&self, request: &SpawnRequest) -> Started {
        let (client, request) = (self.client.clone(), request.clone());
        tokio::spawn(async move { client.spawn(request).await })
    }

    fn inside(&mut self, container: &Container, script: &str) -> SpawnRequest {
        let mut request = self.request(&["sh", "-c", script]);
        request.inside = Some(container.inside());
        request
    }

    /// Stops everybody in the container's PID namespace, but for its first process and the one
    /// that does it, again and again.
    async fn attack(&mut self, hostile: &Container) {
        let script = "echo > /tmp/attacked; while :; do kill -STOP -1; done";
        let attack = self.inside(hostile, script);
        became(self.ask(&attack)).await.unwrap();
        let mark = hostile.path("tmp/attacked");
        eventually("it attacks", || mark.exists().then_some(()));
    }

    /// A plain task, from its order to the report of its end.
    async fn plain_task(&mut self) -> Duration {
        let begun = Instant::now();
        let running = self.shell("exit 7").await;
        assert_eq!(self.status_of(&running).await, Some(ExitStatus::Code(7)));
        begun.elapsed()
    }
}

/// A group that freezes who is born into it, as if somebody inside had stopped it. Numbers are
/// foreseeable: the first tree is in the first group.
struct FrozenGroup(PathBuf);

impl FrozenGroup {
    fn make(host: &Host, number: u32) -> Option<Self> {
        let own = cgroup::own_group(Version::Two).unwrap_or_default();
        let group = own.join(host.nickname()).join(format!("u{number}"));
        if std::fs::create_dir(&group).is_err() {
            eprintln!("skipped: there are no v2 groups");
            return None;
        }
        std::fs::write(group.join("cgroup.freeze"), "1").unwrap();
        Some(Self(group))
    }

    fn members(&self) -> Vec<(i32, u64)> {
        let members = cgroup::members(&self.0).unwrap_or_default();
        let identity = |pid| Some((pid, process::stat(pid).ok()?.start_ticks));
        members.into_iter().filter_map(identity).collect()
    }

    /// The child that is held.
    fn held(&self) -> (i32, u64) {
        eventually("a child is held", || self.members().first().copied())
    }

    fn let_go(&self) {
        std::fs::write(self.0.join("cgroup.freeze"), "0").unwrap();
    }

    /// Nothing of the group is left, nor is it used again.
    fn is_gone(&self) {
        eventually("the group is removed", || (!self.0.exists()).then_some(()));
    }
}

/// A child of the supervisor that was stopped before its program.
fn stopped_on_its_way(supervisor: i32) -> Option<(i32, u64)> {
    let own = process::command_line(supervisor).unwrap();
    let all = process::all().unwrap();
    all.into_iter().find_map(|pid| {
        let stat = process::stat(pid).ok()?;
        let is_newborn = stat.parent == supervisor && process::command_line(pid).ok()? == own;
        (is_newborn && stat.state == b'T').then_some((pid, stat.start_ticks))
    })
}

/// The processor time that a process took, in ticks of 10 ms.
fn processor_ticks(pid: i32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split(' ').collect();
    fields[12].parse::<u64>().unwrap() + fields[13].parse::<u64>().unwrap()
}

async fn became(started: Started) -> Result<Spawned, SpawnError> {
    let answer = tokio::time::timeout(PATIENCE, started).await;
    answer.expect("it is answered in time").unwrap()
}

fn is_refused(became: &Result<Spawned, SpawnError>, because: &str) {
    assert!(
        matches!(became, Err(SpawnError::Unavailable { detail }) if detail.contains(because)),
        "{became:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_child_holds_nobody_else_and_is_refused_after_its_time() {
    let (Some(hostile), Some(other)) = (Container::full(), Container::full()) else {
        return;
    };
    let mut host = Host::with_start_patience(TreeLevel::Cgroup2).await;
    let Some(group) = FrozenGroup::make(&host, 1) else {
        return host.finish().await;
    };
    let begun = Instant::now();
    let request = host.inside(&hostile, "exit 0");
    let held = host.ask(&request);
    let child = group.held();

    for _ in 0..5 {
        let took = host.plain_task().await;
        assert!(took < SOON, "{took:?}");
    }
    let asked = Instant::now();
    let elsewhere = host.inside(&other, "exit 8");
    let spawned = became(host.ask(&elsewhere)).await.unwrap();
    host.answered(&elsewhere.unit, spawned);
    let end = host.end_of(&elsewhere.unit).await;
    assert_eq!(end.status, Some(ExitStatus::Code(8)));
    assert!(asked.elapsed() < SOON, "{:?}", asked.elapsed());
    assert!(!held.is_finished());

    is_refused(&became(held).await, "in time");
    assert!(begun.elapsed() >= START_PATIENCE);
    assert!(begun.elapsed() < START_PATIENCE + SOON);
    wait_until_dead(child);
    group.is_gone();
    host.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_stops_whoever_enters_delays_no_plain_task() {
    for level in [TreeLevel::Cgroup2, TreeLevel::Cgroup1, TreeLevel::Scan] {
        let Some(hostile) = Container::full() else {
            return;
        };
        let mut host = Host::with_start_patience(level).await;
        host.attack(&hostile).await;

        let (_, supervisor) = host.pids().await;
        let (mut victims, mut seen) = (Vec::new(), false);
        // On a busy machine many slip through.
        while victims.len() < 20 || (!seen && victims.len() < 500) {
            let request = host.inside(&hostile, "exit 0");
            victims.push(host.ask(&request));
            let took = host.plain_task().await;
            assert!(took < Duration::from_secs(1), "{level}: {took:?}");
            seen |= stopped_on_its_way(supervisor).is_some();
        }
        let mut refused = 0;
        for victim in victims {
            match became(victim).await {
                // It slipped through, and is stopped as any task in there may be.
                Ok(_) => {}
                Err(SpawnError::Unavailable { detail }) if detail.contains("in time") => {
                    refused += 1;
                }
                // It waited for the others.
                Err(SpawnError::NoRoom { .. }) => {}
                Err(other) => panic!("{level}: {other:?}"),
            }
        }
        assert!(refused > 0, "{level}: nobody was ever held");
        host.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_start_is_given_up_at_a_stop_a_kill_and_a_purge() {
    let Some(hostile) = Container::full() else {
        return;
    };
    let mut host = Host::with_start_patience(TreeLevel::Cgroup2).await;
    for number in 1..=3 {
        let Some(group) = FrozenGroup::make(&host, number) else {
            return host.finish().await;
        };
        let request = host.inside(&hostile, "exit 9");
        let held = host.ask(&request);
        let child = group.held();
        let asked = Instant::now();
        let unit = request.unit.clone();
        match number {
            1 => host.client.stop(unit, Duration::from_secs(60)).await,
            2 => host.client.stop(unit, Duration::ZERO).await,
            _ => host.client.purge(unit.task).await,
        }
        .unwrap();
        if number != 1 {
            assert!(!lives(child), "answered once it is dead");
        }
        is_refused(&became(held).await, "stopped");
        assert!(asked.elapsed() < SOON, "{:?}", asked.elapsed());
        wait_until_dead(child);
        group.is_gone();
        let state = host.client.inspect(request.unit.clone()).await.unwrap();
        assert_eq!(state, None);
    }
    // Nothing stands in the way of the same unit's next start.
    let request = host.inside(&hostile, "exit 9");
    for _ in 0..2 {
        let spawned = became(host.ask(&request)).await.unwrap();
        host.answered(&request.unit, spawned);
    }
    let end = host.end_of(&request.unit).await;
    assert_eq!(end.status, Some(ExitStatus::Code(9)));
    host.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_a_held_start_again_is_answered_with_the_first() {
    let Some(hostile) = Container::full() else {
        return;
    };
    let mut host = Host::with_start_patience(TreeLevel::Cgroup2).await;
    let Some(group) = FrozenGroup::make(&host, 1) else {
        return host.finish().await;
    };
    let request = host.inside(&hostile, "sleep 1000");
    let first = host.ask(&request);
    let child = group.held();
    let again = host.ask(&request);
    let (client, unit) = (host.client.clone(), request.unit.clone());
    let state = tokio::spawn(async move { client.inspect(unit).await });
    // It is no unit yet, and the supervisor stays for it.
    let listed = host.client.list().await.unwrap();
    assert!(listed.is_empty(), "{listed:?}");
    host.client.release(request.unit.clone()).await.unwrap();
    assert!(!host.client.shutdown_if_idle().await.unwrap());
    assert!(host.client.signal(request.unit.clone(), 15).await.is_err());
    assert_eq!(group.members(), [child], "it was started once");

    group.let_go();
    let spawned = became(first).await.unwrap();
    assert_eq!(spawned.process.pid, child.0.cast_unsigned());
    assert_eq!(became(again).await.unwrap(), spawned);
    let state = state.await.unwrap().unwrap();
    assert!(
        matches!(&state, Some(UnitState::Running(it)) if it.process == spawned.process),
        "{state:?}"
    );
    host.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_starts_than_may_be_on_their_way_wait_for_each_other_only() {
    let (Some(hostile), Some(other)) = (Container::full(), Container::full()) else {
        return;
    };
    let mut host = Host::with_start_patience(TreeLevel::Cgroup2).await;
    let mut groups = Vec::new();
    for number in 1..=16 {
        let Some(group) = FrozenGroup::make(&host, number) else {
            return host.finish().await;
        };
        groups.push(group);
    }
    let requests: Vec<_> = (0..20).map(|_| host.inside(&hostile, "exit 5")).collect();
    let started: Vec<_> = requests.iter().map(|request| host.ask(request)).collect();
    for group in &groups {
        group.held();
    }
    assert!(host.plain_task().await < SOON);
    let elsewhere = host.inside(&other, "exit 8");
    let asked = Instant::now();
    let spawned = became(host.ask(&elsewhere)).await.unwrap();
    assert!(asked.elapsed() < SOON, "{:?}", asked.elapsed());
    host.answered(&elsewhere.unit, spawned);
    let waiting = started.iter().filter(|it| !it.is_finished()).count();
    assert_eq!(waiting, started.len());

    for group in &groups {
        group.let_go();
    }
    for (request, started) in requests.iter().zip(started) {
        let spawned = became(started).await.unwrap();
        host.answered(&request.unit, spawned);
        let end = host.end_of(&request.unit).await;
        assert_eq!(end.status, Some(ExitStatus::Code(5)));
    }
    host.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_leaves_while_a_child_is_held_is_gone() {
    let Some(hostile) = Container::full() else {
        return;
    };
    let mut host = Host::with_start_patience(TreeLevel::Cgroup2).await;
    let Some(group) = FrozenGroup::make(&host, 1) else {
        return host.finish().await;
    };
    let leaving = SupervisorClient::connect_or_start(host.config.clone());
    let (leaving, reports) = leaving.await.unwrap();
    let (_, supervisor) = host.pids().await;
    let request = host.inside(&hostile, "exit 0");
    let held = host.ask(&request);
    group.held();
    // The child has a copy of its connection, as of everything.
    drop((leaving, reports));
    tokio::time::sleep(Duration::from_millis(50)).await;
    let before = processor_ticks(supervisor);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let used = processor_ticks(supervisor) - before;
    assert!(
        used < 20,
        "it is woken again and again: {used} ticks in a second"
    );
    group.let_go();
    became(held).await.unwrap();
    host.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_supervisor_dies_while_a_child_is_held_and_the_next_one_is_soon_there() {
    let Some(hostile) = Container::full() else {
        return;
    };
    let mut host = Host::with_start_patience(TreeLevel::Cgroup2).await;
    let groups: Vec<_> = (1..=3)
        .filter_map(|number| FrozenGroup::make(&host, number))
        .collect();
    if groups.len() < 3 {
        return host.finish().await;
    }
    let requests: Vec<_> = (0..3).map(|_| host.inside(&hostile, "exit 0")).collect();
    let held: Vec<_> = requests.iter().map(|request| host.ask(request)).collect();
    let children: Vec<_> = groups.iter().map(FrozenGroup::held).collect();
    let plain = host
        .shell("while ! test -e go; do sleep 0.01; done; exit 23")
        .await;
    let (_, supervisor) = host.pids().await;
    let begun = Instant::now();
    kill(supervisor);
    std::fs::write(plain.file("go"), "").unwrap();
    assert_eq!(host.status_of(&plain).await, Some(ExitStatus::Code(23)));
    // All three share the time that is waited for them.
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
    for (request, (held, child)) in requests.iter().zip(held.into_iter().zip(children)) {
        // Asked again by itself. Nobody knows how it ended, but it has.
        let spawned = became(held).await.unwrap();
        host.answered(&request.unit, spawned);
        assert_eq!(host.end_of(&request.unit).await.status, None);
        wait_until_dead(child);
    }
    host.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_was_held_while_the_supervisor_died_never_runs_unowned() {
    let Some(hostile) = Container::full() else {
        return;
    };
    // Here nothing but its parent says whose it is.
    let mut host = Host::with_start_patience(TreeLevel::Scan).await;
    host.attack(&hostile).await;
    let (_, supervisor) = host.pids().await;
    let (request, held, child) = loop {
        let request = host.inside(&hostile, "exit 0");
        let held = host.ask(&request);
        let seen = eventually("a child is stopped on its way, or slips through", || {
            let seen = stopped_on_its_way(supervisor);
            (seen.is_some() || held.is_finished()).then_some(seen)
        });
        if let Some(child) = seen {
            break (request, held, child);
        }
    };
    let begun = Instant::now();
    kill(supervisor);
    let spawned = became(held).await.unwrap();
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
    host.answered(&request.unit, spawned.clone());
    let running = Running { request, spawned };
    assert_eq!(host.status_of(&running).await, None);
    assert!(!lives(child), "it was killed before it was told as ended");
    host.finish().await;
}
