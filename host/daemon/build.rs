//! Compiles the plugins that are part of the product, for `src/builtin.rs` to embed.

use std::path::Path;

fn main() {
    // Asked for when it runs: the program may have been compiled for another clone that shares
    // the target directory.
    let here = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default();
    let root = Path::new(&here).join("../..");
    let packages = [
        "taskwright-plugin-process",
        "taskwright-plugin-sidecar",
        "taskwright-plugin-container",
        "taskwright-plugin-script",
        "taskwright-plugin-echo",
    ];
    match taskwright_guest_build::build(&root.join("plugins"), &[&root.join("wit")], &packages) {
        Ok(built) => {
            for (name, guest) in ["PROCESS", "SIDECAR", "CONTAINER", "SCRIPT", "ECHO"]
                .iter()
                .zip(built)
            {
                println!(
                    "cargo::rustc-env=BUILTIN_{name}={}",
                    guest.component.display()
                );
            }
        }
        Err(message) => taskwright_guest_build::fail(&message),
    }
}
