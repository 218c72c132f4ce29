//! Augmentation: copies of a training record that ask the same in other words, with the same answer.
//!
//! A copy is a pure function of its parent, the seed and its number, so that it can be made again. It carries its parent's
//! id and the kind of change ([`crate::Lineage::change`]). Each copy is of one kind; a record's copies take the kinds in turn.
//! What the answer quotes of a text is never changed, and neither are words with digits or signs in them, because those are
//! numbers, codes and addresses. The idea of cheap edits that keep the label is that of Wei & Zou, EDA (arXiv 1901.11196).

mod words;

use crate::quoted::Quoted;
use crate::record::Change;
use crate::split::keyed;
use crate::{DataError, Record};
use std::collections::BTreeMap;
use text::Role;
use words::{Draws, Synonyms};

pub use words::Lexicon;

/// The slot of a template where the parent's text goes.
const TEXT: &str = "text";
/// Most copies of a record.
pub const COPIES_MAX: usize = 100;

/// What copies there are, and how they differ.
#[derive(Clone, Debug, Default)]
pub struct Augment {
    /// Copies of each record.
    pub copies: usize,
    /// Share of the words that get a typing error, at least one of them; 0: none.
    pub typos: f64,
    /// All lower case, all upper case, or each word with a capital.
    pub case: bool,
    /// Terms that stand for each other.
    pub synonyms: Synonyms,
    /// Texts around the parent's.
    pub templates: Vec<Template>,
    /// Terms of each slot of the templates.
    pub vocabulary: Lexicon,
    /// Seed of all draws.
    pub seed: u64,
}

/// How a copy differs from its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Typos,
    Case,
    Synonyms,
    Template,
}

impl Kind {
    /// Its name in files.
    fn name(self) -> &'static str {
        match self {
            Self::Typos => "typos",
            Self::Case => "case",
            Self::Synonyms => "synonyms",
            Self::Template => "template",
        }
    }
}

/// A text with slots in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// Literal text and names of slots in turn, a text first.
    parts: Vec<(String, Option<String>)>,
}

impl Augment {
    /// Copy `number` (from 0) of a record, and the name of its kind; nothing where nothing can be changed.
    pub fn copy(&self, parent: &Record, number: usize) -> Option<Record> {
        let place = parent.messages.iter().rposition(|message| message.role == Role::User)?;
        let asked = parent.messages[place].content.as_str();
        let kinds = self.kinds();
        // Records begin with different kinds, so that one copy each still gives all of them.
        let first = Draws::new(&keyed("augment", self.seed, parent.id.as_bytes())).below(kinds.len());
        let quoted = Quoted::of(&parent.answer, asked);
        for turn in 0..kinds.len() {
            let kind = kinds[(first + number + turn) % kinds.len()];
            let name = format!("{}\0{number}\0{}", kind.name(), parent.id);
            let draws = &mut Draws::new(&keyed("augment", self.seed, name.as_bytes()));
            let changed = match kind {
                Kind::Typos => words::typos(asked, &quoted, self.typos, draws),
                Kind::Case => words::case(asked, &quoted, draws),
                Kind::Synonyms => self.synonyms.exchange(asked, &quoted, draws),
                Kind::Template => Some(self.templates[draws.below(self.templates.len())].fill(asked, &self.vocabulary, draws)),
            };
            if let Some(content) = changed.filter(|changed| changed != asked) {
                let mut copy = parent.clone();
                copy.id = copy_id(&parent.id, number);
                copy.messages[place].content = content;
                copy.lineage.change = Some(Change { parent: parent.id.clone(), kind: kind.name().into() });
                return Some(copy);
            }
        }
        None
    }

    fn kinds(&self) -> Vec<Kind> {
        let chosen = [
            (Kind::Typos, self.typos > 0.0),
            (Kind::Case, self.case),
            (Kind::Synonyms, !self.synonyms.is_empty()),
            (Kind::Template, !self.templates.is_empty()),
        ];
        chosen.into_iter().filter_map(|(kind, chosen)| chosen.then_some(kind)).collect()
    }
}

/// The id of a record's copy.
fn copy_id(parent: &str, number: usize) -> String {
    format!("{parent}~{}", number + 1)
}

/// The number (from 0) of the copy that has an id, given its parent's.
pub fn copy_number(id: &str, parent: &str) -> Option<usize> {
    id.strip_prefix(parent)?.strip_prefix('~')?.parse::<usize>().ok()?.checked_sub(1).filter(|number| *number < COPIES_MAX)
}

/// Lines that say something, with their numbers: neither empty nor a remark.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
    lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

/// Terms of a line, divided by commas.
fn terms(line: &str) -> Vec<String> {
    line.split(',').map(str::trim).filter(|term| !term.is_empty()).map(str::to_owned).collect()
}

