//! The sentences that page and summary share, so that both say the same.

use super::facts::{ArmFacts, DifferenceFacts, Report, VerdictFacts};
use super::numbers::{count, counted, duration, fixed, interval, p_value, percent, points, signed_points};

/// A metric's name for people: `field_accuracy` is "mean field accuracy".
pub(super) fn metric(name: &str) -> String {
    eval::Metric::from_name(name).map_or_else(|_| name.replace('_', " "), |metric| metric.title().to_owned())
}

/// A score as its metric is written: a share as percent, a perplexity as it is.
#[must_use]
pub fn value(metric: eval::Metric, score: f64) -> String {
    if metric == eval::Metric::Perplexity { fixed(score, 3) } else { percent(score).replace('\u{a0}', " ") }
}

/// Whether the perplexity of plain texts was measured, and no answers.
pub(super) fn is_text(report: &Report) -> bool {
    report.arms.iter().any(|arm| arm.mode == eval::Decode::Likelihood.name())
}

/// An arm's score: "81.2 %", or the perplexity 12.345.
pub(super) fn score(report: &Report, score: f64) -> String {
    if is_text(report) { fixed(score, 3) } else { percent(score) }
}

/// Its interval in the same terms.
pub(super) fn bounds(report: &Report, bounds: (f64, f64)) -> String {
    if is_text(report) { format!("{} to {}", fixed(bounds.0, 3), fixed(bounds.1, 3)) } else { interval(bounds) }
}

/// How an arm came to its answers, for people.
pub(super) fn mode(name: &str) -> &str {
    match name {
        "free" => "generated freely",
        "choose" => "chosen among the labels",
        "classifier" | "fields" => "predicted by a classifier",
        "imported" => "answers of another system",
        "likelihood" => "not asked: texts were scored",
        _ => name,
    }
}

/// What an outcome comes to: the gate's words and plainer ones are understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Holds,
    Open,
    Refused,
}

impl Outcome {
    pub(super) fn of(word: &str) -> Self {
        match word {
            "ship" | "holds" | "passed" | "yes" => Self::Holds,
            "do not ship" | "refused" | "failed" | "fails" | "no" => Self::Refused,
            _ => Self::Open,
        }
    }

    /// The word of one criterion; the verdict itself keeps its own three.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Holds => "holds",
            Self::Open => "not enough evidence",
            Self::Refused => "refused",
        }
    }

    /// Class of the style sheet.
    pub(super) fn class(self) -> &'static str {
        match self {
            Self::Holds => "good",
            Self::Open => "unsure",
            Self::Refused => "bad",
        }
    }
}

/// A criterion as declared, for people: "field_accuracy_at_least 0.8" is "mean field accuracy of at least 80.0 %".
pub(super) fn criterion(name: &str) -> String {
    if let Some((measure, bar)) = name.split_once("_at_least")
        && let Ok(bar) = bar.trim().parse::<f64>()
    {
        return format!("{} of at least {}", metric(measure), percent(bar));
    }
    if let Some(bar) = name.strip_prefix("perplexity_at_most ") {
        return format!("perplexity of at most {bar}");
    }
    name.to_owned()
}

/// The arm that the verdict is about: tuned, in the verdict's mode.
pub(super) fn tuned(report: &Report) -> Option<&ArmFacts> {
    arm(report, "tuned")
}

/// The row of an arm in the verdict's mode, or its first.
pub(super) fn arm<'a>(report: &'a Report, name: &str) -> Option<&'a ArmFacts> {
    let mode = report.verdict.as_ref().map_or("", |verdict| &verdict.mode);
    let mut rows = report.arms.iter().filter(|arm| arm.name == name);
    rows.clone().find(|arm| arm.mode == mode).or_else(|| rows.next())
}

/// Held-out items of the table of arms.
pub(super) fn items(report: &Report) -> u64 {
    tuned(report).or(report.arms.first()).map_or(report.data.test, |arm| arm.n)
}

/// The difference that decides: to the best of the rivals that the gate names, or else the first.
pub(super) fn deciding(report: &Report) -> Option<&DifferenceFacts> {
    let named = |difference: &&DifferenceFacts| {
        report
            .verdict
            .as_ref()
            .is_some_and(|verdict| verdict.criteria.iter().any(|(name, _, _)| *name == format!("beats {}", difference.against)))
    };
    let best = report.differences.iter().filter(named).min_by(|a, b| a.estimate.total_cmp(&b.estimate));
    best.or(report.differences.first())
}

