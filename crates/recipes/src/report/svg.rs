//! The report's charts as hand-written SVG: small functions that give a string, the same one for the same facts.
//!
//! Nothing here has a colour of its own: classes (`s1`, `s2`, `arm-tuned`, `good`, …) get theirs from `style.css`, in light and
//! dark and on paper. Coordinates have one decimal. Values that are not numbers are left out, and the caller says
//! how many.

use std::fmt::Write;

use super::escape::attribute;
use super::numbers::{count, fixed, percent};

/// Points of a line at most; more are thinned out, keeping the least and the greatest of each stretch.
pub(super) const POINTS_MAX: usize = 400;

/// Round numbers that span `low..high` with about `wanted` steps of 1, 2 or 5 times a power of ten; the first is ≤ low and the last ≥ high.
pub(super) fn ticks(low: f64, high: f64, wanted: usize) -> Vec<f64> {
    let (low, high) = if !(low.is_finite() && high.is_finite()) {
        (0.0, 1.0)
    } else if high - low > low.abs().max(high.abs()) * 1e-9 && high > low {
        (low, high)
    } else {
        let room = if low == 0.0 { 1.0 } else { low.abs() * 0.5 };
        (low - if low > 0.0 { room.min(low) } else { room }, high + room)
    };
    let raw = (high - low) / wanted.max(1) as f64;
    // The step is m·up/down with whole numbers, so that every tick is the decimal that its label says.
    let (mut up, mut down) = (1.0, 1.0);
    while raw >= up * 10.0 {
        up *= 10.0;
    }
    while raw * down < 1.0 {
        down *= 10.0;
    }
    let m = [1.0, 2.0, 5.0].into_iter().find(|m| raw * down <= m * up * (1.0 + 1e-9)).unwrap_or(10.0);
    let step = m * up / down;
    let first = (low / step + 1e-9).floor();
    let last = (high / step - 1e-9).ceil().max(first + 1.0);
    (0..=((last - first).min(50.0) as usize)).map(|at| (first + at as f64) * m * up / down).collect()
}

/// A tick's label with the decimals that the distance between ticks needs; tiny ones as "2e-5".
pub(super) fn tick_label(value: f64, step: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    if step < 5e-5 || value.abs() >= 1e7 {
        return format!("{value:.1e}").replace(".0e", "e").replace('-', "−");
    }
    let mut decimals = 0;
    let mut scaled = step;
    while decimals < 6 && (scaled - scaled.round()).abs() > 1e-6 {
        scaled *= 10.0;
        decimals += 1;
    }
    if decimals == 0 && value >= 1000.0 { count(value as u64) } else { fixed(value, decimals) }
}

/// One line of a chart.
pub(super) struct Series<'a> {
    /// Class of the style sheet.
    pub(super) class: &'a str,
    /// (x, y), ascending in x.
    pub(super) points: Vec<(f64, f64)>,
    /// Whether each point gets a dot.
    pub(super) dots: bool,
}

/// How a y axis runs.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Scale {
    /// From zero, or from the least value if that is negative.
    FromZero,
    /// By factors: what falls from 2 to 0.1 still shows its end. Values must be positive, others are left out.
    Logarithmic,
}

/// Whether positive values span so much that only a logarithmic axis shows their small end.
pub(super) fn spans_factors(values: impl Iterator<Item = f64> + Clone) -> bool {
    let finite = values.filter(|value| value.is_finite());
    let (low, high) = finite.fold((f64::MAX, 0.0_f64), |(low, high), value| (low.min(value), high.max(value)));
    low > 0.0 && high > 8.0 * low
}

