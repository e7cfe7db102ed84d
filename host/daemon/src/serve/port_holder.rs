//! Who has a port that we wanted, as far as `/proc` tells. For an error message only.

use std::path::Path;

/// `, by NAME (pid N)` for the process that listens on `address`, or nothing.
pub(crate) fn describe(address: &str) -> String {
    let port = address
        .rsplit_once(':')
        .and_then(|(_, port)| port.parse().ok());
    let holder = port.and_then(|port| pid_of(&inodes_of(port)));
    let Some(pid) = holder else {
        return ", probably by another taskwright".to_owned();
    };
    match std::fs::read_to_string(format!("/proc/{pid}/comm")) {
        Ok(name) => format!(" by {} (pid {pid})", name.trim()),
        Err(_) => format!(" (pid {pid})"),
    }
}

/// The sockets that listen on `port` (`proc_net(5)`).
fn inodes_of(port: u16) -> Vec<String> {
    ["/proc/net/tcp", "/proc/net/tcp6"]
        .into_iter()
        .filter_map(|path| std::fs::read_to_string(path).ok())
        .flat_map(|text| listening(&text, port))
        .collect()
}

fn listening(text: &str, port: u16) -> Vec<String> {
    /// `TCP_LISTEN` in the column `st`.
    const LISTEN: &str = "0A";
    let suffix = format!(":{port:04X}");
    text.lines()
        .skip(1)
        .filter_map(|line| {
            let columns: Vec<&str> = line.split_whitespace().collect();
            let [_, local, _, state, _, _, _, _, _, inode, ..] = columns.as_slice() else {
                return None;
            };
            (local.ends_with(&suffix) && *state == LISTEN).then(|| (*inode).to_owned())
        })
        .collect()
}

fn pid_of(inodes: &[String]) -> Option<u32> {
    let wanted: Vec<String> = inodes
        .iter()
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    if wanted.is_empty() {
        return None;
    }
    let processes = std::fs::read_dir("/proc").ok()?;
    processes
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .find(|pid| {
            holds_any(
                &Path::new("/proc").join(pid.to_string()).join("fd"),
                &wanted,
            )
        })
}

fn holds_any(folder: &Path, wanted: &[String]) -> bool {
    let Ok(descriptors) = std::fs::read_dir(folder) else {
        return false;
    };
    descriptors
        .flatten()
        .filter_map(|entry| std::fs::read_link(entry.path()).ok())
        .any(|target| {
            wanted
                .iter()
                .any(|socket| target.as_os_str() == socket.as_str())
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_are_found_by_port_and_state() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:167E 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4242 1 0 100\n\
            1: 0100007F:167E 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 4343 1 0 100\n";
        assert_eq!(listening(table, 0x167e), ["4242"]);
        assert_eq!(listening(table, 80), Vec::<String>::new());
    }
}
