//! What is looked at in one record alone: its form, its language, its quality, and what must not be trained on.
//!
//! Documents stay as they were given. [`Clean::apply`] changes a record's texts where that was asked for (white space,
//! Unicode, masked secrets), and says what it found in it, or gives a reason to reject it. It is a pure function of the
//! record, so that what happened to a row can be replayed.

use crate::forms::Forms;
use crate::language::language;
use crate::near::{fold, hash_bytes, mix};
use crate::steps::{Policy, Reason};
use crate::{Answer, Document, FieldValue, Record, Value};
use regex::Regex;
use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::LazyLock;
use text::Role;
use unicode_normalization::{UnicodeNormalization, is_nfc_quick};

/// Texts of fewer words are not judged by shares of words and lines.
const QUALITY_WORDS: usize = 20;
/// Longest run of one character, other than white space, in a usable text.
const QUALITY_RUN: usize = 60;

/// What to do with secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secrets {
    /// Say how many records have some.
    Report,
    /// Put the kind of secret in its place.
    Mask,
    /// Reject the record.
    Drop,
}

/// Rows that are valid until a day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outdated {
    /// The column with the last day of validity, as `2026-11-24`, or any text that begins so.
    pub column: String,
    /// Rows that were valid only before this day are outdated.
    pub before: String,
    /// What happens to them.
    pub policy: Policy,
}

impl Outdated {
    /// Looks at a document: nothing, a finding, or a reason.
    pub fn apply(&self, document: &Document, findings: &mut Findings) -> Result<(), (&'static str, Reason)> {
        let text = document.field(&self.column).map(Value::to_text).unwrap_or_default();
        let text = text.trim();
        match day(text) {
            None if text.is_empty() => Ok(()),
            None => {
                findings.push(("outdated", "no date such as 2026-11-24".into()));
                Ok(())
            }
            Some(day) if day < self.before.as_str() => {
                judged(self.policy, findings, "outdated", "outdated".into(), || Reason::Outdated { until: day.to_owned() })
            }
            Some(_) => Ok(()),
        }
    }
}

/// The day with which a text begins, as ISO 8601 writes it.
pub fn day(text: &str) -> Option<&str> {
    let day = text.get(..10)?;
    let digits = |range: std::ops::Range<usize>| day[range].bytes().all(|byte| byte.is_ascii_digit());
    let shaped = day.is_ascii() && digits(0..4) && &day[4..5] == "-" && digits(5..7) && &day[7..8] == "-" && digits(8..10);
    let within = |range: std::ops::Range<usize>, most: u32| day[range].parse::<u32>().is_ok_and(|n| (1..=most).contains(&n));
    let ends = text[10..].chars().next().is_none_or(|next| !next.is_alphanumeric() || next == 'T');
    (shaped && within(5..7, 12) && within(8..10, 31) && ends).then_some(day)
}

/// What is done to each record.
#[derive(Clone, Debug, Default)]
pub struct Clean {
    /// Unicode NFC, one kind of line end, no invisible characters, no runs of blanks.
    pub normalise: bool,
    /// Languages to keep, as ISO 639-3 codes; empty: all, and none is told.
    pub languages: Vec<String>,
    /// Whether languages are told at all.
    pub tell_language: bool,
    /// Texts that are no running text: repeated lines, mostly symbols.
    pub quality: Option<Policy>,
    /// Keys, tokens, passwords.
    pub secrets: Option<Secrets>,
    /// Folded words and phrases that must not occur, and what happens if one does.
    pub words: HashSet<String>,
    /// See `words`.
    pub words_policy: Option<Policy>,
    /// Texts that break off.
    pub incomplete: Option<Policy>,
    /// Dates, numbers and units of what is asked, each in one form.
    pub forms: Forms,
}

/// What was found in a record, or done to it: (step, what), to be counted.
pub type Findings = Vec<(&'static str, Cow<'static, str>)>;

