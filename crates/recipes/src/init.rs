//! `init`: a run file with comments from the user's own data file. Columns are guessed, and each guess says why.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Component, Path, PathBuf};

use data::{Answer, DataError, Dataset, Format, Guess, Profile, Record, RecordRecipe, Shape};
use eval::Task;
use serde::Serialize;

use crate::context::{Context, Event, Observer};
use crate::error::{Error, Result};
use crate::prepare::task_of;
use crate::spec::{RunFile, defaults};

/// Part of the data file that is read, in bytes.
const DATA_BYTES_MAX: u64 = 4 << 30;
/// Test items beyond this many cost hours of generation and narrow the interval by little.
const TEST_ITEMS_MAX: f64 = 1000.0;
/// Validation items beyond this many slow every look down.
const VALIDATION_ITEMS_MAX: f64 = 300.0;
/// With fewer test items a verdict is nearly always "not enough evidence".
const TEST_ITEMS_FEW: f64 = 100.0;
/// Of targets with at most so many values, the one with the most makes the strata.
const STRATA_FEW: usize = 40;
/// Records that a stratum has on average, at least.
const STRATUM_RECORDS: usize = 5;

/// A column and why it was given its role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Column {
    /// Its name.
    pub column: String,
    /// Why, as a sentence without customer text.
    pub reason: String,
}

/// What [`init`] found and wrote.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct InitOutcome {
    /// The run file.
    pub run_file: PathBuf,
    /// Name of the project.
    pub project: String,
    /// Path of the data as written in the run file.
    pub data: String,
    /// Rows of the data file.
    pub rows: u64,
    /// Rows that make records.
    pub records: u64,
    /// How the rows say what is input and what is answer.
    pub shape: String,
    /// What kind of answers they are: a label, a JSON object, free text.
    pub task: String,
    /// The column to read; none where the rows bring their own messages.
    pub input: Option<Column>,
    /// The columns to answer.
    pub targets: Vec<Column>,
    /// The column whose values never straddle the split.
    pub group: Option<Column>,
    /// The column with ids.
    pub id: Option<Column>,
    /// Columns without a role.
    pub unused: Vec<Column>,
    /// The metric that the verdict will name.
    pub metric: String,
    /// Each decision and why, as sentences without customer text.
    pub reasons: Vec<String>,
    /// What may change what the user does next.
    pub warnings: Vec<String>,
}

/// Looks at `file` and writes a run file with comments: at `output`, or as `tunesmith.toml` beside the data.
pub fn init(_context: &Context<'_>, observer: &mut dyn Observer, file: &Path, output: Option<&Path>, force: bool) -> Result<InitOutcome> {
    let run_file = output.map_or_else(
        || file.with_file_name("tunesmith.toml"),
        |path| if path.is_dir() { path.join("tunesmith.toml") } else { path.to_owned() },
    );
    if run_file.exists() && !force {
        return Err(Error::Exists {
            what: "the run file",
            hint: "`--force` overwrites it, `--output FILE` writes another",
            path: run_file,
        });
    }
    if file.is_dir() {
        return Err(Error::Mismatch {
            what: "what to look at",
            given: "a folder".into(),
            expected: "a data file: csv, tsv, json or jsonl".into(),
        });
    }
    let extension = file.extension().map(|extension| extension.to_string_lossy().to_lowercase()).unwrap_or_default();
    // What a run file calls this format, where the extension alone does not say it.
    let named = match extension.as_str() {
        "csv" | "tsv" | "json" | "jsonl" => None,
        "ndjson" => Some("jsonl"),
        "tab" => Some("tsv"),
        _ => {
            return Err(Error::Mismatch {
                what: "the data file's extension",
                given: format!("{extension:?}"),
                expected: "csv, tsv, json or jsonl".into(),
            });
        }
    };
    let format = Format::from_name(&extension).expect("these are known");
    let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let bytes = store::atomic::read(file, DATA_BYTES_MAX)?;
    let dataset = data::read::read(&name, &bytes, format, &data::read::LIMITS)?;
    let found = Found::new(&dataset, &name, matches!(format, Format::Csv { .. }))?;
    let data = relative(file, &run_file)?;
    let project = project_name(file);
    let text = found.run_file(&project, &data, named, &dataset);
    RunFile::parse(&text, &run_file)?.resolve(&run_file)?; // what is written can be run
    store::atomic::write(&run_file, text.as_bytes())?;
    for warning in &found.warnings {
        observer.event(Event::Warning(warning.clone()));
    }
    let reasons = found.reasons();
    let column = |guess: Guess| Column { column: guess.column, reason: guess.reason };
    let Profile { input, targets, id, group, unused } = found.profile;
    Ok(InitOutcome {
        run_file,
        project,
        data,
        rows: dataset.documents.len() as u64,
        records: found.records as u64,
        shape: dataset.shape.name().to_owned(),
        task: found.task_words,
        input: input.map(column),
        targets: targets.into_iter().map(column).collect(),
        group: group.map(column),
        id: id.map(column),
        unused: unused.into_iter().map(column).collect(),
        metric: found.metric.to_owned(),
        reasons,
        warnings: found.warnings,
    })
}

