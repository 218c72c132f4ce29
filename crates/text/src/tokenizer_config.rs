//! tokenizer_config.json: the names of a model's own special tokens, and its chat template.

use crate::TextError;
use serde_json::Value;

/// Largest tokenizer_config.json (models with many added tokens have 200 kB).
const MAX_BYTES: usize = 16 << 20;

/// What tokenizer_config.json says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenizerConfig {
    /// Text of the begin token.
    pub bos_token: Option<String>,
    /// Text of the end token.
    pub eos_token: Option<String>,
    /// Text of the padding token.
    pub pad_token: Option<String>,
    /// Text of the unknown token.
    pub unk_token: Option<String>,
    /// Whether a document begins with the begin token, where tokenizer.json does not say.
    pub add_bos_token: Option<bool>,
    /// Whether a document ends with the end token, where tokenizer.json does not say.
    pub add_eos_token: Option<bool>,
    /// The chat template (the one named "default" where there are several). A chat_template.jinja beside the file takes its place.
    pub chat_template: Option<String>,
}

impl TokenizerConfig {
    /// Reads it. Keys that say nothing about text are ignored: the file carries many.
    pub fn from_json(bytes: &[u8]) -> Result<Self, TextError> {
        let wrong = |reason: String| TextError::Json { file: "tokenizer_config.json", reason };
        if bytes.len() > MAX_BYTES {
            return Err(wrong(format!("{} bytes, at most {MAX_BYTES}", bytes.len())));
        }
        let value: Value = serde_json::from_slice(bytes).map_err(|error| wrong(error.to_string()))?;
        if !value.is_object() {
            return Err(wrong("expected an object".into()));
        }
        // A token is its text, or an object with the text as `content`.
        let token = |key: &str| match value.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(Value::Object(fields)) => match fields.get("content") {
                Some(Value::String(text)) => Ok(Some(text.clone())),
                _ => Err(wrong(format!("{key} is an object without content"))),
            },
            Some(_) => Err(wrong(format!("{key} is not text"))),
        };
        let flag = |key: &str| value.get(key).and_then(Value::as_bool);
        Ok(Self {
            bos_token: token("bos_token")?,
            eos_token: token("eos_token")?,
            pad_token: token("pad_token")?,
            unk_token: token("unk_token")?,
            add_bos_token: flag("add_bos_token"),
            add_eos_token: flag("add_eos_token"),
            chat_template: chat_template(&value),
        })
    }
}

/// `chat_template` is text, or a list of `{name, template}`.
fn chat_template(value: &Value) -> Option<String> {
    match value.get("chat_template")? {
        Value::String(text) => Some(text.clone()),
        Value::Array(list) => {
            let named = |name: &str| list.iter().find(|item| item.get("name").and_then(Value::as_str) == Some(name));
            let chosen = named("default").or_else(|| if list.len() == 1 { list.first() } else { None })?;
            chosen.get("template").and_then(Value::as_str).map(str::to_owned)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_text_or_objects_and_templates_one_or_named() {
        let config = TokenizerConfig::from_json(
            br#"{"bos_token": {"content": "<s>", "lstrip": false}, "eos_token": "</s>", "pad_token": null,
                 "chat_template": [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]}"#,
        )
        .unwrap();
        assert_eq!(config.bos_token.as_deref(), Some("<s>"));
        assert_eq!(config.eos_token.as_deref(), Some("</s>"));
        assert_eq!(config.pad_token, None);
        assert_eq!(config.chat_template.as_deref(), Some("d"));
    }

    #[test]
    fn wrong_files_are_refused() {
        for bytes in [&b"[]"[..], b"{", b"{\"bos_token\": 3}", b"{\"eos_token\": {}}", b"\xff"] {
            assert!(TokenizerConfig::from_json(bytes).is_err());
        }
    }
}