/// Reads terms that stand for each other: a line each group, terms divided by commas; `#` begins a remark.
///
/// # Errors
/// A line with one term, or a file without any.
pub fn synonyms(file: &str, text: &str) -> Result<Synonyms, DataError> {
    let wrong = |line, problem: String| DataError::ListFile { file: file.to_owned(), line, problem };
    let mut groups = Vec::new();
    for (number, line) in lines(text) {
        let terms = terms(line);
        if terms.len() < 2 {
            return Err(wrong(number, format!("{} term, at least 2 that stand for each other (a, b, …)", terms.len())));
        }
        groups.push(terms);
    }
    if groups.is_empty() {
        return Err(wrong(1, "no synonyms; a line is such as `invoice, bill`".into()));
    }
    Ok(Synonyms::new(groups))
}

/// Reads a vocabulary: a line each slot, `product: Model A, Model B`; `#` begins a remark.
///
/// # Errors
/// A line without a name or without terms, or a name that stands there twice.
pub fn vocabulary(file: &str, text: &str) -> Result<Lexicon, DataError> {
    let wrong = |line, problem: String| DataError::ListFile { file: file.to_owned(), line, problem };
    let mut slots = BTreeMap::new();
    for (number, line) in lines(text) {
        let (name, listed) =
            line.split_once(':').ok_or_else(|| wrong(number, "no name before a colon (`product: Model A, Model B`)".into()))?;
        let (name, terms) = (name.trim().to_owned(), terms(listed));
        if name.is_empty() || terms.is_empty() {
            return Err(wrong(number, "a name and at least one term (`product: Model A, Model B`)".into()));
        }
        if name == TEXT {
            return Err(wrong(number, "the name text is taken: in a template it is the record's text".into()));
        }
        if slots.insert(name.clone(), terms).is_some() {
            return Err(wrong(number, format!("{name} stands there a second time")));
        }
    }
    Ok(slots)
}

/// Reads templates: a line each, with `{text}` where the record's text goes and other `{slot}`s of the vocabulary; `\n` is a
/// line's end, `{{` and `}}` are braces, `#` begins a remark.
///
/// # Errors
/// A template without `{text}`, with an open brace, or with a slot that the vocabulary does not have.
pub fn templates(file: &str, text: &str, vocabulary: &Lexicon) -> Result<Vec<Template>, DataError> {
    let wrong = |line, problem: String| DataError::ListFile { file: file.to_owned(), line, problem };
    let mut templates = Vec::new();
    for (number, line) in lines(text) {
        let template = Template::parse(line).map_err(|problem| wrong(number, problem))?;
        let slots: Vec<&str> = template.parts.iter().filter_map(|(_, slot)| slot.as_deref()).collect();
        match slots.iter().filter(|slot| **slot == TEXT).count() {
            1 => {}
            count => return Err(wrong(number, format!("{{text}} stands there {count} times, once is right: a copy is made of a record"))),
        }
        if let Some(unknown) = slots.iter().find(|slot| **slot != TEXT && !vocabulary.contains_key(**slot)) {
            let known =
                if vocabulary.is_empty() { "nothing".to_owned() } else { vocabulary.keys().cloned().collect::<Vec<_>>().join(", ") };
            return Err(wrong(number, format!("{{{unknown}}} is no slot of the vocabulary, which has {known}")));
        }
        templates.push(template);
    }
    if templates.is_empty() {
        return Err(wrong(1, "no templates; a line is such as `Hello {team}, {text}`".into()));
    }
    Ok(templates)
}

impl Template {
    fn parse(line: &str) -> Result<Self, String> {
        let (mut parts, mut literal, mut rest) = (Vec::new(), String::new(), line);
        while let Some(at) = rest.find(['{', '}', '\\']) {
            literal.push_str(&rest[..at]);
            let sign = &rest[at..];
            if let Some(after) = sign.strip_prefix("\\n") {
                literal.push('\n');
                rest = after;
            } else if sign.starts_with("{{") || sign.starts_with("}}") {
                literal.push_str(&sign[..1]);
                rest = &sign[2..];
            } else if let Some(after) = sign.strip_prefix('{') {
                let (name, after) = after.split_once('}').ok_or("a brace is opened and never closed (a brace is written {{)")?;
                parts.push((std::mem::take(&mut literal), Some(name.trim().to_owned())));
                rest = after;
            } else if let Some(after) = sign.strip_prefix('\\') {
                literal.push('\\');
                rest = after;
            } else {
                return Err("a brace is closed that is not open (a brace is written }})".into());
            }
        }
        literal.push_str(rest);
        parts.push((literal, None));
        Ok(Self { parts })
    }

    fn fill(&self, text: &str, vocabulary: &Lexicon, draws: &mut Draws) -> String {
        let mut filled = String::new();
        for (literal, slot) in &self.parts {
            filled.push_str(literal);
            match slot.as_deref() {
                None => {}
                Some(TEXT) => filled.push_str(text),
                Some(slot) => {
                    let terms = &vocabulary[slot];
                    filled.push_str(&terms[draws.below(terms.len())]);
                }
            }
        }
        filled
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Answer, FieldValue, Lineage};
    use text::Message;

