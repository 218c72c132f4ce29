//! Chat templates: Jinja as `transformers` runs it, with fuel, a cap on output and no way to anything outside.
//!
//! Differences to know of: `strftime_now` is defined only if a date is given (time is an argument); `tools` and
//! `documents` are none; `{% generation %}` blocks mark nothing, because which tokens carry loss is found by rendering.

use crate::{Message, TextError};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Kwargs;
use minijinja::{Environment, Error, ErrorKind, Value};
use minijinja_contrib::pycompat::unknown_method_callback;
use std::io;
use std::sync::Arc;

/// Longest template (the longest published ones have 20 kB).
const MAX_TEMPLATE_BYTES: usize = 256 << 10;
/// Most text from one conversation.
const MAX_OUTPUT_BYTES: usize = 64 << 20;
/// Instructions and 64-byte pieces of data for one rendering.
const FUEL: u64 = 3_000_000;
/// Deepest recursion; templates with macros need some 30.
const MAX_RECURSION: usize = 200;
/// Longest message of a template's own `raise_exception` that is repeated.
const MAX_REASON_CHARS: usize = 200;

/// ChatML, as Qwen and SmolLM have it, without a default system message.
const CHATML: &str = "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";
/// No roles: what stands before the answer, a blank line, the answer, the end token. For bases that know no chat.
const PLAIN: &str = "{{ bos_token }}{% for message in messages %}{{ message['content'] }}{% if message['role'] == 'assistant' %}{{ eos_token }}{% else %}{{ '\n\n' }}{% endif %}{% endfor %}";
/// Gemma 2 and 3's turns, for their bases that come without a template, as Google's own template for the tuned ones writes
/// them: the system message opens the first turn as it is, the others lose the white space around them.
const GEMMA: &str = "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set first = messages[0]['content'] + '\n\n' %}{% set turns = messages[1:] %}{% else %}{% set first = '' %}{% set turns = messages %}{% endif %}{% for message in turns %}{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\n' + (first if loop.first else '') + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}";

/// Names that `[model] template` may have.
pub const BUILT_IN_TEMPLATES: [&str; 3] = ["chatml", "gemma", "plain"];

/// A day, for templates that print one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Date {
    /// Year.
    pub year: u16,
    /// 1 to 12.
    pub month: u8,
    /// 1 to 31.
    pub day: u8,
}

/// What a template sees beside the messages.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct TemplateContext {
    /// Text of the begin token, or empty.
    pub bos_token: String,
    /// Text of the end token, or empty.
    pub eos_token: String,
    /// Day for `strftime_now`; without one the function is not defined and templates use their own fixed day.
    pub date: Option<Date>,
}

/// A chat template; clones share it.
///
/// ```
/// use text::{ChatTemplate, Message, Role, TemplateContext};
/// let template = ChatTemplate::built_in("chatml", TemplateContext::default())?;
/// let text = template.render(&[Message::new(Role::User, "Hi")], true)?;
/// assert_eq!(text, "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
/// # Ok::<(), text::TextError>(())
/// ```
#[derive(Clone)]
pub struct ChatTemplate {
    shared: Arc<Shared>,
}

struct Shared {
    source: String,
    context: TemplateContext,
    environment: Environment<'static>,
}

impl std::fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChatTemplate").field("bytes", &self.shared.source.len()).finish_non_exhaustive()
    }
}

