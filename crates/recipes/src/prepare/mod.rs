//! `prepare`: from the sources named in the plan to training records and held-out sets, with a reason for
//! every row that was dropped.

mod apart;
mod augment;
mod datasheet;
mod diff;
mod files;
mod labels;
mod sources;
mod why;

use std::collections::{BTreeSet, HashSet};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use data::clean::{Clean, Outdated, Secrets};
use data::derive::Length;
use data::near::{Nearness, Shingles};
use data::pipeline::{Check, Finished, NearPolicy, Outside, Passages, Pipeline, SourcePlan, Steps, Versions};
use data::split::Portion;
use data::steps::Policy;
use data::{Answer, HeldOut, Part, Record, RecordRecipe, SourceRole, Split, SplitPlan, SplitReport, TrainRows, TrainSet};
use eval::Task;
use serde::{Deserialize, Serialize};
use text::{LossOn as TextLossOn, Specials};

pub use diff::{Diff, Named, diff};
pub use files::read;
pub(crate) use files::{each_record, suspects};
pub use why::{Why, why};

use crate::base::Base;
use crate::context::{Context, Event, Observer};
use crate::error::{Error, Result};
use crate::rendering::Rendering;
use crate::report::facts::{DataFacts, NearFacts, OverlapFacts, PassageFacts};
use crate::source_files;
use crate::spec::{BalanceBy, Found, LossOn, Near, Role, RunPlan, Source, Unit};
use sources::Survey;

/// More distinct answers than this are free text, not labels.
const LABELS_MAX: usize = 200;
/// A label longer than this, in characters, is a text.
const LABEL_CHARS_MAX: usize = 80;
/// A stratum so many times as frequent as another is worth a warning.
const SKEW: f64 = 5.0;
/// Largest list of words, in bytes.
const WORDS_BYTES_MAX: u64 = 16 << 20;
/// Training records that the report shows.
const EXAMPLES: usize = 3;
/// Characters of their texts that it shows.
const EXAMPLE_CHARS_MAX: usize = 400;
/// Shortest beginning that records share as one run, in tokens.
pub(crate) const SHARED_MIN: usize = 8;

/// Records, split, with the story of how they came about.
pub struct Prepared {
    /// System message of every record.
    pub instruction: String,
    /// What kind of answers are wanted.
    pub task: Task,
    /// Train and held-out records.
    pub split: Split,
    /// The facts for plan and report.
    pub facts: DataFacts,
}

/// The records outside memory, and what was dropped and why: [`Story::load`] brings the records in, [`Story::write`]
/// puts everything into a run folder.
pub struct Story {
    finished: Mutex<Finished>,
    /// System message of every record.
    pub instruction: String,
    /// The facts for plan and report.
    pub facts: DataFacts,
    plan: RunPlan,
    making: Vec<Making>,
}

/// How a source's records were made, as far as that depends on its rows: with it, each can be made again.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Making {
    /// Its columns.
    columns: Vec<String>,
    /// Whether its values have types.
    typed: bool,
    /// Target columns and the names of their kinds.
    kinds: Vec<(String, String)>,
}

/// Scratch files of the pipeline, in a folder of the workspace.
struct Scratch<'a>(&'a Path);

impl data::Spill for Scratch<'_> {
    fn create(&self) -> std::io::Result<Box<dyn data::SpillFile>> {
        Ok(Box::new(store::scratch::Scratch::new(self.0)))
    }
}

/// Reads the sources and decides about every row, in memory that hardly grows with them. `folder` is the run file's.
/// Nothing is written but scratch files that leave nothing behind.
pub fn stream(context: &Context<'_>, plan: &RunPlan, folder: &Path, base: &Base, observer: &mut dyn Observer) -> Result<Story> {
    let rendering = Rendering::of(plan, base)?;
    let limit = plan.prepare.max_tokens.min(base.config().context);
    let check = |record: &Record| -> Result<Option<(&'static str, data::Reason)>> {
        let given = rendering.row(record)?.ids.len();
        Ok((given > limit).then_some(("length", data::Reason::TooLong { given, limit, unit: "tokens" })))
    };
    // A text that the tokenizer refuses is told so when its record is rendered.
    let tokens = |text: &str| rendering.tokenizer().encode(text, Specials::AsText).map_or(usize::MAX, |ids| ids.len());
    stream_checked(context, plan, folder, &check, &tokens, observer)
}

