//! `report.json`: everything that a run's report says, as facts. `report.html` is drawn from nothing else.

use serde::{Deserialize, Serialize};

use crate::spec::Project;

/// Version of this format.
pub const FORMAT: u32 = 1;

/// All of it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Report {
    /// [`FORMAT`].
    pub format: u32,
    /// Program that wrote it.
    pub program: String,
    /// Which run, when, how long.
    pub run: RunFacts,
    /// What for.
    pub project: Project,
    /// On which base.
    pub base: BaseFacts,
    /// The plan as (key, value) lines, in order.
    pub plan: Vec<(String, String)>,
    /// What went in, and what was dropped and why.
    pub data: DataFacts,
    /// The training; absent before `tune`.
    pub training: Option<TrainingFacts>,
    /// Predicted and measured memory.
    pub memory: MemoryFacts,
    /// What the test set can prove.
    pub power: PowerFacts,
    /// The arms, in the order of the table; empty before `evaluate`.
    pub arms: Vec<ArmFacts>,
    /// Tuned minus each rival, the gate's first.
    pub differences: Vec<DifferenceFacts>,
    /// The verdict; absent before `evaluate`.
    pub verdict: Option<VerdictFacts>,
    /// The same task from another source, time or group.
    #[serde(default)]
    pub near_ood: Option<NearOodFacts>,
    /// Perplexity of held-out plain texts, part by part; empty where answers were measured.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub texts: Vec<TextFacts>,
    /// Answers to things that the model was not made for.
    pub far_ood: Option<FarOodFacts>,
    /// What was not measured, in sentences.
    pub not_measured: Vec<String>,
    /// The held-out items with the answers before and after.
    pub items: Vec<ItemFacts>,
    /// Customer text was left out.
    pub redacted: bool,
}

/// Which run.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct RunFacts {
    /// Id of the run.
    pub id: String,
    /// Start, RFC 3339.
    pub started: String,
    /// End, RFC 3339.
    pub finished: String,
    /// Wall time in seconds.
    pub seconds: f64,
    /// Wall time of each stage.
    pub stages: Vec<(String, f64)>,
    /// CPU model, threads, compute level.
    pub machine: String,
    /// `exact` or `fast`.
    pub compute_path: String,
    /// Hash of the manifest as it was before this report was added to it.
    pub manifest: String,
    /// Head of the project's ledger when this report was written; `tunesmith audit --head` looks for it.
    #[serde(default)]
    pub project_head: String,
    /// Runs of this project so far, this one included.
    pub runs_so_far: u64,
    /// Looks at this test set so far, this one included.
    pub looks_at_test_set: u64,
}

/// The base model.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct BaseFacts {
    /// As written in the run file.
    pub name: String,
    /// Where it came from.
    pub source: String,
    /// SHA-256 of its weight files.
    pub sha256: Vec<String>,
    /// Bytes of its weight files.
    pub bytes: u64,
    /// Parameters.
    pub parameters: u64,
    /// Family and sizes in words.
    pub architecture: String,
    /// How weights are stored.
    pub storage: String,
    /// Licence; empty is BLANK.
    pub licence: String,
    /// What the licence asks, in one line; empty where it is not known.
    #[serde(default)]
    pub licence_asks: String,
    /// Who published the file; empty is BLANK.
    pub publisher: String,
    /// Whether the hash was compared with one given by the publisher.
    pub publisher_hash_known: bool,
}

