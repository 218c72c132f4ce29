//! The main text of HTML pages, as Markdown.
//!
//! The page is read as the standard tokenises it and cut into blocks. What stands in navigation, footers, forms and the
//! like is left out; where the page marks its main part, only that is kept; elsewhere a block is kept if it is no mere
//! list of links and it or its neighbour is long enough to be prose (the shallow text features of Kohlschütter et al.,
//! "Boilerplate Detection using Shallow Text Features", 2010). Text that a reader would not see is left out and counted.

use super::text::{self, Markdown};
use super::text_stream::TextStream;
use super::walk::Found;
use super::{DOCUMENT_BYTES_MAX, Item, ReadOptions};
use crate::{DataError, Value};
use html5ever::tendril::StrTendril;
use html5ever::tokenizer::states::RawKind;
use html5ever::tokenizer::{BufferQueue, Tag, TagKind, Token, TokenSink, TokenSinkResult, Tokenizer, TokenizerOpts};
use std::cell::RefCell;

/// Name of the attribute with the number of characters that were hidden from readers and left out.
pub const HIDDEN: &str = "hidden characters left out";
/// Elements open within each other that are followed.
const DEPTH_MAX: usize = 512;
/// Blocks of a page.
const BLOCKS_MAX: usize = 1_000_000;
/// Words of a marked main part that make it believable.
const MAIN_WORDS_MIN: usize = 20;
/// Share of words within links above which a block is navigation.
const LINK_DENSITY_MAX: f64 = 0.33;
/// Words from which a block is prose by itself, and words of a neighbour that carry a shorter one.
const PROSE_WORDS_MIN: usize = 12;

/// Elements whose text is none of the page's.
const BOILERPLATE: &[&str] = &["nav", "footer", "aside", "form", "button", "select", "dialog", "menu"];
/// Elements that hold no text at all.
const NO_TEXT: &[&str] = &["script", "style", "noscript", "template", "svg", "math", "iframe", "object", "head", "textarea", "noembed"];
/// Elements that are never closed.
const VOID: &[&str] = &["area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source", "track", "wbr"];
/// Elements within a line of text.
const INLINE: &[&str] = &[
    "a", "abbr", "b", "bdi", "bdo", "cite", "code", "data", "del", "dfn", "em", "font", "i", "ins", "kbd", "label", "mark", "q", "s",
    "samp", "small", "span", "strong", "sub", "sup", "time", "tt", "u", "var",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Heading(usize),
    Paragraph,
    Item {
        depth: usize,
        number: Option<u64>,
    },
    Preformatted,
    /// A row of the table with this number.
    Row(usize),
}

#[derive(Debug)]
struct Block {
    kind: Kind,
    text: String,
    cells: Vec<String>,
    words: usize,
    link_words: usize,
    boilerplate: bool,
    main: bool,
}

#[derive(Debug)]
struct Open {
    name: String,
    boilerplate: bool,
    no_text: bool,
    hidden: bool,
    main: bool,
    /// Number of the next item, in a numbered list.
    next: Option<u64>,
}

#[derive(Default)]
struct Page {
    open: Vec<Open>,
    blocks: Vec<Block>,
    title: String,
    in_title: bool,
    text: String,
    links: usize,
    cells: Vec<String>,
    in_row: bool,
    table: usize,
    item: Option<(usize, Option<u64>)>,
    hidden_chars: u64,
}

impl Page {
    fn has(&self, of: impl Fn(&Open) -> bool) -> bool {
        self.open.iter().any(of)
    }

    fn within(&self, name: &str) -> bool {
        self.has(|open| open.name == name)
    }

    fn heading(&self) -> Option<usize> {
        self.open.iter().rev().find_map(|open| match open.name.as_bytes() {
            [b'h', level @ b'1'..=b'6'] => Some(usize::from(level - b'0')),
            _ => None,
        })
    }

