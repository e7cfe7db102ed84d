//! kill -9 at random moments: what was acknowledged is there, nothing is there in part.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::samples;
use crate::contract::commit;
use crate::{Options, Store};

const PLACE: &str = "TASKWRIGHT_STORE_TEST_DIRECTORY";
/// Tasks in each of the writer's batches.
const TASKS: u64 = 5;
const LINES: u64 = TASKS * samples::LINES_EACH;
const DEADLINE: Duration = Duration::from_secs(60);

/// A process that commits until it is killed, and says after each commit how many it made.
pub(crate) struct Writer {
    child: Child,
    said: BufReader<std::process::ChildStdout>,
}

impl Writer {
    pub(crate) fn start(place: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "tests::crash::writer",
                "--ignored",
                "--nocapture",
            ])
            .env(PLACE, place)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        Self { child, said }
    }

    /// Waits until so many commits of this process were acknowledged, at least, then kills it.
    /// Returns the number of feed lines that were acknowledged.
    pub(crate) fn kill_after(mut self, commits: u32, later: Duration) -> u64 {
        let began = Instant::now();
        let mut acked = 0;
        let mut seen = 0;
        let mut line = String::new();
        while seen < commits {
            assert!(began.elapsed() < DEADLINE, "the writer does not write");
            line.clear();
            assert!(
                self.said.read_line(&mut line).unwrap() > 0,
                "the writer ended"
            );
            if let Some(number) = acknowledged(&line) {
                acked = number;
                seen += 1;
            }
        }
        // Not a wait for anything: it moves the kill to another point of a commit.
        std::thread::sleep(later);
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        for line in self.said.lines() {
            acked = acknowledged(&line.unwrap()).unwrap_or(acked);
        }
        acked
    }
}

fn acknowledged(line: &str) -> Option<u64> {
    let (_, rest) = line.split_once("acked ")?;
    rest.trim_end().strip_suffix(';')?.parse().ok()
}

#[test]
#[ignore = "the child process of other tests"]
fn writer() {
    let Some(place) = std::env::var_os(PLACE) else {
        return;
    };
    let (mut journal, _, recovered) =
        Store::open(Path::new(&place), Options::at(samples::NOW)).unwrap();
    let mut next = recovered.next_sequence;
    let mut out = std::io::stdout().lock();
    let end = Instant::now() + DEADLINE;
    while Instant::now() < end {
        commit(&mut journal, &samples::batch(next, TASKS)).unwrap();
        next += LINES;
        writeln!(out, "acked {};", next - 1).unwrap();
        out.flush().unwrap();
    }
}

#[test]
fn what_was_acknowledged_survives_kill_9() {
    let place = tempfile::tempdir().unwrap();
    for round in 0..24_u32 {
        let later = Duration::from_micros(u64::from(round) * 137 % 1500);
        let acked = Writer::start(place.path()).kill_after(1 + round * 7 % 40, later);
        let options = Options {
            feed_lines_loaded: 1 << 20,
            ..Options::at(samples::NOW)
        };
        let (_, _, recovered) = Store::open(place.path(), options).unwrap();
        assert_eq!(recovered.damage, Vec::<String>::new(), "round {round}");
        let lines = recovered.feed.len() as u64;
        assert!(
            lines >= acked,
            "round {round}: {lines} lines on record, {acked} acknowledged"
        );
        assert!(
            recovered
                .feed
                .iter()
                .map(|line| line.sequence)
                .eq(1..=lines),
            "a gap"
        );
        assert_eq!(recovered.next_sequence, lines + 1);
        assert_eq!(lines % LINES, 0, "half a batch");
        assert_eq!(recovered.tasks.len() as u64 * samples::LINES_EACH, lines);
    }
}
