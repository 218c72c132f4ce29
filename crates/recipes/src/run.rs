//! `run`: all stages in order, each of which is skipped where a resumed run has done it already.
//!
//! ```text
//! read run file → create run folder → prepare → [base, few-shot, classical, imported] → tune → [tuned] → decide → report
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use engine::cpu::CpuDevice;
use engine::memory::Policy;
use engine::model::Model;
use eval::Verdict;
use serde::Serialize;
use serde_json::{Value, json};
use store::RunFolder;

use crate::adapters;
use crate::base::Base;
use crate::classical;
use crate::compute;
use crate::context::{Context, Event, Observer};
use crate::error::{Error, Result};
use crate::evaluate::{Arm, Evaluator, Examples, trial};
use crate::governance::{self, Governance};
use crate::plan::{self, Planned};
use crate::prepare::{self, Prepared, Story};
use crate::rendering::Rendering;
use crate::report::assemble;
use crate::report::facts::{FORMAT, FarOodFacts, MemoryFacts, NearOodFacts, PowerFacts, Report, RunFacts, TrainingFacts};
use crate::responder::Responder;
use crate::runs::{self, Stage};
use crate::spec::{self, RunPlan};
use crate::texts;
use crate::tune;
use crate::tune_full;

/// How far to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// Records only.
    Prepared,
    /// The adapter.
    Tuned,
    /// The verdict and the report.
    Reported,
}

/// What `run` gives.
#[derive(Debug)]
pub struct Outcome {
    /// The run's folder.
    pub path: PathBuf,
    /// Its id.
    pub id: String,
    /// Its report, once evaluated.
    pub report: Option<Report>,
    /// The verdict, once decided.
    pub verdict: Option<Verdict>,
    /// The training, once tuned.
    pub training: Option<TrainingFacts>,
    /// What was prepared.
    pub data: crate::report::facts::DataFacts,
    /// Seconds of this call.
    pub seconds: f64,
}

/// The `--json` form of an evaluated run.
#[derive(Debug, Serialize)]
pub struct OutcomeJson {
    verdict: String,
    metric: String,
    arms: BTreeMap<String, ArmJson>,
    difference: Option<DifferenceJson>,
    adapter: PathBuf,
    report: PathBuf,
    seconds: f64,
    run: String,
}

#[derive(Debug, Serialize)]
struct ArmJson {
    score: f64,
    interval: (f64, f64),
    n: u64,
}

#[derive(Debug, Serialize)]
struct DifferenceJson {
    against: String,
    estimate: f64,
    interval: (f64, f64),
    p: f64,
}

impl Outcome {
    /// The `--json` form; `None` before there is a verdict.
    pub fn json(&self) -> Option<OutcomeJson> {
        let report = self.report.as_ref()?;
        let verdict = report.verdict.as_ref()?;
        let mut arms = BTreeMap::new();
        for arm in &report.arms {
            // The verdict's decoding, or the only one that the arm has.
            if arm.mode == verdict.mode || !arms.contains_key(&arm.name) {
                arms.insert(arm.name.clone(), ArmJson { score: arm.score, interval: arm.interval, n: arm.n });
            }
        }
        let difference = report.differences.first().map(|difference| DifferenceJson {
            against: difference.against.clone(),
            estimate: difference.estimate,
            interval: difference.interval,
            p: difference.p,
        });
        Some(OutcomeJson {
            verdict: verdict.word.clone(),
            metric: verdict.metric.clone(),
            arms,
            difference,
            adapter: runs::result(&self.path),
            report: self.path.join("report.html"),
            seconds: self.seconds,
            run: self.id.clone(),
        })
    }
}

/// Changes to a plan from the command line.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `--max-steps`.
    pub max_steps: Option<usize>,
}

