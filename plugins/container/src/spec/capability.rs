//! The capabilities that Linux has, as people name them: with `CAP_` or without, in any case.

/// All of them, in the order of their numbers (capabilities(7)).
const ALL: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// The name that runtimes want, or none if Linux has no such capability.
pub(super) fn known(text: &str) -> Option<&'static str> {
    /// What runtimes take for every one there is.
    const EVERY: &str = "ALL";
    if text.eq_ignore_ascii_case(EVERY) {
        return Some(EVERY);
    }
    let name = match text.get(..4) {
        Some(prefix) if prefix.eq_ignore_ascii_case("CAP_") => text.get(4..)?,
        _ => text,
    };
    ALL.into_iter()
        .find(|known| known.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_known_in_every_spelling() {
        for (text, name) in [
            ("NET_ADMIN", "NET_ADMIN"),
            ("CAP_NET_ADMIN", "NET_ADMIN"),
            ("cap_net_admin", "NET_ADMIN"),
            ("Kill", "KILL"),
            ("CAP_CHECKPOINT_RESTORE", "CHECKPOINT_RESTORE"),
            ("ALL", "ALL"),
            ("all", "ALL"),
        ] {
            assert_eq!(known(text), Some(name), "{text}");
        }
        for text in [
            "",
            "CAP_",
            "NET-ADMIN",
            "NETADMIN",
            " KILL",
            "CAP_ALL",
            "CAP_CAP_KILL",
            "ÄÖÜ_KILL",
            "KILL\u{e9}",
        ] {
            assert_eq!(known(text), None, "{text}");
        }
    }
}
