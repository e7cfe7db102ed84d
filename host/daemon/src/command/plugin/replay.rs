//! `taskwright plugin replay`: the calls that a daemon recorded, with the plugin as it is now.
//!
//! Each call gets the arguments and the answers of the host that are on record, so nothing of this
//! machine is asked, and whatever differs is the plugin's doing.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use clap::Args;
use serde_json::{Value, json};
use taskwright_control::port::BUILT_IN;
use taskwright_engine::Script;
use taskwright_engine::record::{Header, RecordError, RecordReader};
use taskwright_engine::replay::{self, Difference, Player, Repeated};

use crate::builtin;
use crate::exit::Code;
use crate::failure::Advise as _;
use crate::folder::{self, script};
use crate::offline::Offline;
use crate::output::style::{self, Colours, Tone};
use crate::output::{self, OutputArgs};

/// Differences that are told; the rest is counted.
const MOST_TOLD: usize = 10;
/// Bytes of each side of a difference.
const MOST_SHOWN: usize = 800;

#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    /// A file that a daemon made in its --record-plugins directory
    #[arg(value_name = "RECORD")]
    record: PathBuf,
    /// The component or the script, if not the one that the record names
    #[arg(long, value_name = "FILE")]
    component: Option<PathBuf>,
    /// Go on with a plugin that is not the one on record, byte for byte
    #[arg(long)]
    any_version: bool,
    #[command(flatten)]
    output: OutputArgs,
}

/// What came of all calls.
#[derive(Default)]
struct Report {
    calls: usize,
    differ: usize,
    not_played: usize,
    told: Vec<Told>,
    /// The line in which the record breaks off.
    breaks_off: Option<usize>,
}

/// Something to tell of a call.
struct Told {
    call: usize,
    export: String,
    what: What,
}

enum What {
    Differs(Difference),
    NotPlayed(&'static str),
}

pub(super) async fn carry_out(args: ReplayArgs) -> anyhow::Result<Code> {
    let replaying = || format!("replay {}", args.record.display());
    let (header, mut calls) = RecordReader::open(&args.record)
        .with_context(replaying)
        .hint("a daemon makes records when it is started with --record-plugins DIRECTORY")?;
    let (component, script) =
        plugin(&header, &args).with_context(|| format!("get the plugin {}", header.plugin))?;
    let digest = replay::digest(&component, script.as_ref());
    let another = digest != header.digest;
    if another && !args.any_version {
        return Err(anyhow!(
            "the plugin is not the one on record: its sha256 is {digest}, on record is {}",
            header.digest
        ))
        .with_context(replaying)
        .exit_with(Code::PROBLEM)
        .hint("--any-version compares it nevertheless; --component FILE takes another file");
    }
    let offline = Offline::start().await?;
    let player = offline.runtimes.player(&header, component, script);
    let player = player
        .await
        .with_context(replaying)
        .exit_with(Code::PROBLEM)?;
    let report = play_all(&player, &mut calls)
        .await
        .with_context(replaying)
        .exit_with(Code::PROBLEM)
        .hint("records are lines of JSON that only a daemon writes: take a whole one")?;
    let told = report.to_json(&header, &digest);
    if !output::structured(args.output.format(), &told)? {
        if another {
            output::note("note: the plugin is not the one on record");
        }
        output::print(&report.describe(Colours::of_stdout()))?;
    }
    Ok(match report.differ {
        0 => Code::DONE,
        _ => Code::PROBLEM,
    })
}

/// The plugin: the file that was named, else where the record has it from.
fn plugin(header: &Header, args: &ReplayArgs) -> anyhow::Result<(Arc<[u8]>, Option<Script>)> {
    let own = args.component.is_none() && header.origin == BUILT_IN;
    if own {
        let found = builtin::ALL.iter().find(|one| one.name == header.plugin);
        let found = found.context("this version has no such built-in plugin")?;
        return Ok((found.component.into(), None));
    }
    let path = args.component.as_deref();
    let path = path.unwrap_or_else(|| Path::new(&header.origin));
    let is_script = script::is_script(path);
    let bytes = folder::read(path, folder::most_bytes(is_script))
        .hint("name the component or the script by --component FILE")?;
    if !is_script {
        return Ok((bytes.into(), None));
    }
    let script = Script {
        // What it says of itself is to be the same wherever the file lies now.
        file: format!("{}.rhai", header.plugin),
        ..script::script(path, bytes)?
    };
    Ok((script::engine(), Some(script)))
}

async fn play_all(player: &Player<'_>, calls: &mut RecordReader) -> anyhow::Result<Report> {
    let mut report = Report::default();
    loop {
        let noted = match calls.next_call() {
            Ok(Some(noted)) => noted,
            Ok(None) => break,
            // A daemon that was killed while it wrote leaves that; what is before it is whole.
            Err(RecordError::BrokenOff { line }) => {
                report.breaks_off = Some(line);
                break;
            }
            Err(error) => return Err(error.into()),
        };
        report.calls += 1;
        let export = noted.export.clone();
        let what = match player.play(noted).await {
            Repeated::Same => continue,
            Repeated::Differs(difference) => {
                report.differ += 1;
                What::Differs(difference)
            }
            Repeated::NotPlayed(why) => {
                report.not_played += 1;
                What::NotPlayed(why)
            }
        };
        if report.told.len() < MOST_TOLD {
            report.told.push(Told {
                call: report.calls,
                export,
                what,
            });
        }
    }
    Ok(report)
}

impl Report {
    fn to_json(&self, header: &Header, digest: &str) -> Value {
        json!({
            "plugin": header.plugin,
            "digest": digest,
            "recordedDigest": header.digest,
            "calls": self.calls,
            "differ": self.differ,
            "notPlayed": self.not_played,
            "breaksOffInLine": self.breaks_off,
            "told": self.told.iter().map(Told::to_json).collect::<Vec<_>>(),
        })
    }

