//! Components made from WIT alone. Their functions trap, which is enough for a loader that
//! reads types and never gets to call them.

use wit_component::{ComponentEncoder, StringEncoding, dummy_module, embed_component_metadata};
use wit_parser::{ManglingAndAbi, Resolve, SourceMap};

const WIT: [(&str, &str); 15] = [
    ("types.wit", include_str!("../../../../wit/types.wit")),
    ("runtime.wit", include_str!("../../../../wit/runtime.wit")),
    ("policy.wit", include_str!("../../../../wit/policy.wit")),
    ("observer.wit", include_str!("../../../../wit/observer.wit")),
    ("units.wit", include_str!("../../../../wit/units.wit")),
    ("status.wit", include_str!("../../../../wit/status.wit")),
    ("process.wit", include_str!("../../../../wit/process.wit")),
    (
        "namespace.wit",
        include_str!("../../../../wit/namespace.wit"),
    ),
    (
        "container.wit",
        include_str!("../../../../wit/container.wit"),
    ),
    ("files.wit", include_str!("../../../../wit/files.wit")),
    (
        "directories.wit",
        include_str!("../../../../wit/directories.wit"),
    ),
    ("secrets.wit", include_str!("../../../../wit/secrets.wit")),
    ("settings.wit", include_str!("../../../../wit/settings.wit")),
    ("log.wit", include_str!("../../../../wit/log.wit")),
    ("world.wit", include_str!("../../../../wit/world.wit")),
];

/// Our WIT with each file changed as text; one that becomes empty is left out.
pub(crate) fn resolved(change: impl Fn(&str, String) -> String) -> Resolve {
    let mut sources = SourceMap::new();
    for (name, text) in WIT {
        let changed = change(name, text.to_owned());
        if !changed.is_empty() {
            sources.push_str(name, changed);
        }
    }
    let mut resolve = Resolve::default();
    let group = sources.parse().map_err(|(_, error)| error.to_string());
    resolve.push_group(group.unwrap()).unwrap();
    resolve
}

/// A component of one of its worlds.
pub(crate) fn built(resolve: &Resolve, world: &str) -> Vec<u8> {
    let mut packages = resolve.packages.iter();
    let (package, _) = packages
        .find(|(_, package)| package.worlds.contains_key(world))
        .unwrap();
    let world = resolve.select_world(&[package], Some(world)).unwrap();
    let mut module = dummy_module(resolve, world, ManglingAndAbi::Standard32);
    embed_component_metadata(&mut module, resolve, world, StringEncoding::UTF8).unwrap();
    let encoder = ComponentEncoder::default().module(&module).unwrap();
    encoder.validate(true).encode().unwrap()
}

/// A runtime of our own world, changed.
pub(crate) fn component(change: impl Fn(&str, String) -> String) -> Vec<u8> {
    built(&resolved(change), "runtime-plugin")
}

/// A runtime with one text replaced in one file; `""` for all files.
pub(crate) fn replaced(file: &str, from: &str, to: &str) -> Vec<u8> {
    replaced_in("runtime-plugin", file, from, to)
}

/// The same of another world. With `""` every file that holds the text is changed.
pub(crate) fn replaced_in(world: &str, file: &str, from: &str, to: &str) -> Vec<u8> {
    let resolve = resolved(|name, text| {
        if !file.is_empty() && name != file {
            return text;
        }
        let changed = text.replace(from, to);
        assert!(changed != text, "{from:?} is not in {name}");
        changed
    });
    built(&resolve, world)
}
