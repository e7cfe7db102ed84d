//! What a task may use of the machine, and as whom it runs.
//!
//! A restriction that the machine cannot enforce is refused, unless the task says
//! `best_effort`; what was enforced, and how, is told with the attempt.

/// What a task may use, and as whom it runs. The default restricts nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Confinement {
    /// Processor time, in thousandths of a core, of the whole tree.
    pub cpu_millis: Option<u32>,
    /// Memory of the whole tree, in bytes.
    pub memory_bytes: Option<u64>,
    /// Processes and threads of the whole tree at a time.
    pub pids: Option<u32>,
    /// Open files of each process (`RLIMIT_NOFILE`, setrlimit(2)).
    pub open_files: Option<u64>,
    /// The size of a file that a process writes, in bytes (`RLIMIT_FSIZE`, setrlimit(2)).
    pub file_size_bytes: Option<u64>,
    /// As whom it runs.
    pub user: Option<User>,
    /// Nothing it executes gains privileges (`PR_SET_NO_NEW_PRIVS`, prctl(2)).
    pub no_new_privileges: bool,
    /// Absolute paths that it sees read-only, with all that is mounted below them.
    pub read_only_paths: Vec<String>,
    /// What cannot be enforced is left out, and told, instead of refused.
    pub best_effort: bool,
}

impl Confinement {
    /// What is restricted, in the order of [`Restriction::ALL`].
    pub fn restrictions(&self) -> impl Iterator<Item = Restriction> {
        Restriction::ALL
            .into_iter()
            .filter(|restriction| self.restricts(*restriction))
    }

    /// Whether nothing is restricted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.restrictions().next().is_none()
    }

    /// Whether this is restricted.
    #[must_use]
    pub fn restricts(&self, restriction: Restriction) -> bool {
        match restriction {
            Restriction::Cpu => self.cpu_millis.is_some(),
            Restriction::Memory => self.memory_bytes.is_some(),
            Restriction::Pids => self.pids.is_some(),
            Restriction::OpenFiles => self.open_files.is_some(),
            Restriction::FileSize => self.file_size_bytes.is_some(),
            Restriction::User => self.user.is_some(),
            Restriction::NoNewPrivileges => self.no_new_privileges,
            Restriction::ReadOnlyPaths => !self.read_only_paths.is_empty(),
        }
    }
}

/// As whom a task runs, in numbers of the user namespace it runs in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Further groups.
    pub groups: Vec<u32>,
}

/// One thing that a [`Confinement`] can restrict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Restriction {
    /// Processor time.
    Cpu,
    /// Memory.
    Memory,
    /// Processes and threads.
    Pids,
    /// Open files of a process.
    OpenFiles,
    /// Size of a file.
    FileSize,
    /// User and groups.
    User,
    /// No new privileges.
    NoNewPrivileges,
    /// Paths that are read-only.
    ReadOnlyPaths,
}

impl Restriction {
    /// Every one, in the order in which they are told.
    pub const ALL: [Self; 8] = [
        Self::Cpu,
        Self::Memory,
        Self::Pids,
        Self::OpenFiles,
        Self::FileSize,
        Self::User,
        Self::NoNewPrivileges,
        Self::ReadOnlyPaths,
    ];

    /// The word for it in JSON and prose.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Pids => "pids",
            Self::OpenFiles => "openFiles",
            Self::FileSize => "fileSize",
            Self::User => "user",
            Self::NoNewPrivileges => "noNewPrivileges",
            Self::ReadOnlyPaths => "readOnlyPaths",
        }
    }

    /// The one with this word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.as_str() == word)
    }
}

/// What enforces a restriction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mechanism {
    /// A controller of cgroup v2.
    Cgroup2,
    /// A controller of cgroup v1.
    Cgroup1,
    /// A resource limit of each process, setrlimit(2).
    Rlimit,
    /// User and group ids, credentials(7).
    Credentials,
    /// An attribute of the process, prctl(2).
    Prctl,
    /// Mounts of a namespace of its own, mount_namespaces(7).
    MountNamespace,
    /// The container runtime.
    ContainerRuntime,
}

impl Mechanism {
    /// Every one.
    pub const ALL: [Self; 7] = [
        Self::Cgroup2,
        Self::Cgroup1,
        Self::Rlimit,
        Self::Credentials,
        Self::Prctl,
        Self::MountNamespace,
        Self::ContainerRuntime,
    ];

    /// The word for it in JSON and prose.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cgroup2 => "cgroup2",
            Self::Cgroup1 => "cgroup1",
            Self::Rlimit => "rlimit",
            Self::Credentials => "credentials",
            Self::Prctl => "prctl",
            Self::MountNamespace => "mount-namespace",
            Self::ContainerRuntime => "container-runtime",
        }
    }

    /// The one with this word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.as_str() == word)
    }
}

/// What was enforced for an attempt, and by what; and what was left out, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Enforced {
    by: [Option<Mechanism>; Restriction::ALL.len()],
    /// Rarely any.
    left_out: Vec<(Restriction, String)>,
}

impl Enforced {
    /// Notes that `restriction` is enforced by `mechanism`.
    pub fn set(&mut self, restriction: Restriction, mechanism: Mechanism) {
        if let Some(place) = self.by.get_mut(restriction as usize) {
            *place = Some(mechanism);
        }
    }

    /// What enforces it, if anything does.
    #[must_use]
    pub fn get(&self, restriction: Restriction) -> Option<Mechanism> {
        self.by.get(restriction as usize).copied().flatten()
    }

    /// Notes that `restriction` is not enforced, since the task takes less, and `why`. The first
    /// reason stays.
    pub fn leave_out(&mut self, restriction: Restriction, why: impl Into<String>) {
        if self.left_out.iter().all(|(known, _)| *known != restriction) {
            self.left_out.push((restriction, why.into()));
        }
    }

    /// What is not enforced although the task asked for it, and why.
    pub fn left_out(&self) -> impl ExactSizeIterator<Item = (Restriction, &str)> {
        self.left_out
            .iter()
            .map(|(what, why)| (*what, why.as_str()))
    }

    /// Takes over what `news` says. What it does not speak of stays.
    pub fn take(&mut self, news: &Self) {
        for (restriction, mechanism) in news.iter() {
            self.set(restriction, mechanism);
        }
        for (restriction, why) in news.left_out() {
            self.leave_out(restriction, why);
        }
    }

    /// Everything that is enforced.
    pub fn iter(&self) -> impl Iterator<Item = (Restriction, Mechanism)> {
        Restriction::ALL
            .into_iter()
            .filter_map(|one| Some((one, self.get(one)?)))
    }

    /// Whether nothing is, and nothing was left out.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none() && self.left_out.is_empty()
    }
}
