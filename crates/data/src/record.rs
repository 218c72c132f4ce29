//! A record: what is asked, and the answer that is wanted.

use crate::clean;
use crate::derive::{CONTINUED, PART};
use crate::document::json_text;
use crate::steps::Reason;
use crate::{DataError, Dataset, Document, Rejected, Shape, Value};
use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, HashSet};
use text::{Message, Role};

/// Shapes that can be trained on, for errors.
const TRAINABLE: &str = "columns, messages, prompt/completion, inputs/targets, Alpaca, ShareGPT";

/// Columns that rows with a shape of their own are read from.
const SHAPED_COLUMNS: &[&str] =
    &["messages", "conversations", "prompt", "completion", "inputs", "targets", "instruction", "input", "output"];

/// A field of a structured answer.
#[derive(Clone, Debug, PartialEq)]
pub enum FieldValue {
    /// `null`.
    Null,
    /// A boolean.
    Bool(bool),
    /// A JSON number as written.
    Number(String),
    /// Text.
    Text(String),
    /// A list or an object as compact JSON.
    Json(String),
}

impl FieldValue {
    /// What a person would read: text as it is, the rest as JSON.
    pub fn to_text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            value => value.to_json(),
        }
    }

    /// Compact JSON.
    pub fn to_json(&self) -> String {
        match self {
            Self::Null => "null".into(),
            Self::Bool(value) => value.to_string(),
            Self::Number(number) | Self::Json(number) => number.clone(),
            Self::Text(text) => json_text(text),
        }
    }
}

/// The answer that is wanted.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Text: a label, or free text; empty where none is known (far out of distribution).
    Text(String),
    /// A JSON object, fields in the order of `target`.
    Fields(Vec<(String, FieldValue)>),
}

impl Answer {
    /// What the model is to write: the text, or compact JSON.
    pub fn to_text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Fields(fields) => {
                let field = |(name, value): &(String, FieldValue)| format!("{}:{}", json_text(name), value.to_json());
                format!("{{{}}}", fields.iter().map(field).collect::<Vec<_>>().join(","))
            }
        }
    }

    /// Whether there is nothing to learn in it.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Text(text) => text.trim().is_empty(),
            Self::Fields(fields) => fields.is_empty(),
        }
    }
}

/// Where a record came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lineage {
    /// Its document.
    pub document: String,
    /// Its source.
    pub source: String,
    /// Its row in the source, from 1.
    pub row: u64,
    /// What it is an augmented copy of, if it is one.
    pub change: Option<Change>,
}

/// How a record was made of another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The id of that record.
    pub parent: String,
    /// The kind of change.
    pub kind: String,
}

/// One item to learn from or to be measured on.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Stable id.
    pub id: String,
    /// Everything before the answer.
    pub messages: Vec<Message>,
    /// The answer.
    pub answer: Answer,
    /// OpenAI's weight of the answer.
    pub answer_weight: Option<f32>,
    /// How much it counts in training beside the others; none: 1.
    pub weight: Option<f32>,
    /// A plain text that goes on in another record: the end of the text is not here.
    pub continued: bool,
    /// What never straddles a split.
    pub group: Option<String>,
    /// What the split is stratified by.
    pub stratum: Option<String>,
    /// Where it came from.
    pub lineage: Lineage,
}

impl Record {
    /// The whole conversation: the messages, and the answer as the assistant's.
    pub fn conversation(&self) -> Vec<Message> {
        let mut messages = self.messages.clone();
        messages.push(Message { role: Role::Assistant, content: self.answer.to_text(), weight: self.answer_weight });
        messages
    }

    /// The text of the last user message: what a classical model sees.
    pub fn input(&self) -> &str {
        let last = self.messages.iter().rev().find(|message| message.role == Role::User);
        last.map_or("", |message| message.content.as_str())
    }

