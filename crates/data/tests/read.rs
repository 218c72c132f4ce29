//! Sources as documents, and what happens to sources that are not what they should be.

use data::error::LineProblem;
use data::{DataError, Dataset, Format, Limits, Shape, Value, read};

const CSV: Format = Format::Csv { delimiter: b',' };

fn csv(text: &str) -> Result<Dataset, DataError> {
    read::read("t.csv", text.as_bytes(), CSV, &read::LIMITS)
}

fn jsonl(text: &str) -> Result<Dataset, DataError> {
    read::read("t.jsonl", text.as_bytes(), Format::JsonLines, &read::LIMITS)
}

fn line<T: std::fmt::Debug>(result: Result<T, DataError>) -> (u64, LineProblem) {
    match result {
        Err(DataError::Line { line, problem, .. }) => (line, problem),
        other => panic!("{other:?}"),
    }
}

#[test]
fn csv_with_quotes_newlines_and_a_byte_order_mark() {
    let dataset = csv("\u{feff}id,text\r\n1,\"a, \"\"b\"\"\r\nc\"\r\n\r\n2, d \n3,").unwrap();
    assert_eq!(dataset.columns, ["id", "text"]);
    let text = |i: usize| dataset.documents[i].field("text").unwrap().as_text().unwrap();
    assert_eq!([text(0), text(1), text(2)], ["a, \"b\"\r\nc", " d ", ""]);
    let lines: Vec<u64> = dataset.documents.iter().map(|document| document.origin.line).collect();
    assert_eq!(lines, [2, 5, 6]);
    let rows: Vec<u64> = dataset.documents.iter().map(|document| document.origin.row).collect();
    assert_eq!(rows, [1, 2, 3]);
}

#[test]
fn semicolons_of_spreadsheets_are_understood() {
    let dataset = csv("id;text\n1;\"a; b, c\"\n").unwrap();
    assert_eq!(dataset.columns, ["id", "text"]);
    assert_eq!(dataset.documents[0].field("text"), Some(&Value::Text("a; b, c".into())));
    assert_eq!(csv("text\na;b\n").unwrap().columns, ["text"]);
}

#[test]
fn ids_depend_on_place_and_content_only() {
    let (one, two) = (csv("a,b\n1,2\n3,4\n").unwrap(), csv("a,b\r\n1,2\r\n3,5\r\n").unwrap());
    assert_eq!(one.documents[0].id, two.documents[0].id);
    assert_ne!(one.documents[1].id, two.documents[1].id);
    assert!(one.documents[1].id.starts_with("t.csv:2:"));
    assert_ne!(csv("a,b\n12,3\n").unwrap().documents[0].id, csv("a,b\n1,23\n").unwrap().documents[0].id);
}

#[test]
fn broken_csv_names_the_line() {
    assert_eq!(line(csv("a,b\n1,2\n1,2,3\n")), (3, LineProblem::Ragged { given: 3, expected: 2 }));
    assert_eq!(line(csv("a,b\n1,\"x\ny\"\n1\n")), (4, LineProblem::Ragged { given: 1, expected: 2 }));
    assert_eq!(line(csv("a,b\n1,2\n1,\"2\n3,4\n")), (3, LineProblem::OpenQuote));
    // Without this, rows 3 and 4 would silently be one.
    assert_eq!(line(csv("a,b\n1,2\n\"1,2\n\"3\",4\n")), (3, LineProblem::TextAfterQuote));
    assert_eq!(line(csv("a,b\n1,2\n1,2\0\n")), (3, LineProblem::Nul));
    assert!(matches!(line(csv("a,a\n1,2\n")), (1, LineProblem::Header { .. })));
    assert!(matches!(line(csv("a,\n1,2\n")), (1, LineProblem::Header { .. })));
    // UTF-8 with one broken byte is no other encoding; without any other sign of UTF-8 it is (tests/formats.rs).
    let bytes = b"a,b\n1,\xC3\xA4\xC3\xB6\n1,\xE4\n";
    assert_eq!(line(read::read("t", bytes, CSV, &read::LIMITS)), (3, LineProblem::NotUtf8 { byte: 3 }));
    let utf32 = [0xFF, 0xFE, 0, 0, b'a', 0, 0, 0];
    assert_eq!(line(read::read("t", &utf32, CSV, &read::LIMITS)), (1, LineProblem::Encoding { encoding: "UTF-32" }));
    for empty in ["", "\n", "a,b\n", "\u{feff}", "a,b"] {
        assert_eq!(csv(empty).unwrap_err(), DataError::Empty { origin: "t.csv".into() });
    }
    assert!(csv("a,b\n5\" pipe,x\n").is_ok(), "a quote inside a field is only a sign");
}

