//! A document: one row of a source as it was given, never changed afterwards.

/// A value as a source gives it. Numbers keep their spelling.
#[derive(Clone, Debug, PartialEq)]
pub enum Value { /// `null`, or an absent JSON field.
    Null, /// `true` or `false`.
    Bool(bool), /// A JSON number as written.
    Number(String), /// Text; every CSV cell.
    Text(String), /// A list.
    List(Vec<Value>), /// An object, in order.
    Object(Vec<(String, Value)>) }

/// Where a document came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin { /// Name of the source (its path in the run file).
    pub source: String, /// Row, from 1, header not counted.
    pub row: u64, /// Line of the file where it starts, from 1.
    pub line: u64 }

/// One row of a source.
#[derive(Clone, Debug, PartialEq)]
pub struct Document { /// Stable: source, row and content hash.
    pub id: String, /// Its fields in order.
    pub fields: Vec<(String, Value)>, /// Where it came from.
    pub origin: Origin }
