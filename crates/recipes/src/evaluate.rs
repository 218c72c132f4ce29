//! `evaluate`: the arms on the same held-out items, their differences, and the verdict.
//!
//! Every arm's answers are written to `evaluation/` as soon as it is done, so that a resumed run does not
//! answer again; scores are always computed anew from the answers.

use std::collections::BTreeMap;
use std::path::Path;

use data::{Answer as RecordAnswer, FieldValue, Record};
use engine::cpu::CpuDevice;
use engine::model::Model;
use eval::arms::Trial;
use eval::bootstrap::Resampling;
use eval::shots::{self, Amount};
use eval::verdict::Criterion;
use eval::{Answer, AnswerLoss, ArmResult, Decision, Decode, Field, Gate, Gold, Metric, Prompt, Sample, Task, Verdict};
use serde_json::{Value, json};
use store::{RunFolder, jsonl};

use crate::base::Base;
use crate::compute;
use crate::context::{Context, Observer};
use crate::error::{Error, Result};
use crate::prepare::{Prepared, originals};
use crate::responder::Responder;
use crate::spec::{Mode, RunPlan, defaults};
use crate::texts;

/// Validation items on which the number of examples is chosen; enough to rank three candidates.
const SHOT_ITEMS_MAX: usize = 48;

/// An arm with what the report says beside its scores.
pub struct Arm {
    /// Scores and tables.
    pub result: ArmResult,
    /// Wall time of its answers.
    pub seconds: f64,
    /// A sentence on how it was made.
    pub note: String,
}

/// The held-out items as a trial, by the plan's metric.
pub fn trial(plan: &RunPlan, prepared: &Prepared, records: &[Record]) -> Result<Trial> {
    let metric = metric_for(&plan.evaluate.metric, &prepared.task)?;
    let samples = records.iter().map(|record| sample(record, &prepared.task)).collect();
    let settings = Resampling { level: 0.95, resamples: defaults::RESAMPLES, seed: plan.project.seed };
    Ok(Trial::new(prepared.task.clone(), metric, samples, settings)?)
}

/// The metric of a name on this task. A run file made for records also works for labels: a label is a record
/// with one field.
pub fn metric_for(name: &str, task: &Task) -> Result<Metric> {
    let metric = Metric::from_name(name)?;
    let metric = match (task, metric) {
        (Task::Classification { .. }, Metric::FieldAccuracy | Metric::RecordExact | Metric::ExactMatch) => Metric::Accuracy,
        (Task::Classification { .. }, Metric::ValidJson) => Metric::ValidAnswer,
        (Task::Structured { .. }, Metric::Accuracy | Metric::ExactMatch) => Metric::RecordExact,
        (Task::Structured { .. }, Metric::ValidAnswer) => Metric::ValidJson,
        (Task::FreeText, Metric::Accuracy | Metric::FieldAccuracy | Metric::RecordExact) => Metric::ExactMatch,
        (_, metric) => metric,
    };
    metric.check_task(task)?;
    Ok(metric)
}

/// The gate in eval's terms.
pub fn gate(plan: &RunPlan, task: &Task) -> Result<Gate> {
    let at_least = plan.gate.at_least.iter().map(|(name, value)| Ok((metric_for(name, task)?, *value))).collect::<Result<_>>()?;
    let perplexity_at_most = (plan.gate.perplexity_at_most > 0.0).then_some(plan.gate.perplexity_at_most);
    let gate = Gate { beats: plan.gate.beats.clone(), at_least, perplexity_at_most };
    gate.check(task)?;
    Ok(gate)
}

fn sample(record: &Record, task: &Task) -> Sample {
    let gold = match (&record.answer, task) {
        (RecordAnswer::Fields(fields), Task::Structured { .. }) => {
            Gold::Fields(fields.iter().map(|(name, value)| (name.clone(), field(value))).collect())
        }
        (answer, _) => Gold::Label(answer.to_text()),
    };
    Sample {
        id: record.id.clone(),
        messages: record.messages.iter().map(|message| eval::Message::new(message.role.name(), message.content.clone())).collect(),
        answer: record.answer.to_text(),
        stratum: record.stratum.clone(),
        group: record.group.clone(),
        gold,
    }
}