/// Starts a new run of a run file.
pub fn start(context: &Context<'_>, path: &Path, overrides: &Overrides, until: Until, observer: &mut dyn Observer) -> Result<Outcome> {
    let (text, mut plan, folder) = plan::read(path)?;
    if let Some(max_steps) = overrides.max_steps {
        plan.tune.max_steps = spec::max_steps("--max-steps", max_steps)?;
    }
    let folder = std::path::absolute(&folder).unwrap_or(folder);
    let started = context.clock.now();
    let id = run_id(&started, &plan, context);
    observer.event(Event::Stage(format!("Base model {}", plan.model.base)));
    let base = Base::of_plan(context, observer, &plan, &folder, false)?;
    if let Some(pinned) = &base.pinned {
        plan.model.base.clone_from(pinned); // a branch may move; the run stays with what it began with
    }
    observer.event(Event::Stage("Prepare".into()));
    let from = context.clock.seconds();
    let story = prepare::stream(context, &plan, &folder, &base, observer)?;
    // Records that are only prepared need not fit in memory; those that are trained on do.
    let planned = if until == Until::Prepared && !plan.prepare.shuffle_targets {
        None
    } else {
        let planned = plan::planned(context, &plan, &folder, &base, story.load(&plan, observer)?)?;
        if until == Until::Reported {
            plan::tested(&planned)?;
        }
        Some(planned)
    };
    let seconds = context.clock.seconds() - from;
    let unwritable = |error: toml::ser::Error| Error::Corrupt { what: "the plan", reason: error.to_string(), path: "plan.toml".into() };
    let plan_text = toml::to_string(&plan).map_err(unwritable)?;
    let facts = run_facts(&id, &started, &folder, until, &governance::base_facts(&base)?);
    let files = [("plan.toml", plan_text.as_bytes()), ("tunesmith.toml", text.as_bytes()), (FACTS_FILE, facts.as_bytes())];
    let run = RunFolder::create_with(&context.workspace, &plan.project.name, &id, &files)?;
    in_run(&id, || {
        let governance = Governance::start(context, &run, &plan, &id)?;
        let stages = Stages { context, run, plan, base, folder, governance, started, answers: None };
        match planned {
            Some(planned) => stages.go(planned, Some(&story), seconds, until, observer),
            None => stages.prepared(&story, seconds),
        }
    })
}

/// Errors of a run say how it goes on.
fn in_run(id: &str, work: impl FnOnce() -> Result<Outcome>) -> Result<Outcome> {
    work().map_err(|source| Error::InRun { id: id.to_owned(), source: Box::new(source) })
}

/// How a run came about.
const FACTS_FILE: &str = "run.json";

fn run_facts(id: &str, started: &str, folder: &Path, until: Until, base: &Value) -> String {
    let goal = match until {
        Until::Tuned => "tuned",
        Until::Prepared | Until::Reported => "reported",
    };
    let facts = json!({ "id": id, "started": started, "sources_from": folder, "program": program(), "goal": goal, "base": base });
    format!("{facts:#}\n")
}

/// How far a run was meant to go.
pub fn goal(path: &Path) -> Result<Until> {
    let facts = store::atomic::read_json(&path.join("run.json"), 1 << 20)?;
    Ok(if facts["goal"].as_str() == Some("tuned") { Until::Tuned } else { Until::Reported })
}

/// Goes on with a run that was interrupted.
pub fn resume(context: &Context<'_>, path: &Path, until: Until, observer: &mut dyn Observer) -> Result<Outcome> {
    continued(context, path, until, None, observer)
}

/// Measures the arms of a run and decides; `answers` are those of an incumbent system.
pub fn evaluate(context: &Context<'_>, path: &Path, answers: Option<&Path>, observer: &mut dyn Observer) -> Result<Outcome> {
    if !path.join("training.json").exists() {
        return Err(Error::NotYet { id: runs::id(path), what: "adapter" });
    }
    continued(context, path, Until::Reported, answers, observer)
}

