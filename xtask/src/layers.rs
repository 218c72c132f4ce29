//! The architecture as a test: crate edges, forbidden dependencies, licences, and files that introduce themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// The allowed edges between the project's crates (ARCHITECTURE.md, "Edges"). A new edge is a decision: add it
/// here and give its reason there.
const EDGES: &[(&str, &[&str])] = &[
    ("kernels", &[]),
    ("text", &[]),
    ("govern", &[]),
    ("store", &[]),
    ("engine", &["kernels"]),
    ("data", &["text"]),
    ("eval", &["text"]),
    ("families", &["engine"]),
    ("recipes", &["engine", "families", "data", "eval", "govern", "store", "text"]),
    ("tunesmith", &["recipes"]),
    ("testkit", &["engine", "kernels"]),
    ("xtask", &[]),
];

/// Crates that tests may use on top of their edges.
const TEST_ONLY: &[&str] = &["testkit"];

/// Checks all of it; the error names every violation.
pub(crate) fn check() -> Result<()> {
    let output = Command::new(env!("CARGO")).args(["metadata", "--format-version", "1", "--locked"]).output().context("cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata["packages"].as_array().context("packages in cargo metadata")?;
    let members: BTreeSet<&str> = metadata["workspace_members"].as_array().context("members")?.iter().filter_map(Value::as_str).collect();
    let mut violations = Vec::new();
    let is_member = |package: &Value| package["id"].as_str().is_some_and(|id| members.contains(id));
    let ours: BTreeSet<&str> = packages.iter().filter(|p| is_member(p)).filter_map(|p| p["name"].as_str()).collect();
    for package in packages.iter().filter(|p| is_member(p)) {
        edges(package, &ours, &mut violations);
    }
    deny(packages, &members, &mut violations)?;
    let root = metadata["workspace_root"].as_str().context("workspace root")?;
    for folder in ["crates", "xtask"] {
        introductions(&Path::new(root).join(folder), &mut violations)?;
    }
    if violations.is_empty() {
        println!("== layers: ok");
        return Ok(());
    }
    bail!("layers:\n  {}", violations.join("\n  "))
}

fn edges(package: &Value, ours: &BTreeSet<&str>, violations: &mut Vec<String>) {
    let name = package["name"].as_str().unwrap_or_default();
    let Some((_, allowed)) = EDGES.iter().find(|(from, _)| *from == name) else {
        violations.push(format!("crate {name} is not in the table of edges (xtask/src/layers.rs)"));
        return;
    };
    for dependency in package["dependencies"].as_array().into_iter().flatten() {
        let to = dependency["name"].as_str().unwrap_or_default();
        let for_tests = dependency["kind"].as_str() == Some("dev");
        if ours.contains(to) && !allowed.contains(&to) && !(for_tests && TEST_ONLY.contains(&to)) {
            violations.push(format!("{name} → {to}: no such edge in the design"));
        }
    }
}

/// The bans and licences of deny.toml, so that the check needs no further tool.
fn deny(packages: &[Value], members: &BTreeSet<&str>, violations: &mut Vec<String>) -> Result<()> {
    let deny: toml::Table = std::fs::read_to_string("deny.toml").context("deny.toml")?.parse()?;
    let list = |section: &str, key: &str| deny[section][key].as_array().cloned().unwrap_or_default();
    let allowed: BTreeSet<String> = list("licenses", "allow").iter().filter_map(|x| x.as_str().map(str::to_owned)).collect();
    // A ban with wrappers holds for all that depend on it but those.
    let wrapped = |name: &str, wrappers: &[Value]| {
        let uses = |p: &&Value| p["dependencies"].as_array().into_iter().flatten().any(|d| d["name"] == name && d["kind"].is_null());
        !wrappers.is_empty() && packages.iter().filter(uses).all(|p| wrappers.contains(&p["name"]))
    };
    let banned: BTreeMap<String, String> = list("bans", "deny")
        .iter()
        .filter_map(|x| {
            let name = x.get("name")?.as_str()?;
            let wrappers: Vec<Value> =
                x.get("wrappers").and_then(|w| w.as_array()).into_iter().flatten().filter_map(|w| w.as_str()).map(Value::from).collect();
            (!wrapped(name, &wrappers)).then(|| Some((name.to_owned(), x.get("reason")?.as_str()?.to_owned())))?
        })
        .collect();
    for package in packages.iter().filter(|p| p["id"].as_str().is_none_or(|id| !members.contains(id))) {
        let name = package["name"].as_str().unwrap_or_default();
        if let Some(reason) = banned.get(name) {
            violations.push(format!("dependency {name} is banned: {reason}"));
        }
        let licence = package["license"].as_str().unwrap_or("none stated");
        if !satisfied(licence, &allowed) {
            violations.push(format!("dependency {name}: licence {licence} is not in deny.toml"));
        }
    }
    Ok(())
}

/// Whether an SPDX expression can be met with the allowed licences: some alternative of the `OR`s, all of its `AND`s.
fn satisfied(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let flat = expression.replace(['(', ')'], " ").replace('/', " OR ");
    flat.split(" OR ").any(|alternative| alternative.split(" AND ").all(|licence| allowed.contains(licence.trim())))
}

/// Every source file opens with a `//!` sentence.
fn introductions(folder: &Path, violations: &mut Vec<String>) -> Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            introductions(&path, violations)?;
        } else if path.extension().is_some_and(|e| e == "rs") && !std::fs::read_to_string(&path)?.starts_with("//!") {
            violations.push(format!("{} does not introduce itself with a //! line", path.display()));
        }
    }
    Ok(())
}