    /// All that is asked, without the system message; the answer where nothing is asked.
    pub fn asked(&self) -> Cow<'_, str> {
        let mut texts = self.messages.iter().filter(|message| message.role != Role::System).map(|message| message.content.as_str());
        let first = texts.next().unwrap_or_default();
        let asked = texts.fold(Cow::Borrowed(first), |mut asked, text| {
            asked.to_mut().push('\n');
            asked.to_mut().push_str(text);
            asked
        });
        if asked.trim().is_empty() { self.answer.to_text().into() } else { asked }
    }

    /// Equal for records that ask the same, up to white space; a plain text asks nothing, and is told by itself.
    pub fn input_key(&self) -> [u8; 32] {
        let mut words = Vec::new();
        for message in &self.messages {
            write_words(&mut words, message.role.name(), &message.content);
        }
        if self.messages.is_empty() {
            write_words(&mut words, "text", &self.answer.to_text());
        }
        *blake3::hash(&words).as_bytes()
    }

    /// Equal for records that ask the same and want the same answer, up to white space.
    pub fn content_key(&self) -> [u8; 32] {
        self.content_key_of(&self.input_key())
    }

    /// The same where [`Record::input_key`] is known already.
    pub(crate) fn content_key_of(&self, input: &[u8; 32]) -> [u8; 32] {
        let mut words = input.to_vec();
        write_words(&mut words, "answer", &self.answer.to_text());
        *blake3::hash(&words).as_bytes()
    }
}

/// A name and the words of a text, in a form in which no two lists of them are the same bytes.
fn write_words(bytes: &mut Vec<u8>, name: &str, text: &str) {
    bytes.reserve(name.len() + text.len() + 3);
    bytes.extend_from_slice(name.as_bytes());
    bytes.push(0);
    if clean::is_plain(text) && !text.is_empty() {
        bytes.extend_from_slice(text.as_bytes());
        bytes.push(b' ');
    } else {
        for word in text.split_whitespace() {
            bytes.extend_from_slice(word.as_bytes());
            bytes.push(b' ');
        }
    }
    bytes.push(0xFF);
}

/// Longest label in characters; what is longer is a text.
const LABEL_CHARS_MAX: usize = 80;

/// Whether a value is short enough to name a class.
pub(crate) fn is_label(value: &str) -> bool {
    value.len() <= LABEL_CHARS_MAX || value.chars().nth(LABEL_CHARS_MAX).is_none()
}

/// How documents become records.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct RecordRecipe {
    /// A column, or a template `… {column} …` (`{{` and `}}` are braces). None: the source's shape says.
    pub input: Option<String>,
    /// Records are plain texts without a question: the one target is a column or template of the text.
    pub plain: bool,
    /// Columns of the answer. One: its text, or a template as `input` is one. Several: a JSON object. None, with an input: no
    /// answer is known.
    pub target: Vec<String>,
    /// The system message, unless a conversation has one of its own.
    pub instruction: Option<String>,
    /// Column whose values never straddle a split.
    pub group: Option<String>,
    /// Column to stratify by. None: the answer, if it has few values.
    pub stratify: Option<String>,
    /// Column with ids.
    pub id: Option<String>,
    /// Column that says how much a record counts in training: above 0, at most [`WEIGHT_MAX`]; an empty cell is 1.
    pub weight: Option<String>,
}

/// The most that a record can count beside another.
pub const WEIGHT_MAX: f32 = 1000.0;

/// What JSON type the values of a target column become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnKind {
    /// Every value is a number without leading zeros.
    Number,
    /// Every value is true or false.
    Bool,
    /// Text.
    Text,
    /// As the source's JSON has it.
    Json,
}

impl ColumnKind {
    /// Its name in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Number => "number",
            Self::Bool => "bool",
            Self::Text => "text",
            Self::Json => "json",
        }
    }

    /// The kind of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Number, Self::Bool, Self::Text, Self::Json].into_iter().find(|kind| kind.name() == name)
    }
}

/// Records, what was rejected, and how target columns were typed.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// Records in order.
    pub records: Vec<Record>,
    /// Documents that make no record.
    pub rejected: Vec<Rejected>,
    /// Target columns and their kinds.
    pub kinds: Vec<(String, ColumnKind)>,
}

/// What is known of a source before its rows are made into records.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// Its name.
    pub source: &'a str,
    /// The shape of its rows.
    pub shape: Shape,
    /// Whether its values have types (JSON), or are all text (CSV).
    pub typed: bool,
    /// Its columns.
    pub columns: &'a [String],
}

impl<'a> From<&'a Dataset> for Head<'a> {
    fn from(dataset: &'a Dataset) -> Self {
        Self { source: &dataset.source, shape: dataset.shape, typed: dataset.typed, columns: &dataset.columns }
    }
}

