//! Files that are made to hurt whoever reads them: each is refused, in words, soon, and at the
//! cost of little memory.

use std::time::{Duration, Instant};

use taskwright_capability::{Capability, Grants};
use taskwright_engine::{PluginSource, inspect};
use taskwright_test_guests::{MISBEHAVE, RELAY, SCRIPT};

use crate::support::{Bench, process, said};
use crate::wit::{built, resolved};

const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";
const CORE: &[u8] = b"\0asm\x01\0\0\0";
/// How long reading such a file may take here, on a machine that does other things as well.
const SOON: Duration = Duration::from_secs(10);

fn source(component: Vec<u8>) -> PluginSource {
    PluginSource {
        name: "odd".to_owned(),
        origin: "odd.wasm".to_owned(),
        component: component.into(),
        script: None,
        grants: Grants::of(&Capability::ALL),
        limits: None,
        policy: None,
    }
}

/// A number as WebAssembly writes it.
fn number(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(value & 0x7f).unwrap();
        value >>= 7;
        if value == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

/// A number of a type, which is written with a sign.
fn index(value: usize) -> Vec<u8> {
    let mut bytes = number(value);
    if let Some(last) = bytes.last_mut().filter(|last| **last >= 0x40) {
        *last |= 0x80;
        bytes.push(0);
    }
    bytes
}

fn section(id: u8, content: &[u8]) -> Vec<u8> {
    [&[id][..], &number(content.len()), content].concat()
}

/// A section of so many times the same.
fn list(id: u8, count: usize, each: &[u8]) -> Vec<u8> {
    section(id, &[number(count), each.repeat(count)].concat())
}

fn component(sections: &[Vec<u8>]) -> Vec<u8> {
    [COMPONENT, &sections.concat()].concat()
}

/// Loads what should not load, and says why it did not.
async fn refused(what: &str, component: Vec<u8>) -> String {
    let bench = Bench::with_process().await;
    let begun = Instant::now();
    let error = bench.runtimes.load(source(component)).await;
    let took = begun.elapsed();
    let said = said(&error.expect_err(what));
    assert!(took < SOON, "{what} took {took:?}");
    assert!(said.len() < 300 << 10, "{what}: {} bytes", said.len());
    bench.check_that_others_work().await;
    said
}

#[track_caller]
fn check(said: &str, expected: &str) {
    assert!(said.contains(expected), "{said:?} lacks {expected:?}");
}

#[tokio::test]
async fn a_file_that_is_cut_off_anywhere_is_refused() {
    let bench = Bench::with_process().await;
    for whole in [&process().component[..], RELAY, MISBEHAVE, SCRIPT] {
        for part in 0..50 {
            let cut = &whole[..whole.len() * part / 50];
            let error = bench.runtimes.load(source(cut.to_vec())).await;
            let said = said(&error.unwrap_err());
            // What ends between two sections is a component that has nothing to offer.
            let words = ["it is not a WebAssembly component: ", "it exports nothing"];
            assert!(words.iter().any(|word| said.contains(word)), "{said}");
        }
    }
    bench.check_that_others_work().await;
}

#[tokio::test]
async fn a_file_with_wrong_bytes_is_an_answer_whatever_they_are() {
    let bench = Bench::with_process().await;
    let grants = Grants::of(&Capability::ALL);
    let good = process().component;
    // The same on each run, and anywhere in the file.
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let (mut taken, mut refused) = (0, 0);
    for _ in 0..500 {
        let mut bytes = good.to_vec();
        for _ in 0..3 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let at = usize::try_from(random >> 8).unwrap() % bytes.len();
            bytes[at] = random.to_le_bytes()[0];
        }
        match inspect(bytes.into(), "odd", &grants).await {
            Ok(_) => taken += 1,
            Err(_) => refused += 1,
        }
    }
    // Most bytes are code, which is looked at by the compiler alone.
    assert!(taken > 0 && refused > 0, "{taken} taken, {refused} refused");
    bench.check_that_others_work().await;
}

#[tokio::test]
async fn a_length_of_four_gibibytes_in_a_file_of_a_few_bytes_costs_none() {
    let four_gib = [COMPONENT, &[7, 0xff, 0xff, 0xff, 0xff, 0x0f]].concat();
    check(
        &refused("a length", four_gib).await,
        "unexpected end-of-file",
    );
    let module = [CORE, &[1, 0xff, 0xff, 0xff, 0xff, 0x0f]].concat();
    let inside = component(&[section(1, &module)]);
    check(
        &refused("in a module", inside).await,
        "unexpected end-of-file",
    );
}

