//! The proof of an export: held-out prompts, asked of the adapter on its base and of what was written.
//!
//! Both go through the same engine, so that what differs is what the format cannot say: the rounding of merged weights. For
//! each prompt the logits of its last positions are compared element by element, and ln p of the tokens that stand there.

use std::path::Path;

use engine::batch::{Batch, Segment};
use engine::cpu::CpuDevice;
use engine::memory::{GenerationUse, Uses};
use engine::model::Model;
use engine::storage::Storage;
use serde::Serialize;
use text::{LossOn, Message, Role, Specials};

use super::Export;
use crate::base::Base;
use crate::context::{Event, Observer};
use crate::error::{Error, Result};
use crate::evaluate::spread;
use crate::{prepare, score};

/// Prompts at most.
const PROMPTS_MAX: usize = 32;
/// Positions of a prompt at most: its last ones, where the answer is.
const POSITIONS_MAX: usize = 64;
/// Tokens of a prompt at most; of a longer one the beginning counts.
const TOKENS_MAX: usize = 2048;
/// Logits that are kept while the other model is asked, in bytes.
const LOGIT_BYTES_MAX: usize = 256 << 20;

/// Prompts for an adapter without a run, where the user gives none: plain questions, a list, code, another language.
const BUILT_IN: [&str; 8] = [
    "What is the capital of France, and what is it known for?",
    "Write a polite e-mail to a customer whose parcel is three days late.",
    "Summarise in one sentence: The meeting was moved from Monday to Thursday because two of the speakers are ill.",
    "Classify this message as complaint, question or praise: The new update is wonderful, thank you!",
    "List three things to check before a long journey by car.",
    "def fibonacci(n):\n    \"\"\"Returns the n-th Fibonacci number.\"\"\"",
    "Wie lange dauert die Lieferung nach Österreich, und was kostet sie?",
    "Answer with a JSON object with the keys name and city: My name is Ada and I live in London.",
];

/// How far an export may be from what it was made of.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Tolerance {
    /// Mean |Δ ln p| of a token.
    pub log_prob_difference_mean: f64,
    /// Largest |Δ logit| over the largest |logit|.
    pub logit_difference_max: f64,
    /// Positions at which both prefer the same token, at least, as a fraction.
    pub same_choice_at_least: f64,
}

impl Tolerance {
    /// The same numbers.
    pub const EXACT: Tolerance = Tolerance { log_prob_difference_mean: 0.0, logit_difference_max: 0.0, same_choice_at_least: 1.0 };

    /// Of merged weights in a storage.
    ///
    /// f32: the merged weight is rounded once where the adapter's way rounds its product. The others are about four times what
    /// SmolLM2-135M was measured at (mean |Δ ln p| 2.4e-3, 1.6e-2, 5.8e-2, 0.37; Gemma 3 270M in Q4_K_M 0.9), a small model that feels rounding more than
    /// larger ones, so that a tensor in the wrong place fails and rounding passes.
    pub fn of(storage: Storage) -> Tolerance {
        let (log_prob_difference_mean, logit_difference_max, same_choice_at_least) = match storage {
            Storage::F32 => (1e-4, 1e-4, 0.99),
            Storage::F16 => (1e-2, 1e-2, 0.97),
            Storage::Bf16 => (6e-2, 6e-2, 0.95),
            Storage::Q8_0 => (0.2, 0.2, 0.9),
            _ => (1.5, 0.8, 0.6),
        };
        Tolerance { log_prob_difference_mean, logit_difference_max, same_choice_at_least }
    }
}

/// What was compared and how far apart it is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Proof {
    /// `tensors`: read back, they are the same numbers; `logits`: both models were asked.
    pub method: &'static str,
    /// Tensors that were compared bit for bit (`tensors`).
    pub tensors: usize,
    /// `test records`, `given records` or `built-in prompts` (`logits`).
    pub prompts_from: &'static str,
    /// How many.
    pub prompts: usize,
    /// Positions compared, over all prompts.
    pub positions: usize,
    /// Prompts whose ids are the same with the export's own tokenizer.
    pub prompts_with_same_ids: usize,
    /// Mean |Δ ln p| of the tokens there, between the adapter on its base and the export.
    pub log_prob_difference_mean: f64,
    /// Largest |Δ logit| over the largest |logit|.
    pub logit_difference_max: f64,
    /// Fraction of positions at which both prefer the same token.
    pub same_choice: f64,
    /// Mean |Δ ln p| between the base alone and the adapter on it: what the tuning did, as a measure for the above.
    pub adapter_effect_mean: f64,
    /// The bounds.
    pub tolerance: Tolerance,
}

impl Proof {
    /// Of an adapter whose tensors came back as they were: by [`Tolerance::EXACT`] nothing is left to ask.
    pub(super) fn identical(tensors: usize) -> Proof {
        Proof {
            method: "tensors",
            tensors,
            prompts_from: "",
            prompts: 0,
            positions: 0,
            prompts_with_same_ids: 0,
            log_prob_difference_mean: 0.0,
            logit_difference_max: 0.0,
            same_choice: 1.0,
            adapter_effect_mean: 0.0,
            tolerance: Tolerance::EXACT,
        }
    }

