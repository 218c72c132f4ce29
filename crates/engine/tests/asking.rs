//! What a model is asked: scores, choices, generation; each against the plain way.

mod common;

use std::ops::ControlFlow;

use common::*;
use engine::{
    EngineError,
    batch::{Batch, PassLimits, Segment},
    choose::{Question, Weight},
    cpu::CpuDevice,
    device::Device,
    generate::{Completion, Event, Finish, Flow, Prompt, Sampling},
    memory::{GenerationUse, ScoringUse, Uses},
    model::Model,
};
use testkit::{ReferenceDevice, TinyModel, Tolerance};

fn asked<D: Device>(device: D, tiny: &TinyModel, pass: PassLimits, prefix: usize, generation: GenerationUse) -> Model<D> {
    let mut model = model(device, tiny);
    model.attach(&warm_adapter(&lora(), &tiny.config, 3)).expect("the same model");
    model.reserve(&Uses { scoring: Some(ScoringUse { pass, prefix }), generation: Some(generation), ..Uses::default() }).expect("memory");
    model
}

const GENERATION: GenerationUse = GenerationUse { rows: 64, sequences: 4, cache_rows: 128 };

/// Σ ln p of `tokens` from `from` on, computed alone.
fn plain<D: Device>(model: &mut Model<D>, tokens: &[u32], from: usize) -> f64 {
    let weights = (0..tokens.len()).map(|i| if i >= from { 1.0 } else { 0.0 }).collect();
    let batch = unshared(&[Record { tokens: tokens.to_vec(), weights }]);
    model.log_probs_exact(&batch.borrow(), 0).expect("a sound batch").iter().sum()
}

fn sequence(seed: u64, length: u64) -> Vec<u32> {
    (0..length).map(|i| draw(seed, i, 61) as u32).collect()
}

/// Choices in every mixture of limits are the plain sums.
fn choices_are_plain_log_probs<D: Device>(device: impl Fn() -> D, tolerance: Tolerance) {
    let dense = PassLimits { entries: 256, ..PassLimits::dense(128) };
    let narrow = PassLimits { rows: 16, chain: 40, head_rows: 12, entries: 14 };
    let mut left = 0;
    for (tiny, pass, prefix) in [
        (TinyModel::llama(1), dense, 32),
        (TinyModel::windowed(2), dense, 32),
        (TinyModel::llama(3), dense, 0),
        (TinyModel::llama(3), dense, 3),
        (TinyModel::windowed(4), narrow, 32),
        (TinyModel::gemma(4), narrow, 32),
        (TinyModel::biased(4), dense, 32),
        (TinyModel::fused(4), dense, 3),
    ] {
        let mut model = asked(device(), &tiny, pass, prefix, GENERATION);
        let system = sequence(50, 9);
        let prompts: Vec<Vec<u32>> = (0..5).map(|q| [&system[..], &sequence(60 + q, 1 + q)].concat()).collect();
        let labels: Vec<Vec<u32>> = (0..12u64).map(|l| [&sequence(70 + l / 4, 3)[..], &sequence(80 + l, 1 + l % 4)].concat()).collect();
        // Some of a single token, far likelier than the others' all.
        let short = (0..12).map(|l| if l % 3 == 0 { &labels[l][l / 4..l / 4 + 1] } else { &labels[l][..] });
        let labels: Vec<&[u32]> = short.collect();
        let questions: Vec<Question<'_>> =
            prompts.iter().enumerate().map(|(q, prompt)| Question { prompt, continuations: &labels[q..] }).collect();
        let mut heard = Vec::new();
        let answers = model
            .choose(&questions, f64::INFINITY, |done| {
                heard.push(done);
                ControlFlow::Continue(())
            })
            .expect("sound questions");
        let hasty = model.choose(&questions, 1.0, |_| ControlFlow::Continue(())).expect("sound questions");
        left += near_ones_are_the_same(&hasty, &answers, tolerance);
        let answers: Vec<Vec<f64>> = answers.iter().map(|weights| weights.iter().map(|weight| weight.log_prob).collect()).collect();
        assert_eq!(heard.last(), Some(&questions.len()));
        let mut alone = asked(device(), &tiny, dense, 0, GENERATION);
        for (q, (question, answers)) in questions.iter().zip(&answers).enumerate() {
            let expected: Vec<f64> = (question.continuations.iter())
                .map(|continuation| plain(&mut alone, &[question.prompt, continuation].concat(), question.prompt.len()))
                .collect();
            tolerance.check(&format!("choices of {q}, prefix {prefix}, rows {}", pass.rows), answers, &expected);
        }
    }
    assert!(left > 20, "{left} were negligible: hardly a test");
}

