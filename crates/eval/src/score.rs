//! One answer beside its gold: labels, JSON records, free text; and the names of the metrics.
//!
//! Rules, all of them:
//! - **Labels** are compared exactly after trimming whitespace at both ends. Case counts. Anything else is an invalid answer, and wrong.
//! - **Records**: the answer must be one JSON object and nothing else but whitespace, without repeated keys, at most
//!   [`NESTING_MAX`] deep, with exactly the expected fields in any order. Values are compared by [`Field::same`]. An
//!   invalid answer gets 0 for all of its fields: a helpdesk cannot file half a record.
//! - **Free text**: exact match and token F1 after lower-casing, with punctuation removed and whitespace collapsed (SQuAD's
//!   rule, Rajpurkar et al. 2016, without its English articles).
//! - An answer cut at the token limit is invalid for labels and records, and scored as it stands for free text.

use std::cell::Cell;
use std::collections::BTreeMap;

use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};

use crate::Error;
use crate::sample::{Field, Gold, Sample, Task};
use crate::subject::Answer;

/// Deepest nesting of an answer's JSON; the records here are one deep.
pub const NESTING_MAX: usize = 16;

/// Why an answer is invalid, in the order in which it is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Invalid {
    /// An imported system gave no answer to this item.
    NotAnswered,
    /// Cut at the token limit.
    Unfinished,
    /// Nothing but whitespace.
    Empty,
    /// Not one of the labels.
    NotALabel,
    /// No JSON, or broken JSON.
    NotJson,
    /// JSON with text before or after it.
    TextAround,
    /// A key stands twice in one object.
    RepeatedKey,
    /// Nested deeper than [`NESTING_MAX`].
    TooDeep,
    /// JSON, but no object.
    NotAnObject,
    /// An expected field is missing.
    MissingField,
    /// There is a field that nobody expects.
    ExtraField,
}

impl Invalid {
    /// The reason as the report prints it.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::NotAnswered => "no answer for this item",
            Self::Unfinished => "cut at the token limit",
            Self::Empty => "empty",
            Self::NotALabel => "not one of the labels",
            Self::NotJson => "not JSON",
            Self::TextAround => "text before or after the JSON",
            Self::RepeatedKey => "a key stands twice",
            Self::TooDeep => "nested too deep",
            Self::NotAnObject => "JSON, but not an object",
            Self::MissingField => "an expected field is missing",
            Self::ExtraField => "a field too many",
        }
    }
}

/// What is measured of an arm. The names are those of the run file (`metric = "…"`, `…_at_least`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Metric {
    /// Share of items with the right label.
    Accuracy,
    /// Mean over the classes of F1 = 2·precision·recall/(precision + recall).
    MacroF1,
    /// Mean over the items of the share of right fields.
    FieldAccuracy,
    /// Share of items with all fields right.
    RecordExact,
    /// Share of answers that are valid JSON with exactly the expected fields.
    ValidJson,
    /// Share of answers that are one of the labels.
    ValidAnswer,
    /// Share of free texts equal to the gold text.
    ExactMatch,
    /// Mean token F1 of free texts.
    TokenF1,
    /// e to the mean loss of a plain text's tokens; the only metric of which less is better, and that is no share.
    Perplexity,
}

impl Metric {
    /// All metrics.
    pub const ALL: [Self; 9] = [
        Self::Accuracy,
        Self::MacroF1,
        Self::FieldAccuracy,
        Self::RecordExact,
        Self::ValidJson,
        Self::ValidAnswer,
        Self::ExactMatch,
        Self::TokenF1,
        Self::Perplexity,
    ];

