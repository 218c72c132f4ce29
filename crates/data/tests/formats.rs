//! Every format, on a file that another program wrote (`files/make.py`).
#![allow(clippy::disallowed_methods, reason = "tests read their files")]

use data::read::{self, Item, LIMITS, ReadOptions};
use data::{DataError, Document, Reader, Rejected, Value};
use std::fs::File;
use std::path::PathBuf;

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/files").join(name)
}

fn options() -> ReadOptions {
    ReadOptions::recognise(LIMITS)
}

struct All {
    documents: Vec<Document>,
    rejected: Vec<Rejected>,
    reader: Reader,
}

fn read_with(name: &str, options: &ReadOptions) -> Result<All, DataError> {
    let mut reader = read::open(name, Box::new(File::open(path(name)).unwrap()), options)?;
    let (mut documents, mut rejected) = (Vec::new(), Vec::new());
    for item in &mut reader {
        match item? {
            Item::Document(document) => documents.push(document),
            Item::Rejected(reject) => rejected.push(reject),
        }
    }
    Ok(All { documents, rejected, reader })
}

fn read(name: &str) -> All {
    read_with(name, &options()).unwrap_or_else(|error| panic!("{error}"))
}

fn text<'a>(document: &'a Document, field: &str) -> &'a str {
    document.field(field).and_then(Value::as_text).unwrap_or_else(|| panic!("{field}: {:?}", document.fields))
}

fn found(all: &All, what: &str) -> String {
    all.reader.found().iter().filter(|(name, _)| *name == what).map(|(_, value)| value.as_str()).collect::<Vec<_>>().join(", ")
}

const MESSAGES: [&str; 3] =
    ["Where is my card? I moved to Köln.", "The app says “try again”; it cost 5 €.", "Please close my account,\nand tell me when."];

fn check_messages(all: &All) {
    let messages: Vec<&str> = all.documents.iter().map(|document| text(document, "message")).collect();
    assert_eq!(messages, MESSAGES);
}

#[test]
fn csv_of_spreadsheets_in_old_encodings() {
    let all = read("tickets-windows-1252.csv");
    check_messages(&all);
    assert_eq!((found(&all, "encoding").as_str(), found(&all, "delimiter").as_str()), ("windows-1252", ";"));
    assert_eq!(text(&all.documents[0], "share"), "0,5");
    // Said on each document whose text needed it, and only there.
    let noted: Vec<bool> = all.documents.iter().map(|document| document.attribute(read::ENCODING).is_some()).collect();
    assert_eq!(noted, [true, true, false]);
    assert_eq!(found(&all, "documents of another encoding"), "2");
    assert!(!all.reader.is_typed());

    let utf16 = read("tickets-utf-16.csv");
    check_messages(&utf16);
    assert_eq!(found(&utf16, "encoding"), "UTF-16LE");
    let japanese = read("tickets-shift-jis.csv");
    assert_eq!(found(&japanese, "encoding"), "Shift_JIS");
    assert!(text(&japanese.documents[0], "message").starts_with("カードが届きません"));

    let strict = ReadOptions { encoding: Some("utf-8".into()), ..options() };
    assert!(matches!(read_with("tickets-windows-1252.csv", &strict), Err(DataError::Line { line: 2, .. })));
    let named = ReadOptions { encoding: Some("iso-8859-15".into()), ..options() };
    assert!(text(&read_with("tickets-windows-1252.csv", &named).unwrap().documents[0], "message").contains("Köln"));
    let unknown = ReadOptions { encoding: Some("utf-9".into()), ..options() };
    assert!(matches!(read_with("tickets-windows-1252.csv", &unknown), Err(DataError::UnknownEncoding { .. })));
}

#[test]
fn mojibake_is_repaired_and_said() {
    let all = read("tickets-mojibake.jsonl");
    assert_eq!(text(&all.documents[0], "input"), MESSAGES[0]);
    assert_eq!(all.documents[0].attribute(read::MOJIBAKE), Some(&Value::Number("1".into())));
    assert_eq!(all.documents[1].attribute(read::MOJIBAKE), None);
    assert_eq!(found(&all, "documents with repaired mojibake"), "1");
    let kept = read_with("tickets-mojibake.jsonl", &ReadOptions { repair_mojibake: false, ..options() }).unwrap();
    assert!(text(&kept.documents[0], "input").contains("KÃ¶ln"));
}