/// Makes a record of one document at a time: a pure function of the document.
pub struct Maker<'a> {
    recipe: &'a RecordRecipe,
    input: Option<Input>,
    /// The answer, where it is one text.
    answer: Option<Input>,
    shape: Shape,
    kinds: &'a [(String, ColumnKind)],
}

impl Maker<'_> {
    /// Whether a record is made of this column, among others.
    pub fn uses(&self, column: &str) -> bool {
        let recipe = self.recipe;
        let named = recipe.target.iter().chain(&recipe.group).chain(&recipe.stratify).chain(&recipe.id).chain(&recipe.weight);
        match &self.input {
            Some(input) => {
                let templates = std::iter::once(input).chain(&self.answer);
                named.map(String::as_str).any(|name| name == column) || templates.flat_map(Input::columns).any(|name| name == column)
            }
            None if self.recipe.plain => {
                let text = self.answer.iter().flat_map(Input::columns).any(|name| name == column);
                text || named.map(String::as_str).any(|name| name == column)
            }
            // The shape says; a conversation is one column of a few.
            None => SHAPED_COLUMNS.contains(&column) || named.map(String::as_str).any(|name| name == column),
        }
    }

    /// The document's record, or why there is none. Without a column to stratify by, the stratum is left open.
    pub fn record(&self, document: &Document) -> Result<Record, Reason> {
        let content = match &self.input {
            None if self.recipe.plain => {
                let text = self.answer.as_ref().map(|text| text.text(document)).unwrap_or_default();
                match text.trim() {
                    "" => Err(Reason::EmptyTarget),
                    text => Ok(Content { messages: Vec::new(), answer: Answer::Text(text.to_owned()), answer_weight: None }),
                }
            }
            Some(input) => self.recipe.columns(input, self.answer.as_ref(), self.kinds, document),
            None => conversation(self.shape, document),
        };
        self.recipe.record(content?, document)
    }
}

/// A document's part of a record.
struct Content {
    messages: Vec<Message>,
    answer: Answer,
    answer_weight: Option<f32>,
}

impl RecordRecipe {
    /// Makes records of one source's documents; columns are typed by this source alone.
    pub fn apply(&self, dataset: &Dataset) -> Result<Recorded, DataError> {
        let kinds = self.kinds(&[dataset])?;
        self.apply_typed(dataset, &kinds)
    }

    /// How the target columns of several sources are typed together, so that one column has one type everywhere.
    pub fn kinds(&self, datasets: &[&Dataset]) -> Result<Vec<(String, ColumnKind)>, DataError> {
        for dataset in datasets.iter().filter(|_| self.target.len() > 1) {
            for column in &self.target {
                known(&(*dataset).into(), column)?;
            }
        }
        let kind = |column: &String| {
            let untyped = datasets.iter().filter(|dataset| !dataset.typed).flat_map(|dataset| &dataset.documents);
            let kind = match datasets.iter().all(|dataset| dataset.typed) {
                true => ColumnKind::Json,
                false => column_kind(untyped.filter_map(|document| Some(document.field(column)?.as_text()?.trim()))),
            };
            (column.clone(), kind)
        };
        Ok(self.target.iter().map(kind).collect())
    }

    /// Makes records of documents, target columns typed by [`RecordRecipe::kinds`].
    pub fn apply_typed(&self, dataset: &Dataset, kinds: &[(String, ColumnKind)]) -> Result<Recorded, DataError> {
        let maker = self.maker(&dataset.into(), kinds)?;
        let mut recorded = Recorded { records: Vec::new(), rejected: Vec::new(), kinds: kinds.to_vec() };
        for document in &dataset.documents {
            match maker.record(document) {
                Ok(record) => recorded.records.push(record),
                Err(reason) => {
                    let rejected = Rejected { id: document.id.clone(), step: "record", reason, related: Vec::new() };
                    recorded.rejected.push(rejected);
                }
            }
        }
        unique_ids(&recorded.records)?;
        self.stratify_by_answer(&mut recorded.records);
        Ok(recorded)
    }

