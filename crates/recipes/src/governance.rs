//! What a run leaves as evidence: its manifest, its ledger, and its lines in the project's ledger.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use govern::ledger::Ledger;
use govern::{Artefact, Event, Hash, Key, Manifest, Role};
use serde_json::{Value, json};
use store::{RunFolder, jsonl};

use crate::base::Base;
use crate::compute;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::evaluate::Arm;
use crate::report::facts::{DataFacts, Report, TrainingFacts};
use crate::spec::RunPlan;

/// Largest file that is hashed as a whole, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 36;
/// Where the key of short texts is kept, below `runs/`.
const KEY_FILE: &str = "runs/key";

/// The evidence of one run.
pub(crate) struct Governance<'a> {
    context: &'a Context<'a>,
    id: String,
}

impl<'a> Governance<'a> {
    /// Opens both ledgers' story with the plan.
    pub(crate) fn start(context: &'a Context<'a>, run: &RunFolder, plan: &RunPlan, id: &str) -> Result<Governance<'a>> {
        let governance = Governance { context, id: id.to_owned() };
        project_key(context)?;
        governance.both(run, &Event::RunStarted { run: id.to_owned(), plan: Hash::of_value(plan)? })?;
        Ok(governance)
    }

    /// The story of a run that is told more about, whoever works on it.
    pub(crate) fn of(context: &'a Context<'a>, id: &str) -> Governance<'a> {
        Governance { context, id: id.to_owned() }
    }

    /// Goes on with both ledgers.
    ///
    /// Killed before either knew of the run, it is told now.
    pub(crate) fn resume(context: &'a Context<'a>, run: &RunFolder, plan: &RunPlan, id: &str) -> Result<Governance<'a>> {
        if jsonl::read_lines(&run.file("ledger.jsonl"))?.is_empty() {
            return Governance::start(context, run, plan, id);
        }
        let governance = Governance { context, id: id.to_owned() };
        let project = joined(&jsonl::read_lines(&project_ledger(context))?);
        if !Ledger::Project.verify(&project).summary.runs.iter().any(|known| known == id) {
            let event = Event::RunStarted { run: id.to_owned(), plan: Hash::of_value(plan)? };
            append(&project_ledger(context), Ledger::Project, &context.clock.now(), &event)?;
        }
        if let Some(step) = store::checkpoint::last(run.path())? {
            let folder = store::checkpoint::folder(run.path(), step);
            let checkpoint = hash_file(&trained_file(&folder))?.hash;
            governance.both(run, &Event::Resumed { run: id.to_owned(), step, checkpoint })?;
        }
        Ok(governance)
    }

    /// Something left the project.
    pub(crate) fn exported(&self, run: &RunFolder, format: &str, artefact: Hash) -> Result<()> {
        self.both(run, &Event::Exported { run: self.id.clone(), format: format.to_owned(), artefact })
    }

    /// Records are there.
    pub(crate) fn prepared(&self, run: &RunFolder, facts: &DataFacts) -> Result<()> {
        let parts = [
            ("train", facts.train),
            ("validation", facts.validation),
            ("test", facts.test),
            ("near_ood", facts.near_ood),
            ("far_ood", facts.far_ood),
        ];
        let records = parts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
        let rejects = facts.rejected.iter().map(|(_, count)| count).sum();
        self.append(run, &Event::Prepared { run: self.id.clone(), records, rejects })
    }

    /// The adapter is there.
    pub(crate) fn trained(&self, run: &RunFolder, training: &TrainingFacts) -> Result<()> {
        let adapter = hash_file(&trained_file(&crate::runs::result(run.path())))?.hash;
        self.both(run, &Event::Trained { run: self.id.clone(), steps: training.steps.len() as u64, adapter })
    }

    /// The test set was looked at. Gives how many runs the project had, and how often this set was looked at, this time included.
    pub(crate) fn looked(&self, run: &RunFolder, arms: &[Arm]) -> Result<(u64, u64)> {
        let set = hash_file(&run.file("data/records/test.jsonl"))?.hash;
        let arms = arms.iter().map(|arm| format!("{}.{}", arm.result.name, arm.result.decode.name())).collect();
        self.both(run, &Event::TestSetLookedAt { run: self.id.clone(), set, arms })?;
        let lines = jsonl::read_lines(&project_ledger(self.context))?;
        let summary = Ledger::Project.verify(&joined(&lines)).summary;
        Ok((summary.runs.len() as u64, summary.looks.get(&set).map_or(0, |looks| looks.len() as u64)))
    }

    /// The gate was decided.
    pub(crate) fn decided(&self, run: &RunFolder, report: &Report) -> Result<()> {
        let Some(verdict) = &report.verdict else { return Ok(()) };
        let event = Event::VerdictGiven {
            run: self.id.clone(),
            verdict: verdict.word.clone(),
            metric: verdict.metric.clone(),
            compute_path: report.run.compute_path.clone(),
        };
        self.both(run, &event)
    }

    /// Writes `manifest.json` from what is in the run folder now; gives its hash and anchors the run's ledger.
    pub(crate) fn manifest(&self, run: &RunFolder, plan: &RunPlan, base: &Base, instruction: &str, facts: &DataFacts) -> Result<String> {
        let mut manifest = Manifest::new(
            &self.id,
            Hash::of_value(plan)?,
            plan.project.seed,
            compute::name(base.compute()),
            plan.tune.reduction_leaves as u32,
        );
        manifest.versions = versions();
        manifest.artefacts.extend(base_artefacts(base)?);
        let hash = project_key(self.context)?.hash(instruction);
        manifest.add("text/instruction", Artefact { role: Role::Records, hash, bytes: instruction.len() as u64 })?;
        for source in &facts.sources {
            let hash: Hash = source.hash.parse()?;
            manifest.add(format!("source/{}", source.path), Artefact { role: Role::Source, hash, bytes: source.bytes })?;
        }
        for name in store::tree::files_below(run.path())? {
            if let Some(role) = role_of(&name) {
                let file = hash_file(&run.file(&name))?;
                manifest.add(name, Artefact { role, ..file })?;
            }
        }
        let hash = manifest.hash()?;
        run.write("manifest.json", manifest.to_json()?.as_bytes())?;
        self.both(run, &Event::ManifestWritten { run: self.id.clone(), manifest: hash })?;
        Ok(hash.to_string())
    }

    /// A file that came into the run folder after its manifest, by the program's own hand, is listed in it too. A manifest that is not
    /// the recorded one is left as it is: what was changed would be signed anew.
    pub(crate) fn added(&self, run: &RunFolder, name: &str, role: Role) -> Result<()> {
        let Ok(text) = store::atomic::read_text(&run.file("manifest.json"), FILE_BYTES_MAX) else { return Ok(()) };
        let mut manifest = Manifest::from_json(&text)?;
        let recorded = events(run, &self.id)?.into_iter().rev().find_map(|event| match event {
            Event::ManifestWritten { manifest, .. } => Some(manifest),
            _ => None,
        });
        if recorded != Some(manifest.hash()?) {
            return Ok(());
        }
        manifest.replace(name, Artefact { role, ..hash_file(&run.file(name))? });
        let hash = manifest.hash()?;
        run.write("manifest.json", manifest.to_json()?.as_bytes())?;
        self.both(run, &Event::ManifestWritten { run: self.id.clone(), manifest: hash })
    }

    /// Head of the project's ledger: printed in the report, and worth keeping elsewhere (`tunesmith audit --head`).
    pub(crate) fn project_head(&self) -> Result<String> {
        let lines = jsonl::read_lines(&project_ledger(self.context))?;
        let head = Ledger::Project.verify(&joined(&lines)).summary.head;
        Ok(head.map(|head| head.to_string()).unwrap_or_default())
    }

    /// What goes into the adapter's sidecar.
    pub(crate) fn lineage(&self, plan: &RunPlan) -> Result<Value> {
        Ok(json!({ "run": self.id, "plan": Hash::of_value(plan)?.to_string(), "versions": versions() }))
    }

    /// A line in the run's ledger and in the project's.
    pub(crate) fn both(&self, run: &RunFolder, event: &Event) -> Result<()> {
        self.append(run, event)?;
        append(&project_ledger(self.context), Ledger::Project, &self.context.clock.now(), event)
    }

    /// A line in the run's ledger; the project's ledger learns its new head, so that a cut is found.
    fn append(&self, run: &RunFolder, event: &Event) -> Result<()> {
        append(&run.file("ledger.jsonl"), Ledger::Run(&self.id), &self.context.clock.now(), event)?;
        self.anchor(run)
    }

    fn anchor(&self, run: &RunFolder) -> Result<()> {
        let lines = jsonl::read_lines(&run.file("ledger.jsonl"))?;
        let summary = Ledger::Run(&self.id).verify(&joined(&lines)).summary;
        let Some(head) = summary.head else { return Ok(()) };
        let event = Event::RunAnchored { run: self.id.clone(), entries: summary.entries, head };
        append(&project_ledger(self.context), Ledger::Project, &self.context.clock.now(), &event)
    }
}