/// Ticks of a logarithmic axis: 1, 2 and 5 times powers of ten from below `low` to above `high`; only the powers where there would be too many.
fn factor_ticks(low: f64, high: f64) -> Vec<f64> {
    let mut all = Vec::new();
    for exponent in -12_i32..=12 {
        let power = (0..exponent.unsigned_abs()).fold(1.0, |power, _| power * 10.0);
        all.extend([1.0, 2.0, 5.0].map(|m| if exponent < 0 { m / power } else { m * power }));
    }
    let first = all.iter().rposition(|tick| *tick <= low).unwrap_or(0);
    let last = all.iter().position(|tick| *tick >= high).unwrap_or(all.len() - 1).max(first + 1);
    let ticks = all[first..=last.min(all.len() - 1)].to_vec();
    if ticks.len() <= 8 {
        ticks
    } else {
        all.chunks(3).map(|chunk| chunk[0]).filter(|tick| *tick * 10.0 > low && *tick < high * 10.0).collect()
    }
}

/// A chart of lines over steps.
pub(super) struct LineChart<'a> {
    /// Unique on the page.
    pub(super) id: &'a str,
    /// Read aloud first.
    pub(super) title: &'a str,
    /// What the chart shows, in a sentence.
    pub(super) description: &'a str,
    /// What runs along the x axis.
    pub(super) x: &'a str,
    /// The lines, the last one on top.
    pub(super) series: Vec<Series<'a>>,
    /// A dashed line at this x with a label.
    pub(super) mark: Option<(f64, String)>,
    /// How the y axis runs.
    pub(super) scale: Scale,
}

const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 220.0;
const LEFT: f64 = 50.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 22.0;
const BOTTOM: f64 = 40.0;

/// Draws lines with axes, ticks at round numbers and a mark.
pub(super) fn line_chart(chart: &LineChart<'_>) -> String {
    let drawable = |(x, y): &(f64, f64)| x.is_finite() && y.is_finite() && (chart.scale == Scale::FromZero || *y > 0.0);
    let finite = || chart.series.iter().flat_map(|series| &series.points).filter(|point| drawable(point));
    let mut svg = open(chart.id, "chart", WIDTH, HEIGHT, chart.title, chart.description);
    if finite().next().is_none() {
        write!(
            svg,
            "<text class=\"axis\" x=\"{}\" y=\"{}\" text-anchor=\"middle\">no values</text></svg>",
            n(WIDTH / 2.0),
            n(HEIGHT / 2.0)
        )
        .expect("writing to a string");
        return svg;
    }
    let bounds =
        finite().fold((f64::MAX, f64::MIN, f64::MAX, f64::MIN), |(a, b, c, d), (x, y)| (a.min(*x), b.max(*x), c.min(*y), d.max(*y)));
    let y_ticks = match chart.scale {
        Scale::FromZero => ticks(bounds.2.min(0.0), bounds.3, 5),
        Scale::Logarithmic => factor_ticks(bounds.2, bounds.3),
    };
    let along = |y: f64| if chart.scale == Scale::Logarithmic { y.ln() } else { y };
    let (y_low, y_high) = (y_ticks[0], y_ticks[y_ticks.len() - 1]);
    let (x_low, x_high) = (bounds.0, if bounds.1 > bounds.0 { bounds.1 } else { bounds.0 + 1.0 });
    let place_x = |x: f64| LEFT + (x - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT);
    let place_y = |y: f64| HEIGHT - BOTTOM - (along(y) - along(y_low)) / (along(y_high) - along(y_low)) * (HEIGHT - TOP - BOTTOM);

    for &tick in &y_ticks {
        let y = place_y(tick);
        write!(
            svg,
            "<line class=\"grid\" x1=\"{}\" x2=\"{}\" y1=\"{y}\" y2=\"{y}\"/><text class=\"axis\" x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
            n(LEFT),
            n(WIDTH - RIGHT),
            n(LEFT - 6.0),
            n(y + 4.0),
            tick_label(tick, if chart.scale == Scale::Logarithmic { tick } else { y_ticks[1] - y_ticks[0] }),
            y = n(y),
        )
        .expect("writing to a string");
    }
    let x_ticks = ticks(x_low, x_high, 5);
    let step = x_ticks[1] - x_ticks[0];
    for &tick in x_ticks.iter().filter(|tick| **tick >= x_low - step * 1e-6 && **tick <= x_high + step * 1e-6 && tick.fract() == 0.0) {
        let x = place_x(tick);
        write!(
            svg,
            "<line class=\"tick\" x1=\"{x}\" x2=\"{x}\" y1=\"{}\" y2=\"{}\"/><text class=\"axis\" x=\"{x}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            n(HEIGHT - BOTTOM),
            n(HEIGHT - BOTTOM + 4.0),
            n(HEIGHT - BOTTOM + 18.0),
            tick_label(tick, step),
            x = n(x),
        )
        .expect("writing to a string");
    }
    write!(
        svg,
        "<text class=\"axis name\" x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
        n(WIDTH - RIGHT),
        n(HEIGHT - 6.0),
        attribute(chart.x)
    )
    .expect("writing to a string");

    if let Some((at, label)) = chart.mark.as_ref().filter(|(at, _)| *at >= x_low && *at <= x_high) {
        let x = place_x(*at);
        let (anchor, nudge) = if x > WIDTH * 0.6 { ("end", 2.0) } else { ("start", -2.0) };
        write!(
            svg,
            "<line class=\"mark\" x1=\"{x}\" x2=\"{x}\" y1=\"{}\" y2=\"{}\"/><text class=\"axis marked\" x=\"{}\" y=\"{}\" text-anchor=\"{anchor}\">{}</text>",
            n(TOP - 4.0),
            n(HEIGHT - BOTTOM),
            n(x + nudge),
            n(TOP - 9.0),
            attribute(label),
            x = n(x),
        )
        .expect("writing to a string");
    }
    for series in &chart.series {
        let thinned = thin(&series.points, POINTS_MAX);
        let mut path = String::new();
        let mut pen_down = false;
        for &(x, y) in &thinned {
            if !drawable(&(x, y)) {
                pen_down = false;
                continue;
            }
            write!(path, "{}{} {}", if pen_down { "L" } else { "M" }, n(place_x(x)), n(place_y(y))).expect("writing to a string");
            pen_down = true;
        }
        write!(svg, "<path class=\"line {}\" d=\"{path}\"/>", series.class).expect("writing to a string");
        if series.dots || thinned.len() == 1 {
            for (x, y) in thinned.iter().filter(|point| drawable(point)) {
                write!(svg, "<circle class=\"dot {}\" cx=\"{}\" cy=\"{}\" r=\"3\"/>", series.class, n(place_x(*x)), n(place_y(*y)))
                    .expect("writing to a string");
            }
        }
    }
    svg.push_str("</svg>");
    svg
}