impl Clean {
    /// Cleans a record. Rejects carry the step's name.
    pub fn apply(&self, record: &mut Record, findings: &mut Findings) -> Result<(), (&'static str, Reason)> {
        let answer = match &record.answer {
            Answer::Text(text) => hidden(text),
            Answer::Fields(fields) => fields.iter().find_map(|(_, value)| hidden(&value.to_text())),
        };
        if let Some(what) = record.messages.iter().find_map(|message| hidden(&message.content)).or(answer) {
            findings.push(("hidden", what.into()));
        }
        if self.normalise && self.texts(record, normalise) {
            findings.push(("normalise", "changed".into()));
        }
        if let Some(policy) = self.secrets {
            self.secrets(record, policy, findings)?;
        }
        self.forms.apply(record, findings);
        let asked = record.asked();
        if let Some(policy) = self.incomplete
            && let Some(problem) = cut(&asked).or_else(|| cut(&record.answer.to_text()))
        {
            judged(policy, findings, "incomplete", problem.into(), || Reason::Incomplete { problem })?;
        }
        if let Some(policy) = self.quality
            && let Some(rule) = poor(&asked)
        {
            judged(policy, findings, "quality", rule.into(), || Reason::Quality { rule })?;
        }
        if let Some(policy) = self.words_policy
            && (contains(&fold(&asked), &self.words) || contains(&fold(&record.answer.to_text()), &self.words))
        {
            judged(policy, findings, "words", "listed word".into(), || Reason::ListedWord)?;
        }
        if self.tell_language {
            let language = language(&asked);
            findings.push(("language", language.unwrap_or("unknown").into()));
            if let Some(language) = language.filter(|code| !self.languages.is_empty() && !self.languages.iter().any(|kept| kept == code)) {
                return Err(("language", Reason::Language { found: language }));
            }
        }
        Ok(())
    }

    fn secrets(&self, record: &mut Record, policy: Secrets, findings: &mut Findings) -> Result<(), (&'static str, Reason)> {
        let mut kinds: Vec<&'static str> = Vec::new();
        for message in record.messages.iter().filter(|message| message.role != Role::System) {
            kinds.extend(secrets(&message.content).map(|(kind, _)| kind));
        }
        kinds.extend(secrets(&record.answer.to_text()).map(|(kind, _)| kind));
        kinds.sort_unstable();
        kinds.dedup();
        let Some(kind) = kinds.first().copied() else { return Ok(()) };
        findings.extend(kinds.iter().map(|kind| ("secrets", Cow::Borrowed(*kind))));
        match policy {
            Secrets::Report => Ok(()),
            Secrets::Drop => Err(("secrets", Reason::Secret { kind })),
            Secrets::Mask => {
                self.texts(record, mask);
                Ok(())
            }
        }
    }

    /// Changes all texts but the system message; whether any is another now.
    fn texts(&self, record: &mut Record, change: impl Fn(&str) -> Cow<'_, str>) -> bool {
        let mut changed = false;
        let mut one = |text: &mut String| {
            if let Cow::Owned(new) = change(text)
                && new != *text
            {
                *text = new;
                changed = true;
            }
        };
        record.messages.iter_mut().filter(|message| message.role != Role::System).for_each(|message| one(&mut message.content));
        match &mut record.answer {
            Answer::Text(text) => one(text),
            Answer::Fields(fields) => fields.iter_mut().for_each(|(_, value)| {
                if let FieldValue::Text(text) = value {
                    one(text);
                }
            }),
        }
        changed
    }
}

fn judged(
    policy: Policy,
    findings: &mut Findings,
    step: &'static str,
    what: Cow<'static, str>,
    reason: impl Fn() -> Reason,
) -> Result<(), (&'static str, Reason)> {
    findings.push((step, what));
    if policy == Policy::Drop { Err((step, reason())) } else { Ok(()) }
}

