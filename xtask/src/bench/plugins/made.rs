//! The plugins that are measured: examples of ours, built as their READMEs say, some of them many
//! times under other names.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::bench::Bench;
use crate::bench::client::{Connection, Request};
use crate::shell::{cargo, root};

/// How long a plugin may take until it serves: an interpreter is compiled meanwhile.
const LONGEST_LOADING: Duration = Duration::from_secs(300);
const POLL: Duration = Duration::from_millis(2);
/// Seconds that the steps of one project may take.
const MOST_SECONDS: &str = "600";
/// Says where toolchains of other languages are, as for the tests.
const LANGUAGES: &str = "TASKWRIGHT_TEST_LANGUAGES";

/// A plugin.
#[derive(Clone, Debug)]
pub(super) struct Made {
    pub(super) name: String,
    /// `wasm` or `rhai`.
    end: &'static str,
    content: Vec<u8>,
    /// What it is lent.
    lent: String,
}

impl Made {
    /// A script; `lent` is its file.
    pub(super) fn script(path: &str, lent: &str) -> anyhow::Result<Self> {
        let path = root().join(path);
        let stem = path.file_stem().context("a script has a name")?;
        Ok(Self {
            name: stem.to_string_lossy().into_owned(),
            end: "rhai",
            content: fs::read(&path).with_context(|| format!("read {}", path.display()))?,
            lent: lent.to_owned(),
        })
    }

    /// An example in Rust, built here; `crate_name` is its crate, `lent` its file.
    pub(super) fn rust(
        bench: &Bench,
        name: &str,
        crate_name: &str,
        lent: &str,
    ) -> anyhow::Result<Self> {
        let target = bench.target.join("plugins");
        let words = [
            "build",
            "--quiet",
            "--locked",
            "--release",
            "--target",
            "wasm32-wasip2",
        ];
        let status = cargo(&words)
            .current_dir(root().join("examples").join(name))
            .env("CARGO_TARGET_DIR", &target)
            .status()
            .context("run cargo")?;
        ensure!(status.success(), "examples/{name} was not built: see above");
        let built = target
            .join("wasm32-wasip2/release")
            .join(crate_name)
            .with_extension("wasm");
        Ok(Self {
            name: name.to_owned(),
            end: "wasm",
            content: fs::read(&built).with_context(|| format!("read {}", built.display()))?,
            lent: lent.to_owned(),
        })
    }

    /// What `plugin new` writes in another language, built by the steps that it tells.
    pub(super) fn in_language(bench: &Bench, language: &str, name: &str) -> anyhow::Result<Self> {
        let toolchain = toolchain(bench, language)?;
        let place = bench.place()?;
        let beside = place.path("project");
        fs::create_dir(&beside)?;
        let told = Command::new(&bench.binary)
            .args(["plugin", "new", "--lang", language, name])
            .current_dir(&beside)
            .output()
            .context("run `taskwright plugin new`")?;
        let told = String::from_utf8_lossy(&told.stdout).into_owned();
        let steps = told.lines().filter_map(|line| line.strip_prefix("  "));
        // The toolchain is there, and whether it does well is for the tests.
        let others = [
            "cd ",
            "apt-get",
            "go mod tidy",
            "go test",
            "npm test",
            "make test",
            "pip install",
            "python3 -m venv",
            "taskwright",
            "xargs",
        ];
        let wanted = |step: &&str| !others.iter().any(|other| step.starts_with(other));
        let steps: Vec<&str> = steps
            .filter(wanted)
            .filter(|step| !step.contains("unittest"))
            .collect();
        let folder = beside.join(name);
        build(&toolchain, &folder, &steps.join("\n"))?;
        Ok(Self {
            name: name.to_owned(),
            end: "wasm",
            content: fs::read(folder.join(name).with_extension("wasm"))
                .with_context(|| format!("find the plugin in {language} that was built"))?,
            lent: fs::read_to_string(folder.join(name).with_extension("toml"))?,
        })
    }

