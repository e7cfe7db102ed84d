//! A plugin as an artifact: a manifest, a configuration and one layer.
//!
//! A component has the layout that other tools for components write and read: a configuration of
//! the type `application/vnd.wasm.config.v0+json` and one layer `application/wasm`. A script has
//! types of its own. One layer is all that those tools take, so the signature and the `NAME.toml`
//! that is suggested are annotations of the manifest (`docs/adr/0020`).

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use taskwright_model::RuntimeName;

use crate::digest::Digest;
use crate::is_version;
use crate::signature::{self, Signature};

/// The largest manifest that is read.
pub const MOST_MANIFEST_BYTES: usize = 1 << 20;
/// The largest `NAME.toml` that travels along.
pub const MOST_LENT_BYTES: usize = 64 << 10;
const MOST_ANNOTATIONS: usize = 256;

/// The type of a manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const COMPONENT_CONFIG: &str = "application/vnd.wasm.config.v0+json";
const COMPONENT_LAYER: &str = "application/wasm";
const SCRIPT_CONFIG: &str = "application/vnd.taskwright.script.config.v1+json";
const SCRIPT_LAYER: &str = "application/vnd.taskwright.script.v1";

const TITLE: &str = "org.opencontainers.image.title";
const VERSION: &str = "org.opencontainers.image.version";
/// The signature's file.
const SIGNATURE: &str = "taskwright.plugin.signature";
/// The `NAME.toml` that is suggested.
const LENT: &str = "taskwright.plugin.lent";

/// A component or a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `NAME.wasm`.
    Component,
    /// `NAME.rhai`.
    Script,
}

impl Kind {
    /// How its file ends, without the dot: its word in statements.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Component => "wasm",
            Self::Script => "rhai",
        }
    }

    /// The kind with this word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Component, Self::Script]
            .into_iter()
            .find(|kind| kind.word() == word)
    }

    /// The kind of a file that ends so, dot included.
    pub(crate) fn from_end(end: &str) -> Option<Self> {
        Self::from_word(end.strip_prefix('.')?)
    }

    /// The file of a plugin of this kind.
    #[must_use]
    pub fn file_of(self, name: &RuntimeName) -> String {
        format!("{name}.{}", self.word())
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Component => "component",
            Self::Script => "script",
        })
    }
}

/// What is told of a plugin beside its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    /// A component or a script.
    pub kind: Kind,
    /// What it calls itself.
    pub name: Option<RuntimeName>,
    /// Its version.
    pub version: Option<String>,
    /// Its signature.
    pub signature: Option<Signature>,
    /// The text of the `NAME.toml` that is suggested.
    pub lent: Option<String>,
    /// The digest of its bytes.
    pub digest: Digest,
    /// How many there are.
    pub size: u64,
}

/// What a component's configuration tells of it.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// What it exports.
    pub exports: Vec<String>,
    /// What it imports.
    pub imports: Vec<String>,
}

/// What is sent to a registry, in this order: the blobs, then the manifest.
#[derive(Clone, Debug)]
pub struct Package {
    /// The manifest's bytes.
    pub manifest: Vec<u8>,
    /// The configuration's bytes.
    pub config: Vec<u8>,
}

/// Why a manifest is none of a plugin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadArtifact {
    /// No JSON, or another one.
    #[error("its manifest cannot be read: {0}")]
    Json(String),
    /// A list of images for different machines, say.
    #[error("it is {0:?}, and no single artifact")]
    Type(String),
    /// Another thing than a plugin.
    #[error("it holds {config:?} with {layers} layers of {layer:?}, and no plugin")]
    NoPlugin {
        /// The type of its configuration.
        config: String,
        /// How many layers it has.
        layers: usize,
        /// The type of the first.
        layer: String,
    },
    /// An annotation that cannot be.
    #[error("its annotation {key}: {why}")]
    Annotation {
        /// Which one.
        key: &'static str,
        /// What is wrong.
        why: String,
    },
    /// A digest that is none.
    #[error(transparent)]
    Digest(#[from] crate::digest::NoDigest),
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    schema_version: u32,
    #[serde(default)]
    media_type: Option<String>,
    config: Descriptor,
    layers: Vec<Descriptor>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: String,
    digest: String,
    size: u64,
}

