//! The head of the page, the verdict with its reasons, the table of arms, and what was not measured.

use super::super::escape::html;
use super::super::facts::{ArmFacts, Report};
use super::super::numbers::{count, counted, duration, fixed, interval, moment, p_value, percent, signed_interval, signed_points};
use super::super::words::{self, Outcome};
use super::super::{svg, words::metric};
use super::table::{Column, Table};
use super::{Section, arm_class, note, or_blank, paragraph, sentence};

/// Name and purpose of the project, and the verdict as a sentence.
pub(super) fn head(report: &Report) -> String {
    let project = &report.project;
    let mut head = format!(
        "<header>\n<p class=\"over\">Fine-tuning report{}</p>\n<h1>{}</h1>\n<p class=\"goal\">{}</p>\n<dl class=\"purpose\"><div><dt>Used by</dt><dd>{}</dd></div><div><dt>Use</dt><dd>{}</dd></div><div><dt>Industry</dt><dd>{}</dd></div></dl>\n",
        if report.run.finished.is_empty() { String::new() } else { format!(" · {}", html(&moment(&report.run.finished))) },
        or_blank(&project.name),
        or_blank(&project.goal),
        or_blank(&project.users),
        or_blank(&project.intended_use),
        or_blank(&project.industry),
    );
    if report.redacted {
        head.push_str(
            "<p class=\"redacted\"><strong>Redacted copy.</strong> Customer text was left out; ids, scores and counts are complete.</p>\n",
        );
    }
    let Some(verdict) = &report.verdict else {
        let text = if report.arms.is_empty() {
            "Nothing has been evaluated on held-out items yet, so nothing is claimed here."
        } else {
            "Arms were measured, but no gate has decided on them."
        };
        head.push_str(&format!(
            "<div class=\"verdict none\"><p class=\"word\">no verdict yet</p><p class=\"reason\">{text}</p></div>\n</header>\n"
        ));
        return head;
    };
    let ahead = words::ahead(report);
    head.push_str(&format!(
        "<div class=\"verdict {}\"><p class=\"word\"><span class=\"sr\">Verdict: </span>{}<span class=\"sr\">:</span></p><p class=\"reason\">{}.</p>\n{}<ul class=\"terms\"><li>{}</li><li>{}</li><li>answers {}</li><li>compute path {}</li></ul></div>\n",
        Outcome::of(&verdict.word).class(),
        html(&verdict.word),
        html(&sentence(&words::reason(report, verdict))),
        if ahead.is_empty() { String::new() } else { paragraph(&ahead) },
        html(&counted(words::items(report), "held-out item")),
        html(&metric(&verdict.metric)),
        html(words::mode(&verdict.mode)),
        html(&report.run.compute_path),
    ));
    head.push_str("</header>\n");
    head
}

/// Arms, differences and criteria.
pub(super) fn comparison(report: &Report) -> Option<Section> {
    let mut body = String::new();
    if report.arms.is_empty() {
        body.push_str(&paragraph("No arm was measured yet. After the evaluation, the base model, its cheapest rivals and the tuned model stand here, all on the same held-out items."));
    } else {
        body.push_str(&arms(report));
        body.push_str(&differences(report));
    }
    body.push_str(&criteria(report));
    if !report.arms.is_empty() {
        body.push_str(&note(&words::looks(report)));
    }
    Some(Section { id: "comparison", title: "How the arms compare", body })
}

fn arms(report: &Report) -> String {
    let name = report.verdict.as_ref().map_or_else(|| "score".to_owned(), |verdict| metric(&verdict.metric));
    let bar = threshold(report);
    let scale = match bar {
        Some(bar) => format!("0 to 100 %, line at the gate's {}", percent(bar)),
        None => "0 to 100 %".to_owned(),
    };
    let caption = format!("Every arm answered the same held-out items. Score: {name}. Whiskers and ranges are 95 % intervals.");
    let mut table = Table::new(
        &caption,
        &[
            ("Arm", Column::Text),
            ("Score, %", Column::Number),
            ("95 % interval", Column::Number),
            (&scale, Column::Drawing),
            ("n", Column::Number),
            ("Valid answers", Column::Number),
            ("Loss, nats per token", Column::Number),
            ("Time", Column::Number),
        ],
    );
    let decisive = words::tuned(report);
    for arm in &report.arms {
        let ArmFacts { name, mode, score, interval: bounds, n, loss, valid, seconds, note, .. } = arm;
        let is_decisive = decisive.is_some_and(|tuned| std::ptr::eq(tuned, arm));
        table.row(
            if is_decisive { "chief" } else { "" },
            &[
                format!(
                    "{}<small>{}{}</small>",
                    html(name),
                    html(words::mode(mode)),
                    if note.is_empty() { String::new() } else { format!("; {}", html(note)) }
                ),
                html(&super::super::numbers::points(*score)),
                html(&interval(*bounds)),
                svg::interval_bar((0.0, 1.0), bar, &[0.0, 0.25, 0.5, 0.75, 1.0], *score, *bounds, arm_class(name)),
                count(*n),
                valid.map_or_else(dash, |valid| html(&percent(valid))),
                loss.map_or_else(dash, |loss| html(&fixed(loss, 3))),
                html(&duration(*seconds)),
            ],
        );
    }
    table.finish("No arm was measured.")
}

