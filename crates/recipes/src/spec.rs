//! The run file: what the user writes ([`RunFile`]), and what it comes to ([`RunPlan`]).
//!
//! A [`RunFile`] has an `Option` for whatever may be left out, and refuses keys that it does not know, naming
//! the nearest. [`RunFile::resolve`] fills in the defaults of [`defaults`], each of which has its reason
//! there, and gives a [`RunPlan`] without options left open: it is printed, hashed into the manifest, and
//! then executed.

mod changes;
mod making;
mod plain;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use changes::{Augment, BalanceBy, Forms};
pub use making::{Apart, Make, NearOod};

use crate::error::SpecError;
use crate::layers::LayerPattern;

/// Every default, with the reason for it. Nothing else in the program invents a value.
pub mod defaults {
    /// Any seed will do; a fixed one makes the second run equal the first.
    pub const SEED: u64 = 1;
    /// A third for the test leaves enough items for an honest interval on a few hundred records.
    pub const TEST: f64 = 0.3;
    /// Validation chooses the checkpoint and the number of examples; a tenth is enough for a ranking.
    pub const VALIDATION: f64 = 0.1;
    /// 16 is what PEFT's and TRL's guides use; on these tasks neither 8 nor 32 differed beyond noise.
    pub const RANK: usize = 16;
    /// alpha = 2 · rank, as in TRL's examples, so that learning rates carry over.
    pub const ALPHA_PER_RANK: f32 = 2.0;
    /// Small data over few epochs: early stopping guards against over-fitting, dropout costs sharing.
    pub const DROPOUT: f32 = 0.0;
    /// Plain LoRA. LoRA+ wants 16 or so where the learning rate is that of LoRA's A, which is lower than ours.
    pub const LORA_PLUS_RATIO: f64 = 1.0;
    pub(super) fn lora_plus_ratio() -> f64 {
        LORA_PLUS_RATIO
    }
    /// Every block learns; leaving some out saves memory below the lowest one, at a price in quality.
    pub const LAYERS: &str = "all";
    pub(super) fn layers() -> String {
        LAYERS.to_owned()
    }
    /// An upper bound; the best checkpoint on validation is kept.
    pub const EPOCHS: f64 = 3.0;
    /// Four records a step: small sets need many steps more than smooth gradients (the example's validation loss
    /// was 0.062 with four and 0.083 with eight), and shared beginnings keep small batches cheap.
    pub const BATCH: usize = 4;
    /// Small bases want more than the 2e-4 of 7B models; 1e-3 with a cosine won on BANKING77 and on the example.
    pub const LEARNING_RATE: f64 = 1e-3;
    /// Full fine-tuning moves every weight: transformers' default, and twenty times below LoRA's.
    pub const FULL_LEARNING_RATE: f64 = 5e-5;
    /// One gradient sum: a second one is as large as the model.
    pub const FULL_REDUCTION_LEAVES: usize = 1;
    /// A tenth of the steps to warm up: the second moment is unreliable before that.
    pub const WARMUP: f64 = 0.1;
    /// Adapters are small; decay did not help on validation.
    pub const WEIGHT_DECAY: f64 = 0.0;
    /// AdamW's decay of the first moment, as in every peer.
    pub const BETA1: f32 = 0.9;
    /// AdamW's decay of the second moment, as in every peer.
    pub const BETA2: f32 = 0.999;
    /// AdamW's eps, as in PyTorch.
    pub const EPS: f32 = 1e-8;
    /// The clipping norm of every peer.
    pub const CLIP: f64 = 1.0;
    /// Rows of a micro-batch: large enough for the matrix product's full rate, small enough for 2 GiB.
    pub const MICRO_BATCH_TOKENS: usize = 1024;
    /// Leaves of the gradient sum; 1, 2 or 4 ranks divide them evenly.
    pub const REDUCTION_LEAVES: usize = 4;
    /// Looks at validation in each epoch.
    pub const EVALUATIONS_PER_EPOCH: f64 = 1.0;
    /// Looks without improvement before training stops.
    pub const PATIENCE: usize = 3;
    /// A kill costs at most a minute.
    pub const CHECKPOINT_SECONDS: f64 = 60.0;
    /// What shingle-based studies of instruction data use: a sentence with one word changed is still the same.
    pub const NEAR_JACCARD: f64 = 0.7;
    /// Characters, because messages of a dozen words have too few shingles of words.
    pub const SHINGLE: &str = "5 characters";
    /// Longest rendered record; longer ones are rejected with a reason, never cut.
    pub const MAX_TOKENS: usize = 2048;
    /// Longest prompt with examples: dozens of them fit, and every answer has to read them.
    pub const FEW_SHOT_TOKENS: usize = 4096;
    /// Longest answer generated in evaluation, beside the longest training answer with a margin.
    pub const ANSWER_TOKENS: usize = 256;
    /// The clusters and the seed of the bootstrap are fixed; 10,000 resamples make its own noise invisible.
    pub const RESAMPLES: usize = 10_000;
}

/// The most that may be asked for: beyond it a number is a slip of the key.
pub mod limits {
    /// Passes over the data.
    pub const EPOCHS: f64 = 10_000.0;
    /// LoRA+: B's learning rate over A's.
    pub const LORA_PLUS_RATIO: f64 = 1000.0;
    /// Optimiser steps.
    pub const STEPS: usize = 10_000_000;
    /// Records of a step.
    pub const BATCH: usize = 65_536;
    /// Rows of a micro-batch.
    pub const MICRO_BATCH_TOKENS: usize = 1_048_576;
    /// Looks at validation in an epoch.
    pub const EVALUATIONS_PER_EPOCH: f64 = 10_000.0;
    /// Tokens of an answer.
    pub const ANSWER_TOKENS: usize = 65_536;
}

/// A string or a list of strings.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(untagged)]
pub enum OneOrMany {
    /// One.
    One(String),
    /// Several, in order.
    Many(Vec<String>),
}

impl OneOrMany {
    fn into_vec(self) -> Vec<String> {
        match self {
            OneOrMany::One(value) => vec![value],
            OneOrMany::Many(values) => values,
        }
    }
}

