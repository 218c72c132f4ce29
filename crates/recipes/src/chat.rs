//! `chat`: a conversation with a base model, or with the tuned model of a run. What a run with objective = "text" trained
//! continues what it is given, as it was trained: without a template, each text by itself.
//!
//! Prompts come from the same [`ChatFormat`](text::ChatFormat) as training's, and answers from the same engine path as
//! the evaluation's. Nothing of a conversation is ever dropped silently: one that fills the context is an error.

use std::path::{Path, PathBuf};

use engine::compute::Compute;
use engine::cpu::CpuDevice;
use engine::generate::{Event as Generated, Finish as EngineFinish, Flow, Prompt, Sampling};
use engine::model::Model;
use serde::Serialize;
use text::{Message, PlainFormat, Role};

use crate::base::{self, Base};
use crate::context::{Context, Observer};
use crate::error::{Error, Result};
use crate::responder::{conversation_uses, stop_ids};
use crate::spec::EngineChoice;
use crate::tune_full::MODEL_FOLDER;
use crate::{adapters, runs};

/// The cache grows in steps of so many rows.
const CACHE_STEP: usize = 1024;
/// Prepared facts of a run, in bytes.
const PREPARED_BYTES_MAX: u64 = 1 << 30;

/// With whom to talk, and how answers are drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct ChatOptions {
    /// Run id, run folder, or base model.
    pub model: String,
    /// PEFT folder, with a base model.
    pub adapter: Option<PathBuf>,
    /// How the weights are held, as `[model] storage` says; empty: as the run says, or as the base's files have them.
    pub storage: String,
    /// The compute path, as `[engine] compute` says; empty: as the run says, or exact.
    pub compute: String,
    /// What the cache holds, as `[engine] kv_cache` says; empty: as the run says, or f32.
    pub kv_cache: String,
    /// System message; none: the run's instruction.
    pub system: Option<String>,
    /// 0 is greedy.
    pub temperature: f32,
    /// Only the k likeliest tokens; 0: all.
    pub top_k: usize,
    /// Only the likeliest tokens that together have this probability; 1: all.
    pub top_p: f32,
    /// Seed of the draws.
    pub seed: u64,
    /// Longest answer in tokens.
    pub max_tokens: usize,
    /// Texts before which an answer ends.
    pub stop: Vec<String>,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// The model ended its turn.
    EndOfTurn,
    /// A stop text came.
    Stop,
    /// The longest answer is reached.
    Length,
    /// The context is full.
    Context,
    /// The user asked to stop.
    Cancelled,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Reply {
    /// Its text, without stop text and end of turn.
    pub text: String,
    /// Why it ended.
    pub finish: Finish,
    /// Tokens of the conversation before it.
    pub prompt_tokens: usize,
    /// Tokens of the answer.
    pub tokens: usize,
}

/// A conversation.
pub struct Session {
    base: Base,
    /// Texts are continued, not answered.
    plain: Option<PlainFormat>,
    model: Model<CpuDevice>,
    messages: Vec<Message>,
    sampling: Sampling,
    max_tokens: usize,
    stop: Vec<String>,
}

impl Session {
    /// Loads the model and begins a conversation.
    pub fn open(context: &Context<'_>, observer: &mut dyn Observer, options: ChatOptions) -> Result<Session> {
        let refused = |what, given: String, expected: &str| Err(Error::Mismatch { what, given, expected: expected.into() });
        if options.max_tokens == 0 {
            return refused("--max-tokens", "0".into(), "at least 1");
        }
        if options.stop.iter().any(String::is_empty) {
            return refused("--stop", "an empty text".into(), "at least one character");
        }
        let found = Found::new(context, &options)?;
        let base = Base::open(context, observer, &found.base, &found.template)?.held_as(&found.storage)?;
        let base = base.asked_by(&found.engine.compute, &found.engine.kv_cache)?;
        let plain = if found.plain { Some(base.plain()?) } else { None };
        if plain.is_none() {
            base.chat()?;
        } else if options.system.is_some() {
            return refused("--system", "beside a run of plain texts, which have no turns".into(), "a run of questions and answers");
        }
        let adapter = found.adapter.map(|folder| adapters::load(&folder, &base.described)).transpose()?;
        let mut model = base.load(context.threads)?;
        if let Some(adapter) = &adapter {
            model.attach(adapter)?;
        }
        let system = options.system.unwrap_or(found.instruction);
        let messages = if system.is_empty() { Vec::new() } else { vec![Message::new(Role::System, system)] };
        let top_k = (options.top_k > 0).then_some(options.top_k);
        let sampling = Sampling { temperature: options.temperature, top_k, top_p: options.top_p, seed: options.seed };
        Ok(Session { base, plain, model, messages, sampling, max_tokens: options.max_tokens, stop: options.stop })
    }

