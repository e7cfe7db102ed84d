//! The projects that can be made, one for each language, and the contract that goes with them.
//!
//! All are the same runtime, so that one table of behaviour holds them all to it.

use clap::ValueEnum;

/// A file of a project, and what is in it.
type File = (&'static str, &'static str);

/// What a project is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Language {
    /// A crate for wasm32-wasip2
    Rust,
    /// A module for componentize-py
    Python,
    /// A module for componentize-qjs
    Javascript,
    /// For Go's own compiler, with bindings by wit-bindgen
    Go,
    /// For Clang, with bindings by wit-bindgen
    C,
    /// A text that the built-in engine of scripts runs: nothing to build
    Script,
}

macro_rules! files {
    ($folder:literal: $($path:literal),* $(,)?) => {
        &[$((
            $path,
            include_str!(concat!("../../../../../../", $folder, "/", $path)),
        )),*]
    };
}

const RUST: &[File] = files!(
    "examples/hello": ".gitignore", "Cargo.lock", "Cargo.toml", "README.md", "hello.toml",
    "src/decide.rs", "src/lib.rs",
);
const PYTHON: &[File] = files!(
    "examples/hello-python": ".gitignore", "README.md", "decide.py", "hello.toml", "plugin.py",
    "requirements.txt", "test_decide.py", "wit/world.wit",
);
const JAVASCRIPT: &[File] = files!(
    "examples/hello-javascript": ".gitignore", "README.md", "decide.js", "decide.test.js",
    "hello.toml", "package-lock.json", "package.json", "plugin.js", "wit/world.wit",
);
const GO: &[File] = files!(
    "examples/hello-go": ".gitignore", "README.md", "decide/decide.go", "decide/decide_test.go",
    "export_taskwright_plugin_runtime/runtime.go", "hello.toml", "tools.txt", "wit/world.wit",
);
const C: &[File] = files!(
    "examples/hello-c": ".gitignore", "Makefile", "README.md", "decide.c", "decide.h",
    "hello.toml", "plugin.c", "test_decide.c", "tools.txt",
);
const SCRIPT: &[File] = files!(
    "examples/hello-script": "README.md", "hello.rhai", "hello.toml",
);

/// The contract, as it is served by this binary.
pub(super) const CONTRACT: &[File] = files!(
    "wit": "container.wit", "directories.wit", "files.wit", "log.wit", "namespace.wit",
    "observer.wit", "policy.wit", "process.wit", "runtime.wit", "secrets.wit", "settings.wit",
    "status.wit", "types.wit", "units.wit", "world.wit",
);

impl Language {
    /// The example's files but the contract.
    pub(super) fn files(self) -> &'static [File] {
        match self {
            Self::Rust => RUST,
            Self::Python => PYTHON,
            Self::Javascript => JAVASCRIPT,
            Self::Go => GO,
            Self::C => C,
            Self::Script => SCRIPT,
        }
    }

    /// Where the contract lies in the project. Where a toolchain takes the imports of a world as
    /// they are, whether they are used or not, the project has a world of its own.
    pub(super) fn contract_folder(self) -> Option<&'static str> {
        match self {
            Self::Rust | Self::C => Some("wit"),
            Self::Python | Self::Javascript | Self::Go => Some("wit/deps/taskwright-plugin"),
            Self::Script => None,
        }
    }

    /// The file that is dropped into a plugin folder.
    pub(super) fn runtime_file(self) -> &'static str {
        match self {
            Self::Script => "hello.rhai",
            _ => "hello.wasm",
        }
    }

    /// What to type in the example's folder, until that file is there.
    pub(super) fn steps(self) -> &'static [&'static str] {
        match self {
            Self::Rust => &[
                "rustup target add wasm32-wasip2",
                "cargo test",
                "cargo build --release --target wasm32-wasip2",
                "cp target/wasm32-wasip2/release/runtime_hello.wasm hello.wasm",
            ],
            Self::Python => &[
                "python3 -m venv .venv && . .venv/bin/activate",
                "pip install -r requirements.txt",
                "componentize-py -d wit -w runtime-plugin bindings bindings",
                "PYTHONPATH=bindings python3 -m unittest",
                "componentize-py -d wit -w runtime-plugin componentize plugin -o hello.wasm",
            ],
            Self::Javascript => &["npm ci", "npm test", "npm run build"],
            Self::Go => &[
                "xargs cargo install --locked < tools.txt",
                "wit-bindgen go wit --world runtime-plugin",
                "go mod tidy",
                "go test ./decide",
                "GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -ldflags=-checklinkname=0 -o core.wasm",
                "wasm-tools component embed wit --world runtime-plugin core.wasm -o core.wasm",
                "wasm-tools component new core.wasm --adapt wasi_snapshot_preview1.reactor.wasm -o hello.wasm",
            ],
            Self::C => &[
                "apt-get install clang lld wasi-libc libclang-rt-dev-wasm32 make",
                "xargs cargo install --locked < tools.txt",
                "make test",
                "make",
            ],
            Self::Script => &[],
        }
    }
}