/// `tunesmith.toml` as written.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunFile {
    project: Option<ProjectSection>,
    model: Option<ModelSection>,
    engine: Option<EngineSection>,
    data: Option<DataSection>,
    prepare: Option<PrepareSection>,
    tune: Option<TuneSection>,
    evaluate: Option<EvaluateSection>,
    gate: Option<GateSection>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProjectSection {
    name: Option<String>,
    goal: Option<String>,
    users: Option<String>,
    industry: Option<String>,
    intended_use: Option<String>,
    seed: Option<u64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ModelSection {
    base: Option<String>,
    template: Option<String>,
    storage: Option<String>,
    mapped: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct EngineSection {
    compute: Option<String>,
    kv_cache: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct DataSection {
    instruction: Option<String>,
    #[serde(default)]
    source: Vec<SourceSection>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct SourceSection {
    path: Option<String>,
    format: Option<String>,
    input: Option<String>,
    target: Option<OneOrMany>,
    group: Option<String>,
    id: Option<String>,
    role: Option<String>,
    limit: Option<usize>,
    limit_per_class: Option<usize>,
    weight: Option<String>,
    owner: Option<String>,
    licence: Option<String>,
    lawful_basis: Option<String>,
    keep_until: Option<toml::Value>,
    sheet: Option<String>,
    xml_record: Option<String>,
    delimiter: Option<String>,
    quote: Option<String>,
    header: Option<bool>,
    encoding: Option<String>,
    broken_rows: Option<String>,
    mojibake: Option<String>,
    make: Option<String>,
    chunk_tokens: Option<usize>,
    chunk_overlap: Option<usize>,
    chunk_by: Option<String>,
    version_of: Option<String>,
    version: Option<String>,
    date: Option<toml::Value>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct PrepareSection {
    duplicates: Option<String>,
    conflicts: Option<String>,
    near_duplicates: Option<String>,
    near_jaccard: Option<f64>,
    shingle: Option<String>,
    normalise: Option<bool>,
    languages: Option<OneOrMany>,
    label_errors: Option<String>,
    balance: Option<f64>,
    balance_by: Option<String>,
    dates: Option<String>,
    date_order: Option<String>,
    numbers: Option<String>,
    decimal_mark: Option<String>,
    units: Option<String>,
    quality: Option<String>,
    incomplete: Option<String>,
    secrets: Option<String>,
    words: Option<String>,
    words_policy: Option<String>,
    valid_until: Option<String>,
    as_of: Option<toml::Value>,
    minimise: Option<bool>,
    passages: Option<String>,
    passage_words: Option<usize>,
    contamination: Option<String>,
    contamination_words: Option<usize>,
    benchmarks: Option<OneOrMany>,
    max_tokens: Option<usize>,
    shuffle_targets: Option<bool>,
    augment: Option<changes::AugmentSection>,
    split: Option<SplitSection>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct SplitSection {
    test: Option<f64>,
    validation: Option<f64>,
    stratify: Option<String>,
    near_ood: Option<making::NearOodSection>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct TuneSection {
    method: Option<String>,
    objective: Option<String>,
    loss_on: Option<String>,
    rank: Option<usize>,
    alpha: Option<f32>,
    rslora: Option<bool>,
    dora: Option<bool>,
    init: Option<String>,
    dropout: Option<f32>,
    targets: Option<OneOrMany>,
    layers: Option<String>,
    freeze: Option<OneOrMany>,
    lora_plus_ratio: Option<f64>,
    optimizer: Option<String>,
    epochs: Option<f64>,
    max_steps: Option<usize>,
    batch: Option<usize>,
    learning_rate: Option<f64>,
    schedule: Option<String>,
    warmup: Option<f64>,
    weight_decay: Option<f64>,
    clip: Option<f64>,
    micro_batch_tokens: Option<usize>,
    reduction_leaves: Option<usize>,
    evaluations_per_epoch: Option<f64>,
    patience: Option<usize>,
    keep: Option<String>,
    checkpoint_seconds: Option<f64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct EvaluateSection {
    metric: Option<String>,
    arms: Option<Vec<String>>,
    mode: Option<String>,
    few_shot: Option<Vec<usize>>,
    answer_tokens: Option<usize>,
    answers: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct GateSection {
    beats: Option<Vec<String>>,
    accuracy_at_least: Option<f64>,
    macro_f1_at_least: Option<f64>,
    field_accuracy_at_least: Option<f64>,
    record_exact_at_least: Option<f64>,
    valid_json_at_least: Option<f64>,
    valid_answer_at_least: Option<f64>,
    exact_match_at_least: Option<f64>,
    token_f1_at_least: Option<f64>,
    perplexity_at_most: Option<f64>,
    declared: Option<bool>,
    accepted_at_least: Option<f64>,
}

/// The keys of each section, for the unknown-key message, the reference page and the test that every key matters.
pub const KEYS: &[(&str, &[&str])] = &[
    ("", &["project", "model", "engine", "data", "prepare", "tune", "evaluate", "gate"]),
    ("project", &["name", "goal", "users", "industry", "intended_use", "seed"]),
    ("model", &["base", "template", "storage", "mapped"]),
    ("engine", &["compute", "kv_cache"]),
    ("data", &["instruction", "source"]),
    (
        "data.source",
        &[
            "path",
            "format",
            "input",
            "target",
            "group",
            "id",
            "role",
            "limit",
            "limit_per_class",
            "weight",
            "owner",
            "licence",
            "lawful_basis",
            "keep_until",
            "sheet",
            "xml_record",
            "delimiter",
            "quote",
            "header",
            "encoding",
            "broken_rows",
            "mojibake",
            "make",
            "chunk_tokens",
            "chunk_overlap",
            "chunk_by",
            "version_of",
            "version",
            "date",
        ],
    ),
    (
        "prepare",
        &[
            "duplicates",
            "conflicts",
            "near_duplicates",
            "near_jaccard",
            "shingle",
            "normalise",
            "languages",
            "label_errors",
            "balance",
            "balance_by",
            "dates",
            "date_order",
            "numbers",
            "decimal_mark",
            "units",
            "quality",
            "incomplete",
            "secrets",
            "words",
            "words_policy",
            "valid_until",
            "as_of",
            "minimise",
            "passages",
            "passage_words",
            "contamination",
            "contamination_words",
            "benchmarks",
            "max_tokens",
            "shuffle_targets",
            "augment",
            "split",
        ],
    ),
    ("prepare.augment", changes::AUGMENT_KEYS),
    ("prepare.split", &["test", "validation", "stratify", "near_ood"]),
    ("prepare.split.near_ood", &["column", "from", "values"]),
    (
        "tune",
        &[
            "method",
            "objective",
            "loss_on",
            "rank",
            "alpha",
            "rslora",
            "dora",
            "init",
            "dropout",
            "targets",
            "layers",
            "freeze",
            "lora_plus_ratio",
            "optimizer",
            "epochs",
            "max_steps",
            "batch",
            "learning_rate",
            "schedule",
            "warmup",
            "weight_decay",
            "clip",
            "micro_batch_tokens",
            "reduction_leaves",
            "evaluations_per_epoch",
            "patience",
            "keep",
            "checkpoint_seconds",
        ],
    ),
    ("evaluate", &["metric", "arms", "mode", "few_shot", "answer_tokens", "answers"]),
    (
        "gate",
        &[
            "beats",
            "accuracy_at_least",
            "macro_f1_at_least",
            "field_accuracy_at_least",
            "record_exact_at_least",
            "valid_json_at_least",
            "valid_answer_at_least",
            "exact_match_at_least",
            "token_f1_at_least",
            "perplexity_at_most",
            "declared",
            "accepted_at_least",
        ],
    ),
];

/// What the project is for; stands at the top of plan and report. Empty text is shown as BLANK.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Project {
    /// Names the run folder.
    pub name: String,
    /// What the model is to do.
    pub goal: String,
    /// For whom.
    pub users: String,
    /// Where.
    pub industry: String,
    /// How its answers are used.
    pub intended_use: String,
    /// Seed of every random draw.
    pub seed: u64,
}

/// Whether weights are read where their file has them instead of being copied.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mapped {
    /// Where the run does not fit the memory otherwise.
    #[default]
    Auto,
    /// Whatever the memory.
    Always,
    /// Copied, or the run is refused.
    Never,
}

impl Mapped {
    fn is_default(&self) -> bool {
        *self == Mapped::default()
    }
}

/// The base model.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ModelChoice {
    /// Catalogue name, folder, GGUF file or `pip:package==version/member`, as written.
    pub base: String,
    /// Built-in chat template to use instead of the base's; empty: the base's own.
    pub template: String,
    /// How the weights are held in memory, one of [`crate::storage::CHOICES`]; empty: as the files have them.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub storage: String,
    /// Whether they are read where the files have them.
    #[serde(default, skip_serializing_if = "Mapped::is_default")]
    pub mapped: Mapped,
}

/// How the model is asked in evaluation and chat. Training computes exactly whatever stands here.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct EngineChoice {
    /// Path of the products, one of [`crate::compute::PATHS`]; empty: exact.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub compute: String,
    /// What the cache of keys and values holds, one of [`crate::compute::KV_CACHES`]; empty: f32.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kv_cache: String,
}

impl EngineChoice {
    fn is_default(&self) -> bool {
        *self == EngineChoice::default()
    }
}

/// What a source's rows are for.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Split into train, validation and test.
    Split,
    /// Only for training (and validation).
    Train,
    /// Held out for the in-domain test.
    Test,
    /// All of it measured on as near out of distribution: the same task from elsewhere.
    NearOod,
    /// Things the model was not made for: held out, reported apart.
    FarOod,
}

/// One source of rows.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Source {
    /// As written, relative to the run file's folder.
    pub path: PathBuf,
    /// One of `data::Format::names()`; empty: a folder or archive, each file by its own name or content.
    pub format: String,
    /// Column or `{column}` template of the input; empty for shapes that bring messages.
    pub input: String,
    /// Columns of the target.
    pub target: Vec<String>,
    /// Column whose values never straddle a split; empty: none.
    pub group: String,
    /// Column with stable ids; empty: made from source, row and content.
    pub id: String,
    /// What its rows are for.
    pub role: Role,
    /// At most so many rows (0: all), a seeded draw.
    pub limit: usize,
    /// At most so many rows of each stratum (0: all), a seeded draw.
    pub limit_per_class: usize,
    /// Column that says how much a record counts in training; empty: all the same.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub weight: String,
    /// Whose data; empty is BLANK.
    pub owner: String,
    /// Under what licence; empty is BLANK.
    pub licence: String,
    /// On what basis; empty is BLANK.
    pub lawful_basis: String,
    /// Until when; empty is BLANK.
    pub keep_until: String,
    /// When it was drawn up or handed over; empty is BLANK.
    #[serde(default)]
    pub date: String,
    /// How its files are read.
    pub reading: Reading,
    /// What is made of its documents.
    #[serde(flatten)]
    pub make: Make,
}

/// How a source's files are read, where it is not recognised.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Reading {
    /// A workbook's sheet; empty: all visible ones.
    pub sheet: String,
    /// Path of an XML file's records.
    pub xml_record: String,
    /// Delimiter of CSV, one character; empty: recognised.
    pub delimiter: String,
    /// Quote of CSV, one character; empty: recognised.
    pub quote: String,
    /// Whether the first row of CSV names the columns.
    pub header: bool,
    /// Encoding of text; empty: recognised.
    pub encoding: String,
    /// Reject rows that cannot be read instead of refusing the source.
    pub reject_broken_rows: bool,
    /// Repair text that was UTF-8 and was misread.
    pub repair_mojibake: bool,
}

/// What happens to near-duplicates.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Near {
    /// They stand on one side of the split.
    Together,
    /// The first of each cluster stays.
    Drop,
    /// They are counted.
    Report,
    /// They are not looked for.
    Ignore,
}

/// What happens where something is found in a record.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Found {
    /// It is not looked for.
    Ignore,
    /// It is counted.
    Report,
    /// Its kind is put in its place.
    Mask,
    /// The record is dropped.
    Drop,
}

