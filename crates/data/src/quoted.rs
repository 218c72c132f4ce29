//! What an answer quotes of a text, which steps that change texts have to leave as it is: an answer that is to be found in the
//! text would otherwise not be there any more.

use crate::{Answer, FieldValue};
use std::ops::Range;

/// Values of an answer, and where they stand in one text; upper and lower case are the same.
pub(crate) struct Quoted {
    values: Vec<String>,
    spans: Vec<Range<usize>>,
}

impl Quoted {
    /// Of an answer and the text that it may quote.
    pub(crate) fn of(answer: &Answer, text: &str) -> Self {
        let values: Vec<String> = match answer {
            Answer::Text(text) => vec![text.clone()],
            Answer::Fields(fields) => {
                let said = |value: &FieldValue| !matches!(value, FieldValue::Null | FieldValue::Bool(_));
                fields.iter().filter(|(_, value)| said(value)).map(|(_, value)| value.to_text()).collect()
            }
        };
        let values: Vec<String> = values.iter().map(|value| value.trim().to_lowercase()).filter(|value| !value.is_empty()).collect();
        let (lower, places) = lowered(text);
        let mut spans = Vec::new();
        for value in &values {
            spans.extend(whole(&lower, value).map(|at| places[at]..places[at + value.len()]));
        }
        Self { values, spans }
    }

    /// Whether a part of the text is quoted: it overlaps what stands in the answer, or stands in the answer itself.
    pub(crate) fn holds(&self, text: &str, span: &Range<usize>) -> bool {
        if self.spans.iter().any(|quoted| quoted.start < span.end && span.start < quoted.end) {
            return true;
        }
        let part = text[span.clone()].trim().to_lowercase();
        !part.is_empty() && self.values.iter().any(|value| whole(value, &part).next().is_some())
    }
}

/// A text in lower case, and for each of its bytes and its end where that came from: some letters change their length.
fn lowered(text: &str) -> (String, Vec<usize>) {
    let (mut lower, mut places) = (String::with_capacity(text.len()), Vec::with_capacity(text.len() + 1));
    for (at, character) in text.char_indices() {
        lower.extend(character.to_lowercase());
        places.resize(lower.len(), at);
    }
    places.push(text.len());
    (lower, places)
}

/// Where `part` stands in `text` with no letter or digit directly before or after it.
fn whole<'a>(text: &'a str, part: &'a str) -> impl Iterator<Item = usize> + 'a {
    text.match_indices(part).map(|(at, _)| at).filter(move |at| {
        let before = text[..*at].chars().next_back();
        let after = text[at + part.len()..].chars().next();
        [before, after].into_iter().flatten().all(|character| !character.is_alphanumeric())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_answer_has_is_quoted_in_any_case_and_as_whole_words() {
        let text = "Order ÄB-12 of Müller GmbH, 12 pieces";
        let fields = vec![
            ("customer".to_owned(), FieldValue::Text("müller gmbh".into())),
            ("pieces".to_owned(), FieldValue::Number("12".into())),
            ("open".to_owned(), FieldValue::Null),
        ];
        let quoted = Quoted::of(&Answer::Fields(fields), text);
        let held = |part: &str| {
            let at = text.find(part).unwrap();
            quoted.holds(text, &(at..at + part.len()))
        };
        assert!(held("Müller") && held("GmbH") && held("12 pieces") && held("ÄB-12"));
        assert!(!held("Order") && !held("pieces"));
        // A letter of an answer is no quotation of every word with that letter.
        let label = Quoted::of(&Answer::Text("d".into()), text);
        assert!(!label.holds(text, &(0..5)));
    }

    #[test]
    fn letters_that_change_their_length_move_nothing() {
        let text = "İİ sold by Anna";
        let quoted = Quoted::of(&Answer::Text("anna".into()), text);
        let at = text.find("Anna").unwrap();
        assert!(quoted.holds(text, &(at..at + 4)) && !quoted.holds(text, &(at - 3..at - 1)));
    }
}
