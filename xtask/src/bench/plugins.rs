//! (k) What plugins cost: a call in each language, policies in the way of a submission, loading,
//! memory, and launches through a runtime of somebody else's.

mod chain;
mod loading;
mod made;

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use serde_json::json;

use self::made::Made;
use super::Bench;
use super::client::{Connection, Swarm};
use super::component::Spent;
use super::daemon::{Daemon, Metrics};
use super::place::Place;
use super::report::{Goal, Row, Table, Unit};
use super::stats::median;
use super::submit;
use super::throughput::{self, CLIENTS};

/// Tasks in one block of a runtime, before it is the next one's turn.
const BLOCK: usize = 25;
/// How many policies are asked, one after the other.
const LENGTHS: [usize; 3] = [1, 5, 20];
const LENT: &str = "[grants]\nprocess = true\n";
/// A policy that is asked for nothing but its word.
const NO_POLICY: &str = "[policy]\nlabels = [\"nobody-has-this\"]\n";

/// A number for each of [`LENGTHS`].
type Lengths = [f64; 3];

/// Runtimes in other languages, each with the keys of its rows.
const LANGUAGES: [(&str, &str, &str); 4] = [
    ("c", "startC", "validateC"),
    ("javascript", "startJavascript", "validateJavascript"),
    ("go", "startGo", "validateGo"),
    ("python", "startPython", "validatePython"),
];

pub(super) fn measure(bench: &Bench) -> anyhow::Result<Table> {
    let hello = Made::rust(bench, "hello", "runtime_hello", LENT)?;
    let gatekeeper = Made::rust(bench, "gatekeeper", "policy_gatekeeper", "")?;
    let polite = Made::script("examples/scripts/polite.rhai", LENT)?;
    let guardrails = Made::script("examples/scripts/guardrails.rhai", NO_POLICY)?;
    let mut runtimes = vec![
        Runtime::new("Rust", "startRust", "validateRust", hello.clone()),
        Runtime::new("a script", "startScript", "validateScript", polite.clone()),
    ];
    let mut without = Vec::new();
    for (language, start, validate) in LANGUAGES {
        match Made::in_language(bench, language, &format!("hello-{language}")) {
            Ok(made) => runtimes.push(Runtime::new(language, start, validate, made)),
            Err(why) => without.push(format!("{language} ({why:#})")),
        }
    }
    let tasks = calls(bench, &mut runtimes)?;
    let mut rows = rows_of_calls(&runtimes);
    rows.extend(rows_of_policies(&chain::measure(
        bench,
        &guardrails,
        &gatekeeper,
        LENGTHS,
    )?));
    rows.extend(rows_of_loading(bench, &hello, &polite)?);
    rows.extend(rows_of_launches(bench, &hello)?);
    let skipped = match without.as_slice() {
        [] => String::new(),
        without => format!("; not measured: {}", without.join(", ")),
    };
    Ok(Table {
        id: "k",
        title: "Plugins",
        method: format!(
            "calls: {tasks} tasks for each runtime, in turns of {BLOCK}, from the daemon's metrics, without what the host \
             did meanwhile; policies: durable POST of tasks that stay queued, in turns with none; loading: exec to \
             serving; memory: of {} copies; launches: {CLIENTS} clients, in turns{skipped}",
            loading::COPIES
        ),
        rows,
    })
}

/// A runtime, and what a call of it took.
struct Runtime {
    label: &'static str,
    start_key: &'static str,
    validate_key: &'static str,
    made: Made,
    start: f64,
    validate: f64,
}

impl Runtime {
    fn new(
        label: &'static str,
        start_key: &'static str,
        validate_key: &'static str,
        made: Made,
    ) -> Self {
        Self {
            label,
            start_key,
            validate_key,
            made,
            start: 0.0,
            validate: 0.0,
        }
    }
}

/// A daemon with this plugin folder.
fn with_folder(
    bench: &Bench,
    place: &Place,
    folder: &Path,
    flags: &[&str],
) -> anyhow::Result<Daemon> {
    let folder = format!("--plugin-dir={}", folder.display());
    Daemon::start(&bench.binary, place, &[flags, &[&folder]].concat())
}

/// Runs tasks by each runtime; how many by each.
fn calls(bench: &Bench, runtimes: &mut [Runtime]) -> anyhow::Result<usize> {
    let rounds = bench.pick(8, 2);
    let place = bench.place()?;
    let folder = place.path("plugins");
    fs::create_dir(&folder)?;
    for runtime in &*runtimes {
        runtime.made.put(&folder)?;
    }
    let daemon = with_folder(bench, &place, &folder, &[])?;
    let mut connection = daemon.connect()?;
    for runtime in &*runtimes {
        runtime.made.until_serving(&mut connection)?;
        run_block(&mut connection, &runtime.made.name, "warm")?;
    }
    let before = daemon.metrics()?;
    for round in 0..rounds {
        for runtime in &*runtimes {
            run_block(&mut connection, &runtime.made.name, &round.to_string())?;
        }
    }
    let after = daemon.metrics()?;
    daemon.stop(&place)?;
    for runtime in runtimes {
        let each = |function| one_call(&before, &after, &runtime.made.name, function);
        (runtime.start, runtime.validate) = (each("start")?, each("validate")?);
    }
    Ok(rounds * BLOCK)
}

