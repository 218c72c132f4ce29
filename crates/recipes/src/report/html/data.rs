//! What went in, what was dropped and why, and what the test set can prove.

use super::super::escape::html;
use super::super::facts::{DataFacts, Report};
use super::super::numbers::{count, counted};
use super::super::{svg, words};
use super::table::{Column, Table};
use super::{Section, legend, note, paragraph};

/// Strata shown before the table is folded away.
const STRATA_OPEN_MAX: usize = 24;

/// Label errors that are shown.
const LABEL_ERRORS_SHOWN: usize = 20;

/// Rows, rejects, splits and tokens.
pub(super) fn data(report: &Report) -> Option<Section> {
    let data = &report.data;
    if data.rows == 0 && data.records == 0 && data.rejected.is_empty() {
        return Some(Section { id: "data", title: "Data", body: paragraph("No row has been read yet.") });
    }
    let mut body = flow(data);
    body.push_str(&rejects(data));
    if !data.warnings.is_empty() {
        body.push_str("<div class=\"warning\"><p><strong>Warnings</strong></p><ul>\n");
        for warning in &data.warnings {
            body.push_str(&format!("<li>{}</li>\n", html(warning)));
        }
        body.push_str("</ul></div>\n");
    }
    body.push_str(&strata(data));
    body.push_str(&lengths(data));
    body.push_str(&examples(data));
    body.push_str(&found(data));
    body.push_str("<h3>Tokens</h3>\n");
    body.push_str(&paragraph(&words::tokens(report)));
    Some(Section { id: "data", title: "Data", body })
}

fn flow(data: &DataFacts) -> String {
    let dropped: u64 = data.rejected.iter().map(|(_, rows)| rows).sum();
    let parts = [
        ("p-train", "training", data.train),
        ("p-validation", "validation", data.validation),
        ("p-test", "test", data.test),
        ("p-outside", "the same task from elsewhere", data.near_ood),
        ("p-outside", "outside the task", data.far_ood),
        ("p-dropped", "dropped", dropped),
    ];
    let full: u64 = parts.iter().map(|part| part.2).sum();
    let keys: String = parts
        .iter()
        .filter(|part| part.2 > 0)
        .map(|(class, name, rows)| legend(class, false, &format!("{name} {}", count(*rows))))
        .collect();
    let bars: Vec<(&str, u64)> = parts.iter().map(|(class, _, rows)| (*class, *rows)).collect();
    let mut body = paragraph(&format!(
        "{} came in, {} dropped, {} kept.",
        counted(data.rows, "row"),
        if dropped == 1 { "1 was".to_owned() } else { format!("{} were", count(dropped)) },
        counted(data.records, "record")
    ));
    if full > 0 {
        body.push_str(&format!("<div class=\"flow\">{}<p class=\"keys\">{keys}</p></div>\n", svg::stacked_bar(&bars, full, 640.0, 22.0)));
    }
    let by: Vec<String> = data.naive_leaks.iter().map(|(what, rows)| format!("{} by {what}", count(*rows))).collect();
    let by = if by.is_empty() { String::new() } else { format!(" ({})", by.join(", ")) };
    let apart = "No group and no duplicate stands on two sides of the split";
    let leaks = match data.naive_split_leaks {
        0 => format!("{apart}; a random split would not have broken this either."),
        1 => format!("{apart}. A random split would have put 1 of them on both sides{by}, and the score could have been too good."),
        leaks => format!(
            "{apart}. A random split would have put {} of them on both sides{by}, and the score could have been too good.",
            count(leaks)
        ),
    };
    body.push_str(&paragraph(&leaks));
    if let Some(copies) = data.augmented.sentence() {
        body.push_str(&paragraph(&format!("{copies}. None is in validation or test.")));
    }
    if let Some((least, most)) = data.weights {
        body.push_str(&paragraph(&format!(
            "Training records count from {least:.2} to {most:.2} times in the loss; what is held out counts as it is."
        )));
    }
    if data.conflicts > 0 {
        body.push_str(&format!(
            "<p class=\"warning\"><strong>{} contradictory answers</strong> in the data: nobody, and no model, can answer all of them right.</p>\n",
            html(&if data.conflicts == 1 { "1 input has".to_owned() } else { format!("{} inputs have", count(data.conflicts)) })
        ));
    }
    body
}

