//! From what a run measured to the facts of its report.

use data::Record;
use eval::arms::Tables;
use eval::{ArmResult, Decision, Difference, Metric, Task};

use crate::base::Base;
use crate::evaluate::{Arm, Evaluator};
use crate::report::facts::{ArmFacts, BaseFacts, DifferenceFacts, FarOodFacts, ItemFacts, VerdictFacts};
use crate::spec::RunPlan;

/// The base's facts.
pub(crate) fn base(base: &Base) -> BaseFacts {
    BaseFacts {
        name: base.name.clone(),
        source: base.source.clone(),
        sha256: base.hashes.iter().map(|file| format!("{} {}", file.sha256, file.name)).collect(),
        bytes: base.hashes.iter().map(|file| file.bytes).sum(),
        parameters: base.parameters(),
        architecture: base.architecture(),
        storage: base.storage_names(),
        licence: base.licence(),
        licence_asks: base.licence_asks(),
        publisher: base.publisher(),
        // The hub names each file by its hash, and the files were compared with it.
        publisher_hash_known: base.entry.map_or(base.pinned.is_some(), |entry| entry.publisher_hash_known),
    }
}

/// An arm's facts.
pub(crate) fn arm(arm: &Arm, task: &Task) -> ArmFacts {
    let result = &arm.result;
    let valid = result.rate(Metric::ValidJson).or_else(|| result.rate(Metric::ValidAnswer));
    let shares = result.rates.iter().filter(|rate| rate.metric != Metric::Perplexity);
    let mut measures: Vec<(String, f64, f64, f64)> =
        shares.map(|rate| (rate.metric.title().to_owned(), rate.value, rate.interval.low, rate.interval.high)).collect();
    let (mut classes, mut confusion) = (Vec::new(), None);
    match (&result.tables, task) {
        (Tables::Classification { classes: rows, confusion: counts }, Task::Classification { labels }) => {
            classes = rows.iter().map(|row| (row.label.clone(), row.precision, row.recall, row.f1, row.n as u64)).collect();
            confusion = Some((labels.clone(), counts.clone()));
        }
        (Tables::Structured { fields }, _) => {
            for row in fields {
                if let Some((value, interval)) = row.rate {
                    measures.push((row.field.clone(), value, interval.low, interval.high));
                }
            }
        }
        _ => {}
    }
    ArmFacts {
        name: result.name.clone(),
        mode: result.decode.name().to_owned(),
        score: result.score,
        interval: (result.interval.low, result.interval.high),
        n: result.n as u64,
        loss: result.loss.map(|loss| loss.nats_per_token),
        valid: valid.map(|rate| rate.value),
        measures,
        classes,
        confusion,
        seconds: arm.seconds,
        note: arm.note.clone(),
    }
}

/// The confusion matrix of a record's stratum field, where an arm answers it.
pub(crate) fn confusion(evaluator: &Evaluator<'_>, result: &ArmResult) -> Option<(Vec<String>, Vec<Vec<u64>>)> {
    let Task::Structured { fields } = &evaluator.prepared.task else { return None };
    let name = &evaluator.plan.prepare.stratify;
    let position = fields.iter().position(|field| field == name)?;
    let mut labels: Vec<String> = evaluator.trial.samples().iter().filter_map(|sample| sample.stratum.clone()).collect();
    labels.sort();
    labels.dedup();
    let index = |label: &str| labels.binary_search_by(|known| known.as_str().cmp(label)).unwrap_or(labels.len());
    let mut counts = vec![vec![0; labels.len() + 1]; labels.len()];
    for (sample, item) in evaluator.trial.samples().iter().zip(&result.items) {
        let gold = index(sample.stratum.as_deref()?);
        let answered = eval::score::parse_record(&item.answer, fields).map(|values| values[position].label());
        counts[gold][answered.map_or(labels.len(), |label| index(&label))] += 1;
    }
    Some((labels, counts))
}

/// A difference's facts.
pub(crate) fn difference(difference: &Difference) -> DifferenceFacts {
    DifferenceFacts {
        against: difference.against.clone(),
        estimate: difference.estimate,
        interval: (difference.interval.low, difference.interval.high),
        p: difference.p,
        discordant: difference.mcnemar.as_ref().map_or((0, 0), |test| (test.only_first, test.only_second)),
        metric: match &difference.fields {
            Some(fields) => format!("{} of {}", difference.metric.title(), fields.join(", ")),
            None => difference.metric.title().to_owned(),
        },
    }
}

/// The verdict's facts.
pub(crate) fn verdict(evaluator: &Evaluator<'_>, decision: &Decision) -> VerdictFacts {
    VerdictFacts {
        word: decision.verdict.word().to_owned(),
        metric: evaluator.trial.metric().name().to_owned(),
        mode: evaluator.decode().name().to_owned(),
        criteria: decision
            .criteria
            .iter()
            .map(|criterion| (criterion.name.clone(), criterion.verdict.word().to_owned(), criterion.reason.clone()))
            .collect(),
    }
}