/// What was found in the data.
struct Found {
    profile: Profile,
    records: usize,
    task: Task,
    task_words: String,
    metric: &'static str,
    stratify: Option<String>,
    test: f64,
    validation: f64,
    warnings: Vec<String>,
}

impl Found {
    fn new(dataset: &Dataset, name: &str, table: bool) -> Result<Found> {
        let mut profile = data::profile::profile(dataset);
        if dataset.shape != Shape::Columns {
            (profile.input, profile.targets) = match by_shape(dataset.shape) {
                Some((input, target)) if table => (Some(input), vec![target]),
                _ => (None, Vec::new()), // the shape says
            };
        } else if profile.input.is_none() || profile.targets.is_empty() {
            let expected = "a column with the text to read, and one or more with the answer".into();
            return Err(Error::Mismatch { what: "columns of the data file", given: dataset.columns.join(", "), expected });
        }
        let column = |guess: &Option<Guess>| guess.as_ref().map(|guess| guess.column.clone());
        let recipe = RecordRecipe {
            input: column(&profile.input),
            target: profile.targets.iter().map(|guess| guess.column.clone()).collect(),
            group: column(&profile.group),
            id: column(&profile.id),
            ..RecordRecipe::default()
        };
        let recorded = recipe.apply(dataset)?;
        let records = recorded.records;
        if records.is_empty() {
            return Err(DataError::Empty { origin: name.to_owned() }.into());
        }
        if records.iter().all(|record| record.answer == records[0].answer) {
            return Err(DataError::OneClass { records: records.len() }.into());
        }
        let task = task_of(&records);
        let (task_words, metric) = match &task {
            Task::Classification { labels } => (format!("one of {} labels", labels.len()), "accuracy"),
            Task::Structured { fields } => (format!("a JSON object with {} fields", fields.len()), "field_accuracy"),
            Task::FreeText | Task::Text => ("free text".to_owned(), "token_f1"),
        };
        let n = records.len() as f64;
        let mut warnings = Vec::new();
        if !recorded.rejected.is_empty() {
            warnings.push(format!(
                "{} of {} rows make no record; `tunesmith prepare` lists them with reasons",
                recorded.rejected.len(),
                dataset.documents.len()
            ));
        }
        let test = defaults::TEST.min(TEST_ITEMS_MAX / n);
        if test * n < TEST_ITEMS_FEW {
            let items = (test * n).round();
            warnings.push(format!("about {items} test items are few: `tunesmith plan` says which difference they can prove"));
        }
        Ok(Found {
            stratify: stratify(&profile, &records),
            records: records.len(),
            task,
            task_words,
            metric,
            test: rounded(test),
            validation: rounded(defaults::VALIDATION.min(VALIDATION_ITEMS_MAX / n)),
            warnings,
            profile,
        })
    }

    /// Each decision and why.
    fn reasons(&self) -> Vec<String> {
        let profile = &self.profile;
        let said = |role: &str, guess: &Guess| format!("{role} {}: {}", comment(&guess.column), comment(&guess.reason));
        let mut reasons: Vec<String> = profile.input.iter().map(|guess| said("input", guess)).collect();
        reasons.extend(profile.targets.iter().map(|guess| said("target", guess)));
        reasons.extend(profile.group.iter().map(|guess| said("group", guess)));
        reasons.extend(profile.id.iter().map(|guess| said("id", guess)));
        reasons.extend(profile.unused.iter().map(|guess| said("not used", guess)));
        reasons.push(format!("answers are {}: the metric is {}", self.task_words, self.metric));
        reasons
    }

