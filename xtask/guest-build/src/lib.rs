//! Compiles plugins to WebAssembly components, from a build script.
//!
//! The inner cargo is kept apart from the outer one: another workspace, another
//! lock file, another target directory, and none of the outer build's flags,
//! which are meant for the host. What is shared is the directory `guests` in
//! the outer target directory, so that several build scripts and profiles
//! compile the same guests once.

mod snapshot;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The target that plugins are built for.
pub const TARGET: &str = "wasm32-wasip2";

/// A guest that is called once by the build, and the function: it begins where that call has left
/// it.
const CALLED: (&str, &str) = (
    "taskwright-plugin-script",
    "taskwright:plugin/runtime@0.1.0#probe",
);

/// What the outer cargo says for the host, or for its own subcommand, and guests must not hear.
const NOT_FOR_GUESTS: [&str; 9] = [
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_BUILD_TARGET",
    "CARGO_BUILD_TARGET_DIR",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_TARGET_DIR",
    "RUSTFLAGS",
    // `cargo clippy` and `cargo check` go through wrappers that write no object code.
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_WRAPPER",
    "CLIPPY_ARGS",
];

/// A guest that was compiled.
#[derive(Clone, Debug)]
pub struct Guest {
    /// The cargo package.
    pub package: String,
    /// The component, in the build script's own directory.
    pub component: PathBuf,
}

/// Compiles `packages` of the workspace at `workspace` and says where the components are, in
/// the order asked for. `sources` are what cargo shall watch beside the workspace itself.
///
/// # Errors
/// One line that says what to do, for [`fail`].
pub fn build(workspace: &Path, sources: &[&Path], packages: &[&str]) -> Result<Vec<Guest>, String> {
    watch(workspace)?;
    for source in sources {
        println!("cargo::rerun-if-changed={}", source.display());
    }
    ensure_target()?;

    let out_dir = env::var_os("OUT_DIR").ok_or("OUT_DIR is not set: this is for build scripts")?;
    let out_dir = PathBuf::from(out_dir);
    let target_dir = guest_target_dir(&out_dir);
    let mut cargo = inner(Some("CARGO"), "cargo");
    cargo
        .arg("build")
        .arg("--release")
        .arg("--locked")
        .args(["--target", TARGET])
        .arg("--manifest-path")
        .arg(workspace.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(&target_dir);
    for package in packages {
        cargo.args(["--package", package]);
    }
    cargo.env("CARGO_ENCODED_RUSTFLAGS", anonymous_paths(workspace));
    // Hash functions with numbers drawn at compile time draw the same ones each time.
    cargo.env("CONST_RANDOM_SEED", "taskwright");
    let output = cargo
        .output()
        .map_err(|error| format!("cargo could not be started for the plugins: {error}"))?;
    if !output.status.success() {
        // The compiler's own words, above the one line.
        eprintln!("{}", String::from_utf8_lossy(&output.stderr));
        return Err(format!(
            "the plugins do not compile: see above, or run `cargo build --release --target {TARGET} --manifest-path {}`",
            workspace.join("Cargo.toml").display()
        ));
    }

    let built = target_dir.join(TARGET).join("release");
    packages
        .iter()
        .map(|package| {
            let built = built.join(package.replace('-', "_")).with_extension("wasm");
            let component = out_dir.join(package).with_extension("wasm");
            // A copy of our own: another build may be writing the shared one by the time that
            // this package is compiled.
            let mut bytes = fs::read(&built)
                .map_err(|error| format!("{package} left no component, is it a cdylib? {error}"))?;
            if let (called, function) = CALLED
                && called == *package
            {
                bytes = snapshot::of(&bytes, function)
                    .map_err(|why| format!("{package} cannot begin after {function}: {why}"))?;
            }
            fs::write(&component, bytes).map_err(|error| {
                format!(
                    "the component could not be written to {}: {error}",
                    component.display()
                )
            })?;
            Ok(Guest {
                package: (*package).to_owned(),
                component,
            })
        })
        .collect()
}

/// Flags that keep this machine's directories out of panic messages: the same sources make
/// the same component anywhere.
fn anonymous_paths(workspace: &Path) -> String {
    let mut flags = Vec::new();
    let mut hide = |directory: PathBuf, name: &str| {
        if let Ok(directory) = directory.canonicalize() {
            flags.push(format!(
                "--remap-path-prefix={}={name}",
                directory.display()
            ));
        }
    };
    hide(workspace.join(".."), "taskwright");
    let cargo_home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let usual = || env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo"));
    if let Some(home) = cargo_home.or_else(usual) {
        hide(home.join("registry/src"), "registry");
    }
    flags.join("\u{1f}")
}

/// Asks cargo to watch a workspace, but not what a build by hand leaves in it.
fn watch(workspace: &Path) -> Result<(), String> {
    let told = |error| {
        format!(
            "the plugins cannot be read at {}: {error}",
            workspace.display()
        )
    };
    for entry in workspace.read_dir().map_err(told)? {
        let path = entry.map_err(told)?.path();
        if !path.ends_with("target") {
            println!("cargo::rerun-if-changed={}", path.display());
        }
    }
    Ok(())
}

/// Ends a build script with one clear line.
pub fn fail(message: &str) {
    println!("cargo::error={message}");
}

/// Installs the target if it is missing: the toolchain file asks for it already, but a
/// toolchain may have been chosen by other means.
fn ensure_target() -> Result<(), String> {
    if is_installed() {
        return Ok(());
    }
    let attempt = inner(None, "rustup")
        .args(["target", "add", TARGET])
        .output();
    let why = match attempt {
        Ok(output) if output.status.success() && is_installed() => return Ok(()),
        Ok(output) => last_line(&output.stderr),
        Err(error) => format!("rustup could not be started: {error}"),
    };
    Err(format!(
        "plugins need the Rust target {TARGET}, and `rustup target add {TARGET}` did not install it ({why}): install it and build again"
    ))
}

/// Whether the compiler has the target's standard library. Asked of the compiler, not of
/// rustup, so that toolchains of distributions work too.
fn is_installed() -> bool {
    let output = inner(Some("RUSTC"), "rustc")
        .args(["--print", "target-libdir", "--target", TARGET])
        .output();
    output.is_ok_and(|output| {
        let directory = String::from_utf8_lossy(&output.stdout);
        output.status.success() && Path::new(directory.trim()).is_dir()
    })
}

fn last_line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let line = text.lines().rev().find(|line| !line.trim().is_empty());
    line.unwrap_or("it said nothing").trim().to_owned()
}

/// A tool of the outer build's toolchain, without the outer build's wishes.
fn inner(variable: Option<&str>, name: &str) -> Command {
    let chosen = variable.and_then(env::var_os);
    let mut command = Command::new(chosen.unwrap_or_else(|| name.into()));
    for name in NOT_FOR_GUESTS {
        command.env_remove(name);
    }
    command
}

/// `guests` in the outer target directory, which cargo marks with a tag file; in the build
/// script's own directory where no such mark is found.
fn guest_target_dir(out_dir: &Path) -> PathBuf {
    let root = out_dir
        .ancestors()
        .find(|directory| directory.join("CACHEDIR.TAG").is_file());
    root.unwrap_or(out_dir).join("guests")
}
