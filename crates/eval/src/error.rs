//! The errors of this crate: a closed list, each with both sides of the disagreement.

use thiserror::Error;

/// What can be wrong with what a caller hands in. No variant carries a customer's text, only ids, names and counts.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum Error {
    /// A subject or an import returned another number of results than it was asked for.
    #[error("{what}: expected {expected} results, one per item, got {got}")]
    CountDiffers {
        /// What was asked for.
        what: &'static str,
        /// Items asked for.
        expected: usize,
        /// Results received.
        got: usize,
    },
    /// Two arms were measured on different items, so that they can't be paired.
    #[error("arms `{left}` and `{right}` differ at item {position}: `{left_id}` against `{right_id}`")]
    ItemsDiffer {
        /// Name of the first arm.
        left: String,
        /// Name of the second arm.
        right: String,
        /// Position of the first difference.
        position: usize,
        /// The item there in the first arm, or `(none)`.
        left_id: String,
        /// The item there in the second arm, or `(none)`.
        right_id: String,
    },
    /// A text has another number of tokens in two arms, whose perplexities then say nothing about each other.
    #[error("text `{id}` has {left} tokens in one arm and {right} in the other; perplexities are comparable with one tokenizer only")]
    TokensDiffer {
        /// The text.
        id: String,
        /// Its tokens in the first arm.
        left: u64,
        /// Its tokens in the second arm.
        right: u64,
    },
    /// A gold answer doesn't fit the task.
    #[error("item `{id}`: the task is {task}, the gold answer is {gold}")]
    GoldDiffers {
        /// The item.
        id: String,
        /// What the task wants.
        task: &'static str,
        /// What the item has.
        gold: &'static str,
    },
    /// Something was asked for that this kind of task doesn't have.
    #[error("{what} needs a task of the kind {expected}, this one is {got}")]
    TaskDiffers {
        /// What was asked for.
        what: &'static str,
        /// The kind of task that has it.
        expected: &'static str,
        /// The kind of task at hand.
        got: &'static str,
    },
    /// The gold label is not among the task's labels.
    #[error("item `{id}`: its gold label is not among the {labels} labels of the task")]
    UnknownLabel {
        /// The item.
        id: String,
        /// How many labels the task has.
        labels: usize,
    },
    /// The gold record has other fields than the task.
    #[error("item `{id}`: its gold record has no field `{field}`, which the task expects")]
    MissingField {
        /// The item.
        id: String,
        /// The field that is missing.
        field: String,
    },
    /// A choice names a label that doesn't exist.
    #[error("item `{id}`: label {index} was chosen, there are {labels}")]
    ChoiceOutOfRange {
        /// The item.
        id: String,
        /// The index that was returned.
        index: usize,
        /// The number of labels.
        labels: usize,
    },
    /// An id stands twice among the items or the imported answers.
    #[error("id `{id}` stands twice (positions {first} and {second}); ids pair the answers, so each must be unique")]
    RepeatedId {
        /// The id.
        id: String,
        /// Its first position.
        first: usize,
        /// Its second position.
        second: usize,
    },
    /// Nothing to measure.
    #[error("{what}: at least {least} needed, got {got}")]
    TooFew {
        /// What there is too little of.
        what: &'static str,
        /// The least number that works.
        least: usize,
        /// What was given.
        got: usize,
    },
    /// A metric was asked for that this task does not have.
    #[error("metric `{metric}` does not exist for this task; it has: {has}")]
    MetricNotForTask {
        /// The metric asked for.
        metric: &'static str,
        /// The metrics of the task, separated by commas.
        has: String,
    },
    /// A name of a metric that nobody knows.
    #[error("unknown metric `{name}`; known: {known}")]
    UnknownMetric {
        /// The name given.
        name: String,
        /// All names, separated by commas.
        known: String,
    },
    /// A number outside the range in which it means something.
    #[error("{what} must be in {range}, got {got}")]
    OutOfRange {
        /// The name of the number.
        what: &'static str,
        /// The range it must be in.
        range: &'static str,
        /// What was given.
        got: f64,
    },
}