/// What is within a nat of the best is computed whole, to the same figure; the rest is bounded from above. Gives how
/// many were left.
fn near_ones_are_the_same(hasty: &[Vec<Weight>], complete: &[Vec<Weight>], tolerance: Tolerance) -> usize {
    let mut left = 0;
    for (hasty, complete) in hasty.iter().zip(complete) {
        let best = complete.iter().map(|weight| weight.log_prob).fold(f64::NEG_INFINITY, f64::max);
        for (hasty, complete) in hasty.iter().zip(complete) {
            if hasty.tokens == complete.tokens {
                tolerance.check("weighed in rounds", &[hasty.log_prob], &[complete.log_prob]);
            } else {
                assert!(complete.log_prob < best - 1.0 && hasty.log_prob >= complete.log_prob);
                left += 1;
            }
        }
    }
    left
}

/// Greedy and sampled answers, by computing every prefix from scratch.
fn from_scratch<D: Device>(model: &mut Model<D>, prompt: &[u32], new: usize) -> Vec<u32> {
    let mut tokens = prompt.to_vec();
    for _ in 0..new {
        let positions: Vec<u32> = (0..tokens.len() as u32).collect();
        let segments = [Segment { rows: 0..tokens.len(), parent: None }];
        let batch = Batch { tokens: &tokens, positions: &positions, draw_keys: &[], segments: &segments, passes: &[], entries: &[] };
        let logits = model.logits(&batch, &[tokens.len() as u32 - 1]).expect("a sound batch");
        let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        tokens.push(logits.iter().position(|&l| l == top).expect("the largest is there") as u32);
    }
    tokens.split_off(prompt.len())
}

fn prompts(tokens: &[Vec<u32>], max_new: usize) -> Vec<Prompt<'_>> {
    tokens.iter().enumerate().map(|(i, tokens)| Prompt { tokens, max_new, stop: &[], draw_key: 100 + i as u64 }).collect()
}

