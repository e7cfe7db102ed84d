//! The size of output files: head and tail are kept, the middle goes back to the disk.
//!
//! A hole leaves every offset as it is, so nobody who reads or writes notices. At
//! rest nothing is polled: a quiet file is watched for its next write.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::time::Duration;

use taskwright_model::TaskId;
use taskwright_native::events::Notice;
use taskwright_native::files;

use super::Supervisor;
use crate::cap;
use crate::output::{OutputFile as _, OutputStream};
use crate::unit::{Timer, Unit, UnitId};

/// Between two looks at a file that grows.
pub(super) const PAUSE: Duration = Duration::from_millis(150);
/// Between two looks at a file that cannot be watched.
const UNWATCHED_PAUSE: Duration = Duration::from_secs(1);

impl Supervisor {
    /// Somebody wrote to files that were quiet.
    pub(super) fn outputs_written(&mut self) {
        let Some(inotify) = &self.inotify else {
            return;
        };
        let mut notices = Vec::new();
        if let Err(error) = inotify.read(&mut notices) {
            super::say(&format!("watches on output files cannot be read: {error}"));
        }
        for notice in notices {
            match notice {
                Notice::Changed(watch) | Notice::Gone(watch) => {
                    if let Some(task) = self.watches.remove(&watch) {
                        self.look_behind(watch, task);
                    }
                }
                Notice::Overflow => {
                    let every: Vec<(i32, TaskId)> = self.watches.drain().collect();
                    for (watch, task) in every {
                        self.look_behind(watch, task);
                    }
                }
            }
        }
    }

    /// Looks at every unit behind a watch that is no more: units of one task share a directory,
    /// and so the watch.
    fn look_behind(&mut self, watch: i32, task: TaskId) {
        for id in self.units.of_task(task) {
            let unit = self.units.get(id);
            if unit.is_some_and(|unit| unit.output.watch == Some(watch)) {
                self.look_later(id, PAUSE);
            }
        }
    }

    fn look_later(&mut self, id: UnitId, after: Duration) {
        if let Some(unit) = self.units.get_mut(id) {
            unit.output.watch = None;
            if !unit.output.due {
                unit.output.due = true;
                self.set_timer(after, Timer::Output(id));
            }
        }
    }

    /// Looks at the size of a unit's output, makes it smaller if it must be, and decides when
    /// to look again.
    pub(super) fn look_at_output(&mut self, id: UnitId) {
        let cap = self.options.output_cap;
        let Some(unit) = self.units.get_mut(id) else {
            return;
        };
        unit.output.due = false;
        let length = match trim(unit, cap) {
            Ok(length) => length,
            // Removed: nothing to keep.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(_) => {
                if !unit.settled {
                    self.look_later(id, UNWATCHED_PAUSE);
                }
                return;
            }
        };
        let grew = length != unit.output.length;
        unit.output.length = length;
        if unit.settled || unit.output.watch.is_some() {
            return;
        }
        if grew {
            self.look_later(id, PAUSE);
            return;
        }
        let watch = self
            .inotify
            .as_ref()
            .and_then(|inotify| inotify.next_write(&unit.intent.directory).ok());
        unit.output.watch = watch;
        match watch {
            Some(watch) => {
                self.watches.insert(watch, unit.key().task);
                // Written to between the look and the watch?
                if self
                    .units
                    .get(id)
                    .is_some_and(|unit| sizes(unit).is_ok_and(|now| now != length))
                {
                    self.look_later(id, PAUSE);
                }
            }
            None => self.look_later(id, UNWATCHED_PAUSE),
        }
    }

    pub(super) fn forget_output(&mut self, unit: &Unit) {
        if let (Some(watch), Some(inotify)) = (unit.output.watch, &self.inotify) {
            self.watches.remove(&watch);
            inotify.forget(watch);
            self.look_behind(watch, unit.key().task);
        }
    }
}

fn open_task_dir(unit: &Unit) -> io::Result<std::os::fd::OwnedFd> {
    let directory = &unit.intent.directory;
    let parent = directory.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let name = directory.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    files::open_existing_dir(&files::open_dir(parent)?, &CString::new(name.as_bytes())?)
}

/// The bytes in both files.
fn sizes(unit: &Unit) -> io::Result<u64> {
    let dir = open_task_dir(unit)?;
    Ok(OutputStream::BOTH
        .into_iter()
        .filter_map(|stream| files::extent(&dir, stream.file_name()))
        .map(|(length, _)| length)
        .sum())
}

/// Makes both files fit; the bytes in both.
fn trim(unit: &Unit, cap: u64) -> io::Result<u64> {
    let dir = open_task_dir(unit)?;
    let mut total = 0;
    for stream in OutputStream::BOTH {
        let Some(looked) = cap::keep_below(&dir, stream.file_name(), cap)? else {
            continue;
        };
        total += looked.length;
        if let Err(error) = looked.kept {
            super::say(&format!("an output file cannot be made smaller: {error}"));
        }
    }
    Ok(total)
}