/// "tuned beats few-shot by 31.2 points (95 % interval 26.8 to 35.5) on 214 held-out items, p < 0.001".
pub(super) fn difference(difference: &DifferenceFacts, items: u64) -> String {
    let DifferenceFacts { against, estimate, interval: bounds, p, .. } = difference;
    if difference.metric == eval::Metric::Perplexity.name() && estimate.is_finite() {
        let (side, (low, high)) = if *estimate < 0.0 { ("higher", (-bounds.1, -bounds.0)) } else { ("lower", *bounds) };
        let sure = if bounds.0 > 0.0 || bounds.1 < 0.0 { "" } else { ", which contains none" };
        return format!(
            "tuned's perplexity is {} {side} than {against}'s (95\u{a0}% interval {} to {}\u{a0}%{sure}) on {}, {}",
            percent(estimate.abs()),
            signed_points(low),
            signed_points(high),
            counted(items, "held-out text"),
            p_value(*p)
        );
    }
    let verb = if estimate.is_nan() {
        return format!("the difference between tuned and {against} is not a number");
    } else if points(*estimate) == "0.0" {
        return format!(
            "tuned and {against} are level (difference {} points, 95\u{a0}% interval {}) on {}, {}",
            signed_points(*estimate),
            interval(*bounds),
            counted(items, "held-out item"),
            p_value(*p)
        );
    } else if bounds.0 > 0.0 && *p <= 0.05 {
        "beats"
    } else if bounds.1 < 0.0 {
        "loses to"
    } else if *estimate > 0.0 {
        "is ahead of"
    } else {
        "is behind"
    };
    let (low, high) = if *estimate < 0.0 && verb == "loses to" { (-bounds.1, -bounds.0) } else { *bounds };
    let (size, range) = match verb {
        "is behind" => (points(-estimate), format!("difference {} to {}", signed_points(low), signed_points(high))),
        "is ahead of" => (points(*estimate), format!("{} to {}", signed_points(low), signed_points(high))),
        _ => (points(estimate.abs()), interval((low, high))),
    };
    let range = if low.is_nan() || high.is_nan() { "no interval".to_owned() } else { format!("95\u{a0}% interval {range}") };
    format!("tuned {verb} {against} by {size} points ({range}) on {}, {}", counted(items, "held-out item"), p_value(*p))
}

/// The reason of the verdict in one sentence, from its own numbers.
pub(super) fn reason(report: &Report, verdict: &VerdictFacts) -> String {
    let mut sentence = match deciding(report) {
        Some(deciding) => difference(deciding, items(report)),
        None => match tuned(report) {
            Some(arm) => format!("tuned reaches {} on {}", score(report, arm.score), counted(arm.n, "held-out item")),
            None => "no arm was measured".to_owned(),
        },
    };
    let outcome = Outcome::of(&verdict.word);
    let because: Vec<String> = verdict
        .criteria
        .iter()
        .filter(|(_, word, _)| Outcome::of(word) == outcome && outcome != Outcome::Holds)
        .map(|(name, _, _)| criterion(name))
        .collect();
    match (outcome, because.is_empty()) {
        (Outcome::Holds, _) if verdict.criteria.len() > 1 => {
            sentence.push_str(&format!("; all {} criteria of the gate hold", verdict.criteria.len()));
        }
        (Outcome::Refused, false) => sentence.push_str(&format!("; refused on: {}", because.join("; "))),
        (Outcome::Open, false) => sentence.push_str(&format!("; not shown: {}", because.join("; "))),
        _ => {}
    }
    sentence
}

/// Rivals that the gate does not name and that are ahead of the tuned model all the same; empty where there are none.
pub(super) fn ahead(report: &Report) -> String {
    let Some(verdict) = &report.verdict else { return String::new() };
    let is_named = |against: &str| verdict.criteria.iter().any(|(name, _, _)| *name == format!("beats {against}"));
    let ahead: Vec<String> = report
        .differences
        .iter()
        .filter(|difference| difference.estimate < 0.0 && points(difference.estimate) != "0.0" && !is_named(&difference.against))
        .map(|ahead| {
            let sure = if ahead.interval.1 < 0.0 { "" } else { ", though the interval contains zero" };
            let unit = if is_text(report) { "% of the perplexity" } else { "points" };
            format!("{} is {} {unit} ahead of tuned ({}{sure})", ahead.against, points(-ahead.estimate), metric(&ahead.metric))
        })
        .collect();
    if ahead.is_empty() { String::new() } else { format!("The gate does not name every rival: {}.", ahead.join("; ")) }
}

