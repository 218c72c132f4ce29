//! Dates: three numbers with a sign between them, or a day, a month's name and a year.

use super::{DateOrder, Found, stands_alone};
use regex::Regex;
use std::sync::LazyLock;

/// Names of the months, and how they are shortened, in English, German, French, Spanish, Italian and Dutch.
#[rustfmt::skip] // a table
const MONTHS: &[&[&str]] = &[
    &["january", "jan", "januar", "jänner", "janvier", "janv", "enero", "ene", "gennaio", "januari"],
    &["february", "feb", "februar", "feber", "février", "févr", "febrero", "febbraio", "februari"],
    &["march", "mar", "märz", "mrz", "mars", "marzo", "maart"],
    &["april", "apr", "avril", "avr", "abril", "abr", "aprile"],
    &["may", "mai", "mayo", "maggio", "mei"],
    &["june", "jun", "juni", "juin", "junio", "giugno"],
    &["july", "jul", "juli", "juillet", "juil", "julio", "luglio"],
    &["august", "aug", "août", "agosto", "ago", "augustus"],
    &["september", "sep", "sept", "septembre", "septiembre", "settembre"],
    &["october", "oct", "oktober", "okt", "octobre", "octubre", "ottobre"],
    &["november", "nov", "novembre", "noviembre"],
    &["december", "dec", "dezember", "dez", "décembre", "déc", "diciembre", "dic", "dicembre"],
];

fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("the pattern is right")
}

/// Three numbers, of which the first or the last may be a year.
static NUMBERS: LazyLock<Regex> = LazyLock::new(|| pattern(r"(\d{1,4})([./-])(\d{1,2})([./-])(\d{1,4})"));
/// 24 November 2026, 24th of November, 2026, 24. November 2026, 24 de noviembre de 2026
static DAY_FIRST: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"(\d{1,2})(?:st|nd|rd|th|er|º|\.)?(?: of| de)? ?(\p{L}{3,10})\.?,?(?: de| del)? ?(\d{4})"));
/// November 24, 2026
static MONTH_FIRST: LazyLock<Regex> = LazyLock::new(|| pattern(r"(\p{L}{3,10})\.? (\d{1,2})(?:st|nd|rd|th)?,? (\d{4})"));

/// All dates of a text, in order and apart.
pub(super) fn find(text: &str, order: Option<DateOrder>) -> Vec<Found> {
    let mut found = Vec::new();
    for date in NUMBERS.captures_iter(text) {
        let span = date.get_match().range();
        let (first, second, third) = (&date[1], &date[3], &date[5]);
        if date[2] == date[4] && stands_alone(text, &span, "./-:,") {
            match numbers(first, second, third, order) {
                Read::One(form) => found.push(Found::new(span, Some(form))),
                Read::Several => found.push(Found::new(span, None)),
                Read::None => {}
            }
        }
    }
    for (pattern, day, name) in [(&DAY_FIRST, 1, 2), (&MONTH_FIRST, 2, 1)] {
        for date in pattern.captures_iter(text) {
            let span = date.get_match().range();
            let number = |index: usize| date[index].parse::<u32>().unwrap_or(0);
            let named = month(&date[name]).and_then(|month| iso(number(3), month, number(day)));
            if let Some(form) = named.filter(|_| stands_alone(text, &span, "./-:,")) {
                found.push(Found::new(span, Some(form)));
            }
        }
    }
    found.sort_by_key(|found| (found.span.start, std::cmp::Reverse(found.span.end)));
    let mut end = 0;
    found.retain(|found| {
        found.span.start >= end && {
            end = found.span.end;
            true
        }
    });
    found
}

/// In how many ways three numbers are a date.
enum Read {
    None,
    One(String),
    Several,
}

fn numbers(first: &str, second: &str, third: &str, order: Option<DateOrder>) -> Read {
    let number = |text: &str| text.parse::<u32>().unwrap_or(0);
    let (a, b, c) = (number(first), number(second), number(third));
    match (first.len(), third.len()) {
        // A year first is followed by the month in every country.
        (4, 1..=2) => iso(a, b, c).map_or(Read::None, Read::One),
        (1..=2, 4) => match (iso(c, b, a), iso(c, a, b)) {
            (Some(day_first), Some(month_first)) if day_first != month_first => match order {
                Some(DateOrder::DayFirst) => Read::One(day_first),
                Some(DateOrder::MonthFirst) => Read::One(month_first),
                None => Read::Several,
            },
            (one, other) => one.or(other).map_or(Read::None, Read::One),
        },
        // A year of two digits: of which century, and is it the first or the last?
        (2, 2) if second.len() == 2 && (iso(2000, b, a).is_some() || iso(2000, a, b).is_some() || iso(2000, b, c).is_some()) => {
            Read::Several
        }
        _ => Read::None,
    }
}

fn month(name: &str) -> Option<u32> {
    let name = name.to_lowercase();
    let place = MONTHS.iter().position(|names| names.contains(&name.as_str()))?;
    Some(place as u32 + 1)
}

/// A day that exists, as ISO 8601 writes it.
fn iso(year: u32, month: u32, day: u32) -> Option<String> {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let days = match month {
        2 => 28 + u32::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    ((1000..=9999).contains(&year) && (1..=days).contains(&day)).then(|| format!("{year:04}-{month:02}-{day:02}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forms(text: &str, order: Option<DateOrder>) -> Vec<(String, Option<String>)> {
        find(text, order).into_iter().map(|found| (text[found.span].to_owned(), found.form)).collect()
    }

    #[test]
    fn what_can_be_read_in_one_way() {
        for text in [
            "24/11/2026",
            "11/24/2026",
            "24.11.2026",
            "24-11-2026",
            "2026/11/24",
            "2026.11.24",
            "2026-11-24",
            "24 November 2026",
            "24th of November, 2026",
            "24. Nov. 2026",
            "November 24, 2026",
            "Nov 24th 2026",
            "24 de noviembre de 2026",
            "24novembre2026",
        ] {
            assert_eq!(forms(&format!("on {text}."), None), [(text.to_owned(), Some("2026-11-24".to_owned()))], "{text}");
        }
        assert_eq!(forms("05/05/2026", None)[0].1.as_deref(), Some("2026-05-05"));
        assert_eq!(forms("1 März 2026 und 29.2.2024", None).len(), 2);
    }

    #[test]
    fn what_could_mean_several_is_left_unless_the_order_is_given() {
        assert_eq!(forms("03/04/2026", None), [("03/04/2026".to_owned(), None)]);
        assert_eq!(forms("03/04/2026", Some(DateOrder::DayFirst))[0].1.as_deref(), Some("2026-04-03"));
        assert_eq!(forms("03/04/2026", Some(DateOrder::MonthFirst))[0].1.as_deref(), Some("2026-03-04"));
        assert_eq!(forms("on 12.03.26", Some(DateOrder::DayFirst)), [("12.03.26".to_owned(), None)]);
    }

    #[test]
    fn what_is_no_date_is_left() {
        for text in [
            "32.13.2026",
            "31/02/2026",
            "29.02.2023",
            "1.2.3",
            "192.168.10.24",
            "A24/11/2026",
            "24/11/20261",
            "24/11-2026",
            "v2026.11.24.3",
            "May 2026",
            "Room 24 Foo 2026",
            "24/11/2026/7",
            "99-88-77",
        ] {
            assert_eq!(forms(text, Some(DateOrder::DayFirst)), [], "{text}");
        }
    }
}
