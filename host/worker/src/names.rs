//! Ids for workers that were given none: each belongs to one machine, and stays with it.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;

use taskwright_queue::WorkerId;
use taskwright_queue::port::Entry;

use crate::port::{Introduction, QueueError, Standing, WorkQueue};

/// Ids of the documented form, `worker-000-kind` apart: people count from 1.
const NUMBERS: std::ops::RangeInclusive<u16> = 1..=999;
/// The largest file that is read.
const MOST_BYTES: u64 = 64 * 1024;

/// The ids of this machine's workers, in a file.
#[derive(Debug)]
pub struct Names {
    file: PathBuf,
    own: BTreeSet<WorkerId>,
    /// Those that somebody works under now.
    used: BTreeSet<WorkerId>,
}

impl Names {
    /// The ones in `file`; none where it is not there or cannot be read.
    #[must_use]
    pub fn read(file: PathBuf) -> Self {
        let small = std::fs::metadata(&file).is_ok_and(|about| about.len() <= MOST_BYTES);
        let text = if small {
            std::fs::read_to_string(&file).unwrap_or_default()
        } else {
            String::new()
        };
        let own = text.lines().filter_map(|line| WorkerId::parse(line).ok());
        Self {
            file,
            own: own.collect(),
            used: BTreeSet::new(),
        }
    }

    /// Takes an id: one of ours that nobody uses, or else one that the queue gives to nobody but
    /// us, looked for from `first` on. That one is registered already, and stands so.
    ///
    /// # Errors
    /// What the queue said, or that every id is taken.
    pub async fn take(
        &mut self,
        queue: &dyn WorkQueue,
        who: &Introduction,
        first: u16,
    ) -> Result<(WorkerId, Option<Standing>), QueueError> {
        let free = self.own.iter().find(|id| !self.used.contains(*id));
        if let Some(id) = free.cloned() {
            self.used.insert(id.clone());
            return Ok((id, None));
        }
        let later = (first.max(*NUMBERS.start())..=*NUMBERS.end()).chain(NUMBERS);
        for id in later.map(WorkerId::numbered) {
            if self.own.contains(&id) {
                continue;
            }
            let who = Introduction {
                id: id.clone(),
                ..who.clone()
            };
            match queue.register(who, Entry::Fresh).await {
                Ok(standing) => {
                    self.own.insert(id.clone());
                    self.used.insert(id.clone());
                    self.write();
                    return Ok((id, Some(standing)));
                }
                Err(QueueError::Refused(_)) => {}
                Err(error) => return Err(error),
            }
        }
        let all = "every id from worker-001-kind to worker-999-kind is another worker's";
        Err(QueueError::Refused(all.to_owned()))
    }

    /// Gives an id back: it stays this machine's.
    pub fn free(&mut self, id: &WorkerId) {
        self.used.remove(id);
    }

    /// Gives an id up: somebody else goes by it.
    pub fn forget(&mut self, id: &WorkerId) {
        self.used.remove(id);
        self.own.remove(id);
        self.write();
    }

    fn write(&self) {
        let lines: String = self.own.iter().map(|id| format!("{id}\n")).collect();
        let new = self.file.with_extension("new");
        let written: io::Result<()> =
            std::fs::write(&new, lines).and_then(|()| std::fs::rename(&new, &self.file));
        if let Err(error) = written {
            tracing::warn!(
                %error, file = %self.file.display(),
                "the ids of this machine's workers could not be kept: the next start takes others"
            );
        }
    }
}