#[test]
fn json_lines_and_arrays() {
    let dataset = jsonl("{\"a\": 1, \"b\": [true, null, 1.50, \"ü\"]}\r\n\n{\"b\": {\"c\": -2}}").unwrap();
    assert_eq!(dataset.columns, ["a", "b"]);
    assert_eq!(dataset.documents[0].field("b").unwrap().to_json(), "[true,null,1.5,\"ü\"]");
    assert_eq!(dataset.documents[1].origin.line, 3);
    let array = " \n[\n {\"a\": 1},\n {\"a\": \"x\"}\n]\n";
    let dataset = read::read("t.json", array.as_bytes(), Format::Json, &read::LIMITS).unwrap();
    assert_eq!(dataset.documents.iter().map(|d| d.origin.line).collect::<Vec<_>>(), [3, 4]);
    assert_eq!(dataset.documents[1].field("a"), Some(&Value::Text("x".into())));
    let lines = read::read("t.json", b"{\"a\": 1}\n{\"a\": 2}\n", Format::Json, &read::LIMITS).unwrap();
    assert_eq!(lines.documents.len(), 2);
}

#[test]
fn broken_json_names_the_line() {
    let deep = format!("{{\"a\": {}{}}}", "[".repeat(100), "]".repeat(100));
    let deeper = format!("{{\"a\": {}", "[".repeat(100_000));
    let cases = [
        "{\"a\": 1",
        "{\"a\": NaN}",
        "{\"a\": 1e999}",
        "{\"a\": \"\\ud800\"}",
        "{\"a\": 01}",
        "{a: 1}",
        "{\"a\": 1} x",
        "{\"a\": 1}{\"b\": 2}",
        "[1]",
        "1",
        "\"x\"",
        "null",
        "{\"a\": 1, \"a\": 2}",
        "{'a': 1}",
        "{\"a\": \"\t\"}",
        &deep,
        &deeper,
    ];
    for case in cases {
        let (at, problem) = line(jsonl(&format!("{{\"a\": 0}}\n{case}\n")));
        assert_eq!(at, 2, "{case:.40}: {problem}");
    }
    assert_eq!(line(jsonl("{\"b\": {\"a\": 1, \"a\": 2}}")), (1, LineProblem::DuplicateKey { key: "a".into() }));
    assert_eq!(line(jsonl(&deep)), (1, LineProblem::Depth { limit: read::LIMITS.depth }));
    for array in ["[", "[{\"a\": 1}", "[{\"a\": 1},", "[{\"a\": 1},]", "[{\"a\": 1} {\"a\": 2}]", "[{\"a\": 1}] x", "[1]", "[[]]"] {
        let result = read::read("t.json", array.as_bytes(), Format::Json, &read::LIMITS);
        assert!(matches!(result, Err(DataError::Line { .. })), "{array}: {result:?}");
    }
    assert!(matches!(read::read("t", b"[]", Format::Json, &read::LIMITS), Err(DataError::Empty { .. })));
}

