//! Files that are one text each: plain text, Markdown, source code.

use super::mojibake;
use super::place::Place;
use super::text_stream::TextStream;
use super::walk::Found;
use super::{DOCUMENT_BYTES_MAX, Item, ReadOptions};
use crate::{DataError, Value};

/// Name of the attribute that says how a document's text is marked up; plain text has none.
pub const MARKUP: &str = "markup";
/// Value of [`MARKUP`]: headings, lists and tables are written as in Markdown (CommonMark with tables).
pub const MARKDOWN: &str = "markdown";

/// Languages of source code by the ends of file names.
const LANGUAGES: &[(&str, &[&str])] = &[
    ("Ada", &["adb", "ads"]),
    ("Assembly", &["asm", "s"]),
    ("Batch", &["bat", "cmd"]),
    ("C", &["c", "h"]),
    ("C#", &["cs"]),
    ("C++", &["cc", "cpp", "cxx", "hpp", "hh", "hxx"]),
    ("CMake", &["cmake"]),
    ("COBOL", &["cob", "cbl", "cpy"]),
    ("CSS", &["css", "scss", "less"]),
    ("Clojure", &["clj", "cljs"]),
    ("Dart", &["dart"]),
    ("Elixir", &["ex", "exs"]),
    ("Erlang", &["erl", "hrl"]),
    ("F#", &["fs", "fsi"]),
    ("Fortran", &["f", "f90", "f95", "for"]),
    ("Go", &["go"]),
    ("Groovy", &["groovy", "gradle"]),
    ("Haskell", &["hs"]),
    ("HCL", &["tf", "hcl"]),
    ("INI", &["ini", "cfg", "properties"]),
    ("Java", &["java"]),
    ("JavaScript", &["js", "mjs", "cjs", "jsx"]),
    ("Julia", &["jl"]),
    ("Kotlin", &["kt", "kts"]),
    ("Lua", &["lua"]),
    ("MATLAB", &["m"]),
    ("Makefile", &["mk"]),
    ("OCaml", &["ml", "mli"]),
    ("Objective-C", &["mm"]),
    ("PHP", &["php"]),
    ("PL/SQL", &["pls", "plsql", "pkb", "pks"]),
    ("Pascal", &["pas", "dpr"]),
    ("Perl", &["pl", "pm"]),
    ("PowerShell", &["ps1", "psm1"]),
    ("Protocol Buffers", &["proto"]),
    ("Python", &["py", "pyi"]),
    ("R", &["r"]),
    ("Ruby", &["rb", "rake"]),
    ("Rust", &["rs"]),
    ("SQL", &["sql"]),
    ("Scala", &["scala", "sbt"]),
    ("Shell", &["sh", "bash", "zsh", "ksh"]),
    ("Solidity", &["sol"]),
    ("Swift", &["swift"]),
    ("TOML", &["toml"]),
    ("Tcl", &["tcl"]),
    ("TypeScript", &["ts", "tsx"]),
    ("VHDL", &["vhd", "vhdl"]),
    ("Verilog", &["v", "sv"]),
    ("Visual Basic", &["vb", "bas", "vbs"]),
    ("YAML", &["yaml", "yml"]),
    ("Zig", &["zig"]),
];

/// The language of a file, by the end of its name or its whole name.
pub(super) fn language_of_name(name: &str) -> Option<&'static str> {
    let file = name.rsplit(['/', '\\']).next().unwrap_or(name);
    match file {
        "Makefile" | "makefile" | "GNUmakefile" => return Some("Makefile"),
        "Dockerfile" | "Containerfile" => return Some("Dockerfile"),
        "Rakefile" | "Gemfile" => return Some("Ruby"),
        "Jenkinsfile" => return Some("Groovy"),
        "CMakeLists.txt" => return Some("CMake"),
        _ => {}
    }
    let extension = file.rsplit_once('.')?.1.to_ascii_lowercase();
    LANGUAGES.iter().find(|(_, extensions)| extensions.contains(&extension.as_str())).map(|(language, _)| *language)
}

/// The language that a script's first line (`#!/usr/bin/env python3`) names.
pub(super) fn language_of_shebang(head: &[u8]) -> Option<&'static str> {
    let line = head.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let line = std::str::from_utf8(line).ok()?;
    let mut words = line.split_whitespace().filter(|word| !word.starts_with('-') && !word.contains('='));
    let mut program = words.next()?.rsplit('/').next()?;
    if program == "env" {
        program = words.next()?;
    }
    Some(match program.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.') {
        "sh" | "bash" | "zsh" | "ksh" | "dash" => "Shell",
        "python" => "Python",
        "perl" => "Perl",
        "ruby" => "Ruby",
        "node" | "nodejs" => "JavaScript",
        "php" => "PHP",
        "lua" => "Lua",
        "Rscript" => "R",
        "tclsh" | "wish" => "Tcl",
        "pwsh" => "PowerShell",
        _ => return None,
    })
}