/// What a run's ledger says, in order.
pub(crate) fn events(run: &RunFolder, id: &str) -> Result<Vec<Event>> {
    let text = joined(&jsonl::read_lines(&run.file("ledger.jsonl"))?);
    Ok(Ledger::Run(id).verify(&text).entries.iter().filter_map(govern::Entry::event).collect())
}

/// Whether a reported run was closed: after its verdict, one manifest before the report and one with it. A run that
/// was killed in between is closed by whoever resumes it; one that was closed is never closed again over a change.
pub(crate) fn sealed(run: &RunFolder, id: &str) -> Result<bool> {
    let text = joined(&jsonl::read_lines(&run.file("ledger.jsonl"))?);
    let mut manifests = 0;
    for entry in Ledger::Run(id).verify(&text).entries {
        match entry.event() {
            Some(Event::VerdictGiven { .. }) => manifests = 0,
            Some(Event::ManifestWritten { .. }) => manifests += 1,
            _ => {}
        }
    }
    Ok(manifests >= 2)
}

/// A run goes on only as what it was: what it started from and what its last manifest lists must not have changed
/// since. Otherwise a gate moved after training, or answers made better, would be signed anew.
pub(crate) fn unchanged(run: &RunFolder, id: &str, plan: &RunPlan, base: &Base, base_at_start: &Value) -> Result<()> {
    let changed = |name: &str| Err(Error::Changed { name: name.to_owned(), id: id.to_owned() });
    let ledger = joined(&jsonl::read_lines(&run.file("ledger.jsonl"))?);
    let planned = Hash::of_value(plan)?;
    let started = Ledger::Run(id).verify(&ledger).entries.iter().find_map(|entry| match entry.event() {
        Some(Event::RunStarted { plan, .. }) => Some(plan),
        _ => None,
    });
    if started.is_some_and(|plan| plan != planned) {
        return changed("plan.toml");
    }
    let of_base = base_artefacts(base)?;
    if let Some((name, _)) =
        of_base.iter().find(|(name, now)| base_at_start[name].as_str().is_some_and(|hash| hash != now.hash.to_string()))
    {
        return changed(name);
    }
    let manifest = match store::atomic::read_text(&run.file("manifest.json"), FILE_BYTES_MAX) {
        Ok(text) => Manifest::from_json(&text)?,
        Err(store::StoreError::Missing { .. }) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    for (name, artefact) in &manifest.artefacts {
        let now = match artefact.role {
            Role::Source => continue, // read once; the records are what counts
            Role::Report if name.starts_with("report") => continue,
            Role::Base | Role::Tokenizer | Role::Template => of_base.get(name).map(|now| now.hash),
            _ if name.starts_with("text/") => continue,
            _ => hash_file(&run.path().join(name)).ok().map(|now| now.hash),
        };
        if now != Some(artefact.hash) {
            return changed(name);
        }
    }
    Ok(())
}

/// The hashes of a base, for `run.json`: what a run that goes on is held against.
pub(crate) fn base_facts(base: &Base) -> Result<Value> {
    Ok(base_artefacts(base)?
        .into_iter()
        .map(|(name, artefact)| (name, json!(artefact.hash.to_string())))
        .collect::<serde_json::Map<_, _>>()
        .into())
}

/// Where the ledger above all runs is.
pub(crate) fn project_ledger(context: &Context<'_>) -> PathBuf {
    store::run_folder::project_ledger(&context.workspace)
}

pub(crate) fn joined(lines: &[String]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

fn append(path: &Path, ledger: Ledger<'_>, now: &str, event: &Event) -> Result<()> {
    jsonl::append_after(path, |lines| {
        let appended = ledger.append(&joined(lines), now, event)?;
        Ok::<_, Error>(vec![appended.line.trim_end().to_owned()])
    })
}

/// The key with which short texts are hashed, made on first use: without it nobody can guess the text behind a hash.
pub(crate) fn project_key(context: &Context<'_>) -> Result<Key> {
    let path = context.workspace.join(KEY_FILE);
    if !path.exists() {
        store::atomic::create_folder(&context.workspace.join("runs"))?;
        // Two first runs at once agree on one key: who holds the ledger looks again.
        jsonl::append_after(&project_ledger(context), |_| {
            if !path.exists() {
                store::atomic::remove_leftovers(&path)?;
                store::atomic::write(&path, &context.entropy)?;
            }
            Ok::<_, Error>(Vec::new())
        })?;
    }
    Ok(Key::new(&store::atomic::read(&path, 1024)?)?)
}

/// Hash and size of a file; the role is the caller's to set.
pub(crate) fn hash_file(path: &Path) -> Result<Artefact> {
    let bytes = store::atomic::read(path, FILE_BYTES_MAX)?;
    Ok(Artefact { role: Role::Records, hash: Hash::of(&bytes), bytes: bytes.len() as u64 })
}

/// Files, tokenizer and template of a base.
pub(crate) fn base_artefacts(base: &Base) -> Result<BTreeMap<String, Artefact>> {
    let mut artefacts = BTreeMap::new();
    for file in &base.hashes {
        let hash: Hash = format!("sha256:{}", file.sha256).parse()?;
        artefacts.insert(format!("base/{}", file.name), Artefact { role: Role::Base, hash, bytes: file.bytes });
    }
    let tokenizer = base.tokenizer()?.canonical_bytes();
    artefacts
        .insert("text/tokenizer".into(), Artefact { role: Role::Tokenizer, hash: Hash::of(&tokenizer), bytes: tokenizer.len() as u64 });
    if let Some(chat) = base.template()? {
        let template = chat.template().canonical_bytes();
        artefacts
            .insert("text/template".into(), Artefact { role: Role::Template, hash: Hash::of(&template), bytes: template.len() as u64 });
    }
    Ok(artefacts)
}

/// The weights in a checkpoint or in what a run trained: the adapter's, or the model's.
fn trained_file(folder: &Path) -> PathBuf {
    let model = folder.join("model.safetensors");
    if model.exists() { model } else { folder.join("adapter_model.safetensors") }
}

/// The part a file of a run folder plays; `None` for what is not evidence (locks, checkpoints that come and go).
pub(crate) fn role_of(name: &str) -> Option<Role> {
    Some(match name {
        "plan.toml" | "tunesmith.toml" => Role::Plan,
        "metrics.jsonl" | "training.json" => Role::Metrics,
        "report.json" | "report.html" => Role::Report,
        _ if name.starts_with("data/") => Role::Records,
        // What was trained: the adapter, or the model itself.
        _ if name.starts_with("adapter/") || name.starts_with("model/") => Role::Adapter,
        _ if name.starts_with("evaluation/") => Role::Report,
        _ => return None,
    })
}

fn versions() -> BTreeMap<String, String> {
    let own = |name: &str, version: &str| (name.to_owned(), version.to_owned());
    BTreeMap::from([
        own("tunesmith", env!("CARGO_PKG_VERSION")),
        own("report", &crate::report::facts::FORMAT.to_string()),
        own("manifest", &govern::manifest::FORMAT.to_string()),
    ])
}
