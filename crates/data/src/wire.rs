//! Records, documents and rejects as lines of JSON, and records back. Keys stand in alphabetical order, values that
//! have to come back exactly (numbers of an answer) as text with their kind.

use crate::record::Change;
use crate::steps::Conflict;
use crate::{Answer, Document, FieldValue, Lineage, Origin, Record, Rejected, Value};
use serde_json::Value as Json;
use text::{Message, Role};

fn string(line: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(line, text).expect("writing to memory does not fail");
}

fn optional(line: &mut Vec<u8>, text: Option<&str>) {
    match text {
        Some(text) => string(line, text),
        None => line.extend_from_slice(b"null"),
    }
}

fn weight(line: &mut Vec<u8>, weight: Option<f32>) {
    let weight = weight.map_or(Json::Null, |weight| Json::from(f64::from(weight)));
    line.extend_from_slice(weight.to_string().as_bytes());
}

fn list<T>(line: &mut Vec<u8>, items: &[T], mut item: impl FnMut(&mut Vec<u8>, &T)) {
    line.push(b'[');
    for (i, value) in items.iter().enumerate() {
        line.extend_from_slice(if i > 0 { b"," } else { b"" });
        item(line, value);
    }
    line.push(b']');
}

/// Appends a record without its newline.
pub fn write_record(line: &mut Vec<u8>, record: &Record) {
    write_open_record(line, record);
    close_record(line, record.stratum.as_deref(), record.weight);
}

/// Everything before the stratum and the weight, which are the last keys, and may be known only when all records are.
pub fn write_open_record(line: &mut Vec<u8>, record: &Record) {
    line.extend_from_slice(b"{\"answer\":");
    match &record.answer {
        Answer::Text(text) => {
            line.extend_from_slice(b"{\"text\":");
            string(line, text);
        }
        Answer::Fields(fields) => {
            line.extend_from_slice(b"{\"fields\":");
            list(line, fields, |line, (name, value)| field(line, name, value));
        }
    }
    line.extend_from_slice(b"},\"answer_weight\":");
    weight(line, record.answer_weight);
    if record.continued {
        line.extend_from_slice(b",\"continued\":true");
    }
    line.extend_from_slice(b",\"group\":");
    optional(line, record.group.as_deref());
    line.extend_from_slice(b",\"id\":");
    string(line, &record.id);
    line.extend_from_slice(b",\"lineage\":{");
    if let Some(change) = &record.lineage.change {
        line.extend_from_slice(b"\"change\":");
        string(line, &change.kind);
        line.push(b',');
    }
    line.extend_from_slice(b"\"document\":");
    string(line, &record.lineage.document);
    if let Some(change) = &record.lineage.change {
        line.extend_from_slice(b",\"parent\":");
        string(line, &change.parent);
    }
    line.extend_from_slice(format!(",\"row\":{},\"source\":", record.lineage.row).as_bytes());
    string(line, &record.lineage.source);
    line.extend_from_slice(b"},\"messages\":");
    list(line, &record.messages, |line, message| {
        line.extend_from_slice(b"{\"content\":");
        string(line, &message.content);
        line.extend_from_slice(b",\"role\":");
        string(line, message.role.name());
        line.extend_from_slice(b",\"weight\":");
        weight(line, message.weight);
        line.push(b'}');
    });
    line.extend_from_slice(b",\"stratum\":");
}

/// The stratum, the weight where there is one, and the end of the record.
pub(crate) fn close_record(line: &mut Vec<u8>, stratum: Option<&str>, counts: Option<f32>) {
    optional(line, stratum);
    if counts.is_some() {
        line.extend_from_slice(b",\"weight\":");
        weight(line, counts);
    }
    line.push(b'}');
}

/// A field with its kind, so that numbers come back exactly as they were written.
fn field(line: &mut Vec<u8>, name: &str, value: &FieldValue) {
    let (kind, value) = match value {
        FieldValue::Null => ("null", None),
        FieldValue::Bool(true) => ("bool", Some("true")),
        FieldValue::Bool(false) => ("bool", Some("false")),
        FieldValue::Number(text) => ("number", Some(text.as_str())),
        FieldValue::Text(text) => ("text", Some(text.as_str())),
        FieldValue::Json(text) => ("json", Some(text.as_str())),
    };
    line.extend_from_slice(b"{\"kind\":");
    string(line, kind);
    line.extend_from_slice(b",\"name\":");
    string(line, name);
    line.extend_from_slice(b",\"value\":");
    match (kind, value) {
        ("bool", Some(value)) => line.extend_from_slice(value.as_bytes()),
        (_, value) => optional(line, value),
    }
    line.push(b'}');
}

