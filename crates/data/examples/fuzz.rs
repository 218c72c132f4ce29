//! Feeds mutated files to one parser for a while: `cargo xtask fuzz` runs it for each.
//!
//! Plain stable Rust: a seeded generator, byte and block mutations of the files that the tests read. What must hold: no
//! panic, no hang, no more than the memory that limits allow, and a reader that ends after its error.
#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "a driver reads files, the clock and its arguments")]

use data::Format;
use data::read::{self, BrokenRows, Item, LIMITS, Limits, ReadOptions};
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// One case may take so long at most.
const CASE_MAX: Duration = Duration::from_secs(20);
/// Bytes of a case.
const BYTES_MAX: usize = 1 << 18;
/// Texts that parsers stumble over.
const WORDS: &[&[u8]] = &[
    b"\"",
    b"\"\"",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"\\",
    b"\\ud800",
    b"\n",
    b"\r",
    b"\r\n",
    b"\0",
    b"\xff",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"<",
    b">",
    b"</",
    b"<!",
    b"&",
    b"&x;",
    b"&#x0;",
    b"<![CDATA[",
    b"]]>",
    b"<!DOCTYPE a [<!ENTITY b \"c\">]>",
    b"From ",
    b"Content-Type: multipart/mixed; boundary=x\n",
    b"--x",
    b"Content-Transfer-Encoding: base64\n",
    b"=?utf-8?Q?=",
    b"1e999",
    b"-",
    b"null",
    b"stream\n",
    b"endobj",
    b"0 0 R",
    b"/Length ",
    b"/Kids",
    b"PK\x03\x04",
    b"PK\x05\x06",
    b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\xff",
    b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
    b"PAR1",
    b"ustar",
    b"\x1f\x8b\x08",
];

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }
}

fn mutate(seed: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..1 + random.below(8) {
        let at = random.below(bytes.len() + 1);
        let length = 1 + random.below(32.min(bytes.len().max(1)));
        let end = (at + length).min(bytes.len());
        match random.below(9) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 if at < bytes.len() => bytes[at] = random.next() as u8,
            2 => drop(bytes.drain(at..end)),
            3 => bytes.truncate(at),
            4 => {
                let word = WORDS[random.below(WORDS.len())];
                bytes.splice(at..at, word.iter().copied());
            }
            5 => {
                let word = WORDS[random.below(WORDS.len())];
                let end = (at + word.len()).min(bytes.len());
                bytes.splice(at..end, word.iter().copied());
            }
            6 => {
                let from = random.below(bytes.len() + 1);
                let piece = bytes[from..(from + length).min(bytes.len())].to_vec();
                bytes.splice(at..at, piece);
            }
            7 => {
                // The same piece very often: depth, length, repetition.
                let piece = bytes[at..end].to_vec();
                let times = 1 + random.below(2000);
                bytes.splice(at..at, piece.repeat(times));
            }
            _ if at + 4 <= bytes.len() => {
                let number = [0u32, 1, 0x7fff_ffff, 0x8000_0000, u32::MAX, random.next() as u32][random.below(6)];
                bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
            }
            _ => {}
        }
        bytes.truncate(BYTES_MAX);
    }
    bytes
}

struct Counts {
    cases: u64,
    documents: u64,
    rejected: u64,
    errors: u64,
}

fn run(name: &str, format: Option<Format>, seeds: &[Vec<u8>], seconds: u64, random: &mut Random, failed: &Path) -> Result<Counts, String> {
    let small = Limits { row_bytes: 1 << 16, field_bytes: 1 << 15, ..LIMITS };
    let mut counts = Counts { cases: 0, documents: 0, rejected: 0, errors: 0 };
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(seconds) {
        let seed = &seeds[random.below(seeds.len())];
        let bytes = mutate(seed, random);
        // Where the process dies without a word, the case is found here.
        std::fs::write(failed, &bytes).map_err(|error| error.to_string())?;
        let options = ReadOptions {
            format,
            broken_rows: if random.below(2) == 0 { BrokenRows::Refuse } else { BrokenRows::Reject },
            xml_record: (random.below(4) > 0).then(|| "QAPair".to_owned()),
            ..ReadOptions::recognise(if random.below(2) == 0 { LIMITS } else { small })
        };
        let case = Instant::now();
        let once = |bytes: Vec<u8>| {
            let (mut documents, mut rejected, mut errors) = (0, 0, 0);
            match read::open(name, Box::new(Cursor::new(bytes)), &options) {
                Ok(mut reader) => {
                    for item in &mut reader {
                        match item {
                            Ok(Item::Document(_)) => documents += 1,
                            Ok(Item::Rejected(_)) => rejected += 1,
                            Err(_) => errors += 1,
                        }
                    }
                    assert!(reader.next().is_none(), "a reader goes on after its end");
                }
                Err(_) => errors += 1,
            }
            assert!(errors <= 1, "a reader goes on after an error");
            (documents, rejected, errors)
        };
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| once(bytes)));
        let Ok((documents, rejected, errors)) = result else { return Err(format!("panic, case in {}", failed.display())) };
        if case.elapsed() > CASE_MAX {
            return Err(format!("{:.0} s for one case, in {}", case.elapsed().as_secs_f64(), failed.display()));
        }
        counts.cases += 1;
        counts.documents += documents;
        counts.rejected += rejected;
        counts.errors += errors;
    }
    Ok(counts)
}

