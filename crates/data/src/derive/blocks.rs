//! Long texts cut into blocks for continued pre-training: every character of a text is in exactly one block, headings and all,
//! but for white space where it is cut.
//!
//! A block ends where a paragraph does if one ends in its second half, else between sentences, else between words. The length of
//! a block is taken as the sum of its sentences' lengths, which is at least that of the whole for every usual tokenizer, so that a
//! corpus is measured once and not again for each sentence that is added.

use super::{Length, PARENT, sentences};
use crate::{Document, Value};

/// Attribute of a block whose text goes on in the next one.
pub const CONTINUED: &str = "continued";
/// Attribute of a block of several: its number, from 1.
pub const PART: &str = "part";

/// Cutting texts into blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocks {
    /// The column with the text.
    pub column: String,
    /// Longest block.
    pub budget: usize,
}

/// A sentence, or a word of one that is too long: its length, and whether a paragraph ends with it.
struct Unit<'t> {
    text: &'t str,
    length: usize,
    ends_paragraph: bool,
}

fn units<'t>(text: &'t str, budget: usize, length: Length<'_>) -> Vec<Unit<'t>> {
    let begin = text.as_ptr() as usize;
    let mut units = Vec::new();
    for sentence in sentences(text) {
        let whole = length(sentence);
        let parts: Vec<&str> = if whole <= budget { vec![sentence] } else { sentence.split_inclusive(char::is_whitespace).collect() };
        for part in parts {
            let after = part.as_ptr() as usize - begin + part.len();
            let ends_paragraph = part.ends_with('\n') && text[after..].lines().next().is_none_or(|line| line.trim().is_empty());
            let length = if part.len() == sentence.len() { whole } else { length(part) };
            units.push(Unit { text: part, length, ends_paragraph });
        }
    }
    units
}

/// The texts of the blocks of a text, in order, without white space around them.
fn texts<'t>(text: &'t str, budget: usize, length: Length<'_>) -> Vec<&'t str> {
    let units = units(text, budget, length);
    let (mut blocks, mut start) = (Vec::new(), 0);
    while start < units.len() {
        let (mut end, mut used, mut paragraph) = (start, 0, None);
        // A word that is too long by itself stays whole: the limit on records says what becomes of it.
        while end < units.len() && (end == start || used + units[end].length <= budget) {
            used += units[end].length;
            end += 1;
            if units[end - 1].ends_paragraph && 2 * used >= budget {
                paragraph = Some(end);
            }
        }
        if end < units.len() {
            end = paragraph.unwrap_or(end);
        }
        let from = units[start].text.as_ptr() as usize - text.as_ptr() as usize;
        let last = units[end - 1].text;
        let until = last.as_ptr() as usize - text.as_ptr() as usize + last.len();
        let block = text[from..until].trim();
        if !block.is_empty() {
            blocks.push(block);
        }
        start = end;
    }
    blocks
}

/// Cuts a document into blocks; each has the document's other fields, and `document`, which names it. One that fits is left as it
/// is. A document without the column is handed on, for the one who makes its record to say so.
pub fn blocks(document: Document, plan: &Blocks, length: Length<'_>) -> Vec<Document> {
    let mark = |document: &mut Document, of: &str| {
        document.fields.retain(|(name, _)| name != "document");
        document.fields.push(("document".into(), Value::Text(of.to_owned())));
    };
    let whole = document.field(&plan.column).map(Value::to_text).unwrap_or_default();
    let texts = texts(&whole, plan.budget, length);
    if texts.len() < 2 {
        let (mut document, id) = (document.clone(), document.id);
        mark(&mut document, &id);
        return vec![document];
    }
    let count = texts.len();
    let block = |(index, text): (usize, &str)| {
        let number = index + 1;
        let mut origin = document.origin.clone();
        let part = format!("{}#{number}", origin.row);
        origin.inner = if origin.inner.is_empty() { part } else { format!("{}!{part}", origin.inner) };
        let mut fields = document.fields.clone();
        for (name, value) in &mut fields {
            if *name == plan.column {
                *value = Value::Text(text.to_owned());
            }
        }
        let mut block = Document::new(fields, origin);
        mark(&mut block, &document.id);
        block.attributes.push((PARENT, Value::Text(document.id.clone())));
        block.attributes.push((PART, Value::Number(number.to_string())));
        if number < count {
            block.attributes.push((CONTINUED, Value::Bool(true)));
        }
        block
    };
    texts.into_iter().enumerate().map(block).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Origin;

    fn words(text: &str) -> usize {
        text.split_whitespace().count()
    }

    fn of(text: &str) -> Document {
        let origin = Origin { source: "a.md".into(), inner: String::new(), row: 1, line: 1 };
        Document::new(vec![("text".into(), Value::Text(text.into())), ("by".into(), Value::Text("Ada".into()))], origin)
    }

    #[test]
    fn nothing_is_lost_and_no_block_is_too_long() {
        let text = "# Pumps\n\nA pump moves water. It has a seal. The seal wears.\n\nReplace it every year. Use the blue one.\n\n\
                    ## Valves\n\nA valve opens; it closes.\nThen it opens again.";
        for budget in 1..30 {
            let blocks = texts(text, budget, &words);
            assert!(blocks.iter().all(|block| words(block) <= budget), "{budget}: {blocks:?}");
            let all = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
            assert_eq!(all(&blocks.join("\n")), all(text), "{budget}");
        }
        // The second paragraph would fit by its first sentence only.
        assert_eq!(texts(text, 18, &words)[0], "# Pumps\n\nA pump moves water. It has a seal. The seal wears.");
    }

    #[test]
    fn blocks_of_a_document_stay_together_and_say_which_goes_on() {
        let plan = Blocks { column: "text".into(), budget: 4 };
        let document = of("One two three. Four five six.\n\nSeven.");
        let made = blocks(document.clone(), &plan, &words);
        let texts: Vec<String> = made.iter().map(|block| block.field("text").expect("a text").to_text()).collect();
        assert_eq!(texts, ["One two three.", "Four five six.\n\nSeven."]);
        assert!(made.iter().all(|block| block.field("document") == Some(&Value::Text(document.id.clone()))));
        assert!(made.iter().all(|block| block.field("by") == Some(&Value::Text("Ada".into()))));
        assert_ne!(made[0].id, made[1].id);
        assert_eq!((made[0].attribute(CONTINUED), made[1].attribute(CONTINUED)), (Some(&Value::Bool(true)), None));
        let short = blocks(of("One two."), &plan, &words);
        assert_eq!((short.len(), short[0].id.clone(), short[0].attribute(PART)), (1, of("One two.").id, None));
    }
}
