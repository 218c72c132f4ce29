//! Every key of the run file matters: set to something else, it changes the plan and so its hash, or it is refused.

use std::path::Path;

use govern::Hash;
use recipes::error::SpecError;
use recipes::spec::{KEYS, RunFile, RunPlan};

/// Sections; each of their keys has a line of its own in [`OTHERWISE`].
const SECTIONS: &[&str] = &[
    "project",
    "model",
    "engine",
    "data",
    "data.source",
    "prepare",
    "prepare.augment",
    "prepare.split",
    "prepare.split.near_ood",
    "tune",
    "evaluate",
    "gate",
];

/// (key, another value than the default's), as the run file writes it.
const OTHERWISE: &[(&str, &str)] = &[
    ("project.name", "\"other\""),
    ("project.goal", "\"sort the mail\""),
    ("project.users", "\"the desk\""),
    ("project.industry", "\"retail\""),
    ("project.intended_use", "\"fill the form\""),
    ("project.seed", "2"),
    ("model.base", "\"other-base\""),
    ("model.template", "\"chatml\""),
    ("model.storage", "\"q4_k\""),
    ("model.mapped", "\"always\""),
    ("engine.compute", "\"fast\""),
    ("engine.kv_cache", "\"int8\""),
    ("data.instruction", "\"Answer with the category.\""),
    ("data.source.path", "\"others.csv\""),
    ("data.source.format", "\"tsv\""),
    ("data.source.input", "\"body\""),
    ("data.source.target", "[\"category\", \"urgency\"]"),
    ("data.source.group", "\"customer\""),
    ("data.source.id", "\"number\""),
    ("data.source.role", "\"train\""),
    ("data.source.limit", "100"),
    ("data.source.limit_per_class", "10"),
    ("data.source.weight", "\"worth\""),
    ("data.source.owner", "\"Customer Care\""),
    ("data.source.licence", "\"internal\""),
    ("data.source.lawful_basis", "\"legitimate interest\""),
    ("data.source.keep_until", "2028-12-31"),
    ("data.source.sheet", "\"Tickets\""),
    ("data.source.xml_record", "\"QAPair\""),
    ("data.source.delimiter", "\";\""),
    ("data.source.quote", "\"'\""),
    ("data.source.header", "false"),
    ("data.source.encoding", "\"windows-1252\""),
    ("data.source.broken_rows", "\"reject\""),
    ("data.source.mojibake", "\"keep\""),
    ("data.source.make", "\"questions\""),
    ("data.source.date", "2026-01-31"),
    ("data.source.chunk_tokens", "128"),
    ("data.source.chunk_overlap", "16"),
    ("data.source.chunk_by", "\"paragraphs\""),
    ("data.source.version_of", "\"policy\""),
    ("data.source.version", "\"revision\""),
    ("prepare.duplicates", "\"keep\""),
    ("prepare.conflicts", "\"drop\""),
    ("prepare.near_duplicates", "\"drop\""),
    ("prepare.near_jaccard", "0.8"),
    ("prepare.shingle", "\"3 words\""),
    ("prepare.normalise", "true"),
    ("prepare.languages", "[\"en\", \"deu\"]"),
    ("prepare.label_errors", "\"drop\""),
    ("prepare.balance", "1.5"),
    ("prepare.balance_by", "\"weights\""),
    ("prepare.dates", "\"iso\""),
    ("prepare.date_order", "\"day_first\""),
    ("prepare.numbers", "\"plain\""),
    ("prepare.decimal_mark", "\"comma\""),
    ("prepare.units", "\"symbols\""),
    ("prepare.augment.copies", "2"),
    ("prepare.augment.typos", "0.1"),
    ("prepare.augment.case", "true"),
    ("prepare.augment.synonyms", "\"synonyms.txt\""),
    ("prepare.augment.templates", "\"templates.txt\""),
    ("prepare.augment.vocabulary", "\"vocabulary.txt\""),
    ("prepare.quality", "\"drop\""),
    ("prepare.incomplete", "\"report\""),
    ("prepare.secrets", "\"mask\""),
    ("prepare.words", "\"words.txt\""),
    ("prepare.words_policy", "\"report\""),
    ("prepare.valid_until", "\"until\""),
    ("prepare.as_of", "2026-01-01"),
    ("prepare.minimise", "true"),
    ("prepare.passages", "\"drop\""),
    ("prepare.passage_words", "40"),
    ("prepare.contamination", "\"report\""),
    ("prepare.contamination_words", "8"),
    ("prepare.benchmarks", "[\"bench.jsonl\"]"),
    ("prepare.max_tokens", "1000"),
    ("prepare.shuffle_targets", "true"),
    ("prepare.split.test", "0.2"),
    ("prepare.split.validation", "0.2"),
    ("prepare.split.stratify", "\"urgency\""),
    ("prepare.split.near_ood.column", "\"opened\""),
    ("prepare.split.near_ood.from", "2026-01-01"),
    ("prepare.split.near_ood.values", "[\"north\", \"south\"]"),
    ("tune.method", "\"full\""),
    ("tune.objective", "\"text\""),
    ("tune.loss_on", "\"all\""),
    ("tune.rank", "8"),
    ("tune.alpha", "16.0"),
    ("tune.rslora", "true"),
    ("tune.dropout", "0.1"),
    ("tune.targets", "[\"q_proj\", \"v_proj\"]"),
    ("tune.dora", "true"),
    ("tune.init", "\"pissa\""),
    ("tune.layers", "\"last 2\""),
    ("tune.freeze", "\"norms\""),
    ("tune.lora_plus_ratio", "16.0"),
    ("tune.optimizer", "\"adamw_8bit\""),
    ("tune.epochs", "1.5"),
    ("tune.max_steps", "10"),
    ("tune.batch", "16"),
    ("tune.learning_rate", "0.0002"),
    ("tune.schedule", "\"constant\""),
    ("tune.warmup", "0.0"),
    ("tune.weight_decay", "0.01"),
    ("tune.clip", "0.5"),
    ("tune.micro_batch_tokens", "512"),
    ("tune.reduction_leaves", "8"),
    ("tune.evaluations_per_epoch", "2.0"),
    ("tune.patience", "5"),
    ("tune.keep", "\"last\""),
    ("tune.checkpoint_seconds", "5.0"),
    ("evaluate.metric", "\"macro_f1\""),
    ("evaluate.arms", "[\"few-shot\", \"tuned\"]"),
    ("evaluate.mode", "\"free\""),
    ("evaluate.few_shot", "[4]"),
    ("evaluate.answer_tokens", "64"),
    ("evaluate.answers", "\"old-system.csv\""),
    ("gate.beats", "[\"base\"]"),
    ("gate.accuracy_at_least", "0.8"),
    ("gate.macro_f1_at_least", "0.8"),
    ("gate.field_accuracy_at_least", "0.8"),
    ("gate.record_exact_at_least", "0.8"),
    ("gate.valid_json_at_least", "0.99"),
    ("gate.valid_answer_at_least", "0.99"),
    ("gate.exact_match_at_least", "0.8"),
    ("gate.token_f1_at_least", "0.8"),
    ("gate.perplexity_at_most", "20.0"),
    ("gate.declared", "true"),
    ("gate.accepted_at_least", "0.95"),
];