/// What shingles are made of.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Words.
    Words,
    /// Characters.
    Characters,
}

/// What texts are compared by.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Shingle {
    /// So many in a row.
    pub count: usize,
    /// Of these.
    pub unit: Unit,
}

/// How records are made.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Prepare {
    /// Drop exact duplicates, or keep them.
    pub drop_duplicates: bool,
    /// Drop records whose input has contradictory answers; they are reported either way.
    pub drop_conflicts: bool,
    /// What happens to near-duplicates.
    pub near_duplicates: Near,
    /// Jaccard similarity from which two texts are near-duplicates.
    pub near_jaccard: f64,
    /// What texts are compared by.
    pub shingle: Shingle,
    /// Unicode and white space are brought into one form.
    pub normalise: bool,
    /// Languages that are kept, ISO 639-3; empty: none is told; `any`: told, none dropped.
    pub languages: Vec<String>,
    /// What happens to labels that are probably wrong.
    pub label_errors: Found,
    /// How many times as many training records a stratum may have as the smallest; 0: any.
    pub balance: f64,
    /// How they are evened out.
    #[serde(default, skip_serializing_if = "is_sampling")]
    pub balance_by: BalanceBy,
    /// Dates, numbers and units.
    #[serde(flatten)]
    pub forms: Forms,
    /// What happens to what is no running text.
    pub quality: Found,
    /// What happens to what breaks off.
    pub incomplete: Found,
    /// What happens to keys, tokens and passwords.
    pub secrets: Found,
    /// File with words and phrases that must not occur; empty: none.
    pub words: PathBuf,
    /// What happens where one occurs.
    pub words_policy: Found,
    /// Column with the last day of validity; empty: none.
    pub valid_until: String,
    /// Rows that were valid only before this day are dropped.
    pub as_of: String,
    /// Columns of which no record is made are not kept.
    pub minimise: bool,
    /// What training must not contain, and passages that it may contain once.
    #[serde(flatten)]
    pub apart: Apart,
    /// Rows that are held out as near out of distribution.
    pub near_ood: NearOod,
    /// Longest rendered record in tokens.
    pub max_tokens: usize,
    /// Negative control: training targets are dealt out at random.
    pub shuffle_targets: bool,
    /// Copies of the training records.
    #[serde(default, skip_serializing_if = "Augment::is_default")]
    pub augment: Augment,
    /// Fraction for the in-domain test.
    pub test: f64,
    /// Fraction for validation.
    pub validation: f64,
    /// Column of the strata; the first target where not given.
    pub stratify: String,
}

fn is_sampling(by: &BalanceBy) -> bool {
    *by == BalanceBy::Sampling
}

/// Which assistant turns carry loss.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LossOn {
    /// The last answer.
    Last,
    /// All answers.
    All,
    /// As each message's `weight` says.
    Weighted,
}

/// Learning rate over the steps.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// Constant after warm-up.
    Constant,
    /// Down to zero in a line.
    Linear,
    /// Down to zero along half a cosine.
    Cosine,
}

/// Which checkpoint becomes the adapter.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// Lowest validation loss.
    Best,
    /// The last.
    Last,
}

/// How an adapter begins.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Init {
    /// A drawn at random, B zero: exactly at the base.
    #[default]
    Kaiming,
    /// At the principal singular vectors of the weights (PiSSA).
    Pissa,
}

/// What moves the parameters.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub enum Optimizer {
    /// AdamW with moments in f32.
    #[default]
    #[serde(rename = "adamw")]
    AdamW,
    /// AdamW with moments in 8 bits.
    #[serde(rename = "adamw_8bit")]
    AdamW8bit,
}

impl Optimizer {
    /// The one of that name in [`OPTIMIZERS`].
    pub fn parse(key: &str, given: Option<String>) -> Result<Optimizer, SpecError> {
        choice(key, given, &[(OPTIMIZERS[0], Optimizer::AdamW), (OPTIMIZERS[1], Optimizer::AdamW8bit)])
    }

