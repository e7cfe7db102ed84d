//! Compiles the guests and hands their paths to the library.

use std::path::Path;

fn main() {
    // Asked for when it runs: the program may have been compiled for another clone that shares
    // the target directory.
    let here = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default();
    let root = Path::new(&here).join("../../..");
    let (plugins, wit) = (root.join("plugins"), root.join("wit"));
    let [misbehave, relay, borrower] =
        ["misbehave", "relay", "borrower"].map(|name| root.join("tests/guests").join(name));
    let packages = [
        "taskwright-plugin-process",
        "taskwright-plugin-script",
        "taskwright-guest-misbehave",
        "taskwright-guest-relay",
        "taskwright-guest-borrower",
    ];
    match taskwright_guest_build::build(&plugins, &[&misbehave, &relay, &borrower, &wit], &packages)
    {
        Ok(built) => {
            for (name, guest) in ["PROCESS", "SCRIPT", "MISBEHAVE", "RELAY", "BORROWER"]
                .iter()
                .zip(built)
            {
                println!(
                    "cargo::rustc-env=GUEST_{name}={}",
                    guest.component.display()
                );
            }
        }
        Err(message) => taskwright_guest_build::fail(&message),
    }
}
