//! `taskwright doctor`: whether this machine has what the daemon needs.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use crate::cli::ConnectArgs;
use crate::doctor::{Check, Verdict, disk, machine, running};
use crate::exit::Code;
use crate::output::style::{Colours, Tone};
use crate::output::table::{Cell, Table};
use crate::output::{self, Format};
use crate::settings::flags::Flags;
use crate::settings::{self, Config, Sources, table};

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// The daemon's configuration file
    #[arg(long, value_name = "FILE", env = crate::env::CONFIG)]
    config: Option<PathBuf>,
    /// The daemon's data directory, if not the configured one
    #[arg(long, value_name = "PATH")]
    data_dir: Option<PathBuf>,
    /// How it is shown
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Format,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// Exit code 1 when something fails; what could merely be better does not count.
pub(crate) async fn carry_out(args: DoctorArgs) -> anyhow::Result<Code> {
    let (mut checks, config) = configuration(&args);
    let container = config.as_ref().and_then(|config| config.container.clone());
    let data_dir = args.data_dir.or(config.map(|config| config.data_dir));
    if let Some(data_dir) = &data_dir {
        checks.extend(disk::check(data_dir));
    }
    checks.extend(machine::check());
    checks.extend(
        running::supervisor(data_dir.as_deref().unwrap_or(Path::new("/nonexistent"))).await,
    );
    if let Some(container) = &container {
        checks.push(running::containers(container).await);
    }
    checks.push(running::daemon(&args.connect.client()?).await);
    show(args.output, &checks)?;
    let failed = checks.iter().any(|check| check.verdict == Verdict::Fail);
    Ok(if failed { Code::PROBLEM } else { Code::DONE })
}

fn configuration(args: &DoctorArgs) -> (Vec<Check>, Option<Config>) {
    const SUBJECT: &str = "configuration";
    let mut flags = Flags::default();
    if let (Some(path), Some(setting)) = (&args.data_dir, table::by_flag("data-dir")) {
        flags.set(setting, vec![path.display().to_string()]);
    }
    let settings = settings::resolve(&Sources {
        flags: &flags,
        config_flag: args.config.as_deref(),
        variable: &settings::process_variable,
    });
    let config = match Config::from_settings(&settings) {
        Ok(config) => config,
        Err(error) => {
            let remedy = "see `taskwright config check`";
            return (
                vec![Check::fail(SUBJECT, format!("{error:#}"), remedy)],
                None,
            );
        }
    };
    let said = match &settings.file {
        Some(file) => format!("read from {}", file.display()),
        None => "no file; flags, environment and defaults".to_owned(),
    };
    let mut checks = vec![Check::ok(SUBJECT, said)];
    checks.push(access(&config));
    (checks, Some(config))
}

fn access(config: &Config) -> Check {
    const SUBJECT: &str = "access";
    let address = config.listen_addr.as_deref().unwrap_or("no TCP");
    let local = ["127.", "localhost", "[::1]", "no TCP"];
    if !config.tokens.is_empty() {
        return Check::ok(
            SUBJECT,
            format!("{address}, with {} token(s)", config.tokens.len()),
        );
    }
    if local.iter().any(|begin| address.starts_with(begin)) {
        return Check::ok(SUBJECT, format!("{address}: this machine only"));
    }
    Check::warn(
        SUBJECT,
        format!("{address} without tokens: whoever reaches it may run commands here"),
        "set tokens (--token-file), or listen on 127.0.0.1",
    )
}

fn show(format: Format, checks: &[Check]) -> anyhow::Result<()> {
    let list: Vec<Value> = checks
        .iter()
        .map(|check| {
            json!({
                "check": check.subject,
                "verdict": check.verdict.as_str(),
                "found": check.found,
                "remedy": check.remedy,
            })
        })
        .collect();
    if output::structured(format, &json!({ "checks": list }))? {
        return Ok(());
    }
    let mut table = Table::new(&["CHECK", "VERDICT", "FOUND"]);
    for check in checks {
        let tone = match check.verdict {
            Verdict::Ok => Tone::Good,
            Verdict::Warn => Tone::Busy,
            Verdict::Fail => Tone::Bad,
        };
        let verdict = Cell::toned(check.verdict.as_str(), tone);
        table.row(vec![
            check.subject.into(),
            verdict,
            check.found.as_str().into(),
        ]);
        if let Some(remedy) = &check.remedy {
            table.row(vec!["".into(), "".into(), format!("-> {remedy}").into()]);
        }
    }
    output::print(&table.render(Colours::of_stdout()))
}