fn continued(context: &Context<'_>, path: &Path, until: Until, answers: Option<&Path>, observer: &mut dyn Observer) -> Result<Outcome> {
    let begun = context.clock.seconds();
    let run = RunFolder::open(path)?;
    let id = runs::id(run.path());
    let stage = runs::stage(path);
    if until == Until::Reported && answers.is_none() && stage == Stage::Reported && governance::sealed(&run, &id)? {
        observer.event(Event::Note("this run is finished; nothing was computed again".into()));
        return finished(&run, context.clock.seconds() - begun);
    }
    let plan = runs::plan(run.path())?;
    let facts = store::atomic::read_json(&run.file(FACTS_FILE), 1 << 20)?;
    let folder = runs::sources_folder(run.path())?;
    let started = facts["started"].as_str().unwrap_or_default().to_owned();
    observer.event(Event::Stage(format!("Base model {}", plan.model.base)));
    let base = Base::of_plan(context, observer, &plan, &folder, false)?;
    governance::unchanged(&run, &id, &plan, &base, &facts["base"])?;
    observer.event(Event::Stage("Prepare".into()));
    let from = context.clock.seconds();
    let (prepared, story) = if stage == Stage::Planned {
        let (prepared, story) = prepare::prepare(context, &plan, &folder, &base, observer)?;
        (prepared, Some(story))
    } else {
        (prepare::read(run.path())?, None)
    };
    let planned = plan::planned(context, &plan, &folder, &base, prepared)?;
    if until == Until::Reported {
        plan::tested(&planned)?;
    }
    let seconds = context.clock.seconds() - from;
    in_run(&id, || {
        run.write(FACTS_FILE, run_facts(&id, &started, &folder, until, &facts["base"]).as_bytes())?;
        let governance = Governance::resume(context, &run, &plan, &id)?;
        let answers = answers.map(Path::to_owned);
        Stages { context, run, plan, base, folder, governance, started, answers }.go(planned, story.as_ref(), seconds, until, observer)
    })
}

/// What a finished run gave.
fn finished(run: &RunFolder, seconds: f64) -> Result<Outcome> {
    let report = runs::report(run.path())?;
    let word = report.verdict.as_ref().map(|verdict| verdict.word.as_str());
    let verdict = [Verdict::Ship, Verdict::DoNotShip, Verdict::NotEnoughEvidence].into_iter().find(|verdict| Some(verdict.word()) == word);
    let path = run.path().to_owned();
    Ok(Outcome {
        id: runs::id(&path),
        path,
        training: report.training.clone(),
        data: report.data.clone(),
        verdict,
        report: Some(report),
        seconds,
    })
}

fn program() -> String {
    format!("tunesmith {}", env!("CARGO_PKG_VERSION"))
}

/// "20261124-063831-4f2a": the time, and a few digits that tell two runs of one second apart.
fn run_id(now: &str, plan: &RunPlan, context: &Context<'_>) -> String {
    let digits: String = now.chars().filter(char::is_ascii_digit).collect();
    let (date, time) = digits.split_at(digits.len().min(8));
    let mix = blake3::hash(format!("{now} {:?} {} {}", plan, context.clock.seconds(), std::process::id()).as_bytes());
    format!("{date}-{time}-{}", &mix.to_hex()[..4])
}

/// What a training that is done came to.
fn training_facts(path: &Path) -> Result<TrainingFacts> {
    let value = store::atomic::read_json(path, 1 << 32)?;
    let corrupt =
        |error: serde_json::Error| Error::Corrupt { what: "the training's facts", reason: error.to_string(), path: path.to_owned() };
    serde_json::from_value(value).map_err(corrupt)
}

fn tell_kept(training: &TrainingFacts, observer: &mut dyn Observer) {
    observer.event(Event::Note(format!("kept step {} of {} ({})", training.kept_step, training.steps.len(), training.ended)));
}

struct Stages<'a> {
    context: &'a Context<'a>,
    run: RunFolder,
    plan: RunPlan,
    base: Base,
    folder: PathBuf,
    governance: Governance<'a>,
    started: String,
    /// Answers of an incumbent system given on the command line.
    answers: Option<PathBuf>,
}