    /// What makes records of this source's documents, target columns typed by `kinds`.
    pub fn maker<'a>(&'a self, head: &Head<'_>, kinds: &'a [(String, ColumnKind)]) -> Result<Maker<'a>, DataError> {
        let input = self.input.as_deref().map(|input| Input::parse(input, head)).transpose()?;
        let answer = match self.target.as_slice() {
            [one] => Some(Input::parse(one, head)?),
            _ => None,
        };
        let several = if answer.is_some() { &[] } else { self.target.as_slice() };
        for column in several.iter().chain(&self.group).chain(&self.stratify).chain(&self.id).chain(&self.weight) {
            known(head, column)?;
        }
        if self.plain && answer.is_some() {
            return Ok(Maker { recipe: self, input: None, answer, shape: head.shape, kinds: &[] });
        }
        if input.is_none() && (!self.target.is_empty() || head.shape == Shape::Columns) {
            return Err(DataError::RecipeNeeded { origin: head.source.into(), columns: head.columns.join(", ") });
        }
        if input.is_none() && head.shape == Shape::Preference {
            let (origin, shape) = (head.source.into(), head.shape.name());
            return Err(DataError::UntrainedShape { origin, shape, supported: TRAINABLE });
        }
        Ok(Maker { recipe: self, input, answer, shape: head.shape, kinds: if head.typed { &[] } else { kinds } })
    }

    fn columns(
        &self,
        input: &Input,
        answer: Option<&Input>,
        kinds: &[(String, ColumnKind)],
        document: &Document,
    ) -> Result<Content, Reason> {
        let answer = match (answer, self.target.as_slice()) {
            (None, []) => Answer::Text(String::new()),
            (Some(answer), _) => match answer.text(document) {
                text if text.trim().is_empty() => return Err(Reason::EmptyTarget),
                text => Answer::Text(text.trim().to_owned()),
            },
            (None, columns) => {
                let kind = |column: &String| kinds.iter().find(|(name, _)| name == column).map(|(_, kind)| *kind);
                let value = |column: &String| field_value(document.field(column), kind(column));
                Answer::Fields(columns.iter().map(|column| (column.clone(), value(column))).collect())
            }
        };
        Ok(Content { messages: vec![Message::new(Role::User, input.text(document))], answer, answer_weight: None })
    }

    fn record(&self, content: Content, document: &Document) -> Result<Record, Reason> {
        let mut messages = content.messages;
        if let Some(instruction) = &self.instruction
            && messages.first().is_none_or(|message| message.role != Role::System)
        {
            messages.insert(0, Message::new(Role::System, instruction.clone()));
        }
        let text = |column: &Option<String>| {
            let text = document.field(column.as_deref()?)?.to_text().trim().to_owned();
            (!text.is_empty()).then_some(text)
        };
        let origin = &document.origin;
        let weight = text(&self.weight).map(|text| weight(&text)).transpose()?;
        Ok(Record {
            // The blocks of a document share the id that its column gives.
            id: text(&self.id).map_or_else(
                || document.id.clone(),
                |id| document.attribute(PART).map_or(id.clone(), |part| format!("{id}#{}", part.to_text())),
            ),
            messages,
            answer: content.answer,
            answer_weight: content.answer_weight,
            weight,
            continued: document.attribute(CONTINUED) == Some(&Value::Bool(true)),
            group: text(&self.group),
            stratum: text(&self.stratify),
            lineage: Lineage { document: document.id.clone(), source: origin.source.clone(), row: origin.row, change: None },
        })
    }

    /// Without a column to stratify by, answers are the strata if they are labels: short ones, of which every one stands for
    /// at least two records on average.
    fn stratify_by_answer(&self, records: &mut [Record]) {
        if self.stratify.is_some() || self.target.len() > 1 {
            return;
        }
        let answers: HashSet<String> = records.iter().map(|record| record.answer.to_text()).collect();
        if answers.iter().all(|answer| is_label(answer)) && 2 * answers.len() <= records.len() {
            for record in records.iter_mut().filter(|record| !record.answer.is_empty()) {
                record.stratum = Some(record.answer.to_text());
            }
        }
    }
}

/// How much a record counts, as its column says.
fn weight(text: &str) -> Result<f32, Reason> {
    let weight = text.parse::<f32>().ok().filter(|weight| *weight > 0.0 && *weight <= WEIGHT_MAX);
    weight.ok_or_else(|| Reason::Malformed { problem: format!("its weight is no number above 0 and at most {WEIGHT_MAX}") })
}

