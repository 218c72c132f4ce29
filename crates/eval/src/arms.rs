//! All answers of one contender with tables and intervals, and the paired difference of two.
//!
//! A [`Trial`] holds what all arms share: the task, the headline metric, the held-out samples, how intervals are made. Each arm of the trial
//! answers the same samples in the same order, so any two can be paired item by item.

use std::collections::{BTreeMap, BTreeSet};

use crate::Error;
use crate::arithmetic::{exp, mean, sum};
use crate::bootstrap::{Resampling, bca, mean_interval};
use crate::random::Stream;
use crate::sample::{Field, Sample, Task};
use crate::score::{Invalid, ItemScore, Metric, gold_label, score, score_partial};
use crate::statistics::{Clusters, Interval, McNemar, effective_items, mcnemar, sign_flip_p, wilson};
use crate::subject::{Answer, AnswerLoss, Prompt, Subject};

/// How an arm came to its answers. A verdict covers one way only, so its name stands beside every score.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Decode {
    /// Generated freely, greedy.
    Free,
    /// Chosen among the labels by Σ ln p.
    Choose,
    /// Predicted by a classifier over words.
    Classifier,
    /// Imported answers of another system.
    Imported,
    /// Nothing was answered: the probability of plain texts.
    Likelihood,
}

impl Decode {
    /// The name in reports and `--json`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Choose => "choose",
            Self::Classifier => "classifier",
            Self::Imported => "imported",
            Self::Likelihood => "likelihood",
        }
    }
}

/// One metric of an arm with its interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// What it is.
    pub metric: Metric,
    /// The value on these items.
    pub value: f64,
    /// Where the value would lie on other items of the same kind.
    pub interval: Interval,
    /// Items that count.
    pub n: usize,
}

/// How likely the gold answers are to an arm.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Loss {
    /// −Σ ln p / Σ tokens, over all gold answers.
    pub nats_per_token: f64,
    /// e to that.
    pub perplexity: f64,
    /// Tokens counted.
    pub tokens: u64,
    /// Interval of `nats_per_token` (BCa over whole clusters); `None` where it can't vary.
    pub interval: Option<Interval>,
}

/// One row of the per-class table.
#[derive(Debug, Clone, PartialEq)]
pub struct ClassRow {
    /// The label.
    pub label: String,
    /// Right among the answers with this label; 0 if it was never answered.
    pub precision: f64,
    /// Right among the items of this label; 0 if there are none.
    pub recall: f64,
    /// Their harmonic mean.
    pub f1: f64,
    /// Items of this label.
    pub n: usize,
    /// Answers with this label.
    pub answered: usize,
}

/// One row of the per-field table.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldRow {
    /// The field.
    pub field: String,
    /// Share of items with this field right and its interval; `None` where the arm doesn't answer this field.
    pub rate: Option<(f64, Interval)>,
    /// Items.
    pub n: usize,
}

/// The tables that only one kind of task has.
#[derive(Debug, Clone, PartialEq)]
pub enum Tables {
    /// Labels.
    Classification {
        /// One row per label, in the order of the labels.
        classes: Vec<ClassRow>,
        /// `confusion[gold][answered]`; the last column counts invalid answers. Shape: labels × (labels + 1).
        confusion: Vec<Vec<u64>>,
    },
    /// Records.
    Structured {
        /// One row per field, in the order of the fields.
        fields: Vec<FieldRow>,
    },
    /// Nothing more to say about free text and plain text.
    FreeText,
}

/// One contender's answers to all samples of a trial.
#[derive(Debug, Clone, PartialEq)]
pub struct ArmResult {
    /// The arm: `base`, `few-shot`, `classical`, `tuned`, …
    pub name: String,
    /// How it answered.
    pub decode: Decode,
    /// The headline metric.
    pub metric: Metric,
    /// Its value.
    pub score: f64,
    /// Its interval.
    pub interval: Interval,
    /// Items.
    pub n: usize,
    /// Every metric of the task, the headline included, in the task's order. An arm that answers only some fields has no
    /// rate for whole records and for validity.
    pub rates: Vec<Rate>,
    /// Loss of the gold answers, where the arm can say.
    pub loss: Option<Loss>,
    /// Tables of the task.
    pub tables: Tables,
    /// How many answers were invalid and why, in the order of the reasons; reasons without answers are left out.
    pub invalid: Vec<(Invalid, usize)>,
    /// Each item, in the order of the samples.
    pub items: Vec<ItemScore>,
    /// Each item's loss, in the same order; empty without loss.
    pub losses: Vec<AnswerLoss>,
}

