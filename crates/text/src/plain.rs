//! Plain text to ids, with loss on every token: what continued pre-training learns from.
//!
//! A text is `[what the tokenizer puts before a document] text [end of text]`: Llama and Gemma begin with BOS, GPT-2's kind
//! with nothing. The end-of-text token stands only where the text ends; a text that goes on in another record has none. The
//! text of a special token inside a text stays text, so that no document can end itself.

use crate::chat::Rendered;
use crate::error::RecordProblem;
use crate::{Specials, TextError, Tokenizer};

/// A tokenizer as it reads plain texts; clones share it.
#[derive(Clone, Debug)]
pub struct PlainFormat {
    tokenizer: Tokenizer,
    end: u32,
}

impl PlainFormat {
    /// `end` ends a text where the tokenizer names no end-of-text token of its own; the first of `others` is taken then.
    ///
    /// # Errors
    /// Neither names one.
    pub fn new(tokenizer: Tokenizer, others: &[u32]) -> Result<Self, TextError> {
        let end = tokenizer.eos().or(others.first().copied()).ok_or(TextError::NoEndOfText)?;
        Ok(Self { tokenizer, end })
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The token that ends a text.
    pub fn end_of_text(&self) -> u32 {
        self.end
    }

    /// A text as ids; every id but the first counts as a target, where something stands before it. `continued`: it goes on
    /// elsewhere, so that nothing ends it here.
    ///
    /// # Errors
    /// A text of nothing but white space; what the tokenizer refuses. Both name `record`.
    pub fn render(&self, record: &str, text: &str, continued: bool) -> Result<Rendered, TextError> {
        let named = |problem| TextError::Record { record: record.to_owned(), problem };
        if text.trim().is_empty() {
            return Err(named(RecordProblem::NoText));
        }
        let mut ids = self.beginning(record, text)?;
        if !continued {
            ids.push(self.end);
        }
        let mut loss_weights = vec![1.0; ids.len()];
        loss_weights[0] = 0.0; // nothing comes before it
        Ok(Rendered { ids, loss_weights, turns: Vec::new() })
    }

    /// The ids of a text that is to be continued.
    ///
    /// # Errors
    /// What the tokenizer refuses.
    pub fn beginning(&self, record: &str, text: &str) -> Result<Vec<u32>, TextError> {
        let named = |problem| TextError::Record { record: record.to_owned(), problem };
        let encoded = self.tokenizer.encode(text, Specials::AsText);
        let encoded = encoded.map_err(|error| named(RecordProblem::Tokenizer { reason: error.to_string() }))?;
        let mut ids = self.tokenizer.around_document().0.to_vec();
        ids.extend(encoded);
        Ok(ids)
    }
}
