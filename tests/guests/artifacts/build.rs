//! Compiles the guests and hands their paths to the library.

use std::path::Path;

fn main() {
    // Asked for when it runs: the program may have been compiled for another clone that shares
    // the target directory.
    let here = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default();
    let root = Path::new(&here).join("../../..");
    let (plugins, guests, wit) = (
        root.join("plugins"),
        root.join("tests/guests/misbehave"),
        root.join("wit"),
    );
    let packages = ["taskwright-plugin-process", "taskwright-guest-misbehave"];
    match taskwright_guest_build::build(&plugins, &[&guests, &wit], &packages) {
        Ok(built) => {
            for (name, guest) in ["PROCESS", "MISBEHAVE"].iter().zip(built) {
                println!(
                    "cargo::rustc-env=GUEST_{name}={}",
                    guest.component.display()
                );
            }
        }
        Err(message) => taskwright_guest_build::fail(&message),
    }
}