/// Seconds of one call, without what the host did meanwhile.
fn one_call(before: &Metrics, after: &Metrics, plugin: &str, func: &str) -> anyhow::Result<f64> {
    let labels = [format!("plugin=\"{plugin}\""), format!("func=\"{func}\"")];
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    let each = Spent::of(before, after, &labels).each();
    ensure!(each > 0.0, "{func} of {plugin} was not called");
    Ok(each)
}

fn run_block(connection: &mut Connection, runtime: &str, name: &str) -> anyhow::Result<()> {
    for number in 0..BLOCK {
        submit::run_to_end(
            connection,
            &body(&format!("{runtime}-{name}-{number}"), runtime),
        )?;
    }
    Ok(())
}

/// The body that submits `true` to a runtime.
fn body(name: &str, runtime: &str) -> String {
    json!({ "name": name, "runtime": runtime, "process": { "command": ["/bin/true"] } }).to_string()
}

fn rows_of_calls(runtimes: &[Runtime]) -> Vec<Row> {
    let time = |key, label: String, value| Row::fact(key, &label, value, Unit::Seconds);
    let mut rows = Vec::new();
    for runtime in runtimes {
        let label = runtime.label;
        rows.push(time(
            runtime.start_key,
            format!("start, {label}"),
            runtime.start,
        ));
        rows.push(time(
            runtime.validate_key,
            format!("validate, {label}"),
            runtime.validate,
        ));
    }
    if let [rust, script, ..] = runtimes {
        rows.push(Row::goal(
            "scriptBeyond",
            "start, a script beyond Rust",
            script.start - rust.start,
            Unit::Seconds,
            Goal::AtMost(0.2e-3),
        ));
    }
    rows
}

fn rows_of_policies(took: &chain::Submissions) -> Vec<Row> {
    let time = |key, label: &str, value| Row::fact(key, label, value, Unit::Seconds);
    let mut rows = vec![time(
        "submit",
        "submission, no policy, median",
        took.without,
    )];
    let keys = [
        ["submitScript1", "submitScript5", "submitScript20"],
        ["submitComponent1", "submitComponent5", "submitComponent20"],
    ];
    for ((what, times), keys) in [
        ("in scripts", took.scripts),
        ("in components", took.components),
    ]
    .into_iter()
    .zip(keys)
    {
        for ((length, time_taken), key) in LENGTHS.iter().zip(times).zip(keys) {
            rows.push(time(
                key,
                &format!("submission, policies {what}: {length}"),
                time_taken,
            ));
        }
    }
    rows
}

fn rows_of_loading(bench: &Bench, component: &Made, script: &Made) -> anyhow::Result<Vec<Row>> {
    let (cold, cached) = loading::times(bench, component)?;
    let (cold_script, cached_script) = loading::times(bench, script)?;
    let copies = |plugin: &Made, prefix: &str| -> anyhow::Result<Vec<Made>> {
        let one = |number| plugin.renamed(&format!("{prefix}{number:02}"), LENT);
        (0..loading::COPIES).map(one).collect()
    };
    let of_component = loading::memory(bench, &copies(component, "hel")?)?;
    let of_script = loading::memory(bench, &copies(script, "script-")?)?;
    let time = |key, label: &str, value| Row::fact(key, label, value, Unit::Seconds);
    let size = |key, label: &str, value| Row::fact(key, label, value, Unit::Bytes);
    Ok(vec![
        time("cold", "start to serving, a component, compiled", cold),
        time("cached", "start to serving, a component, cached", cached),
        time(
            "coldScript",
            "start to serving, a script, its engine compiled",
            cold_script,
        ),
        time(
            "cachedScript",
            "start to serving, a script, cached",
            cached_script,
        ),
        size("memory", "memory of one more component", of_component),
        size("memoryScript", "memory of one more script", of_script),
    ])
}

/// Launches through the component in turns with the strategy that comes with the binary.
fn rows_of_launches(bench: &Bench, component: &Made) -> anyhow::Result<Vec<Row>> {
    let rounds = bench.pick(6, 2);
    let time = Duration::from_secs(bench.pick(2, 1));
    let place = bench.place()?;
    let folder = place.path("plugins");
    fs::create_dir(&folder)?;
    component.put(&folder)?;
    let daemon = with_folder(bench, &place, &folder, &[])?;
    component.until_serving(&mut daemon.connect()?)?;
    let mut swarm = Swarm::open(daemon.address, CLIENTS)?;
    let mut run = |runtime: &str, round: &str| {
        let task = |number| body(&format!("{runtime}-{round}-{number}"), runtime);
        let tally = throughput::run_bodies(&mut swarm, time, usize::MAX, task)?;
        anyhow::Ok(tally.per_second())
    };
    run("process", "warm")?;
    run(&component.name, "warm")?;
    let (mut built_in, mut theirs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        let ours = run("process", &round.to_string())?;
        let other = run(&component.name, &round.to_string())?;
        ratios.push(other / ours.max(1e-9));
        built_in.push(ours);
        theirs.push(other);
    }
    daemon.stop(&place)?;
    let rate =
        |key, label: &str, rates: &[f64]| Row::fact(key, label, median(rates), Unit::PerSecond);
    Ok(vec![
        Row::goal(
            "launches",
            "launches through examples/hello / built-in",
            median(&ratios),
            Unit::Ratio,
            Goal::AtLeast(0.9),
        ),
        rate("rate", "launches through examples/hello", &theirs),
        rate("rateBuiltIn", "launches, built-in", &built_in),
    ])
}