    fn record(id: &str, asked: &str, answer: Answer) -> Record {
        Record {
            id: id.into(),
            messages: vec![Message::new(Role::System, "Read."), Message::new(Role::User, asked)],
            answer,
            answer_weight: None,
            continued: false,
            weight: None,
            group: Some("g".into()),
            stratum: None,
            lineage: Lineage { document: "d".into(), source: "s".into(), row: 1, change: None },
        }
    }

    fn label(asked: &str) -> Record {
        record("r1", asked, Answer::Text("delivery".into()))
    }

    fn only(change: impl Fn(&mut Augment)) -> Augment {
        let mut augment = Augment { copies: 3, seed: 7, ..Augment::default() };
        change(&mut augment);
        augment
    }

    #[test]
    fn a_copy_is_made_again_and_keeps_all_but_its_question() {
        let augment = only(|augment| {
            augment.typos = 0.2;
            augment.case = true;
            augment.synonyms = synonyms("s", "parcel, package\n").unwrap();
            augment.vocabulary = vocabulary("v", "team: Support, Sales").unwrap();
            augment.templates = templates("t", "Dear {team},\\n{text}", &augment.vocabulary).unwrap();
        });
        let parent = label("Where is the parcel that I ordered yesterday?");
        let copies: Vec<Record> = (0..4).map(|number| augment.copy(&parent, number).unwrap()).collect();
        for (number, copy) in copies.iter().enumerate() {
            assert_eq!(augment.copy(&parent, number).as_ref(), Some(copy));
            assert_eq!((&copy.answer, &copy.group, &copy.messages[0]), (&parent.answer, &parent.group, &parent.messages[0]));
            assert_ne!(copy.input(), parent.input());
            assert_eq!(copy_number(&copy.id, "r1"), Some(number));
            assert_eq!(copy.lineage.change.as_ref().unwrap().parent, "r1");
        }
        let mut kinds: Vec<&str> = copies.iter().map(|copy| copy.lineage.change.as_ref().unwrap().kind.as_str()).collect();
        kinds.sort_unstable();
        assert_eq!(kinds, ["case", "synonyms", "template", "typos"]);
        let other = Augment { seed: 8, ..augment.clone() };
        assert!((0..4).any(|number| other.copy(&parent, number).unwrap().input() != copies[number].input()));
    }

    #[test]
    fn what_the_answer_quotes_stays() {
        let augment = only(|augment| {
            augment.typos = 1.0;
            augment.case = true;
            augment.synonyms = synonyms("s", "hamburg, bremen\nsend, ship").unwrap();
        });
        let fields =
            vec![("city".to_owned(), FieldValue::Text("Hamburg".into())), ("name".to_owned(), FieldValue::Text("Anna Blume".into()))];
        let parent = record("r1", "Please send it to Anna Blume in Hamburg, order A-1234.", Answer::Fields(fields));
        for number in 0..60 {
            let copy = augment.copy(&parent, number).unwrap();
            for kept in ["Anna Blume", "Hamburg", "A-1234"] {
                assert!(copy.input().contains(kept), "{}", copy.input());
            }
        }
    }

    #[test]
    fn nothing_to_change_makes_no_copy() {
        let augment = only(|augment| augment.synonyms = synonyms("s", "parcel, package").unwrap());
        assert_eq!(augment.copy(&label("Where is it?"), 0), None);
        let mut nothing_asked = label("x");
        nothing_asked.messages.pop();
        assert_eq!(only(|augment| augment.case = true).copy(&nothing_asked, 0), None);
    }

    #[test]
    fn files_say_where_they_are_wrong() {
        let said = |result: Result<Vec<Template>, DataError>| result.unwrap_err().to_string();
        let known = vocabulary("v", "product: Model A\n# a remark\nteam: Sales, Support").unwrap();
        assert_eq!(known["team"], ["Sales", "Support"]);
        assert!(said(templates("t.txt", "\n{product} is broken", &known)).contains("t.txt line 2: {text} stands there 0 times"));
        assert!(
            said(templates("t.txt", "{text} {price}", &known)).contains("{price} is no slot of the vocabulary, which has product, team")
        );
        assert!(said(templates("t.txt", "{text", &known)).contains("never closed"));
        assert!(said(templates("t.txt", "# nothing", &known)).contains("no templates"));
        assert!(synonyms("s.txt", "alone").unwrap_err().to_string().contains("s.txt line 1: 1 term"));
        assert!(vocabulary("v", "a: b\na: c").unwrap_err().to_string().contains("a second time"));
        assert!(vocabulary("v", "text: b").is_err() && vocabulary("v", "no colon").is_err());
        let [template] = templates("t", "{{{team}}} \\n{text}", &known).unwrap().try_into().unwrap();
        let filled = template.fill("T {product}", &known, &mut Draws::new(&[0; 32]));
        assert!(filled.ends_with("} \nT {product}") && filled.starts_with("{S"), "{filled}");
    }
}
