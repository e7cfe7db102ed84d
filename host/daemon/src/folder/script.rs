//! Scripts in a plugin folder: texts that the built-in engine of scripts runs.

use std::path::Path;
use std::sync::Arc;

use anyhow::{anyhow, ensure};
use taskwright_capability::Grants;
use taskwright_engine::Script;

use crate::builtin;

/// How a script's file ends.
const END: &str = "rhai";
/// The largest script that is read: it is read again at each call.
pub(crate) const MOST_BYTES: u64 = 128 << 10;

/// Whether a file is a script, by its name.
pub(crate) fn is_script(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == END)
}

/// The component that runs scripts.
pub(crate) fn engine() -> Arc<[u8]> {
    builtin::SCRIPT_ENGINE.into()
}

/// A script of these bytes.
///
/// # Errors
/// When they are no text.
pub(crate) fn script(path: &Path, bytes: Vec<u8>) -> anyhow::Result<Script> {
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    let text = String::from_utf8(bytes).map_err(|_| anyhow!("{file} is no UTF-8"))?;
    Ok(Script {
        file: file.into_owned(),
        text: text.into(),
    })
}

/// Checks that nothing else is lent under the names by which the engine gets its script.
///
/// # Errors
/// The name that is taken.
pub(crate) fn check_lent(grants: &Grants) -> anyhow::Result<()> {
    for taken in [Script::TEXT, Script::FILE] {
        ensure!(
            !grants.settings.contains_key(taken),
            "settings.{taken} is how the script is handed over: choose another name"
        );
    }
    Ok(())
}