/// Keys that go with another one, and a value for that one.
const COMPANIONS: &[(&str, (&str, &str))] = &[
    ("prepare.valid_until", ("prepare.as_of", "2025-01-01")),
    ("prepare.as_of", ("prepare.valid_until", "\"until\"")),
    ("prepare.balance_by", ("prepare.balance", "2.0")),
    ("prepare.date_order", ("prepare.dates", "\"iso\"")),
    ("prepare.decimal_mark", ("prepare.numbers", "\"plain\"")),
    ("prepare.augment.copies", ("prepare.augment.typos", "0.2")),
    ("prepare.augment.vocabulary", ("prepare.augment.templates", "\"others.txt\"")),
    ("tune.freeze", ("tune.method", "\"full\"")),
    ("gate.perplexity_at_most", ("tune.objective", "\"text\"")),
    ("data.source.chunk_tokens", ("data.source.make", "\"chunks\"")),
    ("data.source.chunk_overlap", ("data.source.make", "\"chunks\"")),
    ("data.source.chunk_by", ("data.source.make", "\"chunks\"")),
    ("data.source.version_of", ("data.source.version", "\"number\"")),
    ("data.source.version", ("data.source.version_of", "\"number\"")),
    ("prepare.split.near_ood.column", ("prepare.split.near_ood.values", "\"west\"")),
    ("prepare.split.near_ood.from", ("prepare.split.near_ood.column", "\"day\"")),
    ("prepare.split.near_ood.values", ("prepare.split.near_ood.column", "\"region\"")),
];

/// A key's line, with its companion's where it has one.
fn with_companion(key: &'static str, value: &'static str) -> Vec<(&'static str, &'static str)> {
    let companion = COMPANIONS.iter().find(|(of, _)| *of == key).map(|(_, companion)| *companion);
    [(key, value)].into_iter().chain(companion).collect()
}

