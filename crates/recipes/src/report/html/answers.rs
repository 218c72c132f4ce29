//! Held-out items with the answers before and after: failures first.

use std::cmp::Ordering;

use serde_json::{Map, Value};

use super::super::escape::{cut, html};
use super::super::facts::{ItemFacts, Report};
use super::super::numbers::{count, percent};
use super::table::{Column, Table};
use super::{Section, note, paragraph};

/// Failures of the tuned model on the page.
const FAILURES_MAX: usize = 60;
/// Improvements on the page.
const IMPROVEMENTS_MAX: usize = 40;
/// Items right before and after on the page.
const REST_MAX: usize = 15;
/// Items that are open when the page is.
const OPEN_MAX: usize = 3;
/// Characters of a text on the page; a longer one is cut, and says so.
const TEXT_MAX: usize = 1500;
/// Characters of the line that stands for an item.
const LINE_MAX: usize = 110;

/// The items in three groups.
pub(super) fn answers(report: &Report) -> Option<Section> {
    if report.items.is_empty() {
        return (!report.arms.is_empty()).then(|| Section {
            id: "answers",
            title: "Answers before and after",
            body: paragraph("No single answers were recorded in this report."),
        });
    }
    // NaN is a failure too: only what is known to be right counts as right. Without a base arm nothing can have improved.
    let has_base = report.arms.iter().any(|arm| arm.name == "base");
    let is_right = |item: &ItemFacts| item.score_after >= 1.0;
    let (mut failures, mut improvements, mut rest) = (Vec::new(), Vec::new(), Vec::new());
    for item in &report.items {
        let group = match is_right(item) {
            false => &mut failures,
            true if has_base && item.score_before < item.score_after => &mut improvements,
            true => &mut rest,
        };
        group.push(item);
    }
    failures.sort_by(|a, b| order(a, b));
    let worse = failures.iter().filter(|item| item.score_after < item.score_before).count();
    let all = report.items.len() as u64;

    let mut body = String::new();
    if report.redacted {
        body.push_str("<p class=\"redacted\"><strong>Customer text was left out of this copy.</strong> Ids and scores are complete; whoever may read the text finds it by id in the run folder.</p>\n");
    }
    body.push_str(&paragraph(&if has_base {
        format!(
            "“Before” is the base model, “after” the tuned one. Of {} items, {} are not fully right after tuning ({} of them were better before), {} became right, {} were right before and after.",
            count(all),
            count(failures.len() as u64),
            count(worse as u64),
            count(improvements.len() as u64),
            count(rest.len() as u64)
        )
    } else {
        format!(
            "The base model was not measured, so “before” is empty. Of {} items, {} are not fully right after tuning, {} are.",
            count(all),
            count(failures.len() as u64),
            count(rest.len() as u64)
        )
    }));
    let mut open = OPEN_MAX;
    for (title, explanation, items, most) in [
        ("Failures of the tuned model", "What the base answered better comes first, then the lowest scores.", failures, FAILURES_MAX),
        ("Improvements", "Not right before, right after.", improvements, IMPROVEMENTS_MAX),
        (if has_base { "Right before and after" } else { "Right" }, "", rest, REST_MAX),
    ] {
        body.push_str(&format!("<h3>{title} <span class=\"of\">{} of {}</span></h3>\n", count(items.len() as u64), count(all)));
        if items.is_empty() {
            body.push_str(&note("None."));
            continue;
        }
        if !explanation.is_empty() {
            body.push_str(&note(explanation));
        }
        let shown = &items[..items.len().min(most)];
        if report.redacted
            && shown.iter().all(|item| item.input.is_empty() && item.gold.is_empty() && item.before.is_empty() && item.after.is_empty())
        {
            body.push_str(&scores(title, shown));
        } else {
            for item in shown {
                body.push_str(&card(item, report.redacted, open > 0));
                open = open.saturating_sub(1);
            }
        }
        if items.len() > shown.len() {
            body.push_str(&note(&format!("{} more in report.json.", count((items.len() - shown.len()) as u64))));
        }
    }
    Some(Section { id: "answers", title: "Answers before and after", body })
}

