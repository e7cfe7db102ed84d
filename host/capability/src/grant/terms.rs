//! On which terms a plugin starts processes: as whom, and with how much of the machine.

use taskwright_model::{Confinement, Restriction, User};

/// What the operator restricts of every process that a plugin starts beside the daemon. The
/// default restricts nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessTerms {
    /// As whom they run.
    pub user: Option<User>,
    /// Memory of a unit's tree, in bytes.
    pub memory_bytes: Option<u64>,
    /// Processor time of a unit's tree, in thousandths of a core.
    pub cpu_millis: Option<u32>,
    /// Processes and threads of a unit's tree at a time.
    pub pids: Option<u32>,
}

/// A task wants to run as somebody else.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it may run as {}:{} only, and the task names another user or further groups", .0.uid, .0.gid)]
pub struct AnotherUser(pub User);

impl ProcessTerms {
    /// What a task restricts, and these terms: of two limits the stricter. What the operator
    /// restricts is enforced or refused, so no task takes less then.
    ///
    /// # Errors
    /// [`AnotherUser`].
    pub fn over(&self, task: &Confinement) -> Result<Confinement, AnotherUser> {
        let mut both = task.clone();
        if *self == Self::default() {
            return Ok(both);
        }
        both.best_effort = false;
        both.memory_bytes = least(self.memory_bytes, task.memory_bytes);
        both.cpu_millis = least(self.cpu_millis, task.cpu_millis);
        both.pids = least(self.pids, task.pids);
        if let Some(user) = &self.user {
            if task.user.as_ref().is_some_and(|wanted| wanted != user) {
                return Err(AnotherUser(user.clone()));
            }
            both.user = Some(user.clone());
        }
        Ok(both)
    }

    /// Whether these terms, and not the task alone, restrict this.
    #[must_use]
    pub fn restrict(&self, restriction: Restriction) -> bool {
        match restriction {
            Restriction::Cpu => self.cpu_millis.is_some(),
            Restriction::Memory => self.memory_bytes.is_some(),
            Restriction::Pids => self.pids.is_some(),
            Restriction::User => self.user.is_some(),
            Restriction::OpenFiles
            | Restriction::FileSize
            | Restriction::NoNewPrivileges
            | Restriction::ReadOnlyPaths => false,
        }
    }
}

fn least<T: Ord>(terms: Option<T>, task: Option<T>) -> Option<T> {
    match (terms, task) {
        (Some(terms), Some(task)) => Some(terms.min(task)),
        (terms, task) => terms.or(task),
    }
}

#[cfg(test)]
mod tests {
    //! The operator's word and the task's, together.

    use super::*;

    fn user(uid: u32, groups: &[u32]) -> Option<User> {
        Some(User {
            uid,
            gid: 1000,
            groups: groups.to_vec(),
        })
    }

    #[test]
    fn the_stricter_limit_wins_and_nothing_is_left_out() {
        let terms = ProcessTerms {
            memory_bytes: Some(512),
            pids: Some(64),
            ..ProcessTerms::default()
        };
        let task = Confinement {
            memory_bytes: Some(1024),
            cpu_millis: Some(100),
            pids: Some(8),
            best_effort: true,
            ..Confinement::default()
        };
        let both = Confinement {
            memory_bytes: Some(512),
            best_effort: false,
            ..task.clone()
        };
        assert_eq!(terms.over(&task), Ok(both));
        assert_eq!(ProcessTerms::default().over(&task), Ok(task));
        assert!(terms.restrict(Restriction::Pids) && !terms.restrict(Restriction::Cpu));
    }

    #[test]
    fn a_task_runs_as_the_user_of_the_terms_and_as_nobody_else() {
        let terms = ProcessTerms {
            user: user(1000, &[]),
            ..ProcessTerms::default()
        };
        let as_whom = |wanted| {
            let task = Confinement {
                user: wanted,
                ..Confinement::default()
            };
            terms.over(&task).map(|both| both.user)
        };
        assert_eq!(as_whom(None), Ok(user(1000, &[])));
        assert_eq!(as_whom(user(1000, &[])), Ok(user(1000, &[])));
        for other in [user(0, &[]), user(1000, &[27])] {
            assert!(as_whom(other).is_err());
        }
    }
}
