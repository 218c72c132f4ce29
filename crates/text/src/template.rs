//! Chat templates.

use crate::{Message, TextError};

/// Names that `[model] template` may have.
pub const BUILT_IN_TEMPLATES: [&str; 2] = ["chatml", "plain"];

/// A day, for templates that print one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Date { /// Year.
    pub year: u16, /// 1 to 12.
    pub month: u8, /// 1 to 31.
    pub day: u8 }

/// What a template sees beside the messages.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct TemplateContext { /// Text of the begin token, or empty.
    pub bos_token: String, /// Text of the end token, or empty.
    pub eos_token: String, /// Day for `strftime_now`; without one the function is not defined and templates use their own fixed day.
    pub date: Option<Date> }

/// A chat template.
#[derive(Clone, Debug)]
pub struct ChatTemplate { source: String, context: TemplateContext }

impl ChatTemplate {
    /// Parses a template.
    pub fn new(source: &str, context: TemplateContext) -> Result<Self, TextError> { Ok(Self { source: source.into(), context }) }
    /// A template of [`BUILT_IN_TEMPLATES`].
    pub fn built_in(name: &str, context: TemplateContext) -> Result<Self, TextError> { let _ = (name, context); todo!() }
    /// Its text.
    pub fn source(&self) -> &str { &self.source }
    /// Bytes that are equal exactly when two templates render everything equally: what a manifest hashes.
    pub fn canonical_bytes(&self) -> Vec<u8> { let _ = &self.context; todo!() }
    /// The text of a conversation.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String, TextError> { let _ = (messages, add_generation_prompt); todo!() }
}
