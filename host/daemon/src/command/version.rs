//! `taskwright version`: of this program and of what it is made.

use clap::Args;
use serde_json::json;

use crate::exit::Code;
use crate::output::{self, Format};
use crate::versions;

#[derive(Debug, Args)]
pub(crate) struct VersionArgs {
    /// How it is shown
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Format,
}

pub(crate) fn carry_out(args: VersionArgs) -> anyhow::Result<Code> {
    let target = format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS);
    let value = json!({
        "version": versions::PRODUCT,
        "wasmtime": versions::wasmtime(),
        "pluginApi": versions::plugin_api(),
        "target": target,
    });
    if output::structured(args.output, &value)? {
        return Ok(Code::DONE);
    }
    output::print(&format!(
        "taskwright {}\nwasmtime   {}\nplugin API {}\ntarget     {target}\n",
        versions::PRODUCT,
        versions::wasmtime(),
        versions::plugin_api(),
    ))?;
    Ok(Code::DONE)
}
