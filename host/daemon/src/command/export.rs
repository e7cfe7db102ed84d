//! `taskwright export`: what ended, as rows of a file.
//!
//! The file appears whole or not at all: until then it is FILE.partial. An export that was
//! cut off, by the network, the daemon or a kill of this program, goes on behind its last
//! whole row; beside a whole file FILE.cursor says where the next export may begin.

mod kept;
mod sink;

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::{Args, ValueEnum};
use http_body_util::BodyExt as _;
use tokio::time::{sleep, timeout};

use crate::cli::ConnectArgs;
use crate::client::Client;
use crate::client::http::{Ask, Refused, percent_encode};
use crate::exit::Code;
use crate::failure::Advise as _;
use crate::output;
use kept::Kept;
use sink::Sink;

/// How long a daemon may be silent within an answer: it may go through much that is not asked for.
const SILENCE: Duration = Duration::from_secs(300);
/// How often an export that was cut off is gone on with, without a row in between.
const MOST_TRIES: u32 = 10;
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// What each row is, and how it is written
    #[arg(short, long, value_enum, default_value_t = Format::Chat)]
    format: Format,
    /// The file; without it, standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Go on with FILE.partial that an export left when it was cut off
    #[arg(long, requires = "output")]
    resume: bool,
    /// Only what is behind it: what FILE.cursor of an earlier export says
    #[arg(long, value_name = "CURSOR")]
    cursor: Option<String>,
    /// Only tasks that ended so
    #[arg(long, value_name = "STATUS",
        value_parser = ["completed", "failed", "timeout", "cancelled", "pending", "running"])]
    status: Option<String>,
    /// Only this problem, or those that match a pattern with *, ? or [
    #[arg(long, value_name = "PATTERN")]
    problem: Option<String>,
    /// Only conversations with this model, or tasks that are about it
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Only tasks that this worker held last
    #[arg(long, value_name = "ID")]
    worker: Option<String>,
    /// Only rows that may be learned from (valid), that may not, or that were cut off
    #[arg(long, value_name = "MARK", value_parser = ["valid", "invalid", "truncated"])]
    validity: Option<String>,
    /// Only tasks that ended then or later, as 2025-01-14T10:30:00Z
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only tasks that ended before
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Tasks that have not ended, too; they come again once they have
    #[arg(long)]
    open: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// What each row is, and how it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// JSON lines: conversations, with their messages in the form of chats
    Chat,
    /// JSON lines: tasks, with their attempts and steps
    Tasks,
    /// The JSON document of the original's export script: tasks with logs and conversations
    Aiopslab,
    /// The rows of chat in columns
    Parquet,
}

impl Format {
    fn word(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Tasks => "tasks",
            Self::Aiopslab => "aiopslab",
            Self::Parquet => "parquet",
        }
    }
}

impl ExportArgs {
    /// The query, without where it begins.
    fn query(&self) -> String {
        let mut query = format!("format={}", self.format.word());
        let words = [
            ("status", &self.status),
            ("problem", &self.problem),
            ("model", &self.model),
            ("worker", &self.worker),
            ("validity", &self.validity),
            ("since", &self.since),
            ("until", &self.until),
        ];
        for (name, value) in words {
            if let Some(value) = value {
                query.push_str(&format!("&{name}={}", percent_encode(value)));
            }
        }
        if self.open {
            query.push_str("&ended_only=false");
        }
        query
    }
}