/// An error with the nearest name if a source lacks a column.
fn known(head: &Head<'_>, column: &str) -> Result<(), DataError> {
    if head.columns.iter().any(|name| name == column) {
        return Ok(());
    }
    let lower = column.to_lowercase();
    let similar = head.columns.iter().map(|name| (strsim::jaro_winkler(&lower, &name.to_lowercase()), name));
    let nearest = similar.filter(|(score, _)| *score > 0.7).max_by(|a, b| a.0.total_cmp(&b.0));
    Err(DataError::MissingColumn {
        origin: head.source.into(),
        column: column.into(),
        nearest: nearest.map(|(_, name)| name.clone()),
        columns: head.columns.join(", "),
    })
}

fn unique_ids(records: &[Record]) -> Result<(), DataError> {
    let mut seen: HashMap<&str, &Record> = HashMap::with_capacity(records.len());
    for record in records {
        if let Some(first) = seen.insert(&record.id, record) {
            let place = |record: &Record| format!("{} row {}", record.lineage.source, record.lineage.row);
            return Err(DataError::DuplicateId { id: record.id.clone(), first: place(first), second: place(record) });
        }
    }
    Ok(())
}

/// What is read of a document: literal text and columns in turn.
struct Input {
    parts: Vec<Part>,
}

enum Part {
    Literal(String),
    Column(String),
}

impl Input {
    fn parse(input: &str, head: &Head<'_>) -> Result<Self, DataError> {
        if head.columns.iter().any(|name| name == input) || !input.contains('{') {
            known(head, input)?;
            return Ok(Self { parts: vec![Part::Column(input.into())] });
        }
        let wrong = |problem| DataError::InputTemplate { template: input.into(), problem };
        let (mut parts, mut literal, mut rest) = (Vec::new(), String::new(), input);
        while let Some(at) = rest.find(['{', '}']) {
            literal.push_str(&rest[..at]);
            let brace = &rest[at..];
            if brace.starts_with("{{") || brace.starts_with("}}") {
                literal.push_str(&brace[..1]);
                rest = &brace[2..];
                continue;
            }
            let (name, after) = brace
                .strip_prefix('{')
                .ok_or_else(|| wrong("closes a brace that is not open (a brace is written }})"))?
                .split_once('}')
                .ok_or_else(|| wrong("opens a brace that is never closed (a brace is written {{)"))?;
            known(head, name.trim())?;
            parts.push(Part::Literal(std::mem::take(&mut literal)));
            parts.push(Part::Column(name.trim().into()));
            rest = after;
        }
        literal.push_str(rest);
        parts.push(Part::Literal(literal));
        Ok(Self { parts })
    }

    fn columns(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Column(name) => Some(name.as_str()),
            Part::Literal(_) => None,
        })
    }

    /// Empty if every column is.
    fn text(&self, document: &Document) -> String {
        let (mut text, mut found) = (String::new(), false);
        for part in &self.parts {
            match part {
                Part::Literal(literal) => text.push_str(literal),
                Part::Column(column) => {
                    let value = document.field(column).map(Value::to_text).unwrap_or_default();
                    found |= !value.trim().is_empty();
                    text.push_str(&value);
                }
            }
        }
        if found { text } else { String::new() }
    }
}

/// What kind of values a column of text has; empty ones do not say.
fn column_kind<'a>(values: impl Iterator<Item = &'a str>) -> ColumnKind {
    let mut column = ColumnSurvey::default();
    values.for_each(|value| column.text(value));
    column.kind()
}

/// What the values of a target column have in common.
#[derive(Clone, Debug, Default)]
struct ColumnSurvey {
    any: bool,
    not_number: bool,
    not_bool: bool,
}

impl ColumnSurvey {
    fn text(&mut self, value: &str) {
        if !value.is_empty() {
            self.any = true;
            self.not_number = self.not_number || !is_json_number(value);
            self.not_bool = self.not_bool || boolean_of(value).is_none();
        }
    }

    fn kind(&self) -> ColumnKind {
        match self.any {
            true if !self.not_number => ColumnKind::Number,
            true if !self.not_bool => ColumnKind::Bool,
            _ => ColumnKind::Text,
        }
    }
}