/// The same with another look at each record than at its length in tokens, and another measure for chunks.
pub(crate) fn stream_checked(
    context: &Context<'_>,
    plan: &RunPlan,
    folder: &Path,
    check: &Check<'_, Error>,
    length: Length<'_>,
    observer: &mut dyn Observer,
) -> Result<Story> {
    let mut facts = DataFacts { stratify: plan.prepare.stratify.clone(), ..DataFacts::default() };
    let surveys = plan.sources.iter().map(|source| Survey::of(source, plan, folder)).collect::<Result<Vec<_>>>()?;
    let instruction = match plan.instruction.as_str() {
        _ if plan.is_text() => String::new(),
        "" => sources::default_instruction(&surveys),
        given => given.to_owned(),
    };
    let runs = context.workspace.join("runs");
    let spill = Scratch(&runs);
    // Where the test has sources of its own, validation still comes out of the training sources.
    let split_whole = !plan.sources.iter().any(|source| source.role == Role::Split);
    let mut pipeline = Pipeline::new(steps(plan, folder, split_whole)?, check, &spill, context.threads)?;
    let mut making = Vec::new();
    for (source, survey) in plan.sources.iter().zip(&surveys) {
        let mut opened = source_files::open(source, folder)?;
        let recipe = recipe(source, plan, instruction.clone());
        let name = source.path.display().to_string();
        let taken = SourcePlan {
            source: &name,
            recipe: &recipe,
            kinds: &survey.kinds,
            typed: survey.typed,
            role: source_role(source.role, split_whole),
            limit: source.limit,
            limit_per_class: source.limit_per_class,
            versions: (!source.make.version_of.is_empty()).then(|| Versions { of: &source.make.version_of, version: &source.make.version }),
        };
        let report = pipeline.source(&taken, sources::items(&mut opened, source, length))?;
        opened.unchanged(source, folder)?;
        facts.rows += report.rows;
        facts.sources.push(sources::facts(&opened, source, &report));
        let kinds = survey.kinds.iter().map(|(name, kind)| (name.clone(), kind.name().to_owned())).collect();
        making.push(Making { columns: report.columns, typed: taken.typed, kinds });
    }
    if let Some(reasons) = pipeline.nothing_left() {
        return Err(Error::NoRecords { rows: facts.rows, reasons });
    }
    let mut finished = pipeline.finish()?;
    apart::look(plan, folder, &mut finished, &mut facts)?;
    if !plan.prepare.near_ood.column.is_empty() && finished.count(Part::NearOod) == 0 {
        facts.warnings.push(format!("no row is near out of distribution by {}", plan.prepare.near_ood.column));
    }
    if plan.prepare.label_errors != Found::Ignore {
        labels::look(plan, &mut finished, &mut facts, observer)?;
    }
    warn_of_skew(plan, &finished, &mut facts);
    if plan.prepare.balance > 0.0 && plan.prepare.balance_by == BalanceBy::Sampling {
        finished.balance(plan.prepare.balance)?;
    }
    augment::look(plan, folder, &mut finished, &spill, &mut facts)?;
    if plan.prepare.balance > 0.0 && plan.prepare.balance_by == BalanceBy::Weights {
        finished.balance_by_weights(plan.prepare.balance);
    }
    tell_weights(plan, &finished, &mut facts);
    count(&mut facts, &finished, plan.prepare.near_duplicates != Near::Drop);
    let shown = |text: &str| text.chars().take(EXAMPLE_CHARS_MAX).collect::<String>();
    facts.examples =
        finished.first(Part::Train, EXAMPLES)?.iter().map(|record| (shown(&record.asked()), shown(&record.answer.to_text()))).collect();
    for warning in &facts.warnings {
        observer.event(Event::Warning(warning.clone()));
    }
    Ok(Story { finished: Mutex::new(finished), instruction, facts, plan: plan.clone(), making })
}

/// Says how much records count, where they do not all count the same.
fn tell_weights(plan: &RunPlan, finished: &Finished, facts: &mut DataFacts) {
    facts.weights = finished.weights().map(|(least, most)| (f64::from(least), f64::from(most)));
    if facts.weights.is_some() && plan.tune.batch == 1 {
        let why = "a step's loss is divided by the weights of its records, and with [tune] batch = 1 there is one";
        facts.warnings.push(format!("weights change nothing: {why}"));
    }
}