#[tokio::test]
async fn thousands_of_types_are_refused_before_they_are_read() {
    // `list<u8>`, in two bytes each.
    let few = component(&[list(7, 100_000, &[0x70, 0x7d])]);
    check(&refused("many types", few).await, "it exports nothing");
    let many = component(&[list(7, 10 << 20, &[0x70, 0x7d])]);
    check(&refused("too many types", many).await, "1048576 bytes");
    let functions = [CORE, &list(1, 5 << 20, &[0x60, 0, 0])].concat();
    let many = component(&[section(1, &functions)]);
    check(&refused("types of a module", many).await, "1048576 bytes");
}

#[tokio::test]
async fn types_that_hold_each_other_twice_are_not_unfolded() {
    // Each is a tuple of the one before, twice: the last would be of 2^90 parts.
    let mut types = vec![0x6f, 1, 0x7d];
    for before in 0..90 {
        types.extend([0x6f, 2]);
        types.extend([index(before), index(before)].concat());
    }
    let content = [number(91), types].concat();
    let said = refused("doubled types", component(&[section(7, &content)])).await;
    check(&said, "size");
}

#[tokio::test]
async fn types_in_types_without_end_are_refused() {
    let mut types = vec![0x70, 0x7d];
    for before in 0..9_999 {
        types.push(0x70);
        types.extend(index(before));
    }
    let content = [number(10_000), types].concat();
    let said = refused("deep types", component(&[section(7, &content)])).await;
    check(&said, "nest");
}

#[tokio::test]
async fn components_in_components_without_end_are_refused() {
    let mut nested = COMPONENT.to_vec();
    for _ in 0..10_000 {
        nested = component(&[section(4, &nested)]);
    }
    check(&refused("nested", nested).await, "more than 32 deep");
}

#[tokio::test]
async fn thousands_of_instances_functions_and_modules_are_refused() {
    let instances = component(&[list(2, 100_000, &[1, 0])]);
    check(&refused("instances", instances).await, "instances");
    let modules = component(&vec![section(1, CORE); 5_000]);
    check(&refused("modules", modules).await, "modules");
    let sections = component(&vec![section(0, &[1, b'x']); 1 << 20]);
    check(&refused("sections", sections).await, "100000 sections");
    // A module of a million functions, all of them empty, that nothing is made of.
    let functions = [
        CORE,
        &list(1, 1, &[0x60, 0, 0]),
        &list(3, 1_000_000, &[0]),
        &list(10, 1_000_000, &[2, 0, 0x0b]),
    ];
    let functions = component(&[section(1, &functions.concat())]);
    check(&refused("functions", functions).await, "it exports nothing");
}

#[tokio::test]
async fn a_component_that_imports_everything_is_told_some_of_it() {
    let mut imports = String::new();
    let mut interfaces = String::new();
    for number in 0..400 {
        imports.push_str(&format!("  import gpu{number};\n"));
        interfaces.push_str(&format!("interface gpu{number} {{ count: func(); }}\n"));
    }
    let resolve = resolved(|name, text| match name {
        "world.wit" => format!("{text}\nworld everything {{\n  include any-plugin;\n{imports}}}\n"),
        "log.wit" => format!("{text}\n{interfaces}"),
        _ => text,
    });
    let said = refused("imports", built(&resolve, "everything")).await;
    check(&said, "it imports `taskwright:plugin/gpu");
    check(&said, "and 350 more");
}

#[tokio::test]
async fn interfaces_of_wasi_that_are_not_there_are_refused_with_their_name() {
    for (import, expected) in [
        (
            "wasi:keyvalue/store@0.2.0",
            "plugins get requests by wasi:http",
        ),
        (
            "wasi:http/incoming-handler@0.2.0",
            "plugins get requests by wasi:http",
        ),
        ("wasi:cli/nonsense@0.2.0", "wasi:cli/nonsense@0.2.0"),
    ] {
        let (package, version) = import.split_once('@').unwrap();
        let (package, interface) = package.split_once('/').unwrap();
        let odd =
            format!("package {package}@{version};\ninterface {interface} {{ count: func(); }}\n");
        let resolve = resolved_with(&odd, import);
        let said = refused(import, built(&resolve, "everything")).await;
        check(&said, import);
        check(&said, expected);
    }
}

/// Our world, with one more import of another package.
fn resolved_with(package: &str, import: &str) -> wit_parser::Resolve {
    let nested: String = package.replacen(';', " {", 1) + "}\n";
    resolved(|name, text| match name {
        "world.wit" => {
            format!(
                "{text}\nworld everything {{\n  include any-plugin;\n  import {import};\n}}\n{nested}"
            )
        }
        _ => text,
    })
}