/// A record's value as it is compared.
pub(crate) fn field(value: &FieldValue) -> Field {
    let parsed =
        |text: &str| serde_json::from_str(text).map_or_else(|_| Field::Text(text.to_owned()), |value: Value| Field::from_json(&value));
    match value {
        FieldValue::Null => Field::Null,
        FieldValue::Bool(value) => Field::Bool(*value),
        FieldValue::Number(text) | FieldValue::Json(text) => parsed(text),
        FieldValue::Text(text) => Field::Text(text.clone()),
    }
}

/// What all arms need.
pub struct Evaluator<'a> {
    /// Places, threads, clock.
    pub context: &'a Context<'a>,
    /// The plan.
    pub plan: &'a RunPlan,
    /// The base.
    pub base: &'a Base,
    /// Records and task.
    pub prepared: &'a Prepared,
    /// Where answers are kept.
    pub run: &'a RunFolder,
    /// The held-out items.
    pub trial: Trial,
}

impl<'a> Evaluator<'a> {
    /// On the in-domain test items.
    pub fn new(
        context: &'a Context<'a>,
        plan: &'a RunPlan,
        base: &'a Base,
        prepared: &'a Prepared,
        run: &'a RunFolder,
    ) -> Result<Evaluator<'a>> {
        let trial = trial(plan, prepared, &prepared.split.held_out.in_domain)?;
        Ok(Evaluator { context, plan, base, prepared, run, trial })
    }

    /// The decodings that are measured: the verdict's first.
    fn decodes(&self) -> Vec<Decode> {
        match (&self.prepared.task, self.plan.evaluate.mode) {
            (Task::Text, _) => vec![Decode::Likelihood],
            (Task::Classification { .. }, Mode::Choose) => vec![Decode::Choose, Decode::Free],
            (Task::Classification { .. }, Mode::Free) => vec![Decode::Free, Decode::Choose],
            _ => vec![Decode::Free],
        }
    }

    /// The decoding that the verdict names.
    pub fn decode(&self) -> Decode {
        self.decodes()[0]
    }

    /// The arms of a model, one per decoding, with or without examples before each item.
    pub fn model_arms(
        &self,
        name: &str,
        examples: &Examples,
        model: &mut Model<CpuDevice>,
        observer: &mut dyn Observer,
    ) -> Result<Vec<Arm>> {
        if self.prepared.task == Task::Text {
            return Ok(vec![texts::arm(self, name, model, observer)?]);
        }
        let prompts = examples.prompts(&self.trial);
        let mut arms = Vec::new();
        let mut losses: Option<Vec<AnswerLoss>> = None;
        for decode in self.decodes() {
            if let Some(kept) = self.read_answers(name, decode)? {
                losses = Some(kept.losses.clone());
                let result = self.trial.from_answers(name, decode, &kept.answers, Some(kept.losses))?;
                arms.push(Arm { result, seconds: kept.seconds, note: examples.note.clone() });
                continue;
            }
            let started = self.context.clock.seconds();
            let mut responder = Responder::new(self.base, model, self.answer_tokens(), observer, format!("{name}, {}", decode.name()))?;
            let gold = match losses.take() {
                Some(known) => known, // the decoding does not change them
                None => self.trial.gold_losses(&mut responder, &prompts)?,
            };
            losses = Some(gold.clone());
            let result = match decode {
                Decode::Choose => self.trial.choose(&mut responder, name, &prompts, Some(gold))?,
                _ => self.trial.free(&mut responder, name, &prompts, Some(gold))?,
            };
            let seconds = self.context.clock.seconds() - started;
            self.write_answers(&result, &responder.answers, seconds)?;
            arms.push(Arm { result, seconds, note: examples.note.clone() });
        }
        Ok(arms)
    }

    /// Longest answer of this run.
    pub(crate) fn answer_tokens(&self) -> usize {
        answer_tokens(self.plan, self.base, self.prepared)
    }

    /// Chooses on validation how many examples the few-shot arm shows.
    pub fn choose_examples(&self, model: &mut Model<CpuDevice>, observer: &mut dyn Observer) -> Result<Examples> {
        let path = self.run.file("evaluation/few-shot.json");
        if path.exists() {
            return Examples::read(&path, self.prepared);
        }
        let validation = spread(&self.prepared.split.held_out.validation, SHOT_ITEMS_MAX);
        let mut best: Option<(f64, Examples)> = None;
        let mut tried = Vec::new();
        for &amount in &self.plan.evaluate.few_shot {
            let examples = self.examples(amount)?;
            if examples.chosen.is_empty() || tried.iter().any(|(chosen, _, _)| chosen == &examples.chosen) {
                continue;
            }
            let score = if validation.is_empty() {
                0.0
            } else {
                let trial = trial(self.plan, self.prepared, &validation)?;
                let prompts = examples.prompts(&trial);
                let label = format!("few-shot, {}", examples.name);
                let mut responder = Responder::new(self.base, model, self.answer_tokens(), observer, label)?;
                let arm = match self.decode() {
                    Decode::Choose => trial.choose(&mut responder, "few-shot", &prompts, None)?,
                    _ => trial.free(&mut responder, "few-shot", &prompts, None)?,
                };
                arm.score
            };
            tried.push((examples.chosen.clone(), examples.name.clone(), score));
            if best.as_ref().is_none_or(|(most, _)| score > *most) {
                best = Some((score, examples));
            }
        }
        let Some((_, mut examples)) = best else {
            return Err(Error::TooFew { what: "examples that fit before an item", given: 0, least: 1 });
        };
        let compared: Vec<String> =
            tried.iter().map(|(chosen, name, score)| format!("{name} ({} examples): {:.1} %", chosen.len(), 100.0 * score)).collect();
        examples.note = format!(
            "{} examples ({}), chosen on {} validation items: {}",
            examples.chosen.len(),
            examples.name,
            validation.len(),
            compared.join(", ")
        );
        self.run.write(
            "evaluation/few-shot.json",
            format!("{:#}\n", json!({ "chosen": examples.ids(self.prepared), "name": examples.name, "note": examples.note })).as_bytes(),
        )?;
        Ok(examples)
    }

    /// So many examples per class (0: what fits), within what the longest record may have.
    fn examples(&self, amount: usize) -> Result<Examples> {
        let chat = self.base.chat()?;
        // What people wrote: a copy with typing errors would be a poor example.
        let records = originals(self.prepared.split.train.records());
        let ids = |record: &Record| chat.render(&record.id, &record.conversation(), text::LossOn::Last, None).map(|rendered| rendered.ids);
        // An example stands after the instruction, which is there once: it costs what it has beyond the common beginning.
        let beginning = match records {
            [first, second, ..] => ids(first)?.iter().zip(&ids(second)?).take_while(|(a, b)| a == b).count(),
            _ => 0,
        };
        let tokens = |record: &Record| ids(record).map_or(usize::MAX / 4, |ids| ids.len());
        let longest = self.prepared.split.held_out.in_domain.iter().map(tokens).max().unwrap_or(0);
        let budget = few_shot_window(self.plan, self.base).saturating_sub(longest + self.answer_tokens());
        let answers: Vec<String> = records.iter().map(|record| record.stratum.clone().unwrap_or_else(|| record.answer.to_text())).collect();
        let classes: Vec<&str> = answers.iter().map(String::as_str).collect();
        let amount = if amount == 0 { Amount::WhatFits } else { Amount::PerClass(amount) };
        let chosen =
            shots::select(&classes, amount, budget, self.plan.project.seed, |index| tokens(&records[index]).saturating_sub(beginning))
                .chosen;
        Ok(Examples::new(records, chosen, amount.name()))
    }

    fn answers_file(name: &str, decode: Decode) -> String {
        format!("evaluation/{name}.{}.jsonl", decode.name())
    }

    /// Keeps what a model's texts came to.
    pub(crate) fn write_losses(&self, file: &str, arm: &ArmResult, seconds: f64) -> Result<()> {
        self.write_file(file, arm, &[], seconds)
    }

    /// What was kept of the texts of `trial`, with the seconds that it took.
    pub(crate) fn kept_losses(&self, file: &str, trial: &Trial) -> Result<Option<(Vec<AnswerLoss>, f64)>> {
        let kept = read_answers(&self.run.file(&Self::answers_file(file, Decode::Likelihood)), trial)?;
        Ok(kept.map(|kept| (kept.losses, kept.seconds)))
    }

    fn write_answers(&self, arm: &ArmResult, answers: &[Answer], seconds: f64) -> Result<()> {
        self.write_file(&arm.name, arm, answers, seconds)
    }

    fn write_file(&self, file: &str, arm: &ArmResult, answers: &[Answer], seconds: f64) -> Result<()> {
        let mut text = format!(
            "{}\n",
            json!({ "arm": arm.name, "decode": arm.decode.name(), "compute_path": compute::name(self.base.compute()), "items": arm.n, "seconds": seconds })
        );
        for (index, item) in arm.items.iter().enumerate() {
            let (finished, log_prob) = answers.get(index).map_or((true, None), |answer| (answer.finished, answer.log_prob));
            let loss = arm.losses.get(index).map(|loss| json!([loss.log_prob, loss.tokens]));
            text +=
                &format!("{}\n", json!({ "id": item.id, "answer": item.answer, "finished": finished, "log_prob": log_prob, "gold": loss }));
        }
        self.run.write(&Self::answers_file(file, arm.decode), text.as_bytes())?;
        Ok(())
    }

    fn read_answers(&self, name: &str, decode: Decode) -> Result<Option<KeptAnswers>> {
        read_answers(&self.run.file(&Self::answers_file(name, decode)), &self.trial)
    }

    /// Answers of an incumbent system: CSV or JSONL with id and answer.
    pub fn imported(&self, path: &Path) -> Result<Arm> {
        let answers = read_imported(path)?;
        let known = self.trial.samples().iter().filter(|sample| answers.contains_key(&sample.id)).count();
        let result = self.trial.imported("imported", &answers)?;
        let note =
            format!("{known} of {} items answered in {}", self.trial.samples().len(), path.file_name().unwrap_or_default().display());
        Ok(Arm { result, seconds: 0.0, note })
    }

    /// What the gate demands of the data.
    fn about_data(&self) -> Result<Vec<Criterion>> {
        let gate = &self.plan.gate;
        let mut criteria = Vec::new();
        if gate.declared {
            let blank = |source: &&crate::spec::Source| {
                [&source.owner, &source.licence, &source.lawful_basis, &source.date, &source.keep_until]
                    .iter()
                    .any(|value| value.is_empty())
            };
            let missing: Vec<String> = self.plan.sources.iter().filter(blank).map(|source| source.path.display().to_string()).collect();
            let (verdict, reason) = match missing.as_slice() {
                [] => (Verdict::Ship, format!("{} of {} sources are declared", self.plan.sources.len(), self.plan.sources.len())),
                _ => (Verdict::DoNotShip, format!("owner, licence, lawful basis, date or keep-until is BLANK for {}", missing.join(", "))),
            };
            criteria.push(Criterion { name: "declared".into(), verdict, reason });
        }
        if gate.accepted_at_least > 0.0 {
            let name = format!("accepted_at_least {}", gate.accepted_at_least);
            let (verdict, reason) = match crate::review::last(self.run, &crate::runs::id(self.run.path()))? {
                None => (Verdict::NotEnoughEvidence, "no second person has looked at a sample of the records".to_owned()),
                Some((by, accepted, rejected)) => {
                    let of = accepted + rejected;
                    let share = accepted as f64 / of.max(1) as f64;
                    let interval = eval::statistics::wilson(share, of as f64, 0.95);
                    let reached = share >= gate.accepted_at_least;
                    let verdict = if reached { Verdict::Ship } else { Verdict::DoNotShip };
                    let found = format!("{by} accepted {accepted} of {of} ({:.3} [{:.3}, {:.3}])", share, interval.low, interval.high);
                    (verdict, format!("{found}: {}", if reached { "reaches it" } else { "below it" }))
                }
            };
            criteria.push(Criterion { name, verdict, reason });
        }
        Ok(criteria)
    }

    /// The verdict on the tuned model among these arms.
    pub fn decide(&self, arms: &[Arm]) -> Result<Option<Decision>> {
        let decode = self.decode();
        // A rival is judged in the verdict's decoding, or in the only one that it has.
        let mut judged: Vec<ArmResult> = Vec::new();
        for arm in arms {
            let only = arms.iter().filter(|other| other.result.name == arm.result.name).count() == 1;
            if arm.result.decode == decode || only {
                judged.push(arm.result.clone());
            }
        }
        let Some(tuned) = judged.iter().find(|arm| arm.name == "tuned").cloned() else { return Ok(None) };
        let gate = gate(self.plan, &self.prepared.task)?;
        Ok(Some(gate.decide(&self.trial, &tuned, &judged)?.with(self.about_data()?)))
    }
}