/// The data.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct DataFacts {
    /// The sources.
    pub sources: Vec<SourceFacts>,
    /// Rows read.
    pub rows: u64,
    /// Records kept.
    pub records: u64,
    /// (step: reason, count) of what was dropped.
    pub rejected: Vec<(String, u64)>,
    /// Inputs with contradictory answers.
    pub conflicts: u64,
    /// Records for training.
    pub train: u64,
    /// Records for validation.
    pub validation: u64,
    /// Held-out test items.
    pub test: u64,
    /// Held-out items of the same task from another source, time or group.
    #[serde(default)]
    pub near_ood: u64,
    /// Held-out far-OOD items.
    pub far_ood: u64,
    /// Column of the strata; empty: none.
    pub stratify: String,
    /// Per stratum: name, train, validation, test.
    pub strata: Vec<(String, u64, u64, u64)>,
    /// Test records of which a random split would have put the group, the text or a near-duplicate into training.
    pub naive_split_leaks: u64,
    /// The same by what is shared; a record may count in several.
    #[serde(default)]
    pub naive_leaks: Vec<(String, u64)>,
    /// What declared held-out sources had in common with training before training gave way.
    #[serde(default)]
    pub overlaps: Vec<OverlapFacts>,
    /// Augmented copies among the training records.
    #[serde(default)]
    pub augmented: AugmentFacts,
    /// Least and most that a training record counts, where they do not all count the same.
    #[serde(default)]
    pub weights: Option<(f64, f64)>,
    /// Near-duplicates.
    #[serde(default)]
    pub near: NearFacts,
    /// Passages in several records.
    #[serde(default)]
    pub passages: PassageFacts,
    /// Lengths in words: from, to, how many questions and how many answers.
    #[serde(default)]
    pub lengths: Vec<(u64, u64, u64, u64)>,
    /// A few training records: question, answer.
    #[serde(default)]
    pub examples: Vec<(String, String)>,
    /// Texts of held-out parts and benchmarks in training.
    #[serde(default)]
    pub contamination: Vec<ContaminationFacts>,
    /// What steps found in records or changed: (step: what, records).
    #[serde(default)]
    pub findings: Vec<(String, u64)>,
    /// Labels that are probably wrong, the surest first.
    #[serde(default)]
    pub label_errors: Vec<LabelErrorFacts>,
    /// Languages of the records, ISO 639-3, where they were told.
    #[serde(default)]
    pub languages: Vec<(String, u64)>,
    /// Warnings in sentences.
    pub warnings: Vec<String>,
    /// Tokens of an epoch as rendered.
    pub tokens_rendered: u64,
    /// Tokens of an epoch after sharing beginnings.
    pub tokens_computed: u64,
    /// Tokens of an epoch that carry loss.
    pub tokens_loss: u64,
}

/// Augmented copies.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct AugmentFacts {
    /// Copies by kind.
    pub kinds: Vec<(String, u64)>,
    /// Copies that were not made because nothing in the record could be changed.
    pub unchanged: u64,
    /// Copies that were left out because they ask what a held-out record asks.
    pub held_out: u64,
    /// Copies that were left out because training has the same already.
    pub known: u64,
}

impl AugmentFacts {
    /// Copies in training.
    pub fn copies(&self) -> u64 {
        self.kinds.iter().map(|(_, copies)| copies).sum()
    }

    /// "120 augmented copies (80 typos, 40 case); 3 could not be made, …"; nothing where none was asked for.
    pub fn sentence(&self) -> Option<String> {
        let kinds: Vec<String> = self.kinds.iter().map(|(kind, copies)| format!("{copies} by {kind}")).collect();
        let left: Vec<String> = [
            (self.unchanged, "could not be made because nothing in the record could be changed"),
            (self.held_out, "were left out because they ask what a held-out record asks"),
            (self.known, "were left out because training has the same already"),
        ]
        .into_iter()
        .filter(|(copies, _)| *copies > 0)
        .map(|(copies, why)| format!("{copies} {why}"))
        .collect();
        if kinds.is_empty() && left.is_empty() {
            return None;
        }
        let by = if kinds.is_empty() { String::new() } else { format!(" ({})", kinds.join(", ")) };
        let left = if left.is_empty() { String::new() } else { format!("; {}", left.join(", ")) };
        Some(format!("{} of the training records are augmented copies{by}{left}", self.copies()))
    }
}

/// What a declared held-out part had in common with training.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct OverlapFacts {
    /// The held-out part.
    pub part: String,
    /// Its records whose text, up to case, punctuation and white space, stood in training too.
    pub texts: u64,
    /// Of these, how many were answered otherwise there.
    pub contradictory: u64,
    /// Its further records with a near-duplicate in training.
    pub near: u64,
    /// These stayed in training.
    #[serde(default)]
    pub near_kept: bool,
    /// Its records whose group stood in training too.
    pub groups: u64,
}