    /// The first figure beyond its bound: what, how large, and how large it may be.
    pub fn failed(&self) -> Option<(&'static str, f64, f64)> {
        let bounds = &self.tolerance;
        let figures = [
            ("the number of prompts whose tokens are others", (self.prompts - self.prompts_with_same_ids) as f64, 0.0),
            ("mean |Δ ln p| from the adapter on its base", self.log_prob_difference_mean, bounds.log_prob_difference_mean),
            ("the largest |Δ logit| over the largest |logit|", self.logit_difference_max, bounds.logit_difference_max),
            ("the fraction of positions with another choice", 1.0 - self.same_choice, 1.0 - bounds.same_choice_at_least),
        ];
        // What is not a number is beyond every bound.
        figures.into_iter().find(|(_, given, limit)| given.is_nan() || given > limit)
    }

    /// Whether rounding moved the answers more than a third as far as the tuning did: then little of it may be left.
    pub fn drowns_the_tuning(&self) -> bool {
        self.method == "logits" && 3.0 * self.log_prob_difference_mean > self.adapter_effect_mean
    }

    /// One line for people.
    pub fn sentence(&self) -> String {
        if self.method == "tensors" {
            return format!("read back, all {} tensors are the same numbers", self.tensors);
        }
        format!(
            "{} {}, {} positions: mean |Δ ln p| {:.2e} (at most {:.0e}; the tuning itself: {:.2e}), largest |Δ logit| {:.2e} of the \
             largest (at most {:.0e}), same choice {:.1} %",
            self.prompts,
            self.prompts_from,
            self.positions,
            self.log_prob_difference_mean,
            self.tolerance.log_prob_difference_mean,
            self.adapter_effect_mean,
            self.logit_difference_max,
            self.tolerance.logit_difference_max,
            100.0 * self.same_choice
        )
    }

    /// The file beside the export.
    pub(super) fn to_json(&self) -> Result<Vec<u8>> {
        let value = serde_json::to_value(self).expect("plain fields always serialise");
        Ok(format!("{value:#}\n").into_bytes())
    }
}

/// Opens what was written to `written`, and compares it with the adapter on its base.
pub(super) fn prove(export: &Export<'_, '_>, written: &Path, tolerance: Tolerance, observer: &mut dyn Observer) -> Result<Proof> {
    let (prompts_from, prompts) = prompts(export)?;
    let ids = prompts.iter().map(|prompt| prompt.ids(export.base)).collect::<Result<Vec<_>>>()?;
    let vocab = export.base.config().vocab;
    let kept = LOGIT_BYTES_MAX / (4 * vocab) / ids.len();
    let positions = kept.clamp(1, POSITIONS_MAX);
    let total = 3 * ids.len() as u64;
    observer.event(Event::Start { what: "comparing answers".into(), total, unit: "prompts" });
    let mut done = 0;
    let mut ask = |model: &mut Model<CpuDevice>, ids: &[u32], observer: &mut dyn Observer| {
        if observer.stopped() {
            return Err(Error::Interrupted);
        }
        let logits = logits(model, ids, positions)?;
        done += 1;
        observer.event(Event::Progress { done, loss: None, validation: None });
        Ok(logits)
    };

    let mut model = export.base.load(export.context.threads)?;
    model.attach(export.adapter)?;
    let tuned = ids.iter().map(|ids| ask(&mut model, ids, observer)).collect::<Result<Vec<_>>>()?;
    model.detach()?;
    let mut effect = Mean::default();
    for (ids, tuned) in ids.iter().zip(&tuned) {
        let base = ask(&mut model, ids, observer)?;
        compare(vocab, ids, tuned, &base, |row| effect.add(row.log_prob_difference));
    }
    drop(model);

    let again = Base::open_offline(export.context, observer, &written.display().to_string(), "")?;
    let mut model = again.load(export.context.threads)?;
    let (mut log_prob, mut same, mut same_ids) = (Mean::default(), 0, 0);
    let (mut largest, mut largest_difference) = (0.0f64, 0.0f64);
    for ((prompt, ids), tuned) in prompts.iter().zip(&ids).zip(&tuned) {
        same_ids += usize::from(prompt.ids(&again)? == *ids);
        let exported = ask(&mut model, ids, observer)?;
        compare(vocab, ids, tuned, &exported, |row| {
            log_prob.add(row.log_prob_difference);
            same += usize::from(row.same_choice);
            largest = largest.max(row.largest);
            largest_difference = largest_difference.max(row.largest_difference);
        });
    }
    observer.event(Event::End);
    Ok(Proof {
        method: "logits",
        tensors: 0,
        prompts_from,
        prompts: ids.len(),
        positions: log_prob.count,
        prompts_with_same_ids: same_ids,
        log_prob_difference_mean: log_prob.mean(),
        logit_difference_max: largest_difference / largest,
        same_choice: same as f64 / log_prob.count.max(1) as f64,
        adapter_effect_mean: effect.mean(),
        tolerance,
    })
}

