//! Text that was UTF-8, was read as Windows-1252 or Latin-1 and written as UTF-8 again: `Ã¤` for `ä`, once or more often.
//!
//! A run of characters beyond ASCII is repaired only if all of it is what a wrong reading of UTF-8 gives, and if it
//! begins as such a wrong reading nearly always does (`Ã`, `Â`, `â€`, `ð`); words that merely look odd are left alone.

use super::walk::Found;
use crate::{Document, Value};

/// Name of the attribute with the number of repaired runs of a document.
pub const MOJIBAKE: &str = "mojibake repaired";
/// Name of the attribute with the encoding of a document that was not UTF-8.
pub const ENCODING: &str = "encoding";
/// Wrong readings on top of each other that are undone.
const TIMES_MAX: usize = 3;

/// The characters of bytes 0x80 to 0x9F in Windows-1252; 0 where it has none.
const WINDOWS_1252: [u16; 32] = [
    0x20AC, 0, 0x201A, 0x0192, 0x201E, 0x2026, 0x2020, 0x2021, 0x02C6, 0x2030, 0x0160, 0x2039, 0x0152, 0, 0x017D, 0, 0, 0x2018, 0x2019,
    0x201C, 0x201D, 0x2022, 0x2013, 0x2014, 0x02DC, 0x2122, 0x0161, 0x203A, 0x0153, 0, 0x017E, 0x0178,
];

/// The byte that Windows-1252 or, where that has none, Latin-1 shows as this character.
fn byte_of(c: char) -> Option<u8> {
    match u32::from(c) {
        code @ 0x80..=0xFF => Some(code as u8),
        code => WINDOWS_1252.iter().position(|known| u32::from(*known) == code).map(|at| 0x80 + at as u8),
    }
}

/// Whether a run of bytes beyond ASCII begins as wrongly read UTF-8 does: Latin letters and signs (C2, C3), typographic
/// signs (E2 80, E2 82, E2 84), emoji (F0 9F); at least two letters of Latin Extended, Greek, Cyrillic, Hebrew or Arabic;
/// or the wrong reading of one of these.
fn looks_wrong(bytes: &[u8]) -> bool {
    matches!(
        bytes,
        [0xC2 | 0xC3, ..]
            | [0xE2, 0x80 | 0x82 | 0x84, ..]
            | [0xF0, 0x9F, ..]
            | [0xC4 | 0xC5 | 0xCE | 0xCF | 0xD0 | 0xD1 | 0xD7 | 0xD8 | 0xD9, _, 0xC3..=0xDF, ..]
            | [0xC4 | 0xC5, _]
    )
}

/// The text with wrong readings undone, and how many runs were repaired; nothing where there are none.
pub(super) fn repair(text: &str) -> Option<(String, u64)> {
    // Every wrong reading has a character of U+00C0 to U+00FF, whose first byte is C3.
    memchr::memchr(0xC3, text.as_bytes())?;
    let (mut out, mut runs, mut rest) = (String::new(), 0, text);
    while let Some(start) = rest.find(|c: char| !c.is_ascii()) {
        let end = rest[start..].find(|c: char| c.is_ascii()).map_or(rest.len(), |end| start + end);
        let run = &rest[start..end];
        out.push_str(&rest[..start]);
        match right_reading(run) {
            Some(right) => {
                out.push_str(&right);
                runs += 1;
            }
            None => out.push_str(run),
        }
        rest = &rest[end..];
    }
    out.push_str(rest);
    (runs > 0).then_some((out, runs))
}

/// What a run of characters beyond ASCII was before it was misread, if it was.
fn right_reading(run: &str) -> Option<String> {
    let (mut current, mut right) = (run.to_owned(), None);
    for _ in 0..TIMES_MAX {
        let Some(bytes) = current.chars().map(byte_of).collect::<Option<Vec<u8>>>() else { break };
        if !looks_wrong(&bytes) {
            break;
        }
        let Ok(reading) = String::from_utf8(bytes) else { break };
        current = reading;
        // Control characters are what a further wrong reading left, or no text at all.
        if !current.chars().any(char::is_control) {
            right = Some(current.clone());
        }
    }
    right
}

/// Repairs all texts of a document's fields; how many runs were repaired.
pub(super) fn repair_fields(fields: &mut [(String, Value)]) -> u64 {
    fields.iter_mut().map(|(_, value)| repair_value(value)).sum()
}

fn repair_value(value: &mut Value) -> u64 {
    match value {
        Value::Text(text) => match repair(text) {
            Some((right, runs)) => {
                *text = right;
                runs
            }
            None => 0,
        },
        Value::List(items) => items.iter_mut().map(repair_value).sum(),
        Value::Object(fields) => repair_fields(fields),
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    }
}

/// Says on the document and for the file what was repaired.
pub(super) fn note(document: &mut Document, repaired: u64, legacy: Option<&'static str>, found: &mut Found) {
    if repaired > 0 {
        document.attributes.push((MOJIBAKE, Value::Number(repaired.to_string())));
        found.count("documents with repaired mojibake", 1);
    }
    if let Some(encoding) = legacy {
        document.attributes.push((ENCODING, Value::Text(encoding.to_owned())));
        found.count("documents of another encoding", 1);
    }
}

#[cfg(test)]
mod tests {
    use super::repair;

    fn wrong(text: &str) -> String {
        text.bytes().map(|byte| encoding_rs::WINDOWS_1252.decode(&[byte]).0.into_owned()).collect()
    }

    #[test]
    fn once_twice_and_thrice_misread_text_comes_back() {
        for right in ["Grüße aus Köln", "naïve café – “so”…", "50 €", "Привет, мир", "Ελληνικά", "žluťoučký kůň", "😀 ok", "Straße §5"]
        {
            let mut text = right.to_owned();
            for _ in 0..3 {
                text = wrong(&text);
                assert_eq!(repair(&text).map(|(text, _)| text).as_deref(), Some(right), "{text}");
            }
        }
    }

    #[test]
    fn sound_text_is_left_alone() {
        for sound in ["Grüße", "«CAFÉ»", "SÃO PAULO", "Âge d’or", "10 °C ± 2", "“ÀÉÎ”", "ÐÑ", "Ç’est ÉTÉ", "日本語", "É»"]
        {
            assert_eq!(repair(sound), None, "{sound}");
        }
    }

    #[test]
    fn only_the_misread_runs_change() {
        assert_eq!(repair("Grüße, Ã¤ und ö"), Some(("Grüße, ä und ö".into(), 1)));
    }
}
