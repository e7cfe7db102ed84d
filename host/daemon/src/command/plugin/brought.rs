//! A plugin that somebody brings: from a file or a registry, and whether it may come in.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, ensure};
use clap::Args;
use taskwright_capability::{Capability, Grants};
use taskwright_engine::PluginSource;
use taskwright_model::RuntimeName;
use taskwright_package::credentials::{self, Credentials};
use taskwright_package::registry::{Registry, RegistryError, Transport};
use taskwright_package::trust::Verdict;
use taskwright_package::{Digest, Kind, Reference, Signature, reference};

use super::check;
use crate::exit::Code;
use crate::failure::Advise as _;
use crate::folder::rules::{kind_of, signature_beside};
use crate::folder::{self, Rules, lent, script};
use crate::{builtin, env, output};

/// A path in a lock file.
pub(super) const FILE_SCHEME: &str = "file://";

/// How registries are spoken to.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct RegistryArgs {
    /// Speak HTTP to the registry, without TLS: everybody on the way reads and writes along
    #[arg(long)]
    plain_http: bool,
}

/// A plugin that somebody brings.
#[derive(Debug)]
pub(super) struct Brought {
    pub(super) name: RuntimeName,
    pub(super) kind: Kind,
    pub(super) bytes: Vec<u8>,
    pub(super) version: Option<String>,
    pub(super) signature: Option<Signature>,
    /// The `NAME.toml` that came along.
    pub(super) lent: Option<String>,
    /// Where it can be had again.
    pub(super) source: String,
}

/// What is known of it once it was looked at.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) verdict: Verdict,
    pub(super) wants: Vec<Capability>,
}

impl RegistryArgs {
    /// The registry of a reference, with what we have for it.
    ///
    /// # Errors
    /// When what we have cannot be read.
    pub(super) fn registry(self, place: &Reference) -> anyhow::Result<Registry> {
        let transport = if self.plain_http {
            Transport::Plain
        } else {
            Transport::Safe
        };
        let credentials = credentials_for(place.host())?;
        Registry::of(place, transport, credentials).map_err(advised)
    }
}

