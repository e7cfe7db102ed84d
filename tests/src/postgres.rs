//! Databases on a PostgreSQL server of this test program's own, and servers of a test's own.

use std::time::Duration;

use rustix::process::Signal;
use taskwright_test_postgres::{Server, Wanted};

use crate::network::Machine;
use crate::{processes, reaper};

/// The address of a new, empty database; `None` where no server can be had.
///
/// # Panics
/// In CI, where no test may be skipped.
#[must_use]
pub fn database() -> Option<String> {
    let made = reaper::undisturbed(|| Server::shared().and_then(Server::database));
    match made {
        Ok(address) => Some(address),
        Err(error) if std::env::var_os("CI").is_some() => panic!("{error:#}"),
        Err(error) => {
            crate::skip(&format!("{error:#}"));
            None
        }
    }
}

/// A server of a test's own, on a machine of a network, with a database.
#[derive(Debug)]
pub struct Own {
    server: Server,
    database: String,
    address: String,
}

impl Own {
    /// Starts it; `None` where no server can be had.
    ///
    /// # Panics
    /// In CI, where no test may be skipped; later when it does not answer.
    #[must_use]
    pub fn start(machine: &Machine) -> Option<Self> {
        let (namespace, address) = (machine.namespace(), machine.address());
        let started = reaper::undisturbed(|| {
            let server = Server::start_as(&Wanted {
                network: Some((&namespace, address)),
                ..Wanted::default()
            })?;
            server.database().map(|address| (server, address))
        });
        match started {
            Ok((server, address)) => Some(Self {
                server,
                database: address.rsplit('/').next().unwrap_or_default().to_owned(),
                address,
            }),
            Err(error) if std::env::var_os("CI").is_some() => panic!("{error:#}"),
            Err(error) => {
                crate::skip(&format!("{error:#}"));
                None
            }
        }
    }

    /// The address of the database, in the network.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Runs a statement in the database, past the network.
    #[must_use]
    pub fn sql(&self, statement: &str) -> String {
        match self.try_sql(&self.database, statement) {
            Ok(told) => told,
            Err(error) => panic!("{error}"),
        }
    }

    /// Runs a statement that is about the server, without touching the database.
    #[must_use]
    pub fn sql_beside(&self, statement: &str) -> String {
        match self.try_sql("postgres", statement) {
            Ok(told) => told,
            Err(error) => panic!("{error}"),
        }
    }

    fn try_sql(&self, database: &str, statement: &str) -> Result<String, String> {
        let told = reaper::undisturbed(|| self.server.sql(database, statement));
        told.map_err(|error| format!("{error:#}"))
    }

    /// Whether it answers.
    #[must_use]
    pub fn answers(&self) -> bool {
        self.try_sql("postgres", "SELECT 1").is_ok()
    }

    /// Stops it as a crash would.
    pub fn stop(&self) {
        if let Err(error) = self.server.stop() {
            panic!("{error:#}");
        }
    }

    /// Starts it again, without waiting until it answers.
    pub fn start_again(&self) {
        if let Err(error) = self.server.start_again() {
            panic!("{error:#}");
        }
    }

    /// Sends a signal to every process of it, the first one first.
    pub fn signal(&self, signal: Signal) {
        let Ok(first) = self.server.pid() else {
            return;
        };
        reaper::send(first, signal);
        for process in processes::living() {
            if process.parent == first {
                reaper::send(process.pid, signal);
            }
        }
    }

    /// Has every commit wait for so long before it is written, as a slow disk would, with nobody
    /// let past it.
    pub fn slow_commits(&self, wait: Duration) {
        let wait = format!("ALTER SYSTEM SET commit_delay = {}", wait.as_micros());
        // Without it, commits only wait while others are under way.
        for statement in [
            wait.as_str(),
            "ALTER SYSTEM SET commit_siblings = 0",
            "SELECT pg_reload_conf()",
        ] {
            let _nothing = self.sql_beside(statement);
        }
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        // One that stands still would not hear that it is to end.
        self.signal(Signal::CONT);
    }
}
