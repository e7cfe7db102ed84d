//! The files by which the Tessia task runner is known: written by the daemon beside the tasks
//! of that dialect, by `taskwright run FILE.json` in the current directory, and read where the
//! original runner left some.
//!
//! | module | about |
//! |---|---|
//! | [`result`] | `<id>.result`: the status as one JSON object |
//! | [`log`] | `output.log` |

pub(crate) mod log;
pub(crate) mod result;

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use rustix::fs::OFlags;

/// How often a result file says that its task is alive.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(60);

/// A time as result files have it: ISO 8601 with offset, microseconds.
pub(crate) fn iso(at: Timestamp) -> String {
    let local = at.to_zoned(TimeZone::system());
    local.strftime("%Y-%m-%dT%H:%M:%S%.6f%:z").to_string()
}

/// A time as `output.log` has it.
pub(crate) fn stamp(at: Timestamp) -> String {
    let local = at.to_zoned(TimeZone::system());
    local.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// A time of the model.
pub(crate) fn time(at: taskwright_model::Timestamp) -> Timestamp {
    Timestamp::from_millisecond(at.as_millis()).unwrap_or_default()
}

/// Replaces a file whole: readers see the old bytes or the new ones. Tasks may write the
/// directory, so nothing is opened through a link of theirs.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".new");
    let new = path.with_file_name(name);
    let mut file = match create(&new) {
        // Left by a writer that was ended in between.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            std::fs::remove_file(&new)?;
            create(&new)?
        }
        other => other?,
    };
    file.write_all(bytes)?;
    drop(file);
    std::fs::rename(&new, path)
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

/// Opens a plain file, and never through a link.
fn open_plain(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let flags = i32::try_from(flags.bits()).unwrap_or_default();
    let file = options.custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "it is no plain file",
        ));
    }
    Ok(file)
}