impl Stages<'_> {
    /// All that is not done yet. `story` is there where the records are not written yet; planning them took `seconds`.
    fn go(self, planned: Planned, story: Option<&Story>, seconds: f64, until: Until, observer: &mut dyn Observer) -> Result<Outcome> {
        let begun = self.context.clock.seconds() - seconds;
        let mut stages = vec![("prepare".to_owned(), seconds)];
        let mut timed = |name: &str, from: f64| stages.push((name.to_owned(), self.context.clock.seconds() - from));

        let Planned { prepared, lines, memory, power, policy, .. } = planned;
        if let Some(story) = story {
            story.write(&self.run, Some(&prepared))?;
            self.governance.prepared(&self.run, &prepared.facts)?;
        }
        let data = prepared.facts.clone();
        if until == Until::Prepared {
            self.governance.manifest(&self.run, &self.plan, &self.base, &prepared.instruction, &prepared.facts)?;
            return Ok(self.outcome(None, None, None, data, begun));
        }
        tell_plan(&lines, &memory, &power, observer);

        let mut model = self.base.load(self.context.threads)?;
        let mut arms = Vec::new();
        let mut elsewhere = Vec::new();
        if until == Until::Reported {
            observer.event(Event::Stage("Measure before".into()));
            let from = self.context.clock.seconds();
            self.arms_before(&prepared, &mut model, &mut arms, &mut elsewhere, observer)?;
            timed("measure before", from);
        }

        observer.event(Event::Stage("Tune".into()));
        let from = self.context.clock.seconds();
        let (mut model, training) = self.tuned(&prepared, &policy, model, observer)?;
        timed("tune", from);
        if until == Until::Tuned {
            self.governance.manifest(&self.run, &self.plan, &self.base, &prepared.instruction, &prepared.facts)?;
            return Ok(self.outcome(None, None, Some(training), data, begun));
        }

        observer.event(Event::Stage("Measure after".into()));
        let from = self.context.clock.seconds();
        let evaluator = Evaluator::new(self.context, &self.plan, &self.base, &prepared, &self.run)?;
        arms.extend(evaluator.model_arms("tuned", &Examples::default(), &mut model, observer)?);
        if self.plan.is_text() {
            elsewhere.extend(texts::elsewhere(&evaluator, "tuned", &mut model, observer)?);
        }
        let near_ood = self.near_ood(&evaluator, &arms, &mut model, observer)?;
        let far_ood = self.far_ood(&evaluator, &arms, &mut model, observer)?;
        drop(model);
        let decision = evaluator.decide(&arms)?;
        timed("measure after", from);

        let looks = self.governance.looked(&self.run, &arms)?;
        let mut report = self.report(&evaluator, &arms, decision.as_ref(), far_ood, lines, memory, power, training.clone());
        report.near_ood = near_ood;
        if self.plan.is_text() {
            report.texts = texts::facts(&evaluator, &arms, &elsewhere)?;
        }
        report.run.stages = stages;
        report.run.seconds = self.context.clock.seconds() - begun;
        (report.run.runs_so_far, report.run.looks_at_test_set) = looks;
        let verdict = decision.map(|decision| decision.verdict);
        self.governance.decided(&self.run, &report)?;
        report.run.manifest = self.governance.manifest(&self.run, &self.plan, &self.base, &prepared.instruction, &prepared.facts)?;
        report.run.project_head = self.governance.project_head()?;
        write_report(&self.run, &report)?;
        self.governance.manifest(&self.run, &self.plan, &self.base, &prepared.instruction, &prepared.facts)?;
        Ok(self.outcome(Some(report), verdict, Some(training), data, begun))
    }

    /// The records alone, which never come into memory together. Preparing them took `seconds`.
    fn prepared(self, story: &Story, seconds: f64) -> Result<Outcome> {
        let begun = self.context.clock.seconds() - seconds;
        story.write(&self.run, None)?;
        self.governance.prepared(&self.run, &story.facts)?;
        self.governance.manifest(&self.run, &self.plan, &self.base, &story.instruction, &story.facts)?;
        Ok(self.outcome(None, None, None, story.facts.clone(), begun))
    }

    fn outcome(
        &self,
        report: Option<Report>,
        verdict: Option<Verdict>,
        training: Option<TrainingFacts>,
        data: crate::report::facts::DataFacts,
        begun: f64,
    ) -> Outcome {
        let path = self.run.path().to_owned();
        Outcome { id: runs::id(&path), path, report, verdict, training, data, seconds: self.context.clock.seconds() - begun }
    }

    fn arms_before(
        &self,
        prepared: &Prepared,
        model: &mut Model<CpuDevice>,
        arms: &mut Vec<Arm>,
        elsewhere: &mut Vec<(data::Part, eval::ArmResult)>,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let evaluator = Evaluator::new(self.context, &self.plan, &self.base, prepared, &self.run)?;
        for name in &self.plan.evaluate.arms {
            match name.as_str() {
                "base" => {
                    arms.extend(evaluator.model_arms("base", &Examples::default(), model, observer)?);
                    if self.plan.is_text() {
                        elsewhere.extend(texts::elsewhere(&evaluator, "base", model, observer)?);
                    }
                }
                "few-shot" => {
                    let examples = evaluator.choose_examples(model, observer)?;
                    observer.event(Event::Note(examples.note.clone()));
                    arms.extend(evaluator.model_arms("few-shot", &examples, model, observer)?);
                }
                "classical" => match classical::arm(&evaluator, observer)? {
                    Some(arm) => arms.push(arm),
                    None => observer.event(Event::Warning("no classical arm: the answers are free text".into())),
                },
                "imported" if self.answers.is_none() => arms.push(evaluator.imported(&self.folder.join(&self.plan.evaluate.answers))?),
                _ => {}
            }
        }
        if let Some(answers) = &self.answers {
            arms.push(evaluator.imported(answers)?);
        }
        for arm in arms.iter() {
            let result = &arm.result;
            observer.event(Event::Note(format!(
                "{:<10} {:<10} {} {}",
                result.name,
                result.decode.name(),
                result.metric.title(),
                crate::report::value(result.metric, result.score)
            )));
        }
        Ok(())
    }

    fn tuned(
        &self,
        prepared: &Prepared,
        policy: &Policy,
        mut model: Model<CpuDevice>,
        observer: &mut dyn Observer,
    ) -> Result<(Model<CpuDevice>, TrainingFacts)> {
        let path = self.run.file("training.json");
        if self.plan.tune.method == "full" {
            // What is measured is what is saved, so the model is read from its folder.
            drop(model);
            let training = if path.exists() {
                training_facts(&path)?
            } else {
                let training = tune_full::tune(self.context, &self.plan, &self.base, prepared, &self.run, policy, observer)?;
                self.governance.trained(&self.run, &training)?;
                tell_kept(&training, observer);
                training
            };
            let folder = self.run.file(tune_full::MODEL_FOLDER);
            let trained = Base::open_offline(self.context, observer, &folder.display().to_string(), &self.plan.model.template)?;
            return Ok((trained.load(self.context.threads)?, training));
        }
        if path.exists() {
            let adapter = adapters::read(&self.run.file("adapter"), self.base.config())?;
            model.attach(&adapter)?;
            return Ok((model, training_facts(&path)?));
        }
        let (model, adapter, mut training) =
            tune::tune(self.context, &self.plan, &self.base, prepared, &self.run, policy, model, observer)?;
        tune::write_adapter(&self.run, &self.base, &self.plan, &adapter, &mut training, self.governance.lineage(&self.plan)?)?;
        self.governance.trained(&self.run, &training)?;
        tell_kept(&training, observer);
        Ok((model, training))
    }

    /// The tuned model on items of the same task from elsewhere, beside the in-domain test.
    fn near_ood(
        &self,
        evaluator: &Evaluator<'_>,
        arms: &[Arm],
        model: &mut Model<CpuDevice>,
        observer: &mut dyn Observer,
    ) -> Result<Option<NearOodFacts>> {
        let prepared = evaluator.prepared;
        let inside = arms.iter().find(|arm| arm.result.name == "tuned" && arm.result.decode == eval::Decode::Free);
        let (Some(inside), all) = (inside, &prepared.split.held_out.near_ood) else { return Ok(None) };
        let known = |record: &&data::Record| match &prepared.task {
            eval::Task::Classification { labels } => labels.contains(&record.answer.to_text()),
            _ => true,
        };
        let records: Vec<data::Record> = all.iter().filter(known).cloned().collect();
        if records.is_empty() {
            return Ok(None);
        }
        let trial = trial(&self.plan, prepared, &records)?;
        let mut responder =
            Responder::new(&self.base, model, evaluator.answer_tokens(), observer, "tuned, the same task elsewhere".into())?;
        let answers = eval::Subject::generate(&mut responder, &trial.prompts())?;
        let outside = trial.from_answers("tuned", eval::Decode::Free, &answers, None)?;
        let (Some(here), Some(there)) = (inside.result.rate(trial.metric()), outside.rate(trial.metric())) else { return Ok(None) };
        let value = |rate: &eval::arms::Rate| (rate.value, rate.interval.low, rate.interval.high);
        let unknown_labels = (all.len() - records.len()) as u64;
        let metric = trial.metric().name().to_owned();
        Ok(Some(NearOodFacts { n: records.len() as u64, unknown_labels, metric, inside: value(here), outside: value(there) }))
    }

    /// Answers to messages that the model was not made for.
    fn far_ood(
        &self,
        evaluator: &Evaluator<'_>,
        arms: &[Arm],
        model: &mut Model<CpuDevice>,
        observer: &mut dyn Observer,
    ) -> Result<Option<FarOodFacts>> {
        let prepared = evaluator.prepared;
        let inside = arms.iter().find(|arm| arm.result.name == "tuned" && arm.result.decode == eval::Decode::Free);
        let (Some(inside), false) = (inside, prepared.split.held_out.far_ood.is_empty()) else { return Ok(None) };
        // The right answers of these messages are not among the labels: only the form and the probability are measured.
        let mut records = prepared.split.held_out.far_ood.clone();
        if let eval::Task::Classification { labels } = &prepared.task {
            records.iter_mut().for_each(|record| record.answer = data::Answer::Text(labels[0].clone()));
        }
        let trial = trial(&self.plan, prepared, &records)?;
        let mut responder = Responder::new(&self.base, model, evaluator.answer_tokens(), observer, "tuned, out of distribution".into())?;
        let answers = eval::Subject::generate(&mut responder, &trial.prompts())?;
        let outside = trial.from_answers("tuned", eval::Decode::Free, &answers, None)?;
        Ok(Some(assemble::far_ood(&inside.result, &outside)))
    }

    fn report(
        &self,
        evaluator: &Evaluator<'_>,
        arms: &[Arm],
        decision: Option<&eval::Decision>,
        far_ood: Option<FarOodFacts>,
        plan: Vec<(String, String)>,
        memory: MemoryFacts,
        power: PowerFacts,
        training: TrainingFacts,
    ) -> Report {
        let mut arm_facts = Vec::new();
        for arm in arms {
            let mut facts = assemble::arm(arm, evaluator.trial.task());
            if facts.confusion.is_none() && arm.result.decode == evaluator.decode() {
                facts.confusion = assemble::confusion(evaluator, &arm.result);
            }
            arm_facts.push(facts);
        }
        let not_measured = assemble::not_measured(&self.plan, arms, decision.is_some(), far_ood.is_some());
        Report {
            format: FORMAT,
            program: program(),
            run: RunFacts {
                id: runs::id(self.run.path()),
                started: self.started.clone(),
                finished: self.context.clock.now(),
                seconds: 0.0,
                stages: Vec::new(),
                machine: format!("{}, {} threads", store::disk::cpu_model().unwrap_or_else(|| "unknown CPU".into()), self.context.threads),
                compute_path: compute::name(self.base.compute()),
                manifest: String::new(),
                project_head: String::new(),
                runs_so_far: 0,
                looks_at_test_set: 0,
            },
            project: self.plan.project.clone(),
            base: assemble::base(&self.base),
            plan,
            data: evaluator.prepared.facts.clone(),
            training: Some(training),
            memory: MemoryFacts { peak_rss_bytes: store::disk::peak_rss_bytes().unwrap_or(0), ..memory },
            power,
            differences: differences(evaluator, arms, decision),
            verdict: decision.map(|decision| assemble::verdict(evaluator, decision)),
            arms: arm_facts,
            near_ood: None,
            texts: Vec::new(),
            far_ood,
            not_measured,
            items: assemble::items(evaluator, arms),
            redacted: false,
        }
    }
}

