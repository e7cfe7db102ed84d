//! Databases on a PostgreSQL server of this test program's own.

use taskwright_test_postgres::Server;

use crate::reaper;

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