    /// Whether it is the default.
    pub fn is_default(&self) -> bool {
        *self == Optimizer::default()
    }
}

/// How it is tuned.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Tune {
    /// One of [`METHODS`].
    pub method: String,
    /// `sft`, or `text`: plain texts, with loss on all tokens.
    pub objective: String,
    /// Which turns carry loss.
    pub loss_on: LossOn,
    /// LoRA rank.
    pub rank: usize,
    /// LoRA alpha.
    pub alpha: f32,
    /// Scale by alpha / √rank instead of alpha / rank.
    pub rslora: bool,
    /// DoRA: a trained magnitude for each output.
    #[serde(default)]
    pub dora: bool,
    /// How the adapter begins.
    #[serde(default)]
    pub init: Init,
    /// LoRA dropout.
    pub dropout: f32,
    /// Linear layers with an adapter, by Hugging Face name.
    pub targets: Vec<String>,
    /// Blocks that are trained, as written.
    #[serde(default = "defaults::layers")]
    pub layers: String,
    /// What stays frozen in full fine-tuning, of [`FREEZABLE`].
    #[serde(default)]
    pub freeze: Vec<String>,
    /// LoRA+: B's learning rate over A's.
    #[serde(default = "defaults::lora_plus_ratio")]
    pub lora_plus_ratio: f64,
    /// What moves the parameters.
    #[serde(default, skip_serializing_if = "Optimizer::is_default")]
    pub optimizer: Optimizer,
    /// Passes over the training records, at most.
    pub epochs: f64,
    /// Optimiser steps, at most (0: as the epochs say).
    pub max_steps: usize,
    /// Records of an optimiser step.
    pub batch: usize,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Its course.
    pub schedule: Schedule,
    /// Fraction of the steps to warm up.
    pub warmup: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Largest gradient norm (0: no clipping).
    pub clip: f64,
    /// Rows of a micro-batch, at most.
    pub micro_batch_tokens: usize,
    /// Leaves of the gradient sum.
    pub reduction_leaves: usize,
    /// Looks at validation per epoch.
    pub evaluations_per_epoch: f64,
    /// Looks without improvement before it stops (0: never).
    pub patience: usize,
    /// Which checkpoint becomes the adapter.
    pub keep: Keep,
    /// Seconds between checkpoints.
    pub checkpoint_seconds: f64,
}

/// How answers are decoded.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Free greedy generation.
    Free,
    /// Choice among the labels by their probability (classification).
    Choose,
    /// Nothing is answered: the probability of plain texts.
    Likelihood,
}

/// How it is evaluated.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Evaluate {
    /// One of [`METRICS`].
    pub metric: String,
    /// Arms, in the order of the table.
    pub arms: Vec<String>,
    /// Decoding that the verdict names; classification reports both.
    pub mode: Mode,
    /// Examples per class to choose among on validation (0: what fits).
    pub few_shot: Vec<usize>,
    /// Longest answer in tokens.
    pub answer_tokens: usize,
    /// Answers of an incumbent system (id, answer); empty: none.
    pub answers: PathBuf,
}

/// What was declared before training.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Gate {
    /// Arms that the tuned model must beat.
    pub beats: Vec<String>,
    /// (metric, least value).
    pub at_least: Vec<(String, f64)>,
    /// Largest perplexity of plain texts; 0: no condition.
    #[serde(default)]
    pub perplexity_at_most: f64,
    /// Every source has to be declared: owner, licence, lawful basis, date and how long it may be kept.
    #[serde(default)]
    pub declared: bool,
    /// Least share that a second person has to have accepted of a sample of the records; 0: nobody has to look.
    #[serde(default)]
    pub accepted_at_least: f64,
}

/// A run file with nothing left open.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct RunPlan {
    /// What for.
    pub project: Project,
    /// On which base.
    pub model: ModelChoice,
    /// How it is asked.
    #[serde(default, skip_serializing_if = "EngineChoice::is_default")]
    pub engine: EngineChoice,
    /// System message of every record.
    pub instruction: String,
    /// From which rows.
    pub sources: Vec<Source>,
    /// How records are made.
    pub prepare: Prepare,
    /// How it is tuned.
    pub tune: Tune,
    /// How it is evaluated.
    pub evaluate: Evaluate,
    /// What it must reach.
    pub gate: Gate,
}

impl RunPlan {
    /// Whether plain texts are learned, and not answers.
    pub fn is_text(&self) -> bool {
        self.tune.objective == plain::OBJECTIVE
    }
}

impl Source {
    /// What is made of its documents, if anything.
    pub fn derive(&self) -> Option<data::derive::Derive> {
        self.make.derive(self.target.first().map_or("text", String::as_str))
    }
}

impl RunFile {
    /// Parses a run file. Unknown keys are refused with the nearest right one.
    pub fn parse(text: &str, path: &Path) -> Result<RunFile, SpecError> {
        let unreadable = |error: toml::de::Error| {
            let index = error.span().and_then(|span| text.get(..span.start)).map(|before| before.matches('\n').count());
            let line = index.and_then(|index| text.lines().nth(index)).unwrap_or_default();
            SpecError::Toml { problem: problem(error.message(), line), line: index.map(|index| index + 1), path: path.to_owned() }
        };
        let table: toml::Table = text.parse().map_err(unreadable)?;
        check_keys(&table, "", path)?;
        toml::from_str(text).map_err(unreadable)
    }