/// At most about `most` points: of each stretch the least and the greatest stay, in their order, and one that is not a number.
pub(super) fn thin(points: &[(f64, f64)], most: usize) -> Vec<(f64, f64)> {
    if points.len() <= most {
        return points.to_vec();
    }
    let stretch = points.len().div_ceil((most / 2).max(1));
    let mut out = Vec::with_capacity(most + 2);
    for chunk in points.chunks(stretch) {
        let mut keep: Vec<usize> = Vec::new();
        let finite = || (0..chunk.len()).filter(|at| chunk[*at].1.is_finite());
        keep.extend(finite().min_by(|a, b| chunk[*a].1.total_cmp(&chunk[*b].1)));
        keep.extend(finite().max_by(|a, b| chunk[*a].1.total_cmp(&chunk[*b].1)));
        keep.extend((0..chunk.len()).find(|at| !chunk[*at].1.is_finite()));
        keep.sort_unstable();
        keep.dedup();
        out.extend(keep.into_iter().map(|at| chunk[at]));
    }
    out
}

/// A whisker with a dot on a scale, for the cell of a table; the numbers stand beside it, so that it is not read aloud. `strong` is a
/// line of its own (0 for differences, the gate's bar), `guides` are faint.
pub(super) fn interval_bar(
    scale: (f64, f64),
    strong: Option<f64>,
    guides: &[f64],
    value: f64,
    interval: (f64, f64),
    class: &str,
) -> String {
    const W: f64 = 180.0;
    const H: f64 = 20.0;
    let span = if scale.1 > scale.0 { scale.1 - scale.0 } else { 1.0 };
    let place = |at: f64| 5.0 + ((at - scale.0) / span).clamp(0.0, 1.0) * (W - 10.0);
    let mut svg =
        format!("<svg class=\"bar\" viewBox=\"0 0 {W} {H}\" width=\"{W}\" height=\"{H}\" aria-hidden=\"true\" focusable=\"false\">");
    for (class, guide) in guides.iter().map(|guide| ("guide", guide)).chain(strong.iter().map(|guide| ("guide strong", guide))) {
        write!(svg, "<line class=\"{class}\" x1=\"{x}\" x2=\"{x}\" y1=\"0\" y2=\"{H}\"/>", x = n(place(*guide)))
            .expect("writing to a string");
    }
    if interval.0.is_finite() && interval.1.is_finite() {
        write!(
            svg,
            "<line class=\"whisker {class}\" x1=\"{a}\" x2=\"{b}\" y1=\"10\" y2=\"10\"/><path class=\"whisker {class}\" d=\"M{a} 6V14M{b} 6V14\"/>",
            a = n(place(interval.0)),
            b = n(place(interval.1)),
        )
        .expect("writing to a string");
    }
    if value.is_finite() {
        write!(svg, "<circle class=\"dot {class}\" cx=\"{}\" cy=\"10\" r=\"4\"/>", n(place(value))).expect("writing to a string");
    }
    svg.push_str("</svg>");
    svg
}

