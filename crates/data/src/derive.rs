//! Documents of which records are made, out of documents as they were read: chunks of long texts, questions with their
//! answers, messages with their replies. No model is asked; what is found is what the text's own structure says.
//!
//! A derived document is a document: its text is a verbatim part of its parent's, it names the parent ([`PARENT`]), and its id
//! follows from the parent's place. A document in which nothing is found is rejected with that reason.

mod blocks;

pub use blocks::{Blocks, CONTINUED, PART, blocks as cut};

use crate::steps::Reason;
use crate::{Document, Item, Rejected, Value};
use std::collections::{HashMap, VecDeque};

/// Attribute of a derived document: the id of the document that it was made of.
pub const PARENT: &str = "parent";
/// Attribute of a reply with its message: the id of the message.
pub const REPLIES_TO: &str = "replies_to";
/// Messages that wait for their replies, or replies for what they answer, in bytes of text.
pub const REPLIES_BYTES_MAX: usize = 512 << 20;
/// Heading levels of Markdown.
const LEVELS: usize = 6;
/// Longest line that is taken for a question.
const QUESTION_CHARS_MAX: usize = 300;

/// How long a text is, in whatever unit the budget is given.
pub type Length<'a> = &'a (dyn Fn(&str) -> usize + Sync);

/// Where a chunk may end before its budget is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkBy {
    /// At each heading: a chunk is of one section.
    Headings,
    /// Only where the next paragraph does not fit.
    Paragraphs,
}

/// Cutting long texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunks {
    /// Longest chunk.
    pub budget: usize,
    /// How much of the end of a chunk the next one of the same section begins with, in whole sentences; at most.
    pub overlap: usize,
    /// See there.
    pub by: ChunkBy,
}

/// What is made of documents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Derive {
    /// Blocks of a column's text, whole but for the cuts: the document's own columns, and `document`.
    Blocks(Blocks),
    /// Chunks of their text: `title`, `heading` (the path of headings), `text`, `part`, `document`.
    Chunks(Chunks),
    /// Questions with their answers: `question`, `answer`, `heading`, `title`, `document`.
    Questions,
    /// Messages with their replies: `message`, `reply`, `subject`, `from`, `date`, `thread`.
    Replies,
}

impl Derive {
    /// What records are made of where the run file does not say: input, answer, and what never straddles a split.
    pub fn columns(&self) -> (&str, &str, &str) {
        match self {
            Self::Blocks(blocks) => ("", &blocks.column, "document"),
            Self::Chunks(_) => ("{title}\n{heading}", "text", "document"),
            Self::Questions => ("question", "answer", "document"),
            Self::Replies => ("{subject}\n\n{message}", "reply", "thread"),
        }
    }
}

/// The documents derived from others, in order. `length` measures texts for [`Chunks`].
pub fn derived<'a, E: Send + 'a>(
    items: impl Iterator<Item = Result<Item, E>> + Send + 'a,
    derive: Derive,
    length: Length<'a>,
) -> Box<dyn Iterator<Item = Result<Item, E>> + Send + 'a> {
    if derive == Derive::Replies {
        return Box::new(Replies::new(items));
    }
    let part = move |item: Result<Item, E>| -> Vec<Result<Item, E>> {
        let document = match item {
            Ok(Item::Document(document)) => document,
            other => return vec![other],
        };
        let (made, of) = match &derive {
            Derive::Blocks(plan) => return cut(document, plan, length).into_iter().map(|block| Ok(Item::Document(block))).collect(),
            Derive::Chunks(plan) => (chunks(&document, plan, length), "it has no text"),
            _ => (questions(&document), "no question with an answer was found"),
        };
        if made.is_empty() {
            let rejected = Rejected { id: document.id, step: "make", reason: Reason::NothingMade { of }, related: Vec::new() };
            return vec![Ok(Item::Rejected(rejected))];
        }
        made.into_iter().map(|document| Ok(Item::Document(document))).collect()
    };
    Box::new(items.flat_map(part))
}