/// An arm's answers as they were kept.
struct KeptAnswers {
    answers: Vec<Answer>,
    losses: Vec<AnswerLoss>,
    seconds: f64,
}

/// Answers that [`Evaluator::write_answers`] wrote; `None` if there are none. They must be those of the trial's items.
fn read_answers(path: &Path, trial: &Trial) -> Result<Option<KeptAnswers>> {
    let lines = jsonl::read_lines(path)?;
    let Some((head, lines)) = lines.split_first() else { return Ok(None) };
    let corrupt = |reason: &str| Error::Corrupt { what: "the answers of an arm", reason: reason.to_owned(), path: path.to_owned() };
    let parse = |line: &String| serde_json::from_str::<Value>(line).map_err(|error| corrupt(&error.to_string()));
    let seconds = parse(head)?["seconds"].as_f64().unwrap_or(0.0);
    let (mut answers, mut losses) = (Vec::new(), Vec::new());
    for (line, sample) in lines.iter().zip(trial.samples()) {
        let value = parse(line)?;
        if value["id"].as_str() != Some(&sample.id) {
            return Err(corrupt("its items are not the held-out items"));
        }
        answers.push(Answer {
            text: value["answer"].as_str().ok_or_else(|| corrupt("an answer is missing"))?.to_owned(),
            finished: value["finished"].as_bool().unwrap_or(false),
            log_prob: value["log_prob"].as_f64(),
        });
        let gold = &value["gold"];
        losses.push(AnswerLoss { log_prob: gold[0].as_f64().unwrap_or(f64::NAN), tokens: gold[1].as_u64().unwrap_or(0) });
    }
    if answers.len() != trial.samples().len() || lines.len() != answers.len() {
        return Err(corrupt("it has another number of items"));
    }
    Ok(Some(KeptAnswers { answers, losses, seconds }))
}

