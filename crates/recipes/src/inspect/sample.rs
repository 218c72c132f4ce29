//! What a model's tokenizer and weights make of the user's own records, before any tuning.

use std::path::Path;

use ::text::Specials;
use data::{Document, Format, Record, RecordRecipe};
use serde::Serialize;

use crate::base::Base;
use crate::context::{Context, Observer};
use crate::error::{Error, Result};
use crate::score;

/// Part of the file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 30;
/// Records or rows whose words are counted: the first ones.
const DOCUMENTS: usize = 2000;
/// Records whose loss is measured, spread over the file.
const RECORDS: usize = 32;

/// The user's data, as far as it is looked at.
pub(crate) struct Sample {
    texts: Vec<String>,
    records: Vec<Record>,
}

/// What the data is to a tokenizer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DataFacts {
    /// Texts that were counted.
    pub texts: u64,
    /// Tokens per word between white space.
    pub tokens_per_word: f64,
    /// Bytes of text per token.
    pub bytes_per_token: f64,
    /// Tokens of the longest text.
    pub longest: u64,
    /// Texts that are longer than the context.
    pub too_long: u64,
    /// Texts that do not come back as they were.
    pub changed: u64,
}

/// Loss without tuning.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Loss {
    /// Records.
    pub records: u64,
    /// Mean −ln p of an answer: the same text for every model, so that models can be compared.
    pub nats_per_answer: f64,
    /// Mean −ln p of a token of the answers: comparable only between models of one tokenizer.
    pub nats_per_token: f64,
}

impl Sample {
    /// Reads a file; rows that make no record (a table whose columns nobody named) are texts all the same.
    pub(crate) fn read(file: &Path) -> Result<Sample> {
        let bytes = store::atomic::read(file, FILE_BYTES_MAX)?;
        let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let extension = file.extension().map(|extension| extension.to_string_lossy().to_lowercase()).unwrap_or_default();
        let format = Format::from_name(&extension).ok_or_else(|| Error::Mismatch {
            what: "the file's extension",
            given: format!("{extension:?}"),
            expected: Format::names().join(", "),
        })?;
        let dataset = data::read::read(&name, &bytes, format, &data::read::LIMITS)?;
        let records = RecordRecipe::default().apply(&dataset).map(|recorded| recorded.records).unwrap_or_default();
        let texts: Vec<String> = match records.is_empty() {
            true => dataset.documents.iter().take(DOCUMENTS).map(text_of).collect(),
            false => records.iter().take(DOCUMENTS).map(said).collect(),
        };
        let texts = texts.into_iter().filter(|text| !text.trim().is_empty()).collect();
        let step = records.len().div_ceil(RECORDS).max(1);
        Ok(Sample { texts, records: records.into_iter().step_by(step).collect() })
    }

    /// Whether answers can be scored.
    pub(crate) fn has_records(&self) -> bool {
        !self.records.is_empty()
    }

    /// Counts tokens and words.
    pub(crate) fn facts(&self, base: &Base) -> Result<DataFacts> {
        let (mut tokens, mut words, mut bytes, mut longest, mut too_long, mut changed) = (0, 0, 0, 0, 0, 0);
        for text in &self.texts {
            let ids = base.tokenizer()?.encode(text, Specials::AsText)?;
            tokens += ids.len();
            words += text.split_whitespace().count();
            bytes += text.len();
            longest = longest.max(ids.len());
            too_long += u64::from(ids.len() > base.config().context);
            changed += u64::from(base.tokenizer()?.decode(&ids, false)? != *text);
        }
        Ok(DataFacts {
            texts: self.texts.len() as u64,
            tokens_per_word: tokens as f64 / words.max(1) as f64,
            bytes_per_token: bytes as f64 / tokens.max(1) as f64,
            longest: longest as u64,
            too_long,
            changed,
        })
    }

    /// Scores the answers of the sample.
    pub(crate) fn loss(&self, context: &Context<'_>, observer: &mut dyn Observer, base: &Base) -> Result<Loss> {
        let total = score::score_records(context, observer, base, &self.records)?;
        Ok(Loss {
            records: total.records,
            nats_per_answer: -total.log_prob / total.records.max(1) as f64,
            nats_per_token: -total.log_prob / total.loss_tokens.max(1) as f64,
        })
    }
}

/// All that a record says, without names of fields and roles.
fn said(record: &Record) -> String {
    let texts: Vec<String> = record.conversation().into_iter().map(|message| message.content).collect();
    texts.join("\n")
}

fn text_of(document: &Document) -> String {
    let texts: Vec<String> = document.fields.iter().map(|(_, value)| value.to_text()).collect();
    texts.join(" ")
}
