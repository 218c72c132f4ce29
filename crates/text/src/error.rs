//! Everything that can be wrong with a tokenizer, a template or a conversation.

/// Why text could not be turned into ids, or back. Holds names and numbers, never customer text.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TextError {
    /// Not JSON of the expected form.
    #[error("{file} is not what its name says: {reason}")]
    Json {
        /// Which file.
        file: &'static str,
        /// What the parser said: position and expectation.
        reason: String,
    },
    /// A part of a tokenizer that is not read here.
    #[error("the tokenizer's {part} is {found:?}; supported: {supported}")]
    Unsupported {
        /// Which part: model, pre_tokenizer, …
        part: &'static str,
        /// What the file has.
        found: String,
        /// What is read.
        supported: String,
    },
    /// Something larger than allowed.
    #[error("the tokenizer has {given} {what}, at most {limit}")]
    TooLarge {
        /// What is counted.
        what: &'static str,
        /// How many there are.
        given: u64,
        /// How many may be.
        limit: u64,
    },
    /// Ids must be distinct and below the limit.
    #[error("token id {id} is used by {first:?} and by {second:?}")]
    DuplicateId {
        /// The id.
        id: u32,
        /// One token.
        first: String,
        /// The other.
        second: String,
    },
    /// A token twice, with different ids.
    #[error("the token {token:?} has id {first} and id {second}")]
    DuplicateToken {
        /// The token.
        token: String,
        /// Its first id.
        first: u32,
        /// Its second.
        second: u32,
    },
    /// A merge that names a token that the vocabulary lacks.
    #[error("merge {merge} needs the token {token:?}, which the vocabulary lacks")]
    Merge {
        /// Which merge, from 0.
        merge: usize,
        /// The missing token.
        token: String,
    },
    /// A field out of its range.
    #[error("the tokenizer's {field} is {given}, expected {expected}")]
    Field {
        /// Which field.
        field: &'static str,
        /// What it is.
        given: String,
        /// What it may be.
        expected: &'static str,
    },
    /// The library refused what passed our checks.
    #[error("the tokenizer was refused: {reason}")]
    Library {
        /// Its words.
        reason: String,
    },
    /// An id that the vocabulary lacks.
    #[error("token id {id} is not in the vocabulary of {vocab}")]
    UnknownId {
        /// The id.
        id: u32,
        /// The vocabulary's size.
        vocab: usize,
    },
    /// The template does not parse or does not run.
    #[error("the chat template fails{}: {reason}", line.map(|l| format!(" in line {l}")).unwrap_or_default())]
    Template {
        /// Where, if known.
        line: Option<usize>,
        /// Why: the engine's kind of error or the template's own `raise_exception`.
        reason: String,
    },
    /// The template's text is too large.
    #[error("the chat template has {given} bytes, at most {limit}")]
    TemplateSize {
        /// Its size.
        given: usize,
        /// The limit.
        limit: usize,
    },
    /// The rendering is too large.
    #[error("the chat template wrote more than {limit} bytes")]
    TemplateOutput {
        /// The limit.
        limit: usize,
    },
    /// No such built-in template.
    #[error("there is no template named {given:?}; built in are: {known}")]
    UnknownTemplate {
        /// The name asked for.
        given: String,
        /// The names there are.
        known: String,
    },
    /// The template and the tokenizer do not go together: a question and an answer that everything must cope with.
    #[error("the chat template does not suit this model: {problem}")]
    TemplateCheck {
        /// What is wrong when they are rendered.
        #[source]
        problem: RecordProblem,
    },
    /// Neither tokenizer nor model names a token that ends a text.
    #[error("neither the tokenizer nor the model's files name an end-of-text token")]
    NoEndOfText,
    /// A record that cannot be rendered soundly.
    #[error("record {record}: {problem}")]
    Record {
        /// Its id.
        record: String,
        /// What is wrong with it.
        #[source]
        problem: RecordProblem,
    },
}

/// What is wrong with one record.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecordProblem {
    /// There is nothing in it.
    #[error("it has no messages")]
    NoMessages,
    /// A plain text without a character to learn.
    #[error("it has no text")]
    NoText,
    /// Nothing to learn from.
    #[error("no token carries loss: it has no assistant message with a weight above zero")]
    NoLoss,
    /// An assistant message without text.
    #[error("the assistant's message {message} is empty")]
    EmptyAnswer {
        /// Its index.
        message: usize,
    },
    /// A weight that is no finite number ≥ 0.
    #[error("message {message} has the weight {weight}, expected a number from 0 to {limit}")]
    Weight {
        /// Its index.
        message: usize,
        /// The weight, as text.
        weight: String,
        /// Largest weight.
        limit: u32,
    },
    /// Longer than the context.
    #[error("it has {given} tokens, at most {limit}; answers are never cut")]
    TooLong {
        /// Its tokens.
        given: usize,
        /// The limit.
        limit: usize,
    },
    /// The rendering of the first turns is no beginning of the whole.
    #[error("the chat template changes what stands before message {message} when that message is added")]
    Unstable {
        /// The message.
        message: usize,
    },
    /// Nothing stands after the answer, so generation would never learn to stop.
    #[error("the chat template writes no end-of-turn token after message {message}")]
    NoEndOfTurn {
        /// The message.
        message: usize,
    },
    /// A special token's text stands in a message, and the template hides where.
    #[error(
        "message {message} contains the text of the special token {token:?}, and the chat template does not show where messages begin and end"
    )]
    SpecialText {
        /// The message.
        message: usize,
        /// The token.
        token: String,
    },
    /// The answer is not in the rendering as it was given.
    #[error("the chat template changes the text of message {message}")]
    AnswerChanged {
        /// The message.
        message: usize,
    },
    /// An answer's first token would have to be cut, and this tokenizer's pieces do not add up.
    #[error("its answer begins in the middle of a token, and this tokenizer cannot write the two parts one by one")]
    Boundary,
    /// The template failed on it.
    #[error("the chat template fails on it: {reason}")]
    Template {
        /// Why.
        reason: String,
    },
    /// The template wrote too much.
    #[error("the chat template wrote more than {limit} bytes for it")]
    Output {
        /// The limit.
        limit: usize,
    },
    /// The tokenizer failed on it.
    #[error("the tokenizer fails on it: {reason}")]
    Tokenizer {
        /// Why.
        reason: String,
    },
}