/// What has to be known of all target values before the first record is made: how columns of text are typed, and the
/// distinct values where there are few. One pass over the documents, in memory that does not grow with them.
#[derive(Clone, Debug)]
pub struct Survey<'a> {
    target: &'a [String],
    typed: bool,
    columns: Vec<ColumnSurvey>,
    /// Distinct values of each column; `None` where there are more than the limit, or one is too long.
    values: Vec<Option<BTreeSet<String>>>,
    limit: usize,
    length: usize,
}

impl<'a> Survey<'a> {
    /// Of a recipe's target columns; up to `limit` distinct values of at most `length` characters are of interest.
    pub fn new(recipe: &'a RecordRecipe, limit: usize, length: usize) -> Self {
        let columns = vec![ColumnSurvey::default(); recipe.target.len()];
        let values = vec![Some(BTreeSet::new()); recipe.target.len()];
        Self { target: &recipe.target, typed: true, columns, values, limit, length }
    }

    /// Whether more documents could change anything.
    pub fn open(&self) -> bool {
        let typing = self.target.len() > 1 && !self.typed;
        self.values.iter().any(Option::is_some) || (typing && self.columns.iter().any(|column| !column.not_number || !column.not_bool))
    }

    /// Takes a document into account; `typed` says whether its values have types, which one file of a folder can change.
    pub fn see(&mut self, document: &Document, typed: bool) {
        self.typed &= typed;
        for (index, name) in self.target.iter().enumerate() {
            let value = document.field(name);
            if let Some(text) = value.and_then(Value::as_text) {
                self.columns[index].text(text.trim());
            }
            let text = match self.target.len() {
                // A row without an answer makes no record.
                1 => value.map(Value::to_text).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty()),
                _ => Some(field_value(value, None).to_text()),
            };
            if let (Some(values), Some(text)) = (&mut self.values[index], text) {
                if text.chars().count() > self.length || (values.len() >= self.limit && !values.contains(&text)) {
                    self.values[index] = None;
                } else {
                    values.insert(text);
                }
            }
        }
    }

    /// Whether all values seen have types.
    pub fn is_typed(&self) -> bool {
        self.typed
    }

    /// How the columns are typed.
    pub fn kinds(&self) -> Vec<(String, ColumnKind)> {
        let kind = |column: &ColumnSurvey| if self.typed { ColumnKind::Json } else { column.kind() };
        self.target.iter().cloned().zip(self.columns.iter().map(kind)).collect()
    }

    /// The distinct values of each column as a reader of the answer sees them, where there are few.
    pub fn values(&self) -> Vec<(String, Option<BTreeSet<String>>)> {
        let named = self.target.iter().zip(&self.values).zip(&self.columns);
        named
            .map(|((name, values), column)| {
                // Truth values of a table are written in lower case in a JSON answer.
                let lower = self.target.len() > 1 && !self.typed && column.kind() == ColumnKind::Bool;
                let shown = |value: &String| if lower { value.to_lowercase() } else { value.clone() };
                (name.clone(), values.as_ref().map(|values| values.iter().map(shown).collect()))
            })
            .collect()
    }
}

fn field_value(value: Option<&Value>, kind: Option<ColumnKind>) -> FieldValue {
    match value {
        None | Some(Value::Null) => FieldValue::Null,
        Some(Value::Bool(value)) => FieldValue::Bool(*value),
        Some(Value::Number(number)) => FieldValue::Number(number.clone()),
        Some(value @ (Value::List(_) | Value::Object(_))) => FieldValue::Json(value.to_json()),
        Some(Value::Text(text)) => {
            let text = text.trim();
            match kind {
                _ if text.is_empty() => FieldValue::Null,
                Some(ColumnKind::Number) if is_json_number(text) => FieldValue::Number(text.into()),
                Some(ColumnKind::Bool) => match boolean_of(text) {
                    Some(value) => FieldValue::Bool(value),
                    None => FieldValue::Text(text.into()),
                },
                _ => FieldValue::Text(text.into()),
            }
        }
    }
}

fn boolean_of(text: &str) -> Option<bool> {
    if text.eq_ignore_ascii_case("true") {
        Some(true)
    } else if text.eq_ignore_ascii_case("false") {
        Some(false)
    } else {
        None
    }
}