fn rejects(data: &DataFacts) -> String {
    let mut table = Table::new(
        "What was dropped, and why. The rows themselves are in the run folder, data/rejects.",
        &[("Step: reason", Column::Text), ("Rows", Column::Number), ("", Column::Drawing)],
    );
    let most = data.rejected.iter().map(|(_, rows)| *rows).max().unwrap_or(1).max(1);
    for (reason, rows) in &data.rejected {
        table.row("", &[html(reason), count(*rows), svg::stacked_bar(&[("p-dropped", *rows)], most, 160.0, 10.0)]);
    }
    table.finish("Nothing was dropped.")
}

fn strata(data: &DataFacts) -> String {
    if data.strata.is_empty() {
        return if data.stratify.is_empty() { note("The split was not stratified.") } else { String::new() };
    }
    let most = data.strata.iter().map(|(_, train, validation, test)| train + validation + test).max().unwrap_or(1);
    let mut table = Table::new(
        &format!("Records per {} and split.", if data.stratify.is_empty() { "stratum" } else { &data.stratify }),
        &[
            ("Stratum", Column::Text),
            ("Training", Column::Number),
            ("Validation", Column::Number),
            ("Test", Column::Number),
            ("", Column::Drawing),
        ],
    );
    for (name, train, validation, test) in &data.strata {
        let parts = [("p-train", *train), ("p-validation", *validation), ("p-test", *test)];
        table.row("", &[or_empty(name), count(*train), count(*validation), count(*test), svg::stacked_bar(&parts, most, 160.0, 10.0)]);
    }
    let untested = data.strata.iter().filter(|stratum| stratum.3 == 0).count();
    let table = table.finish("");
    let mut body = String::from("<h3>Splits</h3>\n");
    if data.strata.len() > STRATA_OPEN_MAX {
        body.push_str(&format!("<details><summary>{} strata</summary>\n{table}</details>\n", data.strata.len()));
    } else {
        body.push_str(&table);
    }
    if untested > 0 {
        body.push_str(&format!(
            "<p class=\"warning\">{} no test item: nothing is known about {}.</p>\n",
            if untested == 1 { "One stratum has".to_owned() } else { format!("{untested} strata have") },
            if untested == 1 { "it" } else { "them" }
        ));
    }
    body
}

/// How long questions and answers are.
fn lengths(data: &DataFacts) -> String {
    if data.lengths.is_empty() {
        return String::new();
    }
    let most = data.lengths.iter().map(|(_, _, asked, answered)| *asked.max(answered)).max().unwrap_or(1).max(1);
    let mut table = Table::new(
        "Words of each record's question and of its answer.",
        &[
            ("Words", Column::Text),
            ("Questions", Column::Number),
            ("", Column::Drawing),
            ("Answers", Column::Number),
            ("", Column::Drawing),
        ],
    );
    for (from, to, asked, answered) in &data.lengths {
        let words = if from == to { count(*from) } else { format!("{} to {}", count(*from), count(*to)) };
        let bar = |rows: u64| svg::stacked_bar(&[("p-train", rows)], most, 120.0, 10.0);
        table.row("", &[words, count(*asked), bar(*asked), count(*answered), bar(*answered)]);
    }
    format!("<h3>Lengths</h3>\n{}", table.finish(""))
}

/// A few training records, so that a reader sees what was learned from.
fn examples(data: &DataFacts) -> String {
    if data.examples.is_empty() {
        return String::new();
    }
    let mut table =
        Table::new("The first training records, cut where they are long.", &[("Question", Column::Text), ("Answer", Column::Text)]);
    for (asked, answered) in &data.examples {
        table.row("", &[html(asked), html(answered)]);
    }
    format!("<h3>Examples</h3>\n{}", table.finish(""))
}

