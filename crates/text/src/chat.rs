//! Messages to ids, with the weight of each id as a target.
//!
//! Which tokens carry loss is found by rendering: an answer's tokens are those that the whole conversation has beyond
//! the prompt from which generation would start (the conversation before the answer, with the template's generation
//! prompt). So an answer's loss covers its text, the end-of-turn token and what the template puts after that.
//!
//! Two promises are kept about ids. They are the ones that `transformers` gives for the whole rendered text, except
//! where a token would stretch over the place at which generation starts: there the text is cut, as it is when
//! generating. And the text of a special token inside a message stays text: only special tokens that the template
//! itself wrote become tokens.

use crate::error::RecordProblem;
use crate::tokenizer::Mark;
use crate::{ChatTemplate, TextError, Tokenizer};
use std::ops::Range;

/// Largest weight of a message.
const MAX_WEIGHT: u32 = 1000;

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Instructions.
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
    /// A tool's answer.
    Tool,
}

impl Role {
    /// Its name in templates and in OpenAI's messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }

    /// The role of a name; "developer" is OpenAI's newer word for system.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "system" | "developer" => Some(Self::System),
            "user" => Some(Self::User),
            "assistant" => Some(Self::Assistant),
            "tool" | "function" => Some(Self::Tool),
            _ => None,
        }
    }
}

/// One message.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: String,
    /// OpenAI's weight of an assistant message.
    pub weight: Option<f32>,
}

impl Message {
    /// A message without a weight of its own.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self { role, content: content.into(), weight: None }
    }
}

/// Which assistant messages carry loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LossOn {
    /// All, each with weight 1.
    All,
    /// The last.
    Last,
    /// By `weight` (1 where none is given).
    Weighted,
}

/// An answer that carries loss.
#[derive(Clone, Debug, PartialEq)]
pub struct Turn {
    /// Index of its message.
    pub message: usize,
    /// Its tokens in `ids`: content, end-of-turn token, and what the template puts after it.
    pub tokens: Range<usize>,
    /// Its weight in the loss.
    pub weight: f32,
}

/// A conversation as ids.
#[derive(Clone, Debug, PartialEq)]
pub struct Rendered {
    /// The ids.
    pub ids: Vec<u32>,
    /// For each id the weight with which it counts as a target; 0: it is only read.
    pub loss_weights: Vec<f32>,
    /// The answers that carry loss, in order.
    pub turns: Vec<Turn>,
}

/// A tokenizer and a template that go together; clones share both.
#[derive(Clone, Debug)]
pub struct ChatFormat {
    tokenizer: Tokenizer,
    template: ChatTemplate,
    end_of_turn: u32,
    /// Ids of tokens that are not special, but with which the template parts turns.
    role_tokens: Vec<u32>,
}

/// Stands for a message's content in a rendering that shows where contents go: private-use characters around its index.
const MARKER: [char; 2] = ['\u{E0F0}', '\u{E0F1}'];

fn marker(message: usize) -> String {
    format!("{}{message}{}", MARKER[0], MARKER[1])
}

