//! `score`: the log-probability of what is already written, one line a record, in file order.
//!
//! log_prob = Σ over i ≥ 1 of loss_weights\[i\] · ln p(ids\[i\] | ids\[0..i\]), summed in f64. All records are read and
//! checked before the first is scored; they are then scored chunk by chunk, so that lines come while it works.

use std::path::Path;

use data::pack::{self, PackedBatch};
use data::{DataError, Document, Format, RecordRecipe, TokenRow};
use engine::batch::PassLimits;
use engine::compute::Compute;
use engine::cpu::CpuDevice;
use engine::memory::{ScoringUse, Uses};
use engine::model::Model;
use eval::AnswerLoss;
use serde::Serialize;
use serde_json::{Number, Value};
use text::{ChatFormat, LossOn};

use crate::adapters;
use crate::base::Base;
use crate::context::{Context, Event, Observer};
use crate::error::{Error, RecordFault, Result};
use crate::prepare::{SHARED_MIN, value_json};
use crate::rendering::Rendering;
use crate::tune::EngineBatch;

/// Part of the file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 4 << 30;
/// Rows of a pass: enough for the matrix product's full rate. A longer record gets a pass of its own length.
const PASS_ROWS: usize = 1024;
/// The column of plain texts.
const PLAIN_COLUMN: &str = "text";
/// Tokens of a chunk, within which records share their beginnings.
const CHUNK_TOKENS: usize = 64 * PASS_ROWS;

/// Names a record as its file does.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum RecordId {
    /// A text.
    Text(String),
    /// A number; that of its line where the record has no id.
    Number(Number),
}

impl std::fmt::Display for RecordId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            RecordId::Text(text) => f.write_str(text),
            RecordId::Number(number) => number.fmt(f),
        }
    }
}

/// The line of a record.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ScoreLine {
    /// The record.
    pub id: RecordId,
    /// Tokens of the record.
    pub tokens: u64,
    /// Σ weight · ln p, in nats.
    pub log_prob: f64,
    /// Tokens with a weight above zero that have one before them.
    pub loss_tokens: u64,
}

/// All lines together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct ScoreTotal {
    /// Records.
    pub records: u64,
    /// Their tokens.
    pub tokens: u64,
    /// Their log-probabilities' sum.
    pub log_prob: f64,
    /// Their tokens with loss.
    pub loss_tokens: u64,
}

/// Scores the records of `file` with `model`, and with a PEFT adapter where there is one. With `tokens` they are
/// JSON lines of `{"id", "ids", "loss_weights"}` (all weights 1 where left out); else any training shape, rendered
/// with the base's template, with loss on the answer as in training; rows with a column `text` and no such shape are plain texts, with
/// loss on every token. `each` gets the lines in file order.
///
/// # Errors
/// Ids beyond the vocabulary, lengths that differ, records longer than the context, rows that make no record: named
/// by id, before any line comes.
pub fn score(
    context: &Context<'_>,
    observer: &mut dyn Observer,
    file: &Path,
    model: &str,
    adapter: Option<&Path>,
    storage: &str,
    compute: &str,
    tokens: bool,
    each: &mut dyn FnMut(ScoreLine),
) -> Result<ScoreTotal> {
    let bytes = store::atomic::read(file, FILE_BYTES_MAX)?;
    let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let base = Base::open(context, observer, model, "")?.held_as(storage)?.asked_by(compute, "")?;
    let adapter = adapter.map(|folder| adapters::load(folder, &base.described)).transpose()?;
    let records = if tokens { token_records(&name, &bytes, &base)? } else { text_records(&name, &bytes, file, &base)? };
    drop(bytes);

    let mut loaded = base.load(context.threads)?;
    if let Some(adapter) = &adapter {
        loaded.attach(adapter)?;
    }
    observer.event(Event::Start { what: "scoring".into(), total: records.len() as u64, unit: "records" });
    let mut total = ScoreTotal::default();
    for chunk in chunks(&records) {
        score_chunk(&mut loaded, base.compute(), chunk, observer, &mut |line: ScoreLine| {
            let count = total.add(&line);
            each(line);
            count
        })?;
    }
    observer.event(Event::End);
    Ok(total)
}