    fn describe(&self, colours: Colours) -> String {
        let calls = if self.calls == 1 { "call" } else { "calls" };
        let differ = if self.differ == 1 {
            "differs"
        } else {
            "differ"
        };
        let mut text = format!("{} {calls}, {} {differ}", self.calls, self.differ);
        if self.not_played > 0 {
            text.push_str(&format!(", {} not played", self.not_played));
        }
        text.push('\n');
        for told in &self.told {
            text.push_str(&told.describe(colours));
        }
        let left_out = (self.differ + self.not_played).saturating_sub(self.told.len());
        if left_out > 0 {
            text.push_str(&format!("and {left_out} more\n"));
        }
        if let Some(line) = self.breaks_off {
            text.push_str(&format!(
                "the record breaks off in line {line}: what was written last is not whole\n"
            ));
        }
        text
    }
}

impl Told {
    fn to_json(&self) -> Value {
        let mut told = json!({ "call": self.call, "export": self.export });
        let fields = match &self.what {
            What::NotPlayed(why) => json!({ "notPlayed": why }),
            What::Differs(difference) => json!({
                "onTheWay": difference.on_the_way,
                "noted": difference.noted,
                "came": difference.came,
            }),
        };
        if let (Value::Object(told), Value::Object(fields)) = (&mut told, fields) {
            told.extend(fields);
        }
        told
    }

    fn describe(&self, colours: Colours) -> String {
        let Self { call, export, .. } = self;
        let export = style::tame(export);
        match &self.what {
            What::NotPlayed(why) => format!("call {call}, {export}: not played: {why}\n"),
            What::Differs(difference) => {
                let differs = Tone::Bad.paint("differs", colours);
                let mut text = format!("call {call}, {export}: {differs}\n");
                match &difference.on_the_way {
                    // How it ended follows from that.
                    Some(sentence) => text.push_str(&format!("  {}\n", shown(sentence.clone()))),
                    None => {
                        let (noted, came) = (&difference.noted, &difference.came);
                        text.push_str(&format!("  noted: {}\n", shown(noted.to_string())));
                        text.push_str(&format!("  came:  {}\n", shown(came.to_string())));
                    }
                }
                text
            }
        }
    }
}

/// A text of a size that people read.
fn shown(mut text: String) -> String {
    if text.len() > MOST_SHOWN {
        text.truncate(text.floor_char_boundary(MOST_SHOWN));
        text.push('…');
    }
    style::tame(&text)
}