/// Regressions first, then the lowest score, then by id.
fn order(a: &ItemFacts, b: &ItemFacts) -> Ordering {
    let got_worse = |item: &ItemFacts| item.score_after < item.score_before;
    got_worse(b).cmp(&got_worse(a)).then_with(|| a.score_after.total_cmp(&b.score_after)).then_with(|| a.id.cmp(&b.id))
}

fn scores(caption: &str, items: &[&ItemFacts]) -> String {
    let mut table = Table::new(
        &format!("{caption}: ids and scores."),
        &[("Item", Column::Text), ("Before", Column::Number), ("After", Column::Number)],
    );
    for item in items {
        table.row("", &[format!("<code>{}</code>", html(&item.id)), html(&percent(item.score_before)), html(&percent(item.score_after))]);
    }
    table.finish("None.")
}

fn card(item: &ItemFacts, redacted: bool, open: bool) -> String {
    let line = match (item.input.is_empty(), redacted) {
        (true, true) => "<span class=\"left-out\">text left out</span>".to_owned(),
        (true, false) => "<em>(empty)</em>".to_owned(),
        _ => {
            let flat = item.input.split_whitespace().collect::<Vec<_>>().join(" ");
            let (head, left_out) = cut(&flat, LINE_MAX);
            format!("{}{}", html(head), if left_out > 0 { "…" } else { "" })
        }
    };
    let taken = if item.score_after < 1.0 && !item.gold.is_empty() && !item.after.is_empty() && object(&item.gold).is_none() {
        let short = |text: &str| {
            let (head, left_out) = cut(text, 40);
            format!("{}{}", html(head), if left_out > 0 { "…" } else { "" })
        };
        format!("<span class=\"taken\">{} taken for {}</span> ", short(&item.gold), short(&item.after))
    } else {
        String::new()
    };
    let class = if item.score_after >= 1.0 {
        "good"
    } else if item.score_after < item.score_before {
        "bad"
    } else {
        "unsure"
    };
    let worse = if class == "bad" { " <span class=\"outcome bad\">worse than before</span>" } else { "" };
    format!(
        "<details class=\"item\"{}><summary><code>{}</code> <span class=\"score\">{} → <b class=\"{class}\">{}</b></span>{worse} {taken}<span class=\"line\" dir=\"auto\">{line}</span></summary>\n<div class=\"inside\">{}{}</div></details>\n",
        if open { " open" } else { "" },
        html(&item.id),
        grade(item, item.score_before),
        grade(item, item.score_after),
        text(&item.input, redacted),
        comparison(item, redacted),
    )
}

/// A label is right or wrong; a record has a share of right fields.
fn grade(item: &ItemFacts, score: f64) -> String {
    match score {
        0.0 if object(&item.gold).is_none() => "wrong".to_owned(),
        1.0 if object(&item.gold).is_none() => "right".to_owned(),
        _ => html(&percent(score)),
    }
}

fn text(input: &str, redacted: bool) -> String {
    if input.is_empty() {
        return if redacted {
            "<p class=\"left-out\">The customer’s text was left out of this copy.</p>\n".to_owned()
        } else {
            String::new()
        };
    }
    format!("<blockquote dir=\"auto\">{}</blockquote>\n", limited(input))
}

fn limited(text: &str) -> String {
    let (head, left_out) = cut(text, TEXT_MAX);
    let more = if left_out > 0 {
        format!("<span class=\"left-out\"> … {} more characters in report.json</span>", count(left_out as u64))
    } else {
        String::new()
    };
    // Identifiers may break after an underscore.
    format!("{}{more}", html(head).replace('_', "_<wbr>"))
}

