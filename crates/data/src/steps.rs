//! Steps between records and the split; each keeps a record or says why not.

use crate::Record;
use std::collections::{BTreeMap, HashMap};
use std::fmt;

/// Why something was dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// It cannot be read.
    Unreadable {
        /// What is wrong.
        problem: String,
    },
    /// The input is empty.
    EmptyInput,
    /// The answer is empty.
    EmptyTarget,
    /// The same input and answer as the related record.
    Duplicate,
    /// Nearly the same input and answer as the first related record.
    NearDuplicate {
        /// Jaccard similarity with the last related record, in thousandths.
        thousandths: u32,
    },
    /// The same input as the related records, with another answer.
    Conflict,
    /// Its label is probably another.
    LabelError {
        /// Which.
        suggested: String,
    },
    /// It breaks off, or lost characters.
    Incomplete {
        /// How one sees that.
        problem: &'static str,
    },
    /// It is no running text.
    Quality {
        /// By which rule.
        rule: &'static str,
    },
    /// It is in a language that is not wanted.
    Language {
        /// ISO 639-3 code.
        found: &'static str,
    },
    /// It has a word of the list.
    ListedWord,
    /// It has a secret in it.
    Secret {
        /// Of which kind.
        kind: &'static str,
    },
    /// It was valid until a day that has passed.
    Outdated {
        /// That day.
        until: String,
    },
    /// A later version of the same thing is the related record.
    Superseded,
    /// A long passage of it stands in the related record too.
    Passage {
        /// Words in a row.
        words: usize,
    },
    /// It has a text in common with something that training must not know.
    Contaminated {
        /// A held-out part or a benchmark.
        with: String,
    },
    /// It has nothing of which records of the source are made.
    NothingMade {
        /// What was looked for.
        of: &'static str,
    },
    /// Longer than allowed.
    TooLong {
        /// Its length.
        given: usize,
        /// The limit.
        limit: usize,
        /// What is counted: characters or tokens.
        unit: &'static str,
    },
    /// It does not have the shape of its source.
    Malformed {
        /// What is wrong.
        problem: String,
    },
    /// The chat template or the tokenizer refuses it.
    Unrenderable {
        /// Why.
        problem: String,
    },
    /// A seeded draw of fewer records left it out.
    NotDrawn,
    /// It shares a group, an input or a near-duplicate with records of another part.
    HeldOut {
        /// Which part holds them.
        part: &'static str,
    },
}

impl Reason {
    /// A short name, the same for all records with this reason.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => "cannot be read",
            Self::EmptyInput => "empty input",
            Self::EmptyTarget => "empty target",
            Self::Duplicate => "duplicate",
            Self::NearDuplicate { .. } => "near-duplicate",
            Self::Conflict => "conflicting label",
            Self::LabelError { .. } => "label probably wrong",
            Self::Incomplete { .. } => "incomplete",
            Self::Quality { .. } => "no running text",
            Self::Language { .. } => "another language",
            Self::ListedWord => "listed word",
            Self::Secret { .. } => "secret",
            Self::Outdated { .. } => "outdated",
            Self::Superseded => "superseded",
            Self::Passage { .. } => "passage of another record",
            Self::Contaminated { .. } => "contaminated",
            Self::NothingMade { .. } => "nothing to make a record of",
            Self::TooLong { .. } => "too long",
            Self::Malformed { .. } => "malformed",
            Self::Unrenderable { .. } => "cannot be rendered",
            Self::NotDrawn => "not drawn",
            Self::HeldOut { .. } => "shares a group, input or near-duplicate with held-out records",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { given, limit, unit } => write!(f, "{given} {unit}, at most {limit}"),
            Self::Unreadable { problem } => write!(f, "cannot be read: {problem}"),
            Self::NearDuplicate { thousandths } => {
                write!(f, "near-duplicate, Jaccard {}.{:03}", thousandths / 1000, thousandths % 1000)
            }
            Self::LabelError { suggested } => write!(f, "label probably wrong, suggested: {suggested}"),
            Self::Incomplete { problem } => write!(f, "incomplete: {problem}"),
            Self::Quality { rule } => write!(f, "no running text: {rule}"),
            Self::Language { found } => write!(f, "another language: {found}"),
            Self::Secret { kind } => write!(f, "secret: {kind}"),
            Self::Outdated { until } => write!(f, "outdated: valid until {until}"),
            Self::Malformed { problem } => write!(f, "malformed: {problem}"),
            Self::Passage { words } => write!(f, "{words} words in a row stand in another record"),
            Self::Contaminated { with } => write!(f, "contaminated: it has a text in common with {with}"),
            Self::NothingMade { of } => write!(f, "nothing to make a record of: {of}"),
            Self::Unrenderable { problem } => write!(f, "cannot be rendered: {problem}"),
            Self::HeldOut { part } => write!(f, "shares a group, an input or a near-duplicate with records of the {part} set"),
            reason => f.write_str(reason.name()),
        }
    }
}