fn text_of(document: &Document, name: &str) -> String {
    document.field(name).map(Value::to_text).unwrap_or_default()
}

/// A derived document: the parent's place, and which part of it.
fn child(parent: &Document, number: usize, fields: Vec<(&str, String)>) -> Document {
    let mut origin = parent.origin.clone();
    let part = format!("{}#{number}", origin.row);
    origin.inner = if origin.inner.is_empty() { part } else { format!("{}!{part}", origin.inner) };
    let fields = fields.into_iter().map(|(name, text)| (name.to_owned(), Value::Text(text))).collect();
    let mut document = Document::new(fields, origin);
    document.attributes.push((PARENT, Value::Text(parent.id.clone())));
    document
}

/// A file's name without its folder and ending: a title where there is no other.
fn title_of(document: &Document) -> String {
    let title = text_of(document, "title");
    if !title.trim().is_empty() {
        return title.trim().to_owned();
    }
    let origin = &document.origin;
    let name = if origin.inner.is_empty() { origin.source.as_str() } else { origin.inner.rsplit('!').next().unwrap_or_default() };
    let name = name.rsplit('/').next().unwrap_or_default();
    name.rsplit_once('.').map_or(name, |(stem, _)| stem).to_owned()
}

/// A paragraph of Markdown, list, table or code block with it; or a heading.
struct Block<'a> {
    text: &'a str,
    /// Level of a heading, from 1; 0: it is none.
    level: usize,
}

fn heading(line: &str) -> Option<(usize, &str)> {
    let level = line.bytes().take_while(|byte| *byte == b'#').count();
    let title = line[level..].trim();
    ((1..=LEVELS).contains(&level) && line[level..].starts_with([' ', '\t']) && !title.is_empty()).then_some((level, title))
}

/// The blocks of a text, in order; blocks end at empty lines and headings, but not inside fenced code.
fn blocks(text: &str) -> Vec<Block<'_>> {
    let mut blocks = Vec::new();
    let (mut start, mut at, mut fenced) = (None, 0, false);
    let mut close = |start: &mut Option<usize>, end: usize| {
        if let Some(from) = start.take() {
            let block = text[from..end].trim_end();
            if !block.trim().is_empty() {
                blocks.push(Block { text: block, level: 0 });
            }
        }
    };
    let mut headings = Vec::new();
    for line in text.split_inclusive('\n') {
        let content = line.trim_end_matches(['\n', '\r']);
        let fence = content.trim_start().starts_with("```");
        if !fenced && content.trim().is_empty() {
            close(&mut start, at);
        } else if let Some((level, _)) = heading(content).filter(|_| !fenced) {
            close(&mut start, at);
            headings.push((at, content, level));
        } else {
            start.get_or_insert(at);
        }
        fenced ^= fence;
        at += line.len();
    }
    close(&mut start, at);
    // Both lists are in order of their places.
    let place = |block: &Block<'_>| block.text.as_ptr() as usize - text.as_ptr() as usize;
    let mut merged: Vec<(usize, Block<'_>)> = blocks.into_iter().map(|block| (place(&block), block)).collect();
    merged.extend(headings.into_iter().map(|(at, line, level)| (at, Block { text: line, level })));
    merged.sort_by_key(|(at, _)| *at);
    merged.into_iter().map(|(_, block)| block).collect()
}

/// The headings above a place, outermost first.
#[derive(Default)]
struct Path(Vec<(usize, String)>);

impl Path {
    fn enter(&mut self, level: usize, title: &str) {
        self.0.retain(|(above, _)| *above < level);
        self.0.push((level, title.trim_matches(['*', '_', ' ']).to_owned()));
    }

    fn text(&self, without: &str) -> String {
        let titles = self.0.iter().map(|(_, title)| title.as_str()).filter(|title| *title != without);
        titles.collect::<Vec<_>>().join(" > ")
    }
}

