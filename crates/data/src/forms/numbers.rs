//! Numbers with signs between thousands, or with a decimal comma.

use super::{DecimalMark, Found, stands_alone};
use regex::Regex;
use std::sync::LazyLock;

/// Digits with signs between them. A plain blank is none of these: it divides numbers from each other too.
static NUMBER: LazyLock<Regex> = LazyLock::new(|| Regex::new("\\d+(?:[.,'’\u{A0}\u{202F}\u{2009}]\\d+)+").expect("the pattern is right"));

/// All such numbers of a text.
pub(super) fn find(text: &str, mark: Option<DecimalMark>) -> Vec<Found> {
    let numbers = NUMBER.find_iter(text).map(|number| number.range());
    let alone = numbers.filter(|span| stands_alone(text, span, ".,/:-'’\u{A0}\u{202F}\u{2009}"));
    alone
        .filter_map(|span| match plain(&text[span.clone()], mark) {
            Read::None => None,
            Read::One(form) => Some(Found::new(span, Some(form))),
            Read::Several => Some(Found::new(span, None)),
        })
        .collect()
}

/// In how many ways digits with signs are a number.
#[derive(Debug, PartialEq)]
enum Read {
    None,
    One(String),
    Several,
}

fn plain(given: &str, mark: Option<DecimalMark>) -> Read {
    let signs: Vec<char> = given.chars().filter(|character| !character.is_ascii_digit()).collect();
    let (Some(first), Some(last)) = (signs.first().copied(), signs.last().copied()) else { return Read::None };
    let groups: Vec<&str> = given.split(|character: char| !character.is_ascii_digit()).collect();
    let thousands = |groups: &[&str]| {
        groups.len() > 1
            && (1..=3).contains(&groups[0].len())
            && !groups[0].starts_with('0')
            && groups[1..].iter().all(|group| group.len() == 3)
    };
    let (whole, fraction) = groups.split_at(groups.len() - 1);
    let all_of = |sign: char| signs.iter().all(|other| *other == sign);
    let point = |mark| if mark == DecimalMark::Point { '.' } else { ',' };
    if first != last {
        // 1.234,56: the last sign is the decimal one, and stands there once.
        let decimal = ".,".contains(last) && signs[..signs.len() - 1].iter().all(|sign| *sign == first) && thousands(whole);
        let as_meant = mark.is_none_or(|mark| point(mark) == last);
        return if decimal && as_meant { Read::One(format!("{}.{}", whole.concat(), fraction[0])) } else { Read::None };
    }
    if !".,".contains(first) {
        return if all_of(first) && thousands(&groups) { Read::One(groups.concat()) } else { Read::None };
    }
    if signs.len() > 1 {
        // Four groups of at most 255 are an address of a machine too.
        let address = first == '.' && groups.len() == 4 && groups.iter().all(|group| group.parse::<u8>().is_ok());
        return match (thousands(&groups), mark) {
            (false, _) => Read::None,
            (true, _) if address => Read::Several,
            (true, Some(mark)) if point(mark) == first => Read::None,
            (true, _) => Read::One(groups.concat()),
        };
    }
    // One sign: 1,234 and 1.234 are a thousand or little more than one, and 1,5 may be two numbers.
    let decimal = format!("{}.{}", groups[0], groups[1]);
    match mark {
        Some(mark) if point(mark) == first => Read::One(decimal),
        Some(_) if thousands(&groups) => Read::One(groups.concat()),
        // 1.5 has its form already, whatever is said of commas.
        Some(_) => Read::None,
        None if first == '.' && !thousands(&groups) => Read::None,
        None if first == ',' && groups[0] == "0" => Read::One(decimal),
        None => Read::Several,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use DecimalMark::{Comma, Point};

    #[test]
    fn each_number_by_what_is_known_of_it() {
        let one = |form: &str| Read::One(form.to_owned());
        for (given, unknown, with_point, with_comma) in [
            ("1,234.56", one("1234.56"), one("1234.56"), Read::None),
            ("1.234,56", one("1234.56"), Read::None, one("1234.56")),
            ("1,234,567", one("1234567"), one("1234567"), Read::None),
            ("1.234.567", one("1234567"), Read::None, one("1234567")),
            ("1'234'567.8", one("1234567.8"), one("1234567.8"), Read::None),
            ("1'234", one("1234"), one("1234"), one("1234")),
            ("12\u{202F}345,6", one("12345.6"), Read::None, one("12345.6")),
            ("1,234", Read::Several, one("1234"), one("1.234")),
            ("1.234", Read::Several, one("1.234"), one("1234")),
            ("1,5", Read::Several, Read::None, one("1.5")),
            ("1.5", Read::None, one("1.5"), Read::None),
            ("0,125", one("0.125"), Read::None, one("0.125")),
            ("10.100.200.250", Read::Several, Read::Several, Read::Several),
            ("192.168.1.1", Read::None, Read::None, Read::None),
            ("1,2,3", Read::None, Read::None, Read::None),
            ("1234,567.8", Read::None, Read::None, Read::None),
        ] {
            assert_eq!(
                (plain(given, None), plain(given, Some(Point)), plain(given, Some(Comma))),
                (unknown, with_point, with_comma),
                "{given}"
            );
        }
    }

    #[test]
    fn parts_of_other_things_are_left() {
        let found = |text: &str| find(text, None).len();
        assert_eq!((found("v1,234.56"), found("1,234.56a"), found("2026-1,234,567"), found("10:1,234,567")), (0, 0, 0, 0));
        assert_eq!((found("€1,234.56, and (1.234.567,8)."), found("plain 1234 or 12 345")), (2, 0));
    }
}
