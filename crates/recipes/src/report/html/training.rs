//! The training's curves, and memory as predicted and as measured.

use super::super::escape::html;
use super::super::facts::{Report, StepFacts, TrainingFacts};
use super::super::numbers::{bytes, count, counted, duration, fixed, parameters, percent};
use super::super::svg::{self, LineChart, Scale, Series};
use super::super::words::{self, metric};
use super::table::{Column, Table};
use super::{Section, facts, figure, legend, note, paragraph};

/// How it was trained.
pub(super) fn training(report: &Report) -> Option<Section> {
    let Some(training) = &report.training else {
        return Some(Section { id: "training", title: "Training", body: paragraph("Nothing has been trained yet.") });
    };
    let share = training.trainable_parameters as f64 / report.base.parameters as f64;
    let kept = training.looks.iter().find(|look| look.step == training.kept_step);
    let mut kept_text =
        if training.kept_step == 0 { "none (the base model as it was)".to_owned() } else { format!("step {}", count(training.kept_step)) };
    if let Some(look) = kept {
        kept_text.push_str(&format!(", validation loss {}", fixed(look.loss, 3)));
    }
    let mut body = facts(&[
        ("Steps", count(training.steps.last().map_or(0, |last| last.step))),
        ("Adapter kept from", html(&kept_text)),
        ("Ended because", super::or_blank(&training.ended)),
        (
            "Trained parameters",
            html(&if share.is_finite() {
                format!("{} ({} of the base)", parameters(training.trainable_parameters), percent(share))
            } else {
                parameters(training.trainable_parameters)
            }),
        ),
        ("Time of the steps", html(&duration(training.seconds))),
        (
            "Speed",
            html(&format!(
                "{} computed tokens per second",
                if training.tokens_per_second.is_finite() {
                    count(training.tokens_per_second.max(0.0).round() as u64)
                } else {
                    fixed(f64::NAN, 0)
                }
            )),
        ),
        ("Resumed", html(&if training.resumed == 0 { "never".to_owned() } else { counted(training.resumed, "time") })),
    ]);
    body.push_str(&curves(report, training));
    body.push_str(&looks(report, training));
    Some(Section { id: "training", title: "Training", body })
}

fn curves(report: &Report, training: &TrainingFacts) -> String {
    if training.steps.is_empty() && training.looks.is_empty() {
        return note("No step was recorded.");
    }
    let line =
        |value: fn(&StepFacts) -> f64| -> Vec<(f64, f64)> { training.steps.iter().map(|step| (step.step as f64, value(step))).collect() };
    let validation: Vec<(f64, f64)> = training.looks.iter().map(|look| (look.step as f64, look.loss)).collect();
    let mark = || (training.kept_step > 0).then(|| (training.kept_step as f64, format!("kept: step {}", count(training.kept_step))));
    let last = |points: &[(f64, f64)]| points.last().map_or(f64::NAN, |point| point.1);
    let losses = line(|step| step.loss);
    let mut charts = String::from("<div class=\"charts\">\n");
    let all_losses = losses.iter().chain(&validation).map(|point| point.1);
    let is_wide = svg::spans_factors(all_losses);
    charts.push_str(&figure(
        if is_wide { "Loss, nats per token, logarithmic" } else { "Loss, nats per token" },
        &format!("{}{}", legend("s-train", true, "training, each step"), legend("s-validation", true, "validation")),
        &svg::line_chart(&LineChart {
            id: "loss",
            title: "Loss over steps",
            description: &format!(
                "Training loss ends at {}, validation loss goes from {} to {}; the adapter of step {} was kept.",
                fixed(last(&losses), 3),
                fixed(validation.first().map_or(f64::NAN, |point| point.1), 3),
                fixed(last(&validation), 3),
                training.kept_step
            ),
            x: "step",
            series: vec![
                Series { class: "s-train", points: losses.clone(), dots: false },
                Series { class: "s-validation", points: validation.clone(), dots: validation.len() <= 40 },
            ],
            mark: mark(),
            scale: if is_wide { Scale::Logarithmic } else { Scale::FromZero },
        }),
    ));
    let measured: Vec<(f64, f64)> = training.looks.iter().filter_map(|look| Some((look.step as f64, look.metric? * 100.0))).collect();
    if !measured.is_empty() {
        let name = report.verdict.as_ref().map_or_else(|| "metric".to_owned(), |verdict| metric(&verdict.metric));
        charts.push_str(&figure(
            &format!("On validation: {name}, %"),
            "",
            &svg::line_chart(&LineChart {
                id: "metric",
                title: "The metric on validation over steps",
                description: &format!("It goes from {} to {} %.", fixed(measured[0].1, 1), fixed(last(&measured), 1)),
                x: "step",
                series: vec![Series { class: "s-validation", points: measured.clone(), dots: measured.len() <= 40 }],
                mark: mark(),
                scale: Scale::FromZero,
            }),
        ));
    }
    if !training.steps.is_empty() {
        for (id, title, points) in [
            ("rate", "Learning rate", line(|step| step.learning_rate)),
            ("norm", "Gradient norm before clipping", line(|step| step.grad_norm)),
        ] {
            charts.push_str(&figure(
                title,
                "",
                &svg::line_chart(&LineChart {
                    id,
                    title: &format!("{title} over steps"),
                    description: &format!("It ends at {:e}.", last(&points)),
                    x: "step",
                    series: vec![Series { class: "s-train strong", points, dots: false }],
                    mark: None,
                    scale: Scale::FromZero,
                }),
            ));
        }
    }
    charts.push_str("</div>\n");
    let odd = training.steps.iter().filter(|step| !(step.loss.is_finite() && step.grad_norm.is_finite())).count();
    if odd > 0 {
        charts.push_str(&format!(
            "<p class=\"warning\"><strong>{} whose loss or gradient norm is not a number</strong>; the curves are broken there.</p>\n",
            html(&format!("{} of {}", count(odd as u64), counted(training.steps.len() as u64, "step")))
        ));
    }
    if training.steps.len() > svg::POINTS_MAX {
        charts.push_str(&note(&format!(
            "{} steps are drawn as the least and the greatest value of each stretch; all of them stand in report.json.",
            count(training.steps.len() as u64)
        )));
    }
    charts
}

