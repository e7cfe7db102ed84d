//! How far observers were told: a small file for each, replaced whole.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use futures::future::BoxFuture;
use taskwright_control::port::Cursors;

/// Bytes of a file that are looked at; no number has as many.
const MOST_BYTES: u64 = 64;

/// Cursors as files in a directory of our own. An observer's name is one of a runtime, so it is
/// a file's, too.
pub(crate) struct CursorFiles {
    directory: PathBuf,
}

impl CursorFiles {
    /// In `directory`, which is made when the first is written.
    pub(crate) fn at(directory: PathBuf) -> Self {
        Self { directory }
    }

    fn path(&self, observer: &str) -> PathBuf {
        self.directory.join(observer)
    }
}

impl Cursors for CursorFiles {
    fn read(&self, observer: &str) -> BoxFuture<'_, Result<Option<u64>, String>> {
        let path = self.path(observer);
        Box::pin(async move {
            let shown = path.display().to_string();
            let found = tokio::task::spawn_blocking(move || content(&path)).await;
            match found.map_err(|error| error.to_string())? {
                Ok(text) => match text.trim().parse() {
                    Ok(sequence) => Ok(Some(sequence)),
                    Err(_) => Err(format!(
                        "{shown} holds no number: remove it, and the observer begins with what comes next"
                    )),
                },
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
                Err(error) => Err(format!("read {shown}: {error}")),
            }
        })
    }

    fn write(&self, observer: &str, sequence: u64) -> BoxFuture<'_, Result<(), String>> {
        let path = self.path(observer);
        Box::pin(async move {
            let shown = path.display().to_string();
            let written = tokio::task::spawn_blocking(move || replace(&path, sequence)).await;
            match written {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => Err(format!("write {shown}: {error}")),
                Err(error) => Err(error.to_string()),
            }
        })
    }
}

/// What a cursor's file says. Opening a named pipe would wait for whoever writes into it, and the
/// daemon's end for that; what is no file is an error instead.
fn content(path: &Path) -> io::Result<String> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no file: remove it"));
    }
    let mut text = String::new();
    file.take(MOST_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

/// Not synced: after a crash of the machine an older number tells events once more, which is
/// promised, and a file is whole or the one before.
fn replace(path: &Path, sequence: u64) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    let new = path.with_extension("new");
    // What lies there is left over, or something that must not be written into.
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = File::create_new(&new)?;
    writeln!(file, "{sequence}")?;
    drop(file);
    std::fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    //! What is written is read, and what is no number is told.
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    #[tokio::test]
    async fn a_cursor_comes_back_and_a_broken_one_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let cursors = CursorFiles::at(folder.path().join("observers"));
        assert_eq!(cursors.read("webhook").await, Ok(None));
        cursors.write("webhook", 7).await.unwrap();
        cursors.write("webhook", 8).await.unwrap();
        assert_eq!(cursors.read("webhook").await, Ok(Some(8)));
        std::fs::write(cursors.path("webhook"), "much").unwrap();
        let told = cursors.read("webhook").await.unwrap_err();
        assert!(told.contains("holds no number"), "{told}");
        std::fs::write(cursors.path("webhook"), "9".repeat(10_000)).unwrap();
        let told = cursors.read("webhook").await.unwrap_err();
        assert!(told.contains("holds no number"), "{told}");
    }

    #[tokio::test]
    async fn nobody_waits_for_a_named_pipe() {
        let folder = tempfile::tempdir().unwrap();
        let cursors = CursorFiles::at(folder.path().to_owned());
        for name in ["webhook", "webhook.new"] {
            let (pipe, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU);
            rustix::fs::mknodat(rustix::fs::CWD, folder.path().join(name), pipe, mode, 0).unwrap();
        }
        let told = cursors.read("webhook").await.unwrap_err();
        assert!(told.contains("it is no file: remove it"), "{told}");
        cursors.write("webhook", 7).await.unwrap();
        assert_eq!(cursors.read("webhook").await, Ok(Some(7)));
    }
}