impl ChatTemplate {
    /// Parses a template.
    pub fn new(source: &str, context: TemplateContext) -> Result<Self, TextError> {
        if source.len() > MAX_TEMPLATE_BYTES {
            return Err(TextError::TemplateSize { given: source.len(), limit: MAX_TEMPLATE_BYTES });
        }
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(template_error)?);
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(MAX_RECURSION);
        environment.set_unknown_method_callback(unknown_method_callback);
        environment.add_filter("tojson", tojson);
        // Python can iterate over text, but not over none.
        environment.add_test("iterable", |value: Value| {
            use minijinja::value::ValueKind::{Iterable, Map, Seq, String, Undefined};
            matches!(value.kind(), String | Seq | Map | Iterable | Undefined)
        });
        environment.add_function("raise_exception", |reason: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, reason))
        });
        if let Some(date) = context.date {
            environment.add_function("strftime_now", move |format: String| strftime(date, &format));
        }
        environment.add_template_owned("chat", without_generation_tags(source)).map_err(template_error)?;
        Ok(Self { shared: Arc::new(Shared { source: source.to_owned(), context, environment }) })
    }

    /// A template of [`BUILT_IN_TEMPLATES`].
    pub fn built_in(name: &str, context: TemplateContext) -> Result<Self, TextError> {
        match name {
            "chatml" => Self::new(CHATML, context),
            "gemma" => Self::new(GEMMA, context),
            "plain" => Self::new(PLAIN, context),
            _ => Err(TextError::UnknownTemplate { given: name.into(), known: BUILT_IN_TEMPLATES.join(", ") }),
        }
    }

    /// Its text.
    pub fn source(&self) -> &str {
        &self.shared.source
    }

    /// What it sees beside the messages.
    pub fn context(&self) -> &TemplateContext {
        &self.shared.context
    }

    /// Bytes that are equal exactly when two templates render everything equally: what a manifest hashes.
    pub fn canonical_bytes(&self) -> Vec<u8> {
        let TemplateContext { bos_token, eos_token, date } = &self.shared.context;
        let date = date.map(|d| format!("{:04}-{:02}-{:02}", d.year, d.month, d.day));
        serde_json::json!([self.shared.source, bos_token, eos_token, date]).to_string().into_bytes()
    }

    /// The text of a conversation; with `add_generation_prompt` up to where the assistant would speak.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String, TextError> {
        let messages: Value = messages
            .iter()
            .map(|message| {
                let role = Value::from(message.role.name());
                Value::from_pairs([("role", role), ("content", Value::from(message.content.as_str()))])
            })
            .collect();
        let context = Value::from_pairs([
            ("messages", messages),
            ("add_generation_prompt", Value::from(add_generation_prompt)),
            ("bos_token", Value::from(self.shared.context.bos_token.as_str())),
            ("eos_token", Value::from(self.shared.context.eos_token.as_str())),
            ("tools", Value::from(())),
            ("documents", Value::from(())),
        ]);
        let template = self.shared.environment.get_template("chat").map_err(template_error)?;
        let mut output = Capped { bytes: Vec::new(), overflow: false };
        let result = template.render_captured_to(context, &mut output).map(|_| ());
        if output.overflow {
            return Err(TextError::TemplateOutput { limit: MAX_OUTPUT_BYTES });
        }
        result.map_err(template_error)?;
        String::from_utf8(output.bytes).map_err(|_| TextError::TemplateOutput { limit: MAX_OUTPUT_BYTES })
    }
}

/// Collects output up to the limit.
struct Capped {
    bytes: Vec<u8>,
    overflow: bool,
}

impl io::Write for Capped {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > MAX_OUTPUT_BYTES {
            self.overflow = true;
            return Err(io::Error::other("output limit"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn template_error(error: Error) -> TextError {
    let reason = error.detail().map_or_else(|| error.kind().to_string(), |detail| format!("{}: {detail}", error.kind()));
    TextError::Template { line: error.line(), reason: reason.chars().take(MAX_REASON_CHARS).collect() }
}

/// `{% generation %}` and `{% endgeneration %}` become `{% if true %}` and `{% endif %}`, white-space control kept.
fn without_generation_tags(source: &str) -> String {
    let mut output = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at);
        output.push_str(before);
        let name_at = tag[2..].find(|c: char| !c.is_whitespace() && c != '-' && c != '+').map_or(tag.len(), |n| n + 2);
        let name: &str = tag[name_at..].split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
        output.push_str(&tag[..name_at]);
        output.push_str(match name {
            "generation" => "if true",
            "endgeneration" => "endif",
            name => name,
        });
        rest = &tag[name_at + name.len()..];
    }
    output.push_str(rest);
    output
}

/// Python's `json.dumps` as `transformers` sets it: separators with a space, no escapes beyond JSON's own.
fn tojson(value: Value, arguments: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = arguments.get("indent")?;
    let _: Option<bool> = arguments.get("ensure_ascii")?;
    arguments.assert_all_used()?;
    let json = serde_json::to_value(&value).map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string()))?;
    let mut output = String::new();
    write_json(&json, indent, 0, &mut output);
    Ok(Value::from(output))
}

fn write_json(value: &serde_json::Value, indent: Option<usize>, level: usize, output: &mut String) {
    let line = |level: usize, output: &mut String| {
        if let Some(width) = indent {
            output.push('\n');
            output.extend(std::iter::repeat_n(' ', width.min(16) * level));
        }
    };
    let comma = if indent.is_some() { "," } else { ", " };
    match value {
        serde_json::Value::Array(list) if !list.is_empty() => {
            output.push('[');
            for (i, item) in list.iter().enumerate() {
                output.push_str(if i > 0 { comma } else { "" });
                line(level + 1, output);
                write_json(item, indent, level + 1, output);
            }
            line(level, output);
            output.push(']');
        }
        serde_json::Value::Object(map) if !map.is_empty() => {
            output.push('{');
            for (i, (key, item)) in map.iter().enumerate() {
                output.push_str(if i > 0 { comma } else { "" });
                line(level + 1, output);
                output.push_str(&serde_json::Value::from(key.as_str()).to_string());
                output.push_str(": ");
                write_json(item, indent, level + 1, output);
            }
            line(level, output);
            output.push('}');
        }
        value => output.push_str(&value.to_string()),
    }
}

