//! Numbers as the report writes them: fixed decimals, a true minus, thousands set apart, "not a number" where it is none.
//!
//! Numbers and their units are joined by a no-break space; [`super::text`] turns it into a plain one after wrapping.

/// No-break space.
const GAP: char = '\u{a0}';

/// What stands where a number is none.
pub(super) const NOT_A_NUMBER: &str = "not a number";

/// With so many decimals; never "−0.0".
pub(super) fn fixed(value: f64, decimals: usize) -> String {
    if value.is_nan() {
        return NOT_A_NUMBER.to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "∞" } else { "−∞" }.to_owned();
    }
    let text = format!("{:.decimals$}", value.abs());
    if value < 0.0 && text.contains(|digit| matches!(digit, '1'..='9')) { format!("−{text}") } else { text }
}

/// A share as percent with one decimal and its sign: "81.2 %".
pub(super) fn percent(share: f64) -> String {
    if share.is_nan() { NOT_A_NUMBER.to_owned() } else { format!("{}{GAP}%", fixed(share * 100.0, 1)) }
}

/// A share in points with one decimal and no unit: "81.2".
pub(super) fn points(share: f64) -> String {
    fixed(share * 100.0, 1)
}

/// The same with its sign, for differences: "+31.2".
pub(super) fn signed_points(share: f64) -> String {
    let text = points(share);
    if share > 0.0 && text != "0.0" { format!("+{text}") } else { text }
}

/// Two bounds in points: "26.8 to 35.5"; a dash where there is no interval.
pub(super) fn interval((low, high): (f64, f64)) -> String {
    if low.is_nan() || high.is_nan() { "–".to_owned() } else { format!("{} to {}", points(low), points(high)) }
}

/// Two bounds of a difference, with signs: "+26.8 to +35.5".
pub(super) fn signed_interval((low, high): (f64, f64)) -> String {
    if low.is_nan() || high.is_nan() { "–".to_owned() } else { format!("{} to {}", signed_points(low), signed_points(high)) }
}

/// "p < 0.001", "p = 0.042".
pub(super) fn p_value(p: f64) -> String {
    if p.is_nan() {
        "p unknown".to_owned()
    } else if p < 0.001 {
        format!("p{GAP}<{GAP}0.001")
    } else {
        format!("p{GAP}={GAP}{}", fixed(p, 3))
    }
}

/// A count with its thousands set apart: "210,000".
pub(super) fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A count and its noun: "1 item", "214 items".
pub(super) fn counted(value: u64, noun: &str) -> String {
    format!("{}{GAP}{noun}{}", count(value), if value == 1 { "" } else { "s" })
}

/// Bytes in binary units: "1.21 GiB".
pub(super) fn bytes(value: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut size = value as f64;
    let mut unit = 0;
    while size >= 1024.0 && unit + 1 < units.len() {
        size /= 1024.0;
        unit += 1;
    }
    let decimals = if unit == 0 { 0 } else { usize::from(size < 100.0) + usize::from(size < 10.0) };
    format!("{}{GAP}{}", fixed(size, decimals), units[unit])
}

/// Seconds as people say them: "0.4 s", "48 s", "6 min 12 s", "2 h 05 min".
pub(super) fn duration(seconds: f64) -> String {
    if seconds.is_nan() || seconds.is_infinite() {
        return NOT_A_NUMBER.to_owned();
    }
    if seconds < 9.95 {
        return format!("{}{GAP}s", fixed(seconds, 1));
    }
    let whole = seconds.round() as u64;
    match whole {
        0..60 => format!("{whole}{GAP}s"),
        60..3600 => format!("{}{GAP}min{GAP}{:02}{GAP}s", whole / 60, whole % 60),
        _ => format!("{}{GAP}h{GAP}{:02}{GAP}min", whole / 3600, whole % 3600 / 60),
    }
}

/// A large count in words of millions: "134.5 million"; smaller ones in full.
pub(super) fn parameters(value: u64) -> String {
    match value {
        0..1_000_000 => count(value),
        1_000_000..1_000_000_000 => format!("{}{GAP}million", fixed(value as f64 / 1e6, 1)),
        _ => format!("{}{GAP}billion", fixed(value as f64 / 1e9, 2)),
    }
}

/// "2026-11-24T06:38:31Z" as "2026-11-24 06:38:31 UTC"; anything else as it stands.
pub(super) fn moment(rfc3339: &str) -> String {
    match rfc3339.strip_suffix('Z').and_then(|rest| rest.split_once('T')) {
        Some((day, time)) => format!("{day} {} UTC", time.split('.').next().unwrap_or(time)),
        None => rfc3339.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(percent(0.8123), "81.2\u{a0}%");
        assert_eq!(signed_points(0.312), "+31.2");
        assert_eq!(signed_points(-0.004), "−0.4");
        assert_eq!(signed_points(-0.0001), "0.0");
        assert_eq!(interval((0.268, 0.355)), "26.8 to 35.5");
        assert_eq!(interval((f64::NAN, 1.0)), "–");
        assert_eq!(p_value(0.00001), "p\u{a0}<\u{a0}0.001");
        assert_eq!(p_value(0.0421), "p\u{a0}=\u{a0}0.042");
        assert_eq!(count(0), "0");
        assert_eq!(count(210_000), "210,000");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(counted(1, "item"), "1\u{a0}item");
        assert_eq!(bytes(512), "512\u{a0}B");
        assert_eq!(bytes(1_299_227_607), "1.21\u{a0}GiB");
        assert_eq!(duration(372.2), "6\u{a0}min\u{a0}12\u{a0}s");
        assert_eq!(duration(7500.0), "2\u{a0}h\u{a0}05\u{a0}min");
        assert_eq!(parameters(134_515_008), "134.5\u{a0}million");
        assert_eq!(moment("2026-11-24T06:38:31Z"), "2026-11-24 06:38:31 UTC");
        assert_eq!(fixed(f64::NAN, 2), "not a number");
        assert_eq!(percent(f64::INFINITY), "∞\u{a0}%");
    }
}