#[test]
fn limits_are_named() {
    let small = Limits { source_bytes: 100, rows: 2, row_bytes: 30, field_bytes: 10, columns: 3, depth: 2 };
    let what = |text: &str, format| match read::read("t", text.as_bytes(), format, &small) {
        Err(DataError::TooLarge { what, .. }) => what,
        other => panic!("{other:?}"),
    };
    assert_eq!(what(&"a".repeat(101), CSV), "bytes");
    assert_eq!(what("a\n1\n2\n3\n", CSV), "rows");
    assert_eq!(what("a,b,c,d\n1,2,3,4\n", CSV), "columns");
    assert_eq!(what("a\n12345678901\n", CSV), "bytes in a field");
    assert_eq!(what(&format!("a\n{}\n", "1".repeat(31)), CSV), "bytes in a row");
    assert_eq!(what("{\"a\": 1}\n{\"a\": 1}\n{\"a\": 1}\n", Format::JsonLines), "rows");
    assert_eq!(what("{\"a\": \"12345678901\"}\n", Format::JsonLines), "bytes in a field");
    assert_eq!(what("{\"a\":1,\"b\":1}\n{\"c\":1,\"d\":1}\n", Format::JsonLines), "columns");
}

#[test]
fn shapes_are_recognised() {
    let shape = |text: &str| jsonl(text).unwrap().shape;
    assert_eq!(shape("{\"messages\": []}"), Shape::Messages);
    assert_eq!(shape("{\"prompt\": \"a\", \"completion\": \"b\"}"), Shape::PromptCompletion);
    assert_eq!(shape("{\"inputs\": \"a\", \"targets\": \"b\"}"), Shape::InputsTargets);
    assert_eq!(shape("{\"instruction\": \"a\", \"input\": \"\", \"output\": \"b\"}"), Shape::Alpaca);
    assert_eq!(shape("{\"conversations\": []}"), Shape::ShareGpt);
    assert_eq!(shape("{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"c\"}"), Shape::Preference);
    assert_eq!(shape("{\"text\": \"a\", \"label\": \"b\"}"), Shape::Columns);
    assert_eq!(csv("prompt,completion\na,b\n").unwrap().shape, Shape::PromptCompletion);
}

#[test]
fn formats_by_name() {
    assert_eq!(Format::from_name("a/b.CSV"), Some(CSV));
    assert_eq!(Format::from_name("tsv"), Some(Format::Csv { delimiter: b'\t' }));
    assert_eq!(Format::from_name("x.ndjson"), Some(Format::JsonLines));
    assert_eq!(Format::from_name("x.parquet"), Some(Format::Parquet));
    assert_eq!(Format::from_name("x.png"), None);
    for name in Format::names() {
        assert_eq!(Format::from_name(name).map(Format::name), Some(name));
    }
    let tsv = read::read("t.tsv", b"a\tb\n1,5\t\"x\ty\"\n", Format::Csv { delimiter: b'\t' }, &read::LIMITS).unwrap();
    assert_eq!(tsv.documents[0].field("b"), Some(&Value::Text("x\ty".into())));
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
        for format in [CSV, Format::JsonLines, Format::Json] {
            let _ = read::read("t", &bytes, format, &read::LIMITS);
        }
    }

    #[test]
    fn nearly_right_text_does_not_either(text in "[\\[\\]{}\",:a1 \n\r\\\\-]{0,60}") {
        for format in [CSV, Format::JsonLines, Format::Json] {
            let _ = read::read("t", text.as_bytes(), format, &read::LIMITS);
        }
    }

    #[test]
    fn csv_comes_back(cells in proptest::collection::vec(("[a-z,\"\n\r é]{0,12}", "[a-z,\" ]{1,12}"), 1..8)) {
        let quote = |cell: &str| format!("\"{}\"", cell.replace('"', "\"\""));
        let rows: Vec<String> = cells.iter().map(|(a, b)| format!("{},{}\n", quote(a), quote(b))).collect();
        let dataset = csv(&format!("a,b\n{}", rows.concat())).unwrap();
        for (document, (a, b)) in dataset.documents.iter().zip(&cells) {
            proptest::prop_assert_eq!(document.field("a").unwrap().as_text(), Some(a.as_str()));
            proptest::prop_assert_eq!(document.field("b").unwrap().as_text(), Some(b.as_str()));
        }
        proptest::prop_assert_eq!(dataset.documents.len(), cells.len());
    }
}
