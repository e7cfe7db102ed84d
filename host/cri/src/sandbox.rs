//! Sandboxes: one for each attempt, found by its labels before one is made.
//!
//! **Network.** CRI knows the machine's network and a pod network; there is no third. A namespace
//! with nothing but a loopback is a pod network whose CNI configuration adds nothing, which
//! only an operator can set up, as a runtime handler of its own. In containerd's configuration that
//! is a second runtime beside `runc` with a `cni_conf_dir` of its own, and in that directory one
//! list with one plugin, which hands out an address and touches nothing:
//!
//! ```json
//! { "cniVersion": "0.4.0", "name": "loopback-only", "plugins": [ { "type": "static",
//!   "ipam": { "type": "static", "addresses": [ { "address": "127.0.0.1/8" } ] } } ] }
//! ```
//!
//! Whether it is one is looked at when the sandbox runs: one that has another interface is
//! removed, not lent.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use taskwright_capability::ContainerError;
use taskwright_capability::container::{Network, Sandbox, SandboxRequest};

use crate::fault;
use crate::host::Inner;
use crate::marks::{self, AttemptKey, SandboxNotes, Texts, carries};
use crate::messages as m;
use crate::remove::path_of_attempt;

/// Looks for a sandbox or container whose name is taken: another call of ours is making it.
pub(crate) const TAKEN_LOOKS: u32 = 60;
pub(crate) const TAKEN_PAUSE: Duration = Duration::from_millis(500);
/// The longest host name, in bytes (hostname(7)).
const MOST_HOSTNAME_BYTES: usize = 63;

impl Inner {
    /// See `ContainerHost::run_sandbox`.
    pub(crate) async fn run_sandbox(
        &self,
        request: SandboxRequest,
    ) -> Result<Sandbox, ContainerError> {
        let attempt = (request.task, request.attempt);
        let handler = self.handler(request.network)?;
        let hostname = hostname(&request)?;
        let notes = SandboxNotes {
            name: request.name.to_string(),
            network: request.network,
            share_pids: request.share_pids,
            privileged: request.privileged,
        };
        for _ in 0..TAKEN_LOOKS {
            if let Some(found) = self.usable_sandbox(attempt).await? {
                return self.told(&found, request.network).await;
            }
            let place = self.make_place(attempt)?;
            let config = self.sandbox_config(attempt, &notes, hostname.clone(), &place);
            let run = self.runtime.call(m::RunPodSandboxRequest {
                config: Some(config),
                runtime_handler: handler.clone(),
            });
            match run.await {
                Ok(answer) => return self.told(&answer.pod_sandbox_id, request.network).await,
                Err(error) if error.is_name_taken() => tokio::time::sleep(TAKEN_PAUSE).await,
                Err(error) => return Err(fault::making_sandbox(error)),
            }
        }
        Err(ContainerError::Unavailable {
            detail: "the name of its sandbox is taken, and the sandbox is not there".to_owned(),
        })
    }

    /// The id of an attempt's sandbox. One that ended and holds nothing is removed: it is of a
    /// start that got no further.
    async fn usable_sandbox(&self, attempt: AttemptKey) -> Result<Option<String>, ContainerError> {
        for found in self.sandboxes(self.marks.attempt(attempt)).await? {
            if marks::is_ready(found.state) {
                return Ok(Some(found.id));
            }
            let inside = self.containers(self.marks.attempt(attempt)).await;
            if !inside.map_err(fault::general)?.is_empty() {
                let detail = format!("sandbox {} has ended, its containers are there", found.id);
                return Err(ContainerError::SandboxLost { detail });
            }
            self.remove_sandbox(&found.id)
                .await
                .map_err(fault::general)?;
        }
        Ok(None)
    }

    /// Our sandboxes with these labels.
    pub(crate) async fn sandboxes(
        &self,
        labels: Texts,
    ) -> Result<Vec<m::PodSandbox>, ContainerError> {
        self.list_sandboxes(labels).await.map_err(fault::general)
    }