fn answer<D: Device>(model: &mut Model<D>, prompts: &[Prompt<'_>], sampling: &Sampling) -> Vec<Completion> {
    model.generate(prompts, sampling, |_| Flow::Continue).expect("sound prompts")
}

fn cached_generation_is_from_scratch<D: Device>(device: impl Fn() -> D) {
    for tiny in [TinyModel::llama(5), TinyModel::windowed(6), TinyModel::gemma(6), TinyModel::biased(6), TinyModel::fused(6)] {
        let mut model = asked(device(), &tiny, PassLimits::dense(64), 0, GENERATION);
        let system = sequence(51, 7);
        let tokens: Vec<Vec<u32>> = (0..7).map(|q| [&system[..], &sequence(60 + q, 1 + q)].concat()).collect();
        let completions = answer(&mut model, &prompts(&tokens, 9), &Sampling::GREEDY);
        for (tokens, completion) in tokens.iter().zip(&completions) {
            assert_eq!(completion.finish, Finish::Length);
            assert_eq!(completion.tokens, from_scratch(&mut model, tokens, 9));
            let expected = plain(&mut model, &[&tokens[..], &completion.tokens].concat(), tokens.len());
            Tolerance::f32().check("log_prob", &[completion.log_prob], &[expected]);
        }
    }
}

/// What a sequence says does not depend on its neighbours, on the slots, or on how prompts are cut.
fn answers_do_not_depend_on_neighbours<D: Device>(device: impl Fn() -> D, tolerance: Tolerance) {
    let tiny = TinyModel::windowed(7);
    let system = sequence(52, 6);
    let tokens: Vec<Vec<u32>> = (0..6).map(|q| [&system[..], &sequence(60 + q, 1 + 3 * q)].concat()).collect();
    let sampling = Sampling { temperature: 0.9, top_k: Some(20), top_p: 0.95, seed: 4 };
    let mut model = asked(device(), &tiny, PassLimits::dense(64), 0, GENERATION);
    let together = answer(&mut model, &prompts(&tokens, 8), &sampling);
    let same = |a: &[Completion], b: &[Completion]| {
        for (a, b) in a.iter().zip(b) {
            assert_eq!((&a.tokens, a.finish), (&b.tokens, b.finish));
            tolerance.check("log_prob", &[a.log_prob], &[b.log_prob]);
        }
    };
    let alone: Vec<Completion> = prompts(&tokens, 8).iter().flat_map(|prompt| answer(&mut model, &[*prompt], &sampling)).collect();
    same(&together, &alone);
    let narrow = GenerationUse { rows: 3, sequences: 2, cache_rows: 40 };
    let mut model = asked(device(), &tiny, PassLimits::dense(64), 0, narrow);
    same(&together, &answer(&mut model, &prompts(&tokens, 8), &sampling));
    let other = answer(&mut model, &prompts(&tokens, 8), &Sampling { seed: 5, ..sampling });
    assert!(other.iter().zip(&together).any(|(a, b)| a.tokens != b.tokens));
}

fn observers_and_stop_tokens_end_answers<D: Device>(device: impl Fn() -> D) {
    let tiny = TinyModel::llama(8);
    let mut model = asked(device(), &tiny, PassLimits::dense(64), 0, GENERATION);
    let tokens: Vec<Vec<u32>> = (0..3).map(|q| sequence(90 + q, 4)).collect();
    let whole = answer(&mut model, &prompts(&tokens, 6), &Sampling::GREEDY);
    // a stop token is not part of the answer
    let stop = [whole[1].tokens[2]];
    let first = whole[1].tokens.iter().position(|&token| token == stop[0]).expect("it is there");
    let mut stopped = prompts(&tokens, 6);
    stopped[1].stop = &stop;
    stopped[2].max_new = 0;
    let completions = answer(&mut model, &stopped, &Sampling::GREEDY);
    assert_eq!(completions[0], whole[0]);
    assert_eq!((completions[1].finish, &completions[1].tokens[..]), (Finish::Stop, &whole[1].tokens[..first]));
    assert_eq!((completions[2].finish, completions[2].tokens.len()), (Finish::Length, 0));
    // an observer ends one sequence, then everything
    let mut heard = 0;
    let completions = model
        .generate(&prompts(&tokens, 6), &Sampling::GREEDY, |event| match event {
            Event::Token { sequence: 0, .. } => Flow::StopSequence,
            Event::Token { sequence: 2, .. } => {
                heard += 1;
                if heard == 3 { Flow::StopAll } else { Flow::Continue }
            }
            _ => Flow::Continue,
        })
        .expect("sound prompts");
    assert_eq!((completions[0].finish, completions[0].tokens.len()), (Finish::Stop, 1));
    assert_eq!((completions[1].finish, &completions[1].tokens[..]), (Finish::Cancelled, &whole[1].tokens[..3]));
    assert_eq!((completions[2].finish, &completions[2].tokens[..]), (Finish::Cancelled, &whole[2].tokens[..3]));
}

#[test]
fn refusals_name_the_limit() {
    let tiny = TinyModel::llama(9);
    let mut model = asked(ReferenceDevice::new(), &tiny, PassLimits::dense(16), 8, GenerationUse { cache_rows: 20, ..GENERATION });
    let continue_ = |_| ControlFlow::Continue(());
    let question = |prompt| Question { prompt, continuations: &[&[1, 2], &[1]] };
    assert!(matches!(model.choose(&[question(&[])], f64::INFINITY, continue_), Err(EngineError::Empty { index: 0, .. })));
    assert!(matches!(model.choose(&[question(&[1, 61])], f64::INFINITY, continue_), Err(EngineError::Token { token: 61, .. })));
    assert!(matches!(model.choose(&[question(&[1; 16])], f64::INFINITY, continue_), Err(EngineError::Limit { given: 17, limit: 16, .. })));
    let generate = |model: &mut Model<ReferenceDevice>, prompt| model.generate(&[prompt], &Sampling::GREEDY, |_| Flow::Continue);
    let prompt = Prompt { tokens: &[1, 2], max_new: 19, stop: &[], draw_key: 0 };
    assert!(matches!(generate(&mut model, prompt), Err(EngineError::Limit { given: 21, limit: 20, .. })));
    assert!(matches!(generate(&mut model, Prompt { max_new: 255, ..prompt }), Err(EngineError::Limit { given: 257, limit: 256, .. })));
    assert!(matches!(generate(&mut model, Prompt { tokens: &[], ..prompt }), Err(EngineError::Empty { index: 0, .. })));
    let hot = Sampling { temperature: f32::NAN, ..Sampling::GREEDY };
    assert!(matches!(model.generate(&[prompt], &hot, |_| Flow::Continue), Err(EngineError::Sampling { what: "temperature", .. })));
    model.reserve(&Uses::default()).expect("memory");
    assert!(matches!(model.choose(&[question(&[1])], f64::INFINITY, continue_), Err(EngineError::NotPlanned { what: "scoring" })));
}

on_devices!(reference, ReferenceDevice::new; cached_generation_is_from_scratch, observers_and_stop_tokens_end_answers);
on_devices!(cpu, || CpuDevice::new(2); cached_generation_is_from_scratch, observers_and_stop_tokens_end_answers);

#[test]
fn choices_are_plain_log_probs_on_both() {
    choices_are_plain_log_probs(ReferenceDevice::new, Tolerance::f64());
    choices_are_plain_log_probs(|| CpuDevice::new(2), Tolerance::f32());
}

#[test]
fn answers_do_not_depend_on_neighbours_bit_for_bit() {
    answers_do_not_depend_on_neighbours(ReferenceDevice::new, Tolerance::f64());
    answers_do_not_depend_on_neighbours(|| CpuDevice::new(2), Tolerance::exact());
}
