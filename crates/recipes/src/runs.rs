//! `runs`: finding, listing and showing what is in the folder of runs.

use std::path::{Path, PathBuf};

use serde::Serialize;
use store::RunFolder;

use crate::context::Context;
use crate::error::{Error, Result};
use crate::report::facts::Report;
use crate::spec::RunPlan;
use crate::tune_full::MODEL_FOLDER;

/// How far a run has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Only the plan.
    Planned,
    /// Records are made.
    Prepared,
    /// Some checkpoint, no adapter yet.
    Tuning,
    /// The adapter is there.
    Tuned,
    /// The report is there.
    Reported,
}

impl Stage {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Planned => "planned",
            Stage::Prepared => "prepared",
            Stage::Tuning => "tuning, interrupted",
            Stage::Tuned => "tuned",
            Stage::Reported => "reported",
        }
    }
}

/// A run in the list.
#[derive(Clone, Debug, Serialize)]
pub struct RunSummary {
    /// Project name.
    pub name: String,
    /// Run id.
    pub id: String,
    /// Its folder.
    pub path: PathBuf,
    /// How far it is.
    pub stage: Stage,
    /// Process that works on it now.
    pub locked_by: Option<u32>,
    /// The verdict's word, once there is one.
    pub verdict: Option<String>,
    /// Tuned score by the run's metric, once measured.
    pub score: Option<f64>,
    /// The metric's name, once measured.
    pub metric: Option<String>,
}

/// What a run trained: its adapter, or the model of full fine-tuning.
pub fn result(path: &Path) -> PathBuf {
    let model = path.join(MODEL_FOLDER);
    if model.exists() { model } else { path.join("adapter") }
}

/// The stage of a run folder, from the files that are there.
pub fn stage(path: &Path) -> Stage {
    let there = |name: &str| path.join(name).exists();
    if there("report.json") {
        Stage::Reported
    } else if there("training.json") {
        Stage::Tuned
    } else if there("checkpoints") {
        Stage::Tuning
    } else if there("data/prepared.json") {
        Stage::Prepared
    } else {
        Stage::Planned
    }
}

/// All runs, newest first.
pub fn list(context: &Context<'_>) -> Result<Vec<RunSummary>> {
    let mut runs = Vec::new();
    for entry in RunFolder::list(&context.workspace)? {
        let report = report(&entry.path).ok();
        let tuned = report.as_ref().and_then(|report| report.arms.iter().find(|arm| arm.name == "tuned"));
        runs.push(RunSummary {
            stage: stage(&entry.path),
            verdict: report.as_ref().and_then(|report| report.verdict.as_ref()).map(|verdict| verdict.word.clone()),
            score: tuned.map(|arm| arm.score),
            metric: report.as_ref().and_then(|report| report.verdict.as_ref()).map(|verdict| verdict.metric.clone()),
            name: entry.name,
            id: entry.id,
            path: entry.path,
            locked_by: entry.locked_by,
        });
    }
    runs.sort_by(|a, b| b.id.cmp(&a.id).then_with(|| a.name.cmp(&b.name)));
    Ok(runs)
}

/// The folder of a run: by path, by id, or by the beginning of an id.
pub fn find(context: &Context<'_>, given: &str) -> Result<PathBuf> {
    let path = Path::new(given);
    if path.join("plan.toml").is_file() {
        return Ok(path.to_owned());
    }
    let runs = RunFolder::list(&context.workspace)?;
    if let Some(exact) = runs.iter().find(|run| run.id == given) {
        return Ok(exact.path.clone());
    }
    let matching: Vec<_> = runs.iter().filter(|run| !given.is_empty() && run.id.starts_with(given)).collect();
    match matching.as_slice() {
        [one] => Ok(one.path.clone()),
        [] => Err(Error::NoRun { given: given.to_owned(), path: context.workspace.join("runs") }),
        many => {
            let names: Vec<&str> = many.iter().map(|run| run.id.as_str()).take(4).collect();
            Err(Error::ManyRuns { given: given.to_owned(), count: many.len(), names: names.join(", ") })
        }
    }
}

/// The plan of a run.
pub fn plan(run: &Path) -> Result<RunPlan> {
    let path = run.join("plan.toml");
    let text = store::atomic::read_text(&path, 1 << 22)?;
    toml::from_str(&text).map_err(|error| Error::Corrupt { what: "the plan", reason: error.message().to_owned(), path })
}

/// The folder of the run file that a run was started from.
pub fn sources_folder(run: &Path) -> Result<PathBuf> {
    let facts = store::atomic::read_json(&run.join("run.json"), 1 << 20)?;
    Ok(PathBuf::from(facts["sources_from"].as_str().unwrap_or_default()))
}

/// The report of a run.
pub fn report(run: &Path) -> Result<Report> {
    let path = run.join("report.json");
    if !path.exists() {
        return Err(Error::NotYet { id: id(run), what: "report" });
    }
    let value = store::atomic::read_json(&path, 1 << 32)?;
    serde_json::from_value(value).map_err(|error| Error::Corrupt { what: "the report", reason: error.to_string(), path })
}

/// The id of a run folder.
pub fn id(run: &Path) -> String {
    run.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
