//! Removal of a directory that a task could fill as it liked.
//!
//! A tree may be deeper than any stack, and longer than any path. So nothing here descends:
//! what lies two levels down is moved one level up before its parent goes. Every directory is
//! moved once, two are open at a time, and the stack does not grow.

use std::ffi::OsString;
use std::io;

use cap_fs_ext::DirExt as _;
use cap_std::fs::Dir;

/// Removes the directory `name` of `parent` with all in it. Links are removed, not followed.
pub(crate) fn remove_tree(parent: &Dir, name: &std::path::Path) -> io::Result<()> {
    let top = parent.open_dir_nofollow(name)?;
    let mut moved = 0_u64;
    while let Some(directory) = clear(&top)? {
        let inner = top.open_dir_nofollow(&directory)?;
        while let Some(nested) = clear(&inner)? {
            lift(&inner, &nested, &top, &mut moved)?;
        }
        top.remove_dir(&directory)?;
    }
    parent.remove_dir(name)
}

/// Removes everything but directories; one of those, if there is any.
fn clear(dir: &Dir) -> io::Result<Option<OsString>> {
    for entry in dir.entries()? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            return Ok(Some(entry.file_name()));
        }
        match dir.remove_file(entry.file_name()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(None)
}

/// Moves the directory `name` of `from` to `top`, under a name that is free there.
fn lift(from: &Dir, name: &OsString, top: &Dir, moved: &mut u64) -> io::Result<()> {
    /// The task may have used some of our names; each is tried once.
    const MOST_TRIES: u32 = 100_000;
    for _ in 0..MOST_TRIES {
        *moved += 1;
        match from.rename(name, top, format!(".removing-{moved}")) {
            Err(error) if is_taken(&error) => {}
            other => return other,
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// A file, or a directory with something in it, has that name.
fn is_taken(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::AlreadyExists
            | io::ErrorKind::DirectoryNotEmpty
            | io::ErrorKind::NotADirectory
    )
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use std::path::Path;

    use super::*;

    fn place() -> (tempfile::TempDir, Dir) {
        let place = tempfile::tempdir().unwrap();
        let dir = Dir::open_ambient_dir(place.path(), cap_std::ambient_authority()).unwrap();
        (place, dir)
    }

    /// Not so many levels as a stack usually has room for, which takes a slow disk most of a
    /// minute, but so small a stack: each level of a descent would have 32 bytes of it.
    #[test]
    fn a_tree_deeper_than_any_stack_goes() {
        const LEVELS: usize = 2048;
        const STACK: usize = 64 * 1024;
        const NAME: &str = "deep";
        let (_place, parent) = place();
        parent.create_dir("a").unwrap();
        let mut dir = parent.open_dir("a").unwrap();
        for _ in 0..LEVELS {
            dir.create_dir(NAME).unwrap();
            dir.write("f", "").unwrap();
            dir = dir.open_dir(NAME).unwrap();
        }
        let removing = std::thread::Builder::new()
            .stack_size(STACK)
            .spawn(move || {
                remove_tree(&parent, Path::new("a")).unwrap();
                parent
            });
        let parent = removing.unwrap().join().unwrap();
        assert_eq!(parent.entries().unwrap().count(), 0);
    }

    #[test]
    fn a_wide_tree_goes_and_names_of_ours_are_no_obstacle() {
        let (_place, parent) = place();
        for outer in 0..20 {
            parent
                .create_dir_all(format!("a/.removing-{outer}/x/y"))
                .unwrap();
            parent
                .write(format!("a/.removing-{outer}/x/f"), "")
                .unwrap();
        }
        parent.write("a/.removing-21", "").unwrap();
        parent.symlink("..", "a/up").unwrap();
        parent.write("kept", "").unwrap();
        remove_tree(&parent, Path::new("a")).unwrap();
        assert!(parent.exists("kept"));
        assert!(!parent.exists("a"));
    }
}
