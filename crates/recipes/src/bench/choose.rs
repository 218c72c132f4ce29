//! `bench choose`: the label of each item by Σ ln p of the label's tokens and the end of turn, among all labels of the file.
//!
//! The way of the evaluation's `choose` mode, through the same [`Responder`]. Timed from the first prompt's rendering to the last
//! choice; loading is not.

use eval::{Message, Prompt, Subject};
use serde::Serialize;

use super::{Table, first};
use crate::base::Base;
use crate::context::{Context, Observer};
use crate::error::Result;
use crate::responder::Responder;

/// What is measured.
#[derive(Clone, Debug, PartialEq)]
pub struct BenchChooseOptions<'a> {
    /// Base model.
    pub model: &'a str,
    /// How its weights are held, as `[model] storage` says; empty: as the files have them.
    pub storage: &'a str,
    /// The compute path, as `[engine] compute` says; empty: exact.
    pub compute: &'a str,
    /// The items; the labels are the distinct values of its target column, sorted.
    pub table: Table,
    /// How many of the items.
    pub records: usize,
}

/// What was measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BenchChoose {
    /// Items per second.
    pub items_per_second: f64,
    /// The label chosen for each item.
    pub choices: Vec<String>,
    /// ln p of the chosen label, normalised over the labels.
    pub log_probs: Vec<f64>,
    /// Share of the items whose own label was chosen.
    pub accuracy: f64,
    /// How many labels there are.
    pub labels: usize,
    /// Most memory that the process had resident; 0 where the system does not say.
    pub peak_rss_bytes: u64,
    /// Threads computed with.
    pub threads: usize,
    /// Seconds of all choices.
    pub seconds: f64,
}

/// Chooses and times it.
pub fn choose(context: &Context<'_>, observer: &mut dyn Observer, options: &BenchChooseOptions<'_>) -> Result<BenchChoose> {
    let all = options.table.records()?;
    let mut labels: Vec<String> = all.iter().map(|record| record.answer.to_text()).collect();
    labels.sort_unstable();
    labels.dedup();
    let records = first(all, options.records)?;
    let base = Base::open(context, observer, options.model, "")?.held_as(options.storage)?.asked_by(options.compute, "")?;
    let mut model = base.load(context.threads)?;
    let prompts: Vec<Prompt> = records
        .iter()
        .map(|record| {
            let turn = |message: &text::Message| Message::new(message.role.name(), message.content.clone());
            Prompt { id: record.id.clone(), messages: record.messages.iter().map(turn).collect() }
        })
        .collect();
    let mut responder = Responder::new(&base, &mut model, 1, observer, "choosing".into())?;
    let started = context.clock.seconds();
    let choices = responder.choose(&prompts, &labels)?;
    let seconds = (context.clock.seconds() - started).max(1e-9);
    let right = choices.iter().zip(&records).filter(|(choice, record)| labels[choice.index] == record.answer.to_text()).count();
    Ok(BenchChoose {
        items_per_second: records.len() as f64 / seconds,
        choices: choices.iter().map(|choice| labels[choice.index].clone()).collect(),
        log_probs: choices.iter().map(|choice| choice.log_probs[choice.index]).collect(),
        accuracy: right as f64 / records.len() as f64,
        labels: labels.len(),
        peak_rss_bytes: store::disk::peak_rss_bytes().unwrap_or(0),
        threads: context.threads,
        seconds,
    })
}
