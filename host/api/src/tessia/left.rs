//! Tasks that the original runner left behind: result files of which no record of ours knows.
//!
//! Only told of. What they are is found out by whoever can read files and look for processes,
//! behind [`LeftTasks`].

use taskwright_model::Timestamp;

/// What became of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeftState {
    /// Its process is there, and writes that it is alive.
    Running,
    /// It says that it has finished.
    Exited,
    /// It said nothing for long and its process is gone, or its file cannot be read.
    Lost,
}

impl LeftState {
    /// The contract's word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Exited => "exited",
            Self::Lost => "lost",
        }
    }
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftTask {
    /// Its id.
    pub id: String,
    /// What became of it.
    pub state: LeftState,
    /// Its exit code, if it says one.
    pub exit_code: Option<i64>,
    /// When it began.
    pub started_at: Option<Timestamp>,
    /// When it last said anything.
    pub updated_at: Option<Timestamp>,
    /// When it finished.
    pub finished_at: Option<Timestamp>,
}

impl LeftTask {
    /// Whether nothing of it runs any more.
    pub(super) fn finished(&self) -> bool {
        self.state != LeftState::Running
    }
}

/// The tasks that were left behind.
pub trait LeftTasks: Send + Sync + 'static {
    /// All of them, in the order in which they began.
    fn all(&self) -> Vec<LeftTask>;

    /// One of them.
    fn get(&self, id: &str) -> Option<LeftTask> {
        self.all().into_iter().find(|task| task.id == id)
    }

    /// Tells of it no more. Its files stay. `false`: there was none.
    fn forget(&self, id: &str) -> bool;
}

/// Nothing was left behind.
#[derive(Clone, Copy, Debug)]
pub struct NothingLeft;

impl LeftTasks for NothingLeft {
    fn all(&self) -> Vec<LeftTask> {
        Vec::new()
    }

    fn forget(&self, _: &str) -> bool {
        false
    }
}