#[test]
fn parquet_keeps_types_in_every_codec() {
    for codec in ["none", "snappy", "gzip", "brotli", "lz4"] {
        let all = read(&format!("tickets-{codec}.parquet"));
        check_messages(&all);
        let document = &all.documents[0];
        assert_eq!(document.field("priority"), Some(&Value::Number("2".into())));
        assert_eq!(document.field("score"), Some(&Value::Number("0.5".into())));
        assert_eq!(all.documents[1].field("score"), Some(&Value::Null));
        assert_eq!(document.field("open"), Some(&Value::Bool(true)));
        assert_eq!(text(document, "opened"), "2025-02-03");
        assert_eq!(document.field("tags").unwrap().to_json(), "[\"a\",\"b\"]");
        assert_eq!([1, 2].map(|i| all.documents[i].field("tags").unwrap().to_json()), ["[]", "null"]);
        assert!(all.reader.is_typed());
    }
    let chats = read("chats.parquet");
    assert_eq!(chats.reader.shape(), data::Shape::Messages);
    let expected =
        "[{\"role\":\"user\",\"content\":\"Where is my card? I moved to Köln.\"},{\"role\":\"assistant\",\"content\":\"card_arrival\"}]";
    assert_eq!(chats.documents[0].field("messages").unwrap().to_json(), expected);
    let refused = read_with("tickets-zstd.parquet", &options()).err().unwrap().to_string();
    assert!(refused.contains("ZSTD") && refused.contains("snappy"), "{refused}");
}

#[test]
fn tfrecord_of_another_writer() {
    let all = read("tickets.tfrecord");
    check_messages(&all);
    let names: Vec<&str> = all.documents[0].fields.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["id", "intent", "message", "priority", "scores"]);
    assert_eq!(all.documents[2].field("priority"), Some(&Value::Number("3".into())));
    assert_eq!(all.documents[0].field("scores").unwrap().to_json(), "[0.25,0.5]");
}

#[test]
fn what_is_written_as_tfrecord_comes_back() {
    let rows = read("tickets-snappy.parquet").documents;
    let mut writer = read::tfrecord::Writer::new(Vec::new());
    for row in &rows {
        writer.write(&row.fields).unwrap();
    }
    let bytes = writer.into_inner();
    let reader = read::open("a.tfrecord", Box::new(std::io::Cursor::new(bytes.clone())), &options()).unwrap();
    let back: Vec<Document> = reader
        .map(|item| match item.unwrap() {
            Item::Document(document) => document,
            Item::Rejected(_) => panic!(),
        })
        .collect();
    for (row, back) in rows.iter().zip(&back) {
        assert_eq!(back.field("message"), row.field("message"));
        assert_eq!(back.field("priority"), row.field("priority"));
        assert_eq!(back.field("opened"), row.field("opened"));
    }
    assert_eq!(back[0].field("tags").unwrap().to_json(), "[\"a\",\"b\"]");
    // The frame is the other writer's: its first record's bytes have the checksums that we would have written.
    let theirs = std::fs::read(path("tickets.tfrecord")).unwrap();
    let mut broken = theirs.clone();
    broken[40] ^= 1;
    let open = |bytes: Vec<u8>, options: &ReadOptions| {
        read::open("b.tfrecord", Box::new(std::io::Cursor::new(bytes)), options).unwrap().collect::<Result<Vec<_>, _>>()
    };
    assert!(open(broken.clone(), &options()).unwrap_err().to_string().contains("record 1: its checksum is wrong"));
    let reject = ReadOptions { broken_rows: read::BrokenRows::Reject, ..options() };
    let items = open(broken, &reject).unwrap();
    assert!(matches!(&items[..], [Item::Rejected(_), Item::Document(_), Item::Document(_)]));
}

#[test]
fn workbooks_have_types_sheets_and_dates() {
    let all = read("tickets-libreoffice.xlsx");
    check_messages(&all);
    assert_eq!(all.documents[0].field("priority"), Some(&Value::Number("2".into())));
    assert_eq!(text(&all.documents[0], "opened"), "2025-02-03");
    let book = read("tickets-openpyxl.xlsx");
    let inner: Vec<&str> = book.documents.iter().map(|document| document.origin.inner.as_str()).collect();
    assert_eq!(inner, ["Tickets", "Tickets", "Staff"], "the hidden sheet is left out");
    assert_eq!(book.documents[0].field("open"), Some(&Value::Bool(true)));
    assert_eq!(book.documents[1].field("share"), Some(&Value::Null));
    let one = read_with("tickets-openpyxl.xlsx", &ReadOptions { sheet: Some("Hidden".into()), ..options() }).unwrap();
    assert_eq!(text(&one.documents[0], "secret"), "not read");
    let none = read_with("tickets-openpyxl.xlsx", &ReadOptions { sheet: Some("x".into()), ..options() });
    assert!(matches!(none, Err(DataError::NoSheet { .. })));
}