/// The day by Python's directives; hours, minutes and seconds are zero.
fn strftime(date: Date, format: &str) -> Result<String, Error> {
    const MONTHS: [&str; 12] =
        ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"];
    const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
    let month = MONTHS.get(usize::from(date.month).wrapping_sub(1));
    let month = *month.ok_or_else(|| Error::new(ErrorKind::InvalidOperation, "the date's month is not 1 to 12"))?;
    // Sakamoto's rule for the day of the week.
    let offset = [0, 3, 2, 5, 0, 3, 5, 1, 4, 6, 2, 4][usize::from(date.month) - 1];
    let year = usize::from(date.year) - usize::from(date.month < 3 && date.year > 0);
    let weekday = DAYS[(year + year / 4 - year / 100 + year / 400 + offset + usize::from(date.day)) % 7];
    let mut output = String::new();
    let mut characters = format.chars();
    while let Some(c) = characters.next() {
        if c != '%' {
            output.push(c);
            continue;
        }
        match characters.next() {
            Some('d') => output.push_str(&format!("{:02}", date.day)),
            Some('m') => output.push_str(&format!("{:02}", date.month)),
            Some('Y') => output.push_str(&format!("{:04}", date.year)),
            Some('y') => output.push_str(&format!("{:02}", date.year % 100)),
            Some('B') => output.push_str(month),
            Some('b') => output.push_str(&month[..3]),
            Some('A') => output.push_str(weekday),
            Some('a') => output.push_str(&weekday[..3]),
            Some('H' | 'M' | 'S') => output.push_str("00"),
            Some('%') => output.push('%'),
            other => {
                let reason = format!("strftime_now knows no %{}", other.unwrap_or(' '));
                return Err(Error::new(ErrorKind::InvalidOperation, reason));
            }
        }
    }
    Ok(output)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Role;

    fn render(source: &str, messages: &[Message], prompt: bool) -> Result<String, TextError> {
        let date = Some(Date { year: 2026, month: 7, day: 26 });
        let context = TemplateContext { bos_token: "<s>".into(), eos_token: "</s>".into(), date };
        ChatTemplate::new(source, context)?.render(messages, prompt)
    }

    fn user(text: &str) -> Message {
        Message::new(Role::User, text)
    }

    #[test]
    fn python_methods_whitespace_and_generation_tags_work() {
        let source = "{{ bos_token }}\n{%- for m in messages %}\n    {%- if m.role == 'user' %}\n{{ m.content.strip() | upper }}\n    {%- else %}\n{% generation %}{{ m['content'] }}{{ eos_token }}{% endgeneration %}\n    {%- endif %}\n{%- endfor %}";
        let messages = [user("  hi "), Message::new(Role::Assistant, "ok")];
        assert_eq!(render(source, &messages, false).unwrap(), "<s>HIok</s>");
    }

    #[test]
    fn the_date_is_an_argument() {
        assert_eq!(render("{{ strftime_now('%d %b %Y %A %%') }}", &[], false).unwrap(), "26 Jul 2026 Sunday %");
        let source = "{% if strftime_now is defined %}x{% else %}26 Jul 2024{% endif %}";
        let template = ChatTemplate::new(source, TemplateContext::default()).unwrap();
        assert_eq!(template.render(&[], false).unwrap(), "26 Jul 2024");
    }

    #[test]
    fn json_is_pythons() {
        assert_eq!(render("{{ {'a': ['<b>', 1, none]} | tojson }}", &[], false).unwrap(), r#"{"a": ["<b>", 1, null]}"#);
        assert_eq!(render("{{ {'a': [1]} | tojson(indent=2) }}", &[], false).unwrap(), "{\n  \"a\": [\n    1\n  ]\n}");
    }

    #[test]
    fn its_own_refusal_is_the_reason() {
        let error = render("x\n{{ raise_exception('roles must alternate') }}", &[], false).unwrap_err();
        assert!(error.to_string().contains("line 2") && error.to_string().contains("roles must alternate"), "{error}");
    }

    #[test]
    fn bombs_end() {
        for source in [
            "{% for a in range(100000) %}{% for b in range(100000) %}{{ b }}{% endfor %}{% endfor %}",
            "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
            "{% set ns = namespace(t='aaaaaaaaaaaaaaaa') %}{% for i in range(60) %}{% set ns.t = ns.t ~ ns.t %}{% endfor %}{{ ns.t }}",
            "{{ 'a' * 100000000000 }}",
            "{{ [1] * 100000000000 }}",
            "{% include 'chat' %}",
            "{{ range(1000000000000) | list }}",
            "{% for a in messages",
            "{{ ().__class__.__bases__[0].__subclasses__() }}",
        ] {
            assert!(render(source, &[user("x")], false).is_err(), "{source}");
        }
        let long = "a".repeat(MAX_TEMPLATE_BYTES + 1);
        assert!(matches!(render(&long, &[], false), Err(TextError::TemplateSize { .. })));
    }
}