impl OverlapFacts {
    /// "11 test texts stood in training too, …"; nothing where nothing was shared.
    pub fn sentence(&self) -> Option<String> {
        let (mut given_up, mut kept) = (Vec::new(), None);
        if self.texts > 0 {
            let contradictory =
                if self.contradictory > 0 { format!(", {} of them contradictory", self.contradictory) } else { String::new() };
            given_up.push(format!("{} by its text (up to case, punctuation and white space{contradictory})", self.texts));
        }
        match self.near {
            0 => {}
            near if self.near_kept => {
                let advice =
                    "the sources declare what is held out, so they stay; [prepare] near_duplicates = \"drop\" takes them out of training";
                kept = Some(format!("{near} {} records have a near-duplicate in training: {advice}", self.part));
            }
            near => given_up.push(format!("{near} by a near-duplicate")),
        }
        if self.groups > 0 {
            given_up.push(format!("{} by its group", self.groups));
        }
        let who = if self.part == "near_ood" { "they are not measured on" } else { "training gave them up" };
        let given_up =
            (!given_up.is_empty()).then(|| format!("{} records leaked into training: {}; {who}", self.part, given_up.join(", ")));
        let sentences: Vec<String> = given_up.into_iter().chain(kept).collect();
        (!sentences.is_empty()).then(|| sentences.join(". "))
    }
}

/// Passages in several records.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct PassageFacts {
    /// Records that share one with an earlier record.
    pub records: u64,
    /// A few pairs of ids, and how many words in a row they share.
    pub examples: Vec<(String, String, u64)>,
}

/// Training records that have a text in common with something that training must not know.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct ContaminationFacts {
    /// A held-out part or a benchmark.
    pub with: String,
    /// How many training records.
    pub records: u64,
    /// Ids of a few.
    pub examples: Vec<String>,
}

/// A label that is probably wrong.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct LabelErrorFacts {
    /// The record.
    pub id: String,
    /// Where it stands.
    pub part: String,
    /// Its label.
    pub given: String,
    /// The label that a classifier gives it which was trained without it.
    pub suggested: String,
    /// Probability of the suggested label minus that of the given one.
    pub margin: f64,
}

/// Near-duplicates among the records.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct NearFacts {
    /// Clusters of records that ask nearly the same.
    pub clusters: u64,
    /// Records in them.
    pub records: u64,
    /// Records of the largest.
    pub largest: u64,
    /// A few pairs of ids with their Jaccard similarity.
    pub examples: Vec<(String, String, f64)>,
}

/// One source.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct SourceFacts {
    /// As written.
    pub path: String,
    /// Recognised shape.
    pub shape: String,
    /// blake3 of its bytes.
    pub hash: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// Rows.
    pub rows: u64,
    /// Role.
    pub role: String,
    /// Owner; empty is BLANK.
    pub owner: String,
    /// Licence; empty is BLANK.
    pub licence: String,
    /// Lawful basis; empty is BLANK.
    pub lawful_basis: String,
    /// Keep until; empty is BLANK.
    pub keep_until: String,
    /// When it was drawn up or handed over; empty is BLANK.
    #[serde(default)]
    pub date: String,
}

/// The training.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct TrainingFacts {
    /// Per optimiser step.
    pub steps: Vec<StepFacts>,
    /// Per look at validation.
    pub looks: Vec<LookFacts>,
    /// Step whose adapter was kept.
    pub kept_step: u64,
    /// Why it ended: "all epochs done", "no better for 3 looks", "max_steps", …
    pub ended: String,
    /// Trainable parameters.
    pub trainable_parameters: u64,
    /// Seconds of the steps.
    pub seconds: f64,
    /// Computed tokens per second.
    pub tokens_per_second: f64,
    /// How often it was resumed.
    pub resumed: u64,
    /// blake3 of the adapter's weights.
    pub adapter_hash: String,
}

/// One optimiser step.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub struct StepFacts {
    /// From 1.
    pub step: u64,
    /// Epochs done after it.
    pub epoch: f64,
    /// Training loss, nats per loss token.
    pub loss: f64,
    /// Learning rate.
    pub learning_rate: f64,
    /// Gradient norm before clipping.
    pub grad_norm: f64,
}

/// One look at validation.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub struct LookFacts {
    /// After this step (0: before training).
    pub step: u64,
    /// Validation loss, nats per loss token.
    pub loss: f64,
    /// The run's metric on validation, where it was measured.
    pub metric: Option<f64>,
}

/// Memory.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct MemoryFacts {
    /// (what, planned bytes).
    pub lines: Vec<(String, u64)>,
    /// Planned peak of the process, without what is mapped.
    pub planned_bytes: u64,
    /// Weights read where the files have them: pages that the system may drop and read again.
    #[serde(default)]
    pub mapped_bytes: u64,
    /// Measured peak, with the pages of mapped weights that were in memory (0: the system does not tell).
    pub peak_rss_bytes: u64,
}

impl MemoryFacts {
    /// What the measured peak is where the system keeps all that is mapped.
    pub fn predicted_bytes(&self) -> u64 {
        self.planned_bytes.saturating_add(self.mapped_bytes)
    }
}

