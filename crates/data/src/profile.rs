//! Guesses which column is what, for `init`.

use crate::Dataset;

/// A guess and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guess { /// The column.
    pub column: String, /// Why, as a sentence without customer text.
    pub reason: String }

/// What a source's columns look like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile { /// The text that is read.
    pub input: Option<Guess>, /// The answer's fields.
    pub targets: Vec<Guess>, /// Ids.
    pub id: Option<Guess>, /// What never straddles a split.
    pub group: Option<Guess>, /// Columns with no role, and why.
    pub unused: Vec<Guess> }

/// Looks at a source.
pub fn profile(dataset: &Dataset) -> Profile { let _ = dataset; todo!() }