/// Sentences with what separates them: joined they are the text.
fn sentences(text: &str) -> Vec<&str> {
    let (mut sentences, mut start) = (Vec::new(), 0);
    let mut characters = text.char_indices().peekable();
    while let Some((at, character)) = characters.next() {
        let end = at + character.len_utf8();
        let next_blank = characters.peek().is_none_or(|(_, next)| next.is_whitespace());
        let ends = character == '\n' || matches!(character, '。' | '！' | '？') || (matches!(character, '.' | '!' | '?') && next_blank);
        if ends && end > start {
            sentences.push(&text[start..end]);
            start = end;
        }
    }
    if start < text.len() {
        sentences.push(&text[start..]);
    }
    sentences
}

/// Pieces of a text of which each is at most so long, cut between sentences, and between words where a sentence is longer.
fn pieces<'t>(text: &'t str, budget: usize, length: Length<'_>) -> Vec<&'t str> {
    let begin = text.as_ptr() as usize;
    let (mut pieces, mut start, mut end) = (Vec::new(), 0, 0);
    let words = |sentence: &'t str| -> Vec<&'t str> {
        if length(sentence) <= budget { vec![sentence] } else { sentence.split_inclusive(char::is_whitespace).collect() }
    };
    for unit in sentences(text).into_iter().flat_map(words) {
        let after = unit.as_ptr() as usize - begin + unit.len();
        // A single word that is too long stays whole: what it becomes is for the limit on records to say.
        if end > start && length(text[start..after].trim()) > budget {
            pieces.push(text[start..end].trim());
            start = end;
        }
        end = after;
    }
    pieces.push(text[start..].trim());
    pieces.retain(|piece| !piece.is_empty());
    pieces
}

/// The last whole sentences of a text, of at most so much length; never all of it.
fn tail<'t>(text: &'t str, most: usize, length: Length<'_>) -> &'t str {
    let mut tail = "";
    for sentence in sentences(text).into_iter().skip(1).rev() {
        let from = sentence.as_ptr() as usize - text.as_ptr() as usize;
        if length(text[from..].trim()) > most {
            break;
        }
        tail = text[from..].trim();
    }
    tail
}

/// Cuts a document's `text` into chunks. Every paragraph is in one, in order; headings are named, not repeated.
pub fn chunks(document: &Document, plan: &Chunks, length: Length<'_>) -> Vec<Document> {
    let text = text_of(document, "text");
    let title = title_of(document);
    let mut made: Vec<(String, String)> = Vec::new();
    let (mut path, mut current, mut at) = (Path::default(), String::new(), String::new());
    // What the current chunk begins with although the one before ends with it.
    let mut repeated = 0;
    for block in blocks(&text) {
        if block.level > 0 {
            let (level, name) = heading(block.text).unwrap_or((1, block.text));
            if plan.by == ChunkBy::Headings {
                if current.len() > repeated {
                    made.push((at.clone(), std::mem::take(&mut current)));
                }
                current.clear();
                repeated = 0;
            }
            path.enter(level, name);
            if current.is_empty() {
                at = path.text(&title);
            }
            continue;
        }
        for piece in pieces(block.text, plan.budget, length) {
            let joined = if current.is_empty() { piece.to_owned() } else { format!("{current}\n\n{piece}") };
            if current.len() > repeated && length(&joined) > plan.budget {
                let room = plan.overlap.min(plan.budget.saturating_sub(length(piece) + 1));
                let tail = tail(&current, room, length).to_owned();
                made.push((at.clone(), std::mem::take(&mut current)));
                at = path.text(&title);
                repeated = tail.len();
                current = if tail.is_empty() { piece.to_owned() } else { format!("{tail}\n\n{piece}") };
            } else {
                if current.is_empty() {
                    at = path.text(&title);
                }
                current = joined;
            }
        }
    }
    if current.len() > repeated && !current.trim().is_empty() {
        made.push((at, current));
    }
    let numbered = made.into_iter().enumerate().map(|(number, (heading, text))| {
        let fields = vec![
            ("title", title.clone()),
            ("heading", heading),
            ("text", text),
            ("part", (number + 1).to_string()),
            ("document", document.id.clone()),
        ];
        child(document, number + 1, fields)
    });
    numbered.collect()
}

