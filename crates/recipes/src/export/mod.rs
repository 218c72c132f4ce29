//! `export`: a tuned model in a form that other programs load, proved before it is handed over.
//!
//! | format | what is written | who loads it |
//! |---|---|---|
//! | `peft` | the adapter, as `peft` writes one | peft, vLLM, mistral.rs |
//! | `gguf-lora` | the adapter as a GGUF file | llama.cpp, beside a GGUF file of the base |
//! | `hf` | base and adapter as one Hugging Face folder | transformers, vLLM |
//! | `gguf-f32` … `gguf-q4_k_m` | base and adapter as one GGUF file | llama.cpp |
//!
//! Tensors are merged and written a few rows at a time. What is written is opened again and asked the same held-out
//! prompts as the adapter on its base ([`proof`]); only where the answers agree does it appear at its place, and its proof
//! beside it.

mod gguf;
mod hugging_face;
mod merged;
mod mixture;
mod peft;
pub mod proof;
mod source;

use std::path::{Path, PathBuf};

use engine::adapter::Adapter;
use govern::Hash;
use serde::Serialize;
use store::RunFolder;
use store::atomic::{Pending, PendingFolder};

use crate::adapters;
use crate::base::Base;
use crate::context::{Context, Event, Observer};
use crate::error::{Error, Result};
use crate::governance::{Governance, hash_file};
use crate::tune::adapter_hash;
use proof::{Proof, Tolerance};
use source::Source;

pub use peft::export_peft;

/// What `--to` may say.
pub const FORMATS: &[&str] = &["peft", "gguf-lora", "hf", "gguf-f32", "gguf-bf16", "gguf-f16", "gguf-q8_0", "gguf-q4_k_m"];
/// What `--dtype` may say.
pub const DTYPES: &[&str] = &["f32", "bf16", "f16"];
/// Bytes of a safetensors file after which the next one begins: what the hub and older file systems take.
pub const SHARD_BYTES: u64 = 5_000_000_000;

/// What to export and how.
#[derive(Clone, Debug, PartialEq)]
pub struct ExportOptions {
    /// Run id, run folder or adapter folder.
    pub source: String,
    /// One of [`FORMATS`].
    pub format: String,
    /// Folder or file to write; must not exist.
    pub output: PathBuf,
    /// Base model of an adapter folder; none: what the adapter names. A run has its own.
    pub model: Option<String>,
    /// How the base is held while it is merged, as `[model] storage` says; empty: as the run says, or as its files have it.
    pub storage: String,
    /// Of `hf`, one of [`DTYPES`]; empty: as the base's files have it, F16 where they are quantised.
    pub dtype: String,
    /// Records on which it is proved; none: the run's test records, or a few built-in prompts.
    pub prompts: Option<PathBuf>,
    /// Of `hf`: bytes of a safetensors file, at most, see [`SHARD_BYTES`].
    pub shard_bytes: u64,
}

/// What was exported.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Exported {
    /// The folder or file.
    pub path: PathBuf,
    /// One of [`FORMATS`].
    pub format: String,
    /// The base it belongs to, or was merged with; empty where the adapter does not say.
    pub base_model: String,
    /// LoRA rank.
    pub rank: usize,
    /// LoRA alpha.
    pub alpha: f64,
    /// Tensors that were written.
    pub tensors: usize,
    /// Numbers in them.
    pub parameters: u64,
    /// Bytes of what was written.
    pub bytes: u64,
    /// blake3 of the adapter's weights.
    pub adapter_hash: String,
    /// What was measured.
    pub proof: Proof,
    /// Where that is written.
    pub proof_path: PathBuf,
    /// Who loads it, as a sentence.
    pub loads_with: String,
}

/// Writes the tuned model of `options.source` to `options.output`.
///
/// # Errors
/// An adapter that cannot have been trained (all B zero, or numbers that are not finite); a format that cannot say the model
/// or its tokenizer; [`Error::Withheld`] where what was written answers otherwise than the adapter on its base. Nothing is
/// left at its place then.
pub fn export(context: &Context<'_>, observer: &mut dyn Observer, options: &ExportOptions) -> Result<Exported> {
    crate::spec::known("--to", &options.format, FORMATS)?;
    if !options.dtype.is_empty() {
        crate::spec::known("--dtype", &options.dtype, DTYPES)?;
        if options.format != "hf" {
            let (given, expected) = (format!("beside --to {}", options.format), "it beside --to hf".into());
            return Err(Error::Mismatch { what: "--dtype", given, expected });
        }
    }
    if options.output.exists() {
        let hint = "give a place where nothing is: `--output PATH`";
        return Err(Error::Exists { what: "the export", hint, path: options.output.clone() });
    }
    let source = Source::find(context, options)?;
    // What leaves a project leaves a line in its ledgers; another process at work on the run is said before anything is done.
    let ledgers = source.run.as_deref().and_then(|run| Ledgers::of(context, run).transpose()).transpose()?;
    let exported = written(context, observer, options, &source)?;
    if let Some(ledgers) = ledgers {
        ledgers.exported(context, &exported)?;
    }
    Ok(exported)
}

