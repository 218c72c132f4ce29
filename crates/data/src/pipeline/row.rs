//! Everything that is done with one row alone, on all threads.

use super::passages;
use super::stored::entry_of;
use super::{Check, SourcePlan, Steps};
use crate::clean::Findings;
use crate::near::{self, SketchBits, band_keys, fold, hash_bytes, hash_twice};
use crate::record::Maker;
use crate::split::{SourceRole, naive_key};
use crate::steps::{Reason, asks_nothing};
use crate::{DataError, Document, Item, Record, Rejected, Value, wire};
use std::collections::HashSet;

/// Rows of a chunk, at most.
const CHUNK_DOCUMENTS: usize = 2048;
/// Bytes of a chunk, about at most.
const CHUNK_BYTES: usize = 4 << 20;
/// An answer of more bytes than this is no class.
const ANSWER_BYTES_MAX: usize = 1 << 10;

/// A text's length as a power of two: class 0 has no word, class n from 2ⁿ⁻¹ to 2ⁿ − 1 of them.
pub(super) fn length_class(text: &str) -> u8 {
    let words = if text.is_ascii() {
        // A word begins where white space ends.
        let begins = |(blank, words): (bool, u64), byte: u8| match byte {
            b' ' | 0x09..=0x0D => (true, words),
            _ => (false, words + u64::from(blank)),
        };
        text.bytes().fold((true, 0), begins).1
    } else {
        text.split_whitespace().count() as u64
    };
    (u64::BITS - words.leading_zeros()) as u8
}

/// A document after the first pass.
pub(super) struct Processed {
    pub(super) document: Vec<u8>,
    pub(super) findings: Findings,
    pub(super) outcome: Result<Box<Kept>, Rejected>,
}

/// A record after the first pass.
pub(super) struct Kept {
    /// Length of the id in four bytes, the id, the record without its stratum.
    pub(super) entry: Vec<u8>,
    pub(super) id: [u8; 16],
    pub(super) naive: u64,
    pub(super) draw: u64,
    pub(super) content: [u8; 32],
    pub(super) input: [u8; 16],
    pub(super) text: Option<[u8; 16]>,
    pub(super) group: Option<[u8; 16]>,
    pub(super) stratum: Option<String>,
    pub(super) answer: u64,
    pub(super) answer_name: Option<String>,
    pub(super) bands: Vec<u64>,
    pub(super) bits: SketchBits,
    pub(super) passages: Vec<u64>,
    pub(super) lengths: [u8; 2],
    pub(super) weight: Option<f32>,
    /// What it is a version of, and which.
    pub(super) version: Option<([u8; 16], [u8; 16])>,
    /// It is held out as near out of distribution.
    pub(super) outside: bool,
}

pub(super) fn short(key: &[u8; 32]) -> [u8; 16] {
    let mut short = [0; 16];
    short.copy_from_slice(&key[..16]);
    short
}

pub(super) fn short_hash(bytes: &[u8]) -> [u8; 16] {
    short(blake3::hash(bytes).as_bytes())
}

pub(super) fn entry<const K: usize, const N: usize>(key: [u8; K], row: u32) -> [u8; N] {
    let mut entry = [0; N];
    entry[..K].copy_from_slice(&key);
    entry[K..].copy_from_slice(&row.to_be_bytes());
    entry
}

pub(super) fn next_chunk<E>(items: &mut impl Iterator<Item = Result<Item, E>>) -> Result<Vec<Item>, E> {
    let (mut chunk, mut bytes) = (Vec::new(), 0);
    while chunk.len() < CHUNK_DOCUMENTS && bytes < CHUNK_BYTES {
        let Some(item) = items.next() else { break };
        let item = item?;
        if let Item::Document(document) = &item {
            bytes += document.fields.iter().map(|(name, value)| name.len() + value.size()).sum::<usize>();
        }
        chunk.push(item);
    }
    Ok(chunk)
}

/// The columns of some documents, in the order in which they appear.
pub(super) fn columns_of(items: &[Item]) -> Vec<String> {
    let (mut columns, mut seen) = (Vec::new(), HashSet::new());
    let documents = items.iter().filter_map(|item| match item {
        Item::Document(document) => Some(document),
        Item::Rejected(_) => None,
    });
    for (name, _) in documents.flat_map(|document| &document.fields) {
        if seen.insert(name.as_str()) {
            columns.push(name.clone());
        }
    }
    columns
}