    /// Fills in the defaults; `path` is the run file's, for messages and the project's name.
    pub fn resolve(self, path: &Path) -> Result<RunPlan, SpecError> {
        let missing = |key: &'static str, hint: &'static str| SpecError::Missing { key, hint, path: path.to_owned() };
        let project = self.project.unwrap_or_default();
        let folder_name =
            path.parent().and_then(Path::file_name).map_or_else(|| "run".to_owned(), |name| name.to_string_lossy().into_owned());
        let name = project.name.unwrap_or(folder_name);
        if name.is_empty()
            || name.len() > 100
            || !name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
            || name.starts_with('.')
        {
            return Err(SpecError::Value {
                key: "project.name".into(),
                given: name,
                expected: "letters, digits, '-', '_' and '.', at most 100".into(),
            });
        }
        let project = Project {
            name,
            goal: project.goal.unwrap_or_default(),
            users: project.users.unwrap_or_default(),
            industry: project.industry.unwrap_or_default(),
            intended_use: project.intended_use.unwrap_or_default(),
            seed: project.seed.unwrap_or(defaults::SEED),
        };

        let model = self.model.unwrap_or_default();
        let model = ModelChoice {
            base: model.base.ok_or_else(|| missing("model.base", "base = \"smollm2-135m-instruct\""))?,
            template: model.template.unwrap_or_default(),
            storage: match model.storage {
                None => String::new(),
                Some(storage) => {
                    known("model.storage", &storage, crate::storage::CHOICES)?;
                    storage
                }
            },
            mapped: choice("model.mapped", model.mapped, &[("auto", Mapped::Auto), ("always", Mapped::Always), ("never", Mapped::Never)])?,
        };

        let engine = self.engine.unwrap_or_default();
        let one_of = |key: &str, given: Option<String>, names: &[&str]| match given {
            None => Ok(String::new()),
            Some(given) => known(key, &given, names).map(|()| given),
        };
        let engine = EngineChoice {
            compute: one_of("engine.compute", engine.compute, crate::compute::PATHS)?,
            kv_cache: one_of("engine.kv_cache", engine.kv_cache, crate::compute::KV_CACHES)?,
        };
        if model.mapped == Mapped::Always && engine.compute == "fast" {
            let expected = "\"auto\" or \"never\": integer products read weights in a form of their own, which is a copy";
            return Err(range("model.mapped", "\"always\" with engine.compute = \"fast\"", expected));
        }

        let data = self.data.unwrap_or_default();
        if data.source.is_empty() {
            return Err(missing("data.source", "[[data.source]] with path, input and target"));
        }
        let is_text = self.tune.as_ref().and_then(|tune| tune.objective.as_deref()) == Some(plain::OBJECTIVE);
        let resolved = |(index, source): (usize, SourceSection)| {
            let source = if is_text { plain::source(source, index)? } else { source };
            source.resolve(index, is_text)
        };
        let sources = data.source.into_iter().enumerate().map(resolved).collect::<Result<Vec<_>, _>>()?;
        if is_text {
            plain::refuse(data.instruction.as_deref(), self.prepare.as_ref(), self.evaluate.as_ref(), self.gate.as_ref())?;
        }

        let prepare = self.prepare.unwrap_or_default();
        let split = prepare.split.unwrap_or_default();
        // A template is no column.
        let column = |source: &Source| source.target.first().filter(|target| !target.contains('{')).cloned();
        let stratify = match split.stratify {
            Some(column) => column,
            None if is_text => String::new(),
            None => sources.iter().find(|source| source.make.kind.is_empty()).and_then(column).unwrap_or_default(),
        };
        let prepare = Prepare {
            drop_duplicates: choice("prepare.duplicates", prepare.duplicates, &[("drop", true), ("keep", false)])?,
            drop_conflicts: choice("prepare.conflicts", prepare.conflicts, &[("report", false), ("drop", true)])?,
            near_duplicates: choice(
                "prepare.near_duplicates",
                prepare.near_duplicates,
                &[("together", Near::Together), ("drop", Near::Drop), ("report", Near::Report), ("ignore", Near::Ignore)],
            )?,
            near_jaccard: match prepare.near_jaccard.unwrap_or(defaults::NEAR_JACCARD) {
                jaccard if (0.3..=1.0).contains(&jaccard) => jaccard,
                jaccard => return Err(range("prepare.near_jaccard", jaccard, "from 0.3 to 1")),
            },
            shingle: shingle(&prepare.shingle.unwrap_or_else(|| defaults::SHINGLE.to_owned()))?,
            normalise: prepare.normalise.unwrap_or(false),
            languages: languages(prepare.languages.map(OneOrMany::into_vec).unwrap_or_default())?,
            label_errors: choice("prepare.label_errors", prepare.label_errors, FOUND)?,
            balance: match prepare.balance.unwrap_or(0.0) {
                ratio if ratio == 0.0 || (1.0..=1000.0).contains(&ratio) => ratio,
                ratio => return Err(range("prepare.balance", ratio, "0 (off), or from 1 (even) to 1000")),
            },
            balance_by: choice(
                "prepare.balance_by",
                prepare.balance_by,
                &[("sampling", BalanceBy::Sampling), ("weights", BalanceBy::Weights)],
            )?,
            forms: Forms::resolve(prepare.dates, prepare.date_order, prepare.numbers, prepare.decimal_mark, prepare.units)?,
            augment: prepare.augment.map(changes::AugmentSection::resolve).transpose()?.unwrap_or_default(),
            quality: choice("prepare.quality", prepare.quality, FOUND)?,
            incomplete: choice("prepare.incomplete", prepare.incomplete, FOUND)?,
            secrets: choice(
                "prepare.secrets",
                prepare.secrets,
                &[("report", Found::Report), ("mask", Found::Mask), ("drop", Found::Drop), ("ignore", Found::Ignore)],
            )?,
            words: prepare.words.map(PathBuf::from).unwrap_or_default(),
            words_policy: choice("prepare.words_policy", prepare.words_policy, &[("drop", Found::Drop), ("report", Found::Report)])?,
            as_of: as_of(prepare.as_of, prepare.valid_until.as_deref())?,
            valid_until: prepare.valid_until.unwrap_or_default(),
            minimise: prepare.minimise.unwrap_or(false),
            apart: Apart::resolve(
                prepare.passages,
                prepare.passage_words,
                prepare.contamination,
                prepare.contamination_words,
                prepare.benchmarks,
            )?,
            near_ood: split.near_ood.map(making::NearOodSection::resolve).transpose()?.unwrap_or_default(),
            max_tokens: at_least("prepare.max_tokens", prepare.max_tokens.unwrap_or(defaults::MAX_TOKENS), 8)?,
            shuffle_targets: prepare.shuffle_targets.unwrap_or(false),
            test: fraction("prepare.split.test", split.test.unwrap_or(defaults::TEST))?,
            validation: fraction("prepare.split.validation", split.validation.unwrap_or(defaults::VALIDATION))?,
            stratify,
        };
        if prepare.balance == 0.0 && prepare.balance_by == BalanceBy::Weights {
            return Err(range("prepare.balance_by", "weights", "a ratio in prepare.balance with it, such as 1"));
        }
        if prepare.test + prepare.validation >= 1.0 {
            return Err(SpecError::Value {
                key: "prepare.split".into(),
                given: format!("test {} + validation {}", prepare.test, prepare.validation),
                expected: "less than 1 together, the rest is for training".into(),
            });
        }

        let tune = self.tune.unwrap_or_default().resolve()?;
        let single_target = sources.iter().all(|source| source.target.len() <= 1);
        let evaluate = self.evaluate.unwrap_or_default();
        let few_shot = evaluate.few_shot.unwrap_or_else(|| vec![1, 2, 0]);
        let usual_arms = if is_text { plain::ARMS } else { ARMS };
        let arms =
            evaluate.arms.unwrap_or_else(|| usual_arms.iter().filter(|arm| **arm != "imported").map(|arm| (*arm).to_owned()).collect());
        for arm in &arms {
            known("evaluate.arms", arm, ARMS)?;
        }
        if !arms.iter().any(|arm| arm == "tuned") {
            return Err(SpecError::Value { key: "evaluate.arms".into(), given: arms.join(", "), expected: "\"tuned\" among them".into() });
        }
        let usual_metric = match (is_text, single_target) {
            (true, _) => plain::METRIC,
            (false, true) => "accuracy",
            (false, false) => "field_accuracy",
        };
        let metric = evaluate.metric.unwrap_or_else(|| usual_metric.to_owned());
        known("evaluate.metric", &metric, if is_text { &[plain::METRIC] } else { METRICS })?;
        let evaluate = Evaluate {
            metric,
            mode: match evaluate.mode {
                // Labels are best chosen by probability; a record with several fields has to be written.
                None if is_text => Mode::Likelihood,
                None => {
                    if single_target {
                        Mode::Choose
                    } else {
                        Mode::Free
                    }
                }
                given => choice("evaluate.mode", given, &[("free", Mode::Free), ("choose", Mode::Choose)])?,
            },
            few_shot,
            answer_tokens: between(
                "evaluate.answer_tokens",
                evaluate.answer_tokens.unwrap_or(defaults::ANSWER_TOKENS),
                1,
                limits::ANSWER_TOKENS,
            )?,
            answers: evaluate.answers.map(PathBuf::from).unwrap_or_default(),
            arms,
        };
        if evaluate.arms.iter().any(|arm| arm == "imported") && evaluate.answers.as_os_str().is_empty() {
            return Err(missing("evaluate.answers", "answers = \"answers.csv\" with the columns id, answer"));
        }

        let gate = self.gate.unwrap_or_default();
        // Nobody can be asked for a text: the base is the only rival that there is.
        let beats = gate.beats.unwrap_or_else(|| vec![if is_text { "base" } else { "few-shot" }.into()]);
        for arm in &beats {
            known("gate.beats", arm, ARMS)?;
            if arm == "tuned" || !evaluate.arms.contains(arm) {
                return Err(SpecError::Value {
                    key: "gate.beats".into(),
                    given: arm.clone(),
                    expected: format!("a rival among evaluate.arms ({})", evaluate.arms.join(", ")),
                });
            }
        }
        let mut at_least = Vec::new();
        for (name, value) in [
            ("accuracy", gate.accuracy_at_least),
            ("macro_f1", gate.macro_f1_at_least),
            ("field_accuracy", gate.field_accuracy_at_least),
            ("record_exact", gate.record_exact_at_least),
            ("valid_json", gate.valid_json_at_least),
            ("valid_answer", gate.valid_answer_at_least),
            ("exact_match", gate.exact_match_at_least),
            ("token_f1", gate.token_f1_at_least),
        ] {
            if let Some(value) = value {
                at_least.push((name.to_owned(), fraction(&format!("gate.{name}_at_least"), value)?));
            }
        }
        let declared = gate.declared.unwrap_or(false);
        let accepted_at_least = fraction("gate.accepted_at_least", gate.accepted_at_least.unwrap_or(0.0))?;
        let instruction = data.instruction.unwrap_or_default();
        let perplexity_at_most = match gate.perplexity_at_most {
            None => 0.0,
            Some(bound) if bound.is_finite() && bound >= 1.0 && is_text => bound,
            Some(bound) => return Err(range("gate.perplexity_at_most", bound, "a number of at least 1, beside objective = \"text\"")),
        };
        let gate = Gate { beats, at_least, perplexity_at_most, declared, accepted_at_least };
        Ok(RunPlan { project, model, engine, instruction, sources, prepare, tune, evaluate, gate })
    }
}

