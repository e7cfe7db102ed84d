//! What this machine can enforce: tried, not guessed.

use std::ffi::CString;
use std::os::fd::AsFd as _;
use std::time::Duration;

use taskwright_capability::Enforceable;
use taskwright_model::{Mechanism, Restriction};
use taskwright_native::resource::{Amount, Place};
use taskwright_native::spawn::{self, Command};
use taskwright_native::{Ids, Isolation, SpawnFault, daemonize};

use super::Supervisor;
use super::inside::hint;

/// A program that is nowhere: a child that gets as far as looking for it did all that comes before.
const NOWHERE: &str = "/taskwright/no/such/program";
const PATIENCE: Duration = Duration::from_secs(2);
/// Small amounts, that any group above has left.
const PROBES: [(Restriction, Amount); 3] = [
    (Restriction::Cpu, Amount::CpuMillis(10)),
    (Restriction::Memory, Amount::Memory(16 << 20)),
    (Restriction::Pids, Amount::Pids(16)),
];
const NOBODY: u32 = 65_534;

impl Supervisor {
    /// The table, in the order of [`Restriction::ALL`].
    pub(super) fn enforceable(&mut self) -> Enforceable {
        Restriction::ALL
            .into_iter()
            .map(|restriction| (restriction, self.can_enforce(restriction)))
            .collect()
    }

    fn can_enforce(&mut self, restriction: Restriction) -> Result<Mechanism, String> {
        match restriction {
            Restriction::Cpu | Restriction::Memory | Restriction::Pids => {
                let probe = PROBES.into_iter().find(|(it, _)| *it == restriction);
                let (_, amount) = probe.ok_or("there is no probe for it")?;
                self.can_limit(amount)
            }
            // Every kernel can, down from what the supervisor was given.
            Restriction::OpenFiles | Restriction::FileSize => Ok(Mechanism::Rlimit),
            Restriction::NoNewPrivileges => Ok(Mechanism::Prctl),
            Restriction::User => {
                // Who one is already proves nothing.
                let uid = if daemonize::this_user() == NOBODY {
                    NOBODY - 1
                } else {
                    NOBODY
                };
                let ids = Ids {
                    uid,
                    gid: uid,
                    groups: vec![uid],
                };
                self.reaches_its_program(&[], Some(&ids), "CAP_SETUID and CAP_SETGID")
                    .map(|()| Mechanism::Credentials)
            }
            Restriction::ReadOnlyPaths => {
                let root = CString::from(c"/");
                self.reaches_its_program(&[root], None, "CAP_SYS_ADMIN, and Linux 5.12")
                    .map(|()| Mechanism::MountNamespace)
            }
        }
    }

    fn can_limit(&mut self, amount: Amount) -> Result<Mechanism, String> {
        let number = self.resources.number();
        let (mechanism, group) = match self.resources.place(amount, None)? {
            Place::One(parent) => {
                let group = self.resources.limit_one(&parent, number, amount)?;
                (Mechanism::Cgroup1, group)
            }
            Place::Two(parent) => {
                let group = self.resources.group_two(&parent, number, amount)?;
                (Mechanism::Cgroup2, group)
            }
        };
        self.resources.remove([group]);
        Ok(mechanism)
    }

    fn reaches_its_program(
        &self,
        read_only: &[CString],
        user: Option<&Ids>,
        needs: &str,
    ) -> Result<(), String> {
        let argv = [CString::new(NOWHERE).map_err(|error| error.to_string())?];
        let isolation = Isolation {
            enter: None,
            read_only,
            user,
            capabilities: None,
            patience: PATIENCE,
        };
        let started = spawn::spawn(&Command {
            argv: &argv,
            env: &[],
            working_dir: c"/",
            stdio: [self.null.as_fd(); 3],
            cgroup: None,
            join: &[],
            open_files: None,
            oom_score: None,
            limits: &[],
            no_new_privileges: false,
            isolation: Some(&isolation),
        });
        match started {
            Err(SpawnFault::NotFound { .. } | SpawnFault::NotExecutable { .. }) | Ok(_) => Ok(()),
            Err(SpawnFault::Restriction { step, source, .. }) => {
                Err(format!("cannot {step}: {source}{}", hint(&source, needs)))
            }
            Err(other) => Err(other.to_string()),
        }
    }
}