/// The difference to the best rival that the gate names, then those to all other arms.
fn differences(evaluator: &Evaluator<'_>, arms: &[Arm], decision: Option<&eval::Decision>) -> Vec<crate::report::facts::DifferenceFacts> {
    let mut facts = Vec::new();
    let mut named = Vec::new();
    if let Some(best) = decision.and_then(eval::Decision::difference) {
        facts.push(assemble::difference(best));
        named.push(best.against.clone());
    }
    let decode = evaluator.decode();
    let Some(tuned) = arms.iter().find(|arm| arm.result.name == "tuned" && arm.result.decode == decode) else { return facts };
    for rival in arms.iter().filter(|arm| arm.result.name != "tuned") {
        let only = arms.iter().filter(|arm| arm.result.name == rival.result.name).count() == 1;
        if (rival.result.decode == decode || only) && !named.contains(&rival.result.name) {
            named.push(rival.result.name.clone());
            if let Ok(difference) = evaluator.trial.compare(&tuned.result, &rival.result) {
                facts.push(assemble::difference(&difference));
            }
        }
    }
    facts
}

fn tell_plan(lines: &[(String, String)], memory: &MemoryFacts, power: &PowerFacts, observer: &mut dyn Observer) {
    observer.event(Event::Stage("Plan".into()));
    for (key, value) in lines {
        observer.event(Event::Note(format!("{key:<20} {value}")));
    }
    observer.event(Event::Note(format!("{:<20} {} MB planned at most", "memory", memory.planned_bytes >> 20)));
    observer.event(Event::Note(power_sentence(power)));
}