/// An arm of a finished run, scored on `trial`, whose items must be its own.
pub(crate) fn kept_answers(run: &Path, name: &str, mode: &str, trial: &Trial) -> Result<ArmResult> {
    let known = [Decode::Choose, Decode::Likelihood];
    let decode = known.into_iter().find(|decode| decode.name() == mode).unwrap_or(Decode::Free);
    let path = run.join(Evaluator::answers_file(name, decode));
    let kept = read_answers(&path, trial)?.ok_or_else(|| Error::NotYet { id: crate::runs::id(run), what: "answers of the tuned model" })?;
    if decode == Decode::Likelihood {
        return Ok(trial.from_losses(name, kept.losses)?);
    }
    Ok(trial.from_answers(name, decode, &kept.answers, Some(kept.losses))?)
}

/// Ids and answers of a file with the columns id and answer.
pub(crate) fn read_imported(path: &Path) -> Result<BTreeMap<String, String>> {
    let name = path.display().to_string();
    let format = data::Format::from_name(&path.extension().unwrap_or_default().to_string_lossy()).ok_or_else(|| Error::Mismatch {
        what: "the answers' format",
        given: name.clone(),
        expected: "a .csv, .tsv, .json or .jsonl file with id and answer".into(),
    })?;
    let bytes = store::atomic::read(path, 1 << 32)?;
    let dataset = data::read::read(&name, &bytes, format, &data::read::LIMITS)?;
    let mut answers = BTreeMap::new();
    for document in &dataset.documents {
        let text = |column: &str| {
            document.fields.iter().find(|(name, _)| name == column).map(|(_, value)| match value {
                data::Value::Text(text) | data::Value::Number(text) => text.clone(),
                other => crate::prepare::value_json(other).to_string(),
            })
        };
        let missing = |column: &str| Error::Mismatch {
            what: "the columns of the answers",
            given: dataset.columns.join(", "),
            expected: format!("a column \"{column}\""),
        };
        let id = text("id").ok_or_else(|| missing("id"))?;
        answers.insert(id, text("answer").ok_or_else(|| missing("answer"))?);
    }
    Ok(answers)
}

