//! Views of files that cannot be written through.

use std::ffi::{CStr, c_uint};
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::ptr;

/// The kernel's `struct mount_attr`, first published size.
#[repr(C)]
#[derive(Default)]
pub(super) struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

impl MountAttributes {
    pub(super) fn read_only() -> Self {
        Self {
            set: 1, // MOUNT_ATTR_RDONLY
            ..Self::default()
        }
    }
}

pub(super) const OPEN_TREE_CLONE: c_uint = 1;
pub(super) const AT_RECURSIVE: c_uint = 0x8000;
/// Both places of `move_mount` are descriptors.
pub(super) const MOVE_EMPTY_PATHS: c_uint = 0x4 | 0x40;

/// A file through a mount of its own that is read-only and lies nowhere. Who opens the file again
/// by way of it cannot write either.
pub(crate) fn read_only_view(path: &CStr) -> io::Result<OwnedFd> {
    let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC.cast_unsigned();
    // SAFETY: one system call that reads a text ended by NUL.
    let tree = unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) };
    if tree < 0 {
        return Err(io::Error::last_os_error());
    }
    let tree = i32::try_from(tree).map_err(io::Error::other)?;
    // SAFETY: the kernel made this descriptor for this call and told nobody else.
    let tree = unsafe { OwnedFd::from_raw_fd(tree) };
    let attributes = MountAttributes::read_only();
    // SAFETY: reads the value above, of the size that is told.
    let set = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            ptr::from_ref(&attributes),
            size_of::<MountAttributes>(),
        )
    };
    if set < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(tree)
}