/// Everything that is done with one row alone.
pub(super) fn process<E: From<DataError>>(
    item: &Item,
    maker: &Maker<'_>,
    plan: &SourcePlan<'_>,
    steps: &Steps,
    check: &Check<'_, E>,
) -> Result<Processed, E> {
    let document = match item {
        Item::Document(document) => document,
        Item::Rejected(rejected) => {
            return Ok(Processed { document: Vec::new(), findings: Vec::new(), outcome: Err(rejected.clone()) });
        }
    };
    let (mut line, mut findings) = (Vec::new(), Findings::new());
    if steps.minimise && document.fields.iter().any(|(name, _)| !maker.uses(name)) {
        let (fields, dropped): (Vec<_>, Vec<_>) = document.fields.iter().cloned().partition(|(name, _)| maker.uses(name));
        findings.extend(dropped.into_iter().map(|(name, _)| ("minimise", name.into())));
        wire::write_document(&mut line, &Document { fields, ..document.clone() });
    } else {
        wire::write_document(&mut line, document);
    }
    line.push(b'\n');
    let outcome = record_of(document, maker, plan, steps, check, &mut findings)?;
    Ok(Processed { document: line, findings, outcome })
}

/// A document's record as it is kept, or why there is none.
fn record_of<E: From<DataError>>(
    document: &Document,
    maker: &Maker<'_>,
    plan: &SourcePlan<'_>,
    steps: &Steps,
    check: &Check<'_, E>,
    findings: &mut Findings,
) -> Result<Result<Box<Kept>, Rejected>, E> {
    let rejected =
        |id: &str, (step, reason): (&'static str, Reason)| Ok(Err(Rejected { id: id.to_owned(), step, reason, related: Vec::new() }));
    if let Some(Err(reason)) = steps.outdated.as_ref().map(|outdated| outdated.apply(document, findings)) {
        return rejected(&document.id, reason);
    }
    let mut record = match maker.record(document) {
        Ok(record) => record,
        Err(reason) => return rejected(&document.id, ("record", reason)),
    };
    if let Err(reason) = steps.clean.apply(&mut record, findings) {
        return rejected(&record.id, reason);
    }
    if !plan.recipe.plain && asks_nothing(&record) {
        return rejected(&record.id, ("empty", Reason::EmptyInput));
    }
    if plan.role != SourceRole::FarOod && record.answer.is_empty() {
        return rejected(&record.id, ("split", Reason::EmptyTarget));
    }
    match check(&record)? {
        Some(reason) => rejected(&record.id, reason),
        None => Ok(Ok(Box::new(kept(document, record, plan, steps)))),
    }
}

fn kept(document: &Document, record: Record, plan: &SourcePlan<'_>, steps: &Steps) -> Kept {
    let (asked, answer) = (record.asked(), record.answer.to_text());
    let input = record.input_key();
    let folded = fold(&asked);
    let lengths = [length_class(&asked), length_class(&answer)];
    let entry = entry_of(&record);
    let sketched = steps.near.and_then(|(nearness, _)| {
        let sketch = near::sketch(&nearness.shingles.of(&folded))?;
        Some((band_keys(&sketch, &nearness), SketchBits::of(&sketch)))
    });
    let (bands, bits) = sketched.unwrap_or_default();
    let seed = steps.split.seed;
    let draw = blake3::hash(format!("draw {seed} {}", record.id).as_bytes());
    let version = plan.versions.and_then(|versions| {
        let text = |column| document.field(column).map(Value::to_text).unwrap_or_default();
        let (thing, version) = (text(versions.of), text(versions.version));
        (!thing.trim().is_empty()).then(|| (short_hash(thing.trim().as_bytes()), passages::version_order(version.trim())))
    });
    Kept {
        id: short_hash(record.id.as_bytes()),
        naive: naive_key(seed, &record.id),
        draw: u64::from_be_bytes(draw.as_bytes()[..8].try_into().unwrap_or_default()),
        content: record.content_key_of(&input),
        input: short(&input),
        text: (!folded.is_empty()).then(|| hash_twice(folded.as_bytes())),
        group: record.group.as_ref().map(|group| short_hash(group.as_bytes())),
        answer: hash_bytes(answer.as_bytes()),
        answer_name: (answer.len() <= ANSWER_BYTES_MAX).then_some(answer),
        stratum: record.stratum,
        bands,
        bits,
        passages: steps.passages.map(|passages| passages::keys(&folded, passages.words)).unwrap_or_default(),
        version,
        lengths,
        weight: record.weight,
        outside: steps.near_ood.as_ref().is_some_and(|outside| outside.holds(document)),
        entry,
    }
}