/// Longest answer: the plan's limit, or half as much again as the longest training answer where that is less.
pub(crate) fn answer_tokens(plan: &RunPlan, base: &Base, prepared: &Prepared) -> usize {
    if plan.is_text() {
        return plan.evaluate.answer_tokens; // nothing is answered
    }
    let longest = prepared
        .split
        .train
        .records()
        .iter()
        .filter_map(|record| base.tokenizer().ok()?.encode(&record.answer.to_text(), text::Specials::AsText).ok())
        .map(|ids| ids.len());
    let longest = longest.max().unwrap_or(plan.evaluate.answer_tokens);
    plan.evaluate.answer_tokens.min(longest + longest / 2 + 8)
}

/// Longest prompt with examples, in tokens.
pub(crate) fn few_shot_window(plan: &RunPlan, base: &Base) -> usize {
    plan.prepare.max_tokens.max(defaults::FEW_SHOT_TOKENS).min(base.config().context)
}

/// At most `most` records, spread evenly.
pub(crate) fn spread(records: &[Record], most: usize) -> Vec<Record> {
    if records.len() <= most {
        return records.to_vec();
    }
    (0..most).map(|index| records[index * records.len() / most].clone()).collect()
}

/// Training records that stand before each item.
#[derive(Default)]
pub struct Examples {
    chosen: Vec<usize>,
    turns: Vec<Vec<eval::Message>>,
    name: String,
    /// A sentence on how they were chosen.
    pub note: String,
}

