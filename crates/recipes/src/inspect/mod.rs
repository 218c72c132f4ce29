//! `inspect`: is this model ready to be fine-tuned here, and at what price: from its files alone.
//!
//! Weights are loaded only to rank several models by their loss on the user's own records. Memory is the engine's own
//! tables, time is model FLOPs over the rate that this machine's matrix product reaches now; see `methods`.

pub mod hosted;
mod methods;
mod sample;
mod words;

use std::path::{Path, PathBuf};

use ::text::{Message, Role, Specials};
use families::adapters::module_name;
use serde::Serialize;
use store::survey::{self, FileKind, Surveyed};

use crate::base::{self, Base};
use crate::context::{Context, Event, Observer};
use crate::error::{Error, Result};

pub use hosted::{Hosted, HostedFact, Tuning};
pub use methods::{Method, Speed};
pub use sample::{DataFacts, Loss};
pub use words::lines;

/// Texts that a tokenizer must give back: spaces, scripts, signs, a number, code.
const ROUND_TRIP: [&str; 6] = [
    "Hello, world!",
    "  two  spaces\n\ttab",
    "Größe: 1.234,56 € – naïve",
    "你好，世界 🙂",
    "{\"order\": 48213}",
    "def f(x):\n    return x",
];

/// What `inspect` found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Inspection {
    /// The models, in the order asked for, or the best first where they were ranked.
    pub models: Vec<Inspected>,
    /// How the models were ranked, if they were.
    pub ranked_by: Option<&'static str>,
    /// The rate behind all times.
    pub speed: Option<Speed>,
}

/// One model.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "where", rename_all = "lowercase")]
pub enum Inspected {
    /// Its files are on this computer.
    Local(Box<Local>),
    /// A vendor serves it.
    Hosted {
        /// As asked for.
        name: String,
        /// What is known.
        known: Hosted,
    },
}

/// A model whose files are here.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Local {
    /// As asked for.
    pub name: String,
    /// Folder or file.
    pub path: PathBuf,
    /// Where it came from, and under what name it is found again.
    pub source: String,
    /// Whether it can be fine-tuned as it is.
    pub ready: bool,
    /// What stands in the way, each with what helps.
    pub problems: Vec<Problem>,
    /// Its files.
    pub files: Vec<FileFacts>,
    /// Family and sizes.
    pub architecture: String,
    /// Parameters.
    pub parameters: u64,
    /// How the files store them.
    pub storage: String,
    /// Longest text in tokens.
    pub context: u64,
    /// Which layers an adapter can be put on.
    pub adapters: Vec<AdapterFacts>,
    /// The chat template.
    pub template: TemplateFacts,
    /// The tokenizer.
    pub tokenizer: TokenizerFacts,
    /// As the catalogue or the files name it; empty is BLANK.
    pub licence: String,
    /// What that licence asks.
    pub licence_asks: String,
    /// Who published it; empty is BLANK.
    pub publisher: String,
    /// Memory and time of each way to tune it on this machine.
    pub methods: Vec<Method>,
    /// Who can serve it, base and adapter.
    pub served_by: Vec<Server>,
    /// What the user's data is to it.
    pub data: Option<DataFacts>,
    /// Loss without any tuning on the user's records.
    pub loss: Option<Loss>,
}

/// Something in the way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// What is wrong.
    pub what: String,
    /// What helps, where that is known.
    pub hint: Option<String>,
}

impl Problem {
    fn of(error: &Error) -> Problem {
        Problem { what: error.to_string(), hint: error.hint() }
    }
}

/// A file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileFacts {
    /// Its name.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// What it is.
    pub kind: &'static str,
    /// Why it is not read, and what makes a readable file of it; nothing for what is read.
    pub refused: Option<&'static str>,
}

/// A kind of layer that an adapter can be put on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AdapterFacts {
    /// As PEFT calls it.
    pub module: String,
    /// Outputs of the matrix.
    pub out: u64,
    /// Inputs of the matrix.
    pub inputs: u64,
    /// How many layers have it.
    pub layers: u64,
    /// What a LoRA of rank 16 adds in all of them.
    pub parameters_rank_16: u64,
}

/// The chat template.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TemplateFacts {
    /// Whether the files have one.
    pub own: bool,
    /// Roles that it takes.
    pub roles: Vec<&'static str>,
    /// The token that ends an answer.
    pub end_of_turn: String,
    /// Whether the answer's tokens can be told from the prompt's, so that loss lies on the answer alone.
    pub trainable: bool,
}