/// The held-out items with the answers of base and tuned.
pub(crate) fn items(evaluator: &Evaluator<'_>, arms: &[Arm]) -> Vec<ItemFacts> {
    let of = |name: &str| arms.iter().find(|arm| arm.result.name == name && arm.result.decode == evaluator.decode()).map(|arm| &arm.result);
    let (before, after) = (of("base"), of("tuned"));
    let metric = if evaluator.trial.metric() == Metric::MacroF1 { Metric::Accuracy } else { evaluator.trial.metric() };
    let records: &[Record] = &evaluator.prepared.split.held_out.in_domain;
    let value = |arm: Option<&ArmResult>, index: usize| {
        let of = |arm: &ArmResult| match metric {
            Metric::Perplexity => arm.losses.get(index).map(crate::texts::perplexity),
            metric => arm.items[index].value(metric),
        };
        arm.and_then(of).unwrap_or(0.0)
    };
    let answer = |arm: Option<&ArmResult>, index: usize| arm.map(|arm| arm.items[index].answer.clone()).unwrap_or_default();
    records
        .iter()
        .enumerate()
        .map(|(index, record)| ItemFacts {
            id: record.id.clone(),
            input: record.input().to_owned(),
            gold: record.answer.to_text(),
            before: answer(before, index),
            after: answer(after, index),
            score_before: value(before, index),
            score_after: value(after, index),
        })
        .collect()
}

/// The far-OOD facts, from the log-probabilities of the tuned model's answers in and out of domain.
pub(crate) fn far_ood(inside: &ArmResult, outside: &ArmResult) -> FarOodFacts {
    let scores = |arm: &ArmResult| -> Vec<f64> { arm.items.iter().filter_map(|item| item.probability).collect() };
    let (inside, far) = (scores(inside), scores(outside));
    let valid = outside.items.iter().filter(|item| item.invalid.is_none()).count() as f64 / outside.items.len().max(1) as f64;
    let auroc = auroc(&inside, &far);
    let note = format!(
        "The model was not taught to refuse: {:.0} % of its answers to these messages are well-formed all the same. Its own probability of the answer tells the two apart with an AUROC of {auroc:.2} (0.5 is chance).",
        100.0 * valid
    );
    FarOodFacts { n: outside.items.len() as u64, valid, auroc, note }
}

/// P(score inside > score outside), ties counted half (Mann–Whitney U / nm).
fn auroc(inside: &[f64], outside: &[f64]) -> f64 {
    if inside.is_empty() || outside.is_empty() {
        return f64::NAN;
    }
    let mut wins = 0.0;
    for x in inside {
        for y in outside {
            wins += if x > y {
                1.0
            } else if x == y {
                0.5
            } else {
                0.0
            };
        }
    }
    wins / (inside.len() * outside.len()) as f64
}

/// What this report does not say.
pub(crate) fn not_measured(plan: &RunPlan, arms: &[Arm], evaluated: bool, far_ood: bool) -> Vec<String> {
    let mut sentences = Vec::new();
    let mut say = |text: &str| sentences.push(text.to_owned());
    if !evaluated {
        say("Nothing was measured on held-out items yet.");
    }
    if plan.is_text() {
        say("Few-shot examples, the classical rival and an incumbent system: they answer questions, and have no probability of a text.");
        say("What the model does when it is asked something: only how well it foretells texts was measured.");
        if !arms.iter().any(|arm| arm.result.name == "base") {
            say("The base: `evaluate.arms` leaves it out, so nothing says what the tuning changed.");
        }
    } else if !arms.iter().any(|arm| arm.result.name == "imported") {
        say("No incumbent system was compared: `--answers FILE` imports its answers.");
    }
    if plan.is_text() {
        if !plan.sources.iter().any(|source| source.role == crate::spec::Role::FarOod) {
            say("Forgetting: a source of general texts with role = \"far_ood\" would show what the tuning cost elsewhere.");
        }
    } else if !far_ood {
        say("Messages outside the task: there is no source with role = \"far_ood\".");
    }
    say("Training noise: one seed was trained; another seed gives somewhat other scores.");
    say("Personal data in inputs and answers, memorisation, fairness between groups and drift: not part of this version.");
    if !plan.is_text() {
        say("Forgetting of the base's other abilities: only this task was measured.");
    }
    say("The `fast` compute path: the verdict holds for `exact`.");
    if plan.prepare.shuffle_targets {
        say("This run is a negative control: its training targets were dealt out at random.");
    }
    sentences
}

/// Customer text taken out: inputs, answers and gold; ids and scores stay.
pub(crate) fn redact(report: &mut crate::report::facts::Report) {
    for item in &mut report.items {
        for text in [&mut item.input, &mut item.gold, &mut item.before, &mut item.after] {
            text.clear();
        }
    }
    report.data.examples.clear();
    report.redacted = true;
}