/// A number that JSON writes the same way: no leading zeros, no plus sign, nothing around it.
fn is_json_number(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = match digits.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (digits, None),
    };
    let all_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    all_digits(whole) && (whole == "0" || !whole.starts_with('0')) && fraction.is_none_or(all_digits) && text != "-0"
}

/// A document whose shape says what is asked and what is wanted.
fn conversation(shape: Shape, document: &Document) -> Result<Content, Reason> {
    let malformed = |problem: &str| Reason::Malformed { problem: problem.into() };
    let text = |name: &str| {
        let value = document.field(name).ok_or_else(|| malformed(&format!("no {name}")))?;
        value.as_text().ok_or_else(|| malformed(&format!("{name} is not text")))
    };
    let single = |input: String, answer: &str| match answer.trim() {
        "" => Err(Reason::EmptyTarget),
        _ => Ok(Content { messages: vec![Message::new(Role::User, input)], answer: Answer::Text(answer.to_owned()), answer_weight: None }),
    };
    match shape {
        Shape::Messages => answered(messages(document.field("messages"), "role", "content")?),
        Shape::ShareGpt => answered(messages(document.field("conversations"), "from", "value")?),
        Shape::InputsTargets => single(text("inputs")?.into(), text("targets")?),
        Shape::Alpaca => {
            let input = document.field("input").and_then(Value::as_text).unwrap_or_default().trim();
            let instruction = text("instruction")?;
            let asked = if input.is_empty() { instruction.to_owned() } else { format!("{instruction}\n\n{input}") };
            single(asked, text("output")?)
        }
        Shape::PromptCompletion => match (document.field("prompt"), document.field("completion")) {
            (prompt @ Some(Value::List(_)), completion @ Some(Value::List(_))) => {
                let mut all = messages(prompt, "role", "content")?;
                all.extend(messages(completion, "role", "content")?);
                answered(all)
            }
            _ => single(text("prompt")?.into(), text("completion")?),
        },
        Shape::Columns | Shape::Preference => Err(malformed("its shape does not say what is asked")),
    }
}

/// The last message is the answer.
fn answered(mut messages: Vec<Message>) -> Result<Content, Reason> {
    match messages.pop() {
        Some(last) if last.role == Role::Assistant && last.content.trim().is_empty() => Err(Reason::EmptyTarget),
        Some(last) if last.role == Role::Assistant => {
            Ok(Content { messages, answer: Answer::Text(last.content), answer_weight: last.weight })
        }
        _ => Err(Reason::Malformed { problem: "it does not end with a message of the assistant".into() }),
    }
}

fn messages(value: Option<&Value>, role_key: &str, content_key: &str) -> Result<Vec<Message>, Reason> {
    let Some(Value::List(list)) = value else { return Err(Reason::Malformed { problem: "no list of messages".into() }) };
    let one = |(i, value): (usize, &Value)| {
        let malformed = |problem: &str| Reason::Malformed { problem: format!("message {i} {problem}") };
        let role = value.get(role_key).and_then(Value::as_text).ok_or_else(|| malformed("has no role"))?;
        let role = match role {
            "human" => Some(Role::User),
            "gpt" | "model" => Some(Role::Assistant),
            role => Role::from_name(role),
        };
        let role = role.ok_or_else(|| malformed("has an unknown role (system, user, assistant, tool)"))?;
        let content = match value.get(content_key) {
            Some(Value::Text(text)) => text.clone(),
            Some(Value::List(parts)) => {
                let text = |part: &Value| Some(part.get("text")?.as_text()?.to_owned());
                let texts: Option<Vec<String>> = parts.iter().map(text).collect();
                texts.ok_or_else(|| malformed("has parts that are not text"))?.concat()
            }
            _ if value.get("tool_calls").is_some() => return Err(malformed("calls tools, which is not trained yet")),
            _ => return Err(malformed("has no text")),
        };
        let weight = match value.get("weight") {
            None | Some(Value::Null) => None,
            Some(Value::Number(number)) => {
                let weight = number.parse::<f32>().ok().filter(|weight| weight.is_finite() && *weight >= 0.0);
                Some(weight.ok_or_else(|| malformed("has a weight below zero"))?)
            }
            Some(_) => return Err(malformed("has a weight that is not a number")),
        };
        Ok(Message { role, content, weight })
    };
    list.iter().enumerate().map(one).collect()
}