/// The arms that an evaluation can have.
pub const ARMS: &[&str] = &["base", "few-shot", "classical", "imported", "tuned"];
/// The metrics that a verdict can name.
pub const METRICS: &[&str] = &["accuracy", "macro_f1", "field_accuracy", "record_exact", "exact_match", "token_f1"];
/// How the model can be trained: by adapters beside it, or itself.
pub const METHODS: &[&str] = &["lora", "full"];
/// The optimizers by name, as transformers and TRL write them: moments in f32, the default, or in 8 bits.
pub const OPTIMIZERS: &[&str] = &["adamw", "adamw_8bit"];
/// What full fine-tuning can leave frozen beside blocks and linear layers.
pub const FREEZABLE: &[&str] = &["embeddings", "norms", "biases"];
/// What is trained in full only.
const EMBEDDINGS: &[&str] = &["embed_tokens", "lm_head"];
/// Hugging Face names of the linear layers that can carry an adapter.
pub const TARGETS: &[&str] = &["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];
/// What models that store several of them as one matrix have instead; the base decides which it has.
const FUSED_TARGETS: &[&str] = &["qkv_proj", "gate_up_proj"];

impl SourceSection {
    fn resolve(self, index: usize, is_text: bool) -> Result<Source, SpecError> {
        let key = |name: &str| format!("data.source[{index}].{name}");
        let path = self.path.filter(|path| !path.is_empty()).ok_or(SpecError::Missing {
            key: "data.source.path",
            hint: "path = \"tickets.csv\"",
            path: PathBuf::new(),
        })?;
        let format = match self.format {
            Some(format) => {
                known(&key("format"), &format, &data::Format::names())?;
                format
            }
            // A folder or archive: each file says for itself.
            None => data::Format::from_name(&path).filter(|_| path.contains('.')).map(data::Format::name).unwrap_or_default().to_owned(),
        };
        let sign = |name: &str, given: Option<String>| match given {
            Some(text) if text.len() != 1 || !text.is_ascii() || text == "\n" || text == "\r" => {
                Err(SpecError::Value { key: key(name), given: format!("{text:?}"), expected: "one ASCII character".into() })
            }
            text => Ok(text.unwrap_or_default()),
        };
        let reading = Reading {
            sheet: self.sheet.unwrap_or_default(),
            xml_record: self.xml_record.unwrap_or_default(),
            delimiter: sign("delimiter", self.delimiter)?,
            quote: sign("quote", self.quote)?,
            header: self.header.unwrap_or(true),
            encoding: self.encoding.unwrap_or_default(),
            reject_broken_rows: choice(&key("broken_rows"), self.broken_rows, &[("refuse", false), ("reject", true)])?,
            repair_mojibake: choice(&key("mojibake"), self.mojibake, &[("repair", true), ("keep", false)])?,
        };
        if format == "xml" && reading.xml_record.is_empty() {
            return Err(SpecError::Missing {
                key: "data.source.xml_record",
                hint: "xml_record = \"Document/QAPairs/QAPair\"",
                path: PathBuf::from(path),
            });
        }
        let day = |name: &str, given: Option<toml::Value>| match given {
            None => Ok(String::new()),
            Some(toml::Value::String(text)) => Ok(text),
            Some(toml::Value::Datetime(date)) => Ok(date.to_string()),
            Some(other) => Err(SpecError::Value { key: key(name), given: other.to_string(), expected: "a date such as 2028-12-31".into() }),
        };
        let make = Make::resolve(
            making::MakeKeys {
                make: self.make,
                chunk_tokens: self.chunk_tokens,
                chunk_overlap: self.chunk_overlap,
                chunk_by: self.chunk_by,
                version_of: self.version_of,
                version: self.version,
            },
            key,
        )?;
        let mut target = self.target.map(OneOrMany::into_vec).unwrap_or_default();
        let (mut input, mut group) = (self.input.unwrap_or_default(), self.group.unwrap_or_default());
        if let Some(derive) = make.derive(target.first().map_or("text", String::as_str)) {
            let (asked, answer, together) = derive.columns();
            if input.is_empty() && target.is_empty() {
                (input, target) = (asked.to_owned(), vec![answer.to_owned()]);
            }
            if group.is_empty() {
                together.clone_into(&mut group);
            }
        }
        if input.is_empty() != target.is_empty() && !is_text {
            return Err(SpecError::Value {
                key: key("input"),
                given: format!("input {input:?}, target {target:?}"),
                expected: "both, or neither where the rows bring messages".into(),
            });
        }
        if make.kind == "blocks" && !is_text {
            return Err(range(&key("make"), "\"blocks\"", "another one: blocks are plain texts, for objective = \"text\""));
        }
        if input.is_empty() && !is_text && matches!(format.as_str(), "csv" | "tsv") {
            return Err(SpecError::Missing {
                key: "data.source.input",
                hint: "input = \"message\" and target = \"category\"",
                path: PathBuf::from(path),
            });
        }
        Ok(Source {
            path: PathBuf::from(path),
            format,
            input,
            target,
            group,
            id: self.id.unwrap_or_default(),
            role: choice(
                &key("role"),
                self.role,
                &[
                    ("split", Role::Split),
                    ("train", Role::Train),
                    ("test", Role::Test),
                    ("near_ood", Role::NearOod),
                    ("far_ood", Role::FarOod),
                ],
            )?,
            limit: self.limit.unwrap_or(0),
            limit_per_class: self.limit_per_class.unwrap_or(0),
            weight: self.weight.unwrap_or_default(),
            owner: self.owner.unwrap_or_default(),
            licence: self.licence.unwrap_or_default(),
            lawful_basis: self.lawful_basis.unwrap_or_default(),
            keep_until: day("keep_until", self.keep_until)?,
            date: day("date", self.date)?,
            reading,
            make,
        })
    }
}

impl TuneSection {
    /// A key that was given and is an adapter's.
    fn of_adapters(&self) -> Option<&'static str> {
        [
            ("rank", self.rank.is_some()),
            ("alpha", self.alpha.is_some()),
            ("rslora", self.rslora.is_some()),
            ("dora", self.dora.is_some()),
            ("init", self.init.is_some()),
            ("dropout", self.dropout.is_some()),
            ("lora_plus_ratio", self.lora_plus_ratio.is_some()),
        ]
        .into_iter()
        .find_map(|(key, given)| given.then_some(key))
    }

    fn resolve(self) -> Result<Tune, SpecError> {
        let method = self.method.clone().unwrap_or_else(|| "lora".into());
        known("tune.method", &method, METHODS)?;
        let full = method == "full";
        if full && let Some(key) = self.of_adapters() {
            return Err(SpecError::Value {
                key: format!("tune.{key}"),
                given: "a value beside method = \"full\"".into(),
                expected: "nothing: it is a setting of LoRA, and full fine-tuning has no adapter".into(),
            });
        }
        let freeze = self.freeze.map(OneOrMany::into_vec).unwrap_or_default();
        for part in &freeze {
            known("tune.freeze", part, FREEZABLE)?;
        }
        if !full && !freeze.is_empty() {
            let expected = "nothing: an adapter leaves the whole base frozen, and `layers` and `targets` say where it stands";
            return Err(range("tune.freeze", "a value beside method = \"lora\"", expected));
        }
        let objective = self.objective.unwrap_or_else(|| "sft".into());
        known("tune.objective", &objective, &["sft", plain::OBJECTIVE])?;
        if objective == plain::OBJECTIVE && self.loss_on.is_some() {
            return Err(range("tune.loss_on", "a value beside objective = \"text\"", "nothing: every token of a plain text carries loss"));
        }
        let rank = at_least("tune.rank", self.rank.unwrap_or(defaults::RANK), 1)?;
        if rank > 1024 {
            return Err(SpecError::Value { key: "tune.rank".into(), given: rank.to_string(), expected: "at most 1024".into() });
        }
        let targets = match self.targets.map(OneOrMany::into_vec) {
            None => TARGETS.iter().map(|t| (*t).to_owned()).collect(),
            Some(list) if list == ["all-linear"] => TARGETS.iter().map(|t| (*t).to_owned()).collect(),
            Some(list) if list.iter().any(|target| EMBEDDINGS.contains(&target.as_str())) => {
                return Err(SpecError::Value {
                    key: "tune.targets".into(),
                    given: list.join(", "),
                    expected: "linear layers of the blocks: embeddings, the head and new tokens are not trained beside LoRA here (method = \"full\" trains the embeddings that there are)".into(),
                });
            }
            Some(list) => {
                let all = [TARGETS, FUSED_TARGETS].concat();
                for target in &list {
                    known("tune.targets", target, &all)?;
                }
                all.iter().filter(|t| list.iter().any(|x| x == *t)).map(|t| (*t).to_owned()).collect::<Vec<_>>()
            }
        };
        let dora = self.dora.unwrap_or(false);
        let init = choice("tune.init", self.init, &[("kaiming", Init::Kaiming), ("pissa", Init::Pissa)])?;
        if init == Init::Pissa && dora {
            return Err(range("tune.init", "\"pissa\" with dora = true", "one of the two: they are not built together"));
        }
        if init == Init::Pissa && self.dropout.is_some_and(|dropout| dropout > 0.0) {
            return Err(range("tune.dropout", "above 0 with init = \"pissa\"", "0: its pairs are a part of the weights"));
        }
        let layers = self.layers.unwrap_or_else(defaults::layers);
        LayerPattern::parse(&layers)?;
        if targets.is_empty() {
            return Err(SpecError::Value { key: "tune.targets".into(), given: "[]".into(), expected: TARGETS.join(", ") });
        }
        Ok(Tune {
            method,
            objective,
            loss_on: choice("tune.loss_on", self.loss_on, &[("last", LossOn::Last), ("all", LossOn::All), ("weighted", LossOn::Weighted)])?,
            rank,
            alpha: self.alpha.map_or(Ok(defaults::ALPHA_PER_RANK * rank as f32), |alpha| {
                if alpha.is_finite() && alpha > 0.0 && alpha < 1e6 {
                    Ok(alpha)
                } else {
                    Err(range("tune.alpha", alpha, "above 0, below 1e6"))
                }
            })?,
            rslora: self.rslora.unwrap_or(false),
            dora,
            init,
            dropout: self.dropout.map_or(Ok(defaults::DROPOUT), |p| {
                if (0.0..1.0).contains(&p) { Ok(p) } else { Err(range("tune.dropout", p, "from 0 to below 1")) }
            })?,
            targets,
            layers,
            freeze,
            lora_plus_ratio: up_to(
                "tune.lora_plus_ratio",
                self.lora_plus_ratio.unwrap_or(defaults::LORA_PLUS_RATIO),
                limits::LORA_PLUS_RATIO,
            )?,
            optimizer: Optimizer::parse("tune.optimizer", self.optimizer)?,
            epochs: up_to("tune.epochs", self.epochs.unwrap_or(defaults::EPOCHS), limits::EPOCHS)?,
            max_steps: max_steps("tune.max_steps", self.max_steps.unwrap_or(0))?,
            batch: between("tune.batch", self.batch.unwrap_or(defaults::BATCH), 1, limits::BATCH)?,
            learning_rate: positive(
                "tune.learning_rate",
                self.learning_rate.unwrap_or(if full { defaults::FULL_LEARNING_RATE } else { defaults::LEARNING_RATE }),
            )?,
            schedule: choice(
                "tune.schedule",
                self.schedule,
                &[("cosine", Schedule::Cosine), ("linear", Schedule::Linear), ("constant", Schedule::Constant)],
            )?,
            warmup: fraction("tune.warmup", self.warmup.unwrap_or(defaults::WARMUP))?,
            weight_decay: fraction("tune.weight_decay", self.weight_decay.unwrap_or(defaults::WEIGHT_DECAY))?,
            clip: self.clip.map_or(Ok(defaults::CLIP), |clip| if clip == 0.0 { Ok(0.0) } else { positive("tune.clip", clip) })?,
            micro_batch_tokens: between(
                "tune.micro_batch_tokens",
                self.micro_batch_tokens.unwrap_or(defaults::MICRO_BATCH_TOKENS),
                16,
                limits::MICRO_BATCH_TOKENS,
            )?,
            reduction_leaves: match self.reduction_leaves.unwrap_or(if full {
                defaults::FULL_REDUCTION_LEAVES
            } else {
                defaults::REDUCTION_LEAVES
            }) {
                leaves if leaves.is_power_of_two() && leaves <= 64 => leaves,
                leaves => return Err(range("tune.reduction_leaves", leaves, "1, 2, 4, … 64")),
            },
            evaluations_per_epoch: up_to(
                "tune.evaluations_per_epoch",
                self.evaluations_per_epoch.unwrap_or(defaults::EVALUATIONS_PER_EPOCH),
                limits::EVALUATIONS_PER_EPOCH,
            )?,
            patience: self.patience.unwrap_or(defaults::PATIENCE),
            keep: choice("tune.keep", self.keep, &[("best", Keep::Best), ("last", Keep::Last)])?,
            checkpoint_seconds: positive("tune.checkpoint_seconds", self.checkpoint_seconds.unwrap_or(defaults::CHECKPOINT_SECONDS))?,
        })
    }
}