/// "With 214 items a difference of 9.8 points can be proved; 5 points would need about 820."
pub fn power_sentence(power: &PowerFacts) -> String {
    let unit = if power.of_perplexity { "% of the perplexity" } else { "points" };
    let mut sentence = if power.detectable_difference < 1.0 {
        let least = 100.0 * power.detectable_difference;
        format!("with {} test items a difference of {least:.1} {unit} or more is found 4 times in 5", power.items)
    } else {
        format!("{} test items are too few to prove any difference that is to be expected", power.items)
    };
    if let Some((difference, items)) = power.items_for.first() {
        sentence += &format!("; {:.0} {unit} would need about {items} items", 100.0 * difference);
    }
    sentence
}

/// Writes `report.json` and `report.html`.
pub(crate) fn write_report(run: &RunFolder, report: &Report) -> Result<()> {
    run.write("report.html", crate::report::page(report).as_bytes())?;
    let value: Value = serde_json::to_value(report).map_err(|error| Error::Corrupt {
        what: "the report",
        reason: error.to_string(),
        path: run.file("report.json"),
    })?;
    run.write("report.json", format!("{value:#}\n").as_bytes())?;
    Ok(())
}

/// Writes the report of a run again; `redacted` writes `report-redacted.html` without customer text. Gives its path.
pub fn report_again(path: &Path, redacted: bool) -> Result<PathBuf> {
    let mut report = runs::report(path)?;
    let run = RunFolder::open(path)?;
    if redacted {
        assemble::redact(&mut report);
        run.write("report-redacted.html", crate::report::page(&report).as_bytes())?;
        return Ok(run.file("report-redacted.html"));
    }
    run.write("report.html", crate::report::page(&report).as_bytes())?;
    Ok(run.file("report.html"))
}