/// Characters that a person does not see and a model reads: tags, which write whole sentences (a flag of a region has a few, and is
/// found too), and signs that turn the direction of what follows.
fn hidden(text: &str) -> Option<&'static str> {
    if text.is_ascii() {
        return None;
    }
    text.chars().find_map(|character| match character {
        '\u{E0000}'..='\u{E007F}' => Some("tag characters"),
        '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}' => Some("signs that turn the direction"),
        _ => None,
    })
}

/// Whether a text is nothing but visible ASCII in one line, with one blank between words and none around them: most texts
/// are, and then there is nothing to normalise.
pub(crate) fn is_plain(text: &str) -> bool {
    // Without early ends, so that it is done many bytes at a time.
    let bytes = text.as_bytes();
    let visible = bytes.iter().fold(true, |visible, byte| visible & matches!(byte, b' '..=b'~'));
    let blanks = bytes.iter().zip(bytes.iter().skip(1)).fold(false, |found, (a, b)| found | ((*a == b' ') & (*b == b' ')));
    visible && !blanks && !text.starts_with(' ') && !text.ends_with(' ')
}

/// The words of a text, as white space parts them.
pub(crate) fn words(text: &str) -> Vec<&str> {
    if is_plain(text) { text.split(' ').filter(|word| !word.is_empty()).collect() } else { text.split_whitespace().collect() }
}

/// NFC; `\r\n` and `\r` as `\n`; no control, zero-width or direction characters; runs of blanks as one, none at the end of
/// a line; at most one empty line in a row; the same line at most twice in a row; nothing around the whole.
pub fn normalise(text: &str) -> Cow<'_, str> {
    if is_plain(text) {
        return Cow::Borrowed(text);
    }
    let nfc: Cow<'_, str> = match is_nfc_quick(text.chars()) {
        _ if text.is_ascii() => Cow::Borrowed(text),
        unicode_normalization::IsNormalized::Yes => Cow::Borrowed(text),
        _ => Cow::Owned(text.nfc().collect()),
    };
    let mut lines: Vec<String> = Vec::new();
    for line in nfc.replace("\r\n", "\n").split(['\n', '\r', '\u{2028}', '\u{2029}', '\u{85}']) {
        let mut clean = String::with_capacity(line.len());
        // Indentation means something in code and lists: only runs inside a line become one blank.
        let body = line.trim_start_matches([' ', '\t']);
        clean.push_str(&line[..line.len() - body.len()]);
        let mut blank = false;
        for character in body.chars() {
            match character {
                '\u{200B}'..='\u{200F}'
                | '\u{202A}'..='\u{202E}'
                | '\u{2060}'..='\u{2069}'
                | '\u{FEFF}'
                | '\u{AD}'
                | '\u{E0000}'..='\u{E007F}' => {}
                _ if character.is_whitespace() => blank = true,
                _ if character.is_control() => {}
                _ => {
                    if std::mem::take(&mut blank) {
                        clean.push(' ');
                    }
                    clean.push(character);
                }
            }
        }
        if body.trim().is_empty() {
            clean.clear();
        }
        let last_two = lines.len() >= 2 && lines[lines.len() - 2..].iter().all(|line| *line == clean);
        let empty_again = clean.is_empty() && lines.last().is_some_and(String::is_empty);
        if !last_two && !empty_again {
            lines.push(clean);
        }
    }
    let joined = lines.join("\n");
    let trimmed = joined.trim_matches('\n');
    let trimmed = trimmed.trim_end();
    // A first line keeps its indentation only where another follows.
    let trimmed = if trimmed.contains('\n') { trimmed } else { trimmed.trim_start() };
    if trimmed == text { Cow::Borrowed(text) } else { Cow::Owned(trimmed.to_owned()) }
}

