//! `prepare`: from the sources named in the plan to training records and held-out sets, with a reason for
//! every row that was dropped.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use data::split::Portion;
use data::steps::{self, Policy};
use data::{Answer, Document, HeldOut, Item, Record, RecordRecipe, Rejected, SourceRole, Split, SplitPlan, TokenRow, TrainRows, TrainSet};
use eval::Task;
use serde_json::{Value, json};
use store::RunFolder;
use text::LossOn as TextLossOn;

use crate::base::Base;
use crate::context::{Event, Observer};
use crate::error::{Error, Result};
use crate::records;
use crate::report::facts::{DataFacts, SourceFacts};
use crate::source_files;
use crate::spec::{LossOn, Role, RunPlan, Source};

/// Values of a field are listed in the instruction up to here; longer lists are learned, not read.
const LISTED_VALUES_MAX: usize = 15;
/// More distinct answers than this are free text, not labels.
const LABELS_MAX: usize = 200;
/// A label longer than this, in characters, is a text.
const LABEL_CHARS_MAX: usize = 80;
/// Shortest beginning that records share as one run, in tokens.
pub(crate) const SHARED_MIN: usize = 8;
/// Part of a source that is read, in bytes.
const SOURCE_BYTES_MAX: u64 = 4 << 30;

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

/// What [`write()`] writes beside the records.
pub struct Story {
    documents: Vec<Document>,
    rejected: Vec<Rejected>,
    conflicts: Vec<steps::Conflict>,
}

/// Reads the sources and makes the records. `folder` is the run file's. Nothing is written: [`write()`] does.
pub fn prepare(plan: &RunPlan, folder: &Path, base: &Base, observer: &mut dyn Observer) -> Result<(Prepared, Story)> {
    let mut facts = DataFacts { stratify: plan.prepare.stratify.clone(), ..DataFacts::default() };
    let mut story = Story { documents: Vec::new(), rejected: Vec::new(), conflicts: Vec::new() };
    let mut roled: Vec<(Record, SourceRole)> = Vec::new();
    let mut datasets = Vec::new();
    for source in &plan.sources {
        let dataset = read_source(source, folder, &mut facts, &mut story.rejected)?;
        datasets.push(dataset);
    }
    let recipes: Vec<RecordRecipe> = plan.sources.iter().map(|source| recipe(source, plan, String::new())).collect();
    let instruction = if plan.instruction.is_empty() {
        let mut answers = Vec::new();
        for ((dataset, recipe), source) in datasets.iter().zip(&recipes).zip(&plan.sources) {
            if matches!(source.role, Role::Split | Role::Train) && !source.target.is_empty() {
                answers.extend(recipe.apply(dataset)?.records.into_iter().map(|record| record.answer));
            }
        }
        default_instruction(&answers)
    } else {
        plan.instruction.clone()
    };
    // Where the test has sources of its own, validation still comes out of the training sources.
    let split_whole = !plan.sources.iter().any(|source| source.role == Role::Split);
    for (source, dataset) in plan.sources.iter().zip(datasets) {
        let recorded = recipe(source, plan, instruction.clone()).apply(&dataset)?;
        facts.rows += dataset.documents.len() as u64;
        story.rejected.extend(recorded.rejected);
        let drawn = draw(recorded.records, source, plan.project.seed, &mut story.rejected);
        roled.extend(drawn.into_iter().map(|record| (record, source_role(source.role, split_whole))));
        story.documents.extend(dataset.documents);
    }
    let records = clean(&mut roled, plan, base, &mut story)?;
    if records.is_empty() {
        let reasons: BTreeSet<String> = story.rejected.iter().map(|reject| format!("{}: {}", reject.step, reject.reason)).collect();
        return Err(Error::NoRecords { rows: facts.rows, reasons: reasons.into_iter().take(3).collect::<Vec<_>>().join("; ") });
    }
    facts.conflicts = story.conflicts.len() as u64;
    let split_plan = SplitPlan {
        seed: plan.project.seed,
        test: Portion::Fraction(if split_whole { 0.0 } else { plan.prepare.test }),
        validation: Portion::Fraction(plan.prepare.validation),
        train_per_stratum: None,
    };
    let split = Split::new(records, &split_plan)?;
    story.rejected.extend(split.report.left_out.iter().cloned());
    let task = task_of(split.train.records());
    let split = if plan.prepare.shuffle_targets {
        observer.event(Event::Warning("negative control: the training targets are dealt out at random".into()));
        Split { train: split.train.with_shuffled_answers(plan.project.seed), ..split }
    } else {
        split
    };
    count(&mut facts, &split, &story.rejected);
    for warning in &facts.warnings {
        observer.event(Event::Warning(warning.clone()));
    }
    Ok((Prepared { instruction, task, split, facts }, story))
}

