//! What a recipe can fail with, and the hint that goes with it.

use std::path::PathBuf;

/// What is wrong with a run file.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// Not TOML, or a value of the wrong type.
    #[error("{}{}: {}", path.display(), line.map(|line| format!(" line {line}")).unwrap_or_default(), problem)]
    Toml {
        /// What is wrong, on one line.
        problem: String,
        /// Where, from 1.
        line: Option<usize>,
        /// The run file.
        path: PathBuf,
    },
    /// A key that nothing reads.
    #[error("unknown key `{key}` in {}", path.display())]
    UnknownKey {
        /// As written, with its section.
        key: String,
        /// The key that was probably meant.
        nearest: String,
        /// The run file.
        path: PathBuf,
    },
    /// A key without a default.
    #[error("`{key}` is missing")]
    Missing {
        /// The key.
        key: &'static str,
        /// What to write.
        hint: &'static str,
        /// The run file.
        path: PathBuf,
    },
    /// A value outside its range.
    #[error("`{key}` is {given}, expected {expected}")]
    Value {
        /// The key.
        key: String,
        /// What is there.
        given: String,
        /// What may be there.
        expected: String,
    },
    /// A word that is not one of the choices.
    #[error("`{key}` is \"{given}\", expected one of: {expected}")]
    Choice {
        /// The key.
        key: String,
        /// What is there.
        given: String,
        /// The choices.
        expected: String,
        /// The choice that was probably meant.
        nearest: String,
    },
}