/// The gate's bar for the verdict's own metric.
fn threshold(report: &Report) -> Option<f64> {
    let verdict = report.verdict.as_ref()?;
    verdict.criteria.iter().find_map(|(name, _, _)| name.strip_prefix(&format!("{}_at_least", verdict.metric))?.trim().parse().ok())
}

fn differences(report: &Report) -> String {
    let finite = |value: &f64| value.is_finite();
    let ends = report.differences.iter().flat_map(|d| [d.estimate, d.interval.0, d.interval.1]).filter(finite);
    let (low, high) = ends.fold((0.0_f64, 0.0_f64), |(low, high), end| (low.min(end), high.max(end)));
    let ticks = svg::ticks(low * 100.0, high * 100.0, 4);
    let (low, high) = (ticks[0] / 100.0, ticks[ticks.len() - 1] / 100.0);
    let guides: Vec<f64> = ticks.iter().map(|tick| tick / 100.0).collect();
    let scale = format!("{} to {} points, line at 0", fixed(low * 100.0, 0), fixed(high * 100.0, 0));
    let mut table = Table::new(
        "Tuned minus each rival, paired item by item. Above zero: tuned is better.",
        &[
            ("Tuned minus", Column::Text),
            ("Difference, points", Column::Number),
            ("95 % interval", Column::Number),
            (&scale, Column::Drawing),
            ("p, two-sided", Column::Number),
            ("Better only: tuned, rival", Column::Number),
            ("n", Column::Number),
        ],
    );
    for difference in &report.differences {
        let class = if difference.interval.0 > 0.0 {
            "good"
        } else if difference.interval.1 < 0.0 {
            "bad"
        } else {
            "unsure"
        };
        let (tuned, rival) = difference.discordant;
        table.row(
            "",
            &[
                format!("{}<small>{}</small>", html(&difference.against), html(&metric(&difference.metric))),
                html(&signed_points(difference.estimate)),
                html(&signed_interval(difference.interval)),
                svg::interval_bar((low, high), Some(0.0), &guides, difference.estimate, difference.interval, class),
                html(p_value(difference.p).trim_start_matches("p\u{a0}").trim_start_matches("=\u{a0}")),
                if tuned + rival == 0 { dash() } else { format!("{}, {}", count(tuned), count(rival)) },
                count(words::items(report)),
            ],
        );
    }
    table.finish("No rival was measured beside the tuned model.")
}

pub(super) fn criteria(report: &Report) -> String {
    let Some(verdict) = &report.verdict else { return String::new() };
    let mut table = Table::new(
        "The gate, declared before training. All of it must hold for “ship”.",
        &[("Criterion", Column::Text), ("Outcome", Column::Text)],
    );
    for (name, word, reason) in &verdict.criteria {
        let outcome = Outcome::of(word);
        table.row(
            "",
            &[
                format!("{}<small>{}</small>", html(&words::criterion(name)), html(reason)),
                format!("<span class=\"outcome {}\">{}</span>", outcome.class(), outcome.word()),
            ],
        );
    }
    table.finish("The gate declares no criterion, so nothing could be shown.")
}

/// What the reader might think was measured, and wasn't.
pub(super) fn not_measured(report: &Report) -> Option<Section> {
    let mut body = String::from("<div class=\"aside\">\n");
    if report.not_measured.is_empty() {
        body.push_str(&paragraph("The run names nothing here. That is no proof that everything was measured."));
    } else {
        body.push_str("<ul>\n");
        for line in &report.not_measured {
            body.push_str(&format!("<li>{}</li>\n", html(line)));
        }
        body.push_str("</ul>\n");
    }
    let blanks = words::blanks(report);
    if !blanks.is_empty() {
        body.push_str(&format!("<p><strong>Left blank in the run file ({}):</strong> ", blanks.len()));
        body.push_str(&blanks.iter().map(|blank| html(blank)).collect::<Vec<_>>().join("; "));
        body.push_str(".</p>\n");
    }
    body.push_str("</div>\n");
    Some(Section { id: "not-measured", title: "What was not measured", body })
}

fn dash() -> String {
    "<span class=\"dash\" title=\"not measured for this arm\">–</span>".to_owned()
}