    /// The name in run files and reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Accuracy => "accuracy",
            Self::MacroF1 => "macro_f1",
            Self::FieldAccuracy => "field_accuracy",
            Self::RecordExact => "record_exact",
            Self::ValidJson => "valid_json",
            Self::ValidAnswer => "valid_answer",
            Self::ExactMatch => "exact_match",
            Self::TokenF1 => "token_f1",
            Self::Perplexity => "perplexity",
        }
    }

    /// What it says, for people.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Accuracy => "accuracy",
            Self::MacroF1 => "macro F1",
            Self::FieldAccuracy => "mean field accuracy",
            Self::RecordExact => "whole record exact",
            Self::ValidJson => "valid JSON",
            Self::ValidAnswer => "valid answers",
            Self::ExactMatch => "exact match",
            Self::TokenF1 => "token F1",
            Self::Perplexity => "perplexity",
        }
    }

    /// The metric of a name.
    pub fn from_name(name: &str) -> Result<Self, Error> {
        Self::ALL
            .into_iter()
            .find(|metric| metric.name() == name)
            .ok_or_else(|| Error::UnknownMetric { name: name.to_owned(), known: Self::ALL.map(Self::name).join(", ") })
    }

    /// The metrics that a task has, the headline metric first.
    #[must_use]
    pub fn of_task(task: &Task) -> &'static [Self] {
        match task {
            Task::Classification { .. } => &[Self::Accuracy, Self::MacroF1, Self::ValidAnswer],
            Task::Structured { .. } => &[Self::FieldAccuracy, Self::RecordExact, Self::ValidJson],
            Task::FreeText => &[Self::TokenF1, Self::ExactMatch],
            Task::Text => &[Self::Perplexity],
        }
    }

    /// Refuses a metric that the task doesn't have.
    pub fn check_task(self, task: &Task) -> Result<(), Error> {
        let has = Self::of_task(task);
        if has.contains(&self) {
            return Ok(());
        }
        Err(Error::MetricNotForTask { metric: self.name(), has: has.iter().map(|metric| metric.name()).collect::<Vec<_>>().join(", ") })
    }

    /// Whether an item's value is only ever 0 or 1, so that it is a rate.
    #[must_use]
    pub fn is_rate(self) -> bool {
        matches!(self, Self::Accuracy | Self::RecordExact | Self::ValidJson | Self::ValidAnswer | Self::ExactMatch)
    }

    /// Whether it measures the form of an answer rather than whether it is right (see [`crate::verdict`]).
    #[must_use]
    pub fn is_conformance(self) -> bool {
        matches!(self, Self::ValidJson | Self::ValidAnswer)
    }
}

/// One item of one arm: the answer and what it is worth.
#[derive(Debug, Clone, PartialEq)]
pub struct ItemScore {
    /// The item.
    pub id: String,
    /// The answer as it was given.
    pub answer: String,
    /// Why the answer is invalid; `None` for a valid one.
    pub invalid: Option<Invalid>,
    /// Classification: the index of the answered label; `None` if invalid.
    pub predicted: Option<usize>,
    /// Structured: whether each field of the task is right; `None` for fields that this arm does not answer at all.
    pub fields: Vec<Option<bool>>,
    /// Right as a whole: the label, all fields, the text. False for an arm that answers only some of the fields.
    pub exact: bool,
    /// Free text: token F1.
    pub token_f1: f64,
    /// The arm's probability of its own answer, where it has one.
    pub probability: Option<f64>,
}

impl ItemScore {
    /// An answer of which nothing is known yet.
    pub(crate) fn unknown(id: &str, answer: &str) -> ItemScore {
        ItemScore {
            id: id.to_owned(),
            answer: answer.to_owned(),
            invalid: None,
            predicted: None,
            fields: Vec::new(),
            exact: false,
            token_f1: 0.0,
            probability: None,
        }
    }

    /// The item's value under a metric; `None` for [`Metric::MacroF1`], which only a whole set has, and for
    /// [`Metric::Perplexity`], which its loss says.
    #[must_use]
    pub fn value(&self, metric: Metric) -> Option<f64> {
        let rate = |right: bool| Some(f64::from(u8::from(right)));
        match metric {
            Metric::Accuracy | Metric::RecordExact | Metric::ExactMatch => rate(self.exact),
            Metric::ValidJson | Metric::ValidAnswer => rate(self.invalid.is_none()),
            Metric::FieldAccuracy => Some(self.field_share(|_| true)),
            Metric::TokenF1 => Some(self.token_f1),
            Metric::MacroF1 | Metric::Perplexity => None,
        }
    }

