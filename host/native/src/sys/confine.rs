//! The steps of a new process that give rights away: mounts made read-only, users and groups,
//! capabilities. The same rules hold as in `child`.

use std::ffi::{c_char, c_int, c_uint, c_void};
use std::ptr;

use super::child::{
    Failure, STEP_CAPABILITIES, STEP_CREDENTIALS, STEP_READ_ONLY, failed_at, last_errno,
};
use super::mount::{AT_RECURSIVE, MOVE_EMPTY_PATHS, MountAttributes, OPEN_TREE_CLONE};

/// As whom the child goes on.
#[repr(C)]
pub(crate) struct CredentialsPlan {
    pub(crate) ids: Option<IdsPlan>,
    pub(crate) capabilities: Option<CapabilityPlan>,
}

/// User and groups.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct IdsPlan {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: *const u32,
    pub(crate) group_count: usize,
}

/// Capability sets, as bits.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CapabilityPlan {
    pub(crate) bounding: u64,
    pub(crate) permitted: u64,
    pub(crate) effective: u64,
    pub(crate) inheritable: u64,
    pub(crate) ambient: u64,
}

/// Makes each of the paths read-only, with all that is mounted below it.
///
/// # Safety
/// Only in the child, in a mount namespace of its own, with an array of texts ended by null.
pub(super) unsafe fn make_read_only(paths: *const *const c_char) -> Result<(), Failure> {
    // SAFETY: the caller vouches for the array; system calls on plain values and those texts.
    unsafe {
        let mut index = 0;
        while !(*paths.add(index)).is_null() {
            if !make_one_read_only(*paths.add(index)) {
                return Err(failed_at(STEP_READ_ONLY, index as u32));
            }
            index += 1;
        }
    }
    Ok(())
}

/// A recursive copy of what is mounted at `path`, made read-only and put over it. Links on the
/// way are followed as the task would: in its root, by its mounts.
///
/// # Safety
/// As for [`make_read_only`].
unsafe fn make_one_read_only(path: *const c_char) -> bool {
    let attributes = MountAttributes::read_only();
    let empty = c"".as_ptr();
    let tree_flags =
        OPEN_TREE_CLONE | libc::O_CLOEXEC.cast_unsigned() | AT_RECURSIVE | AT_EMPTY_PATH;
    // SAFETY: system calls on a text that the caller vouches for, and on values of this frame.
    unsafe {
        let place = libc::syscall(
            libc::SYS_openat,
            libc::AT_FDCWD,
            path,
            libc::O_PATH | libc::O_CLOEXEC,
        );
        if place < 0 {
            return false;
        }
        let tree = libc::syscall(libc::SYS_open_tree, place, empty, tree_flags);
        tree >= 0
            && libc::syscall(
                libc::SYS_mount_setattr,
                tree,
                empty,
                AT_EMPTY_PATH | AT_RECURSIVE,
                ptr::from_ref(&attributes),
                size_of::<MountAttributes>(),
            ) >= 0
            && libc::syscall(
                libc::SYS_move_mount,
                tree,
                empty,
                place,
                empty,
                MOVE_EMPTY_PATHS,
            ) >= 0
            // What lies over the root is not seen from it: the root is moved there.
            && (!is_root(path)
                || libc::syscall(libc::SYS_fchdir, tree) >= 0
                    && libc::syscall(libc::SYS_chroot, c".".as_ptr()) >= 0)
            && libc::syscall(libc::SYS_close, tree) >= 0
            && libc::syscall(libc::SYS_close, place) >= 0
    }
}

const AT_EMPTY_PATH: c_uint = libc::AT_EMPTY_PATH.cast_unsigned();

/// Whether a path has nothing but slashes and dots.
///
/// # Safety
/// `path` ends with NUL.
unsafe fn is_root(path: *const c_char) -> bool {
    let mut at = path;
    // SAFETY: never goes beyond the NUL that the caller vouches for.
    unsafe {
        while *at != 0 {
            if *at != c_char::from_ne_bytes([b'/']) && *at != c_char::from_ne_bytes([b'.']) {
                return false;
            }
            at = at.add(1);
        }
    }
    true
}