    /// Ends the current block.
    fn flush(&mut self) {
        let preformatted = self.within("pre");
        let raw = std::mem::take(&mut self.text);
        let links = std::mem::take(&mut self.links);
        let text = if preformatted { raw.trim_matches('\n').to_owned() } else { text::one_line(&raw) };
        if self.in_row {
            if !text.is_empty() {
                match self.cells.last_mut() {
                    Some(cell) if cell.is_empty() => *cell = text,
                    Some(cell) => *cell = format!("{cell} {text}"),
                    None => self.cells.push(text),
                }
            }
            return;
        }
        let item = self.item.take();
        if text.trim().is_empty() {
            self.item = item;
            return;
        }
        let kind = match (self.heading(), item) {
            (Some(level), _) => Kind::Heading(level),
            (None, Some((depth, number))) => Kind::Item { depth, number },
            (None, None) if preformatted => Kind::Preformatted,
            (None, None) => Kind::Paragraph,
        };
        self.push(kind, text, Vec::new(), links);
    }

    fn push(&mut self, kind: Kind, text: String, cells: Vec<String>, link_words: usize) {
        if self.blocks.len() >= BLOCKS_MAX {
            return;
        }
        let words = text.split_whitespace().count() + cells.iter().map(|cell| cell.split_whitespace().count()).sum::<usize>();
        let (boilerplate, main) = (self.has(|open| open.boilerplate), self.has(|open| open.main));
        self.blocks.push(Block { kind, text, cells, words, link_words, boilerplate, main });
    }

    fn end_row(&mut self) {
        if self.in_row {
            self.flush();
            self.in_row = false;
            let cells = std::mem::take(&mut self.cells);
            if cells.iter().any(|cell| !cell.is_empty()) {
                self.push(Kind::Row(self.table), String::new(), cells, 0);
            }
        }
    }

    fn start(&mut self, tag: &Tag) {
        let name = tag.name.to_string();
        let attribute =
            |wanted: &str| tag.attrs.iter().find(|attribute| &*attribute.name.local == wanted).map(|attribute| &*attribute.value);
        if !INLINE.contains(&name.as_str()) {
            if name == "br" {
                self.text.push('\n');
                return;
            }
            self.flush();
        }
        if VOID.contains(&name.as_str()) || tag.self_closing {
            return;
        }
        // What the standard closes by itself.
        let closes: &[&str] = match name.as_str() {
            "p" => &["p"],
            "li" => &["li"],
            "tr" => &["tr", "td", "th"],
            "td" | "th" => &["td", "th"],
            "dt" | "dd" => &["dt", "dd"],
            "option" => &["option"],
            _ => &[],
        };
        let stop: &[&str] = match name.as_str() {
            "li" => &["ul", "ol", "menu"],
            "tr" | "td" | "th" => &["table"],
            _ => &["div", "section", "article", "table", "body", "td", "th", "li", "blockquote"],
        };
        if let Some(at) = self.open.iter().rposition(|open| closes.contains(&open.name.as_str()))
            && !self.open[at + 1..].iter().any(|open| stop.contains(&open.name.as_str()))
        {
            self.open.truncate(at);
        }
        match name.as_str() {
            "table" => {
                self.end_row();
                self.table += 1;
            }
            "tr" => {
                self.end_row();
                self.in_row = true;
            }
            "td" | "th" if self.in_row => self.cells.push(String::new()),
            "li" => {
                let depth = self.open.iter().filter(|open| matches!(open.name.as_str(), "ul" | "ol")).count().saturating_sub(1);
                let list = self.open.iter_mut().rev().find(|open| matches!(open.name.as_str(), "ul" | "ol"));
                let number = list.and_then(|list| {
                    let number = list.next?;
                    list.next = Some(number.saturating_add(1));
                    Some(number)
                });
                self.item = Some((depth, number));
            }
            "title" => self.in_title = self.title.is_empty(),
            _ => {}
        }
        let style = attribute("style").map(|style| style.replace(' ', "").to_ascii_lowercase()).unwrap_or_default();
        let role = attribute("role").unwrap_or_default();
        let hidden = attribute("hidden").is_some()
            || attribute("aria-hidden") == Some("true")
            || ["display:none", "visibility:hidden", "font-size:0", "opacity:0"].iter().any(|hiding| {
                style
                    .find(hiding)
                    .is_some_and(|at| !style[at + hiding.len()..].starts_with(['.', '1', '2', '3', '4', '5', '6', '7', '8', '9']))
            });
        let main = matches!(name.as_str(), "main" | "article") || role == "main";
        // A page's header is boilerplate, an article's is not.
        let header = name == "header" && !self.has(|open| open.main);
        let boilerplate =
            header || BOILERPLATE.contains(&name.as_str()) || matches!(role, "navigation" | "banner" | "contentinfo" | "search");
        let next = (name == "ol").then(|| attribute("start").and_then(|start| start.parse().ok()).unwrap_or(1));
        if self.open.len() < DEPTH_MAX {
            let no_text = NO_TEXT.contains(&name.as_str());
            self.open.push(Open { name, boilerplate, no_text, hidden, main, next });
        }
    }