impl Examples {
    fn new(records: &[Record], chosen: Vec<usize>, name: String) -> Examples {
        let turns = chosen
            .iter()
            .map(|&index| {
                records[index]
                    .conversation()
                    .iter()
                    .map(|message| eval::Message::new(message.role.name(), message.content.clone()))
                    .collect()
            })
            .collect();
        Examples { chosen, turns, name, note: String::new() }
    }

    fn ids(&self, prepared: &Prepared) -> Vec<String> {
        self.chosen.iter().map(|&index| prepared.split.train.records()[index].id.clone()).collect()
    }

    fn read(path: &Path, prepared: &Prepared) -> Result<Examples> {
        let corrupt = |reason: &str| Error::Corrupt { what: "the chosen examples", reason: reason.to_owned(), path: path.to_owned() };
        let value = store::atomic::read_json(path, 1 << 30)?;
        let records = prepared.split.train.records();
        let ids = value["chosen"].as_array().ok_or_else(|| corrupt("no list"))?;
        let chosen = ids
            .iter()
            .map(|id| {
                records
                    .iter()
                    .position(|record| Some(record.id.as_str()) == id.as_str())
                    .ok_or_else(|| corrupt("an example is no training record"))
            })
            .collect::<Result<Vec<_>>>()?;
        let mut examples = Examples::new(records, chosen, value["name"].as_str().unwrap_or_default().to_owned());
        examples.note = value["note"].as_str().unwrap_or_default().to_owned();
        Ok(examples)
    }

    fn prompts(&self, trial: &Trial) -> Vec<Prompt> {
        let mut prompts = trial.prompts();
        for prompt in &mut prompts {
            prompt.messages = shots::with_examples(&prompt.messages, &self.turns);
        }
        prompts
    }
}

/// The exit word of a decision.
pub fn verdict(decision: &Decision) -> Verdict {
    decision.verdict
}