fn check_policy(document: &Document, headings: &[&str]) {
    let text = text(document, "text");
    for heading in headings {
        assert!(text.lines().any(|line| line == *heading), "{heading}:\n{text}");
    }
    let words = "Umlauts and signs have to survive: Grüße, naïve café, 5 €, “quoted”.";
    assert!(text.replace('\n', " ").contains(words), "{text}");
    assert!(text.contains("catalogue only."), "{text}");
    assert_eq!(document.attribute(read::MARKUP), Some(&Value::Text(read::MARKDOWN.into())));
}

const HEADINGS: [&str; 4] = ["# Refund policy", "## When a refund is due", "## Amounts", "### How it is paid"];

#[test]
fn docx_of_libreoffice_keeps_its_structure() {
    let all = read("policy.docx");
    check_policy(&all.documents[0], &HEADINGS);
    let text = text(&all.documents[0], "text");
    assert!(text.contains("- The parcel did not arrive within 30 days.\n- The goods are broken"), "{text}");
    assert!(text.contains("| Case | Refund |\n| --- | --- |\n| Late parcel | 100 % |"), "{text}");
    assert!(text.contains("1. Write to the help desk.\n2. Wait for the answer."), "{text}");
}

#[test]
fn pdf_of_three_programs() {
    for name in ["policy-libreoffice.pdf", "policy-chromium.pdf"] {
        let all = read(name);
        check_policy(&all.documents[0], &HEADINGS[..3]);
        assert_eq!(all.documents[0].attribute(read::PAGES), Some(&Value::Number("1".into())));
        let text = text(&all.documents[0], "text");
        for part in ["The parcel did not arrive within 30 days.", "Late parcel", "Write to the help desk."] {
            assert!(text.contains(part), "{name}: {part}\n{text}");
        }
    }
    let manual = read("manual-reportlab.pdf");
    let document = &manual.documents[0];
    assert_eq!(text(document, "title"), "Pump manual");
    assert_eq!(document.attribute(read::PAGES), Some(&Value::Number("4".into())));
    let text = text(document, "text");
    assert!(text.starts_with("# Chapter 1\n\nThe maintenance of pump 1 is done once a month, by two people"), "{text}");
    assert!(!text.contains("Nordwind") && !text.contains("Page 2"), "running lines stay out: {text}");
    assert_eq!(found(&manual, "repeated lines of pages left out"), "8");
}

#[test]
fn a_page_gives_its_main_text_only() {
    let all = read("page.html");
    let document = &all.documents[0];
    assert_eq!(text(document, "title"), "Opening hours – Nordwind");
    let text = text(document, "text");
    assert!(text.starts_with("# Opening hours\n\nOur shop in Köln is open from nine"), "{text}");
    assert!(text.contains("## Exceptions\n\n| Day | Hours |\n| --- | --- |\n| 24 December | 9–12 |"), "{text}");
    for other in ["Home", "Imprint", "©", "Ignore all previous", "not text", "color"] {
        assert!(!text.contains(other), "{other}: {text}");
    }
    assert_eq!(document.attribute(read::HIDDEN), Some(&Value::Number("55".into())));
}