    fn end(&mut self, name: &str) {
        if !INLINE.contains(&name) {
            self.flush();
        }
        match name {
            "title" => self.in_title = false,
            "tr" | "table" => self.end_row(),
            "li" => self.item = None,
            "p" if !self.within("p") => return,
            _ => {}
        }
        if let Some(at) = self.open.iter().rposition(|open| open.name == name) {
            self.open.truncate(at);
        }
    }

    fn characters(&mut self, text: &str) {
        if self.in_title {
            self.title.push_str(text);
            return;
        }
        if self.has(|open| open.no_text) {
            return;
        }
        if self.has(|open| open.hidden) {
            self.hidden_chars += text.chars().filter(|c| !c.is_whitespace()).count() as u64;
            return;
        }
        if self.within("a") {
            self.links += text.split_whitespace().count();
        }
        self.text.push_str(text);
    }
}

struct Sink(RefCell<Page>);

impl TokenSink for Sink {
    type Handle = ();

    fn process_token(&self, token: Token, _: u64) -> TokenSinkResult<()> {
        let mut page = self.0.borrow_mut();
        match token {
            Token::TagToken(tag) if tag.kind == TagKind::StartTag => {
                page.start(&tag);
                return match &*tag.name {
                    _ if tag.self_closing => TokenSinkResult::Continue,
                    "script" => TokenSinkResult::RawData(RawKind::ScriptData),
                    "style" | "noscript" | "iframe" | "noembed" | "xmp" => TokenSinkResult::RawData(RawKind::Rawtext),
                    "title" | "textarea" => TokenSinkResult::RawData(RawKind::Rcdata),
                    _ => TokenSinkResult::Continue,
                };
            }
            Token::TagToken(tag) => page.end(&tag.name),
            Token::CharacterTokens(text) => page.characters(&text),
            Token::NullCharacterToken => page.characters("\u{FFFD}"),
            Token::EOFToken => {
                page.end_row();
                page.flush();
            }
            Token::DoctypeToken(_) | Token::CommentToken(_) | Token::ParseError(_) => {}
        }
        TokenSinkResult::Continue
    }
}

