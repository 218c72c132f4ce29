//! Units behind a number, as their symbols with a blank before them (BIPM, The International System of Units, §5.4).

use super::{Found, stands_alone};
use regex::Regex;
use std::collections::HashMap;
use std::sync::LazyLock;

/// Symbol, and how it is written otherwise: names in any case.
#[rustfmt::skip] // a table
const UNITS: &[(&str, &[&str])] = &[
    ("kg", &["kilogram", "kilograms", "kilogramme", "kilogrammes", "kilogramm", "kilo", "kilos", "kgs", "kg"]),
    ("g", &["gram", "grams", "gramme", "grammes", "gramm"]),
    ("mg", &["milligram", "milligrams", "milligramm", "mg"]),
    ("t", &["tonne", "tonnes"]),
    ("km", &["kilometre", "kilometres", "kilometer", "kilometers", "kms", "km"]),
    ("m", &["metre", "metres", "meter", "meters"]),
    ("cm", &["centimetre", "centimetres", "centimeter", "centimeters", "zentimeter", "cms", "cm"]),
    ("mm", &["millimetre", "millimetres", "millimeter", "millimeters"]),
    ("l", &["litre", "litres", "liter", "liters", "ltr", "ltrs"]),
    ("ml", &["millilitre", "millilitres", "milliliter", "milliliters", "ml"]),
    ("h", &["hour", "hours", "hr", "hrs", "stunde", "stunden", "heure", "heures"]),
    ("min", &["minute", "minutes", "mins", "minuten", "min"]),
    ("s", &["second", "seconds", "sec", "secs", "sekunde", "sekunden"]),
    ("ms", &["millisecond", "milliseconds", "millisekunden", "msec"]),
    ("%", &["percent", "per cent", "pct", "prozent", "%"]),
    ("°C", &["degrees celsius", "degree celsius", "deg c", "grad celsius", "°c", "° c", "℃"]),
    ("°F", &["degrees fahrenheit", "degree fahrenheit", "deg f", "grad fahrenheit", "°f", "° f", "℉"]),
    ("kWh", &["kilowatt hour", "kilowatt hours", "kilowatt-hour", "kilowatt-hours", "kilowattstunde", "kilowattstunden", "kwh"]),
    ("kW", &["kilowatt", "kilowatts", "kw"]),
    ("W", &["watt", "watts"]),
    ("V", &["volt", "volts"]),
    ("A", &["ampere", "amperes", "amp", "amps"]),
    ("Hz", &["hertz", "hz"]),
    ("GB", &["gigabyte", "gigabytes", "gb"]),
    ("MB", &["megabyte", "megabytes"]),
    ("m²", &["square metre", "square metres", "square meter", "square meters", "quadratmeter", "sqm", "m2", "m²"]),
    ("m³", &["cubic metre", "cubic metres", "cubic meter", "cubic meters", "kubikmeter", "cbm", "m3", "m³"]),
];

/// Names of several units: a ton is 907, 1000 or 1016 kg.
const SEVERAL: &[&str] =
    &["ton", "tons", "gallon", "gallons", "pint", "pints", "quart", "quarts", "ounce", "ounces", "oz", "mile", "miles"];

/// Longest first, so that kilowatt hours are no kilowatts.
static FORMS: LazyLock<(Regex, HashMap<&'static str, Option<&'static str>>)> = LazyLock::new(|| {
    let mut names: HashMap<&str, Option<&str>> = SEVERAL.iter().map(|name| (*name, None)).collect();
    UNITS.iter().for_each(|(symbol, others)| names.extend(others.iter().map(|name| (*name, Some(*symbol)))));
    let mut words: Vec<String> = names.keys().map(|name| regex::escape(name)).collect();
    words.sort_by_key(|word| (std::cmp::Reverse(word.len()), word.clone()));
    let pattern = format!(r"(?i)\d([ \u{{A0}}\u{{202F}}-]?)({})", words.join("|"));
    (Regex::new(&pattern).expect("the pattern is right"), names)
});

/// All units of a text that stand behind a number.
pub(super) fn find(text: &str) -> Vec<Found> {
    let (pattern, names) = &*FORMS;
    let mut found = Vec::new();
    for unit in pattern.captures_iter(text) {
        let (Some(gap), Some(name)) = (unit.get(1), unit.get(2)) else { continue };
        let span = gap.start()..name.end();
        // Only what follows matters: a digit stands before it.
        let ends = stands_alone(&text[gap.start()..], &(0..span.len()), "");
        // "5-minute walk" is one word, and stays it.
        if !ends || gap.as_str() == "-" {
            continue;
        }
        let symbol = names.get(name.as_str().to_lowercase().as_str()).copied().flatten();
        found.push(Found::new(span, symbol.map(|symbol| format!(" {symbol}"))));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(text: &str) -> String {
        let mut changed = text.to_owned();
        for Found { span, form } in find(text).into_iter().rev() {
            changed.replace_range(span, &form.unwrap_or_else(|| "?".into()));
        }
        changed
    }

    #[test]
    fn names_become_symbols() {
        for (given, form) in [
            ("5 kilograms", "5 kg"),
            ("5kgs of it", "5 kg of it"),
            ("2.5 Kilowatt hours", "2.5 kWh"),
            ("20 %, 20% or 20 percent", "20 %, 20 % or 20 %"),
            ("37.5 degrees Celsius and 37\u{B0}C", "37.5 \u{B0}C and 37 \u{B0}C"),
            ("10 Minuten, 3 hrs.", "10 min, 3 h."),
            ("40 m2", "40 m\u{B2}"),
            ("5 kg", "5 kg"),
        ] {
            assert_eq!(changed(given), form);
        }
    }

    #[test]
    fn what_is_no_unit_stays() {
        for text in ["a 5-minute walk", "5 minutiae", "5 m and 5 M", "kilograms", "seconds 5", "5 meterstick"] {
            assert_eq!(changed(text), text);
        }
        assert_eq!(find("3 tons").len(), 1);
        assert!(find("3 tons")[0].form.is_none());
    }
}
