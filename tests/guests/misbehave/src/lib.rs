//! A plugin that misbehaves on request: the setting named after an export says what that
//! export does. Without a setting it behaves. It is a runtime, and with the settings `policy` and
//! `observer` these, too.
//!
//! One guest for all faults, so that they cost one link; settings, because `describe` and
//! `probe` get no argument to read a wish from.

use std::hint::black_box;
use std::net::{TcpListener, TcpStream, ToSocketAddrs as _, UdpSocket};
use std::time::Duration;

wit_bindgen::generate!({ world: "any-plugin", path: "../../../wit" });

mod imports;

use exports::taskwright::plugin::runtime::{
    Description, Event, Failure, Guest, Problem, Step, Task,
};
use exports::taskwright::plugin::{observer, policy};
use taskwright::plugin::types::{Outcome, SpawnError, SpawnRequest, Waiting};
use taskwright::plugin::{files, log, process, settings};

const MIB: usize = 1 << 20;

struct Misbehave;

impl Guest for Misbehave {
    fn describe() -> Description {
        fault("describe");
        Description {
            name: settings::get("name").unwrap_or_else(|| "misbehave".to_owned()),
            version: "0.0.0".to_owned(),
            kinds: if wish("describe", "many") {
                vec!["k".repeat(1000); 1000]
            } else {
                vec!["misbehave".to_owned()]
            },
            config_schema: if wish("describe", "huge") {
                "x".repeat(2 * MIB)
            } else {
                String::new()
            },
        }
    }

    fn probe() -> Result<(), String> {
        fault("probe");
        if wish("probe", "huge") {
            return Err("unwell ".repeat(MIB / 7));
        }
        match settings::get("unwell") {
            Some(why) => Err(why),
            None => Ok(()),
        }
    }

    fn validate(_: Task) -> Result<(), Vec<Problem>> {
        fault("validate");
        if wish("validate", "huge") {
            let problem = || Problem {
                field: "/".repeat(100),
                message: "no".repeat(1000),
            };
            return Err((0..100_000).map(|_| problem()).collect());
        }
        Ok(())
    }

    fn start(task: Task) -> Result<Step, Failure> {
        fault("start");
        host_calls(&task)?;
        match settings::get("start").as_deref() {
            Some("huge") => return Ok(wait(vec![7; MIB])),
            Some("giant") => return Ok(wait(vec![7; 20 * MIB])),
            Some("blame") => return Err(Failure::Infrastructure("no ".repeat(MIB))),
            _ => {}
        }
        Ok(wait(b"kept".to_vec()))
    }

    fn on_event(_: Task, state: Vec<u8>, _: Event) -> Result<Step, Failure> {
        fault("on-event");
        if wish("on-event", "huge") {
            return Ok(Step::Done(Outcome::Lost("gone ".repeat(MIB / 8))));
        }
        if state == b"kept" {
            Ok(Step::Done(Outcome::Exited(0)))
        } else {
            Err(Failure::Bug(format!("the state came back as {state:?}")))
        }
    }
}

impl policy::Guest for Misbehave {
    fn describe() -> policy::Description {
        fault("policy-describe");
        policy::Description {
            name: settings::get("policy").unwrap_or_default(),
            version: settings::get("version").unwrap_or_default(),
        }
    }

    fn review(request: policy::Request) -> Result<policy::Verdict, String> {
        fault("review");
        let huge = || "x".repeat(MIB);
        match settings::get("review").as_deref() {
            Some("huge-patch") => Ok(policy::Verdict::Change(policy::Change {
                patch: huge(),
                reason: String::new(),
            })),
            Some("giant-patch") => Ok(policy::Verdict::Change(policy::Change {
                patch: "x".repeat(20 * MIB),
                reason: String::new(),
            })),
            Some("huge-denial") => Ok(policy::Verdict::Deny(policy::Denial {
                reason: huge(),
                field: huge(),
            })),
            Some("huge-question") => Ok(policy::Verdict::Ask(policy::Question {
                text: huge(),
                within_ms: Some(u64::MAX),
                otherwise: None,
            })),
            Some("huge-error") => Err(huge()),
            // So that a crowd of calls holds good and bad ones.
            Some("trap-odd") if request.attempt % 2 == 1 => core::arch::wasm32::unreachable(),
            _ => Ok(policy::Verdict::Allow),
        }
    }
}

impl observer::Guest for Misbehave {
    fn describe() -> observer::Description {
        fault("observer-describe");
        observer::Description {
            name: settings::get("observer").unwrap_or_default(),
            version: String::new(),
        }
    }

    fn notice(_: observer::Event) -> Result<(), String> {
        fault("notice");
        match settings::get("notice").as_deref() {
            Some("huge-error") => Err("x".repeat(MIB)),
            _ => Ok(()),
        }
    }
}

export!(Misbehave);

fn wait(state: Vec<u8>) -> Step {
    Step::Wait(Waiting {
        running: true,
        state,
        wake_after_ms: None,
    })
}

fn wish(export: &str, what: &str) -> bool {
    settings::get(export).as_deref() == Some(what)
}