/// What a line begins with that says "question" or "answer".
const QUESTION_MARKS: &[&str] = &["q", "question", "frage", "f", "pregunta", "domanda", "vraag"];
const ANSWER_MARKS: &[&str] = &["a", "answer", "antwort", "réponse", "respuesta", "risposta", "antwoord"];

/// The rest of a line that begins with a mark, a number perhaps, and `:` or `.`: `Q: …`, `**Question 3:** …`.
fn marked<'t>(line: &'t str, marks: &[&str]) -> Option<&'t str> {
    let line = line.trim_start_matches(['*', '_', ' ', '-']);
    let (mark, rest) = line.split_once([':', '.']).filter(|(mark, _)| mark.chars().count() <= 20)?;
    let mark = mark.trim_end_matches(|c: char| c.is_ascii_digit() || c.is_whitespace() || matches!(c, '*' | '_' | '#')).to_lowercase();
    marks.contains(&mark.as_str()).then(|| rest.trim_start_matches(['*', '_']).trim())
}

/// A line that is a question by itself, without what makes it bold.
fn question(line: &str) -> Option<&str> {
    let line = line.trim().trim_matches(['*', '_']).trim();
    let one = line.ends_with(['?', '？', '؟']) && line.chars().count() <= QUESTION_CHARS_MAX && !line.contains('\n');
    (one && line.chars().any(char::is_alphanumeric)).then_some(line)
}

/// Questions with their answers, as the structure of a document's `text` says: a heading that is a question and what stands
/// below it; `Q:` and `A:`; a bold line, or one by itself, that is a question, followed by text. Or the fields `question` and
/// `answer`, which structured sources have already.
pub fn questions(document: &Document) -> Vec<Document> {
    let text = text_of(document, "text");
    let title = title_of(document);
    let mut found: Vec<(String, String, String)> = Vec::new();
    let (asked, answered) = (text_of(document, "question"), text_of(document, "answer"));
    if !asked.trim().is_empty() && !answered.trim().is_empty() {
        found.push((asked.trim().to_owned(), answered.trim().to_owned(), String::new()));
    }
    let (mut path, mut open) = (Path::default(), None::<Open>);
    for block in blocks(&text) {
        if block.level > 0 {
            let (level, name) = heading(block.text).unwrap_or((1, block.text));
            // A heading below the question belongs to its answer.
            if let Some(open) = open.as_mut().filter(|open| open.level > 0 && level > open.level && question(name).is_none()) {
                open.add(name);
                continue;
            }
            found.extend(open.take().and_then(Open::close));
            path.enter(level, name);
            open = question(name).map(|name| Open::new(name, &path.text(name), level));
            continue;
        }
        for line in block.text.lines() {
            let alone = !block.text.contains('\n') || line.trim().starts_with("**");
            if let Some(asked) = marked(line, QUESTION_MARKS).filter(|asked| !asked.is_empty()) {
                found.extend(open.take().and_then(Open::close));
                open = Some(Open::new(asked, &path.text(asked), 0));
                open.as_mut().expect("it was just made").marked = true;
            } else if let Some((open, answer)) = open.as_mut().filter(|open| open.marked).zip(marked(line, ANSWER_MARKS)) {
                open.answering = true;
                open.add(answer);
            } else if let Some(open) = open.as_mut().filter(|open| open.marked && !open.answering) {
                // A question over several lines.
                open.question = format!("{} {}", open.question, line.trim());
            } else if let Some(asked) =
                question(line).filter(|_| alone && open.as_ref().is_none_or(|open| open.level == 0 && (!open.marked || open.answering)))
            {
                found.extend(open.take().and_then(Open::close));
                open = Some(Open::new(asked, &path.text(asked), 0));
            } else if let Some(open) = &mut open {
                open.add(line);
            }
        }
        if let Some(open) = &mut open {
            open.paragraph();
        }
    }
    found.extend(open.and_then(Open::close));
    let numbered = found.into_iter().enumerate().map(|(number, (question, answer, heading))| {
        let fields = vec![
            ("question", question),
            ("answer", answer),
            ("heading", heading),
            ("title", title.clone()),
            ("document", document.id.clone()),
        ];
        child(document, number + 1, fields)
    });
    numbered.collect()
}