    /// The run file's text.
    fn run_file(&self, project: &str, data: &str, format: Option<&str>, dataset: &Dataset) -> String {
        let mut out = String::new();
        let rows = dataset.documents.len();
        let columns = if dataset.shape == Shape::Columns { "named columns" } else { dataset.shape.name() };
        let _ = write!(
            out,
            "\
# Written by `tunesmith init` from {rows} rows ({columns}). What follows a # is a comment.
# docs/reference/run-file.md describes every key. Next: read this through, fill in what is BLANK, then
#   tunesmith plan FOLDER    what it would do, and which difference your test set can prove
#   tunesmith run  FOLDER    all of it, to the verdict

[project]
name = {project}
# goal = \"BLANK\"           # what the model is to do, in a sentence
# users = \"BLANK\"          # for whom
# industry = \"BLANK\"
# intended_use = \"BLANK\"   # what happens with its answers, and who checks them

[model]
base = \"smollm2-135m-instruct\"   # `tunesmith pull` lists names; a Hugging Face folder or a GGUF file works too

[data]
# instruction = \"…\"        # system message of every record; left out, it is made from the answers' names

[[data.source]]
path = {data}
",
            project = quoted(project),
            data = quoted(data),
        );
        if let Some(format) = format {
            let _ = writeln!(out, "format = {}", quoted(format));
        }
        self.columns(&mut out);
        let _ = write!(
            out,
            "\
# owner = \"BLANK\"          # whose data it is; these four stand in the report, as BLANK where nobody filled them in
# licence = \"BLANK\"        # under what licence or agreement you may use it
# lawful_basis = \"BLANK\"   # on what basis it may be processed, where it is about people
# keep_until = 2030-12-31  # when it has to be deleted

[prepare]
duplicates = \"drop\"
split = {{ test = {test}, validation = {validation}{stratify} }}   # of {records} records: about {items} test items

[tune]
method = \"lora\"
rank = {rank}
epochs = {epochs}                   # an upper bound: the best checkpoint on validation is kept

[evaluate]
metric = {metric}{mode}
arms = [\"base\", \"few-shot\", \"classical\", \"tuned\"]

[gate]                       # declared before training; decided by intervals, not by points
beats = [\"few-shot\"]
{least}",
            test = self.test,
            validation = self.validation,
            stratify = self.stratify.as_ref().map(|column| format!(", stratify = {}", quoted(column))).unwrap_or_default(),
            records = self.records,
            items = (self.test * self.records as f64).round(),
            rank = defaults::RANK,
            epochs = defaults::EPOCHS,
            metric = quoted(self.metric),
            mode = if matches!(self.task, Task::FreeText) { "\nmode = \"free\"" } else { "" },
            least = match self.task {
                Task::Structured { .. } => "# field_accuracy_at_least = 0.80   # what is good enough for you\nvalid_json_at_least = 0.99\n",
                Task::Classification { .. } => "# accuracy_at_least = 0.80         # what is good enough for you\n",
                Task::FreeText | Task::Text => "# token_f1_at_least = 0.50         # what is good enough for you\n",
            },
        );
        out
    }

    /// The lines that say which column is what.
    fn columns(&self, out: &mut String) {
        let profile = &self.profile;
        if let Some(guess) = &profile.input {
            let _ = writeln!(out, "input = {}   # {}", quoted(&guess.column), comment(&guess.reason));
        }
        match profile.targets.as_slice() {
            [] => {}
            [only] => {
                let _ = writeln!(out, "target = {}   # {}", quoted(&only.column), comment(&only.reason));
            }
            several => {
                let _ = writeln!(
                    out,
                    "target = [   # the answer is a JSON object with these fields; take out what is known before anyone reads the text"
                );
                for guess in several {
                    let _ = writeln!(out, "    {},   # {}", quoted(&guess.column), comment(&guess.reason));
                }
                let _ = writeln!(out, "]");
            }
        }
        match &profile.group {
            Some(guess) => {
                let _ = writeln!(out, "group = {}   # never straddles the split: {}", quoted(&guess.column), comment(&guess.reason));
            }
            None => {
                let _ =
                    writeln!(out, "# group = \"…\"            # a column (customer, patient, case) whose rows must not straddle the split");
            }
        }
        if let Some(guess) = &profile.id {
            let _ = writeln!(out, "id = {}   # {}", quoted(&guess.column), comment(&guess.reason));
        }
        for guess in &profile.unused {
            let _ = writeln!(out, "# not used: {}: {}", comment(&quoted(&guess.column)), comment(&guess.reason));
        }
    }
}

/// What a table with the columns of a known shape means: a run file names them, since a table's rows bring no messages.
fn by_shape(shape: Shape) -> Option<(Guess, Guess)> {
    let (input, target) = match shape {
        Shape::PromptCompletion => ("prompt", "completion"),
        Shape::InputsTargets => ("inputs", "targets"),
        Shape::Alpaca => ("instruction", "output"),
        _ => return None,
    };
    let guess = |column: &str| Guess { column: column.to_owned(), reason: format!("the columns are those of {}", shape.name()) };
    Some((guess(input), guess(target)))
}

/// The target by whose values the split is stratified: the finest division that still leaves each stratum its records.
fn stratify(profile: &Profile, records: &[Record]) -> Option<String> {
    let distinct = |index: usize| {
        let value = |record: &Record| match &record.answer {
            Answer::Fields(fields) => fields.get(index).map(|(_, value)| value.to_text()).unwrap_or_default(),
            text => text.to_text(),
        };
        records.iter().map(value).collect::<BTreeSet<String>>().len()
    };
    let possible = 2..=records.len() / STRATUM_RECORDS;
    let counted = profile.targets.iter().enumerate().map(|(index, guess)| (distinct(index), guess));
    let candidates: Vec<(usize, &Guess)> = counted.filter(|(distinct, _)| possible.contains(distinct)).collect();
    let few = candidates.iter().filter(|(distinct, _)| *distinct <= STRATA_FEW).rev().max_by_key(|(distinct, _)| *distinct);
    few.or_else(|| candidates.iter().min_by_key(|(distinct, _)| *distinct)).map(|(_, guess)| guess.column.clone())
}

/// Three digits are enough for a fraction; never zero.
fn rounded(fraction: f64) -> f64 {
    ((fraction * 1000.0).round() / 1000.0).max(0.001)
}

/// A project name from the data file's: letters, digits, '-', '_' and '.'.
fn project_name(file: &Path) -> String {
    let stem = file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let plain: String =
        stem.chars().map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c.to_ascii_lowercase() } else { '-' }).take(60).collect();
    let trimmed = plain.trim_matches(['-', '.', '_']);
    if trimmed.is_empty() { "my-project".to_owned() } else { trimmed.to_owned() }
}

