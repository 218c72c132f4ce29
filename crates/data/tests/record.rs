//! Documents as records, and the steps that drop some with a reason.

use data::steps::{self, Policy};
use data::{Answer, ColumnKind, DataError, Dataset, FieldValue, Format, Reason, Record, RecordRecipe, read};
use text::Role;

fn csv(text: &str) -> Dataset {
    read::read("t.csv", text.as_bytes(), Format::Csv { delimiter: b',' }, &read::LIMITS).unwrap()
}

fn jsonl(text: &str) -> Dataset {
    read::read("t.jsonl", text.as_bytes(), Format::JsonLines, &read::LIMITS).unwrap()
}

fn recipe(input: &str, target: &[&str]) -> RecordRecipe {
    RecordRecipe {
        input: Some(input.into()),
        target: target.iter().map(|column| (*column).to_owned()).collect(),
        ..RecordRecipe::default()
    }
}

fn said(record: &Record) -> Vec<(Role, &str)> {
    record.messages.iter().map(|message| (message.role, message.content.as_str())).collect()
}

#[test]
fn columns_become_typed_fields_in_order() {
    let dataset = csv("message,intent,order,urgent,zip,note\n\
         hi,return,48213,TRUE,01234,\n\
         \"say \"\"x\"\"\",refund,,false,99999,a\n");
    let recorded = recipe("message", &["zip", "intent", "order", "urgent", "note"]).apply(&dataset).unwrap();
    let texts: Vec<String> = recorded.records.iter().map(|record| record.answer.to_text()).collect();
    assert_eq!(texts[0], r#"{"zip":"01234","intent":"return","order":48213,"urgent":true,"note":null}"#);
    assert_eq!(texts[1], r#"{"zip":"99999","intent":"refund","order":null,"urgent":false,"note":"a"}"#);
    let kinds: Vec<ColumnKind> = recorded.kinds.iter().map(|(_, kind)| *kind).collect();
    assert_eq!(kinds, [ColumnKind::Text, ColumnKind::Text, ColumnKind::Number, ColumnKind::Bool, ColumnKind::Text]);
    assert_eq!(recorded.records[1].input(), "say \"x\"");
    assert!(serde_json::from_str::<serde_json::Value>(&texts[1]).is_ok());
}

#[test]
fn what_is_a_number() {
    let kind = |values: &[&str]| {
        let dataset = csv(&format!("m,n,o\n{}", values.iter().map(|value| format!("x,{value},y\n")).collect::<String>()));
        recipe("m", &["n", "o"]).apply(&dataset).unwrap().kinds[0].1
    };
    assert_eq!(kind(&["1", "-2.50", "0", "0.5", "  7 ", ""]), ColumnKind::Number);
    for other in ["01", "+1", "1.", ".5", "1e5", "1,5", "٣", "NaN", "-", "-0", "0x1", "1 2"] {
        let other = if other.contains(',') { "\"1,5\"" } else { other };
        assert_eq!(kind(&["1", other]), ColumnKind::Text, "{other}");
    }
    assert_eq!(kind(&["", ""]), ColumnKind::Text);
}

#[test]
fn columns_of_several_sources_are_typed_together() {
    let (one, two) = (csv("m,n,o\na,12,x\n"), csv("m,n,o\na,007,x\n"));
    let recipe = recipe("m", &["n", "o"]);
    let kinds = recipe.kinds(&[&one, &two]).unwrap();
    let record = &recipe.apply_typed(&one, &kinds).unwrap().records[0];
    assert_eq!(record.answer.to_text(), r#"{"n":"12","o":"x"}"#);
}

#[test]
fn json_fields_keep_their_types() {
    let dataset = jsonl("{\"m\": \"hi\", \"a\": [1, {\"b\": null}], \"c\": \"12\", \"d\": 3}\n{\"m\": \"ho\", \"d\": true}");
    let records = recipe("m", &["a", "c", "d"]).apply(&dataset).unwrap().records;
    assert_eq!(records[0].answer.to_text(), r#"{"a":[1,{"b":null}],"c":"12","d":3}"#);
    assert_eq!(records[1].answer.to_text(), r#"{"a":null,"c":null,"d":true}"#);
    let Answer::Fields(fields) = &records[0].answer else { panic!() };
    assert_eq!(fields[2], ("d".into(), FieldValue::Number("3".into())));
}

#[test]
fn a_single_empty_target_is_rejected_and_a_missing_one_is_allowed() {
    let dataset = csv("m,l\na,x\nb,  \nc,y\nd,x\n");
    let recorded = recipe("m", &["l"]).apply(&dataset).unwrap();
    assert_eq!(recorded.rejected[0].reason, Reason::EmptyTarget);
    assert_eq!(recorded.rejected[0].id, dataset.documents[1].id);
    assert_eq!(recorded.records.len(), 3);
    assert!(recipe("m", &[]).apply(&dataset).unwrap().records.iter().all(|record| record.answer.is_empty()));
}

#[test]
fn templates_read_several_columns() {
    let dataset = csv("subject,body,l\nHi,Where is it?,x\n,,y\n");
    let records = recipe("{subject} {{!}}\n{body}", &["l"]).apply(&dataset).unwrap().records;
    assert_eq!(records[0].input(), "Hi {!}\nWhere is it?");
    assert_eq!(records[1].input(), "", "literal text alone asks nothing");
    for wrong in ["{subject", "subject}{body}", "{}"] {
        assert!(recipe(wrong, &["l"]).apply(&dataset).is_err(), "{wrong}");
    }
}

#[test]
fn missing_columns_name_the_nearest() {
    let dataset = csv("Message,intent\na,b\n");
    match recipe("mesage", &["intent"]).apply(&dataset).unwrap_err() {
        DataError::MissingColumn { column, nearest, columns, .. } => {
            assert_eq!((column.as_str(), nearest.as_deref(), columns.as_str()), ("mesage", Some("Message"), "Message, intent"));
        }
        other => panic!("{other}"),
    }
    let group = RecordRecipe { group: Some("zzz".into()), ..recipe("Message", &["intent"]) };
    assert!(matches!(group.apply(&dataset), Err(DataError::MissingColumn { nearest: None, .. })));
    assert!(matches!(RecordRecipe::default().apply(&dataset), Err(DataError::RecipeNeeded { .. })));
}

#[test]
fn ids_groups_strata_and_instruction() {
    let dataset = csv("id,m,l,c\n7,a,x,k1\n8,b,y,\n");
    let recipe = RecordRecipe {
        id: Some("id".into()),
        group: Some("c".into()),
        stratify: Some("l".into()),
        instruction: Some("Be brief.".into()),
        ..recipe("m", &["l"])
    };
    let records = recipe.apply(&dataset).unwrap().records;
    assert_eq!((records[0].id.as_str(), records[0].group.as_deref()), ("7", Some("k1")));
    assert_eq!((records[1].group.as_deref(), records[1].stratum.as_deref()), (None, Some("y")));
    assert_eq!(said(&records[0]), [(Role::System, "Be brief."), (Role::User, "a")]);
    assert_eq!(records[0].lineage.document, dataset.documents[0].id);
    let twice = csv("id,m,l\n7,a,x\n7,b,y\n");
    let recipe = RecordRecipe { group: None, ..recipe };
    assert!(matches!(recipe.apply(&twice), Err(DataError::DuplicateId { .. })));
}

#[test]
fn answers_are_strata_if_they_repeat() {
    let few = recipe("m", &["l"]).apply(&csv("m,l\na,x\nb,y\nc,x\nd,y\n")).unwrap().records;
    assert!(few.iter().all(|record| record.stratum.is_some()));
    let free = recipe("m", &["l"]).apply(&csv("m,l\na,x\nb,y\nc,z\n")).unwrap().records;
    assert!(free.iter().all(|record| record.stratum.is_none()));
}

#[test]
fn shapes_say_what_is_asked() {
    let records = |text: &str| RecordRecipe::default().apply(&jsonl(text)).unwrap().records;
    let openai = records(
        r#"{"messages": [{"role": "system", "content": "S"}, {"role": "user", "content": [{"type": "text", "text": "a"}]},
            {"role": "assistant", "content": "b", "weight": 0}, {"role": "user", "content": "c"}, {"role": "assistant", "content": "d", "weight": 1}]}"#
            .replace('\n', " ")
            .as_str(),
    );
    assert_eq!(said(&openai[0]), [(Role::System, "S"), (Role::User, "a"), (Role::Assistant, "b"), (Role::User, "c")]);
    assert_eq!((openai[0].answer.to_text().as_str(), openai[0].answer_weight), ("d", Some(1.0)));
    assert_eq!(openai[0].messages[2].weight, Some(0.0));
    assert_eq!(openai[0].conversation().len(), 5);
    let one = |text: &str| {
        let records = records(text);
        (records[0].input().to_owned(), records[0].answer.to_text())
    };
    let ab = ("a".to_owned(), "b".to_owned());
    assert_eq!(one(r#"{"prompt": "a", "completion": "b"}"#), ab);
    assert_eq!(one(r#"{"inputs": "a", "targets": "b"}"#), ab);
    assert_eq!(one(r#"{"instruction": "a", "input": "", "output": "b"}"#), ab);
    assert_eq!(one(r#"{"instruction": "x", "input": "y", "output": "b"}"#).0, "x\n\ny");
    assert_eq!(one(r#"{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}"#), ab);
    assert_eq!(one(r#"{"prompt": [{"role": "user", "content": "a"}], "completion": [{"role": "assistant", "content": "b"}]}"#), ab);
    let preference = RecordRecipe::default().apply(&jsonl(r#"{"prompt": "a", "chosen": "b", "rejected": "c"}"#));
    assert!(matches!(preference, Err(DataError::UntrainedShape { .. })));
}

#[test]
fn malformed_conversations_are_rejected_one_by_one() {
    let lines = [
        r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "ok"}]}"#,
        r#"{"messages": "x"}"#,
        r#"{"messages": []}"#,
        r#"{"messages": [{"role": "user", "content": "a"}]}"#,
        r#"{"messages": [{"role": "king", "content": "a"}]}"#,
        r#"{"messages": [{"content": "a"}]}"#,
        r#"{"messages": [{"role": "user"}]}"#,
        r#"{"messages": [1]}"#,
        r#"{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}"#,
        r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": null, "tool_calls": []}]}"#,
        r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": -1}]}"#,
        r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": "1"}]}"#,
        r#"{"other": 1}"#,
    ];
    let recorded = RecordRecipe::default().apply(&jsonl(&lines.join("\n"))).unwrap();
    assert_eq!((recorded.records.len(), recorded.rejected.len()), (1, lines.len() - 1));
    assert!(recorded.rejected.iter().all(|rejected| matches!(rejected.reason, Reason::Malformed { .. })));
    let empty = r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": " "}]}"#;
    let recorded = RecordRecipe::default().apply(&jsonl(empty)).unwrap();
    assert_eq!(recorded.rejected[0].reason, Reason::EmptyTarget);
}

#[test]
fn duplicates_name_the_kept_one_and_conflicts_each_other() {
    let dataset = csv("id,m,l\n1,a b,x\n2,a  b ,x\n3,a b,y\n4,c,x\n5,a b,x\n");
    let recipe = RecordRecipe { id: Some("id".into()), ..recipe("m", &["l"]) };
    let records = recipe.apply(&dataset).unwrap().records;
    let kept = steps::duplicates(records.clone(), Policy::Drop);
    assert_eq!(kept.records.iter().map(|record| record.id.as_str()).collect::<Vec<_>>(), ["1", "3", "4"]);
    assert!(kept.rejected.iter().all(|rejected| rejected.reason == Reason::Duplicate && rejected.related == ["1"]));
    let reported = steps::conflicts(kept.records.clone(), Policy::Keep);
    assert_eq!(reported.records.len(), 3);
    assert_eq!(reported.conflicts[0].ids, ["1", "3"]);
    assert_eq!(reported.conflicts[0].answers, ["x", "y"]);
    let dropped = steps::conflicts(kept.records, Policy::Drop);
    assert_eq!(dropped.records.iter().map(|record| record.id.as_str()).collect::<Vec<_>>(), ["4"]);
    assert_eq!(dropped.rejected[0].related, ["3"]);
    assert_eq!(dropped.conflicts, reported.conflicts);
    assert_eq!(steps::duplicates(records, Policy::Keep).records.len(), 5);
}

#[test]
fn empty_and_long_records_are_dropped() {
    let dataset = csv("m,l\n ,x\naaaa,y\na,x\n");
    let recipe = RecordRecipe { instruction: Some("Do.".into()), ..recipe("m", &["l"]) };
    let stepped = steps::drop_empty(recipe.apply(&dataset).unwrap().records);
    assert_eq!((stepped.records.len(), &stepped.rejected[0].reason), (2, &Reason::EmptyInput));
    let stepped = steps::drop_long(stepped.records, 6);
    let reason = Reason::TooLong { given: 8, limit: 6, unit: "characters" };
    assert_eq!((stepped.records.len(), &stepped.rejected[0].reason), (1, &reason));
}