/// A question whose answer is being gathered.
struct Open {
    question: String,
    heading: String,
    answer: String,
    /// Level of the heading that asks; 0: a line does.
    level: usize,
    /// It was marked by `Q:`, and its answer will be by `A:`.
    marked: bool,
    answering: bool,
}

impl Open {
    fn new(question: &str, heading: &str, level: usize) -> Self {
        Self { question: question.to_owned(), heading: heading.to_owned(), answer: String::new(), level, marked: false, answering: false }
    }

    fn add(&mut self, line: &str) {
        if !self.answer.is_empty() && !self.answer.ends_with('\n') {
            self.answer.push('\n');
        }
        self.answer.push_str(line.trim_end());
    }

    fn paragraph(&mut self) {
        if !self.answer.is_empty() {
            let trimmed = self.answer.trim_end().len();
            self.answer.truncate(trimmed);
            self.answer.push_str("\n\n");
        }
    }

    fn close(self) -> Option<(String, String, String)> {
        let answer = self.answer.trim().to_owned();
        (!answer.is_empty()).then_some((self.question, answer, self.heading))
    }
}

/// Pairs messages with their replies, in the order of the replies where these come later, which they mostly do.
struct Replies<I> {
    items: I,
    messages: Vec<Message>,
    /// Places in `messages` by id.
    places: HashMap<String, usize>,
    bytes: usize,
    ready: VecDeque<Item>,
    ended: bool,
}

struct Message {
    document: Document,
    /// It is a reply that was paired, or was replied to.
    used: bool,
}

impl<I> Replies<I> {
    fn new(items: I) -> Self {
        Self { items, messages: Vec::new(), places: HashMap::new(), bytes: 0, ready: VecDeque::new(), ended: false }
    }

    /// Pairs a reply with its message, where that is there.
    fn paired(&mut self, place: usize) -> Option<Item> {
        let to = text_of(&self.messages[place].document, "in_reply_to");
        let first = *self.places.get(&to).filter(|first| !to.is_empty() && **first != place)?;
        self.messages[first].used = true;
        self.messages[place].used = true;
        Some(pair(&self.messages[first].document, &self.messages[place].document))
    }

    fn see(&mut self, document: Document) -> Option<Item> {
        let size = document.fields.iter().map(|(name, value)| name.len() + value.size()).sum::<usize>();
        if self.bytes + size > REPLIES_BYTES_MAX {
            let problem =
                format!("more than {REPLIES_BYTES_MAX} bytes of messages that may still be replied to; divide the source by thread");
            return Some(rejected(document.id, Reason::Unreadable { problem }));
        }
        self.bytes += size;
        let (place, id) = (self.messages.len(), text_of(&document, "message_id"));
        self.messages.push(Message { document, used: false });
        let made = self.paired(place);
        if !id.is_empty() {
            self.places.entry(id).or_insert(place);
        }
        made
    }