/// Says which strata of training are rare beside the others, unless they are to be balanced.
fn warn_of_skew(plan: &RunPlan, finished: &Finished, facts: &mut DataFacts) {
    let short = |(name, _): &(String, u64)| name.chars().count() <= LABEL_CHARS_MAX;
    let strata: Vec<(String, u64)> = finished.strata().into_iter().map(|(name, train, ..)| (name, train)).filter(short).collect();
    let most = strata.iter().max_by_key(|(_, count)| *count);
    let least = strata.iter().min_by_key(|(_, count)| *count);
    let (Some((often, most)), Some((rarely, least))) = (most, least) else { return };
    let ratio = *most as f64 / (*least).max(1) as f64;
    if ratio >= SKEW && (plan.prepare.balance == 0.0 || ratio > plan.prepare.balance) {
        let advice = match plan.prepare.balance {
            0.0 => "[prepare] balance would even it out".to_owned(),
            ratio => format!("balanced to {ratio} to 1"),
        };
        facts.warnings.push(format!("training is skewed: {often} has {most} records, {rarely} has {least} ({ratio:.1} to 1); {advice}"));
    }
}

/// What the plan says about the records as a set.
fn steps(plan: &RunPlan, folder: &Path, split_whole: bool) -> Result<Steps> {
    let policy = |drop| if drop { Policy::Drop } else { Policy::Keep };
    let prepare = &plan.prepare;
    let shingles = match prepare.shingle.unit {
        Unit::Words => Shingles::Words(prepare.shingle.count),
        Unit::Characters => Shingles::Characters(prepare.shingle.count),
    };
    let near = match prepare.near_duplicates {
        Near::Ignore => None,
        Near::Report => Some(NearPolicy::Report),
        Near::Together => Some(NearPolicy::Together),
        Near::Drop => Some(NearPolicy::Drop),
    };
    let words = match prepare.words.as_os_str().is_empty() {
        true => HashSet::new(),
        false => words(&store::atomic::read_text(&folder.join(&prepare.words), WORDS_BYTES_MAX)?),
    };
    let found = |found| match found {
        Found::Ignore => None,
        Found::Drop => Some(Policy::Drop),
        Found::Report | Found::Mask => Some(Policy::Keep),
    };
    let clean = Clean {
        normalise: prepare.normalise,
        languages: prepare.languages.iter().filter(|code| *code != "any").cloned().collect(),
        tell_language: !prepare.languages.is_empty(),
        quality: found(prepare.quality),
        incomplete: found(prepare.incomplete),
        secrets: match prepare.secrets {
            Found::Ignore => None,
            Found::Report => Some(Secrets::Report),
            Found::Mask => Some(Secrets::Mask),
            Found::Drop => Some(Secrets::Drop),
        },
        words_policy: if words.is_empty() { None } else { found(prepare.words_policy) },
        words,
        forms: prepare.forms.step(),
    };
    let outdated = (!prepare.valid_until.is_empty()).then(|| Outdated {
        column: prepare.valid_until.clone(),
        before: prepare.as_of.clone(),
        policy: Policy::Drop,
    });
    Ok(Steps {
        clean,
        outdated,
        minimise: prepare.minimise,
        duplicates: policy(prepare.drop_duplicates),
        conflicts: policy(prepare.drop_conflicts),
        near: near.map(|policy| (Nearness { shingles, jaccard: prepare.near_jaccard }, policy)),
        passages: found(prepare.apart.passages).map(|policy| Passages { words: prepare.apart.passage_words, policy }),
        near_ood: (!prepare.near_ood.column.is_empty()).then(|| Outside {
            column: prepare.near_ood.column.clone(),
            from: (!prepare.near_ood.from.is_empty()).then(|| prepare.near_ood.from.clone()),
            values: prepare.near_ood.values.clone(),
        }),
        split: SplitPlan {
            seed: plan.project.seed,
            test: Portion::Fraction(if split_whole { 0.0 } else { prepare.test }),
            validation: Portion::Fraction(prepare.validation),
            train_per_stratum: None,
        },
    })
}

/// A word or phrase a line, as texts are compared: without case and punctuation.
fn words(text: &str) -> HashSet<String> {
    text.lines().map(data::near::fold).filter(|word| !word.is_empty()).collect()
}