    /// The conversation so far.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// Whether texts are continued, not answered.
    pub fn continues(&self) -> bool {
        self.plain.is_some()
    }

    /// Says `user` and hands the answer to `on_text` as it comes. After an error the conversation is as before.
    ///
    /// # Errors
    /// A conversation that leaves no room for an answer in the model's context; sampling out of range.
    pub fn reply(&mut self, user: &str, observer: &mut dyn Observer, on_text: &mut dyn FnMut(&str)) -> Result<Reply> {
        self.messages.push(Message::new(Role::User, user));
        let reply = self.answer(observer, on_text);
        match &reply {
            // The next text has nothing to do with this one.
            Ok(_) if self.plain.is_some() => self.messages.clear(),
            Ok(reply) => self.messages.push(Message::new(Role::Assistant, reply.text.as_str())),
            Err(_) => {
                self.messages.pop();
            }
        }
        reply
    }

    fn answer(&mut self, observer: &mut dyn Observer, on_text: &mut dyn FnMut(&str)) -> Result<Reply> {
        let prompt = match (&self.plain, self.messages.last()) {
            (Some(plain), Some(said)) => plain.beginning("of this conversation", &said.content)?,
            _ => self.base.chat()?.prompt_ids("of this conversation", &self.messages)?,
        };
        if prompt.is_empty() {
            return Err(Error::TooFew { what: "tokens to continue", given: 0, least: 1 });
        }
        let limit = self.base.config().context;
        if prompt.len() >= limit {
            return Err(Error::ContextFull { given: prompt.len(), limit });
        }
        let max_new = self.max_tokens.min(limit - prompt.len());
        reserve(&mut self.model, prompt.len() + max_new, self.base.compute())?;

        let end = match &self.plain {
            Some(plain) => [self.base.end_ids.as_slice(), &[plain.end_of_text()]].concat(),
            None => stop_ids(&self.base)?,
        };
        let tokenizer = self.base.tokenizer()?.clone();
        let mut decoder = tokenizer.decode_stream(true);
        let mut gate = StopGate::new(&self.stop);
        let (mut text, mut failed) = (String::new(), None);
        let mut say = |piece: String| {
            if !piece.is_empty() {
                on_text(&piece);
                text += &piece;
            }
        };
        let request = Prompt { tokens: &prompt, max_new, stop: &end, draw_key: self.messages.len() as u64 };
        let completions = self.model.generate(&[request], &self.sampling, |event| {
            if observer.stopped() {
                return Flow::StopAll;
            }
            let Generated::Token { token, .. } = event else { return Flow::Continue };
            match decoder.push(token) {
                Ok(piece) => say(gate.push(&piece)),
                Err(error) => {
                    failed = Some(error);
                    return Flow::StopAll;
                }
            }
            if gate.stopped { Flow::StopSequence } else { Flow::Continue }
        })?;
        if let Some(error) = failed {
            return Err(error.into());
        }
        if !gate.stopped {
            say(gate.push(&decoder.finish()?));
        }
        say(gate.rest());
        let completion = &completions[0];
        let finish = match completion.finish {
            _ if gate.stopped => Finish::Stop,
            EngineFinish::Stop => Finish::EndOfTurn,
            EngineFinish::Length if max_new < self.max_tokens => Finish::Context,
            EngineFinish::Length => Finish::Length,
            EngineFinish::Cancelled => Finish::Cancelled,
        };
        Ok(Reply { text, finish, prompt_tokens: prompt.len(), tokens: completion.tokens.len() })
    }
}

/// Lays out the cache where this conversation needs more of it than those before.
fn reserve(model: &mut Model<CpuDevice>, rows: usize, compute: Compute) -> Result<()> {
    if model.uses().generation.is_none_or(|generation| generation.cache_rows < rows) {
        let uses = conversation_uses(model.config(), rows.next_multiple_of(CACHE_STEP), compute);
        model.reserve(&uses)?;
    }
    Ok(())
}

/// What the options name.
struct Found {
    base: String,
    template: String,
    storage: String,
    engine: EngineChoice,
    adapter: Option<PathBuf>,
    instruction: String,
    plain: bool,
}

