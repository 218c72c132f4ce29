//! What the rows of a source are, by the names of their columns.

/// The shape of a source's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Named columns: `input` and `target` say which.
    Columns,
    /// OpenAI's `messages`.
    Messages,
    /// `prompt` and `completion`, as texts or as lists of messages.
    PromptCompletion,
    /// `inputs` and `targets`.
    InputsTargets,
    /// `instruction`, `input` and `output`.
    Alpaca,
    /// `conversations` of `from` and `value`.
    ShareGpt,
    /// `chosen` and `rejected`: recognised, not trained on yet.
    Preference,
}

impl Shape {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Columns => "columns",
            Self::Messages => "messages",
            Self::PromptCompletion => "prompt/completion",
            Self::InputsTargets => "inputs/targets",
            Self::Alpaca => "Alpaca (instruction/input/output)",
            Self::ShareGpt => "ShareGPT (conversations)",
            Self::Preference => "preference pairs (chosen/rejected)",
        }
    }

    /// By the columns that a source has.
    pub fn of(columns: &[String]) -> Self {
        let has = |name: &str| columns.iter().any(|column| column == name);
        if has("chosen") && has("rejected") {
            Self::Preference
        } else if has("messages") {
            Self::Messages
        } else if has("conversations") {
            Self::ShareGpt
        } else if has("prompt") && has("completion") {
            Self::PromptCompletion
        } else if has("inputs") && has("targets") {
            Self::InputsTargets
        } else if has("instruction") && has("output") {
            Self::Alpaca
        } else {
            Self::Columns
        }
    }
}
