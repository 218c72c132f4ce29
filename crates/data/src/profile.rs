//! Guesses which column is what, for `init`: from names, and from how values look. Reasons hold no customer text.

use crate::{Dataset, Value};
use std::collections::HashSet;

/// Most distinct values of a column that is taken for a label.
const LABEL_VALUES_MAX: usize = 200;
/// Longest mean of a label's characters.
const LABEL_CHARS_MAX: usize = 40;
/// Shortest mean of a text's characters.
const TEXT_CHARS_MIN: usize = 20;

/// Names, or their last words, of columns that identify a row.
const ID_NAMES: [&str; 8] = ["id", "uuid", "guid", "key", "nr", "no", "number", "ticket"];
/// Names of columns whose rows belong together.
const GROUP_NAMES: [&str; 15] = [
    "customer",
    "user",
    "client",
    "patient",
    "account",
    "author",
    "sender",
    "contact",
    "company",
    "session",
    "thread",
    "conversation",
    "case",
    "group",
    "household",
];
/// Names of answers.
const TARGET_NAMES: [&str; 22] = [
    "label",
    "intent",
    "category",
    "class",
    "topic",
    "sentiment",
    "priority",
    "urgency",
    "language",
    "product",
    "team",
    "queue",
    "answer",
    "output",
    "response",
    "completion",
    "reply",
    "summary",
    "target",
    "tag",
    "type",
    "order",
];
/// Names of what is known about a row, not said by it.
const METADATA_NAMES: [&str; 18] = [
    "channel", "source", "status", "region", "country", "date", "time", "created", "received", "updated", "assignee", "agent", "device",
    "browser", "version", "url", "split", "year",
];
/// Names of texts that are read.
const INPUT_NAMES: [&str; 16] = [
    "message",
    "text",
    "body",
    "input",
    "question",
    "description",
    "content",
    "email",
    "query",
    "utterance",
    "prompt",
    "comment",
    "review",
    "note",
    "sentence",
    "request",
];

/// A guess and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guess {
    /// The column.
    pub column: String,
    /// Why, as the end of a sentence, without customer text.
    pub reason: String,
}

/// What a source's columns look like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    /// The text that is read.
    pub input: Option<Guess>,
    /// The answer's fields.
    pub targets: Vec<Guess>,
    /// Ids.
    pub id: Option<Guess>,
    /// What never straddles a split.
    pub group: Option<Guess>,
    /// Columns without a role, and why.
    pub unused: Vec<Guess>,
}

/// What a column's values look like.
struct Column<'a> {
    name: &'a str,
    filled: usize,
    distinct: usize,
    chars_mean: usize,
    dates: usize,
    numbers: usize,
}

impl<'a> Column<'a> {
    fn of(name: &'a str, dataset: &Dataset) -> Self {
        let values = dataset.documents.iter().filter_map(|document| document.field(name).map(Value::to_text));
        let values: Vec<String> = values.map(|value| value.trim().to_owned()).filter(|value| !value.is_empty()).collect();
        let chars: usize = values.iter().map(|value| value.chars().count()).sum();
        Self {
            name,
            filled: values.len(),
            distinct: values.iter().collect::<HashSet<_>>().len(),
            chars_mean: chars / values.len().max(1),
            dates: values.iter().filter(|value| looks_like_date(value)).count(),
            numbers: values.iter().filter(|value| value.parse::<f64>().is_ok()).count(),
        }
    }

    fn is_named(&self, names: &[&str]) -> bool {
        let lower = self.name.to_lowercase();
        let words: Vec<&str> = lower.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
        names.iter().any(|name| words.contains(name))
    }

    fn is_unique(&self) -> bool {
        self.filled > 1 && self.distinct == self.filled
    }
}

fn looks_like_date(value: &str) -> bool {
    let digits = value.chars().filter(char::is_ascii_digit).count();
    let marks = value.chars().filter(|c| matches!(c, '-' | '/' | '.' | ':' | 'T' | ' ')).count();
    digits >= 6 && marks >= 2 && digits + marks + 2 >= value.chars().count()
}