/// A run file with these (key, value) lines, and those that there must be.
fn plan(lines: &[(&str, &str)]) -> Result<RunPlan, SpecError> {
    let needed = [
        ("model.base", "\"base\""),
        ("data.source.path", "\"rows.csv\""),
        ("data.source.input", "\"text\""),
        ("data.source.target", "\"label\""),
    ];
    let mut text = String::new();
    for section in SECTIONS {
        text += &if *section == "data.source" { format!("[[{section}]]\n") } else { format!("[{section}]\n") };
        // A plain text has no question.
        let is_text = lines.contains(&("tune.objective", "\"text\""));
        let given = |key: &str| lines.iter().any(|(other, _)| *other == key) || (is_text && key == "data.source.input");
        for (key, value) in lines.iter().chain(needed.iter().filter(|(key, _)| !given(key))) {
            if let Some((of, name)) = key.rsplit_once('.')
                && of == *section
            {
                text += &format!("{name} = {value}\n");
            }
        }
    }
    let path = Path::new("/project/tunesmith.toml");
    RunFile::parse(&text, path)?.resolve(path)
}

fn keys() -> Vec<String> {
    let full = |section: &str, key: &str| if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") };
    let all = KEYS.iter().flat_map(|(section, keys)| keys.iter().map(|key| full(section, key)));
    all.filter(|key| !SECTIONS.contains(&key.as_str())).collect()
}

#[test]
fn every_key_has_another_value_here() {
    let keys = keys();
    for key in &keys {
        assert!(OTHERWISE.iter().any(|(other, _)| other == key), "`{key}` is new: write a value for it here that is not its default");
    }
    for (key, _) in OTHERWISE {
        assert!(keys.iter().any(|other| other == key), "there is no `{key}` any more");
    }
    for section in SECTIONS {
        assert!(KEYS.iter().any(|(name, _)| name == section), "there is no [{section}] any more");
    }
}

#[test]
fn every_key_changes_the_plan_and_its_hash() {
    let hash = |plan: &RunPlan| Hash::of_value(plan).unwrap();
    let before = plan(&[]).unwrap();
    let mut hashes = vec![hash(&before)];
    for (key, value) in OTHERWISE {
        let after = plan(&with_companion(key, value)).unwrap_or_else(|error| panic!("{key} = {value}: {error}"));
        assert_ne!(after, before, "{key} = {value} changes nothing");
        assert!(!hashes.contains(&hash(&after)), "{key} = {value} has the hash of another plan");
        hashes.push(hash(&after));
    }
}

/// What is hashed is what is kept: a plan that is read back from its run folder is the same plan.
#[test]
fn a_plan_written_and_read_back_is_the_same() {
    for (key, value) in OTHERWISE {
        let plan = plan(&with_companion(key, value)).unwrap();
        let text = toml::to_string(&plan).unwrap();
        let read: RunPlan = toml::from_str(&text).unwrap();
        assert_eq!(plan, read, "{key} = {value}");
        assert_eq!(Hash::of_value(&plan).unwrap(), Hash::of_value(&read).unwrap(), "{key} = {value}");
    }
}

/// Keys that only questions and answers have are refused beside plain texts, not ignored.
#[test]
fn plain_texts_have_no_questions() {
    let text = [("tune.objective", "\"text\""), ("data.source.target", "\"abstract\"")];
    let resolved = plan(&text).unwrap();
    assert_eq!((resolved.sources[0].make.kind.as_str(), resolved.sources[0].make.chunk_tokens), ("blocks", 1024));
    assert_eq!((resolved.evaluate.metric.as_str(), resolved.gate.beats.as_slice()), ("perplexity", &["base".to_owned()][..]));
    assert_eq!(resolved.evaluate.arms, ["base", "tuned"]);
    for (key, value) in [
        ("data.source.input", "\"question\""),
        ("data.source.limit_per_class", "3"),
        ("data.source.make", "\"questions\""),
        ("data.source.chunk_overlap", "8"),
        ("data.instruction", "\"Answer.\""),
        ("prepare.shuffle_targets", "true"),
        ("prepare.label_errors", "\"drop\""),
        ("tune.loss_on", "\"last\""),
        ("evaluate.metric", "\"accuracy\""),
        ("evaluate.arms", "[\"few-shot\", \"tuned\"]"),
        ("evaluate.mode", "\"free\""),
        ("gate.accuracy_at_least", "0.8"),
    ] {
        let mut lines = text.to_vec();
        lines.push((key, value));
        let error = plan(&lines).map(|_| ()).expect_err(&format!("{key} = {value} was accepted"));
        // The keys of chunks are refused by what they go with.
        let named = if key.contains("chunk_") { "chunk_" } else { key.split('.').next_back().unwrap() };
        assert!(error.to_string().contains(named), "{key} = {value}: {error}");
    }
    // A template is filled in before it could be cut; each row is one text.
    let template = plan(&[text[0], ("data.source.target", "\"{title}: {abstract}\"")]).unwrap();
    assert_eq!(template.sources[0].make.kind, "");
}