/// The records of a plan, in memory. Nothing is written: [`Story::write`] does.
pub fn prepare(
    context: &Context<'_>,
    plan: &RunPlan,
    folder: &Path,
    base: &Base,
    observer: &mut dyn Observer,
) -> Result<(Prepared, Story)> {
    let story = stream(context, plan, folder, base, observer)?;
    let prepared = story.load(plan, observer)?;
    Ok((prepared, story))
}

impl Story {
    /// The records and decisions, for one caller at a time.
    pub(crate) fn finished(&self) -> MutexGuard<'_, Finished> {
        self.finished.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Brings the records into memory.
    pub fn load(&self, plan: &RunPlan, observer: &mut dyn Observer) -> Result<Prepared> {
        let mut train = Vec::new();
        let mut held_out = HeldOut::default();
        let mut finished = self.finished();
        finished.records(|part, line| {
            let record = data::wire::read_record(line).map_err(|problem| data::DataError::Spill { problem })?;
            match part {
                Part::Train => train.push(record),
                Part::Validation => held_out.validation.push(record),
                Part::Test => held_out.in_domain.push(record),
                Part::NearOod => held_out.near_ood.push(record),
                Part::FarOod => held_out.far_ood.push(record),
            }
            Ok::<(), Error>(())
        })?;
        let task = if plan.is_text() { Task::Text } else { task_of(originals(&train)) };
        let split = Split { report: finished.report.clone(), ..Split::assemble(train, held_out)? };
        let split = if plan.prepare.shuffle_targets {
            observer.event(Event::Warning("negative control: the training targets are dealt out at random".into()));
            Split { train: split.train.with_shuffled_answers(plan.project.seed), ..split }
        } else {
            split
        };
        Ok(Prepared { instruction: self.instruction.clone(), task, split, facts: self.facts.clone() })
    }
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Split => "split",
        Role::Train => "train",
        Role::Test => "test",
        Role::NearOod => "near_ood",
        Role::FarOod => "far_ood",
    }
}

fn source_role(role: Role, split_whole: bool) -> SourceRole {
    match role {
        Role::Train if split_whole => SourceRole::Split,
        Role::Split => SourceRole::Split,
        Role::Train => SourceRole::Train,
        Role::Test => SourceRole::Test,
        Role::NearOod => SourceRole::NearOod,
        Role::FarOod => SourceRole::FarOod,
    }
}

fn recipe(source: &Source, plan: &RunPlan, instruction: String) -> RecordRecipe {
    let given = |text: &String| (!text.is_empty()).then(|| text.clone());
    RecordRecipe {
        input: given(&source.input),
        plain: plan.is_text(),
        target: source.target.clone(),
        instruction: (!instruction.is_empty()).then_some(instruction),
        group: given(&source.group),
        stratify: given(&plan.prepare.stratify),
        id: given(&source.id),
        weight: given(&source.weight),
    }
}

/// The training records that are no augmented copies, which come last.
pub(crate) fn originals(records: &[Record]) -> &[Record] {
    &records[..records.iter().take_while(|record| record.lineage.change.is_none()).count()]
}

pub(crate) fn text_loss_on(loss_on: LossOn) -> TextLossOn {
    match loss_on {
        LossOn::All => TextLossOn::All,
        LossOn::Last => TextLossOn::Last,
        LossOn::Weighted => TextLossOn::Weighted,
    }
}

/// The kind of task, from the answers of the records that train.
pub(crate) fn task_of(records: &[Record]) -> Task {
    if let Some(Answer::Fields(fields)) = records.first().map(|record| &record.answer) {
        return Task::Structured { fields: fields.iter().map(|(name, _)| name.clone()).collect() };
    }
    let labels: BTreeSet<String> = records.iter().map(|record| record.answer.to_text()).collect();
    let short = labels.iter().all(|label| label.chars().count() <= LABEL_CHARS_MAX);
    if short && labels.len() <= LABELS_MAX && labels.len() * 2 <= records.len() {
        Task::Classification { labels: labels.into_iter().collect() }
    } else {
        Task::FreeText
    }
}