pub(crate) async fn carry_out(args: ExportArgs) -> anyhow::Result<Code> {
    let client = args.connect.client()?;
    let query = args.query();
    let mut kept = Kept {
        cursor: args.cursor.clone(),
        rows: 0,
        bytes: 0,
        begun: false,
    };
    let mut sink = match &args.output {
        None => Sink::stdout(args.format)?,
        Some(path) => {
            let (sink, there) = Sink::file(path, args.format, &query, args.resume)?;
            let mut sink = sink.beginning_anew(args.open);
            if there {
                if args.format == Format::Parquet || args.open {
                    let what = if args.open { "--open" } else { "Parquet" };
                    output::note(&format!(
                        "taskwright: {what} cannot be gone on with; it begins anew"
                    ));
                }
                let found = sink.look()?;
                let cursor = found.cursor.or(kept.cursor);
                kept = Kept { cursor, ..found };
            }
            sink
        }
    };
    let mut progress = Progress::new();
    let (mut tries, mut pause) = (0, FIRST_PAUSE);
    let mut answered = false;
    let cursor = loop {
        let path = ask(&query, &kept, args.format);
        let read = read(&client, path, &mut sink, &mut progress, &mut answered).await;
        let error = match read.and_then(|()| sink.whole()) {
            Ok(cursor) => break cursor,
            Err(error) => error,
        };
        progress.erase();
        let cut = answered && !is_refused(&error) && sink.goes_on();
        if !cut || tries >= MOST_TRIES {
            return match &args.output {
                Some(_) if answered => {
                    Err(error).hint("what came is kept: go on with the same words and --resume")
                }
                _ => Err(error),
            };
        }
        let found = sink.look()?;
        if found.bytes > kept.bytes {
            (tries, pause) = (0, FIRST_PAUSE);
        }
        let cursor = found.cursor.or(kept.cursor);
        kept = Kept { cursor, ..found };
        tries += 1;
        output::note(&format!(
            "taskwright: the export was cut off ({error:#}); it goes on"
        ));
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    };
    progress.erase();
    sink.finish(&cursor)?;
    if args.output.is_none() && std::io::stderr().is_terminal() {
        output::note(&format!(
            "taskwright: the next export may begin with --cursor {cursor}"
        ));
    }
    Ok(Code::DONE)
}

fn is_refused(error: &anyhow::Error) -> bool {
    let refused = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<Refused>());
    refused.is_some_and(|refused| refused.status.is_client_error() && refused.status != 429)
}

/// The path of what is not there yet.
fn ask(query: &str, kept: &Kept, format: Format) -> String {
    let mut path = format!("/api/v1/export?{query}");
    if let Some(cursor) = &kept.cursor {
        path.push_str(&format!("&cursor={}", percent_encode(cursor)));
    }
    if format == Format::Aiopslab && kept.begun {
        path.push_str(&format!("&continues={}", kept.rows));
    }
    path
}

async fn read(
    client: &Client,
    path: String,
    sink: &mut Sink,
    progress: &mut Progress,
    answered: &mut bool,
) -> anyhow::Result<()> {
    let answer = client.open(Ask::get(path)).await;
    let mut answer = answer.context("export from the queue")?;
    *answered = true;
    loop {
        let frame = timeout(SILENCE, answer.response.body_mut().frame()).await;
        let frame =
            frame.map_err(|_| anyhow!("the daemon is silent for {} s", SILENCE.as_secs()))?;
        let Some(frame) = frame else { return Ok(()) };
        let frame = frame.context("read the export")?;
        if let Ok(data) = frame.into_data() {
            sink.take(&data)?;
            progress.show(sink);
        }
    }
}

/// One line on a terminal: how far it is.
struct Progress {
    on: bool,
    shown: Option<tokio::time::Instant>,
}

impl Progress {
    const PERIOD: Duration = Duration::from_millis(200);

    fn new() -> Self {
        Self {
            on: std::io::stderr().is_terminal(),
            shown: None,
        }
    }

    fn show(&mut self, sink: &Sink) {
        let soon = self.shown.is_some_and(|at| at.elapsed() < Self::PERIOD);
        if !self.on || soon {
            return;
        }
        self.shown = Some(tokio::time::Instant::now());
        let megabytes = sink.bytes() / 1_000_000;
        let rows = match sink.rows() {
            0 => String::new(),
            rows => format!("{rows} rows, "),
        };
        write(&format!("\r\x1b[Kexporting: {rows}{megabytes} MB"));
    }

    fn erase(&mut self) {
        if self.shown.take().is_some() {
            write("\r\x1b[K");
        }
    }
}

fn write(text: &str) {
    use std::io::Write as _;
    let mut err = std::io::stderr().lock();
    // A terminal that is gone takes the line with it.
    let _ = err.write_all(text.as_bytes()).and_then(|()| err.flush());
}