/// The data's path as the run file names it: relative to the run file's folder where that leads there.
fn relative(file: &Path, run_file: &Path) -> Result<String> {
    let lossless = |path: &Path| {
        let text = path.to_str().map(str::to_owned);
        text.ok_or_else(|| Error::Mismatch {
            what: "the data file's path",
            given: path.display().to_string(),
            expected: "a path in UTF-8".into(),
        })
    };
    let folder = run_file.parent().unwrap_or(Path::new(""));
    if file.parent() == Some(folder) {
        return lossless(Path::new(file.file_name().unwrap_or_default()));
    }
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let (file, folder) = (absolute(file), absolute(if folder.as_os_str().is_empty() { Path::new(".") } else { folder }));
    let there: Vec<Component<'_>> = file.components().collect();
    let here: Vec<Component<'_>> = folder.components().collect();
    let common = there.iter().zip(&here).take_while(|(a, b)| a == b).count();
    let up = here[common..].iter().map(|_| Component::ParentDir);
    let way: PathBuf = up.chain(there[common..].iter().copied()).collect();
    // `..` goes another way where a folder is a link; then the whole path is the honest one.
    let leads_there = folder.join(&way).canonicalize().is_ok_and(|found| file.canonicalize().is_ok_and(|meant| meant == found));
    lossless(if leads_there { &way } else { &file })
}

/// A TOML string on one line.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out += "\\\"",
            '\\' => out += "\\\\",
            '\n' => out += "\\n",
            '\t' => out += "\\t",
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Text that ends no comment.
fn comment(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_text_comes_back() {
        for text in [
            "plain",
            "a \"quote\"",
            "back\\slash",
            "line\nbreak\r\ttab",
            "null\u{0} del\u{7f} nel\u{85}",
            "Grüße 😀",
            "{message} and {{more}}",
            "",
        ] {
            let table: toml::Table = format!("key = {}", quoted(text)).parse().unwrap();
            assert_eq!(table["key"].as_str(), Some(text));
        }
    }

    #[test]
    fn names_are_made_fit() {
        assert_eq!(project_name(Path::new("data/Tickets 2025.csv")), "tickets-2025");
        assert_eq!(project_name(Path::new(".hidden.csv")), "hidden");
        assert_eq!(project_name(Path::new("ü.csv")), "my-project");
    }
}
