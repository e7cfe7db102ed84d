//! Compiles the plugins that are part of the product, for `src/builtin.rs` to embed.

use std::path::Path;

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let packages = ["taskwright-plugin-process"];
    match taskwright_guest_build::build(&root.join("plugins"), &[&root.join("wit")], &packages) {
        Ok(built) => {
            for (name, guest) in ["PROCESS"].iter().zip(built) {
                println!(
                    "cargo::rustc-env=BUILTIN_{name}={}",
                    guest.component.display()
                );
            }
        }
        Err(message) => taskwright_guest_build::fail(&message),
    }
}