    /// What is left at the end: replies that came before their message, and messages of which nothing was made.
    fn rest(&mut self) {
        let left: Vec<usize> = (0..self.messages.len()).filter(|place| !self.messages[*place].used).collect();
        let made: Vec<Item> = left.into_iter().filter_map(|place| self.paired(place)).collect();
        self.ready.extend(made);
        for message in self.messages.drain(..).filter(|message| !message.used) {
            let of = match text_of(&message.document, "in_reply_to").is_empty() {
                true => "nobody replied to it",
                false => "the message that it replies to is not in the source",
            };
            self.ready.push_back(rejected(message.document.id, Reason::NothingMade { of }));
        }
    }
}

fn rejected(id: String, reason: Reason) -> Item {
    Item::Rejected(Rejected { id, step: "make", reason, related: Vec::new() })
}

/// A message and its reply as one document; it stands at the place of the reply.
fn pair(message: &Document, reply: &Document) -> Item {
    let (asked, answered) = (text_of(message, "text"), text_of(reply, "text"));
    if asked.trim().is_empty() || answered.trim().is_empty() {
        return rejected(reply.id.clone(), Reason::NothingMade { of: "the message or its reply says nothing of its own" });
    }
    let fields = vec![
        ("message", asked.trim().to_owned()),
        ("reply", answered.trim().to_owned()),
        ("subject", text_of(message, "subject")),
        ("from", text_of(reply, "from")),
        ("date", text_of(reply, "date")),
        ("thread", text_of(reply, "thread")),
    ];
    let mut document = child(reply, 1, fields);
    document.attributes.push((REPLIES_TO, Value::Text(message.id.clone())));
    Item::Document(document)
}

impl<E, I: Iterator<Item = Result<Item, E>>> Iterator for Replies<I> {
    type Item = Result<Item, E>;

