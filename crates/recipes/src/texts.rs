//! Measuring plain texts: the perplexity of the base and of the tuned model on the same held-out texts, in the domain and outside it.

use data::{Part, Record};
use engine::cpu::CpuDevice;
use engine::model::Model;
use eval::{AnswerLoss, ArmResult};

use crate::context::Observer;
use crate::error::Result;
use crate::evaluate::{Arm, Evaluator, trial};
use crate::rendering::Rendering;
use crate::report::facts::TextFacts;
use crate::score;

/// The parts beside the in-domain test, which is the trial of the gate.
const OTHER_PARTS: [Part; 2] = [Part::NearOod, Part::FarOod];

fn records<'a>(evaluator: &Evaluator<'a>, part: Part) -> &'a [Record] {
    let held_out = &evaluator.prepared.split.held_out;
    match part {
        Part::NearOod => &held_out.near_ood,
        Part::FarOod => &held_out.far_ood,
        _ => &held_out.in_domain,
    }
}

/// The losses of the texts of a part, in their order.
fn losses(
    evaluator: &Evaluator<'_>,
    part: Part,
    name: &str,
    model: &mut Model<CpuDevice>,
    observer: &mut dyn Observer,
) -> Result<Vec<AnswerLoss>> {
    let rendering = Rendering::of(evaluator.plan, evaluator.base)?;
    let rows = records(evaluator, part).iter().map(|record| rendering.row(record)).collect::<Result<Vec<_>>>()?;
    score::score_rows(model, evaluator.base.compute(), rows, observer, &format!("{name}, {} texts", part.name()))
}

/// A model's arm on the in-domain test.
pub(crate) fn arm(evaluator: &Evaluator<'_>, name: &str, model: &mut Model<CpuDevice>, observer: &mut dyn Observer) -> Result<Arm> {
    on(evaluator, Part::Test, name, model, observer)
}

/// The same on the texts from elsewhere, where there are any.
pub(crate) fn elsewhere(
    evaluator: &Evaluator<'_>,
    name: &str,
    model: &mut Model<CpuDevice>,
    observer: &mut dyn Observer,
) -> Result<Vec<(Part, ArmResult)>> {
    let mut arms = Vec::new();
    for part in OTHER_PARTS.into_iter().filter(|part| !records(evaluator, *part).is_empty()) {
        arms.push((part, on(evaluator, part, name, model, observer)?.result));
    }
    Ok(arms)
}

fn on(evaluator: &Evaluator<'_>, part: Part, name: &str, model: &mut Model<CpuDevice>, observer: &mut dyn Observer) -> Result<Arm> {
    let own;
    let (trial, file) = if part == Part::Test {
        (&evaluator.trial, name.to_owned())
    } else {
        own = trial(evaluator.plan, evaluator.prepared, records(evaluator, part))?;
        (&own, format!("{name}-{}", part.name()))
    };
    let started = evaluator.context.clock.seconds();
    if let Some((losses, seconds)) = evaluator.kept_losses(&file, trial)? {
        return Ok(Arm { result: trial.from_losses(name, losses)?, seconds, note: String::new() });
    }
    let result = trial.from_losses(name, losses(evaluator, part, name, model, observer)?)?;
    let seconds = evaluator.context.clock.seconds() - started;
    evaluator.write_losses(&file, &result, seconds)?;
    Ok(Arm { result, seconds, note: String::new() })
}

/// The table of the report: each part before and after.
pub(crate) fn facts(evaluator: &Evaluator<'_>, arms: &[Arm], others: &[(Part, ArmResult)]) -> Result<Vec<TextFacts>> {
    let mut facts = Vec::new();
    for part in [Part::Test].into_iter().chain(OTHER_PARTS) {
        let find = |name: &str| match part {
            Part::Test => arms.iter().map(|arm| &arm.result).find(|arm| arm.name == name),
            _ => others.iter().find(|(of, arm)| *of == part && arm.name == name).map(|(_, arm)| arm),
        };
        let Some(after) = find("tuned") else { continue };
        let bounds = |arm: &ArmResult| (arm.score, arm.interval.low, arm.interval.high);
        let before = find("base");
        let difference = match before {
            Some(before) => {
                let own;
                let trial = if part == Part::Test {
                    &evaluator.trial
                } else {
                    own = trial(evaluator.plan, evaluator.prepared, records(evaluator, part))?;
                    &own
                };
                Some(trial.compare(after, before)?)
            }
            None => None,
        };
        facts.push(TextFacts {
            part: part.name().to_owned(),
            n: after.n as u64,
            documents: difference.as_ref().map_or(0, |difference| difference.clusters as u64),
            tokens: after.loss.map_or(0, |loss| loss.tokens),
            before: before.map(bounds),
            after: bounds(after),
            lower: difference.map(|difference| (difference.estimate, difference.interval.low, difference.interval.high)),
        });
    }
    Ok(facts)
}

/// Perplexity of one text; infinite where its probability is none.
pub(crate) fn perplexity(loss: &AnswerLoss) -> f64 {
    eval::arithmetic::exp(-loss.log_prob / loss.tokens.max(1) as f64)
}
