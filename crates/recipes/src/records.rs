//! Records as lines of JSON in a run folder, and back.

use data::{Answer, FieldValue, Lineage, Record};
use serde_json::{Value, json};
use text::{Message, Role};

/// One line of `data/records/*.jsonl`.
pub(crate) fn to_json(record: &Record) -> Value {
    let messages: Vec<Value> = record.messages.iter().map(message_json).collect();
    let answer = match &record.answer {
        Answer::Text(text) => json!({ "text": text }),
        Answer::Fields(fields) => {
            let fields: Vec<Value> = fields.iter().map(|(name, value)| field_json(name, value)).collect();
            json!({ "fields": fields })
        }
    };
    json!({
        "id": record.id,
        "messages": messages,
        "answer": answer,
        "answer_weight": record.answer_weight,
        "group": record.group,
        "stratum": record.stratum,
        "lineage": { "document": record.lineage.document, "source": record.lineage.source, "row": record.lineage.row },
    })
}

fn message_json(message: &Message) -> Value {
    json!({ "role": message.role.name(), "content": message.content, "weight": message.weight })
}

/// A field with its kind, so that numbers come back exactly as they were written.
fn field_json(name: &str, value: &FieldValue) -> Value {
    let (kind, value) = match value {
        FieldValue::Null => ("null", Value::Null),
        FieldValue::Bool(value) => ("bool", json!(value)),
        FieldValue::Number(text) => ("number", json!(text)),
        FieldValue::Text(text) => ("text", json!(text)),
        FieldValue::Json(text) => ("json", json!(text)),
    };
    json!({ "name": name, "kind": kind, "value": value })
}

/// Reads a line that [`to_json`] wrote; the error says what is missing.
pub(crate) fn from_json(value: &Value) -> Result<Record, String> {
    let text = |value: &Value, key: &str| value[key].as_str().map(str::to_owned).ok_or_else(|| format!("no {key}"));
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
        Value::Array(fields) => {
            Answer::Fields(fields.iter().map(|field| Ok((text(field, "name")?, field_value(field)?))).collect::<Result<_, String>>()?)
        }
        _ => Answer::Text(text(&value["answer"], "text")?),
    };
    Ok(Record {
        id: text(value, "id")?,
        messages: messages.collect::<Result<_, String>>()?,
        answer,
        answer_weight: value["answer_weight"].as_f64().map(|weight| weight as f32),
        group: optional("group"),
        stratum: optional("stratum"),
        lineage: Lineage {
            document: text(&value["lineage"], "document")?,
            source: text(&value["lineage"], "source")?,
            row: value["lineage"]["row"].as_u64().ok_or("no row")?,
        },
    })
}

fn field_value(field: &Value) -> Result<FieldValue, String> {
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
                Message { role: Role::User, content: "u\n\"".into(), weight: Some(0.5) },
            ],
            answer: Answer::Fields(vec![
                ("z".into(), FieldValue::Null),
                ("a".into(), FieldValue::Number("1.50".into())),
                ("b".into(), FieldValue::Bool(true)),
                ("c".into(), FieldValue::Text("é".into())),
                ("d".into(), FieldValue::Json("[1]".into())),
            ]),
            answer_weight: None,
            group: Some("g".into()),
            stratum: None,
            lineage: Lineage { document: "d".into(), source: "s.csv".into(), row: 3 },
        };
        let line = to_json(&record).to_string();
        assert_eq!(from_json(&serde_json::from_str(&line).unwrap()).unwrap(), record);
        assert!(from_json(&json!({"id": "a"})).is_err());
    }
}
