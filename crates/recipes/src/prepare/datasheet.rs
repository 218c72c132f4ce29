//! What the prepared data is, for people (a datasheet after Gebru et al., arXiv 1803.09010) and for machines (Croissant
//! 1.1 JSON-LD with fields of its Responsible AI vocabulary). Both say what happened; what nobody declared is BLANK.

use serde_json::{Value, json};

use crate::report::facts::DataFacts;
use crate::spec::RunPlan;

/// What stands where nothing was declared.
const BLANK: &str = "BLANK";

fn or_blank(text: &str) -> &str {
    if text.is_empty() { BLANK } else { text }
}

/// A table cell: no line ends, no column ends.
fn cell(text: &str) -> String {
    or_blank(text).replace('|', "\\|").replace(['\n', '\r'], " ")
}

/// What was done to the data, in sentences.
fn steps(plan: &RunPlan, facts: &DataFacts) -> Vec<String> {
    let mut steps: Vec<String> = facts.rejected.iter().map(|(reason, rows)| format!("{rows} rows dropped: {reason}")).collect();
    steps.extend(facts.findings.iter().map(|(what, records)| format!("{records} records: {what}")));
    if facts.near.clusters > 0 {
        let near = &facts.near;
        steps.push(format!("{} records ask nearly the same as others, in {} clusters", near.records, near.clusters));
    }
    if facts.passages.records > 0 {
        steps.push(format!("{} records share a long passage with an earlier one", facts.passages.records));
    }
    steps.extend(
        facts.contamination.iter().map(|found| format!("{} training records had a text in common with {}", found.records, found.with)),
    );
    if !facts.label_errors.is_empty() {
        steps.push(format!("{} labels are probably wrong", facts.label_errors.len()));
    }
    steps.extend(facts.augmented.sentence());
    if let Some((least, most)) = facts.weights {
        steps.push(format!("training records count from {least:.3} to {most:.3} times in the loss"));
    }
    let prepare = &plan.prepare;
    let by = if facts.stratify.is_empty() { String::new() } else { format!(", stratified by {}", facts.stratify) };
    steps.push(format!(
        "split by seed {}: test {}, validation {}{by}; groups and texts that are the same stand on one side",
        plan.project.seed, prepare.test, prepare.validation
    ));
    steps
}

/// `data/datasheet.md`.
pub(super) fn datasheet(plan: &RunPlan, facts: &DataFacts, instruction: &str) -> String {
    let project = &plan.project;
    let mut text = format!(
        "# Datasheet: {}\n\nWritten from what happened. {BLANK} marks what nobody declared; the run file is the place to do so.\n\n\
         ## Motivation\n\n- Purpose: {}\n- For whom: {}\n- Industry: {}\n- Intended use: {}\n\n\
         ## Composition\n\n{} records of {} rows: {} for training, {} for validation, {} for the test, {} of the same task from elsewhere, {} outside the task.\n\n\
         Each record is a conversation and the answer that is wanted. Instruction: {}\n\n",
        project.name,
        or_blank(&project.goal),
        or_blank(&project.users),
        or_blank(&project.industry),
        or_blank(&project.intended_use),
        facts.records,
        facts.rows,
        facts.train,
        facts.validation,
        facts.test,
        facts.near_ood,
        facts.far_ood,
        or_blank(instruction),
    );
    if !facts.strata.is_empty() {
        text += "| Stratum | Training | Validation | Test |\n|---|---:|---:|---:|\n";
        for (name, train, validation, test) in &facts.strata {
            text += &format!("| {} | {train} | {validation} | {test} |\n", cell(name));
        }
        text.push('\n');
    }
    if !facts.languages.is_empty() {
        let languages: Vec<String> = facts.languages.iter().map(|(code, count)| format!("{code} ({count})")).collect();
        text += &format!("Languages, as far as texts tell: {}.\n\n", languages.join(", "));
    }
    text += "## Collection\n\n| Source | Rows | Role | Owner | Licence | Lawful basis | Date | Keep until | Hash |\n|---|---:|---|---|---|---|---|---|---|\n";
    for source in &facts.sources {
        text += &format!(
            "| {} | {} | {} | {} | {} | {} | {} | {} | `{}` |\n",
            cell(&source.path),
            source.rows,
            source.role,
            cell(&source.owner),
            cell(&source.licence),
            cell(&source.lawful_basis),
            cell(&source.date),
            cell(&source.keep_until),
            source.hash
        );
    }
    text += &format!("\nHow and when the rows came about, and who consented: {BLANK}\n\n## Preprocessing, cleaning, labelling\n\n");
    for step in steps(plan, facts) {
        text += &format!("- {step}\n");
    }
    text += &format!("- Who labelled, and how well labellers agree: {BLANK}\n");
    if !facts.warnings.is_empty() {
        text += "\n## Known limits\n\n";
        for warning in &facts.warnings {
            text += &format!("- {warning}\n");
        }
    }
    text += &format!(
        "\n## Uses, distribution, maintenance\n\n- Uses that it is not fit for: {BLANK}\n- Who may have it: {BLANK}\n- Who maintains it: {BLANK}\n"
    );
    text
}