    fn next(&mut self) -> Option<Result<Item, E>> {
        while !self.ended {
            match self.items.next() {
                Some(Ok(Item::Document(document))) => {
                    if let Some(made) = self.see(document) {
                        return Some(Ok(made));
                    }
                }
                Some(other) => return Some(other),
                None => {
                    self.ended = true;
                    self.rest();
                }
            }
        }
        self.ready.pop_front().map(Ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Origin;

    fn document(fields: &[(&str, &str)], row: u64) -> Document {
        let fields = fields.iter().map(|(name, text)| ((*name).to_owned(), Value::Text((*text).to_owned()))).collect();
        Document::new(fields, Origin { source: "handbook".into(), inner: "leave.md".into(), row, line: 1 })
    }

    fn words(text: &str) -> usize {
        text.split_whitespace().count()
    }

    fn texts(documents: &[Document], name: &str) -> Vec<String> {
        documents.iter().map(|document| text_of(document, name)).collect()
    }

    const HANDBOOK: &str = "# Leave\n\nAll staff have leave.\n\n## Parental leave\n\nOne two three. Four five six. Seven eight nine.\n\nTen eleven.\n\n```\n# no heading\n```\n\n## Sick leave\n\nCall in.";

    #[test]
    fn chunks_follow_headings_and_keep_every_paragraph() {
        let plan = Chunks { budget: 40, overlap: 0, by: ChunkBy::Headings };
        let made = chunks(&document(&[("text", HANDBOOK)], 1), &plan, &words);
        assert_eq!(texts(&made, "heading"), ["Leave", "Leave > Parental leave", "Leave > Sick leave"]);
        let text = &texts(&made, "text")[1];
        assert!(text.starts_with("One two") && text.ends_with("```\n# no heading\n```"), "{text}");
        assert_eq!(made[0].attribute(PARENT).and_then(Value::as_text), Some(document(&[("text", HANDBOOK)], 1).id.as_str()));
        assert_eq!(text_of(&made[0], "title"), "leave");
        let ids: std::collections::BTreeSet<&str> = made.iter().map(|made| made.id.as_str()).collect();
        assert_eq!(ids.len(), 3);
        let plan = Chunks { budget: 40, overlap: 0, by: ChunkBy::Paragraphs };
        assert_eq!(chunks(&document(&[("text", HANDBOOK)], 1), &plan, &words).len(), 1);
    }

    #[test]
    fn chunks_keep_the_budget_and_overlap_in_whole_sentences() {
        let plan = Chunks { budget: 7, overlap: 4, by: ChunkBy::Headings };
        let made = chunks(&document(&[("text", HANDBOOK)], 1), &plan, &words);
        let made = texts(&made, "text");
        assert!(made.iter().all(|text| words(text) <= 7), "{made:?}");
        assert!(made.iter().any(|text| text.contains("Seven eight nine.\n\nTen eleven.")), "{made:?}");
        for sentence in ["One two three.", "Four five six.", "Seven eight nine.", "Ten eleven.", "Call in."] {
            assert!(made.iter().any(|text| text.contains(sentence)), "{sentence}");
        }
        // A sentence beyond the budget is cut between words.
        let long = (0..40).map(|i| format!("w{i}")).collect::<Vec<_>>().join(" ");
        let made = texts(&chunks(&document(&[("text", &long)], 1), &plan, &words), "text");
        assert_eq!(made.join(" ").split_whitespace().filter(|word| *word == "w39").count(), 1);
        assert!(made.len() >= 6 && made.iter().all(|text| words(text) <= 7), "{made:?}");
    }

    #[test]
    fn questions_by_heading_by_mark_and_by_line() {
        let text = "# FAQ\n\n## Where is my card?\n\nOn its way.\n\n### Abroad\n\nTwo weeks.\n\n## Contact\n\nCall us.\n\nQ: How long\ndoes it take?\nA: A day.\n\n**Question 2:** Who pays?\n**Answer:** You do.\nAlways.\n\n**May I return it?**\n\nYes.\n\nWithin a week.";
        let made = questions(&document(&[("text", text)], 1));
        assert_eq!(texts(&made, "question"), ["Where is my card?", "How long does it take?", "Who pays?", "May I return it?"]);
        assert_eq!(texts(&made, "answer"), ["On its way.\n\nAbroad\nTwo weeks.", "A day.", "You do.\nAlways.", "Yes.\n\nWithin a week."]);
        assert_eq!(texts(&made, "heading"), ["FAQ", "FAQ > Contact", "FAQ > Contact", "FAQ > Contact"]);
        assert!(questions(&document(&[("text", "Nothing is asked here. Really?\nNo.")], 1)).is_empty());
        let fields = document(&[("question", "What is it?"), ("answer", "A cold.")], 1);
        assert_eq!(texts(&questions(&fields), "answer"), ["A cold."]);
    }

    #[test]
    fn replies_are_paired_in_any_order_and_nothing_vanishes() {
        let mail = |id: &str, to: &str, text: &str, row| {
            let fields = [("message_id", id), ("in_reply_to", to), ("subject", "Card"), ("text", text), ("thread", "m1")];
            Ok::<Item, ()>(Item::Document(document(&fields, row)))
        };
        let items = vec![
            mail("m3", "m2", "Thanks.", 1),
            mail("m1", "", "Where is it?", 2),
            mail("m2", "m1", "On its way.", 3),
            mail("m4", "", "Opening hours", 4),
            mail("m5", "m9", "Lost.", 5),
            mail("m6", "m1", "  ", 6),
        ];
        let made: Vec<Item> = derived(items.into_iter(), Derive::Replies, &words).map(Result::unwrap).collect();
        let (mut pairs, mut rejects) = (Vec::new(), Vec::new());
        for item in made {
            match item {
                Item::Document(document) => pairs.push((text_of(&document, "message"), text_of(&document, "reply"))),
                Item::Rejected(rejected) => rejects.push(rejected.reason.to_string()),
            }
        }
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(pairs, [pair("Where is it?", "On its way."), pair("On its way.", "Thanks.")]);
        assert_eq!(rejects.len(), 3, "{rejects:?}");
        assert!(rejects[1].ends_with("nobody replied to it") && rejects[2].ends_with("is not in the source"), "{rejects:?}");
    }
}