/// Near-duplicates, languages, and what the steps found or changed.
fn found(data: &DataFacts) -> String {
    let mut body = String::new();
    if data.near.clusters > 0 {
        body.push_str("<h3>Near-duplicates</h3>\n");
        body.push_str(&paragraph(&format!(
            "{} ask nearly the same as another, in {}; the largest has {}.",
            counted(data.near.records, "record"),
            counted(data.near.clusters, "cluster"),
            count(data.near.largest)
        )));
        let mut table = Table::new(
            "A few pairs. Similarity is the Jaccard index of their shingles.",
            &[("Record", Column::Text), ("is near", Column::Text), ("Similarity", Column::Number)],
        );
        for (first, second, jaccard) in &data.near.examples {
            table.row("", &[html(first), html(second), format!("{jaccard:.2}")]);
        }
        body.push_str(&table.finish(""));
    }
    if data.passages.records > 0 {
        body.push_str("<h3>Passages in several records</h3>\n");
        let mut table = Table::new(
            &format!("{} share a long passage with an earlier one. A few pairs.", counted(data.passages.records, "record")),
            &[("Record", Column::Text), ("and", Column::Text), ("Words in a row", Column::Number)],
        );
        for (first, second, words) in &data.passages.examples {
            table.row("", &[html(first), html(second), count(*words)]);
        }
        body.push_str(&table.finish(""));
    }
    if !data.contamination.is_empty() {
        body.push_str("<h3>Texts that training must not know</h3>\n");
        let mut table = Table::new(
            "Training records that have a text in common with a held-out part or a benchmark.",
            &[("In common with", Column::Text), ("Training records", Column::Number), ("A few of them", Column::Text)],
        );
        for found in &data.contamination {
            table.row("", &[html(&found.with), count(found.records), html(&found.examples.join(", "))]);
        }
        body.push_str(&table.finish(""));
    }
    if !data.label_errors.is_empty() {
        body.push_str("<h3>Labels that are probably wrong</h3>\n");
        let mut table = Table::new(
            "The surest, by a classifier trained without the record and its group. All are in the run folder, data/label_errors.jsonl.",
            &[("Record", Column::Text), ("Label", Column::Text), ("Suggested", Column::Text), ("Margin", Column::Number)],
        );
        for suspect in data.label_errors.iter().take(LABEL_ERRORS_SHOWN) {
            table.row("", &[html(&suspect.id), html(&suspect.given), html(&suspect.suggested), format!("{:.2}", suspect.margin)]);
        }
        body.push_str(&table.finish(""));
    }
    let bars = |title: &str, caption: &str, rows: &[(String, u64)]| {
        if rows.is_empty() {
            return String::new();
        }
        let most = rows.iter().map(|(_, count)| *count).max().unwrap_or(1).max(1);
        let mut table = Table::new(caption, &[("", Column::Text), ("Records", Column::Number), ("", Column::Drawing)]);
        for (name, rows) in rows {
            table.row("", &[html(name), count(*rows), svg::stacked_bar(&[("p-train", *rows)], most, 160.0, 10.0)]);
        }
        format!("<h3>{title}</h3>\n{}", table.finish(""))
    };
    body.push_str(&bars("Languages", "As far as a text's letters tell; ISO 639-3.", &data.languages));
    body.push_str(&bars("What the steps found", "Found, changed or masked; dropped rows are counted above too.", &data.findings));
    body
}

fn or_empty(name: &str) -> String {
    if name.is_empty() { "<em>(empty)</em>".to_owned() } else { html(name) }
}

/// What the test set can prove.
pub(super) fn power(report: &Report) -> Option<Section> {
    let mut body = paragraph(&words::power(report));
    body.push_str(&note(
        "Computed before training. A smaller true difference can exist; with this many items it would usually go unproved.",
    ));
    Some(Section { id: "power", title: "What this test set can prove", body })
}