/// `data/croissant.json`; `files` are the record files with their SHA-256 and their bytes.
pub(super) fn croissant(plan: &RunPlan, facts: &DataFacts, files: &[(String, String, u64)]) -> Value {
    let licences: Vec<&str> = facts.sources.iter().map(|source| or_blank(&source.licence)).collect();
    let distribution: Vec<Value> = files
        .iter()
        .map(|(name, sha256, bytes)| {
            json!({
                "@type": "cr:FileObject", "@id": name, "name": name, "contentUrl": name, "contentSize": format!("{bytes} B"),
                "encodingFormat": "application/jsonl", "sha256": sha256,
            })
        })
        .collect();
    let record_sets: Vec<Value> = files
        .iter()
        .map(|(name, _, _)| {
            let set = name.trim_end_matches(".jsonl").rsplit('/').next().unwrap_or_default().to_owned();
            let field = |field: &str, kind: &str, what: &str| {
                json!({
                    "@type": "cr:Field", "@id": format!("{set}/{field}"), "name": field, "description": what, "dataType": kind,
                    "source": { "fileObject": { "@id": name }, "extract": { "jsonPath": format!("$.{field}") } },
                })
            };
            json!({
                "@type": "cr:RecordSet", "@id": set, "name": set,
                "field": [
                    field("id", "sc:Text", "Stable id"),
                    field("messages", "sc:Text", "Everything before the answer"),
                    field("answer", "sc:Text", "The answer that is wanted"),
                    field("group", "sc:Text", "What never straddles the split"),
                    field("stratum", "sc:Text", "What the split is stratified by"),
                ],
            })
        })
        .collect();
    json!({
        "@context": {
            "@language": "en", "@vocab": "https://schema.org/", "sc": "https://schema.org/", "cr": "http://mlcommons.org/croissant/",
            "rai": "http://mlcommons.org/croissant/RAI/", "dct": "http://purl.org/dc/terms/", "conformsTo": "dct:conformsTo",
            "data": { "@id": "cr:data", "@type": "@json" }, "dataType": { "@id": "cr:dataType", "@type": "@vocab" },
            "extract": "cr:extract", "field": "cr:field", "fileObject": "cr:fileObject", "jsonPath": "cr:jsonPath",
            "recordSet": "cr:recordSet", "source": "cr:source",
        },
        "@type": "sc:Dataset",
        "conformsTo": ["http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0"],
        "name": plan.project.name,
        "description": or_blank(&plan.project.goal),
        "license": licences,
        "creator": facts.sources.iter().map(|source| or_blank(&source.owner)).collect::<Vec<_>>(),
        "distribution": distribution,
        "recordSet": record_sets,
        "rai:dataUseCases": or_blank(&plan.project.intended_use),
        "rai:dataPreprocessingProtocol": steps(plan, facts),
        "rai:dataLimitations": if facts.warnings.is_empty() { vec![BLANK.to_owned()] } else { facts.warnings.clone() },
        "rai:dataCollection": BLANK,
        "rai:dataAnnotationProtocol": BLANK,
        "rai:dataBiases": BLANK,
        "rai:personalSensitiveInformation": BLANK,
        "rai:dataReleaseMaintenancePlan": facts.sources.iter().map(|source| or_blank(&source.keep_until)).collect::<Vec<_>>(),
    })
}