    /// The share of right fields among those that the arm answers and `wanted` picks.
    #[must_use]
    pub fn field_share(&self, wanted: impl Fn(usize) -> bool) -> f64 {
        let (mut right, mut asked) = (0_u32, 0_u32);
        for (field, verdict) in self.fields.iter().enumerate() {
            if let Some(is_right) = verdict
                && wanted(field)
            {
                asked += 1;
                right += u32::from(*is_right);
            }
        }
        if asked == 0 { 0.0 } else { f64::from(right) / f64::from(asked) }
    }
}

/// Scores one free or chosen answer.
pub fn score(task: &Task, sample: &Sample, answer: &Answer) -> Result<ItemScore, Error> {
    let mut item = ItemScore::unknown(&sample.id, &answer.text);
    match task {
        Task::Classification { labels } => {
            let gold = gold_label(labels, sample)?;
            match read_label(labels, answer) {
                Ok(predicted) => {
                    item.predicted = Some(predicted);
                    item.exact = predicted == gold;
                }
                Err(invalid) => item.invalid = Some(invalid),
            }
        }
        Task::Structured { fields } => {
            let gold = gold_fields(fields, sample)?;
            let given = if answer.finished { parse_record(&answer.text, fields) } else { Err(Invalid::Unfinished) };
            match given {
                Ok(given) => {
                    item.fields = gold.iter().zip(&given).map(|(gold, given)| Some(gold.same(given))).collect();
                    item.exact = item.fields.iter().all(|right| *right == Some(true));
                }
                Err(invalid) => {
                    item.fields = vec![Some(false); fields.len()];
                    item.invalid = Some(invalid);
                }
            }
        }
        Task::FreeText => {
            let Gold::Label(gold) = &sample.gold else {
                return Err(gold_differs(task, sample));
            };
            let (gold, given) = (tokens(gold), tokens(&answer.text));
            item.exact = gold == given;
            item.token_f1 = token_f1(&gold, &given);
            item.invalid = answer.text.trim().is_empty().then_some(Invalid::Empty);
        }
        // Nothing is answered; the item's loss is all there is.
        Task::Text => {}
    }
    Ok(item)
}

/// Scores a record of which an arm may answer only some fields (the classical rival); `None`: not answered.
pub fn score_partial(task: &Task, sample: &Sample, given: &[Option<Field>]) -> Result<ItemScore, Error> {
    let Task::Structured { fields } = task else {
        return Err(gold_differs(task, sample));
    };
    let gold = gold_fields(fields, sample)?;
    if given.len() != fields.len() {
        return Err(Error::CountDiffers { what: "fields of a record", expected: fields.len(), got: given.len() });
    }
    let right: Vec<Option<bool>> = gold.iter().zip(given).map(|(gold, given)| given.as_ref().map(|given| gold.same(given))).collect();
    let answer = fields
        .iter()
        .zip(given)
        .filter_map(|(name, given)| given.as_ref().map(|given| (name.clone(), given.to_json())))
        .collect::<serde_json::Map<_, _>>();
    Ok(ItemScore {
        id: sample.id.clone(),
        answer: serde_json::Value::Object(answer).to_string(),
        invalid: None,
        predicted: None,
        exact: right.iter().all(|right| *right == Some(true)),
        fields: right,
        token_f1: 0.0,
        probability: None,
    })
}

/// The index of the sample's gold label.
pub fn gold_label(labels: &[String], sample: &Sample) -> Result<usize, Error> {
    let Gold::Label(gold) = &sample.gold else {
        return Err(Error::GoldDiffers { id: sample.id.clone(), task: "classification", gold: "a record" });
    };
    labels
        .iter()
        .position(|label| label.trim() == gold.trim())
        .ok_or_else(|| Error::UnknownLabel { id: sample.id.clone(), labels: labels.len() })
}

/// The gold values in the order of the task's fields.
fn gold_fields<'a>(fields: &[String], sample: &'a Sample) -> Result<Vec<&'a Field>, Error> {
    let Gold::Fields(gold) = &sample.gold else {
        return Err(Error::GoldDiffers { id: sample.id.clone(), task: "structured", gold: "a label or text" });
    };
    fields
        .iter()
        .map(|name| {
            gold.iter()
                .find(|(field, _)| field == name)
                .map(|(_, value)| value)
                .ok_or_else(|| Error::MissingField { id: sample.id.clone(), field: name.clone() })
        })
        .collect()
}