fn main() -> Result<(), String> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [target, seconds, seed] = arguments.as_slice() else { return Err("usage: fuzz TARGET SECONDS SEED".into()) };
    let number = |text: &str| text.parse::<u64>().map_err(|error| format!("{text}: {error}"));
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/files");
    let named = |end: &str| -> Vec<Vec<u8>> {
        let Ok(entries) = std::fs::read_dir(&folder) else { return Vec::new() };
        let mut paths: Vec<PathBuf> =
            entries.flatten().map(|entry| entry.path()).filter(|path| path.to_string_lossy().ends_with(end)).collect();
        paths.sort();
        paths.iter().filter_map(|path| std::fs::read(path).ok()).collect()
    };
    let (name, format, seeds): (&str, Option<Format>, Vec<Vec<u8>>) = match target.as_str() {
        "csv" => ("a.csv", None, named(".csv")),
        "jsonl" => ("a.jsonl", None, named(".jsonl")),
        "json" => {
            let seeds: [&[u8]; 3] = [
                b"[\n{\"a\": [1, 2.5, null]},\n{\"a\": \"\\u00e4\"}]",
                b"{\"k\": {\"a\": 1}, \"l\": {\"a\": 2}}",
                b"{\"t\": [[\"a\", \"b\"]], \"v\": 1}",
            ];
            ("a.json", None, seeds.map(<[u8]>::to_vec).to_vec())
        }
        "parquet" => ("a.parquet", None, named(".parquet")),
        "tfrecord" => ("a.tfrecord", None, named(".tfrecord")),
        "xml" => ("a.xml", None, named(".xml")),
        "xlsx" => ("a.xlsx", None, named(".xlsx")),
        "docx" => ("a.docx", None, named(".docx")),
        "pdf" => ("a.pdf", None, named(".pdf")),
        "html" => ("a.html", None, named(".html")),
        "eml" => ("a.eml", None, named(".eml")),
        "mbox" => ("a.mbox", None, named(".mbox")),
        "text" => ("a.md", None, named(".html")),
        "zip" => ("a.zip", None, named(".zip")),
        "gzip" => ("a.tar.gz", None, named(".tar.gz")),
        "tar" => ("a.tar", None, vec![tar()]),
        "zstd" => ("a.csv.zst", None, named(".zst")),
        "unnamed" => ("a", None, ["", ".zip", ".xml", ".mbox"].into_iter().flat_map(named).collect()),
        other => return Err(format!("no target {other}")),
    };
    if seeds.is_empty() {
        return Err(format!("no files to begin with for {target}"));
    }
    // Parsers that panic are guarded; their messages would only fill the screen.
    std::panic::set_hook(Box::new(|_| {}));
    let failed = std::env::temp_dir().join(format!("tunesmith-fuzz-{target}-{}", std::process::id()));
    let counts = run(name, format, &seeds, number(seconds)?, &mut Random(number(seed)?), &failed)?;
    let _ = std::fs::remove_file(failed);
    println!(
        "{target}: {} cases, {} documents, {} rejected, {} errors, no panic",
        counts.cases, counts.documents, counts.rejected, counts.errors
    );
    Ok(())
}

/// A small archive: two files.
fn tar() -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, data) in [("a.csv", b"a,b\n1,2\n".as_slice()), ("b/c.jsonl", b"{\"a\": 1}\n")] {
        let mut header = [0u8; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[124..135].copy_from_slice(format!("{:011o}", data.len()).as_bytes());
        header[156] = b'0';
        header[257..262].copy_from_slice(b"ustar");
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        bytes.extend_from_slice(&header);
        bytes.extend_from_slice(data);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}
