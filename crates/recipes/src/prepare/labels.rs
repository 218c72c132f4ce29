//! Labels that are probably wrong, by what the classical classifier says of records that it did not see.

use data::label_errors::suspects;
use data::pipeline::Finished;
use data::{Part, Reason, Record};
use eval::Task;
use eval::classical::TextClassifier;
use eval::statistics::Clusters;
use std::collections::BTreeMap;

use super::task_of;
use crate::context::{Event, Observer};
use crate::error::{Error, Result};
use crate::report::facts::{DataFacts, LabelErrorFacts};
use crate::spec::{Found, RunPlan};

/// More records than this are not looked at: all have to be in memory.
const RECORDS_MAX: usize = 200_000;

/// Finds suspects among all records of the task, held-out ones included; only training loses them, where that was asked
/// for: a test set that is cleaned by a model's opinion flatters models.
pub(super) fn look(plan: &RunPlan, finished: &mut Finished, facts: &mut DataFacts, observer: &mut dyn Observer) -> Result<()> {
    let mut records: Vec<(u32, Part, Record)> = Vec::new();
    let mut total = 0;
    finished.rows(|row, part, line| {
        if matches!(part, Part::Train | Part::Validation | Part::Test) {
            total += 1;
            if records.len() < RECORDS_MAX {
                records.push((row, part, data::wire::read_record(line).map_err(|problem| data::DataError::Spill { problem })?));
            }
        }
        Ok::<(), Error>(())
    })?;
    if total > RECORDS_MAX {
        facts.warnings.push(format!("labels were not checked: {total} records, at most {RECORDS_MAX} can be"));
        return Ok(());
    }
    let train: Vec<Record> = records.iter().filter(|(_, part, _)| *part == Part::Train).map(|(_, _, record)| record.clone()).collect();
    let Task::Classification { labels } = task_of(&train) else {
        facts.warnings.push("labels were not checked: the answers are not labels".into());
        return Ok(());
    };
    observer.event(Event::Note(format!("checking the labels of {total} records")));
    let place: BTreeMap<&str, usize> = labels.iter().enumerate().map(|(place, label)| (label.as_str(), place)).collect();
    // A label that training does not know cannot be predicted, and would only be called wrong.
    records.retain(|(_, _, record)| place.contains_key(record.answer.to_text().as_str()));
    let given: Vec<usize> = records.iter().map(|(_, _, record)| place[record.answer.to_text().as_str()]).collect();
    let texts: Vec<String> = records.iter().map(|(_, _, record)| record.asked().into_owned()).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let clusters = Clusters::from_groups(records.iter().map(|(_, _, record)| record.group.as_deref()));
    let probabilities = TextClassifier::out_of_fold(&texts, &given, &labels, &clusters, plan.project.seed)?;
    for suspect in suspects(&given, &probabilities, labels.len()) {
        let (row, part, record) = &records[suspect.record];
        let suggested = labels[suspect.suggested].clone();
        if plan.prepare.label_errors == Found::Drop && *part == Part::Train {
            finished.reject(*row, "labels", Reason::LabelError { suggested: suggested.clone() })?;
        }
        facts.label_errors.push(LabelErrorFacts {
            id: record.id.clone(),
            part: part.name().to_owned(),
            given: labels[suspect.given].clone(),
            suggested,
            margin: suspect.margin,
        });
    }
    if !facts.label_errors.is_empty() {
        facts.warnings.push(format!(
            "{} labels are probably wrong (data/label_errors.jsonl ranks them with the label suggested)",
            facts.label_errors.len()
        ));
    }
    Ok(())
}