impl ArmResult {
    /// The rate of a metric, where the arm has it.
    #[must_use]
    pub fn rate(&self, metric: Metric) -> Option<&Rate> {
        self.rates.iter().find(|rate| rate.metric == metric)
    }

    /// Whether the arm answers only some fields of a record.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        self.items.iter().any(|item| item.fields.contains(&None))
    }
}

/// What all arms of one comparison share.
#[derive(Debug, Clone)]
pub struct Trial {
    task: Task,
    metric: Metric,
    samples: Vec<Sample>,
    settings: Resampling,
    clusters: Clusters,
    /// Classification: the gold label's index per sample; empty otherwise.
    gold: Vec<usize>,
}

impl Trial {
    /// Checks that ids are unique, that there is something to measure and that the metric is one of the task's.
    pub fn new(task: Task, metric: Metric, samples: Vec<Sample>, settings: Resampling) -> Result<Self, Error> {
        metric.check_task(&task)?;
        if samples.is_empty() {
            return Err(Error::TooFew { what: "held-out items", least: 1, got: 0 });
        }
        let mut seen = BTreeMap::new();
        for (second, sample) in samples.iter().enumerate() {
            if let Some(first) = seen.insert(sample.id.as_str(), second) {
                return Err(Error::RepeatedId { id: sample.id.clone(), first, second });
            }
        }
        let gold = match &task {
            Task::Classification { labels } => samples.iter().map(|sample| gold_label(labels, sample)).collect::<Result<_, _>>()?,
            Task::Structured { .. } | Task::FreeText | Task::Text => Vec::new(),
        };
        let clusters = Clusters::from_groups(samples.iter().map(|sample| sample.group.as_deref()));
        Ok(Self { task, metric, samples, settings, clusters, gold })
    }