/// A training record as its tokens, with those that carry loss marked.
#[derive(Debug, Serialize)]
pub struct ShownRecord {
    /// Its id.
    pub id: String,
    /// All tokens.
    pub tokens: usize,
    /// Tokens that carry loss.
    pub loss_tokens: usize,
    /// The rendered text; tokens with loss stand between ⟦ and ⟧.
    pub marked: String,
}

/// The first `count` training records of a prepared run, rendered.
pub fn show(context: &Context<'_>, path: &Path, count: usize, observer: &mut dyn Observer) -> Result<Vec<ShownRecord>> {
    if count == 0 {
        return Ok(Vec::new());
    }
    let plan = runs::plan(path)?;
    let prepared = prepare::read(path)?;
    let base = Base::of_plan(context, observer, &plan, &runs::sources_folder(path)?, false)?;
    let rendering = Rendering::of(&plan, &base)?;
    prepared
        .split
        .train
        .records()
        .iter()
        .take(count)
        .map(|record| {
            let row = rendering.row(record)?;
            let mut marked = String::new();
            let mut start = 0;
            while start < row.ids.len() {
                let with_loss = row.loss_weights[start] > 0.0;
                let end = (start..row.ids.len()).find(|&i| (row.loss_weights[i] > 0.0) != with_loss).unwrap_or(row.ids.len());
                let text = rendering.tokenizer().decode(&row.ids[start..end], false)?;
                marked += &if with_loss { format!("⟦{text}⟧") } else { text };
                start = end;
            }
            let loss_tokens = row.loss_weights.iter().filter(|weight| **weight > 0.0).count();
            Ok(ShownRecord { id: record.id.clone(), tokens: row.ids.len(), loss_tokens, marked })
        })
        .collect()
}