fn gold_differs(task: &Task, sample: &Sample) -> Error {
    Error::GoldDiffers {
        id: sample.id.clone(),
        task: task.name(),
        gold: match sample.gold {
            Gold::Label(_) => "a label or text",
            Gold::Fields(_) => "a record",
        },
    }
}

fn read_label(labels: &[String], answer: &Answer) -> Result<usize, Invalid> {
    if !answer.finished {
        return Err(Invalid::Unfinished);
    }
    let text = answer.text.trim();
    if text.is_empty() {
        return Err(Invalid::Empty);
    }
    labels.iter().position(|label| label.trim() == text).ok_or(Invalid::NotALabel)
}

/// Reads an answer as one JSON object with exactly these fields; the values in the order of `fields`.
///
/// ```
/// use eval::score::{Invalid, parse_record};
/// let fields = ["intent".to_owned(), "order".to_owned()];
/// assert!(parse_record(r#" {"order": 7, "intent": "refund"} "#, &fields).is_ok());
/// assert_eq!(parse_record(r#"Sure! {"order": 7, "intent": "refund"}"#, &fields), Err(Invalid::TextAround));
/// ```
pub fn parse_record(text: &str, fields: &[String]) -> Result<Vec<Field>, Invalid> {
    let object = parse_strict(text)?;
    let serde_json::Value::Object(mut object) = object else {
        return Err(Invalid::NotAnObject);
    };
    let values: Option<Vec<Field>> = fields.iter().map(|name| object.remove(name).map(|value| Field::from_json(&value))).collect();
    match values {
        None => Err(Invalid::MissingField),
        Some(_) if !object.is_empty() => Err(Invalid::ExtraField),
        Some(values) => Ok(values),
    }
}

/// One JSON value and nothing else; no key twice; nested at most [`NESTING_MAX`] deep.
pub fn parse_strict(text: &str) -> Result<serde_json::Value, Invalid> {
    if text.trim().is_empty() {
        return Err(Invalid::Empty);
    }
    match parse_prefix(text) {
        Ok((value, true)) => Ok(value),
        Ok((_, false)) => Err(Invalid::TextAround),
        Err(invalid @ (Invalid::RepeatedKey | Invalid::TooDeep)) => Err(invalid),
        Err(_) => {
            let inside = text.find('{').filter(|&at| !text[..at].trim().is_empty());
            match inside {
                Some(at) if parse_prefix(&text[at..]).is_ok() => Err(Invalid::TextAround),
                _ => Err(Invalid::NotJson),
            }
        }
    }
}

/// The JSON value at the beginning, and whether it is all there is.
fn parse_prefix(text: &str) -> Result<(serde_json::Value, bool), Invalid> {
    let reason = Cell::new(Invalid::NotJson);
    let mut reader = serde_json::Deserializer::from_str(text);
    let strict = Strict { depth: NESTING_MAX, reason: &reason };
    match strict.deserialize(&mut reader) {
        Ok(value) => Ok((value, reader.end().is_ok())),
        Err(_) => Err(reason.get()),
    }
}

/// Builds a JSON value, but stops at a repeated key (which `serde_json` would silently overwrite) and at a depth.
struct Strict<'a> {
    depth: usize,
    reason: &'a Cell<Invalid>,
}

