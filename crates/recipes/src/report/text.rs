//! The end of `run` on a terminal: arms, differences, verdict, what was not measured. No colour, no path, nothing wider than asked for.

use super::escape::{cut, visible};
use super::facts::Report;
use super::numbers::{count, fixed, p_value, percent, signed_interval, signed_points};
use super::words::{self, Outcome};

/// Narrower than this is not attempted: the table of arms needs it.
const WIDTH_MIN: usize = 80;

/// Plain text of at most `width` columns (at least 80), for the end of a run.
#[must_use]
pub fn summary(report: &Report, width: usize) -> String {
    let width = width.max(WIDTH_MIN);
    let mut out = String::new();
    if report.arms.is_empty() {
        out.push_str("No arm was measured yet.\n");
    } else {
        arms(&mut out, report, width);
        differences(&mut out, report, width);
    }
    out.push('\n');
    match &report.verdict {
        None => out.push_str("verdict: none yet\n"),
        Some(verdict) => {
            out.push_str(&wrap(&format!("verdict: {}: {}", verdict.word, words::reason(report, verdict)), "", "  ", width));
            let ahead = words::ahead(report);
            if !ahead.is_empty() {
                out.push_str(&wrap(&ahead, "  ", "  ", width));
            }
            for (name, word, reason) in &verdict.criteria {
                out.push_str(&wrap(&format!("{}: {} ({reason})", Outcome::of(word).word(), words::criterion(name)), "  - ", "    ", width));
            }
        }
    }
    out.push_str("\nnot measured:\n");
    if report.not_measured.is_empty() {
        out.push_str("  (the run names nothing)\n");
    }
    for line in &report.not_measured {
        out.push_str(&wrap(line, "  - ", "    ", width));
    }
    let blanks = words::blanks(report);
    if !blanks.is_empty() {
        out.push_str(&wrap(&format!("left blank in the run file: {}", blanks.join("; ")), "  - ", "    ", width));
    }
    out.push('\n');
    out.push_str(&wrap(&words::looks(report), "", "", width));
    out.push_str(&wrap(&words::memory(report), "", "", width));
    out.push_str(&wrap(&format!("Run {} took {}.", report.run.id, words::stages(report)), "", "", width));
    out
}

fn arms(out: &mut String, report: &Report, width: usize) {
    let mut rows = vec![["arm", "mode", "score", "95 % interval", "n", "valid", "loss"].map(str::to_owned)];
    for arm in &report.arms {
        rows.push([
            arm.name.clone(),
            arm.mode.clone(),
            words::score(report, arm.score),
            words::bounds(report, arm.interval),
            count(arm.n),
            arm.valid.map_or_else(|| "-".to_owned(), percent),
            arm.loss.map_or_else(|| "-".to_owned(), |loss| fixed(loss, 3)),
        ]);
    }
    align(out, &rows, 2, width);
    let mut told: Vec<&str> = Vec::new();
    for arm in report.arms.iter().filter(|arm| !arm.note.is_empty()) {
        if !told.contains(&arm.name.as_str()) {
            out.push_str(&wrap(&format!("{}: {}", arm.name, arm.note), "  ", "    ", width));
            told.push(&arm.name);
        }
    }
}

fn differences(out: &mut String, report: &Report, width: usize) {
    if report.differences.is_empty() {
        return;
    }
    out.push('\n');
    let unit = if words::is_text(report) { "% lower" } else { "points" };
    let mut rows = vec![["tuned minus", "on", unit, "95 % interval", ""].map(str::to_owned)];
    for difference in &report.differences {
        rows.push([
            difference.against.clone(),
            words::metric(&difference.metric),
            signed_points(difference.estimate),
            signed_interval(difference.interval),
            p_value(difference.p),
        ]);
    }
    align(out, &rows, 2, width);
}

/// Columns as wide as their widest cell, two spaces between; the first `left` ones to the left. Names that are too long are cut.
fn align<const N: usize>(out: &mut String, rows: &[[String; N]], left: usize, width: usize) {
    let rows: Vec<[String; N]> = rows.iter().map(|row| row.each_ref().map(|cell| plain(cell))).collect();
    let mut widths = [0; N];
    for row in &rows {
        for (at, cell) in row.iter().enumerate() {
            widths[at] = widths[at].max(columns(cell));
        }
    }
    for at in (0..left).rev() {
        let over = (widths.iter().sum::<usize>() + 2 * (N - 1)).saturating_sub(width);
        widths[at] -= over.min(widths[at].saturating_sub(6));
    }
    for row in &rows {
        let mut line = String::new();
        for (at, cell) in row.iter().enumerate() {
            let cell = if columns(cell) > widths[at] { format!("{}…", cut(cell, widths[at].saturating_sub(1)).0) } else { cell.clone() };
            let gap = " ".repeat(widths[at] - columns(&cell).min(widths[at]));
            line.push_str(&if at < left { format!("{cell}{gap}  ") } else { format!("{gap}{cell}  ") });
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
}

/// Words that fit, line by line; a word longer than a line is cut into lines.
fn wrap(text: &str, first: &str, rest: &str, width: usize) -> String {
    let mut out = String::new();
    let mut line = first.to_owned();
    let mut is_empty = true;
    for word in visible(text).split([' ', '\n', '\t']).filter(|word| !word.is_empty()) {
        let mut word = word;
        if !is_empty && columns(&line) + 1 + columns(word) > width {
            out.push_str(&plain(&line));
            out.push('\n');
            line = rest.to_owned();
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        while columns(&line) + columns(word) > width {
            let (head, _) = cut(word, width - columns(&line));
            out.push_str(&plain(&line));
            out.push_str(&plain(head));
            out.push('\n');
            word = &word[head.len()..];
            line = rest.to_owned();
        }
        line.push_str(word);
        is_empty = false;
    }
    out.push_str(&plain(&line));
    out.push('\n');
    out
}

fn plain(text: &str) -> String {
    visible(text).replace('\u{a0}', " ").replace(['\n', '\t'], " ")
}

fn columns(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    #[test]
    fn nothing_is_wider_than_asked_for() {
        for (name, report) in samples::all() {
            for width in [40, 80, 120] {
                for line in summary(&report, width).lines() {
                    assert!(columns(line) <= width.max(WIDTH_MIN), "{name} at {width}: {} columns: {line}", columns(line));
                }
            }
        }
    }

    #[test]
    fn the_verdict_stands_with_its_reason() {
        let text = summary(&samples::tickets(), 80);
        assert!(text.contains("verdict: ship: tuned beats few-shot by"), "{text}");
        assert!(text.contains("not measured:\n  - "), "{text}");
        assert!(!text.contains(['\u{a0}', '\u{1b}']), "{text}");
    }

    #[test]
    fn hostile_text_cannot_reach_the_terminal() {
        let mut report = samples::tickets();
        report.not_measured = vec!["\u{1b}]0;owned\u{7} \u{202e}x".repeat(20), "y".repeat(300)];
        let text = summary(&report, 80);
        assert!(!text.contains(['\u{1b}', '\u{7}', '\u{202e}']), "{text}");
    }
}
