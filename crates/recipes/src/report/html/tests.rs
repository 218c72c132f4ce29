//! The page as a whole: well-formed, the same every time, harmless, complete.

use super::super::samples;
use super::page;

/// Elements that have no end.
const VOID: [&str; 4] = ["meta", "link", "br", "wbr"];

/// Every tag has its partner, ids are unique, attributes are quoted, and references lead somewhere.
fn check_well_formed(name: &str, page: &str) {
    let style = page.find("<style>").expect("a style sheet")..page.find("</style>").expect("its end");
    let page = format!("{}{}", &page[..style.start], &page[style.end + "</style>".len()..]);
    let (mut stack, mut ids, mut references) = (Vec::new(), Vec::new(), Vec::new());
    let mut rest = page.strip_prefix("<!doctype html>").expect("a doctype");
    while let Some(start) = rest.find('<') {
        assert!(!rest[..start].contains('>'), "{name}: a bare > before {}", &rest[start..(start + 60).min(rest.len())]);
        let end = start + rest[start..].find('>').unwrap_or_else(|| panic!("{name}: a tag without end"));
        let tag = &rest[start + 1..end];
        rest = &rest[end + 1..];
        if let Some(closed) = tag.strip_prefix('/') {
            assert_eq!(stack.pop(), Some(closed.to_owned()), "{name}: closing {closed} with {stack:?} open");
            continue;
        }
        let element = tag.split([' ', '/']).next().unwrap_or_default();
        assert!(element.chars().all(|letter| letter.is_ascii_alphanumeric()), "{name}: <{tag}>");
        assert_eq!(tag.matches('"').count() % 2, 0, "{name}: unbalanced quotes in <{tag}>");
        assert!(!tag.contains("NaN") && !tag.contains("inf"), "{name}: <{tag}>");
        for (at, part) in tag.split('"').enumerate() {
            if at % 2 == 0 {
                let attribute = part.trim().trim_end_matches('=');
                assert!(!attribute.starts_with("on"), "{name}: <{tag}>");
            }
        }
        let value =
            |key: &str| tag.split_once(&format!(" {key}=\"")).map(|(_, rest)| rest.split('"').next().unwrap_or_default().to_owned());
        ids.extend(value("id"));
        references.extend(value("href").filter(|href| href.starts_with('#')).map(|href| href[1..].to_owned()));
        references.extend(value("aria-labelledby").iter().flat_map(|list| list.split(' ')).map(str::to_owned));
        if !VOID.contains(&element) && !tag.ends_with('/') {
            stack.push(element.to_owned());
        }
    }
    assert!(stack.is_empty(), "{name}: left open: {stack:?}");
    for id in &ids {
        assert_eq!(ids.iter().filter(|other| *other == id).count(), 1, "{name}: id {id} stands twice");
    }
    for reference in &references {
        assert!(ids.contains(reference), "{name}: nothing has the id {reference}");
    }
}

#[test]
fn every_page_is_well_formed_and_loads_nothing() {
    for (name, report) in samples::all() {
        let page = page(&report);
        check_well_formed(name, &page);
        for forbidden in ["<script", "<iframe", "<object", "<embed", "<form", "<img", "javascript:", "http:", "https:", "url(", "@import"] {
            assert!(!page.contains(forbidden), "{name}: {forbidden}");
        }
    }
}

#[test]
fn the_same_report_gives_the_same_bytes() {
    for (name, report) in samples::all() {
        assert_eq!(page(&report), page(&report.clone()), "{name}");
    }
}

#[test]
fn hostile_text_is_only_text() {
    let page = page(&samples::hostile());
    assert!(page.contains("&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt;"));
    for unseen in ['\u{202e}', '\u{0}', '\u{1b}', '\u{200b}', '\u{feff}'] {
        assert!(!page.contains(unseen), "U+{:04X}", u32::from(unseen));
    }
    assert!(page.contains("<span class=\"unseen\">⟨U+202E⟩</span>gnp.exe"));
}

#[test]
fn the_verdict_says_its_reason() {
    let page = page(&samples::tickets()).replace('\u{a0}', " ");
    assert!(page.contains("Tuned beats few-shot by 31.2 points (95 % interval 26.8 to 35.5) on 214 held-out items, p &lt; 0.001"));
    assert!(page.contains("With 214 items a difference of at least 9.8 points can be proved"));
    assert!(page.contains("210,000 tokens rendered, 31,000 computed"));
    assert!(page.contains("<span class=\"blank\">BLANK</span>"));
}

#[test]
fn what_is_refused_says_what_it_was_refused_for() {
    let page = page(&samples::refused()).replace('\u{a0}', " ");
    assert!(page.contains(
        "Tuned loses to few-shot by 6.1 points (95 % interval 2.1 to 10.2) on 214 held-out items, p = 0.004; refused on: beats few-shot."
    ));
    assert!(page.contains("The gate does not name every rival: classical is 4.1 points ahead of tuned"));
}

#[test]
fn nothing_yet_is_said_in_words() {
    let page = page(&samples::empty());
    for sentence in [
        "no verdict yet",
        "No arm was measured yet.",
        "Nothing has been trained yet.",
        "No row has been read yet.",
        "No source was read yet.",
    ] {
        assert!(page.contains(sentence), "{sentence}");
    }
}

#[test]
fn what_was_left_out_is_named() {
    for (name, report) in samples::all().into_iter().filter(|(_, report)| report.redacted) {
        let page = page(&report);
        assert!(page.contains("Customer text was left out of this copy."), "{name}");
        assert!(!page.contains("<blockquote"), "{name}");
        assert!(!page.contains("(empty)</em></span></summary>"), "{name}");
    }
}

#[test]
fn long_lists_are_capped_and_say_so() {
    let page = page(&samples::banking());
    assert!(page.contains("more in report.json"));
    assert!(page.len() < 900_000, "{} bytes", page.len());
    assert!(page.contains("The 20 most frequent of"));
}

#[test]
fn what_is_no_number_says_so() {
    let page = page(&samples::not_numbers());
    assert!(page.contains("not a number"));
    assert!(page.contains("134 of 224\u{a0}steps whose loss or gradient norm is not a number"));
}