fn written(context: &Context<'_>, observer: &mut dyn Observer, options: &ExportOptions, source: &Source) -> Result<Exported> {
    if options.format == "peft" {
        return export_peft(&source.adapter, &options.output);
    }
    let base = source.base(context, observer)?;
    peft::check_folder(&source.adapter)?;
    let adapter = adapters::read(&source.adapter, base.config())?;
    let export = Export { context, options, source, base: &base, adapter: &adapter };
    if let Some(folder) = options.output.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        store::atomic::create_folder(folder)?;
    }
    export.has_room()?;
    match options.format.as_str() {
        "gguf-lora" => export.adapter_file(),
        "hf" => export.folder(observer),
        _ => export.file(observer),
    }
}

/// The ledgers of a run and its project, for whose sake the run is locked.
struct Ledgers {
    run: RunFolder,
    id: String,
}

impl Ledgers {
    /// None for a run of another workspace, whose project's ledger is not at hand.
    fn of(context: &Context<'_>, run: &Path) -> Result<Option<Ledgers>> {
        let known = RunFolder::list(&context.workspace)?;
        let id = crate::runs::id(run);
        let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        if !known.iter().any(|entry| entry.id == id && absolute(&entry.path) == absolute(run)) {
            return Ok(None);
        }
        Ok(Some(Ledgers { run: RunFolder::open(run)?, id }))
    }

    fn exported(&self, context: &Context<'_>, exported: &Exported) -> Result<()> {
        let artefact = if exported.path.is_dir() {
            let files = store::tree::files_below(&exported.path)?;
            let line = |name: &String| Ok(format!("{} {name}\n", hash_file(&exported.path.join(name))?.hash));
            Hash::of(files.iter().map(line).collect::<Result<String>>()?.as_bytes())
        } else {
            hash_file(&exported.path)?.hash
        };
        Governance::of(context, &self.id).exported(&self.run, &exported.format, artefact)
    }
}

/// What all formats that need the base work with.
struct Export<'a, 'c> {
    context: &'a Context<'c>,
    options: &'a ExportOptions,
    source: &'a Source,
    base: &'a Base,
    adapter: &'a Adapter,
}

/// What a format wrote.
struct Written {
    tensors: usize,
    parameters: u64,
    tolerance: Tolerance,
}

impl Export<'_, '_> {
    /// Refuses before the first byte where what is to be written cannot fit.
    fn has_room(&self) -> Result<()> {
        room(&self.options.format, self.bytes(), store::disk::free_bytes(&self.options.output), &self.options.output)
    }

    /// Bytes of the tensors that are to be written, at least: what stands beside them is small.
    fn bytes(&self) -> u64 {
        let weights = self.base.parameters();
        let bits = match (self.options.format.as_str(), self.options.dtype.as_str()) {
            ("gguf-lora", _) => return 4 * self.adapter.config.parameters(self.base.config()) as u64,
            ("gguf-f32", _) | ("hf", "f32") => 32.0,
            ("gguf-q8_0", _) => 8.5,
            // The least of the mixture's blocks.
            ("gguf-q4_k_m", _) => 4.5,
            _ => 16.0,
        };
        (weights as f64 * bits / 8.0) as u64
    }

    /// A merged Hugging Face folder.
    fn folder(&self, observer: &mut dyn Observer) -> Result<Exported> {
        let pending = PendingFolder::create(&self.options.output)?;
        let written = hugging_face::write(self, &pending, observer)?;
        let proof = self.prove(pending.path(), written.tolerance, observer)?;
        let proof_path = self.options.output.join(PROOF_FILE);
        pending.write(PROOF_FILE, &proof.to_json()?)?;
        let bytes = store::tree::bytes_below(pending.path())?;
        pending.commit()?;
        self.exported(written, bytes, proof, proof_path)
    }

    /// A merged GGUF file.
    fn file(&self, observer: &mut dyn Observer) -> Result<Exported> {
        let (pending, written) = gguf::write(self, observer)?;
        let proof = self.prove(pending.temporary(), written.tolerance, observer)?;
        self.handed_over(pending, written, proof)
    }