/// A small bar of one value on 0 to 1, for the cell of a table.
pub(super) fn share_bar(share: f64, class: &str) -> String {
    let width = if share.is_finite() { share.clamp(0.0, 1.0) * 90.0 } else { 0.0 };
    format!(
        "<svg class=\"bar\" viewBox=\"0 0 90 10\" width=\"90\" height=\"10\" aria-hidden=\"true\" focusable=\"false\"><rect class=\"track\" width=\"90\" height=\"10\"/><rect class=\"{class}\" width=\"{}\" height=\"10\"/></svg>",
        n(width)
    )
}

/// Parts of a whole beside each other: (class, count). `full` is the count that fills the width.
pub(super) fn stacked_bar(parts: &[(&str, u64)], full: u64, width: f64, height: f64) -> String {
    let mut svg = format!(
        "<svg class=\"bar stacked\" viewBox=\"0 0 {w} {h}\" width=\"{w}\" height=\"{h}\" preserveAspectRatio=\"none\" aria-hidden=\"true\" focusable=\"false\">",
        w = n(width),
        h = n(height)
    );
    let mut x = 0.0;
    for (class, part) in parts.iter().filter(|(_, part)| *part > 0) {
        let wide = *part as f64 / full.max(1) as f64 * width;
        write!(svg, "<rect class=\"{class}\" x=\"{}\" width=\"{}\" height=\"{}\"/>", n(x), n((wide - 0.8).max(0.4)), n(height))
            .expect("writing to a string");
        x += wide;
    }
    svg.push_str("</svg>");
    svg
}

/// One row of a dot plot: its label, and (class, value, interval) of each contender.
pub(super) struct DotRow<'a> {
    /// What is measured.
    pub(super) label: &'a str,
    /// The contenders.
    pub(super) dots: Vec<(String, f64, (f64, f64))>,
}

