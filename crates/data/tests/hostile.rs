//! Crafted and broken files: each an error or a reject with its reason, never a crash, a hang or a silent change.
#![allow(clippy::disallowed_methods, reason = "tests read their files")]

use data::read::{self, BrokenRows, Item, LIMITS, ReadOptions};
use data::{DataError, Document, Rejected, Value};
use flate2::Compression;
use flate2::write::GzEncoder;
use std::io::{Cursor, Read, Seek, SeekFrom, Write};
use zip::write::SimpleFileOptions;

fn options() -> ReadOptions {
    ReadOptions::recognise(LIMITS)
}

fn open_with(name: &str, bytes: &[u8], options: &ReadOptions) -> Result<(Vec<Document>, Vec<Rejected>), DataError> {
    let (mut documents, mut rejected) = (Vec::new(), Vec::new());
    for item in read::open(name, Box::new(Cursor::new(bytes.to_vec())), options)? {
        match item? {
            Item::Document(document) => documents.push(document),
            Item::Rejected(reject) => rejected.push(reject),
        }
    }
    Ok((documents, rejected))
}

fn open(name: &str, bytes: &[u8]) -> Result<(Vec<Document>, Vec<Rejected>), DataError> {
    open_with(name, bytes, &options())
}

fn error(name: &str, bytes: &[u8]) -> String {
    open(name, bytes).map(|(documents, _)| documents.len()).expect_err(name).to_string()
}

fn file(name: &str) -> Vec<u8> {
    std::fs::read(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files").join(name)).unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zip(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in members {
        writer.start_file(*name, SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated)).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

#[test]
fn broken_rows_are_rejected_where_asked() {
    let reject = ReadOptions { broken_rows: BrokenRows::Reject, ..options() };
    let (documents, rejected) = open_with("a.csv", b"a,b\n1,2\n1\n\"x\" y,2\n3,\xC3\xA4\n4,\xFF\n5,6", &reject).unwrap();
    let rows: Vec<u64> = documents.iter().map(|document| document.origin.row).collect();
    assert_eq!(rows, [1, 4, 6]);
    let reasons: Vec<String> = rejected.iter().map(|reject| reject.reason.to_string()).collect();
    assert!(reasons[0].contains("line 3: it has 1 fields, the header has 2"), "{reasons:?}");
    assert!(reasons[1].contains("line 4: text follows a closing quote"), "{reasons:?}");
    assert!(reasons[2].contains("line 6: byte 3 of it is not UTF-8"), "{reasons:?}");
    assert_eq!(rejected[0].id, "a.csv:2");
    let lines = b"{\"a\": 1}\n{\"a\": 1, \"a\": 2}\nnope\n[1]\n{\"a\": \"\xC3\xA4\"}\n{\"a\": \"\xE4\"}\n{\"a\": 3}";
    let (documents, rejected) = open_with("a.jsonl", lines, &reject).unwrap();
    assert_eq!((documents.len(), rejected.len()), (3, 4));
    // Without being asked, the first of them is the end.
    assert!(error("a.jsonl", lines).contains("line 2"));
}

/// `{"a": "xxxx…` without an end, made as it is read.
struct Endless(u64, u64);

impl Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = buffer.len().min((self.1 - self.0) as usize);
        buffer[..length].fill(b'x');
        if self.0 == 0 && length > 6 {
            buffer[..6].copy_from_slice(b"{\"a\":\"");
        }
        self.0 += length as u64;
        Ok(length)
    }
}

impl Seek for Endless {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        self.0 = match to {
            SeekFrom::Start(at) => at,
            SeekFrom::End(by) => self.1.saturating_add_signed(by),
            SeekFrom::Current(by) => self.0.saturating_add_signed(by),
        };
        Ok(self.0)
    }
}

#[test]
fn a_line_of_a_gigabyte_is_refused_early() {
    for name in ["a.jsonl", "a.json", "a.csv"] {
        let result = read::open(name, Box::new(Endless(0, 1 << 30)), &options()).and_then(|reader| reader.collect::<Result<Vec<_>, _>>());
        let error = result.unwrap_err();
        let limited = matches!(error, DataError::TooLarge { what: "bytes in a row" | "bytes in a document", .. });
        assert!(limited, "{name}: {error}");
    }
}

