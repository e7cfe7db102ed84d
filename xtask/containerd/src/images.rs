//! The images of the tests, made from one static busybox.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::command;
use crate::image::{self, Start};
use crate::place::Place;

/// What holds a pod's namespaces.
pub const PAUSE: &str = "localhost/taskwright/pause:1";
/// A shell and the usual small programs.
pub const BUSYBOX: &str = "localhost/taskwright/busybox:1";
/// One static program, `/busybox`, and nothing else: no shell, no other file.
pub const DISTROLESS: &str = "localhost/taskwright/distroless:1";

/// All of them, and their archives.
pub const ALL: [(&str, &str); 3] = [
    (PAUSE, "pause.tar"),
    (BUSYBOX, "busybox.tar"),
    (DISTROLESS, "distroless.tar"),
];

/// Waits for ever, and reaps: in a pod that shares its processes, orphans of every container
/// become the children of this one.
const HOLD: &str = "trap 'exit 0' TERM INT; while :; do sleep 2147483647 & wait; done";

/// Packs whatever image is not there yet.
///
/// # Errors
/// When busybox does not run, or the folder cannot be written.
pub fn ensure(place: &Place) -> Result<()> {
    fs::create_dir_all(place.images())?;
    let missing = ALL
        .iter()
        .filter(|(_, file)| !place.images().join(file).is_file());
    for (name, file) in missing {
        let root = place.dir().join("tree");
        remove_tree(&root)?;
        let start = match *name {
            PAUSE => {
                pause_tree(&place.busybox(), &root)?;
                Start {
                    entrypoint: &["/bin/sh", "-c", HOLD],
                    ..Start::default()
                }
            }
            DISTROLESS => {
                distroless_tree(&place.busybox(), &root)?;
                Start {
                    entrypoint: &["/busybox"],
                    command: &["sleep", "2147483647"],
                }
            }
            _ => {
                let mut list = Command::new(place.busybox());
                let names = command::run(list.arg("--list"), command::LOCAL)?;
                let names: Vec<&str> = names.lines().collect();
                busybox_tree(&place.busybox(), &names, &root)?;
                Start {
                    command: &["sh"],
                    ..Start::default()
                }
            }
        };
        let archive = image::pack(&root, name, &start)?;
        image::write(&archive, &place.images().join(file))?;
        remove_tree(&root)?;
    }
    Ok(())
}

/// A file system with busybox under all of these names, in a directory that is made.
///
/// # Errors
/// When it cannot be made.
pub fn busybox_tree(busybox: &Path, names: &[&str], root: &Path) -> Result<()> {
    for directory in ["bin", "dev", "etc", "proc", "root", "sys", "tmp", "var/tmp"] {
        make_directory(&root.join(directory), 0o755)?;
    }
    for directory in ["tmp", "var/tmp"] {
        fs::set_permissions(root.join(directory), Permissions::from_mode(0o1777))?;
    }
    copy_program(busybox, &root.join("bin/busybox"))?;
    for name in names.iter().filter(|name| **name != "busybox") {
        symlink("busybox", root.join("bin").join(name))?;
    }
    let passwd = "root:x:0:0:root:/root:/bin/sh\n\
        user:x:1000:1000:user:/tmp:/bin/sh\n\
        nobody:x:65534:65534:nobody:/:/bin/false\n";
    fs::write(root.join("etc/passwd"), passwd)?;
    fs::write(
        root.join("etc/group"),
        "root:x:0:\nuser:x:1000:\nnogroup:x:65534:\n",
    )?;
    Ok(())
}

/// A file system with one static program, `/busybox`, in a directory that is made.
///
/// # Errors
/// When it cannot be made.
pub fn distroless_tree(busybox: &Path, root: &Path) -> Result<()> {
    for directory in ["dev", "proc", "sys", "tmp"] {
        make_directory(&root.join(directory), 0o755)?;
    }
    fs::set_permissions(root.join("tmp"), Permissions::from_mode(0o1777))?;
    copy_program(busybox, &root.join("busybox"))
}

fn pause_tree(busybox: &Path, root: &Path) -> Result<()> {
    make_directory(&root.join("bin"), 0o755)?;
    copy_program(busybox, &root.join("bin/busybox"))?;
    for name in ["sh", "sleep"] {
        symlink("busybox", root.join("bin").join(name))?;
    }
    Ok(())
}

/// Whatever the umask is: the image of one person is that of another.
fn make_directory(path: &Path, mode: u32) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("make {}", path.display()))?;
    fs::set_permissions(path, Permissions::from_mode(mode))?;
    Ok(())
}

fn copy_program(program: &Path, to: &Path) -> Result<()> {
    fs::copy(program, to)
        .with_context(|| format!("copy {} to {}", program.display(), to.display()))?;
    fs::set_permissions(to, Permissions::from_mode(0o755))?;
    Ok(())
}

fn remove_tree(root: &Path) -> Result<()> {
    match fs::remove_dir_all(root) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", root.display()))
        }
        _ => Ok(()),
    }
}