impl ChatFormat {
    /// Binds the two; a small conversation shows which token ends a turn and whether prompts are beginnings of whole conversations.
    pub fn new(tokenizer: Tokenizer, template: ChatTemplate) -> Result<Self, TextError> {
        let probe = [Message::new(Role::User, marker(0)), Message::new(Role::Assistant, marker(1))];
        let prompt = template.render(&probe[..1], true)?;
        let whole = template.render(&probe, false)?;
        let wrong = |problem| TextError::TemplateCheck { problem };
        if !whole.starts_with(&prompt) {
            return Err(wrong(RecordProblem::Unstable { message: 1 }));
        }
        let answer = &whole[prompt.len()..];
        let tail = answer.split_once(&marker(1)).ok_or_else(|| wrong(RecordProblem::AnswerChanged { message: 1 }))?.1;
        let after = tokenizer.find_added(tail);
        let end_of_turn = after.iter().find(|mark| tokenizer.is_special(mark.id)).or(after.first()).map(|mark| mark.id);
        let end_of_turn = end_of_turn.ok_or_else(|| wrong(RecordProblem::NoEndOfTurn { message: 1 }))?;
        // Only what parts turns: a token that opens thoughts may well stand in an answer.
        let asked = template.render(&probe[..1], false)?;
        let written = tokenizer.find_added(&asked).into_iter().map(|mark| mark.id).chain([end_of_turn]);
        let role_tokens = written.filter(|id| !tokenizer.is_special(*id)).collect();
        Ok(Self { tokenizer, template, end_of_turn, role_tokens })
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The template.
    pub fn template(&self) -> &ChatTemplate {
        &self.template
    }

    /// The token that ends an answer in this template: where generation stops.
    pub fn end_of_turn(&self) -> u32 {
        self.end_of_turn
    }

    /// A conversation as one sequence of ids with loss weights. Errors name `record`.
    ///
    /// A template that rewrites earlier turns when later ones come is refused as unstable where more than the last
    /// answer carries loss: see [`ChatFormat::render_all`].
    pub fn render(&self, record: &str, messages: &[Message], loss_on: LossOn, length_max: Option<usize>) -> Result<Rendered, TextError> {
        let named = |problem| TextError::Record { record: record.to_owned(), problem };
        let weights = loss_weights(messages, loss_on).map_err(named)?;
        let rendered = self.render_one(messages, &weights).map_err(named)?;
        within(rendered, length_max).map_err(named)
    }

    /// The same, or, where the template rewrites earlier turns (Qwen 3 drops their thoughts), one sequence per answer
    /// that carries loss, each reading what generation would read.
    pub fn render_all(
        &self,
        record: &str,
        messages: &[Message],
        loss_on: LossOn,
        length_max: Option<usize>,
    ) -> Result<Vec<Rendered>, TextError> {
        let named = |problem| TextError::Record { record: record.to_owned(), problem };
        let weights = loss_weights(messages, loss_on).map_err(named)?;
        let rendered = match self.render_one(messages, &weights) {
            Err(RecordProblem::Unstable { .. }) => {
                weights.iter().map(|weight| self.render_one(&messages[..=weight.0], std::slice::from_ref(weight))).collect()
            }
            rendered => rendered.map(|rendered| vec![rendered]),
        };
        let rendered: Vec<Rendered> = rendered.map_err(named)?;
        rendered.into_iter().map(|rendered| within(rendered, length_max).map_err(named)).collect()
    }

    fn render_one(&self, messages: &[Message], weights: &[(usize, f32)]) -> Result<Rendered, RecordProblem> {
        let text = self.text(messages, false)?;
        let answers = self.answers(&text, messages)?;
        let marks = self.marks(&text, messages, false)?;
        let cuts: Vec<usize> = answers.iter().flat_map(|answer| [answer.text.start, answer.text.end]).collect();
        let (ids, positions) = self.encode(&text, &marks, &cuts)?;
        let mut loss_weights = vec![0.0; ids.len()];
        let mut turns = Vec::with_capacity(weights.len());
        for &(message, weight) in weights {
            let at = answers.iter().position(|answer| answer.message == message);
            let at = at.ok_or(RecordProblem::Unstable { message })?;
            let span = &text[answers[at].text.clone()];
            if !span.contains(messages[message].content.trim()) {
                return Err(RecordProblem::AnswerChanged { message });
            }
            let tokens = positions[2 * at]..positions[2 * at + 1];
            if tokens.is_empty() || !ids[tokens.clone()].contains(&self.end_of_turn) {
                return Err(RecordProblem::NoEndOfTurn { message });
            }
            loss_weights[tokens.clone()].fill(weight);
            turns.push(Turn { message, tokens, weight });
        }
        Ok(Rendered { ids, loss_weights, turns })
    }

    /// What generation starts from: the conversation and the template's generation prompt.
    pub fn prompt_ids(&self, record: &str, messages: &[Message]) -> Result<Vec<u32>, TextError> {
        let ids = || {
            let text = self.text(messages, true)?;
            let answers = self.answers(&text, messages)?;
            let marks = self.marks(&text, messages, true)?;
            let cuts: Vec<usize> = answers.iter().flat_map(|answer| [answer.text.start, answer.text.end]).collect();
            Ok(self.encode(&text, &marks, &cuts)?.0)
        };
        ids().map_err(|problem| TextError::Record { record: record.to_owned(), problem })
    }

    /// What follows [`ChatFormat::prompt_ids`] when the assistant says `answer`: its tokens and the end-of-turn token,
    /// without what the template puts after that. The two together begin the whole conversation.
    pub fn answer_ids(&self, record: &str, messages: &[Message], answer: &str) -> Result<Vec<u32>, TextError> {
        Ok(self.choice_ids(record, messages, &[answer])?.swap_remove(0))
    }

    /// [`ChatFormat::answer_ids`] of several answers to the same prompt.
    pub fn choice_ids(&self, record: &str, messages: &[Message], answers: &[&str]) -> Result<Vec<Vec<u32>>, TextError> {
        let ids = || -> Result<Vec<Vec<u32>>, RecordProblem> {
            let prompt = self.text(messages, true)?;
            let marks = self.marks(&prompt, messages, true)?;
            let mut whole = messages.to_vec();
            whole.push(Message::new(Role::Assistant, ""));
            answers.iter().map(|answer| self.choice(&prompt, &marks, &mut whole, answer)).collect()
        };
        ids().map_err(|problem| TextError::Record { record: record.to_owned(), problem })
    }

    /// Ids of one answer; `whole` is the conversation with room for it.
    fn choice(&self, prompt: &str, marks: &[Mark], whole: &mut [Message], answer: &str) -> Result<Vec<u32>, RecordProblem> {
        let message = whole.len() - 1;
        if answer.trim().is_empty() {
            return Err(RecordProblem::EmptyAnswer { message });
        }
        whole[message].content = answer.to_owned();
        let text = self.text(whole, false)?;
        let said = text.strip_prefix(prompt).ok_or(RecordProblem::Unstable { message })?;
        if !said.contains(answer.trim()) {
            return Err(RecordProblem::AnswerChanged { message });
        }
        let marks = if self.protected(answer).is_empty() {
            let said = self.protected(said).into_iter().map(|mark| mark.moved(prompt.len()));
            marks.iter().cloned().chain(said).collect()
        } else {
            self.marks(&text, whole, false)?
        };
        // Special tokens part the text: what stands before the last one in the prompt has no say in what follows.
        let start = marks.iter().rev().find(|mark| mark.bytes.end <= prompt.len()).map_or(0, |mark| mark.bytes.start);
        let (ids, positions) = self.encode_from(&text, start, &marks, &[prompt.len()])?;
        let mut ids = ids[positions[0]..].to_vec();
        let end = ids.iter().position(|id| *id == self.end_of_turn).ok_or(RecordProblem::NoEndOfTurn { message })?;
        ids.truncate(end + 1);
        Ok(ids)
    }

    fn text(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String, RecordProblem> {
        if messages.is_empty() {
            return Err(RecordProblem::NoMessages);
        }
        self.template.render(messages, add_generation_prompt).map_err(|error| match error {
            TextError::TemplateOutput { limit } => RecordProblem::Output { limit },
            error => RecordProblem::Template { reason: error.to_string() },
        })
    }

    /// The assistant's messages that stand in `text` as they would have been generated, in order.
    fn answers(&self, text: &str, messages: &[Message]) -> Result<Vec<Answer>, RecordProblem> {
        let mut answers = Vec::new();
        for (message, _) in messages.iter().enumerate().filter(|(_, m)| m.role == Role::Assistant) {
            // A conversation that the assistant opens has no prompt to open it with.
            let prompt = if message == 0 { String::new() } else { self.text(&messages[..message], true)? };
            let until = self.text(&messages[..=message], false)?;
            if text.starts_with(&until) && until.starts_with(&prompt) {
                answers.push(Answer { message, text: prompt.len()..until.len() });
            }
        }
        Ok(answers)
    }

    /// The special tokens that the template wrote into `text`.
    fn marks(&self, text: &str, messages: &[Message], prompt: bool) -> Result<Vec<Mark>, RecordProblem> {
        let found = self.protected(text);
        let said = messages.iter().enumerate().find_map(|(message, said)| Some((message, self.protected(&said.content).first()?.id)));
        let Some((message, id)) = said else { return Ok(found) };
        // Someone wrote the text of a special token. Only tokens in the template's own text are tokens.
        let hidden = || {
            let token = self.tokenizer.token_text(id).unwrap_or_default();
            RecordProblem::SpecialText { message, token }
        };
        let shown: Vec<Message> = (0..messages.len()).map(|i| Message::new(messages[i].role, marker(i))).collect();
        let skeleton = self.text(&shown, prompt).map_err(|_| hidden())?;
        let literals = literal_spans(&skeleton, text, messages).ok_or_else(hidden)?;
        let within = |mark: &Mark| literals.iter().any(|span| span.start <= mark.bytes.start && mark.bytes.end <= span.end);
        let kept: Vec<Mark> = found.into_iter().filter(within).collect();
        let expected = self.protected(&skeleton);
        if kept.iter().map(|mark| mark.id).ne(expected.iter().map(|mark| mark.id)) {
            return Err(hidden());
        }
        Ok(kept)
    }

    fn protected(&self, text: &str) -> Vec<Mark> {
        let mut marks = self.tokenizer.find_added(text);
        marks.retain(|mark| self.tokenizer.is_special(mark.id) || self.role_tokens.contains(&mark.id));
        marks
    }

    /// Ids of `text` with a token boundary at each cut, and how many ids stand before each cut.
    fn encode(&self, text: &str, marks: &[Mark], cuts: &[usize]) -> Result<(Vec<u32>, Vec<usize>), RecordProblem> {
        self.encode_from(text, 0, marks, cuts)
    }

    /// The same for the text from `start`, which is 0 or where a mark begins.
    fn encode_from(&self, text: &str, start: usize, marks: &[Mark], cuts: &[usize]) -> Result<(Vec<u32>, Vec<usize>), RecordProblem> {
        let encode = |bytes: Range<usize>| {
            let inside = marks.iter().filter(|mark| bytes.start <= mark.bytes.start && mark.bytes.end <= bytes.end);
            let inside: Vec<Mark> = inside.map(|mark| mark.shifted(bytes.start)).collect();
            let ids = self.tokenizer.encode_marked(&text[bytes], &inside, &self.role_tokens);
            ids.map_err(|error| RecordProblem::Tokenizer { reason: error.to_string() })
        };
        let (mut ids, mut positions) = (Vec::new(), Vec::with_capacity(cuts.len()));
        // Ids of the text before `window` are written. Special tokens part the text, so that a cut can only matter
        // between the special token before it and the one after it.
        let (mut window, mut forced) = (start, false);
        for &cut in cuts {
            let before = marks.iter().rev().find(|mark| mark.bytes.end <= cut && mark.bytes.start >= window);
            let from = before.map_or(window, |mark| mark.bytes.start);
            let after = marks.iter().find(|mark| mark.bytes.start >= cut).map_or(text.len(), |mark| mark.bytes.start);
            if from > window {
                ids.extend(encode(window..from)?);
                window = from;
            }
            let head = encode(from..cut)?;
            positions.push(ids.len() + head.len());
            if !encode(from..after)?.starts_with(&head) {
                forced = true;
                ids.extend(head);
                window = cut;
            }
        }
        if window < text.len() {
            ids.extend(encode(window..text.len())?);
        }
        if forced {
            // Pieces of text must mean the same as the whole; a tokenizer that writes a space before each does not.
            let decode = |ids: &[u32]| self.tokenizer.decode(ids, false).unwrap_or_default();
            if decode(&ids) != decode(&encode(start..text.len())?) {
                return Err(RecordProblem::Boundary);
            }
        }
        Ok((ids, positions))
    }
}

/// Answers are never cut: what is longer than allowed is an error.
fn within(rendered: Rendered, length_max: Option<usize>) -> Result<Rendered, RecordProblem> {
    match length_max {
        Some(limit) if rendered.ids.len() > limit => Err(RecordProblem::TooLong { given: rendered.ids.len(), limit }),
        _ => Ok(rendered),
    }
}

/// An assistant's message in a rendered text.
struct Answer {
    message: usize,
    /// From where generation would start to what follows the message.
    text: Range<usize>,
}

/// Messages that carry loss, with their weights; at least one.
fn loss_weights(messages: &[Message], loss_on: LossOn) -> Result<Vec<(usize, f32)>, RecordProblem> {
    if messages.is_empty() {
        return Err(RecordProblem::NoMessages);
    }
    let mut weights = Vec::new();
    for (message, said) in messages.iter().enumerate().filter(|(_, said)| said.role == Role::Assistant) {
        let weight = match loss_on {
            LossOn::All | LossOn::Last => 1.0,
            LossOn::Weighted => said.weight.unwrap_or(1.0),
        };
        if !(0.0..=MAX_WEIGHT as f32).contains(&weight) {
            return Err(RecordProblem::Weight { message, weight: weight.to_string(), limit: MAX_WEIGHT });
        }
        if weight > 0.0 {
            weights.push((message, weight));
        }
    }
    if loss_on == LossOn::Last {
        weights.drain(..weights.len().saturating_sub(1));
    }
    if let Some(&(message, _)) = weights.iter().find(|(message, _)| messages[*message].content.trim().is_empty()) {
        return Err(RecordProblem::EmptyAnswer { message });
    }
    if weights.is_empty() { Err(RecordProblem::NoLoss) } else { Ok(weights) }
}

/// Where the template's own text stands in `text`, given the same rendering with markers for contents. None where the two do not fit.
fn literal_spans(skeleton: &str, text: &str, messages: &[Message]) -> Option<Vec<Range<usize>>> {
    let mut spans = Vec::new();
    let (mut rest, mut at) = (skeleton, 0);
    loop {
        let (literal, after) = match rest.split_once(MARKER[0]) {
            None => (rest, None),
            Some((literal, after)) => (literal, Some(after)),
        };
        if !text[at..].starts_with(literal) {
            return None;
        }
        spans.push(at..at + literal.len());
        at += literal.len();
        let Some(after) = after else { return (at == text.len()).then_some(spans) };
        let (index, after) = after.split_once(MARKER[1])?;
        let content = messages.get(index.parse::<usize>().ok()?)?.content.as_str();
        let next = after.split(MARKER[0]).next().unwrap_or_default();
        let last = next.len() == after.len();
        let forms = [content, content.trim(), content.trim_end(), content.trim_start()];
        let form = forms
            .iter()
            .find(|form| text[at..].strip_prefix(**form).is_some_and(|rest| if last { rest == next } else { rest.starts_with(next) }))?;
        at += form.len();
        rest = after;
    }
}