/// The losses of token rows, in their order; `label` names the work in the progress.
pub(crate) fn score_rows(
    model: &mut Model<CpuDevice>,
    compute: Compute,
    rows: Vec<TokenRow>,
    observer: &mut dyn Observer,
    label: &str,
) -> Result<Vec<AnswerLoss>> {
    let records: Vec<Scorable> = rows.into_iter().map(|row| Scorable { id: RecordId::Text(row.record_id.clone()), row }).collect();
    observer.event(Event::Start { what: label.to_owned(), total: records.len() as u64, unit: "texts" });
    let mut losses = Vec::with_capacity(records.len());
    for chunk in chunks(&records) {
        score_chunk(model, compute, chunk, observer, &mut |line: ScoreLine| {
            losses.push(AnswerLoss { log_prob: line.log_prob, tokens: line.loss_tokens });
            losses.len() as u64
        })?;
    }
    observer.event(Event::End);
    Ok(losses)
}

/// The sum over some records, each rendered with the base's template and scored on its answer.
pub(crate) fn score_records(
    context: &Context<'_>,
    observer: &mut dyn Observer,
    base: &Base,
    records: &[data::Record],
) -> Result<ScoreTotal> {
    let chat = base.chat()?;
    let scorable = |record: &data::Record| {
        let row = rendered(record, &record.id, chat)?;
        fits(&row.ids, base).map_err(|fault| Error::Record { record: record.id.clone(), fault })?;
        Ok(Scorable { id: RecordId::Text(record.id.clone()), row })
    };
    let records = records.iter().map(scorable).collect::<Result<Vec<_>>>()?;
    let mut loaded = base.load(context.threads)?;
    observer.event(Event::Start { what: "scoring".into(), total: records.len() as u64, unit: "records" });
    let mut total = ScoreTotal::default();
    for chunk in chunks(&records) {
        score_chunk(&mut loaded, base.compute(), chunk, observer, &mut |line: ScoreLine| total.add(&line))?;
    }
    observer.event(Event::End);
    Ok(total)
}

impl ScoreTotal {
    /// One line more; gives how many there are.
    fn add(&mut self, line: &ScoreLine) -> u64 {
        self.records += 1;
        self.tokens += line.tokens;
        self.log_prob += line.log_prob;
        self.loss_tokens += line.loss_tokens;
        self.records
    }
}

/// A record ready to be scored.
struct Scorable {
    id: RecordId,
    row: TokenRow,
}

impl Scorable {
    /// Tokens that count: those with a weight that have something before them.
    fn loss_tokens(&self) -> usize {
        self.row.loss_weights.iter().skip(1).filter(|weight| **weight > 0.0).count()
    }
}

/// Neighbours that are scored together.
fn chunks(records: &[Scorable]) -> impl Iterator<Item = &[Scorable]> {
    let mut rest = records;
    std::iter::from_fn(move || {
        let mut tokens = 0;
        let fit = rest.iter().take_while(|record| {
            tokens += record.row.ids.len();
            tokens <= CHUNK_TOKENS
        });
        let count = fit.count().max(usize::from(!rest.is_empty())); // a longer record is a chunk of its own
        let (chunk, after) = rest.split_at(count);
        rest = after;
        (!chunk.is_empty()).then_some(chunk)
    })
}

/// Scores a chunk; a line goes to `each`, which counts them, as soon as all before it are there.
fn score_chunk(
    model: &mut Model<CpuDevice>,
    compute: Compute,
    chunk: &[Scorable],
    observer: &mut dyn Observer,
    each: &mut dyn FnMut(ScoreLine) -> u64,
) -> Result<()> {
    // A record without loss has a line, but nothing to compute.
    let places: Vec<usize> = (0..chunk.len()).filter(|&place| chunk[place].loss_tokens() > 0).collect();
    let rows: Vec<TokenRow> = places.iter().map(|&place| chunk[place].row.clone()).collect();
    let longest = rows.iter().map(|row| row.ids.len()).max().unwrap_or(0);
    let batches = pack::pack_for_scoring(&rows, PASS_ROWS.max(longest), Some(SHARED_MIN))?;
    reserve(model, compute, &batches, longest)?;
    let mut sums: Vec<Option<f64>> = chunk.iter().map(|record| (record.loss_tokens() == 0).then_some(0.0)).collect();
    let mut lines = flush(chunk, &sums, 0, observer, each);
    for (index, packed) in batches.iter().enumerate() {
        if observer.stopped() {
            return Err(Error::Interrupted);
        }
        let batch = EngineBatch::new(packed);
        let log_probs = model.log_probs_exact(&batch.borrow(), index)?;
        for (entry, log_prob) in packed.entries.iter().zip(log_probs) {
            if entry.weight > 0.0 {
                *sums[places[packed.records[entry.sequence as usize]]].get_or_insert(0.0) += f64::from(entry.weight) * log_prob;
            }
        }
        // A record is never divided among batches, so a sum that is there is whole.
        lines = flush(chunk, &sums, lines, observer, each);
    }
    Ok(())
}