/// Everything that a recipe can fail with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The run file.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// A file or a fetch.
    #[error(transparent)]
    Store(#[from] store::StoreError),
    /// A model description or a name.
    #[error(transparent)]
    Family(#[from] families::FamilyError),
    /// A tokenizer, a template or a conversation.
    #[error(transparent)]
    Text(#[from] text::TextError),
    /// Rows, records, splits.
    #[error(transparent)]
    Data(#[from] data::DataError),
    /// The engine.
    #[error(transparent)]
    Engine(#[from] engine::EngineError),
    /// Scores and statistics.
    #[error(transparent)]
    Eval(#[from] eval::Error),
    /// Manifest and ledger.
    #[error(transparent)]
    Govern(#[from] govern::Error),
    /// There is no run file where one was expected.
    #[error("no run file at {}", path.display())]
    NoRunFile {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// A base that is no catalogue name, folder or file.
    #[error("no base model named \"{name}\": not in the catalogue ({known}), and no folder or file of that name")]
    UnknownModel {
        /// As given.
        name: String,
        /// The catalogue.
        known: String,
        /// Names that are written nearly so, of the catalogue and of hosted models.
        nearest: Vec<String>,
    },
    /// A base that is not in the cache, where nothing may be fetched.
    #[error("base model {name} is not in the cache")]
    NotCached {
        /// As given.
        name: String,
    },
    /// A base that has no chat template, for data that needs one.
    #[error("{name} has no chat template, which conversations need")]
    NoTemplate {
        /// The base.
        name: String,
    },
    /// The base stores weights in a way that the engine does not compute with.
    #[error("tensor {tensor} is stored as {given}, expected one of {expected}")]
    Storage {
        /// The tensor.
        tensor: String,
        /// How it is stored.
        given: String,
        /// What is read.
        expected: String,
    },
    /// Quantised weights would be quantised again.
    #[error(
        "tensor {tensor} is stored as {given}, {asked} is asked for: what is quantised is not quantised again, since errors would add up"
    )]
    Requantized {
        /// The tensor.
        tensor: String,
        /// How it is stored.
        given: String,
        /// How it was to be held.
        asked: String,
    },
    /// Numbers that a storage cannot say.
    #[error("tensor {tensor} has numbers that {storage} cannot hold")]
    TooLarge {
        /// The tensor.
        tensor: String,
        /// How it was to be held.
        storage: String,
    },
    /// A run that is not what it was.
    #[error("{name} is not what run {id} was made with any more")]
    Changed {
        /// The file, as the manifest names it.
        name: String,
        /// The run.
        id: String,
    },
    /// No row became a record.
    #[error("no row became a record, of {rows}: {reasons}")]
    NoRecords {
        /// Rows of all sources.
        rows: u64,
        /// How many were dropped for which reason.
        reasons: String,
    },
    /// A source that is another one after it was read.
    #[error("{} changed while it was read", path.display())]
    SourceChanged {
        /// The file or folder.
        path: PathBuf,
    },
    /// A benchmark without a text that could be found again.
    #[error("no text of at least {words} words is in the benchmark {}", path.display())]
    EmptyBenchmark {
        /// Its file.
        path: PathBuf,
        /// How many are needed.
        words: usize,
    },
    /// A tokenizer that makes ids that the model has no embedding for.
    #[error("the tokenizer of {name} has ids up to {given}, and the model's vocabulary has {vocab}")]
    Vocabulary {
        /// The base.
        name: String,
        /// Highest id.
        given: usize,
        /// Rows of the embedding.
        vocab: usize,
    },
    /// An adapter of another model.
    #[error("the adapter does not fit this base: {source}: {}", path.display())]
    OtherBase {
        /// In which way; boxed, so that errors stay small.
        source: Box<families::FamilyError>,
        /// Its folder.
        path: PathBuf,
    },
    /// A base with a weight that spoils every answer.
    #[error("tensor {tensor} has NaN or infinity in it: not a usable weight")]
    Weights {
        /// The tensor.
        tensor: String,
    },
    /// No run of that id.
    #[error("no run \"{given}\" below {}", path.display())]
    NoRun {
        /// As given.
        given: String,
        /// Where runs are.
        path: PathBuf,
    },
    /// No row of that id.
    #[error("no row \"{given}\" in run {id}, neither as a record nor as a document")]
    NoRow {
        /// As given.
        given: String,
        /// The run.
        id: String,
    },
    /// A run without prepared data.
    #[error("run {id} has no prepared data")]
    NotPrepared {
        /// The run.
        id: String,
    },
    /// Nobody looked for label errors, or none were found.
    #[error("run {id} has no labels that are probably wrong")]
    NoSuspects {
        /// The run.
        id: String,
    },
    /// A word in a review that is no decision.
    #[error("the verdict on record {id} is {given:?}, which is neither \"accept\" nor \"reject\"")]
    Verdict {
        /// The record.
        id: String,
        /// What stands there.
        given: String,
    },
    /// A sheet that came back as it went.
    #[error("nothing was accepted or rejected in {}", path.display())]
    NothingReviewed {
        /// The sheet.
        path: PathBuf,
    },
    /// A name that cannot be kept.
    #[error("a person is named by 1 to {limit} characters without line ends; given: {given:?}")]
    PersonName {
        /// As given, as far as the limit.
        given: String,
        /// The limit.
        limit: usize,
    },
    /// A row of a sheet that says nothing about which record it is.
    #[error("row {row} has no id, in {}", path.display())]
    NoId {
        /// The row, from 1.
        row: u64,
        /// The sheet.
        path: PathBuf,
    },
    /// Two rows of a sheet about one record.
    #[error("the id {id:?} stands twice in {}", path.display())]
    IdTwice {
        /// The id.
        id: String,
        /// The sheet.
        path: PathBuf,
    },
    /// A label that is none.
    #[error("the label of record {id} has {given} bytes, at most {limit}")]
    LabelTooLong {
        /// The record.
        id: String,
        /// Its length.
        given: usize,
        /// The limit.
        limit: usize,
    },
    /// Several runs of that beginning.
    #[error("\"{given}\" is the beginning of {count} runs: {names}")]
    ManyRuns {
        /// As given.
        given: String,
        /// How many.
        count: usize,
        /// Which.
        names: String,
    },
    /// A run that has not come so far.
    #[error("run {id} has no {what} yet")]
    NotYet {
        /// The run.
        id: String,
        /// What is missing.
        what: &'static str,
    },
    /// Not enough records.
    #[error("{what}: {given}, at least {least} are needed")]
    TooFew {
        /// Of what.
        what: &'static str,
        /// How many.
        given: usize,
        /// How many at least.
        least: usize,
    },
    /// The plan would not fit.
    #[error("this run needs about {needed} MB of memory, {available} MB are available")]
    Memory {
        /// Planned megabytes.
        needed: u64,
        /// Available megabytes.
        available: u64,
        /// The nearest configuration that fits, as a sentence.
        nearest: String,
    },
    /// The user asked to stop; everything is saved.
    #[error("stopped at step {step} with full state")]
    Stopped {
        /// The run.
        id: String,
        /// Steps done.
        step: u64,
    },
    /// Stopped where there was nothing to save yet.
    #[error("stopped")]
    Interrupted,
    /// A run that could not go on; what it had done is kept.
    #[error("{source}")]
    InRun {
        /// The run.
        id: String,
        /// Why.
        source: Box<Error>,
    },
    /// A file of ours that does not read back.
    #[error("{what} cannot be read back: {reason}: {}", path.display())]
    Corrupt {
        /// What it is.
        what: &'static str,
        /// Why.
        reason: String,
        /// Where.
        path: PathBuf,
    },
    /// A file or folder that is not overwritten unasked.
    #[error("{what} exists already: {}", path.display())]
    Exists {
        /// What would be overwritten.
        what: &'static str,
        /// What to do.
        hint: &'static str,
        /// Where.
        path: PathBuf,
    },
    /// An export for which the file system has no room.
    #[error("{what} needs {needed} bytes, {free} are free at {}", path.display())]
    NoRoom {
        /// The format.
        what: String,
        /// Bytes that will be written, at least.
        needed: u64,
        /// Bytes that can be.
        free: u64,
        /// Where.
        path: PathBuf,
    },
    /// A record that cannot be scored.
    #[error("record {record}: {fault}")]
    Record {
        /// Its id, or its line.
        record: String,
        /// What is wrong.
        fault: RecordFault,
    },
    /// A conversation that fills the context.
    #[error("the conversation has {given} tokens, and the model's context of {limit} leaves no room for an answer")]
    ContextFull {
        /// Tokens so far.
        given: usize,
        /// The context.
        limit: usize,
    },
    /// An adapter that cannot have been trained.
    #[error("the adapter {fault}: {}", path.display())]
    Adapter {
        /// What is wrong.
        fault: &'static str,
        /// Its folder.
        path: PathBuf,
    },
    /// A base that cannot be trained itself.
    #[error("{name} cannot be trained in full: it is {given}, expected a Hugging Face folder of F32, F16 or BF16 weights")]
    FullBase {
        /// The base, as named.
        name: String,
        /// What it is.
        given: String,
    },
    /// An export that answers otherwise than what it was made of.
    #[error("the {format} export is not handed over: {what} is {given:.2e}, at most {limit:.2e}; nothing was written to {}", path.display())]
    Withheld {
        /// Its format.
        format: String,
        /// What was measured.
        what: &'static str,
        /// How large it is.
        given: f64,
        /// How large it may be.
        limit: f64,
        /// Where it would have been.
        path: PathBuf,
    },
    /// Inputs of a command that do not go together.
    #[error("{what}: {given}, expected {expected}")]
    Mismatch {
        /// What.
        what: &'static str,
        /// What was given.
        given: String,
        /// What was expected.
        expected: String,
    },
}

/// What is wrong with a record that is to be scored.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordFault {
    /// Not JSON.
    #[error("it is not JSON at character {column}")]
    NotJson {
        /// Where, from 1.
        column: usize,
    },
    /// A key that must be there.
    #[error("it has no \"{key}\"")]
    Missing {
        /// The key.
        key: &'static str,
    },
    /// A value of another kind.
    #[error("\"{key}\"{}: {expected} expected", at.map(|at| format!(" at position {at}")).unwrap_or_default())]
    Kind {
        /// The key.
        key: &'static str,
        /// Where in its list.
        at: Option<usize>,
        /// What may be there.
        expected: &'static str,
    },
    /// Ids and weights that do not go together.
    #[error("{ids} ids but {weights} loss weights")]
    Lengths {
        /// Ids.
        ids: usize,
        /// Weights.
        weights: usize,
    },
    /// A token that the vocabulary does not have.
    #[error("token id {id} at position {at}, but the vocabulary has {vocab}")]
    Token {
        /// The id.
        id: u64,
        /// Where, from 0.
        at: usize,
        /// The vocabulary.
        vocab: usize,
    },
    /// Nothing in it.
    #[error("it has no tokens")]
    Empty,
    /// Longer than the context.
    #[error("it has {given} tokens, at most {limit} (the model's context)")]
    TooLong {
        /// Its tokens.
        given: usize,
        /// The context.
        limit: usize,
    },
    /// A row that makes no record.
    #[error("it makes no record: {reason}")]
    NoRecord {
        /// Why.
        reason: data::Reason,
    },
}

impl RecordFault {
    fn hint(&self) -> Option<&'static str> {
        Some(match self {
            RecordFault::NotJson { .. } | RecordFault::Missing { .. } | RecordFault::Kind { .. } | RecordFault::Empty => {
                "with `--tokens` each line is one object: {\"id\": \"a\", \"ids\": [1, 2], \"loss_weights\": [0, 1]}"
            }
            RecordFault::Lengths { .. } => "give a weight for each id, or leave out \"loss_weights\": then each counts 1",
            RecordFault::Token { .. } => "make the ids with the tokenizer of the model that is to score them",
            RecordFault::TooLong { .. } => "divide the record, or use a base with a longer context; nothing is cut silently",
            RecordFault::NoRecord { .. } => "fill the row in or take it out: each row of the file gets a line",
        })
    }
}

/// What recipes return.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// What the user can do about it: a sentence with a command or a line that works.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Error::Spec(SpecError::UnknownKey { nearest, .. }) => format!("did you mean `{nearest}`?"),
            Error::Spec(SpecError::Choice { nearest, .. }) => format!("did you mean \"{nearest}\"?"),
            Error::Spec(SpecError::Missing { hint, .. }) => format!("write {hint}"),
            Error::Spec(SpecError::Value { key, expected, .. }) => format!("set `{key}` to {expected}"),
            Error::Spec(SpecError::Toml { .. }) => "docs/reference/run-file.md describes every key".into(),
            Error::NoRunFile { .. } => {
                "make one from your own data with `tunesmith init FILE.csv`, or try `tunesmith run examples/support-tickets`".into()
            }
            Error::UnknownModel { name, .. } if crate::inspect::hosted::find(name).is_some() => {
                format!("its vendor serves it, and it has no files to tune: `tunesmith inspect {name}` says what is known")
            }
            Error::UnknownModel { nearest, .. } if !nearest.is_empty() => {
                format!("did you mean {}? `tunesmith pull` lists the catalogue; hf:org/name is a model of a Hugging Face hub", nearest.join(" or "))
            }
            Error::UnknownModel { .. } => {
                "`tunesmith pull` lists the catalogue; hf:org/name is a model of a Hugging Face hub; a folder or a GGUF file is given by its path".into()
            }
            Error::NotCached { name } => format!("fetch it with `tunesmith pull {name}`"),
            Error::NoTemplate { .. } => "name one in the run file: [model] template = \"chatml\"".into(),
            Error::Storage { .. } => "use a Hugging Face folder of the same model, or a GGUF file with one of these".into(),
            Error::Requantized { .. } => {
                "leave out [model] storage (or --storage), set it to \"f32\", or take the F16 or BF16 model that this one was made from"
                    .into()
            }
            Error::TooLarge { .. } => "set [model] storage to \"bf16\" or \"nf4\", or leave it out".into(),
            Error::NoRun { .. } => "`tunesmith runs` lists them".into(),
            Error::ManyRuns { .. } => "give more of the id".into(),
            Error::NotYet { id, .. } => format!("finish it with `tunesmith runs resume {id}`"),
            Error::TooFew { .. } => "add records, or set [prepare] split to other fractions".into(),
            Error::Memory { nearest, .. } => nearest.clone(),
            Error::Exists { hint, .. } => (*hint).into(),
            Error::NoRoom { .. } => {
                "free some space, give another place with `--output PATH`, or take a smaller format: `--to gguf-lora`, `--to peft`".into()
            }
            Error::Record { fault, .. } => return fault.hint().map(str::to_owned),
            Error::ContextFull { .. } => "begin a new conversation; nothing of this one was dropped".into(),
            Error::FullBase { .. } => {
                "set [tune] method to \"lora\", which trains an adapter beside any storage, or [model] base to the model's Hugging Face folder".into()
            }
            Error::Adapter { .. } => "train it first: `tunesmith tune FOLDER`".into(),
            Error::Withheld { .. } => "take a format with more bits: --to gguf-q8_0, gguf-f16 or hf --dtype f32".into(),
            Error::Changed { id, .. } => {
                format!("put it back, or start a new run with `tunesmith run`; `tunesmith audit {id}` names every change")
            }
            Error::Engine(engine::EngineError::NotFinite { .. }) => {
                "set [tune] learning_rate to a tenth and start again with `tunesmith run`".into()
            }
            Error::NoRecords { .. } => "longer records need a larger [prepare] max_tokens, and a base with that context".into(),
            Error::NotPrepared { .. } => "prepare it with `tunesmith prepare PROJECT`".into(),
            Error::NoSuspects { .. } => "set [prepare] label_errors = \"report\" and prepare again".into(),
            Error::Verdict { .. } => "write accept, reject or nothing into the column `verdict`".into(),
            Error::NothingReviewed { .. } => "write accept or reject into the column `verdict` of each row".into(),
            Error::PersonName { .. } => "give a name such as --by \"Ada Example\"".into(),
            Error::NoId { .. } | Error::IdTwice { .. } => "leave the column `id` as it was exported, a row for each record".into(),
            Error::LabelTooLong { .. } => "a label is a word or a short answer".into(),
            Error::SourceChanged { .. } => "copy it first: what is still being written, or is the system's own, has no hash".into(),
            Error::EmptyBenchmark { .. } => "name the file with the benchmark's questions in [prepare] benchmarks".into(),
            Error::Vocabulary { .. } => "take the tokenizer.json that was published with these weights".into(),
            Error::OtherBase { .. } => "name the base that it was trained on: adapter_config.json says which".into(),
            Error::Stopped { id, .. } => format!("go on with `tunesmith runs resume {id}`"),
            Error::InRun { id, source } => match &**source {
                Error::Interrupted => format!("go on with `tunesmith runs resume {id}`"),
                Error::Store(store::StoreError::DiskFull { .. }) => {
                    format!("free some space, then go on with `tunesmith runs resume {id}`")
                }
                source => return source.hint(),
            },
            Error::Store(store::StoreError::Missing { .. }) => "check its path; those in a run file start at the run file's folder".into(),
            Error::Store(error) => return error.hint(),
            Error::Data(error) => return data_hint(error).map(str::to_owned),
            _ => return None,
        })
    }
}

