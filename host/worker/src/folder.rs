//! The folder of an attempt: parameters in, a result out.
//!
//! The work may put anything where its result is to be. It is opened without following
//! links and without waiting, and taken only if it is a plain file of bounded size.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use serde_json::{Value, json};
use taskwright_queue::Json;

/// The file with the parameters.
pub const PARAMETERS: &str = "parameters.json";
/// The file with the result.
pub const RESULT: &str = "result.json";
/// The file that says how much of the output was handed over.
const HANDED_OVER: &str = ".handed-over";

/// How the work sees its folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inside {
    /// Where it is on this machine.
    pub outside: PathBuf,
    /// Where the work finds it.
    pub directory: String,
    /// Whether it has to be mounted there.
    pub mounted: bool,
}

/// What an attempt wrote as its result.
#[derive(Clone, Debug)]
pub enum Written {
    /// A result: an object.
    Result(Json),
    /// Nothing.
    Nothing,
    /// Something that cannot be taken, and why.
    Unusable(String),
}

/// The folder of an attempt.
#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// The one at `path`, which may not be there.
    #[must_use]
    pub fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes it, for `owner` (user and group) if one is named, with the parameters in it.
    ///
    /// # Errors
    /// Whatever the disk says. What was there of an earlier start of the same attempt is taken.
    pub fn make(&self, parameters: &Json, owner: Option<(u32, u32)>) -> io::Result<()> {
        if let Some(parent) = self.path.parent() {
            // Others may pass through, and see nothing.
            let mut builder = std::fs::DirBuilder::new();
            builder.recursive(true).mode(0o711).create(parent)?;
        }
        match std::fs::DirBuilder::new().mode(0o700).create(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => other?,
        }
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(self.path.join(PARAMETERS))?;
        file.write_all(parameters.as_str().as_bytes())?;
        if let Some((uid, gid)) = owner {
            std::os::unix::fs::fchown(&file, Some(uid), Some(gid))?;
            std::os::unix::fs::lchown(&self.path, Some(uid), Some(gid))?;
        }
        Ok(())
    }

    /// Reads what the attempt wrote, at most `most` bytes of it.
    #[must_use]
    pub fn result(&self, most: u64) -> Written {
        match self.read(RESULT, most) {
            Ok(None) => Written::Nothing,
            Ok(Some(text)) if text.trim().is_empty() => Written::Nothing,
            Ok(Some(text)) => match serde_json::from_str::<Value>(&text) {
                // An object is kept to the letter.
                Ok(Value::Object(_)) => match Json::parse(&text) {
                    Ok(result) => Written::Result(result),
                    Err(why) => Written::Unusable(why.to_string()),
                },
                Ok(other) => Written::Result(Json::of(&json!({"result": other}))),
                Err(_) if text.contains('\0') => Written::Unusable("it is no text".to_owned()),
                Err(_) => Written::Result(Json::of(&json!({"result": text.trim_end()}))),
            },
            Err(why) => Written::Unusable(why),
        }
    }

    fn read(&self, name: &str, most: u64) -> Result<Option<String>, String> {
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let opened = File::options()
            .read(true)
            .custom_flags(flags.bits().cast_signed())
            .open(self.path.join(name));
        let file = match opened {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
                return Err("it is a link".to_owned());
            }
            other => other.map_err(|error| error.to_string())?,
        };
        let about = file.metadata().map_err(|error| error.to_string())?;
        if !about.is_file() {
            return Err("it is no plain file".to_owned());
        }
        let too_large = || format!("it has more than {most} bytes");
        if about.len() > most {
            return Err(too_large());
        }
        let mut bytes = Vec::new();
        let read = file.take(most + 1).read_to_end(&mut bytes);
        read.map_err(|error| error.to_string())?;
        if bytes.len() as u64 > most {
            return Err(too_large());
        }
        String::from_utf8(bytes)
            .map(Some)
            .map_err(|_| "it is not UTF-8".to_owned())
    }

    /// How much of each stream was handed over as lines.
    #[must_use]
    pub fn handed_over(&self) -> [u64; 2] {
        let beside = Self::at(self.marks());
        let text = beside.read(HANDED_OVER, 100).ok().flatten();
        let text = text.unwrap_or_default();
        let mut words = text.split_whitespace().map(str::parse);
        match (words.next(), words.next()) {
            (Some(Ok(out)), Some(Ok(err))) => [out, err],
            _ => [0, 0],
        }
    }

    /// Remembers that. A crash just before repeats the last lines, and loses none.
    ///
    /// # Errors
    /// Whatever the disk says.
    pub fn remember(&self, handed_over: [u64; 2]) -> io::Result<()> {
        let [out, err] = handed_over;
        let marks = self.marks();
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(&marks)?;
        let path = marks.join(HANDED_OVER);
        let new = path.with_extension("new");
        std::fs::write(&new, format!("{out} {err}\n"))?;
        std::fs::rename(new, path)
    }

    /// Ours alone: the work can write into its folder.
    fn marks(&self) -> PathBuf {
        let mut name = self.path.file_name().unwrap_or_default().to_owned();
        name.push(".marks");
        self.path.with_file_name(name)
    }

    /// Removes it with all that is in it.
    pub fn remove(&self) {
        for path in [self.marks(), self.path.clone()] {
            match std::fs::remove_dir_all(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(%error, folder = %path.display(), "a folder is left behind");
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    //! Results as honest and dishonest work leaves them.
    #![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]
    use super::*;

    const MOST: u64 = 1000;

    fn folder() -> (tempfile::TempDir, Folder) {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::at(root.path().join("work/a"));
        folder.make(&Json::of(&json!({"a": 1})), None).unwrap();
        (root, folder)
    }

    #[test]
    fn results_of_every_form_become_objects() {
        for (written, told) in [
            ("{\"a\": 1 }\n", "{\"a\": 1 }"),
            ("[1]", r#"{"result":[1]}"#),
            ("plain words\n", r#"{"result":"plain words"}"#),
        ] {
            let (_root, folder) = folder();
            std::fs::write(folder.path().join(RESULT), written).unwrap();
            let Written::Result(result) = folder.result(MOST) else {
                panic!("{written:?} is a result");
            };
            assert_eq!(result.as_str().trim_end(), told);
        }
    }

    #[test]
    fn nothing_is_nothing() {
        let (_root, folder) = folder();
        assert!(matches!(folder.result(MOST), Written::Nothing));
        std::fs::write(folder.path().join(RESULT), "\n").unwrap();
        assert!(matches!(folder.result(MOST), Written::Nothing));
    }

    #[test]
    fn what_is_no_plain_file_is_not_read() {
        let (_root, folder) = folder();
        let result = folder.path().join(RESULT);
        std::os::unix::fs::symlink("/etc/shadow", &result).unwrap();
        assert!(matches!(folder.result(MOST), Written::Unusable(_)));
        std::fs::remove_file(&result).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &result,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RWXU,
            0,
        )
        .unwrap();
        assert!(matches!(folder.result(MOST), Written::Unusable(_)));
        std::fs::remove_file(&result).unwrap();
        std::fs::create_dir(&result).unwrap();
        assert!(matches!(folder.result(MOST), Written::Unusable(_)));
        std::fs::remove_dir(&result).unwrap();
        std::fs::write(&result, vec![b'x'; 2000]).unwrap();
        assert!(matches!(folder.result(MOST), Written::Unusable(_)));
        std::fs::write(&result, [0xff, 0xfe]).unwrap();
        assert!(matches!(folder.result(MOST), Written::Unusable(_)));
    }

    #[test]
    fn what_was_handed_over_is_remembered() {
        let (_root, folder) = folder();
        assert_eq!(folder.handed_over(), [0, 0]);
        folder.remember([12, 34]).unwrap();
        assert_eq!(folder.handed_over(), [12, 34]);
        folder.remove();
        assert!(!folder.path().exists());
        assert_eq!(folder.handed_over(), [0, 0]);
    }

    #[test]
    fn made_again_it_keeps_what_is_there() {
        let (_root, folder) = folder();
        std::fs::write(folder.path().join(RESULT), "{}").unwrap();
        folder.make(&Json::of(&json!({"a": 2})), None).unwrap();
        assert!(matches!(folder.result(MOST), Written::Result(_)));
        let parameters = std::fs::read_to_string(folder.path().join(PARAMETERS)).unwrap();
        assert_eq!(parameters, r#"{"a":2}"#);
    }
}