fn read_source(source: &Source, folder: &Path, facts: &mut DataFacts, rejected: &mut Vec<Rejected>) -> Result<data::Dataset> {
    let name = source.path.display().to_string();
    let source_files::Opened { mut reader, hash, bytes } = source_files::open(source, folder)?;
    let mut documents = Vec::new();
    for item in &mut reader {
        match item? {
            Item::Document(document) => documents.push(document),
            Item::Rejected(reject) => rejected.push(reject),
        }
    }
    if documents.is_empty() {
        return Err(data::DataError::Empty { origin: name }.into());
    }
    let (shape, typed, columns) = (reader.shape(), reader.is_typed(), reader.columns().to_vec());
    let dataset = data::Dataset { source: name.clone(), shape, typed, columns, documents };
    facts.sources.push(SourceFacts {
        path: name,
        shape: source_files::described(&reader),
        hash: format!("blake3:{hash}"),
        bytes,
        rows: dataset.documents.len() as u64,
        role: role_name(source.role).to_owned(),
        owner: source.owner.clone(),
        licence: source.licence.clone(),
        lawful_basis: source.lawful_basis.clone(),
        keep_until: source.keep_until.clone(),
    });
    Ok(dataset)
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Split => "split",
        Role::Train => "train",
        Role::Test => "test",
        Role::FarOod => "far_ood",
    }
}

fn source_role(role: Role, split_whole: bool) -> SourceRole {
    match role {
        Role::Train if split_whole => SourceRole::Split,
        Role::Split => SourceRole::Split,
        Role::Train => SourceRole::Train,
        Role::Test => SourceRole::Test,
        Role::FarOod => SourceRole::FarOod,
    }
}

fn recipe(source: &Source, plan: &RunPlan, instruction: String) -> RecordRecipe {
    let given = |text: &String| (!text.is_empty()).then(|| text.clone());
    RecordRecipe {
        input: given(&source.input),
        target: source.target.clone(),
        instruction: (!instruction.is_empty()).then_some(instruction),
        group: given(&source.group),
        stratify: given(&plan.prepare.stratify),
        id: given(&source.id),
    }
}

/// "Read the message and answer with one JSON object with the fields …": from the answers alone.
fn default_instruction(answers: &[Answer]) -> String {
    let values = |values: BTreeSet<String>| {
        if values.len() <= LISTED_VALUES_MAX { values.into_iter().collect::<Vec<_>>().join(", ") } else { String::new() }
    };
    let Some(Answer::Fields(fields)) = answers.first() else {
        let labels: BTreeSet<String> = answers.iter().map(Answer::to_text).collect();
        if labels.is_empty() || labels.len() > LABELS_MAX || labels.iter().any(|label| label.chars().count() > LABEL_CHARS_MAX) {
            return String::new();
        }
        let listed = values(labels);
        return if listed.is_empty() {
            "Classify the message. Answer with the label only.".into()
        } else {
            format!("Classify the message. Answer with one of: {listed}.")
        };
    };
    let described: Vec<String> = fields
        .iter()
        .map(|(name, _)| {
            let seen: BTreeSet<String> = answers
                .iter()
                .filter_map(|answer| match answer {
                    Answer::Fields(fields) => fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.to_text()),
                    Answer::Text(_) => None,
                })
                .collect();
            let listed = values(seen);
            if listed.is_empty() { name.clone() } else { format!("{name} ({listed})") }
        })
        .collect();
    format!("Read the message and answer with one JSON object with the fields {}.", described.join(", "))
}

/// The seeded draw of `limit` and `limit_per_class`; what is left out is rejected with that reason.
fn draw(records: Vec<Record>, source: &Source, seed: u64, rejected: &mut Vec<Rejected>) -> Vec<Record> {
    if source.limit == 0 && source.limit_per_class == 0 {
        return records;
    }
    let key = |record: &Record| *blake3::hash(format!("draw {seed} {}", record.id).as_bytes()).as_bytes();
    let mut order: Vec<usize> = (0..records.len()).collect();
    order.sort_by_cached_key(|&index| key(&records[index]));
    let mut per_class = BTreeMap::<String, usize>::new();
    let mut kept = BTreeSet::new();
    for index in order {
        let class = records[index].stratum.clone().unwrap_or_else(|| records[index].answer.to_text());
        let seen = per_class.entry(class).or_default();
        if (source.limit_per_class == 0 || *seen < source.limit_per_class) && (source.limit == 0 || kept.len() < source.limit) {
            *seen += 1;
            kept.insert(index);
        }
    }
    let mut drawn = Vec::with_capacity(kept.len());
    for (index, record) in records.into_iter().enumerate() {
        if kept.contains(&index) {
            drawn.push(record);
        } else {
            rejected.push(Rejected { id: record.id, step: "draw", reason: data::Reason::NotDrawn, related: Vec::new() });
        }
    }
    drawn
}