fn looks(report: &Report, training: &TrainingFacts) -> String {
    if training.looks.is_empty() {
        return note("Validation was not looked at.");
    }
    let name = report.verdict.as_ref().map_or_else(|| "metric".to_owned(), |verdict| metric(&verdict.metric));
    let mut table = Table::new(
        &format!("Each look at the {} for validation; they choose the step, never the verdict.", counted(report.data.validation, "record")),
        &[("Step", Column::Number), ("Validation loss, nats per token", Column::Number), (&format!("{name}, %"), Column::Number)],
    );
    for look in &training.looks {
        let step = if look.step == 0 { "0, before training".to_owned() } else { count(look.step) };
        let (class, kept) = if look.step == training.kept_step { ("chief", " (kept)") } else { ("", "") };
        table.row(
            class,
            &[
                format!("{step}{kept}"),
                html(&fixed(look.loss, 4)),
                look.metric.map_or_else(|| "–".to_owned(), |metric| html(&fixed(metric * 100.0, 1))),
            ],
        );
    }
    format!("<details><summary>Looks at validation ({})</summary>\n{}</details>\n", training.looks.len(), table.finish("None."))
}

/// Predicted and measured memory.
pub(super) fn memory(report: &Report) -> Option<Section> {
    let memory = &report.memory;
    let mut body = paragraph(&words::memory(report));
    let most = memory.predicted_bytes().max(memory.peak_rss_bytes);
    if most > 0 {
        let mut table = Table::new("Peak memory of the process.", &[("", Column::Text), ("Bytes", Column::Number), ("", Column::Drawing)]);
        for (name, value) in
            [("Predicted", memory.predicted_bytes()), ("Measured", memory.peak_rss_bytes)].into_iter().filter(|(_, value)| *value > 0)
        {
            table.row("", &[name.to_owned(), html(&bytes(value)), svg::share_bar(value as f64 / most as f64, "s-validation")]);
        }
        body.push_str(&table.finish(""));
    }
    if !memory.lines.is_empty() {
        let whole = memory.planned_bytes.max(memory.lines.iter().map(|(_, value)| *value).max().unwrap_or(1)).max(1);
        let mut table =
            Table::new("What the prediction is made of.", &[("What", Column::Text), ("Bytes", Column::Number), ("", Column::Drawing)]);
        for (name, value) in &memory.lines {
            table.row("", &[html(name), html(&bytes(*value)), svg::share_bar(*value as f64 / whole as f64, "s-train strong")]);
        }
        body.push_str(&format!("<details><summary>Line by line</summary>\n{}</details>\n", table.finish("")));
    }
    Some(Section { id: "memory", title: "Memory", body })
}
