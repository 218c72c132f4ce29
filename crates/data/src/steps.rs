//! Steps between records and the split; each keeps a record or says why not.

use crate::Record;

/// Why something was dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason { /// The input is empty.
    EmptyInput, /// The answer is empty.
    EmptyTarget, /// The same input and answer as `related`.
    Duplicate, /// The same input as `related` with another answer.
    Conflict, /// Longer than allowed.
    TooLong { /// Its length.
        given: usize, /// The limit.
        limit: usize, /// characters or tokens.
        unit: &'static str }, /// Its shape does not fit the source's.
    Malformed { /// What is wrong.
        problem: String }, /// The chat template or tokenizer refuses it.
    Unrenderable { /// Why.
        problem: String } }

/// Something dropped, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected { /// The document's or record's id.
    pub id: String, /// The step's name.
    pub step: &'static str, /// Why.
    pub reason: Reason, /// Ids of the records that it is about (the kept one, the conflicting ones).
    pub related: Vec<String> }

/// What to do where it can be kept or dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy { /// Report only.
    Keep, /// Drop and report.
    Drop }

/// Records with the same input and different answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict { /// The records' ids, in order.
    pub ids: Vec<String>, /// Their distinct answers.
    pub answers: Vec<String> }

/// What a step leaves.
#[derive(Clone, Debug, Default)]
pub struct Stepped { /// What goes on.
    pub records: Vec<Record>, /// What does not.
    pub rejected: Vec<Rejected>, /// Conflicts found (whether dropped or not).
    pub conflicts: Vec<Conflict> }

/// Drops records with an empty input.
pub fn drop_empty(records: Vec<Record>) -> Stepped { let _ = records; todo!() }
/// Drops records whose input or answer has more characters than `limit`.
pub fn drop_long(records: Vec<Record>, limit: usize) -> Stepped { let _ = (records, limit); todo!() }
/// Exact duplicates (of normalised input and answer): the first in order of source and row is kept.
pub fn duplicates(records: Vec<Record>, policy: Policy) -> Stepped { let _ = (records, policy); todo!() }
/// Same input, different answers: reported; dropped are all of them.
pub fn conflicts(records: Vec<Record>, policy: Policy) -> Stepped { let _ = (records, policy); todo!() }
