//! Plain texts: their perplexity before and after, part by part and text by text.

use std::cmp::Ordering;

use super::super::escape::{cut, html};
use super::super::facts::{ItemFacts, Report};
use super::super::numbers::{count, duration, fixed, p_value, percent, signed_points};
use super::super::words;
use super::table::{Column, Table};
use super::{Section, note, paragraph, verdict};

/// Texts of each table on the page.
const TEXTS_MAX: usize = 20;
/// Characters of a text that stand in its row.
const LINE_MAX: usize = 160;

/// The parts, the arms and the gate.
pub(super) fn comparison(report: &Report) -> Option<Section> {
    let part = |name: &str| match name {
        "near_ood" => "Near out of distribution<small>the same kind of text from elsewhere</small>",
        "far_ood" => "Far out of distribution<small>other texts: a higher perplexity is what was forgotten</small>",
        _ => "In-domain test<small>decides the gate</small>",
    };
    let bounds = |(value, low, high): (f64, f64, f64)| format!("{}<small>{} to {}</small>", fixed(value, 3), fixed(low, 3), fixed(high, 3));
    let mut table = Table::new(
        "Perplexity of held-out texts, e to the mean loss of a token: how many tokens the model wavers between, as it were. Lower is better. Ranges are 95 % intervals over whole documents.",
        &[
            ("Texts", Column::Text),
            ("Base", Column::Number),
            ("Tuned", Column::Number),
            ("Lower by, %", Column::Number),
            ("n", Column::Number),
            ("Documents", Column::Number),
            ("Tokens", Column::Number),
        ],
    );
    for facts in &report.texts {
        let dash = || "<span class=\"dash\">–</span>".to_owned();
        table.row(
            "",
            &[
                part(&facts.part).to_owned(),
                facts.before.map_or_else(dash, bounds),
                bounds(facts.after),
                facts.lower.map_or_else(dash, |(share, low, high)| {
                    format!("{}<small>{} to {}</small>", signed_points(share), signed_points(low), signed_points(high))
                }),
                count(facts.n),
                if facts.documents == 0 { dash() } else { count(facts.documents) },
                count(facts.tokens),
            ],
        );
    }
    let mut body = table.finish("No text was measured.");
    for difference in &report.differences {
        let p = html(&p_value(difference.p));
        let sentence = format!("Against {}: {} (sign-flip permutation over documents).", html(&difference.against), p);
        body.push_str(&format!("<p class=\"note\">{sentence}</p>\n"));
    }
    body.push_str(&verdict::criteria(report));
    let took: Vec<String> = report.arms.iter().map(|arm| format!("{} {}", arm.name, duration(arm.seconds))).collect();
    body.push_str(&note(&format!("{} Scoring took: {}.", words::looks(report), took.join(", "))));
    Some(Section { id: "comparison", title: "How likely the texts are", body })
}

/// The texts that gained least and most.
pub(super) fn texts(report: &Report) -> Option<Section> {
    if report.items.is_empty() || !report.arms.iter().any(|arm| arm.name == "base") {
        return None;
    }
    let gain = |item: &ItemFacts| 1.0 - item.score_after / item.score_before;
    let mut items: Vec<&ItemFacts> = report.items.iter().collect();
    items.sort_by(|a, b| gain(a).partial_cmp(&gain(b)).unwrap_or(Ordering::Equal).then_with(|| a.id.cmp(&b.id)));
    let worse = items.iter().filter(|item| gain(item) < 0.0).count() as u64;
    let mut body = paragraph(&format!(
        "Of {} texts {} became less likely by the tuning. The tables have those that gained least and most.",
        count(items.len() as u64),
        count(worse)
    ));
    let shown = items.len().min(TEXTS_MAX);
    body.push_str(&table("Gained least.", &items[..shown], report.redacted));
    if items.len() > shown {
        let most: Vec<&ItemFacts> = items.iter().rev().take(TEXTS_MAX.min(items.len() - shown)).copied().collect();
        body.push_str(&table("Gained most.", &most, report.redacted));
    }
    Some(Section { id: "answers", title: "Texts before and after", body })
}

fn table(caption: &str, items: &[&ItemFacts], redacted: bool) -> String {
    let columns = [("Text", Column::Text), ("Base", Column::Number), ("Tuned", Column::Number), ("Lower by", Column::Number)];
    let mut table = Table::new(caption, &columns);
    for item in items {
        let flat = item.gold.split_whitespace().collect::<Vec<_>>().join(" ");
        let (head, left_out) = cut(&flat, LINE_MAX);
        let line = if redacted { "text left out".to_owned() } else { format!("{}{}", html(head), if left_out > 0 { "…" } else { "" }) };
        table.row(
            "",
            &[
                format!("<code>{}</code><small dir=\"auto\">{line}</small>", html(&item.id)),
                fixed(item.score_before, 3),
                fixed(item.score_after, 3),
                html(&percent(1.0 - item.score_after / item.score_before)),
            ],
        );
    }
    table.finish("None.")
}