impl Brought {
    /// Where it is brought from: a path, or a place in a registry.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) async fn from(
        source: &str,
        name: Option<&RuntimeName>,
        registry: RegistryArgs,
    ) -> anyhow::Result<Self> {
        if source.starts_with(reference::SCHEME) {
            let place = Reference::parse(source)
                .with_context(|| format!("read {source:?}"))
                .exit_with(Code::USAGE)
                .hint("a plugin in a registry is oci://HOST/REPOSITORY:TAG or ...@sha256:DIGEST")?;
            Self::from_registry(&place, name, registry).await
        } else {
            let path = match source.strip_prefix(FILE_SCHEME) {
                Some(written) => decoded(written)?,
                None => PathBuf::from(source),
            };
            Self::from_file(&path, name)
        }
    }

    /// From a file, with `FILE.sig` and `NAME.toml` beside it.
    fn from_file(path: &Path, name: Option<&RuntimeName>) -> anyhow::Result<Self> {
        let kind = kind_of(path).exit_with(Code::USAGE)?;
        let name = match name {
            Some(name) => name.clone(),
            None => name_of(path)?,
        };
        let bytes = folder::read(path, folder::most_bytes(kind == Kind::Script))?;
        let beside = path.with_extension("toml");
        let lent = match beside.try_exists() {
            Ok(true) => Some(text_of(&beside)?),
            _ => None,
        };
        Ok(Self {
            name,
            kind,
            bytes,
            version: None,
            signature: signature_beside(path)?,
            lent,
            source: format!("{FILE_SCHEME}{}", encoded(&std::path::absolute(path)?)),
        })
    }

    async fn from_registry(
        place: &Reference,
        name: Option<&RuntimeName>,
        registry: RegistryArgs,
    ) -> anyhow::Result<Self> {
        let trying = || format!("get {place}");
        let mut registry = registry.registry(place).with_context(trying)?;
        let most = |kind| folder::most_bytes(kind == Kind::Script);
        let pulled = registry.pull(place, most).await;
        let pulled = pulled.map_err(advised).with_context(trying)?;
        let artifact = pulled.artifact;
        let name = match (name, artifact.name) {
            (Some(name), _) => name.clone(),
            (None, Some(name)) => name,
            (None, None) => RuntimeName::parse(place.last())
                .with_context(trying)
                .hint("say with --name what it is to be called here")?,
        };
        if let (Some(suggested), Some(signature)) = (&artifact.lent, &artifact.signature) {
            let said = signature.statement.lent;
            ensure!(
                said == Some(Digest::of(suggested.as_bytes())),
                "get {place}: what it asks to be lent is not what was signed: somebody changed it"
            );
        }
        let signed = artifact.signature.as_ref();
        ensure!(
            artifact.lent.is_some() || signed.is_none_or(|one| one.statement.lent.is_none()),
            "get {place}: what it asks to be lent was signed and is not there: somebody took it away"
        );
        Ok(Self {
            name,
            kind: artifact.kind,
            bytes: pulled.bytes,
            version: artifact.version,
            signature: artifact.signature,
            lent: artifact.lent,
            source: place.at(pulled.manifest).to_string(),
        })
    }

    /// The digest of its bytes.
    pub(super) fn digest(&self) -> Digest {
        Digest::of(&self.bytes)
    }

    /// Its version: as it was signed, where it was.
    pub(super) fn version(&self) -> Option<String> {
        let signed = self.signature.as_ref();
        let signed = signed.map(|signature| signature.statement.version.clone());
        signed.or_else(|| self.version.clone())
    }

    /// Looks at it as `plugin check` does, and at who signed it. Nothing of it is run.
    ///
    /// # Errors
    /// Why it does not come in.
    pub(super) async fn check(&self, rules: &Rules) -> anyhow::Result<Checked> {
        let checking = || format!("check the plugin {}", self.name);
        let verdict = rules
            .judge(&self.name, self.kind, &self.bytes, self.signature.as_ref())
            .exit_with(Code::PROBLEM)
            .hint(
                "see plugins.require-signature and [[plugins.trusted-keys]] in the configuration",
            )?;
        if let Some(text) = &self.lent {
            // A stranger's text is shown, and terminals obey some.
            lent::parse(text)
                .map_err(|error| anyhow!(tamed(&format!("{error:#}"))))
                .with_context(|| format!("read the {}.toml that comes along", self.name))
                .exit_with(Code::PROBLEM)?;
            let said = self.signature.as_ref();
            let said = said.and_then(|signature| signature.statement.lent);
            if let Some(said) = said.filter(|said| *said != Digest::of(text.as_bytes())) {
                return Err(anyhow!(
                    "{}.toml is not {said}, as it was signed",
                    self.name
                ))
                .with_context(checking)
                .exit_with(Code::PROBLEM)
                .hint("get the file as it was published, or leave it out");
            }
        }
        if self.kind == Kind::Script {
            let wants = self.check_script().await.with_context(checking)?;
            return Ok(Checked { verdict, wants });
        }
        let component = self.bytes.clone().into();
        // What it wants is told; whether it is lent that is another question.
        let grants = Grants::of(&Capability::ALL);
        let found = taskwright_engine::inspect(component, self.name.as_str(), &grants)
            .await
            .with_context(checking)
            .exit_with(Code::PROBLEM)
            .hint("a plugin is a WebAssembly component, built for wasm32-wasip2")?;
        if let Some(refusal) = found.refusals.first() {
            let told: Vec<String> = found.refusals.iter().map(ToString::to_string).collect();
            let hint = refusal.hint().map(|hint| hint.to_string());
            return Err(anyhow!("{}", told.join("; ")))
                .with_context(checking)
                .exit_with(Code::PROBLEM)
                .hint(hint.unwrap_or_else(|| "`taskwright plugin check` tells more".to_owned()));
        }
        Ok(Checked {
            verdict,
            wants: found.profile.wants,
        })
    }

    /// Reads a script as its engine does, with nothing behind it; answers what it wants. The engine
    /// itself could use more, which no script needs to be lent.
    async fn check_script(&self) -> anyhow::Result<Vec<Capability>> {
        let script = script::script(&PathBuf::from(self.file()), self.bytes.clone())
            .exit_with(Code::PROBLEM)?;
        let looked = check::script::look(PluginSource {
            name: self.name.as_str().to_owned(),
            origin: self.source.clone(),
            component: script::engine(),
            script: Some(script),
            // What it is not lent is another question, which no text has to answer.
            grants: Grants::of(&[Capability::Process]),
            limits: None,
            policy: None,
        })
        .await?;
        match looked.fault() {
            Some(fault) => Err(anyhow!("{fault}"))
                .exit_with(Code::PROBLEM)
                .hint("`taskwright plugin check` tells more"),
            None => Ok(looked.wants().to_vec()),
        }
    }

    /// Its file in a plugin folder.
    pub(super) fn file(&self) -> String {
        self.kind.file_of(&self.name)
    }

    /// Whether it would take the place of a built-in runtime.
    pub(super) fn is_builtin(&self) -> bool {
        builtin::ALL
            .iter()
            .any(|ours| ours.name == self.name.as_str())
    }
}

/// The plugin that a file is, by its name.
///
/// # Errors
/// When it is none.
pub(super) fn name_of(path: &Path) -> anyhow::Result<RuntimeName> {
    let stem = path.file_stem().and_then(|stem| stem.to_str());
    let stem = stem.context("a plugin's file is called NAME.wasm or NAME.rhai")?;
    RuntimeName::parse(stem)
        .with_context(|| format!("read the name of {}", path.display()))
        .exit_with(Code::USAGE)
        .hint("rename the file, or say with --name what the plugin is to be called")
}