    /// The adapter as a GGUF file: read back, it is the same numbers.
    fn adapter_file(&self) -> Result<Exported> {
        let pending = crate::gguf_adapter::write(&self.options.output, self.adapter, self.base)?;
        let again = crate::gguf_adapter::read(pending.temporary(), &self.base.described)?;
        // rsLoRA's factor is rounded once on its way into the file's alpha.
        let factor = (f64::from(again.config.scale()) / f64::from(self.adapter.config.scale()) - 1.0).abs();
        if again.tensors != self.adapter.tensors || factor > 4.0 * f64::from(f32::EPSILON) {
            return Err(Error::Corrupt {
                what: "the exported adapter",
                reason: NOT_WHAT_WAS_WRITTEN.into(),
                path: self.options.output.clone(),
            });
        }
        let tensors = 2 * self.adapter.tensors.len();
        let parameters = self.adapter.config.parameters(self.base.config()) as u64;
        let written = Written { tensors, parameters, tolerance: Tolerance::EXACT };
        self.handed_over(pending, written, Proof::identical(tensors))
    }

    /// Puts a proved file and its proof at their places, the proof first: a file is never without one.
    fn handed_over(&self, pending: Pending, written: Written, proof: Proof) -> Result<Exported> {
        let name = self.options.output.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let proof_path = self.options.output.with_file_name(format!("{name}.{PROOF_FILE}"));
        let (_, bytes) = store::atomic::sha256(pending.temporary(), &mut |_| {})?;
        store::atomic::write(&proof_path, &proof.to_json()?)?;
        pending.commit()?;
        self.exported(written, bytes, proof, proof_path)
    }

    fn prove(&self, written: &Path, tolerance: Tolerance, observer: &mut dyn Observer) -> Result<Proof> {
        let proof = proof::prove(self, written, tolerance, observer)?;
        if let Some((what, given, limit)) = proof.failed() {
            return Err(Error::Withheld { format: self.options.format.clone(), what, given, limit, path: self.options.output.clone() });
        }
        if proof.drowns_the_tuning() {
            observer.event(Event::Warning(format!(
                "rounding moves ln p by {:.2e} on average here, the tuning itself by {:.2e}: evaluate the export before it is used, or take \
                 a format with more bits",
                proof.log_prob_difference_mean, proof.adapter_effect_mean
            )));
        }
        Ok(proof)
    }

    fn exported(&self, written: Written, bytes: u64, proof: Proof, proof_path: PathBuf) -> Result<Exported> {
        Ok(Exported {
            path: self.options.output.clone(),
            format: self.options.format.clone(),
            base_model: self.base.name.clone(),
            rank: self.adapter.config.rank,
            alpha: f64::from(self.adapter.config.alpha),
            tensors: written.tensors,
            parameters: written.parameters,
            bytes,
            adapter_hash: adapter_hash(&self.source.adapter)?,
            proof,
            proof_path,
            loads_with: self.loads_with(),
        })
    }

    fn loads_with(&self) -> String {
        let path = self.options.output.display();
        match self.options.format.as_str() {
            "gguf-lora" => format!("loads with llama.cpp beside a GGUF file of the base: llama-cli -m BASE.gguf --lora {path}"),
            "hf" => format!("loads with transformers, vLLM, and `tunesmith chat {path}`"),
            _ => format!("loads with llama.cpp and what is built on it (llama-cli -m {path}), and `tunesmith chat {path}`"),
        }
    }
}

/// Whether so many bytes fit; where the system does not say how many are free, they may.
fn room(what: &str, needed: u64, free: Option<u64>, path: &Path) -> Result<()> {
    match free {
        Some(free) if free < needed => Err(Error::NoRoom { what: what.to_owned(), needed, free, path: path.to_owned() }),
        _ => Ok(()),
    }
}

/// The proof's name in a folder; beside a file, what follows the file's name.
const PROOF_FILE: &str = "proof.json";
/// Of a file that does not read back.
const NOT_WHAT_WAS_WRITTEN: &str = "it is not what was written";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_with_both_numbers() {
        let path = Path::new("/somewhere/out.gguf");
        assert!(room("gguf-f16", 10, Some(10), path).is_ok() && room("gguf-f16", 10, None, path).is_ok());
        let error = room("gguf-f16", 11, Some(10), path).expect_err("a byte too many");
        assert_eq!(error.to_string(), "gguf-f16 needs 11 bytes, 10 are free at /somewhere/out.gguf");
        assert!(error.hint().is_some_and(|hint| hint.contains("--output")));
    }
}
