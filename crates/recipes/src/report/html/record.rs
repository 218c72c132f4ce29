//! Where everything came from, the plan, and the hashes by which all of it can be checked.

use super::super::escape::html;
use super::super::facts::Report;
use super::super::numbers::{bytes, count, moment, parameters};
use super::super::words;
use super::table::{Column, Table};
use super::{Section, facts, note, or_blank, paragraph};

/// Whose data, under which licence and basis, until when.
pub(super) fn sources(report: &Report) -> Option<Section> {
    let mut body = String::new();
    if report.data.sources.is_empty() {
        body.push_str(&paragraph("No source was read yet."));
    }
    for source in &report.data.sources {
        body.push_str(&format!("<h3 class=\"path\">{}</h3>\n", html(&source.path)));
        body.push_str(&facts(&[
            ("Owner", or_blank(&source.owner)),
            ("Licence", or_blank(&source.licence)),
            ("Lawful basis", or_blank(&source.lawful_basis)),
            ("Date", or_blank(&source.date)),
            ("Keep until", or_blank(&source.keep_until)),
            ("Rows", html(&format!("{}, {}", count(source.rows), bytes(source.bytes)))),
            ("Role", or_blank(&source.role)),
            ("Shape", or_blank(&source.shape)),
            ("blake3", hash(&source.hash)),
        ]));
    }
    Some(Section { id: "sources", title: "Sources", body })
}

/// The base model.
pub(super) fn base(report: &Report) -> Option<Section> {
    let base = &report.base;
    let hashes = if base.sha256.is_empty() { hash("") } else { base.sha256.iter().map(|sum| hash(sum)).collect::<Vec<_>>().join("<br>") };
    let mut body = facts(&[
        ("Name", or_blank(&base.name)),
        ("Licence", or_blank(&base.licence)),
        // Where its text stands is to be read, not loaded: no page of ours names an address that a browser would follow.
        ("What it asks", or_blank(&base.licence_asks.replace("https://", ""))),
        ("Published by", or_blank(&base.publisher)),
        ("Fetched from", or_blank(&base.source)),
        ("Architecture", or_blank(&base.architecture)),
        ("Parameters", html(&parameters(base.parameters))),
        ("Stored as", or_blank(&base.storage)),
        ("Size", html(&bytes(base.bytes))),
        ("sha256", hashes),
        (
            "Publisher’s hash",
            if base.publisher_hash_known {
                "<span class=\"outcome good\">known, and equal</span>".to_owned()
            } else {
                "<span class=\"outcome unsure\">not known</span>".to_owned()
            },
        ),
    ]);
    if !base.publisher_hash_known {
        body.push_str(&note("Without a hash from the publisher, the hash above shows that the weights are the same in every run, not that they are the ones that were published."));
    }
    Some(Section { id: "base", title: "Base model", body })
}

/// The plan as it was resolved before the run.
pub(super) fn plan(report: &Report) -> Option<Section> {
    let mut table = Table::new("Resolved before the run, with nothing left open.", &[("Key", Column::Text), ("Value", Column::Text)]);
    for (key, value) in &report.plan {
        table.row("", &[format!("<code>{}</code>", html(key)), if value.is_empty() { "<em>(empty)</em>".to_owned() } else { html(value) }]);
    }
    Some(Section { id: "plan", title: "Plan", body: table.finish("The report holds no plan.") })
}

/// Ids, times, machine and hashes.
pub(super) fn run(report: &Report) -> Option<Section> {
    let run = &report.run;
    let time = |moment_text: &str| {
        if moment_text.is_empty() {
            or_blank("")
        } else {
            format!("<time datetime=\"{}\">{}</time>", super::super::escape::attribute(moment_text), html(&moment(moment_text)))
        }
    };
    let mut lines = vec![
        ("Run", hash(&run.id)),
        ("Started", time(&run.started)),
        ("Finished", time(&run.finished)),
        ("Took", html(&words::stages(report))),
        ("Machine", or_blank(&run.machine)),
        ("Compute path", or_blank(&run.compute_path)),
        ("Program", or_blank(&report.program)),
        ("Seed", report.project.seed.to_string()),
        ("Runs of this project", count(run.runs_so_far)),
        ("Looks at this test set", count(run.looks_at_test_set)),
        ("Manifest, blake3", hash(&run.manifest)),
        ("Project ledger, head", hash(&run.project_head)),
    ];
    if let Some(training) = &report.training {
        lines.push(("Adapter, blake3", hash(&training.adapter_hash)));
    }
    lines.push(("Report format", report.format.to_string()));
    let mut body = facts(&lines);
    body.push_str(&format!(
        "<p class=\"note\">To check that nothing was changed since: <code>tunesmith audit {}</code></p>\n",
        html(&run.id)
    ));
    Some(Section { id: "run", title: "Record of this run", body })
}

fn hash(text: &str) -> String {
    if text.is_empty() { or_blank("") } else { format!("<code class=\"hash\">{}</code>", html(text)) }
}
