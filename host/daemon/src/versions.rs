//! Versions of what this program is made of, read from the files that decide them.

/// This program's.
pub(crate) const PRODUCT: &str = env!("CARGO_PKG_VERSION");

const LOCK: &str = include_str!("../../../Cargo.lock");
const WORLD: &str = include_str!("../../../wit/world.wit");

/// The version of the WebAssembly runtime.
pub(crate) fn wasmtime() -> &'static str {
    locked(LOCK, "wasmtime").unwrap_or("unknown")
}

/// The version of the WIT package that plugins are built against.
pub(crate) fn plugin_api() -> &'static str {
    packaged(WORLD).unwrap_or("unknown")
}

/// The version of a package in a lock file.
fn locked<'a>(lock: &'a str, package: &str) -> Option<&'a str> {
    let heading = format!("\nname = \"{package}\"\nversion = \"");
    let (_, after) = lock.split_once(&heading)?;
    after.split_once('"').map(|(version, _)| version)
}

/// The version in `package NAME@VERSION;`.
fn packaged(wit: &str) -> Option<&str> {
    let line = wit.lines().find(|line| line.starts_with("package "))?;
    let (_, version) = line.split_once('@')?;
    version.strip_suffix(';')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found() {
        for version in [wasmtime(), plugin_api()] {
            assert_eq!(version.split('.').count(), 3, "{version}");
        }
    }
}