    pub(crate) async fn list_sandboxes(
        &self,
        labels: Texts,
    ) -> Result<Vec<m::PodSandbox>, crate::rpc::RpcError> {
        let filter = m::PodSandboxFilter {
            label_selector: labels.clone(),
        };
        let request = m::ListPodSandboxRequest {
            filter: Some(filter),
        };
        let mut found = self.runtime.look(request).await?.items;
        found.retain(|sandbox| {
            carries(&sandbox.labels, &labels) && self.marks.attempt_of(&sandbox.labels).is_some()
        });
        Ok(found)
    }

    fn handler(&self, network: Network) -> Result<String, ContainerError> {
        match (network, &self.config.loopback_handler) {
            (Network::Host | Network::Pod, _) => Ok(String::new()),
            (Network::None, Some(handler)) => Ok(handler.clone()),
            (Network::None, None) => Err(ContainerError::Refused {
                detail: "a container runtime has no way to give a container no network, unless \
                         one of its runtime handlers is set up for that and named in the \
                         configuration; ask for the host or pod network, or have one set up"
                    .to_owned(),
            }),
        }
    }

    /// What the runtime is told of a sandbox, when it is made and with each of its containers.
    pub(crate) fn sandbox_config(
        &self,
        attempt: AttemptKey,
        notes: &SandboxNotes,
        hostname: String,
        place: &Path,
    ) -> m::PodSandboxConfig {
        m::PodSandboxConfig {
            metadata: Some(self.marks.sandbox_metadata(attempt)),
            log_directory: place.to_string_lossy().into_owned(),
            labels: self.marks.attempt(attempt),
            annotations: notes.annotations(),
            linux: Some(m::LinuxPodSandboxConfig {
                cgroup_parent: self.cgroup_of(attempt),
                security_context: Some(m::LinuxSandboxSecurityContext {
                    namespace_options: Some(namespaces(notes)),
                    privileged: notes.privileged,
                    seccomp: seccomp(notes.privileged),
                }),
            }),
            hostname,
        }
    }

    /// The cgroup under which an attempt's containers are put; empty where the runtime chooses.
    pub(crate) fn cgroup_of(&self, attempt: AttemptKey) -> String {
        match &self.config.cgroup_parent {
            // Slices are systemd's: what it makes it removes.
            Some(parent) if parent.ends_with(".slice") => parent.clone(),
            Some(parent) => {
                let group = self.marks.group(attempt);
                format!("{}/{group}", parent.trim_end_matches('/'))
            }
            None => String::new(),
        }
    }

    /// The attempt's own directory, for logs and empty directories.
    fn make_place(&self, attempt: AttemptKey) -> Result<PathBuf, ContainerError> {
        let place = path_of_attempt(&self.config.state_dir, attempt);
        let mut builder = std::fs::DirBuilder::new();
        let made = builder.recursive(true).mode(0o700).create(&place);
        made.map_err(|error| ContainerError::Unavailable {
            detail: format!("{} cannot be made: {error}", place.display()),
        })?;
        Ok(place)
    }

    /// A sandbox that runs, if its network is what was asked for.
    async fn told(&self, id: &str, network: Network) -> Result<Sandbox, ContainerError> {
        let request = m::PodSandboxStatusRequest {
            pod_sandbox_id: id.to_owned(),
            verbose: network == Network::None,
        };
        let answer = self.runtime.look(request).await.map_err(fault::general)?;
        if network == Network::None
            && let Err(detail) = has_loopback_only(&answer.info)
        {
            let _swept_later = self.remove_sandbox(id).await;
            return Err(ContainerError::Refused { detail });
        }
        let ip = answer.status.and_then(|status| status.network);
        let ip = ip.map(|network| network.ip).filter(|ip| !ip.is_empty());
        Ok(Sandbox {
            id: id.to_owned(),
            ip: ip.filter(|_| network == Network::Pod),
        })
    }
}

pub(crate) fn namespaces(notes: &SandboxNotes) -> m::NamespaceOption {
    let network = match notes.network {
        Network::Host => m::NamespaceMode::Node,
        Network::None | Network::Pod => m::NamespaceMode::Pod,
    };
    let pid = if notes.share_pids {
        m::NamespaceMode::Pod
    } else {
        m::NamespaceMode::Container
    };
    m::NamespaceOption {
        network: network as i32,
        pid: pid as i32,
        ipc: m::NamespaceMode::Pod as i32,
    }
}