#[test]
fn bombs_are_found_by_their_ratio() {
    let line = [[b' '; 1023].as_slice(), b"\n"].concat();
    let zeros = line.repeat(100 << 10);
    let packed = gzip(&zeros);
    assert!(packed.len() < 1_000_000);
    assert!(error("a.jsonl.gz", &packed).contains("bytes unpacked, at most"));
    assert!(error("a.txt.gz", &packed).contains("bytes"), "a document has a limit of its own");
    assert!(error("a.zip", &zip(&[("a.jsonl", &zeros)])).contains("bytes unpacked"));
    // Within each other the limit is one for all.
    let members: Vec<(String, Vec<u8>)> = (0..4).map(|i| (format!("{i}.jsonl.gz"), gzip(&zeros[..30 << 20]))).collect();
    let members: Vec<(&str, &[u8])> = members.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
    assert!(error("a.zip", &zip(&members)).contains("bytes unpacked"));
    let mut deep = b"{\"a\": 1}\n".to_vec();
    let mut name = "a.jsonl".to_owned();
    for _ in 0..5 {
        deep = gzip(&deep);
        name += ".gz";
    }
    assert!(error(&name, &deep).contains("archives within each other"));
    // A workbook whose only cell is the last of the sheet is one cell.
    let sheet = |cell: &str| {
        format!(
            "<worksheet xmlns=\"http://schemas.openxmlformats.org/spreadsheetml/2006/main\"><sheetData><row r=\"1\"><c r=\"A1\" t=\"inlineStr\"><is><t>a</t></is></c></row><row r=\"1048576\">{cell}</row></sheetData></worksheet>"
        )
    };
    let book = |sheet: &str| {
        zip(&[
            ("_rels/.rels", b"<Relationships xmlns=\"http://schemas.openxmlformats.org/package/2006/relationships\"><Relationship Id=\"r0\" Type=\"http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument\" Target=\"xl/workbook.xml\"/></Relationships>"),
            ("[Content_Types].xml", b"<Types xmlns=\"http://schemas.openxmlformats.org/package/2006/content-types\"/>"),
            ("xl/_rels/workbook.xml.rels", b"<Relationships xmlns=\"http://schemas.openxmlformats.org/package/2006/relationships\"><Relationship Id=\"r1\" Type=\"http://schemas.openxmlformats.org/officeDocument/2006/relationships/worksheet\" Target=\"worksheets/sheet1.xml\"/></Relationships>"),
            ("xl/workbook.xml", b"<workbook xmlns=\"http://schemas.openxmlformats.org/spreadsheetml/2006/main\" xmlns:r=\"http://schemas.openxmlformats.org/officeDocument/2006/relationships\"><sheets><sheet name=\"S\" sheetId=\"1\" r:id=\"r1\"/></sheets></workbook>"),
            ("xl/worksheets/sheet1.xml", sheet.as_bytes()),
        ])
    };
    let (documents, _) = open("a.xlsx", &book(&sheet("<c r=\"A1048576\"><v>7</v></c>"))).unwrap();
    assert_eq!(documents[0].field("a"), Some(&Value::Number("7".into())));
    let (_, rejected) = open("a.xlsx", &book(&sheet("<c r=\"XFD1048576\"><v>7</v></c>"))).unwrap();
    assert_eq!(rejected.len(), 1, "a value without a column is no row");
}

#[test]
fn archives_lie_and_are_found_out() {
    let csv = b"a\n1\n".as_slice();
    for name in ["../a.csv", "/etc/a.csv", "a/../../b.csv", "C:\\a.csv", "..\\a.csv"] {
        let (documents, rejected) = open("x.zip", &zip(&[(name, csv), ("ok.csv", csv)])).unwrap();
        assert_eq!((documents.len(), rejected.len()), (1, 1), "{name}");
        assert!(rejected[0].reason.to_string().contains("out of the archive"), "{rejected:?}");
    }
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    writer.add_symlink("a.csv", "/etc/passwd", SimpleFileOptions::default()).unwrap();
    let (_, rejected) = open("x.zip", &writer.finish().unwrap().into_inner()).unwrap();
    assert!(rejected[0].reason.to_string().contains("a link"));
    // A size in the directory that is not the member's.
    let whole = zip(&[("a.csv", b"a\n1\n2\n3\n4\n5\n6\n7\n")]);
    let directory = whole.windows(4).rposition(|window| window == b"PK\x01\x02").unwrap();
    for size in [1u32, 17, 1 << 30, u32::MAX - 1] {
        let mut lying = whole.clone();
        lying[directory + 24..directory + 28].copy_from_slice(&size.to_le_bytes());
        assert!(open("x.zip", &lying).is_err(), "{size}");
    }
    let mut flipped = whole.clone();
    flipped[directory + 16] ^= 1; // its CRC
    assert!(error("x.zip", &flipped).contains("checksum"));
    for name in ["mixed.zip", "mixed.tar.gz", "tickets.csv.zst"] {
        let bytes = file(name);
        for end in (0..bytes.len()).step_by(7) {
            assert!(open(name, &bytes[..end]).is_err(), "{name} cut at {end}");
        }
    }
}

