//! (l) The queue: claims, their delay beside a million others, lists and sums, lines, exports.
//!
//! On a file, and on a PostgreSQL server of the benchmark's own that syncs. The tasks are
//! put in by SQL, because a million requests would be the larger part of the work; what is
//! measured goes over HTTP, load and daemon (and server) on the same processors. Every
//! answer is looked at: a task that is claimed twice, or a sum that is wrong, is a failure
//! and no number.

mod claims;
mod exports;
mod fill;
mod lines;
mod pgbench;
mod reads;

use std::time::Duration;

use anyhow::Context;
use taskwright_test_postgres::Server;

use super::daemon::{self, Daemon};
use super::place::Place;
use super::report::{Row, Table, Unit};
use super::{Bench, Skipped};
use fill::Target;

/// Workers that claim at once, each on a connection of its own.
const WORKERS: [usize; 3] = [1, 16, 64];

pub(super) fn measure(bench: &Bench) -> anyhow::Result<Table> {
    if taskwright_test_postgres::programs().is_none() {
        return Err(
            Skipped("there is no PostgreSQL: apt-get install postgresql".to_owned()).into(),
        );
    }
    let server = Server::start(false)?;
    let sizes = Sizes {
        many: bench.pick(1_000_000, 20_000),
        few: 1000,
        supply: bench.pick(150_000, 20_000),
        turn: Duration::from_secs(bench.pick(3, 1)),
        turns: bench.pick(3, 1),
        looks: bench.pick(400, 100),
        conversations: bench.pick(4000, 200),
    };
    let mut rows = Vec::new();
    for kind in [Kind::File, Kind::Postgres] {
        rows.extend(claims::rates(&Scene::new(bench, kind, &server)?, &sizes)?);
        rows.extend(claims::delays(&Scene::new(bench, kind, &server)?, &sizes)?);
        rows.extend(reads::measure(&Scene::new(bench, kind, &server)?, &sizes)?);
        rows.extend(lines::measure(&Scene::new(bench, kind, &server)?, &sizes)?);
        rows.extend(exports::measure(
            &Scene::new(bench, kind, &server)?,
            &sizes,
        )?);
    }
    Ok(Table {
        id: "l",
        title: "The queue",
        method: format!(
            "over HTTP, on a file and on a PostgreSQL server of its own with fsync; a worker claims and \
             completes one task after the other on its connection, {} turns of {} s; pgbench sends the same \
             two statements to the same server with as many clients, in turns with ours; {} tasks on record \
             where many are named, {} where few are",
            sizes.turns,
            sizes.turn.as_secs(),
            sizes.many,
            sizes.few
        ),
        rows,
    })
}

/// How much is done.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    /// Tasks on record where there are many of them.
    many: u64,
    /// Tasks on record where there are few.
    few: u64,
    /// Tasks that are there to be claimed before each turn.
    supply: u64,
    /// How long claims go on.
    turn: Duration,
    turns: usize,
    /// Single requests, for delays.
    looks: usize,
    /// Conversations that are exported.
    conversations: u64,
}

/// Where the queue is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    File,
    Postgres,
}

impl Kind {
    /// The key of a row, by where it was measured.
    fn key(self, file: &'static str, postgres: &'static str) -> &'static str {
        match self {
            Self::File => file,
            Self::Postgres => postgres,
        }
    }

    fn word(self) -> &'static str {
        self.key("SQLite", "PostgreSQL")
    }

    fn time(self, keys: [&'static str; 2], what: &str, value: f64) -> Row {
        let [file, postgres] = keys;
        let label = format!("{}, {what}", self.word());
        Row::fact(self.key(file, postgres), &label, value, Unit::Seconds)
    }
}

/// An empty queue, and what a daemon on it needs.
struct Scene<'b> {
    bench: &'b Bench,
    kind: Kind,
    place: Place,
    /// The queue's tables, made by a daemon of the product.
    target: Target<'b>,
    address: String,
}

impl<'b> Scene<'b> {
    fn new(bench: &'b Bench, kind: Kind, server: &'b Server) -> anyhow::Result<Self> {
        let place = bench.place()?;
        let address = match kind {
            Kind::File => String::new(),
            Kind::Postgres => server.database()?,
        };
        let file = daemon::data_dir(&place).join(".taskwright/queue.db");
        let target = match kind {
            Kind::File => Target::File(file),
            Kind::Postgres => Target::Postgres {
                server,
                database: address.rsplit('/').next().context("a name")?.to_owned(),
            },
        };
        let scene = Self {
            bench,
            kind,
            place,
            target,
            address,
        };
        scene.daemon()?.stop(&scene.place)?;
        Ok(scene)
    }

    /// Starts a daemon on it.
    fn daemon(&self) -> anyhow::Result<Daemon> {
        let mut flags = vec!["--log-level", "warn"];
        if self.kind == Kind::Postgres {
            flags.extend(["--store", &self.address]);
        }
        Daemon::start(&self.bench.binary, &self.place, &flags)
    }
}
