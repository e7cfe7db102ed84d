//! A target, held on to: everything that a unit takes of another process, read before it starts.
//!
//! The target may be hostile, so nothing here is believed twice: what is read decides what the
//! child gets, and what the child enters is held by descriptors of the same process.

use taskwright_capability::{Inside, SpawnError};
use taskwright_model::{ProcessIdentity, User};
use taskwright_native::target::{Identity, Pinned, own_identity};
use taskwright_native::{Capabilities, Enter, Ids, Namespaces, process};

/// What is taken of a target.
pub(super) struct Target {
    pub(super) process: ProcessIdentity,
    pinned: Pinned,
    namespaces: Namespaces,
    pid_namespace: bool,
    /// As whom the unit runs there, if not as us.
    pub(super) ids: Option<Ids>,
    /// The most it may be able to do there, if not what follows from its user.
    pub(super) capabilities: Option<Capabilities>,
    /// Whether it may not gain privileges, because the target may not.
    pub(super) no_new_privileges: bool,
    /// The environment that is the base of the unit's.
    pub(super) environment: Vec<Vec<u8>>,
    /// `/proc/PID/cgroup`, if the unit joins those groups.
    pub(super) cgroups: Option<String>,
}

impl Target {
    /// Holds on to the target and reads what is needed of it; `user` is whom the unit shall be
    /// instead of the target.
    pub(super) fn pin(inside: &Inside, user: Option<&User>) -> Result<Self, SpawnError> {
        let target = inside.target;
        let pinned = open(target)?;
        let read = |what: &'static str| {
            move |error: std::io::Error| SpawnError::Unavailable {
                detail: format!(
                    "cannot read {what} of process {}: {error}{}",
                    target.pid,
                    hint(&error, "CAP_SYS_PTRACE")
                ),
            }
        };
        let other = pinned.other_namespaces().map_err(read("the namespaces"))?;
        let mut wanted = Namespaces::MOUNT
            .and(Namespaces::UTS)
            .and(Namespaces::IPC)
            .and(Namespaces::NETWORK);
        if inside.further.user {
            wanted = wanted.and(Namespaces::USER);
        }
        if inside.further.cgroup {
            wanted = wanted.and(Namespaces::CGROUP);
        }
        let namespaces = wanted.common(other);
        let pid_namespace = pinned
            .has_other_pid_namespace()
            .map_err(read("the PID namespace"))?;
        let user_namespace = UserNamespace {
            entered: namespaces.has(Namespaces::USER),
            other: other.has(Namespaces::USER),
        };
        let theirs = if inside.identity {
            Some(pinned.identity().map_err(read("the identity"))?)
        } else {
            None
        };
        let no_new_privileges = theirs.as_ref().is_some_and(|it| it.no_new_privileges);
        let (ids, capabilities) = user_namespace
            .credentials(&pinned, theirs, user)
            .map_err(read("the identity"))?;
        let environment = pinned.environment().map_err(read("the environment"))?;
        let cgroups = if inside.cgroup {
            Some(pinned.cgroups().map_err(read("the cgroups"))?)
        } else {
            None
        };
        // Else some of it may be of nobody any more.
        if !pinned.lives() {
            return Err(gone(target));
        }
        Ok(Self {
            process: target,
            pinned,
            namespaces,
            pid_namespace,
            ids,
            capabilities,
            no_new_privileges,
            environment,
            cgroups,
        })
    }

    pub(super) fn enter(&self) -> Enter<'_> {
        Enter {
            pidfd: self.pinned.pidfd(),
            namespaces: self.namespaces,
            pid_namespace: self.pid_namespace,
            root: self.pinned.root(),
        }
    }

    /// Whether the unit runs in a user namespace where it may do everything.
    pub(super) fn enters_user_namespace(&self) -> bool {
        self.namespaces.has(Namespaces::USER)
    }

    /// That the target is gone, if it is.
    pub(super) fn gone(&self) -> Option<SpawnError> {
        (!self.pinned.lives()).then(|| gone(self.process))
    }
}

/// What stands between the target's user namespace and ours.
#[derive(Clone, Copy)]
struct UserNamespace {
    entered: bool,
    other: bool,
}

impl UserNamespace {
    /// As whom the unit runs, and what it can do at most.
    fn credentials(
        self,
        pinned: &Pinned,
        theirs: Option<Identity>,
        user: Option<&User>,
    ) -> std::io::Result<(Option<Ids>, Option<Capabilities>)> {
        let user = user.map(ids_of);
        let Some(theirs) = theirs else {
            // Who enters a user namespace is nobody in there; as elsewhere it is root by default.
            let root = || Ids {
                uid: 0,
                gid: 0,
                groups: Vec::new(),
            };
            return Ok((user.or_else(|| self.entered.then(root)), None));
        };
        let capabilities = if self.entered {
            theirs.capabilities
        } else if self.other {
            // They count in its user namespace. In ours they would be real.
            Capabilities::default()
        } else {
            theirs.capabilities.within(&own_identity()?.capabilities)
        };
        let is_another = user
            .as_ref()
            .is_some_and(|user| self.entered || *user != theirs.ids);
        let ids = match user {
            Some(user) => user,
            None if self.entered => {
                pinned
                    .inside_its_user_namespace(&theirs.ids)?
                    .ok_or_else(|| {
                        std::io::Error::other("its user has no number in its user namespace")
                    })?
            }
            None => theirs.ids,
        };
        let capabilities = match (ids.uid, is_another) {
            // Executed by root, a program gets all that is not out of bounds.
            (0, _) => Capabilities {
                bounding: capabilities.bounding & capabilities.permitted,
                ..capabilities
            },
            (_, false) => capabilities,
            // Not root, and not the one who had them.
            (_, true) => Capabilities {
                bounding: capabilities.bounding,
                ..Capabilities::default()
            },
        };
        Ok((Some(ids), Some(capabilities)))
    }
}

pub(super) fn ids_of(user: &User) -> Ids {
    Ids {
        uid: user.uid,
        gid: user.gid,
        groups: user.groups.clone(),
    }
}

fn open(target: ProcessIdentity) -> Result<Pinned, SpawnError> {
    let pid = target.pid.cast_signed();
    Pinned::open(pid, target.start_ticks).map_err(|error| {
        if process::is_no_room(&error) {
            let detail = format!("process {pid} cannot be looked at: {error}");
            return SpawnError::NoRoom { detail };
        }
        if error.kind() == std::io::ErrorKind::PermissionDenied {
            let detail = format!(
                "the root directory of process {pid} cannot be opened: {error}{}",
                hint(&error, "CAP_SYS_PTRACE")
            );
            return SpawnError::Unavailable { detail };
        }
        gone(target)
    })
}

/// What a refusal of the kernel nearly always means.
pub(super) fn hint(error: &std::io::Error, capability: &str) -> String {
    if error.kind() == std::io::ErrorKind::PermissionDenied {
        format!(" (needs {capability})")
    } else {
        String::new()
    }
}

fn gone(target: ProcessIdentity) -> SpawnError {
    let pid = target.pid;
    let detail = match process::stat(pid.cast_signed()) {
        Ok(stat) if stat.start_ticks != target.start_ticks => {
            format!("{pid} is the number of another process now")
        }
        Ok(_) => format!("process {pid} has ended"),
        Err(_) => format!("there is no process {pid}"),
    };
    SpawnError::TargetGone { detail }
}