#[test]
fn names_that_lie_are_refused() {
    for (name, bytes) in [("a.csv", file("mixed.zip")), ("a.txt", file("policy-libreoffice.pdf")), ("a.json", file("tickets-none.parquet"))]
    {
        assert!(matches!(open(name, &bytes), Err(DataError::Content { .. })), "{name}");
    }
    assert!(matches!(open("a.png", b"\x89PNG"), Err(DataError::UnknownFormat { .. })));
    assert!(error("a.txt", b"\x7fELF\0\0\0").contains("NUL"));
    for name in ["a.csv", "a.txt", "a.parquet", "a.zip", "a.pdf"] {
        assert!(matches!(open(name, b""), Err(DataError::Empty { .. })), "{name}");
    }
}

#[test]
fn cut_and_flipped_binaries_are_errors() {
    for name in
        ["tickets-snappy.parquet", "chats.parquet", "tickets.tfrecord", "tickets-openpyxl.xlsx", "policy.docx", "manual-reportlab.pdf"]
    {
        let bytes = file(name);
        let whole = open(name, &bytes).unwrap().0.len();
        for end in (0..bytes.len()).step_by(1 + bytes.len() / 40) {
            match open(name, &bytes[..end]) {
                // A PDF's parser finds the pages that are there.
                Ok((documents, _)) => assert!(name.ends_with("pdf") && documents.len() <= whole, "{name} cut at {end}"),
                Err(error) => assert!(!error.to_string().contains('\n'), "{name} cut at {end}: {error}"),
            }
        }
    }
    let mut length = file("tickets.tfrecord");
    length[3] = 0x7F;
    assert!(error("a.tfrecord", &length).contains("the checksum of its length is wrong"));
}

#[test]
fn xml_is_never_expanded() {
    let by = ReadOptions { xml_record: Some("r".into()), ..options() };
    let with = |xml: &str| open_with("a.xml", xml.as_bytes(), &by);
    let laughs = "<!DOCTYPE l [<!ENTITY a \"ha\"><!ENTITY b \"&a;&a;&a;\">]><l><r>&b;</r></l>";
    assert!(with(laughs).unwrap_err().to_string().contains("declares its own entities"));
    let outside = "<!DOCTYPE l [<!ENTITY a SYSTEM \"file:///etc/passwd\">]><l><r>&a;</r></l>";
    assert!(with(outside).unwrap_err().to_string().contains("declares its own entities"));
    assert!(with("<l><r>&nbsp;</r></l>").unwrap_err().to_string().contains("never expanded"));
    assert!(with("<l><r>a</l>").is_err());
    assert!(with("<l><r>a</r>").is_err());
    assert!(with(&"<r>".repeat(100_000)).unwrap_err().to_string().contains("elements within each other"));
    assert_eq!(with("<l><r>1 &lt; 2 &#x41;</r></l>").unwrap().0[0].field("text"), Some(&Value::Text("1 < 2 A".into())));
}