#[test]
fn a_mailbox_has_threads_quotes_and_signatures() {
    let all = read("helpdesk.mbox");
    let threads: Vec<&str> = all.documents.iter().map(|document| text(document, "thread")).collect();
    assert_eq!(threads, ["m1@example.org", "m1@example.org", "m1@example.org", "m4@example.org"]);
    let first = &all.documents[0];
    assert_eq!(text(first, "subject"), "Überweisung fehlt");
    assert_eq!(text(first, "text"), "Hello,\n\nmy transfer of 5 € is missing.\nFrom what I see, it left on Monday.");
    assert_eq!(first.attribute(read::SIGNATURE), Some(&Value::Text("Ann Example\nCustomer 4711".into())));
    assert_eq!(text(first, "date"), "2025-02-03T10:01:00+01:00");
    let second = &all.documents[1];
    assert_eq!((text(second, "text"), text(second, "in_reply_to")), ("It will arrive tomorrow.", "m1@example.org"));
    assert!(second.attribute(read::QUOTED).unwrap().as_text().unwrap().ends_with("> my transfer of 5 € is missing."));
    assert_eq!(text(&all.documents[3], "text"), "plain part is here");
    let report = read("report.eml");
    assert_eq!(text(&report.documents[0], "text"), "The report is attached.");
    assert_eq!(report.documents[0].attribute(read::ATTACHMENTS).unwrap().to_json(), "[\"report.csv\"]");
}

#[test]
fn xml_records_by_path() {
    let by_path = ReadOptions { xml_record: Some("Document/QAPairs/QAPair".into()), ..options() };
    let all = read_with("faq.xml", &by_path).unwrap();
    let names: Vec<&str> = all.documents[0].fields.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["Document.@id", "Document.@url", "@pid", "Question.@qid", "Question.@qtype", "Question", "Answer"]);
    assert_eq!(text(&all.documents[0], "Answer"), "All of it, if the parcel is late & 80 % if the goods are broken. Grüße!");
    assert_eq!(text(&all.documents[1], "Answer"), "Within <14> days.");
    assert_eq!(all.documents.len(), 2);
    let error = read_with("faq.xml", &options()).err().unwrap().to_string();
    assert!(error.contains("Document/QAPairs/QAPair"), "{error}");
}

#[test]
fn archives_give_their_files() {
    let all = read("mixed.zip");
    let inner: Vec<(&str, u64)> = all.documents.iter().map(|d| (d.origin.inner.as_str(), d.origin.row)).collect();
    let expected = [
        ("data/a.csv", 1),
        ("data/a.csv", 2),
        ("data/a.csv", 3),
        ("data/b.csv.gz", 1),
        ("data/b.csv.gz", 2),
        ("data/b.csv.gz", 3),
        ("docs/policy.html", 1),
    ];
    assert_eq!(inner, expected);
    assert!(all.documents[3].id.starts_with("mixed.zip:data/b.csv.gz:1:"));
    let rejected: Vec<&str> = all.rejected.iter().map(|reject| reject.id.as_str()).collect();
    assert_eq!(rejected, ["mixed.zip:docs/picture.png:1"]);
    assert_eq!((found(&all, "packed").as_str(), found(&all, "hidden files left out").as_str()), ("zip, gzip", "1"));

    let tar = read("mixed.tar.gz");
    assert_eq!(tar.documents.len(), 5);
    assert_eq!(tar.documents[4].origin.inner, format!("Ordner/{}.jsonl", "lang".repeat(40)));
    assert!(tar.rejected[0].reason.to_string().contains("a link"), "{:?}", tar.rejected);
    let zst = read("tickets.csv.zst");
    assert_eq!(zst.documents.len(), 4);
    assert_eq!(text(&zst.documents[3], "message"), "one more");
}

#[test]
fn text_code_and_folders() {
    let files: Vec<(&str, Result<&str, &str>)> = vec![
        ("a/notes.txt", Ok("One note.\n")),
        ("b/README.md", Ok("# Pumps\n\n- one\n")),
        ("run", Ok("#!/usr/bin/env python3\nprint(1)\n")),
        ("main.rs", Ok("fn main() {}\n")),
        ("link.txt", Err("it is a link")),
        ("x.bin", Ok("\u{1}\u{2}")),
        ("../up.txt", Ok("x")),
        ("broken.pdf", Ok("%PDF-1.7 nothing")),
        ("blank.txt", Ok("\n")),
    ];
    let files = files.into_iter().map(|(name, text)| {
        let input = text.map(|text| Box::new(std::io::Cursor::new(text.to_owned())) as Box<dyn data::Input>);
        (name.to_owned(), input.map_err(str::to_owned))
    });
    let files: Vec<_> = files.collect();
    let items: Vec<Item> = read::open_folder("docs", Box::new(files.into_iter()), &options()).collect::<Result<_, _>>().unwrap();
    let (mut languages, mut ids, mut rejected) = (Vec::new(), Vec::new(), Vec::new());
    for item in &items {
        match item {
            Item::Document(document) => {
                ids.push(document.origin.inner.as_str());
                languages.extend(document.field("language").and_then(Value::as_text));
            }
            Item::Rejected(reject) => rejected.push(reject.id.as_str()),
        }
    }
    assert_eq!(ids, ["a/notes.txt", "b/README.md", "run", "main.rs"]);
    assert_eq!(languages, ["Python", "Rust"]);
    assert_eq!(rejected, ["docs:link.txt:1", "docs:x.bin:1", "docs:../up.txt:1", "docs:broken.pdf:1"]);
}