/// What the test set can prove.
pub(super) fn power(report: &Report) -> String {
    let power = &report.power;
    if power.items == 0 {
        return "There are no test items yet, so nothing can be proved.".to_owned();
    }
    let unit = if power.of_perplexity { "% of the perplexity" } else { "points" };
    let mut text = if power.detectable_difference >= 1.0 && power.detectable_difference.is_finite() {
        format!(
            "{} are too few to prove any difference that is to be expected (95\u{a0}% level, found four times out of five)",
            counted(power.items, "item")
        )
    } else if power.detectable_difference.is_finite() {
        format!(
            "With {} a difference of at least {} {unit} can be proved (95\u{a0}% level, found four times out of five)",
            counted(power.items, "item"),
            points(power.detectable_difference)
        )
    } else {
        format!("What {} can prove could not be computed", counted(power.items, "item"))
    };
    for (at, (difference, items)) in power.items_for.iter().enumerate() {
        text.push_str(if at == 0 { "; " } else { ", " });
        text.push_str(&format!(
            "{} {unit} would need about {}",
            fixed(difference * 100.0, usize::from((difference * 100.0).fract().abs() > 0.01)),
            count(*items)
        ));
    }
    text.push('.');
    text
}

/// "210,000 tokens rendered, 31,000 computed".
pub(super) fn tokens(report: &Report) -> String {
    let data = &report.data;
    if data.tokens_rendered == 0 {
        return "Nothing was rendered yet.".to_owned();
    }
    let mut text = format!("An epoch has {} tokens rendered, {} computed", count(data.tokens_rendered), count(data.tokens_computed));
    if data.tokens_computed < data.tokens_rendered && data.tokens_computed > 0 {
        text.push_str(&format!(
            " ({}\u{a0}times fewer: beginnings that records share are computed once)",
            fixed(data.tokens_rendered as f64 / data.tokens_computed as f64, 1)
        ));
    }
    text.push_str(&format!(", of which {} carry loss.", count(data.tokens_loss)));
    text
}

/// Which look at the test set this was, and what that means.
pub(super) fn looks(report: &Report) -> String {
    match report.run.looks_at_test_set {
        0 => "Nobody has looked at this test set yet.".to_owned(),
        1 => "This was the first look at this test set.".to_owned(),
        looks => format!(
            "This was look number {} at this test set. Choosing among several looks makes the last one seem better than it is: confirm on fresh items before relying on a close result.",
            count(looks)
        ),
    }
}

/// Everything that the run file should have said and didn't.
pub(super) fn blanks(report: &Report) -> Vec<String> {
    let mut blanks = Vec::new();
    let mut ask = |what: String, value: &str| {
        if value.trim().is_empty() {
            blanks.push(what);
        }
    };
    let project = &report.project;
    for (what, value) in
        [("goal", &project.goal), ("users", &project.users), ("industry", &project.industry), ("intended use", &project.intended_use)]
    {
        ask(format!("{what} of the project"), value);
    }
    for source in &report.data.sources {
        for (what, value) in [
            ("owner", &source.owner),
            ("licence", &source.licence),
            ("lawful basis", &source.lawful_basis),
            ("date", &source.date),
            ("keep-until date", &source.keep_until),
        ] {
            ask(format!("{what} of {}", source.path), value);
        }
    }
    ask("licence of the base model".to_owned(), &report.base.licence);
    ask("publisher of the base model".to_owned(), &report.base.publisher);
    blanks
}

/// Predicted memory against the measured peak.
pub(super) fn memory(report: &Report) -> String {
    use super::numbers::bytes;
    let memory = &report.memory;
    match (memory.predicted_bytes(), memory.peak_rss_bytes) {
        (0, 0) => "Memory was neither planned nor measured yet.".to_owned(),
        (planned, 0) => format!("Predicted peak {}; not measured (no training yet, or the system does not tell).", bytes(planned)),
        (0, peak) => format!("Measured peak {}; nothing was predicted.", bytes(peak)),
        (predicted, peak) => {
            let off = (peak as f64 - predicted as f64) / predicted as f64;
            let side = if off > 0.0 { "above" } else { "below" };
            let apart = if memory.mapped_bytes > 0 {
                format!(", of it {} of mapped weights, which the system drops where memory is short", bytes(memory.mapped_bytes))
            } else {
                String::new()
            };
            format!("Predicted peak {}{apart}; measured {}: {} {side} the prediction.", bytes(predicted), bytes(peak), percent(off.abs()))
        }
    }
}

/// How long it took, stage by stage.
pub(super) fn stages(report: &Report) -> String {
    let stages: Vec<String> = report.run.stages.iter().map(|(name, seconds)| format!("{name} {}", duration(*seconds))).collect();
    if stages.is_empty() { duration(report.run.seconds) } else { format!("{} ({})", duration(report.run.seconds), stages.join(", ")) }
}
