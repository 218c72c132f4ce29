//! A record: what is asked, and the answer that is wanted.

use crate::{DataError, Dataset, Rejected};
use text::Message;

/// A field of a structured answer.
#[derive(Clone, Debug, PartialEq)]
pub enum FieldValue { /// `null`.
    Null, /// A boolean.
    Bool(bool), /// A JSON number as written.
    Number(String), /// Text.
    Text(String), /// A list or an object as compact JSON.
    Json(String) }

/// The answer that is wanted.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer { /// Text: a label, or free text.
    Text(String), /// A JSON object, fields in the order of `target`.
    Fields(Vec<(String, FieldValue)>) }

impl Answer { /// What the model is to write: the text, or compact JSON.
    pub fn to_text(&self) -> String { todo!() } }

/// Where a record came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lineage { /// Its document.
    pub document: String, /// Source.
    pub source: String, /// Row in the source, from 1.
    pub row: u64 }

/// One item to learn from or to be measured on.
#[derive(Clone, Debug, PartialEq)]
pub struct Record { /// Stable id.
    pub id: String, /// Everything before the answer.
    pub messages: Vec<Message>, /// The answer.
    pub answer: Answer, /// OpenAI's weight of the answer.
    pub answer_weight: Option<f32>, /// What never straddles a split.
    pub group: Option<String>, /// What the split is stratified by.
    pub stratum: Option<String>, /// Where it came from.
    pub lineage: Lineage }

impl Record {
    /// The whole conversation: the messages and the answer as the assistant's.
    pub fn conversation(&self) -> Vec<Message> { todo!() }
    /// The text of the last user message: what a classical model sees.
    pub fn input(&self) -> &str { todo!() }
}

/// How documents become records.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct RecordRecipe { /// A column, or a template `… {column} …`; None: the shape says (messages, prompt/completion, …).
    pub input: Option<String>, /// Columns of the answer: one: its text; several: a JSON object; empty: the shape says.
    pub target: Vec<String>, /// Put before the input as the system message.
    pub instruction: Option<String>, /// Column that never straddles a split.
    pub group: Option<String>, /// Column to stratify by (default: the target if it is one column).
    pub stratify: Option<String>, /// Column with ids.
    pub id: Option<String> }

/// What JSON type the values of a target column become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnKind { /// Numbers.
    Number, /// Booleans.
    Bool, /// Text.
    Text, /// Given as JSON.
    Json }

/// Records, what was rejected, and how target columns were typed.
#[derive(Clone, Debug)]
pub struct Recorded { /// Records in order.
    pub records: Vec<Record>, /// Documents that make no record.
    pub rejected: Vec<Rejected>, /// Target columns and their kinds.
    pub kinds: Vec<(String, ColumnKind)> }

impl RecordRecipe {
    /// Makes records of documents.
    pub fn apply(&self, dataset: &Dataset) -> Result<Recorded, DataError> { let _ = dataset; todo!() }
}