/// Empty, duplicate, contradictory and over-long records, in this order, over all sources together.
fn clean(roled: &mut Vec<(Record, SourceRole)>, plan: &RunPlan, base: &Base, story: &mut Story) -> Result<Vec<(Record, SourceRole)>> {
    let roles: BTreeMap<String, SourceRole> = roled.iter().map(|(record, role)| (record.id.clone(), *role)).collect();
    let policy = |drop| if drop { Policy::Drop } else { Policy::Keep };
    let mut stepped = steps::drop_empty(roled.drain(..).map(|(record, _)| record).collect());
    story.rejected.append(&mut stepped.rejected);
    let mut stepped = steps::duplicates(stepped.records, policy(plan.prepare.drop_duplicates));
    story.rejected.append(&mut stepped.rejected);
    let mut stepped = steps::conflicts(stepped.records, policy(plan.prepare.drop_conflicts));
    story.rejected.append(&mut stepped.rejected);
    story.conflicts.append(&mut stepped.conflicts);
    let chat = base.chat()?;
    let limit = plan.prepare.max_tokens.min(base.config().context);
    let mut kept = Vec::with_capacity(stepped.records.len());
    for record in stepped.records {
        let rendered = chat.render(&record.id, &record.conversation(), text_loss_on(plan.tune.loss_on), None)?;
        if rendered.ids.len() > limit {
            let reason = data::Reason::TooLong { given: rendered.ids.len(), limit, unit: "tokens" };
            story.rejected.push(Rejected { id: record.id, step: "length", reason, related: Vec::new() });
        } else {
            let role = roles[&record.id];
            kept.push((record, role));
        }
    }
    Ok(kept)
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

fn count(facts: &mut DataFacts, split: &Split, rejected: &[Rejected]) {
    let mut reasons = BTreeMap::<String, u64>::new();
    for reject in rejected {
        *reasons.entry(format!("{}: {}", reject.step, reject.reason.name())).or_default() += 1;
    }
    facts.rejected = reasons.into_iter().collect();
    let held_out = &split.held_out;
    facts.train = split.train.records().len() as u64;
    facts.validation = held_out.validation.len() as u64;
    facts.test = held_out.in_domain.len() as u64;
    facts.far_ood = held_out.far_ood.len() as u64;
    facts.records = facts.train + facts.validation + facts.test + facts.far_ood;
    facts.strata = split
        .report
        .strata
        .iter()
        .map(|(name, train, validation, test)| (name.clone(), *train as u64, *validation as u64, *test as u64))
        .collect();
    facts.naive_split_leaks = (split.report.naive_leaked_groups + split.report.naive_leaked_inputs) as u64;
    if facts.conflicts > 0 {
        facts.warnings.push(format!("{} inputs have contradictory answers (data/rejects.jsonl names them)", facts.conflicts));
    }
    if !split.report.small_strata.is_empty() {
        let names: Vec<String> = split.report.small_strata.iter().take(6).map(|(name, n)| format!("{name} ({n})")).collect();
        facts.warnings.push(format!(
            "{} classes have too few records to be measured: {}",
            split.report.small_strata.len(),
            names.join(", ")
        ));
    }
}

/// The training records as token rows, with their loss weights proved.
pub fn train_rows(prepared: &Prepared, base: &Base, loss_on: LossOn) -> Result<TrainRows> {
    let chat = base.chat()?;
    prepared.split.train.rows(|record| token_row(record, chat, loss_on))
}

/// A record as a token row.
pub(crate) fn token_row(record: &Record, chat: &text::ChatFormat, loss_on: LossOn) -> Result<TokenRow> {
    let rendered = chat.render(&record.id, &record.conversation(), text_loss_on(loss_on), None)?;
    Ok(TokenRow { record_id: record.id.clone(), ids: rendered.ids, loss_weights: rendered.loss_weights })
}

const PARTS: [&str; 4] = ["train", "validation", "test", "far_ood"];

fn part<'a>(split: &'a Split, name: &str) -> &'a [Record] {
    match name {
        "train" => split.train.records(),
        "validation" => &split.held_out.validation,
        "test" => &split.held_out.in_domain,
        _ => &split.held_out.far_ood,
    }
}

