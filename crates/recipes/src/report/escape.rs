//! Foreign text made harmless: customers write `<script>`, quotes, terminal escapes and characters that hide or turn text around.
//!
//! Markup is escaped, and every character that can't be seen (controls, bidirectional overrides, zero-width and tag
//! characters, line separators) is shown by its code as ⟨U+202E⟩. Line breaks and tabs stay. The joiners U+200C and
//! U+200D stay too: Persian and emoji need them.

use std::fmt::Write;

/// Whether a character acts on the text around it or can't be seen.
fn is_unseen(character: char) -> bool {
    matches!(character,
        '\u{0}'..='\u{8}' | '\u{b}'..='\u{1f}' | '\u{7f}'..='\u{9f}' // controls but tab and line feed
        | '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180e}'
        | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{fffe}' | '\u{ffff}' | '\u{e0000}'..='\u{e0fff}')
}

/// Text with its unseen characters made visible, for terminals and attributes to come. Carriage returns before line feeds vanish.
pub(super) fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for part in split(text) {
        match part {
            Part::Seen(seen) => out.push_str(seen),
            Part::Unseen(character) => write!(out, "⟨U+{:04X}⟩", u32::from(character)).expect("writing to a string"),
        }
    }
    out
}

/// Text for the page's body: escaped, unseen characters marked.
pub(super) fn html(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 8);
    for part in split(text) {
        match part {
            Part::Seen(seen) => push_escaped(&mut out, seen),
            Part::Unseen(character) => {
                write!(out, "<span class=\"unseen\">⟨U+{:04X}⟩</span>", u32::from(character)).expect("writing to a string");
            }
        }
    }
    out
}

/// Text for an attribute or an SVG title, where no element can stand.
pub(super) fn attribute(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 8);
    push_escaped(&mut out, &visible(text));
    out
}

/// The first so many characters, and how many were left out.
pub(super) fn cut(text: &str, characters: usize) -> (&str, usize) {
    match text.char_indices().nth(characters) {
        None => (text, 0),
        Some((at, _)) => (&text[..at], text[at..].chars().count()),
    }
}

enum Part<'a> {
    Seen(&'a str),
    Unseen(char),
}

fn split(text: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut start = 0;
    for (at, character) in text.char_indices() {
        if is_unseen(character) {
            parts.push(Part::Seen(&text[start..at]));
            start = at + character.len_utf8();
            if !(character == '\r' && text[start..].starts_with('\n')) {
                parts.push(Part::Unseen(character));
            }
        }
    }
    parts.push(Part::Seen(&text[start..]));
    parts
}

fn push_escaped(out: &mut String, text: &str) {
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            _ => out.push(character),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_is_text() {
        assert_eq!(html("<script>alert('1 & \"2\"')</script>"), "&lt;script&gt;alert(&#39;1 &amp; &quot;2&quot;&#39;)&lt;/script&gt;");
        assert_eq!(attribute("\" onload=\"x"), "&quot; onload=&quot;x");
    }

    #[test]
    fn unseen_characters_are_shown() {
        assert_eq!(html("pay\u{202e}001"), "pay<span class=\"unseen\">⟨U+202E⟩</span>001");
        assert_eq!(visible("\u{1b}[31mred\u{0}"), "⟨U+001B⟩[31mred⟨U+0000⟩");
        assert_eq!(visible("a\r\nb\rc\td"), "a\nb⟨U+000D⟩c\td");
        assert_eq!(visible("\u{e0041}\u{feff}"), "⟨U+E0041⟩⟨U+FEFF⟩");
        assert_eq!(visible("می‌خواهم 👨‍👩‍👧"), "می‌خواهم 👨‍👩‍👧");
    }

    #[test]
    fn cutting_counts_characters() {
        assert_eq!(cut("äöü", 2), ("äö", 1));
        assert_eq!(cut("äöü", 3), ("äöü", 0));
    }
}