/// The tuned models of two runs on the same held-out items.
#[derive(Debug, Serialize)]
pub struct Compared {
    run: String,
    against: String,
    metric: String,
    mode: String,
    score: f64,
    score_against: f64,
    estimate: f64,
    interval: (f64, f64),
    p: f64,
    n: usize,
}

impl Compared {
    /// "A − B: +3.1 points (95 % interval 0.4 to 5.9), p = 0.02, 234 items".
    pub fn sentence(&self) -> String {
        if self.metric == eval::Metric::Perplexity.name() {
            return format!(
                "{} perplexity {:.3}, {} {:.3}: {:+.1} % lower (95 % interval {:+.1} to {:+.1}), p = {:.4}, {} texts",
                self.run,
                self.score,
                self.against,
                self.score_against,
                100.0 * self.estimate,
                100.0 * self.interval.0,
                100.0 * self.interval.1,
                self.p,
                self.n
            );
        }
        format!(
            "{} {:.1} %, {} {:.1} %: difference {:+.1} points (95 % interval {:+.1} to {:+.1}), p = {:.4}, {} items, {} ({})",
            self.run,
            100.0 * self.score,
            self.against,
            100.0 * self.score_against,
            100.0 * self.estimate,
            100.0 * self.interval.0,
            100.0 * self.interval.1,
            self.p,
            self.n,
            self.metric,
            self.mode
        )
    }
}

/// Compares two runs from the answers that they kept.
pub fn compare(run: &Path, against: &Path) -> Result<Compared> {
    let plan = runs::plan(run)?;
    let prepared = prepare::read(run)?;
    let trial = trial(&plan, &prepared, &prepared.split.held_out.in_domain)?;
    let report = runs::report(run)?;
    let verdict = report.verdict.as_ref().ok_or_else(|| Error::NotYet { id: runs::id(run), what: "verdict" })?;
    let arm = |path: &Path| crate::evaluate::kept_answers(path, "tuned", &verdict.mode, &trial);
    let (ours, theirs) = (arm(run)?, arm(against)?);
    let difference = trial.compare(&ours, &theirs)?;
    Ok(Compared {
        run: runs::id(run),
        against: runs::id(against),
        metric: verdict.metric.clone(),
        mode: verdict.mode.clone(),
        score: ours.score,
        score_against: theirs.score,
        estimate: difference.estimate,
        interval: (difference.interval.low, difference.interval.high),
        p: difference.p,
        n: difference.n,
    })
}
