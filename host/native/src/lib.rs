//! Linux calls as safe functions: nearly all the unsafe code there is (ADR 0003 names the rest).
//!
//! No async, nothing of ours below it, no policy: whoever calls decides what a
//! unit is and when it dies. What rustix or nix offer safely is used from
//! there; the rest is in `sys`, each block with its argument.
//!
//! | module | about |
//! |---|---|
//! | [`spawn`] | start a program in a session, and in a cgroup where there is one |
//! | [`isolated`] | children that enter namespaces, change their user or see paths read-only |
//! | [`newborn`] | such a child on its way to its program, looked at without waiting |
//! | [`target`] | the process whose namespaces are entered, held on to |
//! | [`exit`] | how a process ended, asked without and with taking it away |
//! | [`process`] | facts of `/proc`: identity is pid *and* start time |
//! | [`tree`] | whole trees: cgroup v2, cgroup v1 freezer, or a scan |
//! | [`resource`] | groups that limit processor time, memory and the number of processes |
//! | [`events`] | epoll, signalfd and inotify behind three small types |
//! | [`daemonize`] | becoming and forking a small background process |
//! | [`files`] | holes in files, directories and files without following links |

pub mod cgroup;
pub mod daemonize;
pub mod events;
pub mod exit;
pub mod files;
pub mod isolated;
pub mod newborn;
pub mod process;
pub mod resource;
pub mod scan;
pub mod spawn;
mod sys;
pub mod target;
pub mod tree;

pub use exit::{Exit, Waited};
pub use isolated::{Capabilities, Enter, Ids, Isolation, Namespaces};
pub use newborn::{Newborn, Progress};
pub use process::Stat;
pub use spawn::{Begun, Child, Command, SpawnFault};
pub use tree::{TreeLevel, Trees};