/// Takes on users, groups and capabilities; what is given up cannot be taken back.
///
/// # Safety
/// Only in the child, with pointers that are valid there.
pub(super) unsafe fn take_credentials(plan: &CredentialsPlan) -> Result<(), Failure> {
    // SAFETY: system calls on plain values and on arrays that the caller vouches for.
    unsafe {
        // What is ambient would come through a change of the user. Unknown before 4.3: then
        // there is none.
        let none = 0_u64;
        libc::syscall(
            libc::SYS_prctl,
            libc::PR_CAP_AMBIENT,
            libc::PR_CAP_AMBIENT_CLEAR_ALL,
            none,
            none,
            none,
        );
        if let Some(sets) = &plan.capabilities {
            bound(sets.bounding)?;
        }
        if let Some(ids) = &plan.ids {
            if plan.capabilities.is_some()
                && libc::syscall(libc::SYS_prctl, libc::PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0
            {
                return Err(failed_at(STEP_CAPABILITIES, 0));
            }
            let (uid, gid) = (ids.uid, ids.gid);
            let grouped = libc::syscall(libc::SYS_setgroups, ids.group_count, ids.groups);
            // In a user namespace that forbids it there is none left to give up: see
            // `change_namespaces`.
            let forbidden = grouped < 0 && (ids.group_count > 0 || last_errno() != libc::EPERM);
            if forbidden || grouped < 0 && has_groups() {
                return Err(failed_at(STEP_CREDENTIALS, 0));
            }
            if libc::syscall(libc::SYS_setresgid, gid, gid, gid) < 0 {
                return Err(failed_at(STEP_CREDENTIALS, 1));
            }
            if libc::syscall(libc::SYS_setresuid, uid, uid, uid) < 0 {
                return Err(failed_at(STEP_CREDENTIALS, 2));
            }
        }
        if let Some(sets) = &plan.capabilities {
            set_capabilities(sets)?;
        }
    }
    Ok(())
}

fn has_groups() -> bool {
    // SAFETY: asks for a count, writes nothing.
    unsafe { libc::syscall(libc::SYS_getgroups, 0, ptr::null_mut::<u32>()) != 0 }
}

/// Drops everything else from the bounding set.
///
/// # Safety
/// Only in the child.
unsafe fn bound(kept: u64) -> Result<(), Failure> {
    let mut capability = 0_u32;
    while capability < 64 {
        // SAFETY: two calls on plain values.
        unsafe {
            let has = libc::syscall(libc::SYS_prctl, libc::PR_CAPBSET_READ, capability, 0, 0, 0);
            if has < 0 {
                // Beyond the last one that this kernel knows.
                break;
            }
            if has == 1
                && kept >> capability & 1 == 0
                && libc::syscall(libc::SYS_prctl, libc::PR_CAPBSET_DROP, capability, 0, 0, 0) < 0
            {
                return Err(failed_at(STEP_CAPABILITIES, capability));
            }
        }
        capability += 1;
    }
    Ok(())
}

/// The kernel's `struct __user_cap_header_struct`.
#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: c_int,
}

/// The kernel's `struct __user_cap_data_struct`, of which version 3 takes two.
#[repr(C)]
struct CapabilityWord {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

/// # Safety
/// Only in the child.
unsafe fn set_capabilities(sets: &CapabilityPlan) -> Result<(), Failure> {
    let word = |shift: u32| CapabilityWord {
        effective: (sets.effective >> shift) as u32,
        permitted: (sets.permitted >> shift) as u32,
        inheritable: (sets.inheritable >> shift) as u32,
    };
    let words = [word(0), word(32)];
    let header = CapabilityHeader {
        version: CAPABILITY_VERSION_3,
        pid: 0,
    };
    // SAFETY: reads the two values above; ambient ones are plain numbers.
    unsafe {
        let words = ptr::from_ref(&words).cast::<c_void>();
        if libc::syscall(libc::SYS_capset, ptr::from_ref(&header), words) < 0 {
            return Err(failed_at(STEP_CAPABILITIES, u32::MAX));
        }
        let mut capability = 0_u32;
        while capability < 64 {
            if sets.ambient >> capability & 1 == 1
                && libc::syscall(
                    libc::SYS_prctl,
                    libc::PR_CAP_AMBIENT,
                    libc::PR_CAP_AMBIENT_RAISE,
                    capability,
                    0,
                    0,
                ) < 0
            {
                return Err(failed_at(STEP_CAPABILITIES, capability));
            }
            capability += 1;
        }
    }
    Ok(())
}
