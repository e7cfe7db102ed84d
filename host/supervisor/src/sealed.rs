//! Executing this program through a view that cannot be written.
//!
//! A child that enters a container is still this program until it executes another, and a hostile
//! container may see to it that this other one is `/proc/self/exe`: by a link, or in a `#!` line.
//! Then this program's file stands there as an open door, which root in the container could write
//! to once it is not executed any more (as in CVE-2019-5736). Through a mount that is read-only
//! and lies nowhere there is no way to open it for writing.

use std::ffi::{CStr, OsString};
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use taskwright_native::{files, isolated};

const OURSELVES: &CStr = c"/proc/self/exe";

/// Executes this program again through such a view, with the hidden verb and `arguments`. Returns
/// where it is executed through one already, or, with the reason, where that cannot be.
pub(crate) fn execute_again(arguments: &[OsString]) -> Result<(), String> {
    if files::is_on_read_only_mount(OURSELVES).map_err(|error| error.to_string())? {
        return Ok(());
    }
    let view = isolated::read_only_view(OURSELVES)
        .map_err(|error| format!("it cannot be mounted read-only: {error}"))?;
    // Closed by the execution, after it was opened.
    let path = format!("/proc/self/fd/{}", view.as_raw_fd());
    let seen = std::ffi::CString::new(path.as_str()).map_err(|error| error.to_string())?;
    // Else this would go on for ever.
    if !files::is_on_read_only_mount(&seen).map_err(|error| error.to_string())? {
        return Err("its view is not read-only".to_owned());
    }
    let mut all = std::env::args_os();
    let name = all.next().unwrap_or_else(|| OsString::from("taskwright"));
    let mut command = Command::new(path);
    command.arg0(name).arg(crate::options::VERB).args(arguments);
    let error = command.exec();
    Err(format!("it cannot be executed through its view: {error}"))
}
