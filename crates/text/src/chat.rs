//! Messages to ids, with the weight of each id as a target.

use crate::{ChatTemplate, TextError, Tokenizer};
use std::ops::Range;

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role { /// Instructions.
    System, /// The person.
    User, /// The model.
    Assistant, /// A tool's answer.
    Tool }

/// One message.
#[derive(Clone, Debug, PartialEq)]
pub struct Message { /// Who speaks.
    pub role: Role, /// What is said.
    pub content: String, /// OpenAI's weight of an assistant message.
    pub weight: Option<f32> }

/// Which assistant messages carry loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LossOn { /// All, each with weight 1.
    All, /// The last.
    Last, /// By `weight` (1 where none is given).
    Weighted }

/// Where a message's tokens stand.
#[derive(Clone, Debug, PartialEq)]
pub struct Turn { /// Who speaks.
    pub role: Role, /// Its tokens in `ids`, template text around it included.
    pub tokens: Range<usize>, /// Weight in the loss; 0 for none.
    pub weight: f32 }

/// A record as ids.
#[derive(Clone, Debug, PartialEq)]
pub struct Rendered { /// The ids.
    pub ids: Vec<u32>, /// For each id the weight with which it counts as a target (0: it is only read).
    pub loss_weights: Vec<f32>, /// The turns.
    pub turns: Vec<Turn>, /// The token that ends an answer.
    pub end_of_turn: u32 }

/// A tokenizer and a template that go together.
#[derive(Clone, Debug)]
pub struct ChatFormat { tokenizer: Tokenizer, template: ChatTemplate }

impl ChatFormat {
    /// Binds the two; checks the template on a small conversation.
    pub fn new(tokenizer: Tokenizer, template: ChatTemplate) -> Result<Self, TextError> { Ok(Self { tokenizer, template }) }
    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer { &self.tokenizer }
    /// The template.
    pub fn template(&self) -> &ChatTemplate { &self.template }
    /// A whole conversation as ids and loss weights; errors name `record`.
    pub fn render(&self, record: &str, messages: &[Message], loss_on: LossOn, length_max: Option<usize>) -> Result<Rendered, TextError> { let _ = (record, messages, loss_on, length_max); todo!() }
    /// What generation starts from: the conversation and the template's generation prompt.
    pub fn prompt_ids(&self, record: &str, messages: &[Message]) -> Result<Vec<u32>, TextError> { let _ = (record, messages); todo!() }
    /// What follows `prompt_ids` when the assistant says `answer`: its tokens and the end-of-turn token.
    pub fn answer_ids(&self, record: &str, messages: &[Message], answer: &str) -> Result<Vec<u32>, TextError> { let _ = (record, messages, answer); todo!() }
    /// The token that ends an answer in this template.
    pub fn end_of_turn(&self) -> u32 { todo!() }
}