/// What can happen to what is found, the default first.
const FOUND: &[(&str, Found)] = &[("ignore", Found::Ignore), ("report", Found::Report), ("drop", Found::Drop)];

/// ISO 639-3 codes of what is given; `any` alone tells languages and keeps all.
fn languages(given: Vec<String>) -> Result<Vec<String>, SpecError> {
    if given.iter().any(|code| code == "any") {
        return match given.len() {
            1 => Ok(given),
            _ => Err(range("prepare.languages", given.join(", "), "\"any\" alone, or codes such as \"en\" and \"de\"")),
        };
    }
    let code = |given: String| {
        let code = data::language::language_code(&given);
        code.map(str::to_owned).ok_or_else(|| range("prepare.languages", given, "codes such as \"en\", \"de\", \"fra\", or \"any\""))
    };
    given.into_iter().map(code).collect()
}

/// The day on which rows have to be valid; it goes with the column that says until when they are.
fn as_of(given: Option<toml::Value>, column: Option<&str>) -> Result<String, SpecError> {
    let day = match given {
        None => String::new(),
        Some(toml::Value::Datetime(date)) => date.to_string(),
        Some(toml::Value::String(text)) => text,
        Some(other) => return Err(range("prepare.as_of", other, "a date such as 2026-11-24")),
    };
    let dated = data::clean::day(&day) == Some(day.as_str());
    match (dated, column) {
        (true, Some(_)) => Ok(day),
        (false, None) if day.is_empty() => Ok(day),
        (false, _) if !day.is_empty() => Err(range("prepare.as_of", day, "a date such as 2026-11-24")),
        (true, None) => Err(range("prepare.as_of", day, "a column in prepare.valid_until with it")),
        _ => Err(range("prepare.valid_until", column.unwrap_or_default(), "a date in prepare.as_of with it, such as 2026-11-24")),
    }
}