    /// The same under another name. A component says its name itself, so the other one has as many
    /// letters and stands in its bytes.
    pub(super) fn renamed(&self, name: &str, lent: &str) -> anyhow::Result<Self> {
        let mut content = self.content.clone();
        if self.end == "wasm" {
            ensure!(
                name.len() == self.name.len(),
                "{name} is not as long as {}",
                self.name
            );
            replace(&mut content, self.name.as_bytes(), name.as_bytes());
        }
        Ok(Self {
            name: name.to_owned(),
            end: self.end,
            content,
            lent: lent.to_owned(),
        })
    }

    /// Puts it into a plugin folder.
    pub(super) fn put(&self, folder: &Path) -> anyhow::Result<()> {
        let file = folder.join(&self.name);
        fs::write(file.with_extension("toml"), &self.lent)?;
        Ok(fs::write(file.with_extension(self.end), &self.content)?)
    }

    /// Waits until it serves.
    pub(super) fn until_serving(&self, connection: &mut Connection) -> anyhow::Result<()> {
        let request = Request::get(&format!("/plugins/{}", self.name));
        let deadline = Instant::now() + LONGEST_LOADING;
        loop {
            let answer = connection.ask(&request)?;
            if answer.status == 200 {
                let told = answer.json()?;
                let refused = told.get("refused");
                ensure!(refused.is_none(), "{} is refused: {refused:?}", self.name);
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "{} does not serve after {LONGEST_LOADING:?}",
                self.name
            );
            std::thread::sleep(POLL);
        }
    }
}

/// Where the toolchain of a language is, if `cargo xtask languages` made one.
fn toolchain(bench: &Bench, language: &str) -> anyhow::Result<PathBuf> {
    let all = std::env::var_os(LANGUAGES)
        .map_or_else(|| bench.target.join("taskwright/languages"), PathBuf::from);
    let place = all.join(language);
    ensure!(
        place.join("made").exists(),
        "no toolchain, `cargo xtask languages` makes one"
    );
    Ok(place)
}

/// Runs the steps of a project with its toolchain.
fn build(toolchain: &Path, folder: &Path, steps: &str) -> anyhow::Result<()> {
    let adapter = toolchain.join("adapter.wasm");
    if adapter.exists() {
        // Go: the module of its bindings lies there, and the translator of its WASI.
        fs::copy(adapter, folder.join("wasi_snapshot_preview1.reactor.wasm"))?;
        let module = fs::canonicalize(toolchain.join("pkg"))?;
        let work = format!(
            "go 1.27.1\nuse {}\nreplace go.bytecodealliance.org/pkg => {}\n",
            folder.display(),
            module.display()
        );
        fs::write(folder.with_file_name("go.work"), work)?;
    }
    let mut paths = vec![toolchain.join("venv/bin"), toolchain.join("bin")];
    let found = std::env::var_os("PATH").unwrap_or_default();
    paths.extend(std::env::split_paths(&found));
    let built = Command::new("timeout")
        .args([MOST_SECONDS, "/bin/sh", "-ec", steps])
        .current_dir(folder)
        .env("PATH", std::env::join_paths(paths)?)
        .env("npm_config_cache", toolchain.join("cache"))
        .env("npm_config_prefer_offline", "true")
        .env("GOCACHE", toolchain.join("cache"))
        .env("GOFLAGS", "-modcacherw")
        .env("GOPROXY", "off")
        .env("GOTOOLCHAIN", "local")
        .output()
        .context("run the steps of a project")?;
    let said = String::from_utf8_lossy(&built.stderr);
    let last = said.lines().last().unwrap_or_default();
    ensure!(built.status.success(), "its steps failed: {last}");
    Ok(())
}

/// Replaces each `from` by `to`, which is as long.
fn replace(bytes: &mut [u8], from: &[u8], to: &[u8]) {
    let last = (bytes.len() + 1).saturating_sub(from.len());
    for at in 0..last {
        if let Some(part) = bytes.get_mut(at..at + from.len())
            && part == from
        {
            part.copy_from_slice(to);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_replaced_wherever_it_stands() {
        let mut bytes = *b"hello, othello and hell";
        replace(&mut bytes, b"hello", b"hel07");
        assert_eq!(&bytes, b"hel07, othel07 and hell");
        replace(&mut bytes, b"much longer than what there is", b"");
    }
}
