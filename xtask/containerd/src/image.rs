//! Packing a directory as an image: one layer, in an archive as the Open Container Initiative
//! describes it. The same directory gives the same bytes, whoever packs it and when.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Archive, Builder, EntryType, Header};

use crate::place::hex;

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Not compressed: it is read on this machine alone.
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// How an archive ends.
const END: usize = 1024;
const EPOCH: &str = "1970-01-01T00:00:00Z";

/// How a container of an image starts, unless it is told otherwise.
#[derive(Clone, Debug, Default)]
pub struct Start<'a> {
    /// What always runs.
    pub entrypoint: &'a [&'a str],
    /// What follows it, or runs if there is none.
    pub command: &'a [&'a str],
}

/// Packs `root` as an image with this name, `localhost/test/busybox:1`, into bytes.
///
/// # Errors
/// When the directory cannot be read, or holds more than directories, files and links.
pub fn pack(root: &Path, name: &str, start: &Start<'_>) -> Result<Vec<u8>> {
    let layer = layer(root).with_context(|| format!("pack {}", root.display()))?;
    let mut run = json!({
        "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
        "WorkingDir": "/",
    });
    if let Some(run) = run.as_object_mut() {
        if !start.entrypoint.is_empty() {
            run.insert("Entrypoint".to_owned(), json!(start.entrypoint));
        }
        if !start.command.is_empty() {
            run.insert("Cmd".to_owned(), json!(start.command));
        }
    }
    assemble(layer, &run, name)
}

/// The image of an archive once more, under another name, with a label, and with that in a file
/// `/label`. So nothing of it is there before it is pulled, and removing it, which removes every
/// name of the same identity, removes no other.
///
/// # Errors
/// When the archive is none of ours.
pub fn relabel(archive: &[u8], name: &str, label: &str) -> Result<Vec<u8>> {
    let Unpacked { manifest, blobs } = unpack(archive)?;
    let blob = |digest: Option<&Value>| {
        let digest = digest.and_then(Value::as_str);
        digest.and_then(|digest| blobs.get(digest))
    };
    let manifest: Value = match blobs.get(&manifest) {
        Some(bytes) => serde_json::from_slice(bytes)?,
        None => bail!("the archive lacks its own manifest"),
    };
    let config = blob(manifest.pointer("/config/digest")).context("no configuration")?;
    let layer = blob(manifest.pointer("/layers/0/digest")).context("no layer")?;
    let config: Value = serde_json::from_slice(config)?;
    let mut run = config.get("config").cloned().unwrap_or_default();
    set_label(&mut run, label);
    // Entries go where the two empty blocks of the end were.
    let entries = layer.len().saturating_sub(END);
    let mut layer = Builder::new(layer.get(..entries).unwrap_or_default().to_vec());
    let mut header = header(EntryType::Regular, 0o644);
    header.set_size(label.len() as u64);
    layer.append_data(&mut header, "label", label.as_bytes())?;
    assemble(layer.into_inner()?, &run, name)
}

fn set_label(run: &mut Value, label: &str) {
    if let Some(run) = run.as_object_mut() {
        run.insert("Labels".to_owned(), json!({"taskwright.test": label}));
    }
}

fn assemble(layer: Vec<u8>, run: &Value, name: &str) -> Result<Vec<u8>> {
    let config = json!({
        "created": EPOCH,
        "architecture": architecture()?,
        "os": "linux",
        "config": run,
        "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]},
        "history": [{"created": EPOCH, "created_by": "taskwright tests"}],
    });
    let config = config.to_string().into_bytes();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "digest": digest(&config), "size": config.len()},
        "layers": [{"mediaType": LAYER, "digest": digest(&layer), "size": layer.len()}],
    });
    let manifest = manifest.to_string().into_bytes();
    let tag = name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
    let index = json!({
        "schemaVersion": 2,
        "manifests": [{
            "mediaType": MANIFEST,
            "digest": digest(&manifest),
            "size": manifest.len(),
            "platform": {"architecture": architecture()?, "os": "linux"},
            "annotations": {
                "io.containerd.image.name": name,
                "org.opencontainers.image.ref.name": tag,
            },
        }],
    });
    let mut files = BTreeMap::from([
        (
            "oci-layout".to_owned(),
            json!({"imageLayoutVersion": "1.0.0"})
                .to_string()
                .into_bytes(),
        ),
        ("index.json".to_owned(), index.to_string().into_bytes()),
    ]);
    for blob in [layer, config, manifest] {
        files.insert(format!("blobs/{}", digest(&blob).replace(':', "/")), blob);
    }
    let mut archive = Builder::new(Vec::new());
    for (path, bytes) in &files {
        let mut header = header(EntryType::Regular, 0o644);
        header.set_size(bytes.len() as u64);
        archive.append_data(&mut header, path, bytes.as_slice())?;
    }
    Ok(archive.into_inner()?)
}

