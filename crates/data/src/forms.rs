//! Dates, numbers and units of what is asked, each in one form.
//!
//! Only what can be read in one way is changed. What could be read in several stays as it is and is counted, so that a person
//! can say how it is meant ([`DateOrder`], [`DecimalMark`]). What the answer quotes stays too, and magnitudes are never
//! converted: 5 kilograms become 5 kg, and never 5000 g.

mod dates;
mod numbers;
mod units;

use crate::Record;
use crate::clean::Findings;
use crate::quoted::Quoted;
use std::ops::Range;
use text::Role;

/// What comes first in a date of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DateOrder {
    /// 24.11.2026
    DayFirst,
    /// 11/24/2026
    MonthFirst,
}

/// What divides a number's whole part from its fraction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecimalMark {
    /// 1,234.56
    Point,
    /// 1.234,56
    Comma,
}

/// What is brought into one form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forms {
    /// Dates as ISO 8601 writes them: 2026-11-24.
    pub dates: bool,
    /// How dates of numbers are meant; none: only those that can be meant in one way are changed.
    pub date_order: Option<DateOrder>,
    /// Numbers without signs between thousands, and with a decimal point: 1234.56.
    pub numbers: bool,
    /// How numbers are meant; none: only those that can be meant in one way are changed.
    pub decimal_mark: Option<DecimalMark>,
    /// Units as their symbols, a blank before them: 5 kg.
    pub units: bool,
}

/// Something in a text that may have another form.
struct Found {
    span: Range<usize>,
    /// The one form; none where it could mean several things.
    form: Option<String>,
}

impl Found {
    fn new(span: Range<usize>, form: Option<String>) -> Self {
        Self { span, form }
    }
}

impl Forms {
    /// Changes the user's messages, and says what was changed and what was left.
    pub(crate) fn apply(&self, record: &mut Record, findings: &mut Findings) {
        let answer = &record.answer;
        for message in record.messages.iter_mut().filter(|message| message.role == Role::User) {
            if self.dates {
                one_form(&mut message.content, "dates", answer, findings, |text| dates::find(text, self.date_order));
            }
            if self.numbers {
                one_form(&mut message.content, "numbers", answer, findings, |text| numbers::find(text, self.decimal_mark));
            }
            if self.units {
                one_form(&mut message.content, "units", answer, findings, units::find);
            }
        }
    }
}

fn one_form(text: &mut String, step: &'static str, answer: &crate::Answer, findings: &mut Findings, find: impl Fn(&str) -> Vec<Found>) {
    if !text.bytes().any(|byte| byte.is_ascii_digit()) {
        return;
    }
    let found = find(text);
    if found.is_empty() {
        return;
    }
    let quoted = Quoted::of(answer, text);
    let (mut changed, mut at) = (String::with_capacity(text.len()), 0);
    let mut said = [false; 3];
    for Found { span, form } in found {
        match form {
            None => said[1] = true,
            Some(form) if form == text[span.clone()] => {}
            Some(_) if quoted.holds(text, &span) => said[2] = true,
            Some(form) => {
                changed.push_str(&text[at..span.start]);
                changed.push_str(&form);
                at = span.end;
                said[0] = true;
            }
        }
    }
    if said[0] {
        changed.push_str(&text[at..]);
        *text = changed;
    }
    for (said, what) in said.into_iter().zip(["changed", "left, could mean several", "left, the answer quotes it"]) {
        // Once for each record, also where several messages have some.
        if said && !findings.iter().any(|(of, other)| *of == step && other == what) {
            findings.push((step, what.into()));
        }
    }
}

/// Whether what stands around a place belongs to it: a letter or digit, or a sign with a digit behind it.
fn stands_alone(text: &str, span: &Range<usize>, signs: &str) -> bool {
    let mut before = text[..span.start].chars().rev();
    let mut after = text[span.end..].chars();
    let joined = |near: Option<char>, next: Option<char>| match near {
        Some(near) if near.is_alphanumeric() || near == '_' => true,
        Some(near) if signs.contains(near) => next.is_some_and(|next| next.is_ascii_digit()),
        _ => false,
    };
    !joined(before.next(), before.next()) && !joined(after.next(), after.next())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Answer, Lineage};
    use text::Message;

    fn record(asked: &str, answer: &str) -> Record {
        Record {
            id: "1".into(),
            messages: vec![Message::new(Role::System, "On 24/11/2026."), Message::new(Role::User, asked)],
            answer: Answer::Text(answer.into()),
            answer_weight: None,
            continued: false,
            weight: None,
            group: None,
            stratum: None,
            lineage: Lineage { document: "d".into(), source: "s".into(), row: 1, change: None },
        }
    }

    #[test]
    fn all_three_and_only_in_what_is_asked() {
        let forms = Forms { dates: true, numbers: true, units: true, ..Forms::default() };
        let mut given = record("On 24/11/2026 we sent 1.234,50 kilograms, and 03/04/2026 more: 25/12/2026, 7 days", "the 25/12/2026");
        let mut findings = Findings::new();
        forms.apply(&mut given, &mut findings);
        assert_eq!(given.input(), "On 2026-11-24 we sent 1234.50 kg, and 03/04/2026 more: 25/12/2026, 7 days");
        assert_eq!((given.messages[0].content.as_str(), given.answer.to_text().as_str()), ("On 24/11/2026.", "the 25/12/2026"));
        let said: Vec<String> = findings.iter().map(|(step, what)| format!("{step}: {what}")).collect();
        let expected = [
            "dates: changed",
            "dates: left, could mean several",
            "dates: left, the answer quotes it",
            "numbers: changed",
            "units: changed",
        ];
        assert_eq!(said, expected);
        // What has its form has it still.
        let (mut again, mut findings) = (given.clone(), Findings::new());
        forms.apply(&mut again, &mut findings);
        assert_eq!(again, given);
        assert!(findings.iter().all(|(_, what)| what != "changed"), "{findings:?}");
    }
}