impl Strict<'_> {
    fn deeper<E: serde::de::Error>(&self) -> Result<Self, E> {
        if self.depth == 0 {
            self.reason.set(Invalid::TooDeep);
            return Err(E::custom("too deep"));
        }
        Ok(Self { depth: self.depth - 1, reason: self.reason })
    }

    fn again(&self) -> Self {
        Self { depth: self.depth, reason: self.reason }
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = serde_json::Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = serde_json::Value;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(serde_json::Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Self::Value, A::Error> {
        let inner = self.deeper()?;
        let mut values = Vec::new();
        while let Some(value) = sequence.next_element_seed(inner.again())? {
            values.push(value);
        }
        Ok(values.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let inner = self.deeper()?;
        let mut values = serde_json::Map::new();
        while let Some(key) = map.next_key::<String>()? {
            let value = map.next_value_seed(inner.again())?;
            if values.insert(key, value).is_some() {
                self.reason.set(Invalid::RepeatedKey);
                return Err(A::Error::custom("repeated key"));
            }
        }
        Ok(values.into())
    }
}

/// The tokens of a free text: lower-cased, split at everything that is neither a letter nor a digit.
#[must_use]
pub fn tokens(text: &str) -> Vec<String> {
    text.to_lowercase().split(|character: char| !character.is_alphanumeric()).filter(|token| !token.is_empty()).map(str::to_owned).collect()
}

/// 2·shared/(gold + given), with `shared` the size of the multiset intersection; 1 for two empty texts.
#[must_use]
pub fn token_f1(gold: &[String], given: &[String]) -> f64 {
    if gold.is_empty() && given.is_empty() {
        return 1.0;
    }
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for token in gold {
        *counts.entry(token).or_default() += 1;
    }
    let mut shared = 0_usize;
    for token in given {
        if let Some(count) = counts.get_mut(token.as_str())
            && *count > 0
        {
            *count -= 1;
            shared += 1;
        }
    }
    2.0 * shared as f64 / (gold.len() + given.len()) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &str) -> Answer {
        Answer { text: text.to_owned(), finished: true, log_prob: None }
    }

    fn sample(gold: Gold) -> Sample {
        Sample { id: "t-1".to_owned(), messages: Vec::new(), answer: String::new(), stratum: None, group: None, gold }
    }

    fn task() -> Task {
        Task::Structured { fields: ["intent", "order", "urgent"].map(str::to_owned).to_vec() }
    }

    fn gold() -> Sample {
        sample(Gold::Fields(vec![
            ("intent".to_owned(), Field::Text("refund".to_owned())),
            ("order".to_owned(), Field::Integer(4711)),
            ("urgent".to_owned(), Field::Bool(false)),
        ]))
    }

    #[track_caller]
    fn check(text: &str, invalid: Option<Invalid>, right: [bool; 3]) {
        let item = score(&task(), &gold(), &answer(text)).unwrap();
        assert_eq!(item.invalid, invalid, "{text}");
        assert_eq!(item.fields, right.map(Some), "{text}");
        assert_eq!(item.exact, right == [true; 3]);
    }

    #[test]
    fn records_by_the_rules() {
        let none = [false; 3];
        check(r#"{"intent": "refund", "order": 4711, "urgent": false}"#, None, [true; 3]);
        check("\n {\"urgent\":false,\"order\":4711.0,\"intent\":\" refund \"}\t", None, [true; 3]);
        check(r#"{"intent": "Refund", "order": "4711", "urgent": null}"#, None, none);
        check(r#"{"intent": ["refund"], "order": 4711, "urgent": false}"#, None, [false, true, true]);
        check(r#"{"intent": "refund", "order": 4711}"#, Some(Invalid::MissingField), none);
        check(r#"{"intent": "refund", "order": 4711, "urgent": false, "x": 1}"#, Some(Invalid::ExtraField), none);
        check(r#"{"intent": "refund", "order": 1, "order": 4711, "urgent": false}"#, Some(Invalid::RepeatedKey), none);
        check(r#"{"intent": "refund", "order": 4711, "urgent": false} ok"#, Some(Invalid::TextAround), none);
        check(r#"Here: {"intent": "refund", "order": 4711, "urgent": false}"#, Some(Invalid::TextAround), none);
        check("```json\n{\"intent\": \"refund\"}\n```", Some(Invalid::TextAround), none);
        check(r#"{"intent": "refund", "order": 47"#, Some(Invalid::NotJson), none);
        check(r#"{'intent': 'refund'}"#, Some(Invalid::NotJson), none);
        check(r#"{"intent": "refund", "order": NaN, "urgent": false}"#, Some(Invalid::NotJson), none);
        check(r#"{"intent": "refund", "order": 1e999, "urgent": false}"#, Some(Invalid::NotJson), none);
        check(r#"["refund", 4711, false]"#, Some(Invalid::NotAnObject), none);
        check("refund", Some(Invalid::NotJson), none);
        check("", Some(Invalid::Empty), none);
    }

    #[test]
    fn deep_nesting_is_refused_not_followed() {
        let deep = format!("{{\"intent\": {}1{}, \"order\": 1, \"urgent\": false}}", "[".repeat(50), "]".repeat(50));
        check(&deep, Some(Invalid::TooDeep), [false; 3]);
        let bomb = "[".repeat(200_000);
        assert_eq!(parse_strict(&bomb), Err(Invalid::TooDeep));
    }

    /// Whatever a model writes ends in a value or a reason; and what is accepted is what serde_json reads.
    #[test]
    fn random_answers_never_panic() {
        let pieces = ["{", "}", "[", "]", "\"", ":", ",", " ", "intent", "\\u", "\\", "1", "-", "e9", "null", "é", "\u{0}", "\n"];
        let fields = ["intent".to_owned()];
        let stream = crate::random::Stream::new(3, "fuzz");
        for case in 0..20_000 {
            let stream = stream.fork(case);
            let length = stream.below(0, 14) as u64;
            let text: String = (1..=length).map(|at| pieces[stream.below(at, pieces.len())]).collect();
            if let Ok(value) = parse_strict(&text) {
                assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
            }
            let _ = parse_record(&text, &fields);
        }
    }

    #[test]
    fn long_numbers_compare_exactly() {
        let field = |text: &str| Field::from_json(&serde_json::from_str(text).unwrap());
        assert!(!field("9007199254740993").same(&field("9007199254740992")));
        assert!(field("12").same(&field("1.2e1")));
        assert!(!field("12").same(&field("\"12\"")));
        assert!(field(r#"{"b":1,"a":2}"#).same(&field(r#"{"a":2,"b":1}"#)));
        assert!(!Field::Number(f64::NAN).same(&Field::Number(f64::NAN)));
    }

    #[test]
    fn labels_by_the_rules() {
        let task = Task::Classification { labels: vec!["card lost".to_owned(), "refund".to_owned()] };
        let sample = sample(Gold::Label("refund".to_owned()));
        let item = |text: &str| score(&task, &sample, &answer(text)).unwrap();
        assert!(item(" refund\n").exact);
        assert_eq!(item("card lost").predicted, Some(0));
        assert_eq!(item("Refund").invalid, Some(Invalid::NotALabel));
        assert_eq!(item("refund.").invalid, Some(Invalid::NotALabel));
        assert_eq!(item("  ").invalid, Some(Invalid::Empty));
        let cut = Answer { finished: false, ..answer("refund") };
        assert_eq!(score(&task, &sample, &cut).unwrap().invalid, Some(Invalid::Unfinished));
    }

    #[test]
    fn free_text_by_tokens() {
        let sample = sample(Gold::Label("Please reset the card.".to_owned()));
        let item = |text: &str| score(&Task::FreeText, &sample, &answer(text)).unwrap();
        assert!(item("please RESET, the card").exact);
        assert!((item("reset card now").token_f1 - 2.0 * 2.0 / 7.0).abs() < 1e-15);
        assert_eq!(item("").invalid, Some(Invalid::Empty));
        assert_eq!(item("").token_f1, 0.0);
    }

    #[test]
    fn wrong_gold_is_named() {
        let labels = Task::Classification { labels: vec!["a".to_owned()] };
        assert!(matches!(score(&labels, &gold(), &answer("a")), Err(Error::GoldDiffers { .. })));
        let unknown = sample(Gold::Label("b".to_owned()));
        assert!(matches!(score(&labels, &unknown, &answer("a")), Err(Error::UnknownLabel { labels: 1, .. })));
        let short = sample(Gold::Fields(vec![("intent".to_owned(), Field::Null)]));
        let error = score(&task(), &short, &answer("{}")).unwrap_err();
        assert_eq!(error.to_string(), "item `t-1`: its gold record has no field `order`, which the task expects");
    }

    #[test]
    fn names_go_both_ways() {
        for metric in Metric::ALL {
            assert_eq!(Metric::from_name(metric.name()), Ok(metric));
        }
        assert!(matches!(Metric::from_name("acuracy"), Err(Error::UnknownMetric { .. })));
        assert!(Metric::Accuracy.check_task(&task()).is_err());
    }
}