impl Artifact {
    /// Reads a manifest.
    ///
    /// # Errors
    /// Why it is none of a plugin.
    pub fn parse(bytes: &[u8]) -> Result<Self, BadArtifact> {
        // Asked for first: what else is missing then says nothing.
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Type {
            media_type: Option<String>,
        }
        let json = |error: serde_json::Error| BadArtifact::Json(error.to_string());
        let told: Type = serde_json::from_slice(bytes).map_err(json)?;
        if let Some(other) = told.media_type.filter(|told| told != MANIFEST) {
            return Err(BadArtifact::Type(other));
        }
        let manifest: Manifest = serde_json::from_slice(bytes).map_err(json)?;
        let (kind, layer) = manifest.plugin()?;
        let annotations = manifest.annotations.as_ref();
        let get = |key| annotations.and_then(|all| all.get(key)).map(String::as_str);
        if annotations.is_some_and(|all| all.len() > MOST_ANNOTATIONS) {
            let why = format!("there are more than {MOST_ANNOTATIONS}");
            return Err(BadArtifact::Annotation { key: TITLE, why });
        }
        let title = get(TITLE).and_then(|title| title.strip_suffix(kind.word())?.strip_suffix('.'));
        Ok(Self {
            kind,
            name: title.and_then(|title| RuntimeName::parse(title).ok()),
            version: get(VERSION)
                .filter(|version| is_version(version))
                .map(str::to_owned),
            signature: get(SIGNATURE).map(read_signature).transpose()?,
            lent: get(LENT).map(read_lent).transpose()?,
            digest: Digest::parse(&layer.digest)?,
            size: layer.size,
        })
    }

    /// Makes the manifest and the configuration. The same plugin makes the same bytes.
    ///
    /// # Errors
    /// When they cannot be written as JSON.
    pub fn package(&self, world: &World) -> Result<Package, BadArtifact> {
        let json = |error: serde_json::Error| BadArtifact::Json(error.to_string());
        let digest = self.digest.to_string();
        let (config_type, layer_type, config) = match self.kind {
            Kind::Component => (
                COMPONENT_CONFIG,
                COMPONENT_LAYER,
                serde_json::json!({
                    // A time would make other bytes of the same component.
                    "created": "1970-01-01T00:00:00Z",
                    "architecture": "wasm",
                    "os": "wasip2",
                    "layerDigests": [digest],
                    "component": {
                        "exports": world.exports,
                        "imports": world.imports,
                        "target": null,
                    },
                }),
            ),
            Kind::Script => (
                SCRIPT_CONFIG,
                SCRIPT_LAYER,
                serde_json::json!({ "layerDigests": [digest] }),
            ),
        };
        let config = serde_json::to_vec(&config).map_err(json)?;
        let mut annotations = BTreeMap::new();
        let mut note = |key: &str, value: Option<String>| {
            if let Some(value) = value {
                annotations.insert(key.to_owned(), value);
            }
        };
        note(
            TITLE,
            self.name.as_ref().map(|name| self.kind.file_of(name)),
        );
        note(VERSION, self.version.clone());
        let signature = self.signature.as_ref().map(ToString::to_string);
        note(SIGNATURE, signature.map(|text| BASE64.encode(text)));
        note(LENT, self.lent.as_ref().map(|text| BASE64.encode(text)));
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(MANIFEST.to_owned()),
            config: Descriptor {
                media_type: config_type.to_owned(),
                digest: Digest::of(&config).to_string(),
                size: config.len() as u64,
            },
            layers: vec![Descriptor {
                media_type: layer_type.to_owned(),
                digest,
                size: self.size,
            }],
            annotations: Some(annotations),
        };
        let manifest = serde_json::to_vec(&manifest).map_err(json)?;
        Ok(Package { manifest, config })
    }
}

impl Manifest {
    /// What it is, and its one layer.
    fn plugin(&self) -> Result<(Kind, &Descriptor), BadArtifact> {
        if let [layer] = self.layers.as_slice() {
            match (self.config.media_type.as_str(), layer.media_type.as_str()) {
                (COMPONENT_CONFIG, COMPONENT_LAYER) => return Ok((Kind::Component, layer)),
                (SCRIPT_CONFIG, SCRIPT_LAYER) => return Ok((Kind::Script, layer)),
                _ => {}
            }
        }
        let first = self.layers.first();
        Err(BadArtifact::NoPlugin {
            config: self.config.media_type.clone(),
            layers: self.layers.len(),
            layer: first
                .map(|layer| layer.media_type.clone())
                .unwrap_or_default(),
        })
    }
}

