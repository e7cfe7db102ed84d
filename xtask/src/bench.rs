//! `cargo xtask bench`: the numbers of docs/spec.md, measured on this machine in one run.
//!
//! ```text
//! (a) submit      one task at a time, against a bare loop with the same durable work
//! (b) throughput  64 clients, against spawn loops with nothing durable
//! (c) component   the component's share of a launch
//! (d) sleepers    10,000 sleeping tasks: memory, processor, GET, deletion
//! (e) requests    reads, and durable submissions that stay queued
//! (f) startup     start to ready: cold, cached, with 10,000 tasks on record
//! (g) notice      a process's exit to the answer of a waiting client
//! (h) sidecar     one command in a main container, against a bare loop of nsenter
//! (i) container   one container, against the same calls to its runtime back to back
//! (j) containers  200 sleeping containers: rise, memory, processor, GET, deletion
//! (k) plugins     calls by language, policies before a submission, loading, memory, launches
//! (l) queue       claims, against pgbench; delays beside a million tasks; lists, sums, lines
//! ```
//!
//! Every benchmark has a daemon of its own, in a private directory below the target
//! directory, so that data and build lie on one disk; what it started is gone when it
//! is over. Comparisons take turns with what they compare with. It judges nothing: a
//! missed goal is printed and written down, and is no failure of the run. (h), (i) and (j) need
//! root, and a containerd from the distribution's packages, which is started in a folder of its
//! own below the target directory; (l) needs PostgreSQL's programs, for a server of its own. Where
//! that cannot be had they are skipped.

mod bare;
mod client;
mod component;
mod container;
mod cri;
mod daemon;
mod groups;
mod machine;
mod main_container;
mod many_containers;
mod notice;
mod place;
mod plugins;
mod queue;
mod report;
mod requests;
mod runtime;
mod sidecar;
mod sleepers;
mod startup;
mod stats;
mod submit;
mod throughput;

use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

use place::{Home, Place};
use report::Table;

const USAGE: &str = "\
usage: cargo xtask bench [options]

  --only a,b,..    these benchmarks alone
  --quick          a tenth of the work: to see that it runs, not to be quoted
  --save FILE      write the numbers there too, as docs/bench-baseline.json
  --compare FILE   print ratios to the numbers in FILE
  --bin PATH       measure this binary instead of building one

The numbers are always written to bench/latest.json in the target directory.";

/// The benchmarks by their letters.
const BENCHMARKS: [(&str, Measure); 12] = [
    ("a", submit::measure),
    ("b", throughput::measure),
    ("c", component::measure),
    ("d", sleepers::measure),
    ("e", requests::measure),
    ("f", startup::measure),
    ("g", notice::measure),
    ("h", sidecar::measure),
    ("i", container::measure),
    ("j", many_containers::measure),
    ("k", plugins::measure),
    ("l", queue::measure),
];

type Measure = fn(&Bench) -> anyhow::Result<Table>;

/// Why a benchmark cannot be had on this machine. It is told and is no failure of the run.
#[derive(Debug)]
struct Skipped(String);

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Skipped {}

/// Runs what `args` ask for.
///
/// # Errors
/// When the product cannot be built, a benchmark cannot be measured, or its numbers cannot be
/// written. Numbers that miss their goals are no error.
pub(crate) fn bench(args: &[String]) -> anyhow::Result<()> {
    if let [verb, file] = args
        && verb == notice::STAMP
    {
        return notice::stamp(Path::new(file));
    }
    let Some(options) = Options::parse(args)? else {
        writeln!(io::stdout(), "{USAGE}")?;
        return Ok(());
    };
    let (workspace, target) = directories()?;
    let earlier = options.compare.as_deref().map(read_json).transpose()?;
    let binary = match &options.binary {
        Some(binary) => binary.clone(),
        None => daemon::build(&workspace, &target)?,
    };
    let work = target.join("bench");
    let home = Home::new(&work)?;
    let bench = Bench {
        binary: daemon::settle(&binary, &home)?,
        xtask: std::env::current_exe().context("find xtask itself")?,
        target,
        home,
        quick: options.quick,
    };
    let machine = machine::facts(&bench.place()?)?;
    writeln!(io::stdout(), "{}", machine::line(&machine))?;
    if !machine::was_idle(&machine) {
        let least = machine::LEAST_IDLE;
        writeln!(
            io::stdout(),
            "warning: others use the processors (less than {least} % idle): numbers will be worse and vary"
        )?;
    }

    let (tables, failed) = measure(&bench, &options)?;
    report::print_summary(&tables)?;
    let numbers = numbers(&machine, &tables, options.quick);
    write_json(&work.join("latest.json"), &numbers)?;
    if let Some(file) = &options.save {
        write_json(file, &numbers)?;
    }
    if let (Some(earlier), Some(file)) = (earlier, &options.compare) {
        report::print_comparison(&numbers, &earlier, &file.display().to_string())?;
    }
    ensure!(failed.is_empty(), "not measured: {}", failed.join(", "));
    Ok(())
}