fn tamed(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(output::style::tame).collect();
    lines.join("\n")
}

/// A `NAME.toml` as text.
pub(super) fn text_of(path: &Path) -> anyhow::Result<String> {
    let most = taskwright_package::artifact::MOST_LENT_BYTES as u64;
    let bytes = folder::read(path, most)?;
    String::from_utf8(bytes).with_context(|| format!("read {}: it is no UTF-8", path.display()))
}

/// A failure of a registry with its next step.
pub(super) fn advised(error: RegistryError) -> anyhow::Error {
    let hint = match &error {
        RegistryError::Unauthorized { host, .. } => format!(
            "`docker login {host}` writes them down, or set {} and {}",
            env::REGISTRY_USER,
            env::REGISTRY_PASSWORD_FILE
        ),
        RegistryError::Away(..) | RegistryError::TooLong => {
            "see whether it is there; SSL_CERT_FILE names a root of trust of your own, --plain-http \
             is for one without TLS"
                .to_owned()
        }
        RegistryError::NotFound { .. } => {
            "see whether repository and tag are spelled as they were pushed".to_owned()
        }
        RegistryError::Digest { .. } => {
            "what the registry keeps was changed or damaged: ask whoever published it".to_owned()
        }
        RegistryError::Artifact(_) => {
            "a plugin is pushed by `taskwright plugin push`, or as a component by `wkg`".to_owned()
        }
        RegistryError::Client(_) => {
            "install the package ca-certificates, or name the roots of trust in SSL_CERT_FILE"
                .to_owned()
        }
        _ => return error.into(),
    };
    crate::failure::advised(error, hint)
}

/// Who we are to a registry: by variables, or by what `docker login` wrote.
fn credentials_for(host: &str) -> anyhow::Result<Option<Credentials>> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    if let Some(user) = variable(env::REGISTRY_USER) {
        let password = match variable(env::REGISTRY_PASSWORD_FILE) {
            Some(path) => read_secret(Path::new(&path))?.trim_end().to_owned(),
            None => variable(env::REGISTRY_PASSWORD)
                .with_context(|| format!("{} is set without a password", env::REGISTRY_USER))?,
        };
        return Ok(Some(Credentials::new(user, password)));
    }
    let home = || variable("HOME").map(|home| Path::new(&home).join(".docker"));
    let folder = variable(env::DOCKER_CONFIG).map(PathBuf::from);
    let Some(folder) = folder.or_else(home) else {
        return Ok(None);
    };
    let file = folder.join("config.json");
    if !file.exists() {
        return Ok(None);
    }
    let text = read_secret(&file)?;
    Credentials::find(&text, host)
        .with_context(|| format!("read the credentials in {}", file.display()))
        .hint(format!(
            "set {} and {} instead",
            env::REGISTRY_USER,
            env::REGISTRY_PASSWORD_FILE
        ))
}

fn read_secret(path: &Path) -> anyhow::Result<String> {
    let bytes = folder::read(path, credentials::MOST_BYTES as u64)?;
    String::from_utf8(bytes).map_err(|_| anyhow!("read {}: it is no UTF-8", path.display()))
}

/// A path as part of a URL, so that any path is one line of plain letters.
fn encoded(path: &Path) -> String {
    use std::fmt::Write as _;
    use std::os::unix::ffi::OsStrExt as _;
    let mut text = String::new();
    for byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/._-+@=,~".contains(byte) {
            text.push(char::from(*byte));
        } else {
            // Writing to a text cannot fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

fn decoded(text: &str) -> anyhow::Result<PathBuf> {
    use std::os::unix::ffi::OsStringExt as _;
    let mut bytes = Vec::new();
    let mut left = text.bytes();
    while let Some(byte) = left.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits: Vec<u8> = left.by_ref().take(2).collect();
        let byte = hex::decode(digits)
            .ok()
            .and_then(|byte| byte.first().copied());
        bytes.push(byte.with_context(|| format!("{text:?} is no path as a URL has it"))?);
    }
    Ok(std::ffi::OsString::from_vec(bytes).into())
}

#[cfg(test)]
mod tests {
    //! Paths in lock files.
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    #[test]
    fn any_path_is_one_line_and_read_again() {
        use std::os::unix::ffi::OsStrExt as _;
        let path = std::ffi::OsStr::from_bytes(b"/a b/\n\xff%41\"/x.wasm");
        let text = encoded(Path::new(path));
        assert_eq!(text, "/a%20b/%0A%FF%2541%22/x.wasm");
        assert_eq!(decoded(&text).unwrap(), Path::new(path));
        assert!(decoded("%4").is_err() && decoded("%zz").is_err());
    }
}