/// Whatever has a range says so, with what was given and what is expected.
#[test]
fn values_out_of_range_are_refused_by_name() {
    for (key, values) in [
        ("project.name", &["\"\"", "\"../up\"", "\".hidden\"", "\"a b\""][..]),
        ("data.source.delimiter", &["\"\"", "\"--\"", "\"ä\""]),
        ("data.source.broken_rows", &["\"skip\""]),
        ("prepare.near_jaccard", &["0.0", "0.2", "1.1", "nan"]),
        ("prepare.shingle", &["\"5\"", "\"0 words\"", "\"5 lines\"", "\"101 words\""]),
        ("prepare.languages", &["\"klingon\"", "[\"any\", \"en\"]"]),
        ("prepare.balance", &["0.5", "-1.0", "nan", "1001.0"]),
        ("prepare.balance_by", &["\"weights\"", "\"loss\""]),
        ("prepare.dates", &["\"dmy\""]),
        ("prepare.date_order", &["\"day_first\"", "\"dmy\""]),
        ("prepare.decimal_mark", &["\"comma\"", "\",\""]),
        ("prepare.units", &["\"si\""]),
        ("prepare.augment.copies", &["1", "101"]),
        ("prepare.augment.typos", &["1.5", "nan"]),
        ("prepare.augment.vocabulary", &["\"v.txt\""]),
        ("prepare.quality", &["\"mask\""]),
        ("prepare.as_of", &["2026-01-01", "\"soon\"", "7"]),
        ("prepare.valid_until", &["\"until\""]),
        ("prepare.passage_words", &["4", "1001"]),
        ("prepare.contamination_words", &["4"]),
        ("data.source.make", &["\"summaries\""]),
        ("data.source.version", &["\"v\""]),
        ("prepare.split.near_ood.from", &["\"soon\"", "7"]),
        ("prepare.max_tokens", &["7"]),
        ("prepare.split.test", &["-0.1", "1.1", "nan"]),
        ("prepare.split.validation", &["-0.1", "2.0", "nan"]),
        ("tune.rank", &["0", "1025"]),
        ("tune.alpha", &["0.0", "-1.0", "inf", "nan", "1e38"]),
        ("tune.dropout", &["-0.1", "1.0", "nan"]),
        ("tune.targets", &["[]", "[\"lm_head\"]"]),
        ("tune.init", &["\"olora\""]),
        ("tune.layers", &["\"\"", "\"last 0\"", "\"3-1\""]),
        ("tune.lora_plus_ratio", &["0.0", "-1.0", "1001.0", "nan"]),
        ("tune.epochs", &["0.0", "-1.0", "inf", "nan", "1e300"]),
        ("tune.max_steps", &["4294967296"]),
        ("tune.batch", &["0", "1000000000"]),
        ("tune.learning_rate", &["0.0", "-1.0", "inf", "nan"]),
        ("tune.schedule", &["\"step\""]),
        ("tune.warmup", &["-0.1", "1.5", "nan"]),
        ("tune.weight_decay", &["-0.1", "nan"]),
        ("tune.clip", &["-1.0", "nan", "inf"]),
        ("tune.micro_batch_tokens", &["15", "9000000000"]),
        ("tune.reduction_leaves", &["0", "3", "128"]),
        ("tune.evaluations_per_epoch", &["0.0", "1e300", "nan"]),
        ("tune.keep", &["\"first\""]),
        ("tune.objective", &["\"dpo\""]),
        ("gate.perplexity_at_most", &["20.0", "0.5", "nan"]),
        ("tune.checkpoint_seconds", &["0.0", "-1.0", "nan"]),
        ("evaluate.metric", &["\"loss\""]),
        ("evaluate.arms", &["[]", "[\"base\"]", "[\"tuned\", \"gpt\"]"]),
        ("evaluate.mode", &["\"fast\""]),
        ("evaluate.answer_tokens", &["0", "9000000000"]),
        ("gate.beats", &["[\"tuned\"]", "[\"imported\"]", "[\"gpt\"]"]),
        ("gate.accuracy_at_least", &["-0.1", "80.0", "nan"]),
    ] {
        for value in values {
            let error = plan(&[(key, value)]).map(|_| ()).expect_err(&format!("{key} = {value} was accepted"));
            let section = key.split('.').next().unwrap();
            assert!(error.to_string().contains(section), "{key} = {value}: {error}");
            assert!(!error.to_string().contains('\n'), "{key} = {value}: {error}");
        }
    }
}
