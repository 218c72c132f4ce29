//! Measure by measure: fields, classes, confusions, and messages from outside.

use super::super::escape::html;
use super::super::facts::{ArmFacts, Report};
use super::super::numbers::{count, counted, fixed, interval, percent, points};
use super::super::svg::{self, DotRow};
use super::super::words::{self, metric};
use super::table::{Column, Table};
use super::{Section, arm_class, figure, legend, note};

/// Pairs of labels in the table of confusions, where the matrix is too small for names.
const PAIRS_MAX: usize = 20;
/// The same beside a matrix that shows names and numbers itself.
const PAIRS_BESIDE_MAX: usize = 10;
/// Classes shown before the rest is folded away.
const CLASSES_OPEN_MAX: usize = 24;

/// Fields, further measures, classes and confusions; nothing before `evaluate`.
pub(super) fn measures(report: &Report) -> Option<Section> {
    let mut body = fields(report);
    body.push_str(&further(report));
    if let Some(tuned) = words::tuned(report) {
        body.push_str(&classes(report, tuned));
        body.push_str(&confusion(tuned));
    }
    (!body.is_empty()).then_some(Section { id: "measures", title: "Measure by measure", body })
}

/// The field that a measure is about: what is not the title of a metric is the name of a field.
fn field(name: &str) -> Option<&str> {
    (!eval::Metric::ALL.iter().any(|metric| metric.title() == name || metric.name() == name)).then_some(name)
}

/// Names of measures in the order of their first appearance.
fn names(report: &Report, wanted: impl Fn(&str) -> bool) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for (name, _, _, _) in report.arms.iter().flat_map(|arm| &arm.measures) {
        if wanted(name) && !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    names
}

fn value(arm: &ArmFacts, name: &str) -> Option<(f64, (f64, f64))> {
    arm.measures.iter().find(|(own, _, _, _)| own == name).map(|(_, value, low, high)| (*value, (*low, *high)))
}

/// An arm's name, with its mode where it stands twice.
fn title(report: &Report, arm: &ArmFacts) -> String {
    let twice = report.arms.iter().filter(|other| other.name == arm.name).count() > 1;
    if twice { format!("{}, {}", arm.name, arm.mode) } else { arm.name.clone() }
}

fn fields(report: &Report) -> String {
    let names = names(report, |name| field(name).is_some());
    if names.is_empty() {
        return String::new();
    }
    let arms: Vec<&ArmFacts> = report.arms.iter().filter(|arm| arm.measures.iter().any(|(name, _, _, _)| field(name).is_some())).collect();
    let rows: Vec<DotRow<'_>> = names
        .iter()
        .map(|name| DotRow {
            label: field(name).unwrap_or(name),
            dots: arms
                .iter()
                .filter_map(|arm| value(arm, name).map(|(value, bounds)| (arm_class(&arm.name).to_owned(), value, bounds)))
                .collect(),
        })
        .collect();
    let keys: String = arms.iter().map(|arm| legend(arm_class(&arm.name), true, &title(report, arm))).collect();
    let chart = svg::dot_plot(
        "fields",
        "Accuracy per field and arm",
        "Dots with 95 % intervals for each field; the table that follows has the numbers.",
        &rows,
    );
    let mut body = String::from("<h3>Field by field</h3>\n");
    body.push_str(&figure("Right answers per field, %", &keys, &chart));
    body.push_str(&table(report, "Share of items with the field right, %, and its 95 % interval.", "Field", &names, &arms));
    body
}

fn further(report: &Report) -> String {
    let names = names(report, |name| field(name).is_none());
    if names.is_empty() {
        return String::new();
    }
    let arms: Vec<&ArmFacts> = report.arms.iter().filter(|arm| !arm.measures.is_empty()).collect();
    format!(
        "<h3>Further measures</h3>\n{}",
        table(report, "Value, %, and its 95 % interval. A dash: this arm can’t have it.", "Measure", &names, &arms)
    )
}