impl Found {
    fn new(context: &Context<'_>, options: &ChatOptions) -> Result<Found> {
        let given = &options.model;
        let of_base = || Found {
            base: given.clone(),
            template: String::new(),
            storage: options.storage.clone(),
            engine: EngineChoice { compute: options.compute.clone(), kv_cache: options.kv_cache.clone() },
            adapter: options.adapter.clone(),
            instruction: String::new(),
            plain: false,
        };
        let here = Path::new(given);
        if store::catalogue::find(given).is_some() || given.starts_with("pip:") || (here.exists() && !here.join("plan.toml").exists()) {
            return Ok(of_base());
        }
        let run = runs::find(context, given).map_err(|error| match error {
            // Whoever did not mean a run id meant a base.
            Error::NoRun { .. } if !given.starts_with(|first: char| first.is_ascii_digit()) => base::unknown(given),
            error => error,
        })?;
        if options.adapter.is_some() {
            return Err(Error::Mismatch {
                what: "--adapter",
                given: "beside a run, which has its own".into(),
                expected: "it beside a base model".into(),
            });
        }
        let adapter = run.join("adapter");
        let trained = run.join(MODEL_FOLDER);
        if !adapter.exists() && !trained.exists() {
            return Err(Error::NotYet { id: runs::id(&run), what: "adapter" });
        }
        let plan = runs::plan(&run)?;
        let plain = plan.is_text();
        let prepared = store::atomic::read_json(&run.join("data/prepared.json"), PREPARED_BYTES_MAX)?;
        let instruction = prepared["instruction"].as_str().unwrap_or(&plan.instruction).to_owned();
        // What is evaluated is what answers, unless the user says otherwise.
        let given_or = |given: &String, of_run: String| if given.is_empty() { of_run } else { given.clone() };
        let engine = EngineChoice {
            compute: given_or(&options.compute, plan.engine.compute),
            kv_cache: given_or(&options.kv_cache, plan.engine.kv_cache),
        };
        if trained.exists() {
            let (base, storage) = (trained.display().to_string(), options.storage.clone());
            return Ok(Found { base, template: plan.model.template, storage, engine, adapter: None, instruction, plain });
        }
        let base = base::beside(&plan.model.base, &runs::sources_folder(&run)?);
        let storage = given_or(&options.storage, plan.model.storage);
        Ok(Found { base, template: plan.model.template, storage, engine, adapter: Some(adapter), instruction, plain })
    }
}

/// Lets text pass up to the first stop text, which may come in pieces: what could be its beginning is held back.
struct StopGate<'a> {
    stop: &'a [String],
    held: String,
    stopped: bool,
}

impl<'a> StopGate<'a> {
    fn new(stop: &'a [String]) -> StopGate<'a> {
        StopGate { stop, held: String::new(), stopped: false }
    }

    /// The text that one more piece sets free.
    fn push(&mut self, piece: &str) -> String {
        self.held += piece;
        if let Some(at) = self.stop.iter().filter_map(|stop| self.held.find(stop.as_str())).min() {
            self.stopped = true;
            self.held.truncate(at);
            return std::mem::take(&mut self.held);
        }
        let begins_stop = |at: &usize| self.stop.iter().any(|stop| stop.starts_with(&self.held[*at..]));
        let safe = self.held.char_indices().map(|(at, _)| at).find(begins_stop).unwrap_or(self.held.len());
        let kept = self.held.split_off(safe);
        std::mem::replace(&mut self.held, kept)
    }

    /// What is held back, once nothing more can come.
    fn rest(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass(stop: &[&str], pieces: &[&str]) -> (Vec<String>, bool, String) {
        let stop: Vec<String> = stop.iter().map(|text| (*text).to_owned()).collect();
        let mut gate = StopGate::new(&stop);
        let mut said = Vec::new();
        for piece in pieces {
            said.push(gate.push(piece));
            if gate.stopped {
                break;
            }
        }
        (said, gate.stopped, gate.rest())
    }

    #[test]
    fn stop_texts_may_come_in_pieces() {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        assert_eq!(pass(&["END"], &["one E", "N", "D two"]), (owned(&["one ", "", ""]), true, String::new()));
        assert_eq!(pass(&["END"], &["one E", "N", "d"]), (owned(&["one ", "", "ENd"]), false, String::new()));
        assert_eq!(pass(&["END"], &["EEN", "D"]), (owned(&["E", ""]), true, String::new()));
        assert_eq!(pass(&["END"], &["E", "N"]), (owned(&["", ""]), false, "EN".to_owned()));
        assert_eq!(pass(&["\n\n", "ü"], &["a\n", "b", "cü"]), (owned(&["a", "\nb", "c"]), true, String::new()));
        assert_eq!(pass(&["aab"], &["aa", "aab"]), (owned(&["", "aa"]), true, String::new()));
        assert_eq!(pass(&[], &["aa", "b"]), (owned(&["aa", "b"]), false, String::new()));
        assert_eq!(pass(&["b", "ab"], &["xab"]), (owned(&["x"]), true, String::new()));
    }
}