/// Something dropped, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// The document's or record's id.
    pub id: String,
    /// The step's name.
    pub step: &'static str,
    /// Why.
    pub reason: Reason,
    /// Ids of the records that the reason is about: the kept one, the conflicting ones.
    pub related: Vec<String>,
}

/// What to do where it can be kept or dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Report only.
    Keep,
    /// Drop and report.
    Drop,
}

/// Records with the same input and different answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The records' ids, in order.
    pub ids: Vec<String>,
    /// Their distinct answers, sorted.
    pub answers: Vec<String>,
}

/// What a step leaves.
#[derive(Clone, Debug, Default)]
pub struct Stepped {
    /// What goes on.
    pub records: Vec<Record>,
    /// What does not.
    pub rejected: Vec<Rejected>,
    /// Conflicts found, whether their records were dropped or not.
    pub conflicts: Vec<Conflict>,
}

/// Keeps the records for which `reason` gives none.
fn filter(records: Vec<Record>, step: &'static str, reason: impl Fn(usize, &Record) -> Option<(Reason, Vec<String>)>) -> Stepped {
    let mut stepped = Stepped::default();
    for (i, record) in records.into_iter().enumerate() {
        match reason(i, &record) {
            None => stepped.records.push(record),
            Some((reason, related)) => stepped.rejected.push(Rejected { id: record.id, step, reason, related }),
        }
    }
    stepped
}

/// Whether a record asks nothing.
pub(crate) fn asks_nothing(record: &Record) -> bool {
    let empty = record.messages.iter().all(|message| message.content.trim().is_empty());
    let asks = record.messages.iter().any(|message| message.role != text::Role::System);
    empty || (asks && record.input().trim().is_empty())
}

/// Drops records that ask nothing.
pub fn drop_empty(records: Vec<Record>) -> Stepped {
    filter(records, "empty", |_, record| asks_nothing(record).then_some((Reason::EmptyInput, Vec::new())))
}

/// Drops records whose messages and answer have more characters than `limit` together.
pub fn drop_long(records: Vec<Record>, limit: usize) -> Stepped {
    filter(records, "length", |_, record| {
        let characters = |text: &str| text.chars().count();
        let asked: usize = record.messages.iter().map(|message| characters(&message.content)).sum();
        let given = asked + characters(&record.answer.to_text());
        (given > limit).then_some((Reason::TooLong { given, limit, unit: "characters" }, Vec::new()))
    })
}

/// Exact duplicates, up to white space, of input and answer together: of each the first in the order given is kept.
pub fn duplicates(records: Vec<Record>, policy: Policy) -> Stepped {
    if policy == Policy::Keep {
        return Stepped { records, ..Stepped::default() };
    }
    let mut first: HashMap<[u8; 32], (usize, String)> = HashMap::with_capacity(records.len());
    for (i, record) in records.iter().enumerate() {
        first.entry(record.content_key()).or_insert_with(|| (i, record.id.clone()));
    }
    filter(records, "duplicates", |i, record| match &first[&record.content_key()] {
        (kept, _) if *kept == i => None,
        (_, id) => Some((Reason::Duplicate, vec![id.clone()])),
    })
}

/// The same input with different answers: reported; if dropped, then all of them, because none is known to be right.
pub fn conflicts(records: Vec<Record>, policy: Policy) -> Stepped {
    let mut by_input: HashMap<[u8; 32], Vec<usize>> = HashMap::with_capacity(records.len());
    for (i, record) in records.iter().enumerate() {
        by_input.entry(record.input_key()).or_default().push(i);
    }
    // In the order of each conflict's first record.
    let mut found = BTreeMap::new();
    for indices in by_input.into_values().filter(|indices| indices.len() > 1) {
        let mut answers: Vec<String> = indices.iter().map(|i| records[*i].answer.to_text()).collect();
        answers.sort();
        answers.dedup();
        if answers.len() > 1 {
            let ids = indices.iter().map(|i| records[*i].id.clone()).collect();
            found.insert(indices[0], (indices, Conflict { ids, answers }));
        }
    }
    let mut conflict_of = HashMap::new();
    for (indices, conflict) in found.values() {
        conflict_of.extend(indices.iter().map(|i| (*i, conflict)));
    }
    let mut stepped = match policy {
        Policy::Keep => Stepped { records, ..Stepped::default() },
        Policy::Drop => filter(records, "conflicts", |i, record| {
            let conflict = conflict_of.get(&i)?;
            let others = conflict.ids.iter().filter(|id| **id != record.id).cloned().collect();
            Some((Reason::Conflict, others))
        }),
    };
    stepped.conflicts = found.into_values().map(|(_, conflict)| conflict).collect();
    stepped
}
