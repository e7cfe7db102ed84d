//! The variables by which tests find a containerd that was started for them.

use std::ffi::OsString;

/// Where it answers CRI calls.
pub const SOCKET: &str = "TASKWRIGHT_TEST_CRI_SOCKET";
/// An image with a shell that is there.
pub const IMAGE: &str = "TASKWRIGHT_TEST_CRI_IMAGE";
/// Its folder, from which everything else about it follows.
pub const DIR: &str = "TASKWRIGHT_TEST_CRI_DIR";
/// Why there is none.
pub const NONE: &str = "TASKWRIGHT_TEST_CRI_NONE";

/// Whether nothing may be left out: what cannot be done here is a failure.
#[must_use]
pub fn is_ci() -> bool {
    std::env::var_os("CI").is_some_and(|value| value == "true")
}

/// What tells tests about the containerd in this place.
#[must_use]
pub fn of(place: &crate::Place) -> [(&'static str, OsString); 3] {
    [
        (SOCKET, place.socket().into()),
        (IMAGE, crate::images::BUSYBOX.into()),
        (DIR, place.dir().into()),
    ]
}