/// What helps where the rows are not as the run file says.
fn data_hint(error: &data::DataError) -> Option<&'static str> {
    use data::DataError::{
        Content, DuplicateId, Empty, EmptyPart, MissingColumn, NoSheet, OneClass, Portions, RecipeNeeded, UnknownFormat, XmlRecordNeeded,
    };
    Some(match error {
        MissingColumn { .. } => "name a column that is there, or let `tunesmith init FILE` look at the file",
        UnknownFormat { .. } | Content { .. } => "say how it is written: [[data.source]] format = \"csv\"",
        XmlRecordNeeded { .. } => "[[data.source]] xml_record = \"QAPair\" names the element that is a row",
        NoSheet { .. } => "[[data.source]] sheet names one of its sheets; hidden ones are read only by name",
        RecipeNeeded { .. } => "`tunesmith init FILE` guesses them and writes a run file",
        Empty { .. } => "a table's first line names its columns, and each line after it is a row",
        DuplicateId { .. } => "give each row an id of its own, or leave out [[data.source]] id",
        OneClass { .. } => "add rows with another answer, or set [[data.source]] target to another column",
        EmptyPart { units: 1, .. } => {
            "all rows are of one group, or nearly alike and so on one side: look at `group`, or set [prepare] near_duplicates = \"report\""
        }
        EmptyPart { .. } | Portions { .. } => "add rows, or set [prepare] split to other fractions",
        _ => return None,
    })
}
