//! Finding a process tree without cgroups: by session, parents, and a mark in the environment.
//!
//! Best effort by nature: a process that leaves its session, loses its parent
//! and clears its environment is found only if it was seen before it did.

use std::collections::{HashMap, HashSet};
use std::io;

use crate::process::{self, Stat};

/// What is known of a tree.
#[derive(Clone, Copy, Debug)]
pub struct Seed<'a> {
    /// The main process and its start time.
    pub main: (i32, u64),
    /// `NAME=VALUE` in the environment of the whole tree.
    pub mark: &'a str,
    /// Members that were seen earlier, with their start times.
    pub seen: &'a [(i32, u64)],
}

/// The living members of the tree, with their start times.
///
/// # Errors
/// When `/proc` cannot be looked through as a whole: members may be where nobody looked.
pub fn members(seed: &Seed<'_>) -> io::Result<Vec<(i32, u64)>> {
    let own = std::process::id().cast_signed();
    let mut all = HashMap::new();
    for pid in process::all()?.into_iter().filter(|pid| *pid != own) {
        match process::stat(pid) {
            Ok(stat) => {
                all.insert(pid, stat);
            }
            Err(error) if process::is_no_room(&error) => return Err(error),
            Err(_) => {}
        }
    }
    let mut failed = None;
    let found = choose(seed, &all, |pid| {
        process::has_environment(pid, seed.mark).unwrap_or_else(|error| {
            failed = Some(error);
            false
        })
    });
    failed.map_or(Ok(found), Err)
}

fn choose(
    seed: &Seed<'_>,
    all: &HashMap<i32, Stat>,
    mut marked: impl FnMut(i32) -> bool,
) -> Vec<(i32, u64)> {
    let is = |pid: i32, ticks: u64| all.get(&pid).is_some_and(|stat| stat.start_ticks == ticks);
    let (main, main_ticks) = seed.main;
    // A session's number stays taken while it has members; once the main process is gone
    // from the table the number alone proves nothing.
    let main_is_there = is(main, main_ticks);
    let mut tree: HashSet<i32> = all
        .iter()
        .filter(|(pid, stat)| {
            (main_is_there && (**pid == main || stat.session == main))
                || seed.seen.iter().any(|(seen, ticks)| seen == *pid && *ticks == stat.start_ticks)
                // Nothing of the tree is older than its main process.
                || (stat.start_ticks >= main_ticks && marked(**pid))
        })
        .map(|(pid, _)| *pid)
        .collect();
    // Children of members, until there are no more; each round adds one, so this ends.
    loop {
        let before = tree.len();
        for (pid, stat) in all {
            if tree.contains(&stat.parent) {
                tree.insert(*pid);
            }
        }
        if tree.len() == before {
            break;
        }
    }
    tree.into_iter()
        .filter_map(|pid| {
            let stat = all.get(&pid)?;
            (!stat.is_zombie()).then_some((pid, stat.start_ticks))
        })
        .collect()
}

/// Sends `signal` to every one that still is who it was; how many that were.
pub fn signal_all(members: &[(i32, u64)], signal: i32) -> usize {
    members
        .iter()
        .filter_map(|(pid, ticks)| process::open_if_same(*pid, *ticks))
        .filter(|pidfd| process::signal(pidfd, signal).is_ok())
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(parent: i32, session: i32, start_ticks: u64) -> Stat {
        let (state, group, wait_status) = (b'S', session, 0);
        Stat {
            state,
            parent,
            group,
            session,
            is_exiting: false,
            start_ticks,
            wait_status,
        }
    }

    fn check(all: &[(i32, Stat)], marked: &[i32], seen: &[(i32, u64)], expected: &[i32]) {
        let all = all.iter().copied().collect();
        let seed = Seed {
            main: (100, 50),
            mark: "",
            seen,
        };
        let mut found: Vec<i32> = choose(&seed, &all, |pid| marked.contains(&pid))
            .into_iter()
            .map(|(pid, _)| pid)
            .collect();
        found.sort_unstable();
        assert_eq!(found, expected);
    }

    #[test]
    fn session_parents_and_mark_find_the_tree() {
        let all = [
            (100, stat(1, 100, 50)),
            (101, stat(1, 100, 51)),
            (102, stat(101, 102, 52)),
            (103, stat(1, 103, 53)),
            (104, stat(1, 104, 54)),
        ];
        check(&all, &[103], &[], &[100, 101, 102, 103]);
    }

    #[test]
    fn a_number_used_again_is_not_the_tree() {
        let all = [(100, stat(1, 100, 90)), (101, stat(100, 100, 91))];
        check(&all, &[], &[], &[]);
    }

    #[test]
    fn who_was_seen_before_is_found_again_by_start_time() {
        let all = [(200, stat(1, 200, 60)), (201, stat(1, 201, 99))];
        check(&all, &[], &[(200, 60), (201, 61)], &[200]);
    }
}