/// Why a text seems to break off: an ellipsis of an export's limit, or a word divided at the end. An ordinary text without a
/// full stop is none of these.
fn cut(text: &str) -> Option<&'static str> {
    let end = text.trim_end();
    if ["[...]", "[…]", "(...)", "[truncated]", "(truncated)", "<truncated>", "… (more)", "[cut]"].iter().any(|mark| end.ends_with(mark))
    {
        return Some("it ends with a mark of truncation");
    }
    if end.chars().count() >= 200 && end.ends_with(['-', '\u{2010}']) && !end.ends_with("--") {
        return Some("it ends within a word");
    }
    if text.contains('\u{FFFD}') {
        return Some("it has characters that were lost (U+FFFD)");
    }
    None
}

/// The rule by which a text is no running text, after the heuristics of C4 (Raffel et al., arXiv 1910.10683, §2.2) and
/// Gopher (Rae et al., arXiv 2112.11446, table A1), kept to those that hold for short texts in any language.
pub fn poor(text: &str) -> Option<&'static str> {
    // A character of ASCII is a byte, and most texts are nothing else.
    let marks = if text.is_ascii() { Marks::of(text.bytes().map(char::from)) } else { Marks::of(text.chars()) };
    if marks.longest_run > QUALITY_RUN {
        return Some("one character repeated");
    }
    if marks.letters + marks.others >= 40 && marks.others > marks.letters {
        return Some("more symbols than letters");
    }
    let words = words(text);
    if words.len() < QUALITY_WORDS {
        return None;
    }
    let length = marks.characters;
    if length > 40 * words.len() {
        return Some("words of more than 40 characters on average");
    }
    let placeholder = |pair: &[&str]| {
        let end = pair[0].len().checked_sub(5).and_then(|at| pair[0].get(at..));
        end.is_some_and(|end| end.eq_ignore_ascii_case("lorem")) && pair[1].get(..5).is_some_and(|word| word.eq_ignore_ascii_case("ipsum"))
    };
    if words.windows(2).any(placeholder) {
        return Some("placeholder text");
    }
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if lines.len() >= 6 {
        let distinct: HashSet<&str> = lines.iter().copied().collect();
        if 10 * (lines.len() - distinct.len()) > 3 * lines.len() {
            return Some("more than 30 % of its lines are repeated");
        }
    }
    // The most frequent pair of words, by the characters it covers; pairs by their hashes, with their characters.
    let hashed: Vec<(u64, usize)> = words.iter().map(|word| (hash_bytes(word.as_bytes()), word.chars().count())).collect();
    let mut pairs: Vec<(u64, usize)> =
        hashed.windows(2).map(|pair| (mix(pair[0].0.rotate_left(1) ^ pair[1].0), pair[0].1 + pair[1].1)).collect();
    pairs.sort_unstable();
    let covered = |equal: &[(u64, usize)]| if equal.len() > 1 { equal[0].1 * equal.len() } else { 0 };
    let most = pairs.chunk_by(|a, b| a.0 == b.0).map(covered).max().unwrap_or(0);
    (5 * most > 2 * length).then_some("one pair of words makes up more than 40 % of it")
}

/// What kinds of characters a text has, white space not counted.
#[derive(Default)]
struct Marks {
    characters: usize,
    letters: usize,
    /// Neither letters nor numbers.
    others: usize,
    /// Most of one character in a row.
    longest_run: usize,
}

impl Marks {
    fn of(characters: impl Iterator<Item = char>) -> Self {
        let (mut marks, mut run, mut last) = (Self::default(), 0, '\0');
        for character in characters.filter(|character| !character.is_whitespace()) {
            marks.characters += 1;
            if character.is_alphabetic() {
                marks.letters += 1;
            } else if !character.is_numeric() {
                marks.others += 1;
            }
            run = if character == last { run + 1 } else { 1 };
            marks.longest_run = marks.longest_run.max(run);
            last = character;
        }
        marks
    }
}

/// Whether a folded text contains a listed word, or a listed phrase of at most four words.
fn contains(folded: &str, listed: &HashSet<String>) -> bool {
    let words: Vec<&str> = folded.split(' ').collect();
    (1..=4).any(|n| words.windows(n).any(|window| listed.contains(&window.join(" "))))
}

