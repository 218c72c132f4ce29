//! The held-out items, and what kind of task they make up.

use crate::subject::{Message, Prompt};

/// One held-out item: the prompt, and what the right answer is.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Stable id; pairs the arms.
    pub id: String,
    /// The turns before the answer.
    pub messages: Vec<Message>,
    /// The gold answer as text, exactly as a record would train on it; its ln p is the item's loss.
    pub answer: String,
    /// The value of the stratum column, where there is one.
    pub stratum: Option<String>,
    /// The cluster (customer, document): resampled as a whole. `None`: the item stands alone.
    pub group: Option<String>,
    /// The gold answer, as it is compared.
    pub gold: Gold,
}

impl Sample {
    /// The prompt of the zero-shot arms.
    #[must_use]
    pub fn prompt(&self) -> Prompt {
        Prompt { id: self.id.clone(), messages: self.messages.clone() }
    }
}

/// The gold answer, as it is compared.
#[derive(Debug, Clone, PartialEq)]
pub enum Gold {
    /// One label, or a free text.
    Label(String),
    /// A record: name and value, in the order of the target columns.
    Fields(Vec<(String, Field)>),
}

/// A value of a record's field.
///
/// Integers are kept apart from other numbers so that long order numbers compare exactly; [`Field::same`] still says
/// that `7`, `7.0` and `7e0` are the same number.
#[derive(Debug, Clone, PartialEq)]
pub enum Field {
    /// A string.
    Text(String),
    /// A number without a fraction.
    Integer(i128),
    /// Any other number.
    Number(f64),
    /// true or false.
    Bool(bool),
    /// null: the message doesn't say.
    Null,
    /// A list or an object, as JSON without insignificant whitespace and with sorted keys.
    Nested(String),
}

/// Up to here every integer is exact in an `f64`.
const EXACT_INTEGER_MAX: f64 = 9_007_199_254_740_992.0;

impl Field {
    /// A number; whole ones within ±2⁵³ become [`Field::Integer`].
    #[must_use]
    pub fn number(value: f64) -> Self {
        if value.abs() <= EXACT_INTEGER_MAX && value.fract() == 0.0 { Self::Integer(value as i128) } else { Self::Number(value) }
    }

    /// From a JSON value.
    #[must_use]
    pub fn from_json(value: &serde_json::Value) -> Self {
        use serde_json::Value;
        match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(*value),
            Value::Number(number) => match number.as_i128() {
                Some(integer) => Self::Integer(integer),
                None => Self::number(number.as_f64().unwrap_or(f64::NAN)),
            },
            Value::String(text) => Self::Text(text.clone()),
            Value::Array(_) | Value::Object(_) => Self::Nested(sorted(value).to_string()),
        }
    }

    /// As a JSON value.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::Value;
        match self {
            Self::Text(text) => Value::String(text.clone()),
            Self::Integer(integer) => serde_json::Number::from_i128(*integer).map_or(Value::Null, Value::Number),
            Self::Number(number) => serde_json::Number::from_f64(*number).map_or(Value::Null, Value::Number),
            Self::Bool(value) => Value::Bool(*value),
            Self::Null => Value::Null,
            Self::Nested(json) => serde_json::from_str(json).unwrap_or(Value::Null),
        }
    }

    /// Whether two values are the same: numbers numerically, strings exactly after trimming whitespace at both ends
    /// (case and accents count), true/false/null exactly, nested values as JSON regardless of key order. A number
    /// is never the same as a string that spells it: the form is part of the record.
    #[must_use]
    pub fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Text(left), Self::Text(right)) => left.trim() == right.trim(),
            (Self::Integer(left), Self::Number(right)) | (Self::Number(right), Self::Integer(left)) => *left as f64 == *right,
            _ => self == other,
        }
    }

    /// The value as a class label of the classical rival and the strata: like JSON, strings without quotes.
    #[must_use]
    pub fn label(&self) -> String {
        match self {
            Self::Text(text) => text.trim().to_owned(),
            Self::Integer(integer) => integer.to_string(),
            Self::Number(number) => number.to_string(),
            Self::Bool(value) => value.to_string(),
            Self::Null => "null".to_owned(),
            Self::Nested(json) => json.clone(),
        }
    }
}

/// The same JSON with the keys of every object sorted, whatever map `serde_json` was built with.
fn sorted(value: &serde_json::Value) -> serde_json::Value {
    use serde_json::Value;
    match value {
        Value::Array(values) => Value::Array(values.iter().map(sorted).collect()),
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| key.as_str());
            Value::Object(entries.into_iter().map(|(key, value)| (key.clone(), sorted(value))).collect())
        }
        _ => value.clone(),
    }
}

/// What kind of answers are wanted; the caller infers it from the run file and the records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// One of a list of labels.
    Classification {
        /// All labels, in the order in which they are shown and chosen from.
        labels: Vec<String>,
    },
    /// One JSON object with exactly these fields.
    Structured {
        /// The field names, in the order of the target columns.
        fields: Vec<String>,
    },
    /// Any text.
    FreeText,
    /// Texts without a question: nothing is answered, each text's own probability is measured.
    Text,
}

impl Task {
    /// The task's name in messages.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Classification { .. } => "classification",
            Self::Structured { .. } => "structured",
            Self::FreeText => "free text",
            Self::Text => "plain text",
        }
    }
}