/// Looks at a source.
///
/// ```
/// use data::{Format, profile, read};
/// let csv = "id,message,intent\n1,Where is my parcel?,order\n2,When will the parcel come?,order\n3,I want my money back!,refund\n4,The money is not here yet,refund\n";
/// let dataset = read::read("tickets.csv", csv.as_bytes(), Format::Csv { delimiter: b',' }, &read::LIMITS)?;
/// let profile = profile::profile(&dataset);
/// assert_eq!(profile.input.unwrap().column, "message");
/// assert_eq!(profile.targets[0].column, "intent");
/// # Ok::<(), data::DataError>(())
/// ```
pub fn profile(dataset: &Dataset) -> Profile {
    let rows = dataset.documents.len();
    let columns: Vec<Column> = dataset.columns.iter().map(|name| Column::of(name, dataset)).collect();
    let guess = |column: &Column, reason: String| Guess { column: column.name.to_owned(), reason };
    let mut profile = Profile::default();
    // The longest free text; a telling name counts for more than length.
    let text_score = |column: &Column| {
        let free = 2 * column.distinct > column.filled && column.dates * 2 < column.filled.max(1);
        let named = column.is_named(&INPUT_NAMES);
        let answer = column.is_named(&TARGET_NAMES);
        (free && column.filled > 0 && (named || column.chars_mean >= TEXT_CHARS_MIN)).then_some((named, !answer, column.chars_mean))
    };
    let input = columns.iter().filter_map(|column| Some((text_score(column)?, column))).max_by_key(|(score, _)| *score);
    if let Some((_, column)) = input {
        profile.input = Some(guess(column, format!("the longest text: {} characters on average", column.chars_mean)));
    }
    let taken = |column: &Column, profile: &Profile| {
        let roles = [&profile.input, &profile.id, &profile.group];
        roles.into_iter().flatten().chain(&profile.targets).any(|guess| guess.column == column.name)
    };
    let id =
        columns.iter().find(|column| !taken(column, &profile) && column.is_unique() && column.filled == rows && column.is_named(&ID_NAMES));
    profile.id = id.map(|column| guess(column, "a different value in every row".into()));
    let group = columns.iter().find(|column| {
        let repeats = column.distinct < column.filled && 3 * column.distinct >= column.filled;
        !taken(column, &profile) && column.is_named(&GROUP_NAMES) && repeats && 10 * column.filled >= 9 * rows
    });
    profile.group = group.map(|column| {
        guess(column, format!("{} values for {} rows: rows with the same one stay together", column.distinct, column.filled))
    });
    for column in &columns {
        if taken(column, &profile) {
            continue;
        }
        let few = column.distinct >= 2 && column.distinct <= LABEL_VALUES_MAX && 4 * column.distinct <= column.filled.max(8);
        let short = column.chars_mean <= LABEL_CHARS_MAX;
        let named = column.is_named(&TARGET_NAMES);
        let reason = if column.filled == 0 {
            Err("it is empty".to_owned())
        } else if column.distinct == 1 {
            Err("it has the same value in every row".to_owned())
        } else if 2 * column.dates > column.filled {
            Err("it looks like a date".to_owned())
        } else if column.is_named(&METADATA_NAMES) {
            Err("its name: known about the row, not said in it".to_owned())
        } else if few && short {
            Ok(format!("{} values for {} rows", column.distinct, column.filled))
        } else if named {
            Ok(format!("its name; {} values for {} rows", column.distinct, column.filled))
        } else if column.is_unique() {
            Err("it has a different value in every row".to_owned())
        } else if column.numbers == column.filled {
            Err("a number with many values".to_owned())
        } else {
            Err(format!("{} different values", column.distinct))
        };
        match reason {
            Ok(reason) => profile.targets.push(guess(column, reason)),
            Err(reason) => profile.unused.push(guess(column, reason)),
        }
    }
    profile
}