/// The tokenizer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TokenizerFacts {
    /// Tokens.
    pub tokens: u64,
    /// Rows of the embedding table.
    pub embedding_rows: u64,
    /// The token that begins a text, if any.
    pub begin: Option<String>,
    /// The token that ends one, if any.
    pub end: Option<String>,
    /// Of six texts in several scripts, how many do not come back as they were.
    pub round_trip_failures: u64,
}

/// A program that serves models.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Server {
    /// Its name.
    pub program: &'static str,
    /// With an adapter trained here: how.
    pub how: String,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct InspectOptions<'a> {
    /// Names, folders, files, `hf:` and `pip:` sources, or names of hosted models.
    pub models: &'a [String],
    /// The user's own records.
    pub data: Option<&'a Path>,
    /// What an hour of this machine costs, in whatever currency.
    pub hourly_cost: Option<f64>,
}

/// Looks at each model; with data, several are ranked by their loss on a sample of it.
///
/// # Errors
/// A name that is neither a file, in a catalogue, nor a hosted model; a model that was never fetched, which it does not do; data that cannot be read. What is wrong with one
/// model's files is no error, but stands in its problems.
pub fn inspect(context: &Context<'_>, observer: &mut dyn Observer, options: InspectOptions<'_>) -> Result<Inspection> {
    let data = options.data.map(sample::Sample::read).transpose()?;
    let (mut models, mut bases) = (Vec::new(), Vec::new());
    for name in options.models {
        match hosted::find(name).filter(|_| !Path::new(name).exists()) {
            Some(known) => {
                models.push(Inspected::Hosted { name: name.clone(), known: known.clone() });
                bases.push(None);
            }
            None => {
                let (local, base) = local(context, observer, name)?;
                models.push(Inspected::Local(Box::new(local)));
                bases.push(base);
            }
        }
    }
    let largest = bases.iter().flatten().max_by_key(|base| base.parameters());
    let speed = largest.map(|base| methods::measure(context, base.config())).transpose()?;
    for (model, base) in models.iter_mut().zip(&bases) {
        let (Inspected::Local(local), Some(base)) = (model, base) else { continue };
        if let Some(speed) = &speed {
            local.methods = methods::methods(context, base, speed, options.hourly_cost)?;
        }
        if let Some(data) = &data {
            local.data = Some(data.facts(base)?);
        }
    }
    let mut ranked_by = None;
    if let Some(data) = data.as_ref().filter(|data| data.has_records()) {
        for (model, base) in models.iter_mut().zip(&bases) {
            let (Inspected::Local(local), Some(base)) = (model, base) else { continue };
            observer.event(Event::Stage(format!("Loss of {}", local.name)));
            match data.loss(context, observer, base) {
                Ok(loss) => local.loss = Some(loss),
                Err(Error::Interrupted) => return Err(Error::Interrupted),
                Err(error) => local.problems.push(Problem::of(&error)),
            }
        }
        let nats = |model: &Inspected| match model {
            Inspected::Local(local) => local.loss.as_ref().map_or(f64::INFINITY, |loss| loss.nats_per_answer),
            Inspected::Hosted { .. } => f64::INFINITY,
        };
        models.sort_by(|a, b| nats(a).total_cmp(&nats(b)));
        ranked_by = Some("mean negative log-probability of the answers, without tuning: the same text for every model");
    }
    Ok(Inspection { models, ranked_by, speed })
}

/// What the files of a model say; the base with them where they can be read.
fn local(context: &Context<'_>, observer: &mut dyn Observer, name: &str) -> Result<(Local, Option<Base>)> {
    // Looking at a model is no reason to download gigabytes: the error says how to fetch it.
    let located = base::locate(context, observer, name, true)?;
    let files = survey::survey(&located.path)?;
    let mut local = Local {
        name: name.to_owned(),
        source: located.source.clone(),
        files: files.iter().map(file_facts).collect(),
        path: located.path,
        ..Local::default()
    };
    let (base, works) = match Base::open(context, observer, name, "") {
        Ok(base) => (base, true),
        Err(Error::Interrupted) => return Err(Error::Interrupted),
        Err(error) => {
            local.problems.push(Problem::of(&error));
            // What is wrong may be the template alone; the rest is told all the same.
            match Base::open(context, observer, name, "plain") {
                Ok(base) if matches!(error, Error::Text(_)) => (base, false),
                _ => {
                    local.problems.extend(unread(&files));
                    return Ok((local, None));
                }
            }
        }
    };
    describe(&mut local, &base, works)?;
    local.ready = local.problems.is_empty();
    Ok((local, Some(base)))
}

fn file_facts(file: &Surveyed) -> FileFacts {
    FileFacts { name: file.name.clone(), bytes: file.bytes, kind: file.kind.name(), refused: file.kind.refused() }
}

