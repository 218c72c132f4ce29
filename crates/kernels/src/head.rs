//! The language-model head: log-probabilities and their gradient without logits in memory.

/// An entry after the rows with entries were gathered: `row` counts gathered rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadEntry {
    /// Row of the head's input.
    pub row: u32,
    /// Token id.
    pub target: u32,
}
