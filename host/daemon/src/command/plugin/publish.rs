//! `taskwright plugin sign` and `taskwright plugin push`: a plugin for others.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, ensure};
use clap::Args;
use serde_json::json;
use taskwright_capability::{Capability, Grants};
use taskwright_model::RuntimeName;
use taskwright_package::artifact::World;
use taskwright_package::signature::PrivateKey;
use taskwright_package::{
    Artifact, Digest, Kind, Reference, Signature, Statement, is_version, reference,
};

use super::brought::{RegistryArgs, advised, name_of, text_of};
use crate::exit::Code;
use crate::failure::Advise as _;
use crate::folder;
use crate::folder::lent;
use crate::folder::rules::{kind_of, signature_beside, signature_file};
use crate::output::{self, OutputArgs};

/// The largest key file that is read.
const MOST_KEY_BYTES: u64 = 16 << 10;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  openssl genpkey -algorithm ed25519 -out publisher.pem    # once; keep it to yourself
  openssl pkey -in publisher.pem -pubout                   # for those who trust you
  taskwright plugin sign --key publisher.pem --version 1.2.0 greeter.wasm

It writes greeter.wasm.sig, which is for a plugin that is called greeter, has this version
and these bytes. With --with-lent it is for greeter.toml as well.")]
pub(crate) struct SignArgs {
    /// The component or the script
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The private key, as `openssl genpkey -algorithm ed25519` writes it
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Its version: letters, digits and . - _ +
    #[arg(long, value_name = "VERSION", value_parser = version)]
    version: String,
    /// What it is to be called wherever it is installed [default: as its file]
    #[arg(long, value_name = "NAME", value_parser = |text: &str| RuntimeName::parse(text))]
    name: Option<RuntimeName>,
    /// Sign NAME.toml beside it too, as what it asks to be lent
    #[arg(long)]
    with_lent: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  taskwright plugin push greeter.wasm oci://registry.example.org/team/greeter:1.2.0

FILE.sig beside it goes along, and NAME.toml if that was signed or with --with-lent: nothing
secret may stand in there. Credentials are those of `docker login`, or TASKWRIGHT_REGISTRY_USER
with TASKWRIGHT_REGISTRY_PASSWORD or TASKWRIGHT_REGISTRY_PASSWORD_FILE.")]
pub(crate) struct PushArgs {
    /// The component or the script
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Where to
    #[arg(value_name = "oci://REGISTRY/REPOSITORY:TAG")]
    to: String,
    /// Its version [default: as it was signed]
    #[arg(long, value_name = "VERSION", value_parser = version)]
    version: Option<String>,
    /// Send NAME.toml beside it along, as what it asks to be lent
    #[arg(long)]
    with_lent: bool,
    #[command(flatten)]
    registry: RegistryArgs,
    #[command(flatten)]
    output: OutputArgs,
}

fn version(text: &str) -> Result<String, String> {
    if is_version(text) {
        return Ok(text.to_owned());
    }
    Err("a version is letters, digits and . - _ +, at most 64".to_owned())
}

pub(super) fn sign(args: &SignArgs) -> anyhow::Result<Code> {
    let trying = || format!("sign {}", args.file.display());
    let kind = kind_of(&args.file)
        .with_context(trying)
        .exit_with(Code::USAGE)?;
    let name = match &args.name {
        Some(name) => name.clone(),
        None => name_of(&args.file).with_context(trying)?,
    };
    let key = read_key(&args.key)
        .with_context(|| format!("read the key {}", args.key.display()))
        .exit_with(Code::PROBLEM)?;
    let most = folder::most_bytes(kind == Kind::Script);
    let bytes = folder::read(&args.file, most).with_context(trying)?;
    let lent = args.with_lent.then(|| lent_of(&args.file)).transpose();
    let lent = lent.with_context(trying)?;
    let statement = Statement {
        name,
        kind,
        version: args.version.clone(),
        digest: Digest::of(&bytes),
        lent: lent.map(|text| Digest::of(text.as_bytes())),
    };
    let signature = Signature::sign(statement, &key);
    let target = signature_file(&args.file);
    write_beside(&target, &signature.to_string())
        .with_context(|| format!("write {}", target.display()))?;
    output::print(&signature.to_string())?;
    Ok(Code::DONE)
}

fn read_key(path: &Path) -> anyhow::Result<PrivateKey> {
    let mode = fs::metadata(path)?.permissions().mode();
    ensure!(
        mode & 0o007 == 0,
        "everybody may read or write it (mode {:o}): chmod 600, and better make another",
        mode & 0o7777
    );
    let bytes = folder::read(path, MOST_KEY_BYTES)?;
    Ok(PrivateKey::parse(&String::from_utf8_lossy(&bytes))?)
}

/// The `NAME.toml` beside a file, if it can be read as one.
fn lent_of(file: &Path) -> anyhow::Result<String> {
    let path = file.with_extension("toml");
    let text = text_of(&path)?;
    lent::parse(&text).with_context(|| format!("read {}", path.display()))?;
    Ok(text)
}

fn write_beside(target: &Path, text: &str) -> anyhow::Result<()> {
    let mut hidden = target.as_os_str().to_owned();
    hidden.push(".part");
    let hidden = PathBuf::from(hidden);
    // What an interrupted one left.
    let _none = fs::remove_file(&hidden);
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(&hidden)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    Ok(fs::rename(&hidden, target)?)
}

pub(super) async fn push(args: PushArgs) -> anyhow::Result<Code> {
    let trying = || format!("push {} to {}", args.file.display(), args.to);
    let place = Reference::parse(&args.to)
        .with_context(trying)
        .exit_with(Code::USAGE)
        .hint("a place in a registry is oci://HOST/REPOSITORY:TAG")?;
    if place.tag().is_none() || place.digest().is_some() {
        return Err(anyhow!("a tag is wanted, and no digest"))
            .with_context(trying)
            .exit_with(Code::USAGE)
            .hint(format!("as {}HOST/REPOSITORY:1.0.0", reference::SCHEME));
    }
    let kind = kind_of(&args.file)
        .with_context(trying)
        .exit_with(Code::USAGE)?;
    let most = folder::most_bytes(kind == Kind::Script);
    let bytes = folder::read(&args.file, most).with_context(trying)?;
    let signature = signature_beside(&args.file).with_context(trying)?;
    let artifact = artifact(&args, kind, &bytes, signature).with_context(trying)?;
    let world = world_of(kind, &bytes).await.with_context(trying)?;
    let mut registry = args.registry.registry(&place).with_context(trying)?;
    let pushed = registry.push(&place, &artifact, &world, bytes).await;
    let manifest = pushed.map_err(advised).with_context(trying)?;
    let there = place.at(manifest).to_string();
    let told = json!({
        "name": artifact.name.as_ref().map(RuntimeName::as_str),
        "version": artifact.version,
        "digest": artifact.digest.to_string(),
        "manifest": manifest.to_string(),
        "reference": there,
        "signer": artifact.signature.as_ref().map(|signature| signature.key.to_string()),
        "withLent": artifact.lent.is_some(),
    });
    if !output::structured(args.output.format(), &told)? {
        output::print(&format!("{there}\n"))?;
    }
    Ok(Code::DONE)
}

fn artifact(
    args: &PushArgs,
    kind: Kind,
    bytes: &[u8],
    signature: Option<Signature>,
) -> anyhow::Result<Artifact> {
    let digest = Digest::of(bytes);
    let said = signature.as_ref().map(|signature| &signature.statement);
    let name = match said {
        Some(said) => {
            ensure!(
                said.digest == digest && said.kind == kind,
                "{} is for {}, and the file is {digest}: sign it again",
                signature_file(&args.file).display(),
                said.digest
            );
            said.name.clone()
        }
        None => name_of(&args.file)?,
    };
    let signed_lent = said.and_then(|said| said.lent);
    let lent = match (signed_lent, args.with_lent) {
        (None, false) => None,
        (None, true) if said.is_some() => {
            return Err(anyhow!(
                "its signature does not cover what it asks to be lent"
            ))
            .hint("sign it again with --with-lent");
        }
        (signed, _) => {
            let text = lent_of(&args.file)?;
            let found = Digest::of(text.as_bytes());
            if let Some(signed) = signed.filter(|signed| *signed != found) {
                return Err(anyhow!(
                    "{name}.toml was {signed} when it was signed, and is {found}"
                ))
                .hint("sign it again");
            }
            Some(text)
        }
    };
    let signed_version = said.map(|said| said.version.clone());
    if let (Some(signed), Some(given)) = (&signed_version, &args.version) {
        ensure!(
            signed == given,
            "it was signed as version {signed}, not {given}"
        );
    }
    Ok(Artifact {
        kind,
        name: Some(name),
        version: signed_version.or_else(|| args.version.clone()),
        signature,
        lent,
        digest,
        size: bytes.len() as u64,
    })
}

/// What its configuration tells of a component. What is none is not pushed.
async fn world_of(kind: Kind, bytes: &[u8]) -> anyhow::Result<World> {
    if kind == Kind::Script {
        return Ok(World::default());
    }
    let grants = Grants::of(&Capability::ALL);
    let found = taskwright_engine::inspect(bytes.into(), "", &grants)
        .await
        .exit_with(Code::PROBLEM)
        .hint("a plugin is a WebAssembly component, built for wasm32-wasip2")?;
    Ok(World {
        exports: found.profile.exports,
        imports: found.profile.imports,
    })
}
