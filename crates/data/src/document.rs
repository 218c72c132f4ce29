//! A document: one row of a source as it was given, never changed afterwards.

/// A value as a source gives it.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A JSON number, as JSON writes it.
    Number(String),
    /// Text; every CSV cell.
    Text(String),
    /// A list.
    List(Vec<Value>),
    /// An object, in order.
    Object(Vec<(String, Value)>),
}

impl Value {
    /// The value under a key, if this is an object that has it.
    pub fn get(&self, key: &str) -> Option<&Value> {
        match self {
            Self::Object(fields) => fields.iter().find(|(name, _)| name == key).map(|(_, value)| value),
            _ => None,
        }
    }

    /// The text, if this is text.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// About how many bytes it has.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Null | Self::Bool(_) => 4,
            Self::Number(text) | Self::Text(text) => text.len(),
            Self::List(values) => values.iter().map(Self::size).sum(),
            Self::Object(fields) => fields.iter().map(|(name, value)| name.len() + value.size()).sum(),
        }
    }

    /// What a person would read: text as it is, nothing for null, compact JSON for the rest.
    pub fn to_text(&self) -> String {
        match self {
            Self::Null => String::new(),
            Self::Text(text) => text.clone(),
            value => value.to_json(),
        }
    }

    /// Compact JSON.
    pub fn to_json(&self) -> String {
        let mut json = String::new();
        self.write_json(&mut json);
        json
    }

    fn write_json(&self, json: &mut String) {
        match self {
            Self::Null => json.push_str("null"),
            Self::Bool(true) => json.push_str("true"),
            Self::Bool(false) => json.push_str("false"),
            Self::Number(number) => json.push_str(number),
            Self::Text(text) => write_json_text(text, json),
            Self::List(list) => {
                json.push('[');
                for (i, value) in list.iter().enumerate() {
                    json.push_str(if i > 0 { "," } else { "" });
                    value.write_json(json);
                }
                json.push(']');
            }
            Self::Object(fields) => {
                json.push('{');
                for (i, (key, value)) in fields.iter().enumerate() {
                    json.push_str(if i > 0 { "," } else { "" });
                    write_json_text(key, json);
                    json.push(':');
                    value.write_json(json);
                }
                json.push('}');
            }
        }
    }
}

/// A JSON string, quotes included.
pub(crate) fn json_text(text: &str) -> String {
    let mut json = String::with_capacity(text.len() + 2);
    write_json_text(text, &mut json);
    json
}

/// Writes a JSON string as `serde_json` does, without its detour: ids are made of it for every field of every row.
fn write_json_text(text: &str, json: &mut String) {
    json.push('"');
    let (mut written, mut at) = (0, 0);
    let bytes = text.as_bytes();
    while at < bytes.len() {
        // Most bytes stand for themselves: those are passed over many at a time.
        let run = &bytes[at..bytes.len().min(at + 32)];
        let escaped = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..0x20);
        if !run.iter().fold(false, |found, byte| found | escaped(byte)) {
            at += run.len();
            continue;
        }
        at += run.iter().position(escaped).unwrap_or(0);
        let byte = bytes[at];
        at += 1;
        let escape = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            0x08 => "\\b",
            0x0C => "\\f",
            0..0x20 => {
                json.push_str(&text[written..at - 1]);
                json.push_str(&format!("\\u{byte:04x}"));
                written = at;
                continue;
            }
            _ => continue,
        };
        json.push_str(&text[written..at - 1]);
        json.push_str(escape);
        written = at;
    }
    json.push_str(&text[written..]);
    json.push('"');
}

/// Where a document came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Name of the source (its path in the run file).
    pub source: String,
    /// Where within the source: the path of a file below its folder, a member of an archive, a sheet, nested ones joined
    /// by `!`. Empty where the source is one plain file.
    pub inner: String,
    /// Row, from 1, a header not counted.
    pub row: u64,
    /// Line of the file where it starts, from 1.
    pub line: u64,
}

/// One row of a source.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// Stable: source, row and a hash of the content.
    pub id: String,
    /// Its fields in order.
    pub fields: Vec<(String, Value)>,
    /// Where it came from.
    pub origin: Origin,
    /// What was noticed about it, in the order noticed: by the reader (a repaired encoding, quoted text) and by steps.
    /// No part of its identity.
    pub attributes: Vec<(&'static str, Value)>,
}

impl Document {
    /// A document with the id that its place and content give it.
    pub fn new(fields: Vec<(String, Value)>, origin: Origin) -> Self {
        // Gathered and hashed at once, which is faster than bit by bit.
        let (mut bytes, mut json) = (Vec::new(), String::new());
        for (name, value) in &fields {
            // Lengths before contents, so that no two lists of fields hash the same bytes.
            json.clear();
            value.write_json(&mut json);
            for part in [name, &json] {
                bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
                bytes.extend_from_slice(part.as_bytes());
            }
        }
        let hash = blake3::hash(&bytes).to_hex();
        let id = match origin.inner.as_str() {
            "" => format!("{}:{}:{}", origin.source, origin.row, &hash[..8]),
            inner => format!("{}:{inner}:{}:{}", origin.source, origin.row, &hash[..8]),
        };
        Self { id, fields, origin, attributes: Vec::new() }
    }

    /// The field of a name.
    pub fn field(&self, name: &str) -> Option<&Value> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value)
    }

    /// The attribute of a name.
    pub fn attribute(&self, name: &str) -> Option<&Value> {
        self.attributes.iter().find(|(attribute, _)| *attribute == name).map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::json_text;

    proptest::proptest! {
        #[test]
        fn json_texts_are_those_of_serde(text in "[\\x00-\\x7f\"\\\\é😀\u{2028}]{0,40}") {
            proptest::prop_assert_eq!(json_text(&text), serde_json::Value::from(text).to_string());
        }
    }
}