#[test]
fn json_of_one_object_has_rows_by_key() {
    let rows = |text: &str| {
        let reader = read::open("a.json", Box::new(std::io::Cursor::new(text.to_owned())), &options()).unwrap();
        let items: Vec<Item> = reader.collect::<Result<_, _>>().unwrap();
        items
            .into_iter()
            .map(|item| match item {
                Item::Document(document) => document,
                Item::Rejected(_) => panic!(),
            })
            .collect::<Vec<_>>()
    };
    let by_key = rows("{\n \"7\": {\"text\": \"a\"},\n \"8\": {\"text\": \"b\"}\n}");
    assert_eq!(by_key[1].fields, [("key".into(), Value::Text("8".into())), ("text".into(), Value::Text("b".into()))]);
    assert_eq!(by_key[1].origin.line, 3);
    let lists = rows("{\"train\": [[\"hi\", \"greet\"], [\"bye\", \"part\"]], \"test\": [[\"yo\", \"greet\"]], \"version\": 2}");
    assert_eq!(lists.len(), 3);
    assert_eq!(lists[2].fields[0], ("key".into(), Value::Text("test".into())));
    assert_eq!(lists[2].field("column_2"), Some(&Value::Text("greet".into())));
    let one = rows("{\n \"messages\": [{\"role\": \"user\", \"content\": \"a\"}]\n}");
    assert_eq!(one.len(), 1);
    assert!(one[0].field("messages").is_some());
}

/// The plain formats, as LibreOffice, pandas, markdownify, ElementTree and git write them.
#[test]
fn plain_formats_of_other_programs() {
    check_policy(&read("policy-libreoffice.html").documents[0], &HEADINGS);
    check_policy(&read("policy-markdownify.md").documents[0], &HEADINGS);
    let plain = read("policy-libreoffice.txt");
    let plain = text(&plain.documents[0], "text");
    assert!(
        plain.starts_with("Refund policy\n") && plain.contains("• The goods are broken") && plain.contains("naïve café, 5 €"),
        "{plain}"
    );
    for (name, separator) in [("tickets-libreoffice.csv", ";"), ("tickets-pandas.tsv", "")] {
        let all = read(name);
        check_messages(&all);
        assert!(found(&all, "delimiter") == separator || name.ends_with("tsv"), "{name}: {}", found(&all, "delimiter"));
    }
    for name in ["tickets-pandas.json", "tickets-pandas.jsonl"] {
        let all = read(name);
        check_messages(&all);
        assert!(all.reader.is_typed());
        assert_eq!(all.documents[2].field("priority"), Some(&Value::Number("3".into())));
    }
    let tickets = ReadOptions { xml_record: Some("export/ticket".into()), ..options() };
    let all = read_with("tickets-elementtree.xml", &tickets).unwrap();
    check_messages(&all);
    assert_eq!((text(&all.documents[1], "@id"), text(&all.documents[1], "@priority")), ("T-2", "1"));
}

/// A source tree, each file with its language, of both archives that git makes.
#[test]
fn source_trees_of_git() {
    for name in ["source-git.zip", "source-git.tar"] {
        let all = read(name);
        let language = |document: &Document| document.field("language").map(Value::to_text).unwrap_or_default();
        let files: Vec<(&str, String)> =
            all.documents.iter().map(|document| (document.origin.inner.as_str(), language(document))).collect();
        let expected =
            [("pump/README.md", ""), ("pump/src/main.rs", "Rust"), ("pump/src/pump.py", "Python"), ("pump/web/pump.js", "JavaScript")];
        assert_eq!(files, expected.map(|(file, language)| (file, language.to_owned())), "{name}");
        assert!(text(&all.documents[1], "text").contains("println!(\"on\")"));
        assert_eq!(all.rejected, [], "{name}");
    }
}
