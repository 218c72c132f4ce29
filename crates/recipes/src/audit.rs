//! `audit`: recomputes every hash of a run and walks both ledgers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use govern::audit::Evidence;
use govern::{Hash, Manifest};
use serde::Serialize;
use store::jsonl;

use crate::base::Base;
use crate::context::{Context, Silent};
use crate::error::Result;
use crate::governance::{base_artefacts, hash_file, joined, project_key, project_ledger, role_of};
use crate::runs;

/// What an audit found, over all runs looked at.
#[derive(Debug, Default, Serialize)]
pub struct AuditOutcome {
    /// Runs looked at.
    pub runs: usize,
    /// Files whose hash was compared.
    pub files: usize,
    /// Runs in which nothing was changed, as sentences.
    pub checked: Vec<String>,
    /// What was changed, as sentences.
    pub findings: Vec<String>,
    /// Remarks that are no evidence of a change.
    pub remarks: Vec<String>,
}

impl AuditOutcome {
    /// "1 run, 31 files: nothing was changed".
    pub fn sentence(&self) -> String {
        let found = match self.findings.len() {
            0 => "nothing was changed".to_owned(),
            1 => "1 change".to_owned(),
            n => format!("{n} changes"),
        };
        let plural = if self.runs == 1 { "" } else { "s" };
        format!("{} run{plural}, {} files: {found}", self.runs, self.files)
    }
}

/// Audits these runs. `head` is a head of the project's ledger known from elsewhere, such as a printed report.
pub fn audit(context: &Context<'_>, paths: &[PathBuf], head: Option<&str>) -> Result<AuditOutcome> {
    let known_head = head.map(str::parse::<Hash>).transpose()?;
    let mut outcome = AuditOutcome { runs: paths.len(), ..AuditOutcome::default() };
    let project = joined(&jsonl::read_lines(&project_ledger(context))?);
    for path in paths {
        let id = runs::id(path);
        let manifest = store::atomic::read_text(&path.join("manifest.json"), 1 << 30).ok();
        let found = found(context, path, manifest.as_deref())?;
        let run_ledger = joined(&jsonl::read_lines(&path.join("ledger.jsonl"))?);
        let audit = govern::audit::audit(&Evidence {
            run: &id,
            manifest: manifest.as_deref(),
            run_ledger: &run_ledger,
            project_ledger: &project,
            found: &found,
            known_head,
        });
        outcome.files += audit.files;
        if audit.is_intact() {
            outcome.checked.push(format!("{id}: {} files, {} ledger entries", audit.files, audit.run.entries));
        }
        outcome.findings.extend(audit.findings.iter().map(|finding| format!("{id}: {finding}")));
        outcome.remarks.extend(audit.remarks.iter().map(|remark| format!("{id}: {remark}")));
    }
    Ok(outcome)
}

/// The hashes of everything that is there, by the manifest's names.
fn found(context: &Context<'_>, path: &Path, manifest: Option<&str>) -> Result<BTreeMap<String, Hash>> {
    let mut found = BTreeMap::new();
    for name in store::tree::files_below(path)? {
        if role_of(&name).is_some() {
            found.insert(name.clone(), hash_file(&path.join(&name))?.hash);
        }
    }
    let folder = runs::sources_folder(path)?;
    if let Some(manifest) = manifest.and_then(|text| Manifest::from_json(text).ok()) {
        for name in manifest.artefacts.keys() {
            if let Some(source) = name.strip_prefix("source/")
                && let Ok(file) = hash_file(&folder.join(source))
            {
                found.insert(name.clone(), file.hash);
            }
        }
    }
    // A base that is not there any more, or a plan that cannot be read, is missing evidence, which the comparison reports.
    if let Ok(plan) = runs::plan(path)
        && let Ok(base) = Base::of_plan(context, &mut Silent, &plan, &folder, true)
    {
        found.extend(base_artefacts(&base)?.into_iter().map(|(name, artefact)| (name, artefact.hash)));
    }
    if let Ok(prepared) = crate::prepare::read(path) {
        found.insert("text/instruction".into(), project_key(context)?.hash(&prepared.instruction));
    }
    Ok(found)
}