    /// The samples, in order.
    #[must_use]
    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }

    /// The task.
    #[must_use]
    pub fn task(&self) -> &Task {
        &self.task
    }

    /// The headline metric.
    #[must_use]
    pub fn metric(&self) -> Metric {
        self.metric
    }

    /// How intervals are made.
    #[must_use]
    pub fn settings(&self) -> Resampling {
        self.settings
    }

    /// The units that are resampled together.
    #[must_use]
    pub fn clusters(&self) -> &Clusters {
        &self.clusters
    }

    /// The zero-shot prompts.
    #[must_use]
    pub fn prompts(&self) -> Vec<Prompt> {
        self.samples.iter().map(Sample::prompt).collect()
    }

    /// Measures free generation; `losses` are [`Trial::gold_losses`] after the same prompts, where they were asked for.
    pub fn free<S: Subject>(
        &self,
        subject: &mut S,
        name: &str,
        prompts: &[Prompt],
        losses: Option<Vec<AnswerLoss>>,
    ) -> Result<ArmResult, S::Error> {
        let answers = subject.generate(prompts)?;
        Ok(self.from_answers(name, Decode::Free, &answers, losses)?)
    }

    /// Measures the choice among labels; `losses` as in [`Trial::free`].
    pub fn choose<S: Subject>(
        &self,
        subject: &mut S,
        name: &str,
        prompts: &[Prompt],
        losses: Option<Vec<AnswerLoss>>,
    ) -> Result<ArmResult, S::Error> {
        let Task::Classification { labels } = &self.task else {
            return Err(Error::TaskDiffers { what: "a choice among labels", expected: "classification", got: self.task.name() }.into());
        };
        let choices = subject.choose(prompts, labels)?;
        self.check_count("choices", choices.len())?;
        let mut answers = Vec::with_capacity(choices.len());
        for (sample, choice) in self.samples.iter().zip(&choices) {
            let label = labels.get(choice.index).ok_or_else(|| Error::ChoiceOutOfRange {
                id: sample.id.clone(),
                index: choice.index,
                labels: labels.len(),
            })?;
            answers.push(Answer { text: label.clone(), finished: true, log_prob: choice.log_probs.get(choice.index).copied() });
        }
        Ok(self.from_answers(name, Decode::Choose, &answers, losses)?)
    }

    /// How likely the gold answers are after these prompts, whatever the decoding.
    pub fn gold_losses<S: Subject>(&self, subject: &mut S, prompts: &[Prompt]) -> Result<Vec<AnswerLoss>, S::Error> {
        let golds: Vec<String> = self.samples.iter().map(|sample| sample.answer.clone()).collect();
        subject.log_probs(prompts, &golds)
    }

    /// An arm from answers that are already there, in the order of the samples.
    pub fn from_answers(
        &self,
        name: &str,
        decode: Decode,
        answers: &[Answer],
        losses: Option<Vec<AnswerLoss>>,
    ) -> Result<ArmResult, Error> {
        self.check_count("answers", answers.len())?;
        let items = self
            .samples
            .iter()
            .zip(answers)
            .map(|(sample, answer)| {
                let mut item = score(&self.task, sample, answer)?;
                item.probability = answer.log_prob.map(exp);
                Ok(item)
            })
            .collect::<Result<Vec<_>, Error>>()?;
        self.result(name, decode, items, losses.unwrap_or_default())
    }

    /// The arm of an incumbent system, from its answers by id. Items without an answer count as wrong and are listed
    /// as such; answers to other items are ignored.
    pub fn imported(&self, name: &str, answers: &BTreeMap<String, String>) -> Result<ArmResult, Error> {
        let mut items = Vec::with_capacity(self.samples.len());
        for sample in &self.samples {
            let text = answers.get(&sample.id);
            let answer = Answer { text: text.cloned().unwrap_or_default(), finished: true, log_prob: None };
            let mut item = score(&self.task, sample, &answer)?;
            if text.is_none() {
                item.invalid = Some(Invalid::NotAnswered);
            }
            items.push(item);
        }
        self.result(name, Decode::Imported, items, Vec::new())
    }

    /// The arm of a classifier that answers some fields of a record: per sample one value per field of the task, `None` for fields it
    /// doesn't answer.
    pub fn from_fields(&self, name: &str, rows: &[Vec<Option<Field>>]) -> Result<ArmResult, Error> {
        self.check_count("records", rows.len())?;
        let items =
            self.samples.iter().zip(rows).map(|(sample, row)| score_partial(&self.task, sample, row)).collect::<Result<Vec<_>, Error>>()?;
        self.result(name, Decode::Classifier, items, Vec::new())
    }

    pub(crate) fn check_count(&self, what: &'static str, got: usize) -> Result<(), Error> {
        if got == self.samples.len() { Ok(()) } else { Err(Error::CountDiffers { what, expected: self.samples.len(), got }) }
    }

    fn result(&self, name: &str, decode: Decode, items: Vec<ItemScore>, losses: Vec<AnswerLoss>) -> Result<ArmResult, Error> {
        if !losses.is_empty() {
            self.check_count("losses", losses.len())?;
        }
        let partial = items.iter().any(|item| item.fields.contains(&None));
        let mut rates = Vec::new();
        for &metric in Metric::of_task(&self.task) {
            if partial && metric != Metric::FieldAccuracy {
                continue;
            }
            rates.push(self.rate(metric, &items)?);
        }
        // A partial arm under a headline that needs whole records: its field accuracy is what there is.
        let headline = rates.iter().find(|rate| rate.metric == self.metric).or(rates.first()).copied();
        let headline = headline.ok_or(Error::TooFew { what: "metrics of the task", least: 1, got: 0 })?;
        let mut invalid: BTreeMap<Invalid, usize> = BTreeMap::new();
        for reason in items.iter().filter_map(|item| item.invalid) {
            *invalid.entry(reason).or_default() += 1;
        }
        Ok(ArmResult {
            name: name.to_owned(),
            decode,
            metric: headline.metric,
            score: headline.value,
            interval: headline.interval,
            n: items.len(),
            rates,
            loss: self.loss(&losses)?,
            tables: self.tables(&items),
            invalid: invalid.into_iter().collect(),
            items,
            losses,
        })
    }

    fn rate(&self, metric: Metric, items: &[ItemScore]) -> Result<Rate, Error> {
        let n = items.len();
        let Some(values) = items.iter().map(|item| item.value(metric)).collect::<Option<Vec<f64>>>() else {
            let value = self.macro_f1(items, None);
            let interval = bca(self.clusters.len(), self.settings, |counts| self.macro_f1(items, Some(counts)))?;
            let interval = interval.unwrap_or_else(|| wilson(value, self.clusters.len() as f64, self.settings.level));
            return Ok(Rate { metric, value, interval, n });
        };
        let interval = if metric.is_rate() {
            wilson(mean(&values), effective_items(&values, &self.clusters), self.settings.level)
        } else {
            mean_interval(&values, &self.clusters, (0.0, 1.0), self.settings)?
        };
        Ok(Rate { metric, value: mean(&values), interval, n })
    }

    /// Mean F1 of the classes that occur, as gold or as answer; each cluster counted `counts` times.
    fn macro_f1(&self, items: &[ItemScore], counts: Option<&[u32]>) -> f64 {
        let Task::Classification { labels } = &self.task else {
            return 0.0;
        };
        let mut table = F1Table::new(labels.len());
        for (unit, members) in self.clusters.members.iter().enumerate() {
            let count = counts.map_or(1, |counts| counts[unit]);
            if count > 0 {
                for &item in members {
                    table.add(self.gold[item], items[item].predicted, u64::from(count));
                }
            }
        }
        table.macro_f1()
    }

    pub(crate) fn loss(&self, losses: &[AnswerLoss]) -> Result<Option<Loss>, Error> {
        let tokens: u64 = losses.iter().map(|loss| loss.tokens).sum();
        if tokens == 0 {
            return Ok(None);
        }
        let log_probs: Vec<f64> = losses.iter().map(|loss| loss.log_prob).collect();
        let counts: Vec<f64> = losses.iter().map(|loss| loss.tokens as f64).collect();
        let (log_probs, counts) = (self.clusters.totals(&log_probs), self.clusters.totals(&counts));
        let interval = bca(self.clusters.len(), self.settings, |times| {
            let (mut nats, mut tokens) = (0.0, 0.0);
            for (unit, &times) in times.iter().enumerate() {
                nats -= f64::from(times) * log_probs[unit];
                tokens += f64::from(times) * counts[unit];
            }
            if tokens > 0.0 { nats / tokens } else { 0.0 }
        })?;
        let nats_per_token = -sum(log_probs.iter().copied()) / tokens as f64;
        Ok(Some(Loss { nats_per_token, perplexity: exp(nats_per_token), tokens, interval }))
    }

    fn tables(&self, items: &[ItemScore]) -> Tables {
        match &self.task {
            Task::Classification { labels } => {
                let mut confusion = vec![vec![0_u64; labels.len() + 1]; labels.len()];
                let mut table = F1Table::new(labels.len());
                for (item, &gold) in items.iter().zip(&self.gold) {
                    confusion[gold][item.predicted.unwrap_or(labels.len())] += 1;
                    table.add(gold, item.predicted, 1);
                }
                let classes = labels
                    .iter()
                    .enumerate()
                    .map(|(class, label)| ClassRow {
                        label: label.clone(),
                        precision: share(table.right[class], table.answered[class]),
                        recall: share(table.right[class], table.gold[class]),
                        f1: table.f1(class),
                        n: table.gold[class] as usize,
                        answered: table.answered[class] as usize,
                    })
                    .collect();
                Tables::Classification { classes, confusion }
            }
            Task::Structured { fields } => Tables::Structured {
                fields: fields
                    .iter()
                    .enumerate()
                    .map(|(field, name)| {
                        let values: Option<Vec<f64>> =
                            items.iter().map(|item| item.fields[field].map(|right| f64::from(u8::from(right)))).collect();
                        FieldRow {
                            field: name.clone(),
                            rate: values.map(|values| {
                                let rate = mean(&values);
                                let n = effective_items(&values, &self.clusters);
                                (rate, wilson(rate, n, self.settings.level))
                            }),
                            n: items.len(),
                        }
                    })
                    .collect(),
            },
            Task::FreeText | Task::Text => Tables::FreeText,
        }
    }

    /// Tuned minus rival on the headline metric.
    pub fn compare(&self, tuned: &ArmResult, rival: &ArmResult) -> Result<Difference, Error> {
        self.compare_by(self.metric, tuned, rival)
    }

    /// Tuned minus rival on a metric.
    ///
    /// Where one of them answers only some fields of a record, both are compared on the mean accuracy of the fields that both
    /// answer, and [`Difference::fields`] names these.
    pub fn compare_by(&self, metric: Metric, tuned: &ArmResult, rival: &ArmResult) -> Result<Difference, Error> {
        metric.check_task(&self.task)?;
        self.check_paired(tuned, rival)?;
        match metric {
            Metric::MacroF1 => return self.compare_macro_f1(tuned, rival),
            Metric::Perplexity => return self.compare_perplexity(tuned, rival),
            _ => {}
        }
        if tuned.is_partial() || rival.is_partial() {
            let Task::Structured { fields } = &self.task else {
                return Err(Error::TaskDiffers { what: "an arm that answers some fields", expected: "structured", got: self.task.name() });
            };
            let shared: BTreeSet<usize> = (0..fields.len())
                .filter(|&field| {
                    let answers = |arm: &ArmResult| arm.items.iter().all(|item| item.fields[field].is_some());
                    answers(tuned) && answers(rival)
                })
                .collect();
            let value = |item: &ItemScore| item.field_share(|field| shared.contains(&field));
            let names = shared.iter().map(|&field| fields[field].clone()).collect();
            return self.difference(Metric::FieldAccuracy, Some(names), tuned, rival, value);
        }
        self.difference(metric, None, tuned, rival, |item| item.value(metric).unwrap_or(0.0))
    }

    /// The difference of each field that both arms answer, in the order of the fields. The p values are adjusted by
    /// Holm's method over these fields, since several are looked at.
    pub fn compare_fields(&self, tuned: &ArmResult, rival: &ArmResult) -> Result<Vec<Difference>, Error> {
        self.check_paired(tuned, rival)?;
        let Task::Structured { fields } = &self.task else {
            return Ok(Vec::new());
        };
        let mut differences = Vec::new();
        for (field, name) in fields.iter().enumerate() {
            let answers = |arm: &ArmResult| arm.items.iter().all(|item| item.fields[field].is_some());
            if answers(tuned) && answers(rival) {
                let value = |item: &ItemScore| item.field_share(|other| other == field);
                differences.push(self.difference(Metric::FieldAccuracy, Some(vec![name.clone()]), tuned, rival, value)?);
            }
        }
        let p_values: Vec<f64> = differences.iter().map(|difference| difference.p).collect();
        for (difference, p) in differences.iter_mut().zip(crate::statistics::holm(&p_values)) {
            difference.p = p;
        }
        Ok(differences)
    }

    pub(crate) fn check_paired(&self, left: &ArmResult, right: &ArmResult) -> Result<(), Error> {
        for position in 0..left.items.len().max(right.items.len()).max(self.samples.len()) {
            let id = |arm: &ArmResult| arm.items.get(position).map_or("(none)", |item| item.id.as_str()).to_owned();
            let (left_id, right_id) = (id(left), id(right));
            let here = self.samples.get(position).map_or("(none)", |sample| sample.id.as_str());
            if left_id != right_id || left_id != here {
                return Err(Error::ItemsDiffer { left: left.name.clone(), right: right.name.clone(), position, left_id, right_id });
            }
        }
        Ok(())
    }

    fn difference(
        &self,
        metric: Metric,
        fields: Option<Vec<String>>,
        tuned: &ArmResult,
        rival: &ArmResult,
        value: impl Fn(&ItemScore) -> f64,
    ) -> Result<Difference, Error> {
        let left: Vec<f64> = tuned.items.iter().map(&value).collect();
        let right: Vec<f64> = rival.items.iter().map(&value).collect();
        let differences: Vec<f64> = left.iter().zip(&right).map(|(left, right)| left - right).collect();
        let is_rate = metric.is_rate() || fields.as_ref().is_some_and(|fields| fields.len() == 1);
        let test = is_rate.then(|| {
            let count = |sign: f64| differences.iter().filter(|&&difference| difference == sign).count() as u64;
            mcnemar(count(1.0), count(-1.0))
        });
        let (p, p_method) = match test {
            Some(test) if self.clusters.are_singletons() => (test.p, "exact McNemar"),
            _ => (sign_flip_p(&differences, &self.clusters, self.settings.resamples, self.settings.seed), "sign-flip permutation"),
        };
        Ok(Difference {
            against: rival.name.clone(),
            metric,
            fields,
            estimate: mean(&differences),
            interval: mean_interval(&differences, &self.clusters, (-1.0, 1.0), self.settings)?,
            p,
            p_method,
            mcnemar: test,
            n: differences.len(),
            clusters: self.clusters.len(),
            tuned: mean(&left),
            rival: mean(&right),
            unlike: differences.iter().filter(|&&difference| difference != 0.0).count(),
        })
    }

    /// Macro F1 has no value per item: both arms are resampled jointly, and the permutation swaps the two arms' answers of whole
    /// clusters.
    fn compare_macro_f1(&self, tuned: &ArmResult, rival: &ArmResult) -> Result<Difference, Error> {
        let (left, right) = (self.macro_f1(&tuned.items, None), self.macro_f1(&rival.items, None));
        let unlike = tuned.items.iter().zip(&rival.items).filter(|(left, right)| left.predicted != right.predicted).count();
        let interval = bca(self.clusters.len(), self.settings, |counts| {
            self.macro_f1(&tuned.items, Some(counts)) - self.macro_f1(&rival.items, Some(counts))
        })?;
        let interval = interval.unwrap_or_else(|| {
            if unlike == 0 {
                Interval { low: 0.0, high: 0.0, level: self.settings.level }
            } else {
                let inner = wilson(0.5 * (left - right + 1.0), self.clusters.len() as f64, self.settings.level);
                Interval { low: 2.0 * inner.low - 1.0, high: 2.0 * inner.high - 1.0, level: inner.level }
            }
        });
        let bar = (left - right).abs() - 1e-12;
        let stream = Stream::new(self.settings.seed, "swap");
        let hits = (0..self.settings.resamples as u64)
            .filter(|&draw| {
                let stream = stream.fork(draw);
                let classes = self.class_count();
                let (mut first, mut second) = (F1Table::new(classes), F1Table::new(classes));
                for (unit, members) in self.clusters.members.iter().enumerate() {
                    let swapped = stream.at(unit as u64) & 1 == 1;
                    for &item in members {
                        let (one, two) = (tuned.items[item].predicted, rival.items[item].predicted);
                        let (one, two) = if swapped { (two, one) } else { (one, two) };
                        first.add(self.gold[item], one, 1);
                        second.add(self.gold[item], two, 1);
                    }
                }
                (first.macro_f1() - second.macro_f1()).abs() >= bar
            })
            .count();
        Ok(Difference {
            against: rival.name.clone(),
            metric: Metric::MacroF1,
            fields: None,
            estimate: left - right,
            interval,
            p: (1 + hits) as f64 / (1 + self.settings.resamples) as f64,
            p_method: "swap permutation",
            mcnemar: None,
            n: tuned.items.len(),
            clusters: self.clusters.len(),
            tuned: left,
            rival: right,
            unlike,
        })
    }

    fn class_count(&self) -> usize {
        match &self.task {
            Task::Classification { labels } => labels.len(),
            Task::Structured { .. } | Task::FreeText | Task::Text => 0,
        }
    }
}