/// What every benchmark needs to know.
#[derive(Debug)]
struct Bench {
    /// The product.
    binary: PathBuf,
    /// This program.
    xtask: PathBuf,
    /// Where cargo builds to, and where what is fetched for a benchmark stays.
    target: PathBuf,
    /// Where places are made.
    home: Home,
    quick: bool,
}

impl Bench {
    fn place(&self) -> anyhow::Result<Place> {
        self.home.place()
    }

    /// How much to do: all of it, or just enough to see that it works.
    fn pick<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }
}

#[derive(Debug, Default)]
struct Options {
    /// Letters; all of them if empty.
    only: Vec<String>,
    quick: bool,
    save: Option<PathBuf>,
    compare: Option<PathBuf>,
    binary: Option<PathBuf>,
}

impl Options {
    /// `None`: help is wanted.
    fn parse(args: &[String]) -> anyhow::Result<Option<Self>> {
        let mut options = Self::default();
        let mut words = args.iter();
        while let Some(word) = words.next() {
            let mut value = || {
                words
                    .next()
                    .with_context(|| format!("{word} wants a value"))
            };
            match word.as_str() {
                "--help" | "-h" => return Ok(None),
                "--quick" => options.quick = true,
                "--only" => options.only = value()?.split(',').map(str::to_owned).collect(),
                "--save" => options.save = Some(value()?.into()),
                "--compare" => options.compare = Some(value()?.into()),
                "--bin" => options.binary = Some(value()?.into()),
                other => bail!("there is no option {other:?}\n\n{USAGE}"),
            }
        }
        let known = |letter: &String| BENCHMARKS.iter().any(|(known, _)| known == letter);
        if let Some(unknown) = options.only.iter().find(|letter| !known(letter)) {
            bail!("there is no benchmark {unknown:?}: they are a to l");
        }
        Ok(Some(options))
    }

    fn wants(&self, letter: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|wanted| wanted == letter)
    }
}

/// Measures what is wanted. One that fails is told and does not keep the others from being
/// measured; the letters of those come second.
fn measure(bench: &Bench, options: &Options) -> anyhow::Result<(Vec<Table>, Vec<String>)> {
    let (mut tables, mut failed) = (Vec::new(), Vec::new());
    for (letter, measure) in BENCHMARKS {
        if !options.wants(letter) {
            continue;
        }
        match measure(bench) {
            Ok(table) => {
                report::print(&table)?;
                tables.push(table);
            }
            Err(error) if error.is::<Skipped>() => {
                writeln!(io::stdout(), "\n({letter}) skipped: {error:#}")?;
            }
            Err(error) => {
                writeln!(
                    io::stdout(),
                    "\n({letter}) could not be measured: {error:#}"
                )?;
                failed.push(letter.to_owned());
            }
        }
    }
    Ok((tables, failed))
}

fn numbers(machine: &Value, tables: &[Table], quick: bool) -> Value {
    let mut numbers = report::json(machine, tables);
    if let Some(object) = numbers.as_object_mut() {
        object.insert("quick".to_owned(), json!(quick));
        object.insert(
            "loadAverageAfter".to_owned(),
            json!(machine::load_average()),
        );
    }
    numbers
}

/// The workspace, and the directory that cargo builds into.
fn directories() -> anyhow::Result<(PathBuf, PathBuf)> {
    let here = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    let workspace = here
        .parent()
        .context("xtask lies in no workspace")?
        .to_owned();
    let target = match std::env::var_os("CARGO_TARGET_DIR") {
        Some(target) => std::path::absolute(target)?,
        None => workspace.join("target"),
    };
    Ok((workspace, target))
}

fn read_json(file: &Path) -> anyhow::Result<Value> {
    let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    serde_json::from_str(&text).with_context(|| format!("read {} as JSON", file.display()))
}

fn write_json(file: &Path, value: &Value) -> anyhow::Result<()> {
    let text = format!("{value:#}\n");
    fs::write(file, text).with_context(|| format!("write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> anyhow::Result<Option<Options>> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        Options::parse(&words)
    }

    #[test]
    fn all_benchmarks_are_wanted_where_none_is_named() {
        let options = parse(&[]).expect("no options").expect("no help");
        assert!(options.wants("a") && options.wants("g"));
        let options = parse(&["--only", "a,c"])
            .expect("options")
            .expect("no help");
        assert!(options.wants("a") && !options.wants("b") && options.wants("c"));
    }

    #[test]
    fn what_is_not_there_is_refused() {
        assert!(parse(&["--only", "a,x"]).is_err());
        assert!(parse(&["--fast"]).is_err());
        assert!(parse(&["--save"]).is_err());
        assert!(parse(&["--help"]).expect("help").is_none());
    }
}
