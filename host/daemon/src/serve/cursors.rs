//! How far observers were told: a small file for each, replaced whole.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use futures::future::BoxFuture;
use taskwright_control::port::Cursors;

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
            match tokio::fs::read_to_string(&path).await {
                Ok(text) => match text.trim().parse() {
                    Ok(sequence) => Ok(Some(sequence)),
                    Err(_) => Err(format!(
                        "{} holds no number: remove it, and the observer begins with what comes next",
                        path.display()
                    )),
                },
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(format!("read {}: {error}", path.display())),
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

/// Not synced: after a crash of the machine an older number tells events once more, which is
/// promised, and a file is whole or the one before.
fn replace(path: &Path, sequence: u64) -> std::io::Result<()> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    let new = path.with_extension("new");
    let mut file = std::fs::File::create(&new)?;
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
    }
}