fn table(report: &Report, caption: &str, first: &str, names: &[&str], arms: &[&ArmFacts]) -> String {
    let titles: Vec<String> = arms.iter().map(|arm| format!("{} (n\u{a0}=\u{a0}{})", title(report, arm), count(arm.n))).collect();
    let columns: Vec<(&str, Column)> =
        std::iter::once((first, Column::Text)).chain(titles.iter().map(|title| (title.as_str(), Column::Number))).collect();
    let mut table = Table::new(caption, &columns);
    for name in names {
        let mut cells = vec![html(&field(name).map_or_else(|| metric(name), str::to_owned))];
        for arm in arms {
            cells.push(match value(arm, name) {
                None => "<span class=\"dash\">–</span>".to_owned(),
                Some((value, bounds)) => format!("{}<small>{}</small>", html(&points(value)), html(&interval(bounds))),
            });
        }
        table.row("", &cells);
    }
    table.finish("Nothing was measured here.")
}

fn classes(report: &Report, tuned: &ArmFacts) -> String {
    if tuned.classes.is_empty() {
        return String::new();
    }
    let rival =
        words::deciding(report).and_then(|difference| words::arm(report, &difference.against)).filter(|rival| !rival.classes.is_empty());
    let mut rows: Vec<_> = tuned.classes.iter().collect();
    rows.sort_by(|a, b| a.3.total_cmp(&b.3).then_with(|| b.4.cmp(&a.4)).then_with(|| a.0.cmp(&b.0)));
    let draw = |rows: &[&(String, f64, f64, f64, u64)], caption: &str| {
        let beside = rival.map(|rival| format!("F1 of {}, %", rival.name));
        let mut columns = vec![
            ("Class", Column::Text),
            ("F1, %", Column::Number),
            ("", Column::Drawing),
            ("Precision, %", Column::Number),
            ("Recall, %", Column::Number),
        ];
        columns.extend(beside.as_deref().map(|heading| (heading, Column::Number)));
        columns.push(("n", Column::Number));
        let mut table = Table::new(caption, &columns);
        for (label, precision, recall, f1, n) in rows {
            let mut cells = vec![
                html(label),
                html(&points(*f1)),
                svg::share_bar(*f1, arm_class(&tuned.name)),
                html(&points(*precision)),
                html(&points(*recall)),
            ];
            if let Some(rival) = rival {
                cells.push(
                    rival.classes.iter().find(|class| class.0 == *label).map_or_else(|| "–".to_owned(), |class| html(&points(class.3))),
                );
            }
            cells.push(count(*n));
            table.row("", &cells);
        }
        table.finish("No classes.")
    };
    let (shown, folded) = rows.split_at(rows.len().min(if rows.len() > CLASSES_OPEN_MAX { 20 } else { CLASSES_OPEN_MAX }));
    let few = rows.iter().filter(|row| row.4 < 10).count();
    let mut body = String::from("<h3>Class by class</h3>\n");
    body.push_str(&draw(
        shown,
        &format!(
            "The tuned model’s {}, worst first.",
            if folded.is_empty() { "classes".to_owned() } else { format!("worst {} of {} classes", shown.len(), rows.len()) }
        ),
    ));
    if !folded.is_empty() {
        body.push_str(&format!(
            "<details><summary>The other {} classes</summary>\n{}</details>\n",
            folded.len(),
            draw(folded, "The other classes, worst first.")
        ));
    }
    if few > 0 {
        body.push_str(&note(&format!("{} fewer than 10 held-out items: a single answer moves their numbers by ten points or more. No intervals are given for single classes.", if few == 1 { "One class has".to_owned() } else { format!("{few} classes have") })));
    } else {
        body.push_str(&note("No intervals are given for single classes."));
    }
    body
}