/// A text that both models read.
enum Prompt {
    Conversation(Vec<Message>),
    Document(String),
}

impl Prompt {
    /// Its tokens, by a base's own template and tokenizer.
    fn ids(&self, base: &Base) -> Result<Vec<u32>> {
        let mut ids = match self {
            Prompt::Conversation(messages) if messages.last().is_some_and(|last| last.role == Role::Assistant) => {
                base.chat()?.render("of the proof", messages, LossOn::Last, None)?.ids
            }
            Prompt::Conversation(messages) => base.chat()?.prompt_ids("of the proof", messages)?,
            Prompt::Document(text) => base.tokenizer()?.encode_document(text, Specials::AsText)?,
        };
        ids.truncate(TOKENS_MAX.min(base.config().context));
        Ok(ids)
    }
}

/// The prompts and where they come from.
fn prompts(export: &Export<'_, '_>) -> Result<(&'static str, Vec<Prompt>)> {
    let chat = export.base.template()?.is_some();
    let conversation = |messages: Vec<Message>| {
        // A plain text is nobody's turn.
        if let [Message { role: Role::Assistant, content, .. }] = messages.as_slice() {
            return Prompt::Document(content.clone());
        }
        if chat {
            return Prompt::Conversation(messages);
        }
        Prompt::Document(messages.iter().map(|message| message.content.as_str()).collect::<Vec<_>>().join("\n"))
    };
    let of_records =
        |records: &[data::Record]| spread(records, PROMPTS_MAX).iter().map(|record| conversation(record.conversation())).collect();
    let (from, prompts): (_, Vec<Prompt>) = if let Some(file) = &export.options.prompts {
        ("given records", of_records(&score::records(file)?))
    } else if let Some(run) = &export.source.run {
        ("test records", of_records(&prepare::read(run)?.split.held_out.in_domain))
    } else {
        ("built-in prompts", BUILT_IN.iter().map(|text| conversation(vec![Message::new(Role::User, *text)])).collect())
    };
    match prompts.is_empty() {
        true => Err(Error::TooFew { what: "prompts for the proof", given: 0, least: 1 }),
        false => Ok((from, prompts)),
    }
}

/// Logits of the last positions that have a token after them, `[positions, vocab]`.
fn logits(model: &mut Model<CpuDevice>, ids: &[u32], positions: usize) -> Result<Vec<f32>> {
    let last = ids.len().saturating_sub(1);
    let rows: Vec<u32> = (last.saturating_sub(positions)..last).map(|row| row as u32).collect();
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    model.reserve(&Uses {
        generation: Some(GenerationUse { rows: ids.len(), sequences: positions, cache_rows: ids.len() }),
        ..Uses::default()
    })?;
    let counted: Vec<u32> = (0..ids.len() as u32).collect();
    let segments = [Segment { rows: 0..ids.len(), parent: None }];
    let batch = Batch { tokens: ids, positions: &counted, draw_keys: &vec![0; ids.len()], segments: &segments, entries: &[], passes: &[] };
    Ok(model.logits(&batch, &rows)?)
}

/// What two models say at one position.
struct Row {
    log_prob_difference: f64,
    same_choice: bool,
    largest: f64,
    /// Infinite where one is not a number.
    largest_difference: f64,
}

/// Hands the positions of a prompt to `each`, from the logits of both.
fn compare(vocab: usize, ids: &[u32], expected: &[f32], given: &[f32], mut each: impl FnMut(Row)) {
    let positions = expected.len() / vocab;
    for (row, (expected, given)) in expected.chunks_exact(vocab).zip(given.chunks_exact(vocab)).enumerate() {
        let target = ids[ids.len() - positions + row] as usize;
        let largest = |values: &mut dyn Iterator<Item = f32>| {
            values.fold(0.0f64, |most, value| if value.is_nan() { f64::INFINITY } else { most.max(f64::from(value.abs())) })
        };
        each(Row {
            log_prob_difference: (log_prob(expected, target) - log_prob(given, target)).abs(),
            same_choice: choice(expected) == choice(given),
            largest: largest(&mut expected.iter().copied()),
            largest_difference: largest(&mut expected.iter().zip(given).map(|(a, b)| a - b)),
        });
    }
}

fn log_prob(logits: &[f32], target: usize) -> f64 {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&logit| f64::from(logit - most).exp()).sum();
    f64::from(logits[target] - most) - sum.ln()
}

fn choice(logits: &[f32]) -> usize {
    (0..logits.len()).fold(0, |best, index| if logits[index] > logits[best] { index } else { best })
}

/// A mean that is being made.
#[derive(Default)]
struct Mean {
    sum: f64,
    count: usize,
}

impl Mean {
    fn add(&mut self, value: f64) {
        self.sum += value;
        self.count += 1;
    }

    fn mean(&self) -> f64 {
        self.sum / self.count.max(1) as f64
    }
}