/// Appends a document without its newline: its fields as a list of names and values, so that their order stays.
pub fn write_document(line: &mut Vec<u8>, document: &Document) {
    fn pair(line: &mut Vec<u8>, name: &str, value: &Value) {
        line.push(b'[');
        string(line, name);
        line.push(b',');
        write_value(line, value);
        line.push(b']');
    }
    line.push(b'{');
    if !document.attributes.is_empty() {
        line.extend_from_slice(b"\"attributes\":");
        list(line, &document.attributes, |line, (name, value)| pair(line, name, value));
        line.push(b',');
    }
    line.extend_from_slice(b"\"fields\":");
    list(line, &document.fields, |line, (name, value)| pair(line, name, value));
    line.extend_from_slice(b",\"id\":");
    string(line, &document.id);
    if !document.origin.inner.is_empty() {
        line.extend_from_slice(b",\"inner\":");
        string(line, &document.origin.inner);
    }
    line.extend_from_slice(format!(",\"line\":{},\"row\":{},\"source\":", document.origin.line, document.origin.row).as_bytes());
    string(line, &document.origin.source);
    line.push(b'}');
}

fn write_value(line: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => line.extend_from_slice(b"null"),
        Value::Bool(value) => line.extend_from_slice(if *value { b"true" } else { b"false" }),
        Value::Number(number) => line.extend_from_slice(number.as_bytes()),
        Value::Text(text) => string(line, text),
        Value::List(values) => list(line, values, write_value),
        Value::Object(fields) => {
            line.push(b'{');
            for (i, (name, value)) in fields.iter().enumerate() {
                line.extend_from_slice(if i > 0 { b"," } else { b"" });
                string(line, name);
                line.push(b':');
                write_value(line, value);
            }
            line.push(b'}');
        }
    }
}

/// Appends a reject without its newline.
pub fn write_rejected(line: &mut Vec<u8>, rejected: &Rejected) {
    line.extend_from_slice(b"{\"detail\":");
    string(line, &rejected.reason.to_string());
    line.extend_from_slice(b",\"id\":");
    string(line, &rejected.id);
    line.extend_from_slice(b",\"reason\":");
    string(line, rejected.reason.name());
    line.extend_from_slice(b",\"related\":");
    list(line, &rejected.related, |line, id| string(line, id));
    line.extend_from_slice(b",\"step\":");
    string(line, rejected.step);
    line.push(b'}');
}

/// Appends a conflict that was reported, not dropped, without its newline.
pub fn write_conflict(line: &mut Vec<u8>, conflict: &Conflict) {
    line.extend_from_slice(b"{\"id\":");
    string(line, &conflict.ids[0]);
    line.extend_from_slice(b",\"reason\":\"reported\",\"related\":");
    list(line, &conflict.ids, |line, id| string(line, id));
    line.extend_from_slice(b",\"step\":\"conflicts\"}");
}

/// Reads a line that [`write_document`] wrote; the error says what is missing.
pub fn read_document(line: &[u8]) -> Result<Document, String> {
    let read = crate::read::read("documents", line, crate::Format::JsonLines, &crate::read::LIMITS).map_err(|error| error.to_string())?;
    let row = read.documents.into_iter().next().ok_or("no document")?;
    let text = |name: &str| row.field(name).and_then(Value::as_text).map(str::to_owned).ok_or_else(|| format!("no {name}"));
    let number = |name: &str| match row.field(name) {
        Some(Value::Number(number)) => number.parse().map_err(|_| format!("{name} is {number}")),
        _ => Err(format!("no {name}")),
    };
    let Some(Value::List(pairs)) = row.field("fields") else { return Err("no fields".into()) };
    let pair = |pair: &Value| match pair {
        Value::List(pair) => match pair.as_slice() {
            [Value::Text(name), value] => Ok((name.clone(), value.clone())),
            _ => Err("a field without name or value".to_owned()),
        },
        _ => Err("a field that is no pair".to_owned()),
    };
    let fields = pairs.iter().map(pair).collect::<Result<_, _>>()?;
    let inner = row.field("inner").and_then(Value::as_text).unwrap_or_default().to_owned();
    let origin = Origin { source: text("source")?, inner, row: number("row")?, line: number("line")? };
    // What a reader noticed is for people; a record is made without it.
    Ok(Document { id: text("id")?, fields, origin, attributes: Vec::new() })
}

