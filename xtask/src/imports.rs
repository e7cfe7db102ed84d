//! Who may import whom. Adding a line here is the change to talk about first.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail};
use cargo_metadata::{DependencyKind, MetadataCommand};

use crate::shell::root;

/// Each crate of the house, and which others it may import.
const MAY_IMPORT: [(&str, &[&str]); 13] = [
    ("model", &[]),
    ("native", &[]),
    ("capability", &["model"]),
    ("control", &["model"]),
    ("queue", &["model"]),
    ("store", &["control", "queue", "model"]),
    ("worker", &["control", "queue", "model"]),
    ("engine", &["control", "capability", "model"]),
    ("supervisor", &["native", "capability", "model"]),
    ("cri", &["capability", "model"]),
    ("package", &["model"]),
    ("api", &["control", "queue", "model"]),
    (
        "daemon",
        &[
            "api",
            "control",
            "queue",
            "worker",
            "store",
            "engine",
            "supervisor",
            "cri",
            "package",
            "capability",
            "model",
        ],
    ),
];

/// Compares the table with what cargo knows. Dependencies of tests do not count.
pub(crate) fn check() -> Result<()> {
    let metadata = MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .no_deps()
        .exec()?;
    let table: BTreeMap<&str, BTreeSet<&str>> = MAY_IMPORT
        .iter()
        .map(|(name, may)| (*name, may.iter().copied().collect()))
        .collect();
    let mut faults = Vec::new();
    for package in &metadata.packages {
        let Some(name) = house_name(&package.name) else {
            continue;
        };
        let Some(may) = table.get(name) else {
            faults.push(format!("host/{name} is not in the import table"));
            continue;
        };
        for dependency in &package.dependencies {
            let normal = dependency.kind == DependencyKind::Normal;
            let Some(imported) = house_name(&dependency.name).filter(|_| normal) else {
                continue;
            };
            if !may.contains(imported) {
                faults.push(format!(
                    "{name} imports {imported}, which the table does not allow"
                ));
            }
        }
    }
    if faults.is_empty() {
        return Ok(());
    }
    bail!(
        "imports against the house (xtask/src/imports.rs):\n  {}",
        faults.join("\n  ")
    )
}

/// A crate of `host/` by its short name; `None` for tools and tests.
fn house_name(package: &str) -> Option<&str> {
    match package {
        "taskwright" => Some("daemon"),
        "taskwright-tests"
        | "taskwright-test-guests"
        | "taskwright-test-containerd"
        | "taskwright-test-postgres"
        | "taskwright-guest-build" => None,
        other => other.strip_prefix("taskwright-"),
    }
}