/// "5 characters", "3 words".
fn shingle(given: &str) -> Result<Shingle, SpecError> {
    let parsed = given.split_once(' ').and_then(|(count, unit)| {
        let unit = match unit.trim() {
            "words" | "word" => Unit::Words,
            "characters" | "character" => Unit::Characters,
            _ => return None,
        };
        Some(Shingle { count: count.parse().ok().filter(|count| (1..=100).contains(count))?, unit })
    });
    parsed.ok_or_else(|| range("prepare.shingle", given, "such as \"5 characters\" or \"3 words\", 1 to 100 of them"))
}

/// The parser's words in the user's: the key is named, and types by what a person writes.
fn problem(words: &str, line: &str) -> String {
    let mut words = words.split_whitespace().collect::<Vec<_>>().join(" ");
    for (parser, person) in [
        ("expected usize", "expected a whole number"),
        ("expected u64", "expected a whole number"),
        ("expected f64", "expected a number"),
        ("expected f32", "expected a number"),
        ("expected a boolean", "expected true or false"),
        ("expected a sequence", "expected a list"),
        ("data did not match any variant of untagged enum OneOrMany", "expected a text or a list of texts"),
    ] {
        words = words.replace(parser, person);
    }
    match line.split_once('=') {
        Some((key, _)) => format!("`{}`: {words}", key.trim()),
        None => words,
    }
}

/// A number of optimiser steps, 0 for as many as the epochs have.
pub(crate) fn max_steps(key: &str, value: usize) -> Result<usize, SpecError> {
    between(key, value, 0, limits::STEPS)
}

/// One of the named choices; the first is the default.
fn choice<T: Copy>(key: &str, given: Option<String>, choices: &[(&str, T)]) -> Result<T, SpecError> {
    let Some(given) = given else { return Ok(choices[0].1) };
    choices.iter().find(|(name, _)| *name == given).map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        SpecError::Choice { key: key.to_owned(), nearest: nearest(&given, &names), expected: names.join(", "), given }
    })
}

pub(crate) fn known(key: &str, given: &str, names: &[&str]) -> Result<(), SpecError> {
    if names.contains(&given) {
        return Ok(());
    }
    Err(SpecError::Choice { key: key.to_owned(), nearest: nearest(given, names), expected: names.join(", "), given: given.to_owned() })
}

fn range(key: &str, given: impl ToString, expected: &str) -> SpecError {
    SpecError::Value { key: key.to_owned(), given: given.to_string(), expected: expected.to_owned() }
}

fn positive(key: &str, value: f64) -> Result<f64, SpecError> {
    if value.is_finite() && value > 0.0 { Ok(value) } else { Err(range(key, value, "a number above 0")) }
}

fn fraction(key: &str, value: f64) -> Result<f64, SpecError> {
    if (0.0..=1.0).contains(&value) { Ok(value) } else { Err(range(key, value, "from 0 to 1")) }
}

fn at_least(key: &str, value: usize, least: usize) -> Result<usize, SpecError> {
    if value >= least { Ok(value) } else { Err(range(key, value, &format!("at least {least}"))) }
}

fn between(key: &str, value: usize, least: usize, most: usize) -> Result<usize, SpecError> {
    let value = at_least(key, value, least)?;
    if value <= most { Ok(value) } else { Err(range(key, value, &format!("at most {most}"))) }
}

/// Above zero and at most `most`: beyond that it is a slip, and would run for years.
fn up_to(key: &str, value: f64, most: f64) -> Result<f64, SpecError> {
    let value = positive(key, value)?;
    if value <= most { Ok(value) } else { Err(range(key, value, &format!("at most {most}"))) }
}

/// The name that the given one was probably meant to be.
pub(crate) fn nearest(given: &str, names: &[&str]) -> String {
    let best = names.iter().max_by(|a, b| strsim::jaro_winkler(given, a).total_cmp(&strsim::jaro_winkler(given, b)));
    best.map(|name| (*name).to_owned()).unwrap_or_default()
}

fn check_keys(table: &toml::Table, section: &str, path: &Path) -> Result<(), SpecError> {
    let Some((_, keys)) = KEYS.iter().find(|(name, _)| *name == section) else { return Ok(()) };
    for (key, value) in table {
        let full = if section.is_empty() { key.clone() } else { format!("{section}.{key}") };
        if !keys.contains(&key.as_str()) {
            return Err(SpecError::UnknownKey { key: full, nearest: nearest(key, keys), path: path.to_owned() });
        }
        match value {
            toml::Value::Table(inner) => check_keys(inner, &full, path)?,
            toml::Value::Array(items) => {
                for item in items.iter().filter_map(toml::Value::as_table) {
                    check_keys(item, &full, path)?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}