/// Writes an archive, in one step: whoever finds the file finds it whole.
///
/// # Errors
/// When it cannot be written.
pub fn write(archive: &[u8], file: &Path) -> Result<()> {
    let part = file.with_extension("part");
    let write = || -> std::io::Result<()> {
        fs::File::create(&part)?.write_all(archive)?;
        fs::rename(&part, file)
    };
    write().with_context(|| format!("write {}", file.display()))
}

/// An archive taken apart again, as a registry serves it.
#[derive(Clone, Debug, Default)]
pub struct Unpacked {
    /// The digest of the manifest.
    pub manifest: String,
    /// Everything, by its digest.
    pub blobs: BTreeMap<String, Vec<u8>>,
}

/// Takes an archive apart.
///
/// # Errors
/// When it is none of ours.
pub fn unpack(archive: &[u8]) -> Result<Unpacked> {
    let mut unpacked = Unpacked::default();
    for entry in Archive::new(archive).entries()? {
        let mut entry = entry?;
        let path = entry.path()?.display().to_string();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes)?;
        if path == "index.json" {
            let index: Value = serde_json::from_slice(&bytes)?;
            let found = index.pointer("/manifests/0/digest").and_then(Value::as_str);
            unpacked.manifest = found.context("the archive names no manifest")?.to_owned();
        } else if path.starts_with("blobs/") {
            unpacked.blobs.insert(digest(&bytes), bytes);
        }
    }
    if !unpacked.blobs.contains_key(&unpacked.manifest) {
        bail!("the archive lacks its own manifest");
    }
    Ok(unpacked)
}

fn layer(root: &Path) -> Result<Vec<u8>> {
    let mut archive = Builder::new(Vec::new());
    let mut paths = Vec::new();
    list(root, &mut paths)?;
    paths.sort();
    for path in paths {
        let name = path.strip_prefix(root)?;
        let facts = fs::symlink_metadata(&path)?;
        let mode = facts.permissions().mode() & 0o7777;
        if facts.is_symlink() {
            let target = fs::read_link(&path)?;
            archive.append_link(&mut header(EntryType::Symlink, 0o777), name, target)?;
        } else if facts.is_dir() {
            archive.append_data(&mut header(EntryType::Directory, mode), name, [].as_slice())?;
        } else if facts.is_file() {
            let mut header = header(EntryType::Regular, mode);
            header.set_size(facts.len());
            archive.append_data(&mut header, name, fs::File::open(&path)?)?;
        } else {
            bail!("{} is no directory, file or link", path.display());
        }
    }
    Ok(archive.into_inner()?)
}

fn list(directory: &Path, paths: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        paths.push(entry.path());
        if entry.file_type()?.is_dir() {
            list(&entry.path(), paths)?;
        }
    }
    Ok(())
}

/// Of root, of the epoch, of nobody in particular.
fn header(kind: EntryType, mode: u32) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(0);
    header
}

pub(crate) fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(bytes)))
}

fn architecture() -> Result<&'static str> {
    match std::env::consts::ARCH {
        "x86_64" => Ok("amd64"),
        "aarch64" => Ok("arm64"),
        other => bail!("images have no name for the architecture {other} here"),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    fn tree(name: &str) -> PathBuf {
        let root = std::env::temp_dir().join(format!("taskwright-{name}-{}", std::process::id()));
        fs::create_dir_all(root.join("bin")).unwrap();
        fs::write(root.join("bin/one"), "one").unwrap();
        std::os::unix::fs::symlink("one", root.join("bin/two")).unwrap();
        root
    }

    #[test]
    fn the_same_tree_gives_the_same_bytes() {
        let (first, second) = (tree("pack-a"), tree("pack-b"));
        let packed = |root: &Path| pack(root, "localhost/test/a:1", &Start::default()).unwrap();
        assert_eq!(packed(&first), packed(&second));
        for root in [first, second] {
            fs::remove_dir_all(root).unwrap();
        }
    }

    #[test]
    fn an_archive_holds_its_manifest_its_configuration_and_its_layer() {
        let root = tree("pack-c");
        let plain = pack(&root, "localhost/test/a:1", &Start::default()).unwrap();
        let other = relabel(&plain, "localhost/test/b:1", "other").unwrap();
        let [plain, other] = [plain, other].map(|archive| unpack(&archive).unwrap());
        assert_eq!(plain.blobs.len(), 3);
        assert_ne!(plain.manifest, other.manifest);
        let shared = |digest: &String| other.blobs.contains_key(digest);
        assert!(!plain.blobs.keys().any(shared), "nothing is shared");
        let layer = other.blobs.values().max_by_key(|blob| blob.len()).unwrap();
        let mut names = Vec::new();
        for entry in Archive::new(layer.as_slice()).entries().unwrap() {
            names.push(entry.unwrap().path().unwrap().display().to_string());
        }
        assert_eq!(names, ["bin", "bin/one", "bin/two", "label"]);
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn what_is_no_image_is_refused() {
        assert!(unpack(b"").is_err());
        assert!(unpack(&[b'x'; 1024]).is_err());
    }
}
