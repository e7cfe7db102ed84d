//! The cgroups of a supervisor that was killed, and so could not remove them itself.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Where cgroups are mounted.
const MOUNT: &str = "/sys/fs/cgroup";
/// How deep they are looked for: a hierarchy, a slice, a service.
const DEPTH: usize = 4;

/// Removes the groups of the supervisor that kept its state in `state_dir`. They are empty, and
/// cost nothing but their names; so what cannot be removed is left.
pub(super) fn remove(state_dir: &Path) {
    // As the supervisor names them.
    let hash = crc32fast::hash(state_dir.as_os_str().as_bytes());
    visit(Path::new(MOUNT), DEPTH, &format!("taskwright-{hash:08x}"));
}

fn visit(directory: &Path, depth: usize, name: &str) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        if entry.file_name() == name {
            for group in fs::read_dir(entry.path()).into_iter().flatten().flatten() {
                // Its control files refuse, and go with it.
                let _ = fs::remove_dir(group.path());
            }
            let _ = fs::remove_dir(entry.path());
        } else if depth > 1 {
            visit(&entry.path(), depth - 1, name);
        }
    }
}