fn read_signature(text: &str) -> Result<Signature, BadArtifact> {
    let text = decoded(SIGNATURE, text, signature::MOST_BYTES)?;
    Signature::parse(&text).map_err(|why| annotation(SIGNATURE, &why))
}

fn read_lent(text: &str) -> Result<String, BadArtifact> {
    decoded(LENT, text, MOST_LENT_BYTES)
}

fn decoded(key: &'static str, text: &str, most: usize) -> Result<String, BadArtifact> {
    // Four letters for three bytes.
    if text.len() / 4 > most / 3 + 1 {
        return Err(annotation(
            key,
            &format_args!("it has more than {most} bytes"),
        ));
    }
    let bytes = BASE64.decode(text).map_err(|why| annotation(key, &why))?;
    String::from_utf8(bytes).map_err(|why| annotation(key, &why.utf8_error()))
}

fn annotation(key: &'static str, why: &dyn fmt::Display) -> BadArtifact {
    BadArtifact::Annotation {
        key,
        why: why.to_string(),
    }
}

#[cfg(test)]
mod tests {
    //! Packed and read again, and what is no plugin.
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;
    use crate::signature::tests::{key, statement};

    fn artifact(kind: Kind) -> Artifact {
        let said = statement("greeter");
        Artifact {
            kind,
            name: Some(said.name.clone()),
            version: Some(said.version.clone()),
            digest: said.digest,
            signature: Some(Signature::sign(said, &key(1))),
            lent: Some("[grants]\nprocess = true\n".to_owned()),
            size: 9,
        }
    }

    #[test]
    fn what_was_packed_is_read_again_and_packed_alike() {
        for kind in [Kind::Component, Kind::Script] {
            let whole = artifact(kind);
            let bare = Artifact {
                name: None,
                version: None,
                signature: None,
                lent: None,
                ..whole.clone()
            };
            for one in [whole, bare] {
                let packed = one.package(&World::default()).unwrap();
                assert_eq!(Artifact::parse(&packed.manifest).unwrap(), one);
                let again = one.package(&World::default()).unwrap();
                assert_eq!(again.manifest, packed.manifest);
            }
        }
    }

    #[test]
    fn what_is_no_plugin_is_told_as_what_it_is() {
        let packed = artifact(Kind::Component)
            .package(&World::default())
            .unwrap();
        let text = String::from_utf8(packed.manifest).unwrap();
        for (from, to, why) in [
            (
                MANIFEST,
                "application/vnd.oci.image.index.v1+json",
                "no single artifact",
            ),
            (
                COMPONENT_CONFIG,
                "application/vnd.oci.image.config.v1+json",
                "and no plugin",
            ),
            (COMPONENT_LAYER, "application/gzip", "and no plugin"),
            ("sha256:", "sha512:", "a digest is"),
            (
                "\"layers\":[",
                "\"layers\":[{\"mediaType\":\"x\",\"digest\":\"y\",\"size\":1},",
                "2 layers",
            ),
            (
                "taskwright.plugin.signature\":\"",
                "taskwright.plugin.signature\":\"!",
                "signature: ",
            ),
            (
                "taskwright.plugin.lent\":\"",
                "taskwright.plugin.lent\":\"/w==",
                "lent: ",
            ),
            ("{", "", "cannot be read"),
        ] {
            let changed = text.replacen(from, to, if from == "sha256:" { 9 } else { 1 });
            assert_ne!(changed, text);
            let error = Artifact::parse(changed.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(why), "{from}: {error}");
        }
        let long = "A".repeat(MOST_LENT_BYTES * 2);
        let changed = text.replace(
            "taskwright.plugin.lent\":\"",
            &format!("taskwright.plugin.lent\":\"{long}"),
        );
        let error = Artifact::parse(changed.as_bytes()).unwrap_err().to_string();
        assert!(error.contains("more than"), "{error}");
    }

    #[test]
    fn a_title_that_is_no_name_is_none() {
        let packed = artifact(Kind::Component)
            .package(&World::default())
            .unwrap();
        let text = String::from_utf8(packed.manifest).unwrap();
        for title in ["../greeter.wasm", "greeter", ".wasm", "greeter.rhai"] {
            let changed = text.replace("\"greeter.wasm\"", &format!("\"{title}\""));
            assert_ne!(changed, text);
            assert_eq!(
                Artifact::parse(changed.as_bytes()).unwrap().name,
                None,
                "{title}"
            );
        }
    }
}