/// Weights that are there and not read.
fn unread(files: &[Surveyed]) -> Vec<Problem> {
    let weights = |kind| matches!(kind, FileKind::Pickle | FileKind::Onnx | FileKind::OtherWeights);
    let unread = files.iter().filter(|file| weights(file.kind));
    unread.map(|file| Problem { what: format!("{} is not read", file.name), hint: file.kind.refused().map(str::to_owned) }).collect()
}

/// Fills in what the base says; `template_works` unless its own template was replaced to get here.
fn describe(local: &mut Local, base: &Base, template_works: bool) -> Result<()> {
    let config = base.config();
    local.architecture = base.architecture();
    local.parameters = base.parameters();
    local.storage = base.storage_names();
    local.context = config.context as u64;
    local.licence = base.licence();
    local.licence_asks = base.licence_asks();
    local.publisher = base.publisher();
    if let Err(error) = base.storages() {
        local.problems.push(Problem::of(&error)); // a tensor is stored in a way that is not read
    }
    for linear in config.adapter_linears() {
        let (out, inputs) = config.adapter_shape(linear);
        let rank_16 = 16 * (out + inputs) * config.layers;
        local.adapters.push(AdapterFacts {
            module: module_name(config, linear).to_owned(),
            out: out as u64,
            inputs: inputs as u64,
            layers: config.layers as u64,
            parameters_rank_16: rank_16 as u64,
        });
    }
    local.tokenizer = tokenizer(base)?;
    if local.tokenizer.round_trip_failures > 0 {
        let what = format!("the tokenizer does not give back {} of {} texts", local.tokenizer.round_trip_failures, ROUND_TRIP.len());
        local.problems.push(Problem { what, hint: Some("an uncased or lossy tokenizer cannot learn exact answers".into()) });
    }
    local.template = if template_works { template(base)? } else { TemplateFacts { own: true, ..TemplateFacts::default() } };
    if !local.template.own {
        let hint = "name one in the run file: [model] template = \"chatml\", \"gemma\" or \"plain\"";
        local.problems.push(Problem { what: "the files have no chat template".into(), hint: Some(hint.into()) });
    }
    local.served_by = served_by(base);
    Ok(())
}

fn tokenizer(base: &Base) -> Result<TokenizerFacts> {
    let tokenizer = base.tokenizer()?;
    let mut failures = 0;
    for text in ROUND_TRIP {
        let ids = tokenizer.encode(text, Specials::AsText)?;
        failures += u64::from(tokenizer.decode(&ids, false)? != text);
    }
    let name = |id: Option<u32>| id.and_then(|id| tokenizer.token_text(id));
    Ok(TokenizerFacts {
        tokens: tokenizer.vocab_size() as u64,
        embedding_rows: base.config().vocab as u64,
        begin: name(tokenizer.bos()),
        end: name(tokenizer.eos()),
        round_trip_failures: failures,
    })
}

fn template(base: &Base) -> Result<TemplateFacts> {
    let Some(chat) = base.template()? else { return Ok(TemplateFacts::default()) };
    let says = |role, shown: &str| {
        let messages = [Message::new(role, shown), Message::new(Role::User, "question")];
        chat.template().render(&messages, true).is_ok_and(|text| text.contains(shown) && text.contains("question"))
    };
    let mut roles = vec!["user", "assistant"];
    if says(Role::System, "instruction") {
        roles.insert(0, "system");
    }
    Ok(TemplateFacts {
        own: true,
        roles,
        end_of_turn: base.tokenizer()?.token_text(chat.end_of_turn()).unwrap_or_default(),
        // `ChatFormat` could not be made of one whose prompts are no beginnings of whole conversations.
        trainable: true,
    })
}

/// Who serves the base with a plain LoRA adapter trained here.
fn served_by(base: &Base) -> Vec<Server> {
    let server = |program, how: &str| Server { program, how: how.to_owned() };
    let mut servers = vec![server("tunesmith", "chat, with the adapter beside the base")];
    if base.is_gguf() {
        servers.push(server("llama.cpp", "this file, and the adapter as a GGUF adapter"));
    } else {
        servers.push(server("PEFT, transformers", "this folder, and the adapter's folder"));
        servers.push(server("vLLM", "this folder, and the adapter's folder (LoRA and rsLoRA; no DoRA, no modules_to_save)"));
        servers.push(server("mistral.rs", "this folder, and the adapter's folder (LoRA and rsLoRA up to rank 256; no DoRA)"));
        servers.push(server("llama.cpp", "after its own conversion of this folder to GGUF"));
    }
    servers
}
