//! How a run's records become token rows: conversations through the base's template, or plain texts as they are.

use data::{Record, TokenRow};
use text::{ChatFormat, LossOn, PlainFormat, Tokenizer};

use crate::base::Base;
use crate::error::Result;
use crate::prepare::text_loss_on;
use crate::spec::RunPlan;

/// What an objective makes of a record.
pub(crate) enum Rendering<'a> {
    /// A conversation; these answers carry loss.
    Answers(&'a ChatFormat, LossOn),
    /// A text; every token carries loss.
    Text(PlainFormat),
}

impl<'a> Rendering<'a> {
    /// By the plan's objective.
    ///
    /// # Errors
    /// A base without a chat template, or without a token that ends a text, as the objective needs it.
    pub(crate) fn of(plan: &RunPlan, base: &'a Base) -> Result<Rendering<'a>> {
        Ok(if plan.is_text() { Rendering::Text(base.plain()?) } else { Rendering::Answers(base.chat()?, text_loss_on(plan.tune.loss_on)) })
    }

    /// The tokenizer.
    pub(crate) fn tokenizer(&self) -> &Tokenizer {
        match self {
            Rendering::Answers(chat, _) => chat.tokenizer(),
            Rendering::Text(plain) => plain.tokenizer(),
        }
    }

    /// A record as a token row.
    pub(crate) fn row(&self, record: &Record) -> Result<TokenRow> {
        let rendered = match self {
            Rendering::Answers(chat, loss_on) => chat.render(&record.id, &record.conversation(), *loss_on, None)?,
            Rendering::Text(plain) => plain.render(&record.id, &record.answer.to_text(), record.continued)?,
        };
        Ok(TokenRow { record_id: record.id.clone(), ids: rendered.ids, loss_weights: rendered.loss_weights })
    }
}