fn comparison(item: &ItemFacts, redacted: bool) -> String {
    let mut table = Table::new("", &[("Field", Column::Text), ("Right", Column::Text), ("Before", Column::Text), ("After", Column::Text)]);
    match object(&item.gold) {
        None => table.row(
            "",
            &[
                "Answer".to_owned(),
                whole(&item.gold, redacted),
                answer(&item.before, item.before.trim() == item.gold.trim(), redacted),
                answer(&item.after, item.after.trim() == item.gold.trim(), redacted),
            ],
        ),
        Some(gold) => {
            let (before, after) = (object(&item.before), object(&item.after));
            if before.is_none() || after.is_none() {
                let raw = |answer: &str, parsed: &Option<Map<String, Value>>| match parsed {
                    Some(_) => String::new(),
                    None if answer.is_empty() => {
                        format!("<span class=\"differs\">{}</span>", if redacted { "left out" } else { "empty answer" })
                    }
                    None => format!("<span class=\"differs\"><span class=\"left-out\">no JSON object:</span> {}</span>", limited(answer)),
                };
                table.row("", &["as written".to_owned(), String::new(), raw(&item.before, &before), raw(&item.after, &after)]);
            }
            for key in keys(item, &gold, before.as_ref(), after.as_ref()) {
                let cell = |answer: &Option<Map<String, Value>>| match answer {
                    None => String::new(),
                    Some(answer) => match (answer.get(&key), gold.get(&key)) {
                        (None, _) => "<span class=\"differs\">missing</span>".to_owned(),
                        (Some(value), Some(right)) if same(value, right) => limited(&show(value)),
                        (Some(value), _) => mark(&show(value)),
                    },
                };
                table.row(
                    "",
                    &[
                        html(&key),
                        gold.get(&key).map_or_else(|| "<em>(no such field)</em>".to_owned(), |value| limited(&show(value))),
                        cell(&before),
                        cell(&after),
                    ],
                );
            }
        }
    }
    table.finish("")
}

fn whole(text: &str, redacted: bool) -> String {
    match (text.is_empty(), redacted) {
        (true, true) => "<span class=\"left-out\">left out</span>".to_owned(),
        (true, false) => "<em>(empty)</em>".to_owned(),
        _ => limited(text),
    }
}

fn answer(text: &str, is_same: bool, redacted: bool) -> String {
    if is_same || (redacted && text.is_empty()) {
        whole(text, redacted)
    } else {
        format!("<span class=\"differs\">{}</span>", whole(text, redacted))
    }
}

fn mark(text: &str) -> String {
    format!("<span class=\"differs\">{}</span>", limited(text))
}

fn object(text: &str) -> Option<Map<String, Value>> {
    match serde_json::from_str(text) {
        Ok(Value::Object(map)) => Some(map),
        _ => None,
    }
}

/// Keys in the order of the right answer, then those that only answers have.
fn keys(
    item: &ItemFacts,
    gold: &Map<String, Value>,
    before: Option<&Map<String, Value>>,
    after: Option<&Map<String, Value>>,
) -> Vec<String> {
    let place = |key: &String| item.gold.find(&Value::from(key.as_str()).to_string()).unwrap_or(usize::MAX);
    let mut keys: Vec<String> = gold.keys().cloned().collect();
    keys.sort_by(|a, b| place(a).cmp(&place(b)).then_with(|| a.cmp(b)));
    let mut extra: Vec<String> =
        before.into_iter().chain(after).flat_map(Map::keys).filter(|key| !gold.contains_key(*key)).cloned().collect();
    extra.sort();
    extra.dedup();
    keys.extend(extra);
    keys
}

/// The rule of `eval`: numbers by value, strings after trimming, the rest exactly.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::String(a), Value::String(b)) => a.trim() == b.trim(),
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        _ => a == b,
    }
}

/// Strings without quotes, but a string that spells a number keeps them: the form is part of the record.
fn show(value: &Value) -> String {
    match value {
        Value::String(text) if !text.is_empty() && serde_json::from_str::<Value>(text).is_err() => text.clone(),
        _ => value.to_string(),
    }
}