/// Reads a line that [`write_record`] wrote; the error says what is missing.
pub fn read_record(line: &[u8]) -> Result<Record, String> {
    let value: Json = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let text = |value: &Json, key: &str| value[key].as_str().map(str::to_owned).ok_or_else(|| format!("no {key}"));
    let optional = |key: &str| value[key].as_str().map(str::to_owned);
    let messages = value["messages"].as_array().ok_or("no messages")?.iter().map(|message| {
        let role = text(message, "role")?;
        Ok(Message {
            role: Role::from_name(&role).ok_or_else(|| format!("unknown role {role}"))?,
            content: text(message, "content")?,
            weight: message["weight"].as_f64().map(|weight| weight as f32),
        })
    });
    let answer = match &value["answer"]["fields"] {
        Json::Array(fields) => {
            Answer::Fields(fields.iter().map(|field| Ok((text(field, "name")?, read_field(field)?))).collect::<Result<_, String>>()?)
        }
        _ => Answer::Text(text(&value["answer"], "text")?),
    };
    Ok(Record {
        id: text(&value, "id")?,
        messages: messages.collect::<Result<_, String>>()?,
        answer,
        answer_weight: value["answer_weight"].as_f64().map(|weight| weight as f32),
        weight: value["weight"].as_f64().map(|weight| weight as f32),
        continued: value["continued"].as_bool().unwrap_or(false),
        group: optional("group"),
        stratum: optional("stratum"),
        lineage: Lineage {
            document: text(&value["lineage"], "document")?,
            source: text(&value["lineage"], "source")?,
            row: value["lineage"]["row"].as_u64().ok_or("no row")?,
            change: match &value["lineage"]["parent"] {
                Json::Null => None,
                _ => Some(Change { parent: text(&value["lineage"], "parent")?, kind: text(&value["lineage"], "change")? }),
            },
        },
    })
}

fn read_field(field: &Json) -> Result<FieldValue, String> {
    let text = || field["value"].as_str().map(str::to_owned).ok_or_else(|| "no value".to_owned());
    Ok(match field["kind"].as_str() {
        Some("null") => FieldValue::Null,
        Some("bool") => FieldValue::Bool(field["value"].as_bool().ok_or("no value")?),
        Some("number") => FieldValue::Number(text()?),
        Some("text") => FieldValue::Text(text()?),
        Some("json") => FieldValue::Json(text()?),
        other => return Err(format!("unknown kind {other:?}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_comes_back() {
        let record = Record {
            id: "a".into(),
            messages: vec![
                Message { role: Role::System, content: "s".into(), weight: None },
                Message { role: Role::User, content: "u\n\"\u{1}é".into(), weight: Some(0.5) },
            ],
            answer: Answer::Fields(vec![
                ("z".into(), FieldValue::Null),
                ("a".into(), FieldValue::Number("1.50".into())),
                ("b".into(), FieldValue::Bool(true)),
                ("c".into(), FieldValue::Text("é".into())),
                ("d".into(), FieldValue::Json("[1]".into())),
            ]),
            answer_weight: None,
            weight: Some(0.3),
            continued: true,
            group: Some("g".into()),
            stratum: None,
            lineage: Lineage {
                document: "d".into(),
                source: "s.csv".into(),
                row: 3,
                change: Some(Change { parent: "p".into(), kind: "typos".into() }),
            },
        };
        let mut line = Vec::new();
        write_record(&mut line, &record);
        assert_eq!(read_record(&line).unwrap(), record);
        // The keys are in order, so that any JSON library that sorts them writes the same bytes.
        let value: Json = serde_json::from_slice(&line).unwrap();
        assert_eq!(value.to_string().as_bytes(), line);
        assert!(read_record(b"{\"id\": \"a\"}").is_err());
        assert!(read_record(b"{").is_err());
    }

    #[test]
    fn documents_keep_order_and_numbers() {
        let fields = vec![
            ("b".into(), Value::Number("1.5".into())),
            ("a".into(), Value::Object(vec![("z".into(), Value::Null), ("y".into(), Value::List(vec![Value::Bool(false)]))])),
        ];
        let document = Document::new(fields, Origin { source: "s".into(), inner: String::new(), row: 2, line: 3 });
        let mut line = Vec::new();
        write_document(&mut line, &document);
        assert_eq!(read_document(&line).unwrap(), document);
        assert!(read_document(b"{\"id\": \"a\"}").is_err());
        let text = String::from_utf8(line).unwrap();
        assert!(text.starts_with(r#"{"fields":[["b",1.5],["a",{"z":null,"y":[false]}]],"id":"s:2:"#), "{text}");
        assert!(text.ends_with(r#","line":3,"row":2,"source":"s"}"#), "{text}");
    }
}