/// Tuned minus one rival, on the same items.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// The rival.
    pub against: String,
    /// What was compared.
    pub metric: Metric,
    /// The fields it was compared on, where not all.
    pub fields: Option<Vec<String>>,
    /// Tuned minus rival; of perplexities the share by which tuned's is lower, so that above zero is better everywhere.
    pub estimate: f64,
    /// Its paired interval (BCa over whole clusters).
    pub interval: Interval,
    /// Two-sided p of "no difference".
    pub p: f64,
    /// The test behind `p`.
    pub p_method: &'static str,
    /// Discordant items and exact test, for right/wrong metrics (items counted singly, whatever their clusters).
    pub mcnemar: Option<McNemar>,
    /// Items.
    pub n: usize,
    /// Independent units among them.
    pub clusters: usize,
    /// Tuned's score on what was compared (its perplexity, of plain texts).
    pub tuned: f64,
    /// The rival's score on what was compared.
    pub rival: f64,
    /// Items on which the two differ.
    pub unlike: usize,
}

/// Counts behind F1: right answers, answers and gold items per class.
struct F1Table {
    right: Vec<u64>,
    answered: Vec<u64>,
    gold: Vec<u64>,
}

impl F1Table {
    fn new(classes: usize) -> Self {
        Self { right: vec![0; classes], answered: vec![0; classes], gold: vec![0; classes] }
    }

    fn add(&mut self, gold: usize, predicted: Option<usize>, times: u64) {
        self.gold[gold] += times;
        if let Some(predicted) = predicted {
            self.answered[predicted] += times;
            if predicted == gold {
                self.right[gold] += times;
            }
        }
    }

    /// 2·right/(answered + gold), which is the harmonic mean of precision and recall.
    fn f1(&self, class: usize) -> f64 {
        share(2 * self.right[class], self.answered[class] + self.gold[class])
    }

    fn macro_f1(&self) -> f64 {
        let (mut total, mut classes) = (0.0, 0_u32);
        for class in 0..self.gold.len() {
            if self.gold[class] + self.answered[class] > 0 {
                total += self.f1(class);
                classes += 1;
            }
        }
        if classes == 0 { 0.0 } else { total / f64::from(classes) }
    }
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}
