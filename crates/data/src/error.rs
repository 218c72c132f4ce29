//! Everything that can be wrong with a source, a recipe, a split or a pack.

/// Why data is refused. Names lines, columns and numbers, never customer text.
#[derive(Debug, thiserror::Error, PartialEq)]
#[non_exhaustive]
pub enum DataError {
    /// A file that could not be read from.
    #[error("{origin} cannot be read: {problem}")]
    Io {
        /// The source.
        origin: String,
        /// The system's word.
        problem: String,
    },
    /// A file that is not what it should be.
    #[error("{origin} cannot be read as {kind}: {problem}")]
    Broken {
        /// The source or the file within it.
        origin: String,
        /// What it should be.
        kind: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// A name that says one thing and content that says another.
    #[error("{origin} is named as {format}, but its content is {content}")]
    Content {
        /// The source or the file within it.
        origin: String,
        /// What it is.
        content: &'static str,
        /// What it is called.
        format: &'static str,
    },
    /// A file of terms or templates with a line that is not what it should be.
    #[error("{file} line {line}: {problem}")]
    ListFile {
        /// The file.
        file: String,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
    /// A label of no encoding.
    #[error("no encoding is called {label:?}; use a name such as utf-8, windows-1252, iso-8859-15, utf-16le or shift_jis")]
    UnknownEncoding {
        /// The label.
        label: String,
    },
    /// A workbook without the sheet asked for, or without any.
    #[error("{origin} has no sheet {sheet:?} to read; it has {sheets}")]
    NoSheet {
        /// The workbook.
        origin: String,
        /// The sheet.
        sheet: String,
        /// Those it has.
        sheets: String,
    },
    /// An XML file whose records are not named.
    #[error("{origin}: name the element that is a row (xml_record); it has {paths}")]
    XmlRecordNeeded {
        /// The source.
        origin: String,
        /// Paths of its elements.
        paths: String,
    },
    /// Neither name nor content say how it is written.
    #[error("{origin}: neither its name nor its content says how it is written")]
    UnknownFormat {
        /// The source or the file within it.
        origin: String,
    },
    /// Nothing in it.
    #[error("{origin} has no rows")]
    Empty {
        /// The source.
        origin: String,
    },
    /// Something larger than allowed.
    #[error("{origin}{}: {given} {what}, at most {limit}", line.map(|l| format!(" line {l}")).unwrap_or_default())]
    TooLarge {
        /// The source.
        origin: String,
        /// Where.
        line: Option<u64>,
        /// What is counted.
        what: &'static str,
        /// How many there are.
        given: u64,
        /// How many may be.
        limit: u64,
    },
    /// A row that cannot be read.
    #[error("{origin} line {line}: {problem}")]
    Line {
        /// The source.
        origin: String,
        /// Where, from 1.
        line: u64,
        /// What is wrong.
        problem: LineProblem,
    },
    /// A column that the source lacks.
    #[error("{origin} has no column {column:?}{}; it has {columns}", nearest.as_ref().map(|n| format!(" (nearest: {n:?})")).unwrap_or_default())]
    MissingColumn {
        /// The source.
        origin: String,
        /// The one asked for.
        column: String,
        /// The most similar one.
        nearest: Option<String>,
        /// All there are.
        columns: String,
    },
    /// The source's rows do not say what is input and what is answer.
    #[error("{origin} has rows with {columns}: name the column to read (input) and the columns to answer (target)")]
    RecipeNeeded {
        /// The source.
        origin: String,
        /// Its columns.
        columns: String,
    },
    /// Scratch space or threads that are not to be had.
    #[error("the pipeline's scratch space: {problem}")]
    Spill {
        /// What is wrong.
        problem: String,
    },
    /// A shape that is recognised, but not trained on.
    #[error("{origin} holds {shape}, which cannot be trained on yet; supported: {supported}")]
    UntrainedShape {
        /// The source.
        origin: String,
        /// What it holds.
        shape: &'static str,
        /// What can be.
        supported: &'static str,
    },
    /// A template with a brace problem.
    #[error("the input template {template:?} {problem}")]
    InputTemplate {
        /// The template.
        template: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// Two records with one id.
    #[error("the id {id:?} is given twice, in {first} and in {second}")]
    DuplicateId {
        /// The id.
        id: String,
        /// One place.
        first: String,
        /// The other.
        second: String,
    },
    /// Every record has the same answer.
    #[error("all {records} records have the same answer: there is nothing to learn apart")]
    OneClass {
        /// How many records.
        records: usize,
    },
    /// A side of the split that would be empty.
    #[error("the split leaves no records for {part}: {records} records in {units} groups of inputs")]
    EmptyPart {
        /// Which part.
        part: &'static str,
        /// Records there are.
        records: usize,
        /// Indivisible units there are.
        units: usize,
    },
    /// Test and validation together take everything.
    #[error("the split asks for {test} test and {validation} validation records of {records}")]
    Portions {
        /// For the test.
        test: String,
        /// For validation.
        validation: String,
        /// Records there are.
        records: usize,
    },
    /// The same thing on both sides.
    #[error("the {what} of record {first} stands in {first_part} and, as record {second}, in {second_part}")]
    Leak {
        /// Group or input.
        what: &'static str,
        /// A record.
        first: String,
        /// Its part.
        first_part: &'static str,
        /// Another.
        second: String,
        /// Its part.
        second_part: &'static str,
    },
    /// A row whose parts do not fit together.
    #[error("record {record}: {ids} ids but {weights} loss weights")]
    RowLengths {
        /// The record.
        record: String,
        /// Ids.
        ids: usize,
        /// Weights.
        weights: usize,
    },
    /// A weight that is no finite number ≥ 0.
    #[error("record {record}: loss weight {weight} at token {position}, expected a finite number of at least 0")]
    RowWeight {
        /// The record.
        record: String,
        /// The weight as text.
        weight: String,
        /// Where.
        position: usize,
    },
    /// A record that does not fit a micro-batch.
    #[error("record {record} has {given} tokens, and a micro-batch may have {limit} rows")]
    RowTooLong {
        /// The record.
        record: String,
        /// Its tokens.
        given: usize,
        /// The limit.
        limit: usize,
    },
    /// A number of the plan out of its range.
    #[error("{field} is {given}, expected {expected}")]
    Plan {
        /// Which.
        field: &'static str,
        /// What it is.
        given: String,
        /// What it may be.
        expected: &'static str,
    },
    /// A step that the epoch lacks.
    #[error("step {given} of an epoch with {steps} steps")]
    NoSuchStep {
        /// The step.
        given: usize,
        /// How many there are.
        steps: usize,
    },
}

/// What is wrong with a line.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum LineProblem {
    /// Not UTF-8.
    #[error("byte {byte} of it is not UTF-8")]
    NotUtf8 {
        /// Which byte of the line, from 1.
        byte: usize,
    },
    /// UTF-16 or UTF-32.
    #[error("the file is written in {encoding}; save it as UTF-8")]
    Encoding {
        /// Which.
        encoding: &'static str,
    },
    /// Not what its encoding allows.
    #[error("it, or a line below it, is not {encoding}")]
    Undecodable {
        /// The encoding.
        encoding: &'static str,
    },
    /// A zero byte.
    #[error("it has a zero byte (NUL)")]
    Nul,
    /// Too many or too few fields.
    #[error("it has {given} fields, the header has {expected}")]
    Ragged {
        /// Its fields.
        given: usize,
        /// The header's.
        expected: usize,
    },
    /// A quote that is not closed.
    #[error("a quote opened in it is never closed")]
    OpenQuote,
    /// A field goes on behind its closing quote.
    #[error("text follows a closing quote: a quote is missing, or one inside a field is not written twice")]
    TextAfterQuote,
    /// Two columns with one name, or one without.
    #[error("the header has {problem}")]
    Header {
        /// What is wrong.
        problem: String,
    },
    /// Not JSON.
    #[error("not JSON at character {column}: {expected}")]
    Json {
        /// Where, from 1.
        column: usize,
        /// What the parser expected.
        expected: String,
    },
    /// Not an object.
    #[error("it is {found}, expected an object")]
    NotObject {
        /// What it is.
        found: &'static str,
    },
    /// A key twice.
    #[error("it has the key {key:?} twice")]
    DuplicateKey {
        /// The key.
        key: String,
    },
    /// Too deep.
    #[error("it is nested more than {limit} deep")]
    Depth {
        /// The limit.
        limit: usize,
    },
}