fn confusion(tuned: &ArmFacts) -> String {
    let Some((labels, counts)) = &tuned.confusion else { return String::new() };
    let (right, all, share) = svg::diagonal(counts);
    if all == 0 {
        return String::new();
    }
    let name = |at: usize| labels.get(at).map_or("invalid answer", String::as_str);
    let mut pairs: Vec<(u64, u64, usize, usize)> = Vec::new();
    for (row, line) in counts.iter().enumerate() {
        let total: u64 = line.iter().sum();
        pairs.extend(
            line.iter()
                .enumerate()
                .filter(|(column, cases)| *column != row && **cases > 0)
                .map(|(column, cases)| (*cases, total, row, column)),
        );
    }
    pairs.sort_by_key(|&(cases, total, row, column)| (std::cmp::Reverse(cases), total, row, column));
    let description = format!(
        "{right} of {all} answers ({share}) lie on the diagonal, which is right.{}",
        pairs.first().map_or_else(String::new, |&(cases, _, row, column)| format!(
            " The most frequent confusion is “{}” answered “{}”, {cases} times.",
            name(row),
            name(column)
        ))
    );
    let keys = format!("{}{}", legend("cell right", false, "right"), legend("cell wrong", false, "confused"));
    let chart = svg::heat_map("confusion", "Confusion matrix of the tuned model", &description, labels, counts);
    let most = if labels.len() > svg::NAMED_LABELS_MAX { PAIRS_MAX } else { PAIRS_BESIDE_MAX };
    let mut table = Table::new(
        &if pairs.len() > most {
            format!("The {most} most frequent of {} confused pairs.", pairs.len())
        } else {
            "All confused pairs, the most frequent first.".to_owned()
        },
        &[("Right label", Column::Text), ("Answered", Column::Text), ("Times", Column::Number)],
    );
    for &(cases, total, row, column) in pairs.iter().take(most) {
        table.row("", &[html(name(row)), html(name(column)), format!("{} of {}", count(cases), count(total))]);
    }
    format!(
        "<h3>What is taken for what</h3>\n<div class=\"side\">{}<div>{}</div></div>\n",
        figure(&format!("Tuned: {} of {} right", count(right), count(all)), &keys, &chart),
        table.finish("Nothing was confused.")
    )
}

/// The same task on items from another source, time or group.
pub(super) fn near_ood(report: &Report) -> Option<Section> {
    let facts = report.near_ood.as_ref()?;
    let mut table = Table::new(
        &format!(
            "{} of the same task from elsewhere, held out from training: the tuned model's {}.",
            counted(facts.n, "item"),
            facts.metric
        ),
        &[("Items", Column::Text), ("Value", Column::Number), ("Interval", Column::Number)],
    );
    for (items, (value, low, high)) in [("In-domain test", facts.inside), ("From elsewhere", facts.outside)] {
        table.row("", &[html(items), html(&percent(value)), html(&format!("{} to {}", percent(low), percent(high)))]);
    }
    let mut body = table.finish("Nothing was measured here.");
    body.push_str(&super::paragraph(&format!(
        "The difference, {:+.1} points, is what moving away from the training data costs. The two sets are different items, so their intervals are to be read side by side.",
        100.0 * (facts.outside.0 - facts.inside.0)
    )));
    if facts.unknown_labels > 0 {
        body.push_str(&note(&format!("{} with labels that training does not know were left out.", counted(facts.unknown_labels, "item"))));
    }
    Some(Section { id: "elsewhere", title: "The same task elsewhere", body })
}

/// Answers to messages that the model was not made for.
pub(super) fn far_ood(report: &Report) -> Option<Section> {
    let facts = report.far_ood.as_ref()?;
    let mut table = Table::new(
        &format!("{} from outside the task, held out from training.", counted(facts.n, "item")),
        &[("Measure", Column::Text), ("Value", Column::Number)],
    );
    table.row(
        "",
        &[
            "Filled in all the same with a valid answer<small>lower is better if such messages must be refused</small>".to_owned(),
            html(&percent(facts.valid)),
        ],
    );
    table.row(
        "",
        &[
            "AUROC of the answer’s probability, in-domain against outside<small>0.5: can’t be told apart; 1: always told apart</small>"
                .to_owned(),
            html(&fixed(facts.auroc, 3)),
        ],
    );
    let mut body = table.finish("Nothing was measured here.");
    if !facts.note.is_empty() {
        body.push_str(&super::paragraph(&facts.note));
    }
    Some(Section { id: "outside", title: "Messages it was not made for", body })
}