/// What the test set can prove.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct PowerFacts {
    /// Items.
    pub items: u64,
    /// Smallest difference provable at 80 % power; 1 where even the greatest possible one is not.
    pub detectable_difference: f64,
    /// (difference, items it would need).
    pub items_for: Vec<(f64, u64)>,
    /// The difference is a share of the perplexity, and not of right answers.
    #[serde(default)]
    pub of_perplexity: bool,
}

/// Perplexity of the held-out plain texts of a part.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct TextFacts {
    /// `test`, `near_ood` or `far_ood`.
    pub part: String,
    /// Texts.
    pub n: u64,
    /// Documents that they are of, which are resampled whole; 0 where the base was not measured.
    pub documents: u64,
    /// Their tokens that were predicted.
    pub tokens: u64,
    /// The base's perplexity with its 95 % interval, where it was measured.
    pub before: Option<(f64, f64, f64)>,
    /// The tuned model's.
    pub after: (f64, f64, f64),
    /// The share by which it is lower, paired, with its 95 % interval.
    pub lower: Option<(f64, f64, f64)>,
}

/// One arm.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct ArmFacts {
    /// `base`, `few-shot`, `classical`, `imported`, `tuned`.
    pub name: String,
    /// `free`, `choose` or `fields`.
    pub mode: String,
    /// The verdict's metric, if this arm has it: a share, or the perplexity of plain texts.
    pub score: f64,
    /// 95 % interval of the score.
    pub interval: (f64, f64),
    /// Items.
    pub n: u64,
    /// Loss of the right answers, nats per token.
    pub loss: Option<f64>,
    /// Share of valid answers (JSON with the right fields; a known label).
    pub valid: Option<f64>,
    /// Further measures: (name, value, low, high).
    pub measures: Vec<(String, f64, f64, f64)>,
    /// Per class: (label, precision, recall, F1, n).
    pub classes: Vec<(String, f64, f64, f64, u64)>,
    /// Confusion matrix of the stratum field: labels, and counts by right answer, then by answer; the last column is "invalid".
    pub confusion: Option<(Vec<String>, Vec<Vec<u64>>)>,
    /// Seconds for all items.
    pub seconds: f64,
    /// Notes in sentences ("2 examples per class, chosen on validation").
    pub note: String,
}

/// Tuned minus a rival.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct DifferenceFacts {
    /// The rival.
    pub against: String,
    /// Mean paired difference; of perplexities the share by which tuned's is lower.
    pub estimate: f64,
    /// 95 % interval.
    pub interval: (f64, f64),
    /// Two-sided p.
    pub p: f64,
    /// Items only the tuned model got right, only the rival.
    pub discordant: (u64, u64),
    /// On what: the metric, or "fields both have" for the classical arm.
    pub metric: String,
}

/// The verdict.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct VerdictFacts {
    /// `ship`, `do not ship` or `not enough evidence`.
    pub word: String,
    /// Metric.
    pub metric: String,
    /// Decoding.
    pub mode: String,
    /// (criterion, outcome, reason).
    pub criteria: Vec<(String, String, String)>,
}

/// How the tuned model does the same task on items from elsewhere.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct NearOodFacts {
    /// Items.
    pub n: u64,
    /// Items whose label training does not know, which are left out.
    pub unknown_labels: u64,
    /// What is measured.
    pub metric: String,
    /// On the in-domain test: value, and its interval.
    pub inside: (f64, f64, f64),
    /// On these items: value, and its interval.
    pub outside: (f64, f64, f64),
}

/// Answers to things that the model was not made for.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct FarOodFacts {
    /// Items.
    pub n: u64,
    /// Share of answers that are valid all the same (confidently filled in).
    pub valid: f64,
    /// AUROC of the answer's mean log-probability, in-domain against far-OOD.
    pub auroc: f64,
    /// Sentence that says what it means.
    pub note: String,
}

/// One held-out item.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct ItemFacts {
    /// Id of the record.
    pub id: String,
    /// The customer's text; empty where redacted.
    pub input: String,
    /// The right answer.
    pub gold: String,
    /// The base model's answer.
    pub before: String,
    /// The tuned model's answer.
    pub after: String,
    /// Score before, 0 to 1; of a plain text its perplexity.
    pub score_before: f64,
    /// Score after, 0 to 1; of a plain text its perplexity.
    pub score_after: f64,
}
