//! What of an output file goes when it grows beyond its cap: head and tail stay, the middle is
//! given back to the disk as a hole, and every offset keeps its meaning.

use std::ffi::CStr;
use std::io;
use std::os::fd::AsFd;

use taskwright_native::files::{self, Access};

/// Holes begin and end at multiples of this: file systems give back whole blocks only.
const BLOCK: u64 = 64 * 1024;

/// A file that was looked at.
pub(crate) struct Looked {
    /// Its length, holes included.
    pub(crate) length: u64,
    /// Whether it could be made smaller where it had to be. Some file systems have no holes.
    pub(crate) kept: io::Result<()>,
}

/// Makes a file fit; `None` when there is none.
///
/// # Errors
/// When it is too large and cannot be opened.
pub(crate) fn keep_below(dir: &impl AsFd, name: &CStr, cap: u64) -> io::Result<Option<Looked>> {
    let Some((length, on_disk)) = files::extent(dir, name) else {
        return Ok(None);
    };
    let mut kept = Ok(());
    if on_disk > cap
        && let Some((from, to)) = hole(length, cap)
    {
        let file = files::open_existing(dir, name, Access::Change)?;
        kept = files::punch_hole(&file, from, to);
    }
    Ok(Some(Looked { length, kept }))
}

/// The part that goes: a quarter of the cap is kept as head, a half as tail. The quarter that is
/// left lets the file grow before it is looked at again.
fn hole(length: u64, cap: u64) -> Option<(u64, u64)> {
    let from = (cap / 4).div_ceil(BLOCK).saturating_mul(BLOCK);
    let to = length.saturating_sub(cap / 2) / BLOCK * BLOCK;
    (from < to).then_some((from, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn head_and_tail_stay_whole() {
        const MIB: u64 = 1024 * 1024;
        assert_eq!(hole(MIB, 4 * MIB), None);
        assert_eq!(hole(8 * MIB, 4 * MIB), Some((MIB, 6 * MIB)));
        assert_eq!(hole(8 * MIB + 1, 4 * MIB), Some((MIB, 6 * MIB)));
        assert_eq!(hole(100 * MIB, 4 * MIB), Some((MIB, 98 * MIB)));
    }
}
