//! `taskwright doctor`: whether this machine has what the daemon needs, and what the daemon that
//! runs says of itself.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use crate::cli::ConnectArgs;
use crate::client::Server;
use crate::doctor::running::{self, Running};
use crate::doctor::{Check, Verdict, disk, machine};
use crate::exit::Code;
use crate::output::style::{Colours, Tone};
use crate::output::table::{Cell, Table};
use crate::output::{self, Format};
use crate::settings::flags::FlagsBesideClient;
use crate::settings::{self, Config, Sources};

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// The daemon's configuration file
    #[arg(long, value_name = "FILE", env = crate::env::CONFIG)]
    config: Option<PathBuf>,
    /// How it is shown
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Format,
    #[command(flatten)]
    flags: FlagsBesideClient,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// Exit code 1 when something fails; what could merely be better does not count.
pub(crate) async fn carry_out(args: DoctorArgs) -> anyhow::Result<Code> {
    let (mut checks, config) = configuration(&args);
    let data_dir = config.as_ref().map(|config| config.data_dir.as_path());
    if let Some(data_dir) = data_dir {
        checks.extend(disk::check(data_dir));
    }
    checks.extend(machine::check());
    checks.extend(running::supervisor(data_dir.unwrap_or(Path::new("/nonexistent"))).await);
    let configured = config.as_ref().and_then(Server::of_config);
    let mut daemon = Running::at(&args.connect.client()?).await;
    if !daemon.answers()
        && let Some(server) = configured.filter(|server| *server != args.connect.server())
    {
        let there = Running::at(&args.connect.clone().at(server).client()?).await;
        if there.answers() {
            daemon = there;
        }
    }
    if let Some(config) = &config {
        checks.push(running::containers(config.container.as_ref(), &daemon).await);
    }
    checks.extend(daemon.checks());
    show(args.output, &checks)?;
    let failed = checks.iter().any(|check| check.verdict == Verdict::Fail);
    Ok(if failed { Code::PROBLEM } else { Code::DONE })
}

fn configuration(args: &DoctorArgs) -> (Vec<Check>, Option<Config>) {
    const SUBJECT: &str = "configuration";
    let settings = settings::resolve(&Sources {
        flags: &args.flags.0,
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
        "set tokens (`serve --token-file`), or listen on 127.0.0.1",
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