#[test]
fn deep_and_odd_pages_and_mails_end() {
    let deep =
        format!("{}text that is long enough to be read as prose by anyone who reads it{}", "<div>".repeat(100_000), "</div>".repeat(10));
    assert!(open("a.html", deep.as_bytes()).is_ok());
    let comment = "<p>One two three four five six seven eight nine ten eleven twelve.<!-- obey me --></p><p hidden>obey me too</p>";
    let (documents, _) = open("a.html", comment.as_bytes()).unwrap();
    assert!(!documents[0].field("text").unwrap().to_text().contains("obey"));
    assert!(documents[0].attribute(read::HIDDEN).is_some());
    assert!(error("a.mbox", b"no mail at all\n").contains("line 1"));
    let (documents, rejected) =
        open("a.mbox", b"From a@b Mon Feb  3 10:00:00 2025\n\nFrom a@b Mon Feb  3 10:00:00 2025\nSubject: x\n\nhello\n").unwrap();
    assert_eq!((documents.len(), rejected.len()), (1, 1));
    let nested =
        format!("Content-Type: multipart/mixed; boundary=x\n\n{}", "--x\nContent-Type: multipart/mixed; boundary=x\n\n".repeat(20_000));
    assert!(open("a.eml", nested.as_bytes()).is_err());
}

/// Lengths, counts and offsets that lie: each byte of a Parquet file's end, where they stand, and of its first page, as another one.
#[test]
fn lengths_in_parquet_that_lie_are_errors_or_other_values() {
    for name in ["tickets-snappy.parquet", "chats.parquet"] {
        let bytes = file(name);
        let whole = open(name, &bytes).unwrap().0.len();
        let places = (0..bytes.len().min(200)).chain(bytes.len().saturating_sub(600)..bytes.len());
        for (at, flip) in places.flat_map(|at| [(at, 0x80u8), (at, 0x7F), (at, 1)]) {
            let mut lying = bytes.clone();
            lying[at] ^= flip;
            if let Ok((documents, rejected)) = open(name, &lying) {
                assert!(documents.len() + rejected.len() <= 100 * whole, "{name} byte {at} ^ {flip}: {} rows", documents.len());
            }
        }
    }
}

/// A tar of more members than anyone has, made as it is read.
struct ManyMembers {
    at: u64,
    members: u64,
}

impl ManyMembers {
    fn header(member: u64) -> [u8; 512] {
        let mut header = [0u8; 512];
        let name = format!("{member}.txt");
        header[..name.len()].copy_from_slice(name.as_bytes());
        for (at, text) in [
            (100, "0000644\0"),
            (108, "0000000\0"),
            (116, "0000000\0"),
            (124, "00000000000\0"),
            (136, "00000000000\0"),
            (257, "ustar\x0000"),
        ] {
            header[at..at + text.len()].copy_from_slice(text.as_bytes());
        }
        header[156] = b'0';
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        header
    }
}

impl Read for ManyMembers {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let member = self.at / 512;
        if member >= self.members || buffer.is_empty() {
            return Ok(0);
        }
        let rest = &Self::header(member)[(self.at % 512) as usize..];
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        self.at += length as u64;
        Ok(length)
    }
}

impl Seek for ManyMembers {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        self.at = match to {
            SeekFrom::Start(at) => at,
            SeekFrom::End(by) => (512 * self.members).saturating_add_signed(by),
            SeekFrom::Current(by) => self.at.saturating_add_signed(by),
        };
        Ok(self.at)
    }
}

#[test]
fn archives_of_too_many_members_are_refused() {
    let members = ManyMembers { at: 0, members: 1_000_100 };
    let error = read::open("a.tar", Box::new(members), &options()).and_then(|reader| reader.collect::<Result<Vec<_>, _>>()).unwrap_err();
    assert!(matches!(error, DataError::TooLarge { what: "members", limit: 1_000_000, .. }), "{error}");
}

/// A date that no calendar has: the file is pyarrow's, its three days are other numbers.
#[test]
fn days_in_parquet_that_do_not_exist_are_said() {
    let mut bytes = file("tickets-none.parquet");
    let day = |date: i32| date.to_le_bytes();
    // 2025-02-03 is day 20122 since 1970.
    let at = bytes.windows(12).position(|window| *window == [day(20122), day(20123), day(20124)].concat()[..]).unwrap();
    bytes[at..at + 4].copy_from_slice(&day(i32::MAX));
    match open("a.parquet", &bytes) {
        Ok((documents, _)) => assert!(documents[0].field("opened").is_some()),
        Err(error) => assert!(matches!(error, DataError::Broken { .. }), "{error}"),
    }
    let reject = ReadOptions { broken_rows: BrokenRows::Reject, ..options() };
    let (documents, rejected) = open_with("a.parquet", &bytes, &reject).unwrap();
    assert_eq!(documents.len() + rejected.len(), 3);
}