/// Writes records, documents and rejects into a run folder, `data/prepared.json` last.
pub fn write(run: &RunFolder, prepared: &Prepared, story: &Story) -> Result<()> {
    let lines = |values: &mut dyn Iterator<Item = Value>| {
        let mut text = String::new();
        for value in values {
            text += &value.to_string();
            text.push('\n');
        }
        text
    };
    run.write("data/documents.jsonl", lines(&mut story.documents.iter().map(document_json)).as_bytes())?;
    for name in PARTS {
        run.write(&format!("data/records/{name}.jsonl"), lines(&mut part(&prepared.split, name).iter().map(records::to_json)).as_bytes())?;
    }
    let rejects = story.rejected.iter().map(|reject| {
        json!({ "id": reject.id, "step": reject.step, "reason": reject.reason.name(), "detail": reject.reason.to_string(), "related": reject.related })
    });
    let conflicts = story
        .conflicts
        .iter()
        .map(|conflict| json!({ "id": conflict.ids[0], "step": "conflicts", "reason": "reported", "related": conflict.ids }));
    run.write("data/rejects.jsonl", lines(&mut rejects.chain(conflicts)).as_bytes())?;
    let labels = match &prepared.task {
        Task::Classification { labels } => json!({ "kind": "classification", "labels": labels }),
        Task::Structured { fields } => json!({ "kind": "structured", "fields": fields }),
        Task::FreeText => json!({ "kind": "free_text" }),
    };
    let facts = json!({ "instruction": prepared.instruction, "task": labels, "facts": prepared.facts });
    run.write("data/prepared.json", format!("{facts:#}\n").as_bytes())?;
    Ok(())
}

fn document_json(document: &Document) -> Value {
    let fields: Vec<Value> = document.fields.iter().map(|(name, value)| json!([name, value_json(value)])).collect();
    let origin = &document.origin;
    let mut json = json!({ "id": document.id, "source": origin.source, "row": origin.row, "line": origin.line, "fields": fields });
    if !origin.inner.is_empty() {
        json["inner"] = json!(origin.inner);
    }
    if !document.attributes.is_empty() {
        json["attributes"] = document.attributes.iter().map(|(name, value)| json!([name, value_json(value)])).collect();
    }
    json
}

pub(crate) fn value_json(value: &data::Value) -> Value {
    match value {
        data::Value::Null => Value::Null,
        data::Value::Bool(value) => json!(value),
        data::Value::Number(text) => serde_json::from_str(text).unwrap_or_else(|_| json!(text)),
        data::Value::Text(text) => json!(text),
        data::Value::List(items) => items.iter().map(value_json).collect(),
        data::Value::Object(fields) => Value::Array(fields.iter().map(|(name, value)| json!([name, value_json(value)])).collect()),
    }
}

/// What [`prepare`] wrote into a run folder.
pub fn read(run: &Path) -> Result<Prepared> {
    let path = run.join("data/prepared.json");
    let corrupt = |reason: String| Error::Corrupt { what: "the prepared data", reason, path: path.clone() };
    let value = store::atomic::read_json(&path, SOURCE_BYTES_MAX)?;
    let names = |value: &Value| {
        value.as_array().map(|names| names.iter().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>()).unwrap_or_default()
    };
    let task = match value["task"]["kind"].as_str() {
        Some("classification") => Task::Classification { labels: names(&value["task"]["labels"]) },
        Some("structured") => Task::Structured { fields: names(&value["task"]["fields"]) },
        Some("free_text") => Task::FreeText,
        other => return Err(corrupt(format!("unknown task {other:?}"))),
    };
    let facts: DataFacts = serde_json::from_value(value["facts"].clone()).map_err(|error| corrupt(error.to_string()))?;
    let mut parts = BTreeMap::new();
    for name in PARTS {
        let path = run.join(format!("data/records/{name}.jsonl"));
        let mut records = Vec::new();
        for (index, line) in store::jsonl::read_lines(&path)?.iter().enumerate() {
            let value: Value = serde_json::from_str(line).map_err(|error| corrupt(format!("{name} line {}: {error}", index + 1)))?;
            records.push(records::from_json(&value).map_err(|reason| corrupt(format!("{name} line {}: {reason}", index + 1)))?);
        }
        parts.insert(name, records);
    }
    let mut take = |name| parts.remove(name).unwrap_or_default();
    let train = take("train");
    let held_out = HeldOut { validation: take("validation"), in_domain: take("test"), far_ood: take("far_ood") };
    let split = Split::assemble(train, held_out)?;
    Ok(Prepared { instruction: value["instruction"].as_str().unwrap_or_default().to_owned(), task, split, facts })
}

/// The training set, for callers that need nothing else.
pub fn train_set(prepared: &Prepared) -> &TrainSet {
    &prepared.split.train
}