/// Intervals of several contenders in rows, on 0 to 100 %.
pub(super) fn dot_plot(id: &str, title: &str, description: &str, rows: &[DotRow<'_>]) -> String {
    const LANE: f64 = 9.0;
    const LABELS: f64 = 108.0;
    let most = rows.iter().map(|row| row.dots.len()).max().unwrap_or(0) as f64;
    let row_height = most * LANE + 14.0;
    let height = rows.len() as f64 * row_height + 26.0;
    let place = |share: f64| LABELS + share.clamp(0.0, 1.0) * (WIDTH - LABELS - 24.0);
    let mut svg = open(id, "chart", WIDTH, height, title, description);
    for tick in 0..=4 {
        let share = f64::from(tick) / 4.0;
        write!(
            svg,
            "<line class=\"grid\" x1=\"{x}\" x2=\"{x}\" y1=\"0\" y2=\"{}\"/><text class=\"axis\" x=\"{x}\" y=\"{}\" text-anchor=\"middle\">{}{}</text>",
            n(height - 20.0),
            n(height - 5.0),
            tick * 25,
            if tick == 4 { " %" } else { "" },
            x = n(place(share)),
        )
        .expect("writing to a string");
    }
    for (at, row) in rows.iter().enumerate() {
        let top = at as f64 * row_height;
        write!(
            svg,
            "<text class=\"axis label\" x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
            n(LABELS - 12.0),
            n(top + row_height / 2.0 + 4.0),
            attribute(&shorten(row.label, 15))
        )
        .expect("writing to a string");
        if at > 0 {
            write!(svg, "<line class=\"grid\" x1=\"0\" x2=\"{}\" y1=\"{y}\" y2=\"{y}\"/>", n(WIDTH), y = n(top))
                .expect("writing to a string");
        }
        let first = top + (row_height - (row.dots.len() as f64 - 1.0) * LANE) / 2.0;
        for (lane, (class, value, interval)) in row.dots.iter().enumerate() {
            let y = first + lane as f64 * LANE;
            if interval.0.is_finite() && interval.1.is_finite() {
                write!(
                    svg,
                    "<line class=\"whisker {class}\" x1=\"{}\" x2=\"{}\" y1=\"{y}\" y2=\"{y}\"/>",
                    n(place(interval.0)),
                    n(place(interval.1)),
                    y = n(y)
                )
                .expect("writing to a string");
            }
            if value.is_finite() {
                write!(svg, "<circle class=\"dot {class}\" cx=\"{}\" cy=\"{}\" r=\"3.6\"/>", n(place(*value)), n(y))
                    .expect("writing to a string");
            }
        }
    }
    svg.push_str("</svg>");
    svg
}

/// Labels up to which a confusion matrix has room for names and numbers.
pub(super) const NAMED_LABELS_MAX: usize = 24;

/// Rows: the right label; columns: the answer, the last one "invalid" where there is one more column than rows. The shade is the
/// share of the row.
pub(super) fn heat_map(id: &str, title: &str, description: &str, labels: &[String], counts: &[Vec<u64>]) -> String {
    let columns = counts.iter().map(Vec::len).max().unwrap_or(0);
    let named = labels.len() <= NAMED_LABELS_MAX;
    let cell: f64 = if named { 26.0 } else { (330.0 / columns.max(1) as f64).clamp(2.0, 8.0) };
    let longest = if named { labels.iter().map(|label| label.chars().count().min(18)).max().unwrap_or(0).max(7) } else { 0 };
    let left = if named { longest as f64 * 6.6 + 28.0 } else { 20.0 };
    let foot = if named { longest as f64 * 5.2 + 44.0 } else { 22.0 };
    let (width, height) = (left + columns as f64 * cell + if named { 8.0 } else { 2.0 }, counts.len() as f64 * cell + foot);
    let mut svg = open(id, "heat", width, height, title, description);
    let bottom = counts.len() as f64 * cell;
    write!(svg, "<rect class=\"field\" x=\"{}\" y=\"0\" width=\"{}\" height=\"{}\"/>", n(left), n(columns as f64 * cell), n(bottom))
        .expect("writing to a string");
    let name = |at: usize| labels.get(at).map_or("invalid", String::as_str);
    for (row, line) in counts.iter().enumerate() {
        let total: u64 = line.iter().sum();
        let y = row as f64 * cell;
        if named {
            write!(
                svg,
                "<text class=\"axis\" x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
                n(left - 6.0),
                n(y + cell / 2.0 + 4.0),
                attribute(&shorten(name(row), 18))
            )
            .expect("writing to a string");
        }
        for (column, &cases) in line.iter().enumerate().filter(|(_, cases)| **cases > 0) {
            let x = left + column as f64 * cell;
            let class = if row == column { "right" } else { "wrong" };
            let share = cases as f64 / total.max(1) as f64;
            write!(
                svg,
                "<rect class=\"cell {class}\" x=\"{}\" y=\"{}\" width=\"{w}\" height=\"{w}\" fill-opacity=\"{}\"><title>{} of {} “{}” answered “{}”</title></rect>",
                n(x + cell * 0.03),
                n(y + cell * 0.03),
                fixed(if named { 0.14 + 0.5 * share } else { 0.4 + 0.6 * share }, 2),
                count(cases),
                count(total),
                attribute(name(row)),
                attribute(name(column)),
                w = n(cell * 0.94),
            )
            .expect("writing to a string");
            if named {
                write!(
                    svg,
                    "<text class=\"cases\" x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                    n(x + cell / 2.0),
                    n(y + cell / 2.0 + 4.0),
                    cases
                )
                .expect("writing to a string");
            }
        }
    }
    if named {
        for column in 0..columns {
            let (x, y) = (left + (column as f64 + 0.5) * cell + 4.0, bottom + 10.0);
            write!(
                svg,
                "<text class=\"axis\" x=\"{x}\" y=\"{y}\" text-anchor=\"end\" transform=\"rotate(-50 {x} {y})\">{}</text>",
                attribute(&shorten(name(column), 18)),
                x = n(x),
                y = n(y)
            )
            .expect("writing to a string");
        }
    }
    write!(
        svg,
        "<text class=\"axis name\" x=\"{}\" y=\"{}\" text-anchor=\"end\">answer →</text><text class=\"axis name\" x=\"11\" y=\"{}\" text-anchor=\"middle\" transform=\"rotate(-90 11 {})\">← right label</text></svg>",
        n(width - 2.0),
        n(height - 4.0),
        n(bottom / 2.0),
        n(bottom / 2.0),
    )
    .expect("writing to a string");
    svg
}

/// A swatch for a legend.
pub(super) fn swatch(class: &str, dot: bool) -> String {
    let shape = if dot {
        "<circle class=\"dot {}\" cx=\"7\" cy=\"6\" r=\"4\"/>"
    } else {
        "<rect class=\"{}\" x=\"1\" y=\"1\" width=\"12\" height=\"10\"/>"
    };
    format!(
        "<svg class=\"swatch\" viewBox=\"0 0 14 12\" width=\"14\" height=\"12\" aria-hidden=\"true\" focusable=\"false\">{}</svg>",
        shape.replace("{}", class)
    )
}

/// Percent of the cases that lie on the diagonal, for descriptions.
pub(super) fn diagonal(counts: &[Vec<u64>]) -> (u64, u64, String) {
    let right = counts.iter().enumerate().map(|(at, row)| row.get(at).copied().unwrap_or(0)).sum();
    let all: u64 = counts.iter().flatten().sum();
    (right, all, percent(right as f64 / all as f64))
}

fn open(id: &str, class: &str, width: f64, height: f64, title: &str, description: &str) -> String {
    format!(
        "<svg class=\"{class}\" viewBox=\"0 0 {w} {h}\" width=\"{w}\" height=\"{h}\" role=\"img\" aria-labelledby=\"{id}-t {id}-d\"><title id=\"{id}-t\">{}</title><desc id=\"{id}-d\">{}</desc>",
        attribute(title),
        attribute(description),
        w = n(width),
        h = n(height),
    )
}

fn shorten(label: &str, characters: usize) -> String {
    let (head, left_out) = super::escape::cut(label, characters);
    if left_out == 0 { label.to_owned() } else { format!("{}…", super::escape::cut(head, characters - 1).0) }
}

/// A coordinate: at most one decimal, no trailing zero.
fn n(value: f64) -> String {
    let text = format!("{value:.1}");
    let text = text.strip_suffix(".0").unwrap_or(&text);
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_span() {
        assert_eq!(ticks(0.0, 1.0, 4), [0.0, 0.5, 1.0]);
        assert_eq!(ticks(0.0, 3.1, 4), [0.0, 1.0, 2.0, 3.0, 4.0]);
        assert_eq!(ticks(1.0, 210.0, 5), [0.0, 50.0, 100.0, 150.0, 200.0, 250.0]);
        for (low, high) in [(0.0, 0.0), (5.0, 5.0), (-3.0, -3.0), (f64::NAN, 1.0), (1e-9, 2e-9), (0.0, 1e12), (-1e-3, 1e-3)] {
            let ticks = ticks(low, high, 4);
            assert!(ticks.len() >= 2 && ticks.len() < 14, "{low} to {high}: {ticks:?}");
            assert!(ticks.windows(2).all(|pair| pair[0] < pair[1]), "{ticks:?}");
            if low.is_finite() {
                assert!(ticks[0] <= low && ticks[ticks.len() - 1] >= high, "{low} to {high}: {ticks:?}");
            }
        }
    }

    #[test]
    fn factors_span() {
        assert_eq!(factor_ticks(0.11, 1.9), [0.1, 0.2, 0.5, 1.0, 2.0]);
        assert_eq!(factor_ticks(2.0, 2.0), [2.0, 5.0]);
        assert_eq!(factor_ticks(1e-4, 50.0), [1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0]);
        assert!(factor_ticks(1e-300, 1e300).len() >= 2);
        assert!(
            spans_factors([2.0, f64::NAN, 0.1].into_iter())
                && !spans_factors([2.0, 0.0].into_iter())
                && !spans_factors([2.0, 1.0].into_iter())
        );
    }

    #[test]
    fn tick_labels_have_the_decimals_of_their_step() {
        assert_eq!(tick_label(0.5, 0.5), "0.5");
        assert_eq!(tick_label(1.0, 0.25), "1.00");
        assert_eq!(tick_label(0.0004, 0.0002), "0.0004");
        assert_eq!(tick_label(2e-5, 1e-5), "2e−5");
        assert_eq!(tick_label(2000.0, 500.0), "2,000");
    }

    #[test]
    fn thinning_keeps_extremes_and_ends_in_order() {
        let points: Vec<(f64, f64)> = (0..5000).map(|at| (f64::from(at), if at == 2500 { 9.0 } else { f64::from(at % 7) })).collect();
        let thinned = thin(&points, POINTS_MAX);
        assert!(thinned.len() <= POINTS_MAX + 2, "{}", thinned.len());
        assert!(thinned.contains(&(2500.0, 9.0)));
        assert!(thinned.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }

    #[test]
    fn gaps_break_the_line() {
        let series = |points| LineChart {
            id: "c",
            title: "t",
            description: "d",
            x: "step",
            series: vec![Series { class: "s1", points, dots: false }],
            mark: None,
            scale: Scale::FromZero,
        };
        let drawn = line_chart(&series(vec![(1.0, 1.0), (2.0, f64::NAN), (3.0, 2.0), (4.0, 3.0)]));
        assert_eq!(drawn.matches('M').count(), 2, "{drawn}");
        assert!(!drawn.contains("NaN"));
        assert!(line_chart(&series(vec![(1.0, f64::NAN)])).contains("no values"));
        assert!(line_chart(&series(Vec::new())).contains("no values"));
    }

    #[test]
    fn bars_stay_in_their_box() {
        let bar = interval_bar((0.0, 1.0), None, &[0.5], 7.0, (f64::NEG_INFINITY, 1.0), "s1");
        assert!(bar.contains("cx=\"175\"") && !bar.contains("whisker"), "{bar}");
        assert!(!interval_bar((0.0, 0.0), Some(0.0), &[], f64::NAN, (f64::NAN, 0.0), "s1").contains("NaN"));
    }
}