/// A document of one text with its fields; mojibake is repaired, the encoding said.
pub(super) fn document(
    place: &Place,
    mut fields: Vec<(String, Value)>,
    legacy: Option<&'static str>,
    markdown: bool,
    options: &ReadOptions,
    found: &mut Found,
) -> Item {
    let repaired = if options.repair_mojibake { mojibake::repair_fields(&mut fields) } else { 0 };
    let mut document = place.document(fields, 1, 1);
    if markdown {
        document.attributes.push((MARKUP, Value::Text(MARKDOWN.to_owned())));
    }
    mojibake::note(&mut document, repaired, legacy, found);
    Item::Document(document)
}

/// Plain text; nothing where it is empty.
pub(super) fn plain(text: TextStream, options: &ReadOptions, found: &mut Found) -> Result<Option<Item>, DataError> {
    let place = text.place().clone();
    let (text, legacy) = text.all(DOCUMENT_BYTES_MAX, found)?;
    if text.trim().is_empty() {
        return Ok(None);
    }
    Ok(Some(document(&place, vec![("text".into(), Value::Text(text))], legacy, false, options, found)))
}

/// Markdown, as it is: its headings, lists and tables are the structure that chunks follow.
pub(super) fn markdown(text: TextStream, options: &ReadOptions, found: &mut Found) -> Result<Option<Item>, DataError> {
    let place = text.place().clone();
    let (text, legacy) = text.all(DOCUMENT_BYTES_MAX, found)?;
    if text.trim().is_empty() {
        return Ok(None);
    }
    let title = text.lines().find_map(|line| line.strip_prefix("# ")).unwrap_or_default().trim().to_owned();
    let fields = vec![("title".into(), Value::Text(title)), ("text".into(), Value::Text(text))];
    Ok(Some(document(&place, fields, legacy, true, options, found)))
}

/// Source code, with its language.
pub(super) fn code(text: TextStream, language: &str, options: &ReadOptions, found: &mut Found) -> Result<Option<Item>, DataError> {
    let place = text.place().clone();
    let (text, legacy) = text.all(DOCUMENT_BYTES_MAX, found)?;
    if text.trim().is_empty() {
        return Ok(None);
    }
    let path = if place.inner.is_empty() { place.source.clone() } else { place.inner.clone() };
    let fields =
        vec![("path".into(), Value::Text(path)), ("language".into(), Value::Text(language.into())), ("text".into(), Value::Text(text))];
    Ok(Some(document(&place, fields, legacy, false, options, found)))
}

/// Text with structure, written as Markdown block by block.
#[derive(Default)]
pub(super) struct Markdown {
    text: String,
    in_list: bool,
}

impl Markdown {
    fn block(&mut self, tight: bool) {
        if !self.text.is_empty() {
            self.text.push_str(if tight { "\n" } else { "\n\n" });
        }
    }

    pub(super) fn heading(&mut self, level: usize, text: &str) {
        self.block(false);
        self.in_list = false;
        self.text.push_str(&"#".repeat(level.clamp(1, 6)));
        self.text.push(' ');
        self.text.push_str(&one_line(text));
    }

    pub(super) fn paragraph(&mut self, text: &str) {
        self.block(false);
        self.in_list = false;
        self.text.push_str(text.trim());
    }

    /// An item of a list, `depth` from 0; `number` where it is numbered.
    pub(super) fn item(&mut self, depth: usize, number: Option<u64>, text: &str) {
        self.block(self.in_list);
        self.in_list = true;
        self.text.push_str(&"  ".repeat(depth.min(8)));
        match number {
            Some(number) => self.text.push_str(&format!("{number}. ")),
            None => self.text.push_str("- "),
        }
        self.text.push_str(&one_line(text));
    }

    /// Rows of cells, the first one the header.
    pub(super) fn table(&mut self, rows: &[Vec<String>]) {
        let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
        if columns == 0 {
            return;
        }
        self.block(false);
        self.in_list = false;
        for (i, row) in rows.iter().enumerate() {
            self.text.push_str(if i > 0 { "\n|" } else { "|" });
            for column in 0..columns {
                let cell = row.get(column).map_or("", String::as_str);
                self.text.push_str(&format!(" {} |", one_line(cell).replace('|', "\\|")));
            }
            if i == 0 {
                self.text.push_str("\n|");
                self.text.push_str(&" --- |".repeat(columns));
            }
        }
    }

    pub(super) fn preformatted(&mut self, text: &str) {
        self.block(false);
        self.in_list = false;
        // A longer fence than any in the text.
        let fence = "`".repeat(3.max(1 + text.split(|c| c != '`').map(str::len).max().unwrap_or(0)));
        self.text.push_str(&format!("{fence}\n{}\n{fence}", text.trim_matches('\n')));
    }

    pub(super) fn into_text(self) -> String {
        self.text
    }
}

/// Text with all white space as single blanks.
pub(super) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
