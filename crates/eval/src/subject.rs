//! What is measured: anything that can answer prompts, choose among labels and say how likely an answer is.
//!
//! `recipes` implements [`Subject`] with the engine; tests implement it with a table. A subject receives all prompts
//! of an arm in one call, so that it may batch them and share their common beginning; batching must never
//! change an answer. Progress and cancelling are the subject's: it knows its rate, and its error type carries a stop.

use crate::Error;

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// The text of the turn.
    pub content: String,
}

impl Message {
    /// A turn of the given role.
    #[must_use]
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into() }
    }
}

/// The conversation up to the assistant's turn that is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    /// The id of the sample, for messages and caches.
    pub id: String,
    /// All turns before the answer.
    pub messages: Vec<Message>,
}

/// A freely generated answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The text, without the end-of-turn token.
    pub text: String,
    /// Whether the subject ended its turn; false when it was cut at the token limit.
    pub finished: bool,
    /// Σ ln p of the generated tokens, end of turn included; `None` where the subject cannot say (imported answers).
    pub log_prob: Option<f64>,
}

/// A choice among labels.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// The index of the chosen label: the greatest of `log_probs`, the first of equals.
    pub index: usize,
    /// ln p of every label, normalised over the labels (Σ exp = 1), in the order in which they were given.
    pub log_probs: Vec<f64>,
}

/// How likely the gold answer of one item is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AnswerLoss {
    /// Σ ln p of the gold answer's tokens, end of turn included, in nats (≤ 0).
    pub log_prob: f64,
    /// The number of those tokens.
    pub tokens: u64,
}

/// Something that answers.
pub trait Subject {
    /// The caller's error; it must be able to carry ours, so that one `?` serves both.
    type Error: From<Error>;

    /// One answer per prompt, in order.
    fn generate(&mut self, prompts: &[Prompt]) -> Result<Vec<Answer>, Self::Error>;

    /// One choice among `labels` per prompt, in order.
    fn choose(&mut self, prompts: &[Prompt], labels: &[String]) -> Result<Vec<Choice>, Self::Error>;

    /// The loss of each prompt's gold answer, in order.
    fn log_probs(&mut self, prompts: &[Prompt], golds: &[String]) -> Result<Vec<AnswerLoss>, Self::Error>;
}