/// Kinds of secrets and how they look; formats as their issuers publish them.
const SECRETS: &[(&str, &str)] = &[
    ("private key", r"-----BEGIN [A-Z ]*PRIVATE KEY-----(?s:.*?-----END [A-Z ]*PRIVATE KEY-----)?"),
    ("AWS access key", r"\b(?:AKIA|ASIA|AROA|AIDA)[A-Z0-9]{16}\b"),
    ("GitHub token", r"\b(?:gh[pousr]_[A-Za-z0-9]{36}[A-Za-z0-9]*|github_pat_[A-Za-z0-9_]{22}[A-Za-z0-9_]*)"),
    ("GitLab token", r"\bglpat-[A-Za-z0-9_-]{20}[A-Za-z0-9_-]*"),
    ("Slack token", r"\bxox[abeoprs]-[A-Za-z0-9-]{10}[A-Za-z0-9-]*"),
    ("Google API key", r"\bAIza[A-Za-z0-9_-]{35}"),
    ("Stripe key", r"\b[rs]k_(?:live|test)_[A-Za-z0-9]{16}[A-Za-z0-9]*"),
    ("OpenAI key", r"\bsk-(?:proj-|svcacct-)?[A-Za-z0-9_-]{20}[A-Za-z0-9_-]*"),
    ("Hugging Face token", r"\bhf_[A-Za-z0-9]{30}[A-Za-z0-9]*"),
    ("JSON web token", r"\beyJ[A-Za-z0-9_-]{10}[A-Za-z0-9_-]*\.eyJ[A-Za-z0-9_-]{10}[A-Za-z0-9_-]*\.[A-Za-z0-9_-]{10}[A-Za-z0-9_-]*"),
    ("password in a URL", r"\b[a-z][a-z0-9+.-]*://[^\s/:@]+:[^\s/@]{3}[^\s/@]*@[A-Za-z0-9.-]{3}[A-Za-z0-9.-]*"),
    ("password", r"(?i:\b(?:password|passwd|pwd|passwort|secret|api[_-]?key)\s{0,3}[=:]\s{0,3}[^\s,;]{6}[^\s,;]*)"),
];

static SECRET: LazyLock<Regex> = LazyLock::new(|| {
    let alternatives: Vec<String> = SECRETS.iter().map(|(_, pattern)| format!("({pattern})")).collect();
    Regex::new(&alternatives.join("|")).expect("the patterns are constants, and a test compiles them")
});