/// Hands out the lines from `lines` on, up to the first whose sum is not there yet.
fn flush(
    chunk: &[Scorable],
    sums: &[Option<f64>],
    mut lines: usize,
    observer: &mut dyn Observer,
    each: &mut dyn FnMut(ScoreLine) -> u64,
) -> usize {
    while let Some((record, Some(log_prob))) = chunk.get(lines).zip(sums.get(lines).copied()) {
        let (tokens, loss_tokens) = (record.row.ids.len() as u64, record.loss_tokens() as u64);
        let done = each(ScoreLine { id: record.id.clone(), tokens, log_prob, loss_tokens });
        observer.event(Event::Progress { done, loss: None, validation: None });
        lines += 1;
    }
    lines
}

/// Lays out memory where these batches are larger than those before.
fn reserve(model: &mut Model<CpuDevice>, compute: Compute, batches: &[PackedBatch], longest: usize) -> Result<()> {
    let most = |size: fn(&PackedBatch) -> usize| batches.iter().map(size).max().unwrap_or(1);
    let before = model.uses().scoring.map(|scoring| scoring.pass);
    let head_rows = |batch: &PackedBatch| batch.entries.chunk_by(|a, b| a.row == b.row).count();
    let (rows, head_rows, entries) =
        (most(|batch| batch.tokens.len()), batches.iter().map(head_rows).max().unwrap_or(1), most(|batch| batch.entries.len()));
    let needed = PassLimits { rows, chain: longest.max(1), head_rows, entries };
    let pass = before.map_or(needed, |before| PassLimits {
        rows: needed.rows.max(before.rows),
        chain: needed.chain.max(before.chain),
        head_rows: needed.head_rows.max(before.head_rows),
        entries: needed.entries.max(before.entries),
    });
    if before != Some(pass) {
        model.reserve(&Uses { scoring: Some(ScoringUse { pass, prefix: 0 }), compute, ..Uses::default() })?;
    }
    Ok(())
}

// ---- records of token ids ---------------------------------------------------------------------

/// JSON lines of `{"id", "ids", "loss_weights"}`, all of them checked.
fn token_records(name: &str, bytes: &[u8], base: &Base) -> Result<Vec<Scorable>> {
    let mut records = Vec::new();
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    for (index, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let number = index as u64 + 1;
        let not_json = |error: serde_json::Error| Error::Record {
            record: format!("in line {number}"),
            fault: RecordFault::NotJson { column: error.column() },
        };
        let value: Value = serde_json::from_slice(line).map_err(not_json)?;
        let id = id_of(value.get("id"), number);
        let record = id.to_string();
        let row = token_row(&value, &record, base).map_err(|fault| Error::Record { record, fault })?;
        records.push(Scorable { id, row });
    }
    if records.is_empty() {
        return Err(DataError::Empty { origin: name.to_owned() }.into());
    }
    Ok(records)
}

/// The record's own id, if it is a text or a number; else the line's number.
fn id_of(given: Option<&Value>, line: u64) -> RecordId {
    match given {
        Some(Value::String(text)) => RecordId::Text(text.clone()),
        Some(Value::Number(number)) => RecordId::Number(number.clone()),
        _ => RecordId::Number(line.into()),
    }
}

fn token_row(value: &Value, record: &str, base: &Base) -> std::result::Result<TokenRow, RecordFault> {
    let vocab = base.config().vocab;
    let list = |key| match value.get(key) {
        None => Ok(None),
        Some(Value::Array(items)) => Ok(Some(items)),
        Some(_) => Err(RecordFault::Kind { key, at: None, expected: "a list" }),
    };
    let ids = list("ids")?.ok_or(RecordFault::Missing { key: "ids" })?;
    let id = |(at, item): (usize, &Value)| match item.as_u64() {
        None => Err(RecordFault::Kind { key: "ids", at: Some(at), expected: "a whole number from 0" }),
        Some(id) if id < vocab as u64 => Ok(id as u32),
        Some(id) => Err(RecordFault::Token { id, at, vocab }),
    };
    let ids: Vec<u32> = ids.iter().enumerate().map(id).collect::<std::result::Result<_, _>>()?;
    let loss_weights = match list("loss_weights")? {
        None => vec![1.0; ids.len()],
        Some(items) => {
            let weight = |(at, item): (usize, &Value)| {
                let weight = item.as_f64().map(|weight| weight as f32).filter(|weight| weight.is_finite() && *weight >= 0.0);
                weight.ok_or(RecordFault::Kind { key: "loss_weights", at: Some(at), expected: "a finite number of at least 0" })
            };
            items.iter().enumerate().map(weight).collect::<std::result::Result<Vec<_>, _>>()?
        }
    };
    if ids.len() != loss_weights.len() {
        return Err(RecordFault::Lengths { ids: ids.len(), weights: loss_weights.len() });
    }
    fits(&ids, base)?;
    Ok(TokenRow { record_id: record.to_owned(), ids, loss_weights })
}

