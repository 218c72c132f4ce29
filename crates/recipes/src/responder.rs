//! The one way in which a model is asked: evaluation, chat and, later, serving go through [`Responder`].
//!
//! One template, one tokenizer, one compute path (the base's); greedy unless said otherwise. Prompts of a call share
//! what they begin with, and are answered many at a time, which never changes an answer.

use std::ops::ControlFlow;

use engine::batch::PassLimits;
use engine::choose::{Question, normalized};
use engine::compute::Compute;
use engine::config::ModelConfig;
use engine::cpu::CpuDevice;
use engine::generate::{self, Finish, Flow, Sampling};
use engine::memory::{GenerationUse, ScoringUse, Uses};
use engine::model::Model;
use eval::{Answer, AnswerLoss, Choice, Prompt, Subject};
use text::{ChatFormat, Message, Role};

use crate::base::Base;
use crate::context::{Event, Observer};
use crate::error::{Error, Result};
use crate::prepare::Prepared;
use crate::rendering::Rendering;
use crate::spec::RunPlan;

/// Rows of a pass in scoring, choosing and reading prompts.
const PASS_ROWS: usize = 1024;
/// Answers that are written at the same time.
const SEQUENCES: usize = 32;

/// Labels this many nats below the best, e⁻¹² = 6e-6 of its probability, are not weighed to their last token: their
/// share of the distribution is told from above, and stays below that.
const NEGLIGIBLE: f64 = 12.0;

/// A model that answers prompts, for one arm.
pub struct Responder<'a> {
    chat: &'a ChatFormat,
    model: &'a mut Model<CpuDevice>,
    stop: Vec<u32>,
    compute: Compute,
    answer_tokens: usize,
    observer: &'a mut dyn Observer,
    label: String,
    /// The answers of the last call, with what the scores do not keep.
    pub answers: Vec<Answer>,
}