/// The runtime's own system call filter, for all but the privileged.
pub(crate) fn seccomp(privileged: bool) -> Option<m::SecurityProfile> {
    (!privileged).then_some(m::SecurityProfile {
        profile_type: m::ProfileType::RuntimeDefault as i32,
    })
}

fn hostname(request: &SandboxRequest) -> Result<String, ContainerError> {
    match (&request.hostname, request.network) {
        (None, Network::Host) => Ok(String::new()),
        (Some(name), Network::Host) => Err(ContainerError::Refused {
            detail: format!("on the machine's own network its host name cannot be {name:?}"),
        }),
        (Some(name), Network::None | Network::Pod) => Ok(name.clone()),
        (None, Network::None | Network::Pod) => Ok(as_hostname(request.name.as_str())),
    }
}

/// A task's name as far as host names go: RFC 1123.
fn as_hostname(name: &str) -> String {
    let fitting = |letter: char| {
        let letter = letter.to_ascii_lowercase();
        let fits = letter.is_ascii_lowercase() || letter.is_ascii_digit();
        if fits { letter } else { '-' }
    };
    let fitted: String = name
        .chars()
        .map(fitting)
        .take(MOST_HOSTNAME_BYTES)
        .collect();
    let fitted = fitted.trim_matches('-');
    if fitted.is_empty() {
        return "task".to_owned();
    }
    fitted.to_owned()
}

/// The process of a sandbox or container, from what the runtime tells at length. No field of the
/// protocol has it, but containerd and CRI-O both put it there.
pub(crate) fn pid_of(info: &Texts) -> Option<u32> {
    #[derive(Deserialize)]
    struct Info {
        pid: u32,
    }
    let info: Info = serde_json::from_str(info.get("info")?).ok()?;
    Some(info.pid).filter(|pid| *pid > 0)
}

fn has_loopback_only(info: &Texts) -> Result<(), String> {
    let pid = pid_of(info)
        .ok_or("the runtime does not tell its process, so its network cannot be checked")?;
    // The interfaces of that process's own network namespace: proc_pid_net(5).
    let table = std::fs::read_to_string(format!("/proc/{pid}/net/dev"))
        .map_err(|error| format!("the network of the sandbox cannot be checked: {error}"))?;
    match other_interface(&table) {
        None => Ok(()),
        Some(name) => Err(format!(
            "the runtime handler for containers without a network gave it interface {name:?}; its \
             CNI configuration must add nothing"
        )),
    }
}

/// An interface beside the loopback and those that the kernel puts into every namespace.
fn other_interface(table: &str) -> Option<&str> {
    const OF_THE_KERNEL: [&str; 10] = [
        "lo", "tunl0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "sit0", "ip6tnl0",
        "ip6gre0",
    ];
    let lines = table.lines().skip(2);
    let names = lines.filter_map(|line| Some(line.split_once(':')?.0.trim()));
    names.into_iter().find(|name| !OF_THE_KERNEL.contains(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_name_becomes_a_host_name() {
        assert_eq!(as_hostname("Build_7.x"), "build-7-x");
        assert_eq!(as_hostname("ünï"), "n");
        assert_eq!(as_hostname("__"), "task");
        assert_eq!(as_hostname(&"a".repeat(200)).len(), MOST_HOSTNAME_BYTES);
    }

    #[test]
    fn an_interface_beside_the_loopback_is_seen() {
        let head = "Inter-|   Receive\n face |bytes\n";
        let lo = format!("{head}    lo: 0 0\n");
        assert_eq!(other_interface(&lo), None);
        assert_eq!(other_interface(&format!("{lo}  sit0: 0\n")), None);
        assert_eq!(other_interface(&format!("{lo}  eth0: 0\n")), Some("eth0"));
    }

    #[test]
    fn a_pid_is_read_from_what_the_runtime_tells() {
        let info = |text: &str| Texts::from([("info".to_owned(), text.to_owned())]);
        assert_eq!(pid_of(&info(r#"{"pid": 12, "x": {}}"#)), Some(12));
        assert_eq!(pid_of(&info(r#"{"pid": 0}"#)), None);
        assert_eq!(pid_of(&info("nonsense")), None);
        assert_eq!(pid_of(&Texts::new()), None);
    }
}