fn count(facts: &mut DataFacts, finished: &Finished, near_kept: bool) {
    facts.rejected = finished.rejected().map(|(step, reason, count)| (format!("{step}: {reason}"), count)).collect();
    facts.train = finished.count(Part::Train);
    facts.validation = finished.count(Part::Validation);
    facts.test = finished.count(Part::Test);
    facts.lengths = finished.lengths();
    facts.near_ood = finished.count(Part::NearOod);
    facts.far_ood = finished.count(Part::FarOod);
    facts.records = facts.train + facts.validation + facts.test + facts.near_ood + facts.far_ood;
    let report: &SplitReport = &finished.report;
    facts.strata = finished.strata();
    if facts.strata.is_empty() {
        facts.stratify.clear();
    }
    facts.naive_split_leaks = report.naive_leaked as u64;
    facts.naive_leaks = [
        ("a group", report.naive_leaked_groups),
        ("the same text", report.naive_leaked_texts),
        ("a near-duplicate", report.naive_leaked_near - report.naive_leaked_texts),
    ]
    .into_iter()
    .filter(|(_, count)| *count > 0)
    .map(|(what, count)| (what.to_owned(), count as u64))
    .collect();
    facts.conflicts = finished.conflicts;
    for ((step, what), count) in &finished.findings {
        match *step {
            "language" => facts.languages.push((what.clone(), *count)),
            step => facts.findings.push((format!("{step}: {what}"), *count)),
        }
    }
    facts.languages.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
    let secrets: Vec<String> =
        facts.findings.iter().filter_map(|(what, count)| Some(format!("{} ({count})", what.strip_prefix("secrets: ")?))).collect();
    if !secrets.is_empty() {
        let advice = "[prepare] secrets = \"mask\" or \"drop\" takes them out";
        facts.warnings.push(format!("records with secrets in them: {}; {advice}", secrets.join(", ")));
    }
    let near = &finished.near;
    facts.near = NearFacts { clusters: near.clusters, records: near.records, largest: near.largest, examples: near.examples.clone() };
    facts.passages = PassageFacts { records: finished.passages.records, examples: finished.passages.examples.clone() };
    let overlap = |overlap: &data::Overlap| OverlapFacts {
        part: overlap.part.name().to_owned(),
        texts: overlap.texts as u64,
        contradictory: overlap.contradictory as u64,
        near: overlap.near as u64,
        near_kept: near_kept && overlap.part != Part::NearOod,
        groups: overlap.groups as u64,
    };
    facts.overlaps = report.overlaps.iter().map(overlap).collect();
    facts.warnings.extend(facts.overlaps.iter().filter_map(OverlapFacts::sentence));
    if facts.conflicts > 0 {
        facts.warnings.push(format!("{} inputs have contradictory answers (data/rejects.jsonl names them)", facts.conflicts));
    }
    if !report.small_strata.is_empty() {
        // Where answers are texts, they are no names, and a warning is no place for them.
        let named = report.small_strata.iter().filter(|(name, _)| name.chars().count() <= LABEL_CHARS_MAX);
        let names: Vec<String> = named.take(6).map(|(name, n)| format!("{name} ({n})")).collect();
        let classes = report.small_strata.len();
        facts.warnings.push(format!("{classes} classes have too few records to be measured: {}", names.join(", ")));
    }
}

/// The training records as token rows, with their loss weights proved. A record that counts w times as much as another has
/// each of its loss weights multiplied by w: a step's loss is Σ w · loss / Σ w over the answer tokens of its records.
pub(crate) fn train_rows(prepared: &Prepared, rendering: &Rendering<'_>) -> Result<TrainRows> {
    prepared.split.train.rows(|record| {
        let mut row = rendering.row(record)?;
        if let Some(weight) = record.weight {
            row.loss_weights.iter_mut().for_each(|of_token| *of_token *= weight);
        }
        Ok(row)
    })
}

/// A value of a document as JSON, to be shown or compared.
pub(crate) fn value_json(value: &data::Value) -> serde_json::Value {
    use serde_json::Value;
    match value {
        data::Value::Null => Value::Null,
        data::Value::Bool(value) => Value::Bool(*value),
        data::Value::Number(text) => serde_json::from_str(text).unwrap_or_else(|_| Value::from(text.as_str())),
        data::Value::Text(text) => Value::from(text.as_str()),
        data::Value::List(items) => items.iter().map(value_json).collect(),
        data::Value::Object(fields) => {
            Value::Array(fields.iter().map(|(name, value)| serde_json::json!([name, value_json(value)])).collect())
        }
    }
}

/// The training set, for callers that need nothing else.
pub fn train_set(prepared: &Prepared) -> &TrainSet {
    &prepared.split.train
}