/// Faults that any export may show.
fn fault(export: &str) {
    match settings::get(export).as_deref() {
        Some("trap") => core::arch::wasm32::unreachable(),
        Some("panic") => panic!("a bug in {export}"),
        Some("exit") => std::process::exit(3),
        Some("spin") => loop {
            black_box(());
        },
        Some("fill") => {
            let mut bytes = vec![0u8; 14 * MIB];
            loop {
                bytes.fill(black_box(3));
            }
        }
        Some("hog") => {
            let mut all = Vec::new();
            loop {
                all.push(vec![1u8; MIB]);
                black_box(&all);
            }
        }
        Some("recurse") => {
            black_box(deeper(black_box(2)));
        }
        Some("sleep") => std::thread::sleep(Duration::from_secs(3600)),
        Some("shout") => {
            for line in 0..10_000 {
                eprintln!("line {line} of far too many, each of them quite long and of no use");
                log::write(log::Level::Info, &format!("line {line}"));
            }
        }
        _ => {}
    }
}

/// Never reaches 1: recursion that no optimiser turns into a loop.
#[inline(never)]
fn deeper(depth: u64) -> u64 {
    if depth == 1 {
        return 1;
    }
    let below = deeper(black_box(depth).wrapping_add(2));
    black_box(below ^ depth).wrapping_mul(3)
}

fn request(argv: &[&str]) -> SpawnRequest {
    SpawnRequest {
        argv: argv.iter().map(|&word| word.to_owned()).collect(),
        env: Vec::new(),
        working_dir: None,
        extra: Vec::new(),
    }
}

/// Calls of the host that it should not take, or not take so often.
fn host_calls(task: &Task) -> Result<(), Failure> {
    let told = |error: SpawnError| Failure::Other(format!("{error:?}"));
    match settings::get("start").as_deref() {
        Some("spawn") => {
            process::spawn("main", &request(&["true"])).map_err(told)?;
        }
        Some("spawn-many") => {
            for unit in 0..17 {
                process::spawn(&format!("u{unit}"), &request(&["true"])).map_err(told)?;
            }
        }
        Some("spawn-odd-unit") => {
            process::spawn("../main", &request(&["true"])).map_err(told)?;
        }
        Some("spawn-odd-key") => {
            let mut request = request(&["true"]);
            request.extra.push(("gpu".to_owned(), "1".to_owned()));
            process::spawn("main", &request).map_err(told)?;
        }
        Some("spawn-huge") => {
            let huge = "x".repeat(40 * MIB);
            process::spawn("main", &request(&[&huge])).map_err(told)?;
        }
        Some("network") => return Err(Failure::Other(what_the_network_says())),
        Some("files") => files_keep_what_was_written(task)?,
        Some("odd-file") => {
            let told = |error: files::Error| Failure::Bug(format!("{error:?}"));
            files::read("odd", 0, 10).map_err(told)?;
        }
        Some("odd-write") => {
            let told = |error: files::Error| Failure::Bug(format!("{error:?}"));
            files::write("fine", b"x").map_err(told)?;
        }
        _ => {}
    }
    if let Some(function) = settings::get("call") {
        while settings::get("times").as_deref() == Some("endless") {
            // What comes of it is nothing to a guest that only wants to be a burden.
            let _ = black_box(imports::call(&function));
        }
        imports::call(&function)
            .map_err(|sentence| Failure::Bug(format!("{function}: {sentence}")))?;
    }
    Ok(())
}

/// Each way to a network, and what became of it.
fn what_the_network_says() -> String {
    let address = settings::get("address").unwrap_or_default();
    let said = [
        ("connect", TcpStream::connect(&*address).map(drop)),
        ("listen", TcpListener::bind("127.0.0.1:0").map(drop)),
        ("datagram", UdpSocket::bind("127.0.0.1:0").map(drop)),
        ("look up", "localhost:1".to_socket_addrs().map(drop)),
    ];
    let word = |done: &std::io::Result<()>| if done.is_ok() { "done" } else { "refused" };
    let words = said
        .iter()
        .map(|(way, done)| format!("{way}: {}", word(done)));
    words.collect::<Vec<_>>().join(", ")
}

fn files_keep_what_was_written(task: &Task) -> Result<(), Failure> {
    let told = |error: files::Error| Failure::Other(format!("{error:?}"));
    files::write("deep/er/note", task.id.as_bytes()).map_err(told)?;
    let back = files::read("deep/er/note", 0, 1024).map_err(told)?;
    if back != task.id.as_bytes() {
        return Err(Failure::Bug("a file came back changed".to_owned()));
    }
    let rest = files::read("deep/er/note", 1000, 1024).map_err(told)?;
    if !rest.is_empty() {
        return Err(Failure::Bug("there is something after the end".to_owned()));
    }
    for outside in [
        "/etc/passwd",
        "../x",
        "a/../../x",
        "",
        "a//b",
        "link/passwd",
    ] {
        if files::read(outside, 0, 1).is_ok() {
            return Err(Failure::Bug(format!("{outside:?} was read")));
        }
        if !outside.starts_with("link") && files::write(outside, b"x").is_ok() {
            return Err(Failure::Bug(format!("{outside:?} was written")));
        }
    }
    if files::write("big", &vec![0; MIB + 1]).is_ok() {
        return Err(Failure::Bug("more than a MiB was taken".to_owned()));
    }
    files::remove("deep/er/note").map_err(told)?;
    files::remove("deep/er/note").map_err(told)
}