/// The secrets of a text: their kind, and where they are.
pub fn secrets(text: &str) -> impl Iterator<Item = (&'static str, std::ops::Range<usize>)> + '_ {
    SECRET.captures_iter(text).filter_map(|found| {
        let kind = SECRETS[(1..=SECRETS.len()).find(|group| found.get(*group).is_some())? - 1].0;
        let whole = found.get(0)?;
        // "Password: forgotten" is a subject line; what has no digit is rarely a password, and never a good one.
        (kind != "password" || whole.as_str().bytes().any(|byte| byte.is_ascii_digit())).then(|| (kind, whole.range()))
    })
}

fn mask(text: &str) -> Cow<'_, str> {
    let mut masked = String::new();
    let mut end = 0;
    for (kind, range) in secrets(text) {
        masked.push_str(&text[end..range.start]);
        masked.push_str(&format!("[{kind}]"));
        end = range.end;
    }
    if end == 0 {
        return Cow::Borrowed(text);
    }
    masked.push_str(&text[end..]);
    Cow::Owned(masked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalised_texts_look_the_same_and_compare_equal() {
        assert_eq!(normalise("a\u{E0049}\u{E0067}b \u{202E}c\u{2069}"), "ab c");
        assert_eq!((hidden("a\u{E0049}"), hidden("\u{2067}a").is_some(), hidden("Köln 👍🏽")), (Some("tag characters"), true, None));
        assert_eq!(normalise("cafe\u{301}  au\u{200B} lait \r\n\r\n\r\nnext\tline\u{7}"), "café au lait\n\nnext line");
        assert_eq!(normalise("  indented\n    code"), "  indented\n    code");
        assert_eq!(normalise("a\na\na\na\nb"), "a\na\nb");
        assert!(matches!(normalise("plain text"), Cow::Borrowed(_)));
        for text in ["  x ", "\u{FEFF}e\u{301}\r\r\r\rx", "a\n\n\n\nb\u{2028}c"] {
            let once = normalise(text).into_owned();
            assert_eq!(normalise(&once), once, "{text:?}");
        }
    }

    #[test]
    fn secrets_are_found_and_masked() {
        let key = format!("AKIA{}", "ABCDEFGHIJKLMNOP");
        let token = format!("ghp_{}", "a1".repeat(18));
        let text = format!("use {key} and {token}, password: hunter2222, or https://me:geheim@db.example.com/x");
        let kinds: Vec<&str> = secrets(&text).map(|(kind, _)| kind).collect();
        assert_eq!(kinds, ["AWS access key", "GitHub token", "password", "password in a URL"]);
        assert_eq!(mask(&text), "use [AWS access key] and [GitHub token], [password], or [password in a URL]/x");
        assert_eq!(secrets("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----").count(), 1);
        for harmless in [
            "my password does not work",
            "Password: forgotten",
            "the secret: a good soup",
            "order AKIA-12",
            "skating",
            "12:30 at https://a.example/b",
        ] {
            assert_eq!(secrets(harmless).count(), 0, "{harmless}");
        }
    }

    #[test]
    fn poor_texts_are_told_from_short_ones() {
        assert_eq!(poor("ok"), None);
        assert_eq!(poor("Order 4711-2, 3 x 12.50 EUR = 37.50 EUR"), None);
        assert_eq!(poor(&"=".repeat(80)), Some("one character repeated"));
        assert_eq!(poor(&"-*- #! ".repeat(20)), Some("more symbols than letters"));
        assert_eq!(poor(&"buy now ".repeat(20)), Some("one pair of words makes up more than 40 % of it"));
        assert_eq!(poor(&"Home and more\nAbout us all\n".repeat(6)), Some("more than 30 % of its lines are repeated"));
        let prose = "The parcel arrived on Monday, but the box was open and one of the two cups inside was broken. Could you send a new \
                     one to the same address, please? I have added two photographs of it.";
        assert_eq!(poor(prose), None);
    }

    #[test]
    fn cut_texts_and_listed_words() {
        assert!(cut("see the rest [...]").is_some());
        assert!(cut("lost \u{FFFD} character").is_some());
        assert!(cut("no full stop at the end").is_none());
        let listed = HashSet::from(["damn".to_owned(), "go to hell".to_owned()]);
        assert!(contains(&fold("Oh DAMN!"), &listed) && contains(&fold("you can go, to hell."), &listed));
        assert!(!contains(&fold("the dam broke; hello"), &listed));
    }

    #[test]
    fn rows_are_valid_until_a_day() {
        assert_eq!(day("2026-11-24"), Some("2026-11-24"));
        assert_eq!(day("2026-11-24T10:00:00Z"), Some("2026-11-24"));
        for no in ["24.11.2026", "2026-13-01", "2026-11-245", "2026-1-1", "für immer!!", ""] {
            assert_eq!(day(no), None, "{no}");
        }
        let outdated = Outdated { column: "until".into(), before: "2026-01-01".into(), policy: Policy::Drop };
        let apply = |text: &str| {
            let origin = crate::Origin { source: "s".into(), inner: String::new(), row: 1, line: 1 };
            outdated.apply(&Document::new(vec![("until".into(), Value::Text(text.into()))], origin), &mut Vec::new())
        };
        assert_eq!(apply("2025-12-31"), Err(("outdated", Reason::Outdated { until: "2025-12-31".into() })));
        assert_eq!((apply("2026-01-01"), apply(""), apply("soon")), (Ok(()), Ok(()), Ok(())));
    }
}
