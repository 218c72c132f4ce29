//! The sources that the plan names: surveyed, and told about.

use std::collections::BTreeSet;
use std::path::Path;

use data::derive::{Length, derived};
use data::pipeline::SourceReport;
use data::{ColumnKind, Item};

use super::{LABEL_CHARS_MAX, LABELS_MAX, recipe, role_name};
use crate::error::{Error, Result};
use crate::report::facts::SourceFacts;
use crate::source_files::{self, Opened};
use crate::spec::{Role, RunPlan, Source};

/// Values of a field are listed in the instruction up to here; longer lists are learned, not read.
const LISTED_VALUES_MAX: usize = 15;

/// What the report says of a source once it was read.
pub(super) fn facts(opened: &Opened, source: &Source, report: &SourceReport) -> SourceFacts {
    SourceFacts {
        path: source.path.display().to_string(),
        shape: source_files::described(&opened.reader),
        hash: format!("blake3:{}", opened.hash),
        bytes: opened.bytes,
        rows: report.rows,
        role: role_name(source.role).to_owned(),
        owner: source.owner.clone(),
        licence: source.licence.clone(),
        lawful_basis: source.lawful_basis.clone(),
        keep_until: source.keep_until.clone(),
        date: source.date.clone(),
    }
}

/// The rows of a source: its documents, or what is made of them.
pub(super) fn items<'a>(opened: &'a mut Opened, source: &Source, length: Length<'a>) -> Box<dyn Iterator<Item = Result<Item>> + Send + 'a> {
    let items = opened.reader.by_ref().map(|item| item.map_err(Error::from));
    match source.derive() {
        Some(derive) => derived(items, derive, length),
        None => Box::new(items),
    }
}

/// What has to be known of a source before its first record is made.
pub(super) struct Survey {
    /// How its target columns are typed.
    pub(super) kinds: Vec<(String, ColumnKind)>,
    /// Whether its values have types, as far as that matters.
    pub(super) typed: bool,
    /// Its answers: of each field the distinct values, where there are few. Empty if they say nothing about the task.
    answers: Vec<(String, Option<BTreeSet<String>>)>,
}

impl Survey {
    /// Reads as much of the source as is needed; often nothing.
    pub(super) fn of(source: &Source, plan: &RunPlan, folder: &Path) -> Result<Self> {
        let recipe = recipe(source, plan, String::new());
        // What is made of documents is text, and so is what a template says.
        if plan.is_text() || source.derive().is_some() || recipe.target.iter().any(|target| target.contains('{')) {
            return Ok(Self { kinds: Vec::new(), typed: true, answers: Vec::new() });
        }
        let asked = plan.instruction.is_empty() && matches!(source.role, Role::Split | Role::Train);
        if recipe.target.is_empty() || (!asked && recipe.target.len() == 1) {
            return Ok(Self { kinds: Vec::new(), typed: true, answers: Vec::new() });
        }
        let mut reader = source_files::open(source, folder)?.reader;
        let mut survey = data::Survey::new(&recipe, LABELS_MAX, LABEL_CHARS_MAX);
        while survey.open() {
            match reader.next().transpose()? {
                Some(Item::Document(document)) => survey.see(&document, reader.is_typed()),
                Some(Item::Rejected(_)) => {}
                None => break,
            }
        }
        let answers = if asked { survey.values() } else { Vec::new() };
        Ok(Self { kinds: survey.kinds(), typed: survey.is_typed(), answers })
    }
}

/// "Read the message and answer with one JSON object with the fields …": from the answers alone.
pub(super) fn default_instruction(surveys: &[Survey]) -> String {
    let answers: Vec<_> = surveys.iter().map(|survey| &survey.answers).filter(|answers| !answers.is_empty()).collect();
    let Some(first) = answers.first() else { return String::new() };
    // All sources' values of a field; none where one source has too many.
    let values = |name: &str| -> Option<BTreeSet<String>> {
        let of = answers.iter().flat_map(|answers| answers.iter()).filter(|(field, _)| field == name);
        let all: Vec<BTreeSet<String>> = of.map(|(_, values)| values.clone()).collect::<Option<_>>()?;
        Some(all.into_iter().flatten().collect())
    };
    let listed = |values: Option<BTreeSet<String>>| {
        values.filter(|values| values.len() <= LISTED_VALUES_MAX).map(|values| values.into_iter().collect::<Vec<_>>().join(", "))
    };
    if let [(name, _)] = first.as_slice() {
        let labels = values(name).filter(|labels| !labels.is_empty() && labels.len() <= LABELS_MAX);
        return match (labels.is_some(), listed(labels)) {
            (false, _) => String::new(),
            (true, None) => "Classify the message. Answer with the label only.".into(),
            (true, Some(listed)) => format!("Classify the message. Answer with one of: {listed}."),
        };
    }
    let described: Vec<String> =
        first.iter().map(|(name, _)| listed(values(name)).map_or_else(|| name.clone(), |listed| format!("{name} ({listed})"))).collect();
    format!("Read the message and answer with one JSON object with the fields {}.", described.join(", "))
}