fn fits(ids: &[u32], base: &Base) -> std::result::Result<(), RecordFault> {
    match (ids.len(), base.config().context) {
        (0, _) => Err(RecordFault::Empty),
        (given, limit) if given > limit => Err(RecordFault::TooLong { given, limit }),
        _ => Ok(()),
    }
}

// ---- records of text --------------------------------------------------------------------------

/// Any training shape, rendered with the base's template, all of it checked.
fn text_records(name: &str, bytes: &[u8], file: &Path, base: &Base) -> Result<Vec<Scorable>> {
    let dataset = dataset(name, bytes, file)?;
    let rendering = if is_plain(&dataset) { Rendering::Text(base.plain()?) } else { Rendering::Answers(base.chat()?, LossOn::Last) };
    let recorded = recipe(&dataset).apply(&dataset)?;
    let mut records = recorded.records.into_iter().peekable();
    let mut rejected = recorded.rejected.into_iter().peekable();
    let mut scorable = Vec::with_capacity(dataset.documents.len());
    for document in &dataset.documents {
        let id = document_id(document);
        let shown = id.to_string();
        if let Some(reject) = rejected.next_if(|reject| reject.id == document.id) {
            return Err(Error::Record { record: shown, fault: RecordFault::NoRecord { reason: reject.reason } });
        }
        let Some(mut record) = records.next_if(|record| record.lineage.document == document.id) else { continue };
        record.id.clone_from(&shown);
        let row = rendering.row(&record)?;
        fits(&row.ids, base).map_err(|fault| Error::Record { record: shown, fault })?;
        scorable.push(Scorable { id, row });
    }
    Ok(scorable)
}

/// The records of a file in any training shape; a row that makes none is an error.
pub(crate) fn records(file: &Path) -> Result<Vec<data::Record>> {
    let bytes = store::atomic::read(file, FILE_BYTES_MAX)?;
    let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let dataset = dataset(&name, &bytes, file)?;
    let recorded = recipe(&dataset).apply(&dataset)?;
    match recorded.rejected.into_iter().next() {
        Some(reject) => Err(Error::Record { record: reject.id, fault: RecordFault::NoRecord { reason: reject.reason } }),
        None => Ok(recorded.records),
    }
}

/// Whether its rows are plain texts: a column `text`, and no shape that says what is asked.
fn is_plain(dataset: &data::Dataset) -> bool {
    dataset.shape == data::Shape::Columns && dataset.columns.iter().any(|column| column == PLAIN_COLUMN)
}

/// How records are made of a file's rows: by their shape, or as plain texts.
fn recipe(dataset: &data::Dataset) -> RecordRecipe {
    match is_plain(dataset) {
        true => RecordRecipe { plain: true, target: vec![PLAIN_COLUMN.to_owned()], ..RecordRecipe::default() },
        false => RecordRecipe::default(),
    }
}

/// The rows of a file whose extension says how it is written.
fn dataset(name: &str, bytes: &[u8], file: &Path) -> Result<data::Dataset> {
    let extension = file.extension().map(|extension| extension.to_string_lossy().to_lowercase()).unwrap_or_default();
    let unreadable =
        || Error::Mismatch { what: "the file's extension", given: format!("{extension:?}"), expected: "csv, tsv, json or jsonl".into() };
    let format = Format::from_name(&extension).ok_or_else(unreadable)?;
    Ok(data::read::read(name, bytes, format, &data::read::LIMITS)?)
}

fn document_id(document: &Document) -> RecordId {
    let given = document.fields.iter().find(|(name, _)| name == "id").map(|(_, value)| value_json(value));
    id_of(given.as_ref(), document.origin.line)
}

fn rendered(record: &data::Record, id: &str, chat: &ChatFormat) -> Result<TokenRow> {
    let rendered = chat.render(id, &record.conversation(), LossOn::Last, None)?;
    Ok(TokenRow { record_id: id.to_owned(), ids: rendered.ids, loss_weights: rendered.loss_weights })
}