/// Title, main text as Markdown, and how many characters were hidden.
pub(super) fn main_text(html: &str) -> (String, String, u64) {
    let tokenizer = Tokenizer::new(Sink(RefCell::new(Page::default())), TokenizerOpts::default());
    let queue = BufferQueue::default();
    queue.push_back(StrTendril::from_slice(html));
    let _ = tokenizer.feed(&queue);
    tokenizer.end();
    let page = tokenizer.sink.0.into_inner();
    let blocks = &page.blocks;
    let chosen = choose(blocks);
    let mut markdown = Markdown::default();
    let (mut i, mut rows) = (0, Vec::new());
    while i < blocks.len() {
        let block = &blocks[i];
        if chosen[i] {
            match block.kind {
                Kind::Heading(level) => markdown.heading(level, &block.text),
                Kind::Paragraph => markdown.paragraph(&block.text),
                Kind::Item { depth, number } => markdown.item(depth, number, &block.text),
                Kind::Preformatted => markdown.preformatted(&block.text),
                Kind::Row(_) => rows.push(block.cells.clone()),
            }
        }
        if !rows.is_empty() && blocks.get(i + 1).is_none_or(|next| next.kind != block.kind) {
            markdown.table(&std::mem::take(&mut rows));
        }
        i += 1;
    }
    let title = text::one_line(&page.title);
    let title = if title.is_empty() {
        blocks.iter().find(|block| block.kind == Kind::Heading(1)).map(|block| block.text.clone()).unwrap_or_default()
    } else {
        title
    };
    (title, markdown.into_text(), page.hidden_chars)
}

/// Which blocks are main text.
fn choose(blocks: &[Block]) -> Vec<bool> {
    let own = |block: &Block| !block.boilerplate;
    let main_words: usize = blocks.iter().filter(|block| block.main && own(block)).map(|block| block.words).sum();
    if main_words >= MAIN_WORDS_MIN {
        return blocks.iter().map(|block| block.main && own(block)).collect();
    }
    let density = |block: &Block| block.link_words as f64 / block.words.max(1) as f64;
    let prose = |block: &Block| own(block) && block.words >= PROSE_WORDS_MIN && density(block) <= LINK_DENSITY_MAX;
    let is_heading = |block: &Block| matches!(block.kind, Kind::Heading(_));
    let mut chosen: Vec<bool> = (0..blocks.len())
        .map(|i| {
            let block = &blocks[i];
            let beside = |j: Option<usize>| j.and_then(|j| blocks.get(j)).is_some_and(prose);
            prose(block)
                || (own(block) && !is_heading(block) && density(block) <= LINK_DENSITY_MAX && (beside(i.checked_sub(1)) || beside(Some(i + 1))))
                // A table, a list or preformatted text without links says something.
                || (own(block) && block.link_words == 0 && !matches!(block.kind, Kind::Paragraph | Kind::Heading(_)))
        })
        .collect();
    for i in (0..blocks.len()).rev() {
        // A short paragraph without links says something below a heading, and above a list or table that it introduces.
        let block = &blocks[i];
        if own(block) && block.kind == Kind::Paragraph && block.link_words == 0 {
            let below_heading = i.checked_sub(1).is_some_and(|above| own(&blocks[above]) && is_heading(&blocks[above]));
            let introduces = blocks.get(i + 1).is_some_and(|next| chosen[i + 1] && !is_heading(next) && next.kind != Kind::Paragraph);
            chosen[i] |= below_heading || introduces;
        }
        // A heading belongs to what it stands above.
        if own(&blocks[i]) && is_heading(&blocks[i]) && chosen.get(i + 1) == Some(&true) {
            chosen[i] = true;
        }
    }
    if chosen.iter().any(|kept| *kept) { chosen } else { blocks.iter().map(own).collect() }
}

/// The document of a page; nothing where it has no text.
pub(super) fn document(text: TextStream, options: &ReadOptions, found: &mut Found) -> Result<Option<Item>, DataError> {
    let place = text.place().clone();
    let (html, legacy) = text.all(DOCUMENT_BYTES_MAX, found)?;
    let (title, text, hidden) = main_text(&html);
    if text.trim().is_empty() {
        return Ok(None);
    }
    let fields = vec![("title".into(), Value::Text(title)), ("text".into(), Value::Text(text))];
    let mut item = text::document(&place, fields, legacy, true, options, found);
    if let Item::Document(document) = &mut item
        && hidden > 0
    {
        document.attributes.push((HIDDEN, Value::Number(hidden.to_string())));
        found.count("documents with hidden text", 1);
    }
    Ok(Some(item))
}