impl<'a> Responder<'a> {
    /// On a loaded model; `label` names the work in the progress.
    pub fn new(
        base: &'a Base,
        model: &'a mut Model<CpuDevice>,
        answer_tokens: usize,
        observer: &'a mut dyn Observer,
        label: String,
    ) -> Result<Responder<'a>> {
        let (chat, stop, compute) = (base.chat()?, stop_ids(base)?, base.compute());
        Ok(Responder { chat, model, stop, compute, answer_tokens, observer, label, answers: Vec::new() })
    }

    /// Σ ln p of every continuation of every prompt, those far below the best from above; what the prompts begin with is computed once.
    fn weigh<'c>(&mut self, prompts: &[Vec<u32>], continuations: &[impl AsRef<[&'c [u32]]>], label: String) -> Result<Vec<Vec<f64>>> {
        let prefix = shared(prompts).saturating_sub(1);
        let answer = continuations.iter().flat_map(|list| list.as_ref()).map(|ids| ids.len()).max().unwrap_or(1);
        let longest = prompts.iter().map(Vec::len).max().unwrap_or(1) + answer;
        self.model.reserve(&Uses { scoring: Some(scoring_use(longest, prefix)), compute: self.compute, ..Uses::default() })?;
        let questions: Vec<Question<'_>> =
            prompts.iter().zip(continuations).map(|(prompt, list)| Question { prompt, continuations: list.as_ref() }).collect();
        self.observer.event(Event::Start { what: label, total: prompts.len() as u64, unit: "answers" });
        let observer = &mut *self.observer;
        let weights = self.model.choose(&questions, NEGLIGIBLE, |done| {
            observer.event(Event::Progress { done: done as u64, loss: None, validation: None });
            if observer.stopped() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        self.observer.event(Event::End);
        if self.observer.stopped() {
            return Err(Error::Interrupted);
        }
        Ok(weights.into_iter().map(|weights| weights.into_iter().map(|weight| weight.log_prob).collect()).collect())
    }

    fn prompt_ids(&self, prompts: &[Prompt]) -> Result<Vec<Vec<u32>>> {
        prompts.iter().map(|prompt| Ok(self.chat.prompt_ids(&prompt.id, &messages(prompt))?)).collect()
    }
}

/// Ids that end an answer: the template's end of turn, and what the model's files name.
pub(crate) fn stop_ids(base: &Base) -> Result<Vec<u32>> {
    let mut ids = base.end_ids.clone();
    ids.push(base.chat()?.end_of_turn());
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}

/// A prompt's turns in the template's types.
fn messages(prompt: &Prompt) -> Vec<Message> {
    prompt
        .messages
        .iter()
        .map(|message| Message::new(Role::from_name(&message.role).unwrap_or(Role::User), message.content.clone()))
        .collect()
}

/// How many leading tokens all of them share.
fn shared(prompts: &[Vec<u32>]) -> usize {
    let Some((first, rest)) = prompts.split_first() else { return 0 };
    rest.iter().map(|other| first.iter().zip(other).take_while(|(a, b)| a == b).count()).min().unwrap_or(0)
}

/// Memory for generation with prompts of these lengths.
fn generation_use(longest: usize, shared: usize, answer_tokens: usize, sequences: usize) -> GenerationUse {
    let own = longest.saturating_sub(shared) + answer_tokens + 1;
    GenerationUse { rows: PASS_ROWS.min(longest.max(sequences)).max(sequences), sequences, cache_rows: shared + own * sequences }
}

/// Memory for scoring with sequences of this length after a shared prefix.
fn scoring_use(longest: usize, prefix: usize) -> ScoringUse {
    let rows = PASS_ROWS.max(longest);
    ScoringUse { pass: PassLimits { rows, chain: longest.max(rows), head_rows: rows, entries: 4 * rows }, prefix }
}

/// What evaluation will ask memory for, at most: prompts as long as the plan allows.
pub(crate) fn planned_uses(base: &Base, plan: &RunPlan, prepared: &Prepared) -> Result<Uses> {
    let held_out = &prepared.split.held_out;
    let mut longest = 0;
    if plan.is_text() {
        let rendering = Rendering::of(plan, base)?;
        for record in held_out.in_domain.iter().chain(&held_out.near_ood).chain(&held_out.far_ood) {
            longest = longest.max(rendering.row(record)?.ids.len());
        }
        return Ok(Uses { training: None, scoring: Some(scoring_use(longest, 0)), generation: None, compute: base.compute() });
    }
    let chat = base.chat()?;
    for record in held_out.in_domain.iter().chain(&held_out.near_ood).chain(&held_out.far_ood) {
        longest = longest.max(chat.prompt_ids(&record.id, &record.messages)?.len());
    }
    let few_shot = plan.evaluate.arms.iter().any(|arm| arm == "few-shot");
    let window = crate::evaluate::few_shot_window(plan, base);
    let shared = if few_shot { window.saturating_sub(longest) } else { 0 };
    let generation = generation_use(longest + shared, shared, plan.evaluate.answer_tokens.min(window), SEQUENCES);
    Ok(Uses {
        training: None,
        scoring: Some(scoring_use(longest + shared + plan.evaluate.answer_tokens.min(window), shared)),
        generation: Some(generation),
        compute: base.compute(),
    })
}

/// Memory for one conversation of at most `context` tokens.
pub(crate) fn conversation_uses(config: &ModelConfig, context: usize, compute: Compute) -> Uses {
    let rows = context.min(config.context);
    Uses {
        training: None,
        scoring: None,
        generation: Some(GenerationUse { rows: rows.min(PASS_ROWS), sequences: 1, cache_rows: rows + 1 }),
        compute,
    }
}

impl Subject for Responder<'_> {
    type Error = Error;

    fn generate(&mut self, prompts: &[Prompt]) -> Result<Vec<Answer>> {
        let ids = self.prompt_ids(prompts)?;
        let longest = ids.iter().map(Vec::len).max().unwrap_or(1);
        let generation = generation_use(longest, shared(&ids), self.answer_tokens, SEQUENCES.min(ids.len().max(1)));
        self.model.reserve(&Uses { generation: Some(generation), compute: self.compute, ..Uses::default() })?;
        let stop = &self.stop;
        let asked: Vec<generate::Prompt<'_>> =
            ids.iter().map(|tokens| generate::Prompt { tokens, max_new: self.answer_tokens, stop, draw_key: 0 }).collect();
        self.observer.event(Event::Start { what: self.label.clone(), total: prompts.len() as u64, unit: "answers" });
        let (observer, mut done) = (&mut *self.observer, 0);
        let completions = self.model.generate(&asked, &Sampling::GREEDY, |event| {
            if let generate::Event::Finished { .. } = event {
                done += 1;
                observer.event(Event::Progress { done, loss: None, validation: None });
            }
            if observer.stopped() { Flow::StopAll } else { Flow::Continue }
        })?;
        self.observer.event(Event::End);
        if self.observer.stopped() {
            return Err(Error::Interrupted);
        }
        let tokenizer = self.chat.tokenizer();
        self.answers = completions
            .iter()
            .map(|completion| {
                let text = tokenizer.decode(&completion.tokens, true)?;
                Ok(Answer { text, finished: completion.finish == Finish::Stop, log_prob: Some(completion.log_prob) })
            })
            .collect::<Result<_>>()?;
        Ok(self.answers.clone())
    }

    fn choose(&mut self, prompts: &[Prompt], labels: &[String]) -> Result<Vec<Choice>> {
        let ids = self.prompt_ids(prompts)?;
        let mut answers: Vec<Vec<Vec<u32>>> = Vec::with_capacity(prompts.len());
        for (index, prompt) in prompts.iter().enumerate() {
            // The tokens of a label depend on the template's text before it, which is the same for all prompts: seen on two, then reused.
            if index >= 2 && answers[0] == answers[1] {
                answers.push(answers[0].clone());
                continue;
            }
            let turns = messages(prompt);
            answers.push(labels.iter().map(|label| Ok(self.chat.answer_ids(&prompt.id, &turns, label)?)).collect::<Result<_>>()?);
        }
        let continuations: Vec<Vec<&[u32]>> = answers.iter().map(|labels| labels.iter().map(Vec::as_slice).collect()).collect();
        let log_probs = self.weigh(&ids, &continuations, self.label.clone())?;
        let choices: Vec<Choice> = log_probs
            .iter()
            .map(|log_probs| {
                let best = (0..log_probs.len()).fold(0, |best, index| if log_probs[index] > log_probs[best] { index } else { best });
                Choice { index: best, log_probs: normalized(log_probs).iter().map(|p| p.ln()).collect() }
            })
            .collect();
        self.answers = choices
            .iter()
            .map(|choice| Answer { text: labels[choice.index].clone(), finished: true, log_prob: Some(choice.log_probs[choice.index]) })
            .collect();
        Ok(choices)
    }

    fn log_probs(&mut self, prompts: &[Prompt], golds: &[String]) -> Result<Vec<AnswerLoss>> {
        let ids = self.prompt_ids(prompts)?;
        let answers: Vec<Vec<u32>> = prompts
            .iter()
            .zip(golds)
            .map(|(prompt, gold)| Ok(self.chat.answer_ids(&prompt.id, &messages(prompt), gold)?))
            .collect::<Result<_>>()?;
        let continuations: Vec<[&[u32]; 1]> = answers.iter().map(|answer| [answer.as_slice()]).collect();
        let label = format!("{}, loss", self.label);
        let log_probs = self.weigh(&ids, &continuations, label)?;
        Ok(log_probs
            .iter()
            .zip(&answers)
            .map(|(log_prob, answer)| AnswerLoss { log_prob: log_prob[0], tokens: answer.len() as u64 })
            .collect())
    }
}
