//! The classical arm: the honest cheap rival on the same records.

use data::{Answer, Record};
use eval::classical::{RecordClassifier, TextClassifier};
use eval::statistics::Clusters;
use eval::{ArmResult, Decode, Field, Task};

use crate::context::{Event, Observer};
use crate::error::Result;
use crate::evaluate::{Arm, Evaluator, field};

/// Trains the classifiers on the training records and answers the held-out items; `None` for free text.
pub(crate) fn arm(evaluator: &Evaluator<'_>, observer: &mut dyn Observer) -> Result<Option<Arm>> {
    let prepared = evaluator.prepared;
    let records = prepared.split.train.records();
    let items = &prepared.split.held_out.in_domain;
    let texts: Vec<&str> = records.iter().map(Record::input).collect();
    let copies = records.iter().any(|record| record.lineage.change.is_some());
    // A record and its copies are one thing when the classifier's own settings are chosen.
    let cluster = |record: &'_ Record| -> Option<String> {
        let parent = || record.lineage.change.as_ref().map_or(&record.id, |change| &change.parent);
        record.group.clone().or_else(|| copies.then(|| parent().clone()))
    };
    let clusters: Vec<Option<String>> = records.iter().map(cluster).collect();
    let groups = Clusters::from_groups(clusters.iter().map(Option::as_deref));
    let seed = evaluator.plan.project.seed;
    let started = evaluator.context.clock.seconds();
    observer.event(Event::Start { what: "classical".into(), total: items.len() as u64, unit: "answers" });
    let (result, note): (ArmResult, String) = match &prepared.task {
        Task::FreeText | Task::Text => return Ok(None),
        Task::Classification { labels } => {
            let answers: Vec<usize> =
                records.iter().filter_map(|record| labels.iter().position(|label| *label == record.answer.to_text())).collect();
            let classifier = TextClassifier::train(&texts, &answers, labels, &groups, seed)?;
            let names: Vec<String> = items.iter().map(|record| labels[classifier.predict(record.input()).label].clone()).collect();
            let answers: Vec<eval::Answer> = names.into_iter().map(|text| eval::Answer { text, finished: true, log_prob: None }).collect();
            let training = classifier.training;
            let note = format!("TF-IDF and logistic regression on {} records, {} features", training.records, training.features);
            (evaluator.trial.from_answers("classical", Decode::Classifier, &answers, None)?, note)
        }
        Task::Structured { fields } => {
            let rows: Vec<Vec<Field>> = records.iter().map(|record| values(record, fields)).collect();
            let classifier = RecordClassifier::train(&texts, fields, &rows, &groups, seed)?;
            let answers: Vec<Vec<Option<Field>>> = items.iter().map(|record| classifier.predict(record.input())).collect();
            let trained: Vec<&str> = classifier.trained().map(|(name, _)| name).collect();
            let left_out: Vec<String> = classifier.left_out().map(|(name, why)| format!("{name} ({why})")).collect();
            let mut note = format!("TF-IDF and logistic regression for {}", trained.join(", "));
            if !left_out.is_empty() {
                note += &format!("; no classifier for {}", left_out.join(", "));
            }
            (evaluator.trial.from_fields("classical", &answers)?, note)
        }
    };
    observer.event(Event::End);
    Ok(Some(Arm { result, seconds: evaluator.context.clock.seconds() - started, note }))
}

fn values(record: &Record, fields: &[String]) -> Vec<Field> {
    let value = |name: &String| match &record.answer {
        Answer::Fields(given) => given.iter().find(|(field, _)| field == name).map_or(Field::Null, |(_, value)| field(value)),
        Answer::Text(text) => Field::Text(text.clone()),
    };
    fields.iter().map(value).collect()
}
