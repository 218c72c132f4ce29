//! `cargo xtask parity --only exports`: what `tunesmith export` writes, in transformers, PEFT and llama.cpp.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::parity::{LOGITS, Proof, file_name, json, lines, text};

/// Mean |Δ ln p| of a token between llama.cpp with the file and our own engine with the same file. llama.cpp computes F32 and
/// F16 files in f32 and f16; beside the blocks of the others it rounds activations to 8 bits. What the file's own rounding
/// costs is no matter of llama.cpp's: it is measured beside it, and bounded by the proof that every export has to pass.
const MERGED: [(&str, f64); 4] = [("gguf-f32", 1e-4), ("gguf-f16", 1e-2), ("gguf-q8_0", 0.15), ("gguf-q4_k_m", 0.15)];
/// The same of Gemma's F32 files: llama.cpp looks GELU up in a table of f16, whose rounding of 2⁻¹¹ each layer's gate goes through.
const GELU_TABLE: f64 = 3e-3;

impl Proof {
    /// Exports of the real models with adapters that PEFT trained.
    pub(crate) fn exports(&mut self) -> Result<()> {
        let folder = self.folder.clone();
        for adapter in self.peft_adapters()? {
            self.merged_folder(&folder, &adapter)?;
            self.peft_folder(&folder, &adapter)?;
            self.adapter_file(&folder, &adapter)?;
        }
        let [adapter, _] = self.peft_adapters()?;
        // From a GGUF file: config and tokenizer made of its metadata. Its weights are those of the folder.
        self.merged_folder(&self.gguf.clone(), &adapter)?;
        self.merged_files(&folder, &adapter)?;
        let gemma = self.gemma.clone();
        if gemma.exists() {
            let adapter = self.work.join("peft-gemma");
            if !adapter.exists() {
                self.ours("peft_adapter.py", &[&text(&gemma), &text(&adapter), "8", "all-linear"])?;
            }
            self.merged_files(&gemma, &adapter)?;
        }
        Ok(())
    }

    /// Exports, and gives the place and the proof.
    fn export(&self, base: &Path, adapter: &Path, format: &str, more: &[&str]) -> Result<(PathBuf, Value)> {
        let ending = if format.starts_with("gguf") { ".gguf" } else { "" };
        let output = self.work.join(format!("export-{}-{}-{format}{ending}", file_name(base), file_name(adapter)));
        let gone = if output.is_dir() { std::fs::remove_dir_all(&output) } else { std::fs::remove_file(&output) };
        if let Err(error) = gone {
            ensure!(error.kind() == std::io::ErrorKind::NotFound, "{error}: {}", output.display());
        }
        let (adapter, model, to) = (text(adapter), text(base), text(&output));
        let command = [&["export", &adapter, "--model", &model, "--to", format, "--output", &to, "--json"], more].concat();
        let said = json(&self.tunesmith(&command, None)?)?;
        Ok((output, said["proof"].clone()))
    }

    /// transformers' logits of the merged folder against the adapter on its base here.
    fn merged_folder(&mut self, base: &Path, adapter: &Path) -> Result<()> {
        let (output, _) = self.export(base, adapter, "hf", &["--dtype", "f32"])?;
        let answers = text(&self.work.join("export-logits.safetensors"));
        let ids = self.ours("exports.py", &["transformers", &text(&output), &answers])?;
        let figures = json(&self.example("parity", &[&text(base), &answers, &text(adapter)])?)?;
        let difference = figures["adapter.logits"].as_f64().context("a figure")?;
        let of = format!("{} with {}", file_name(base), file_name(adapter));
        self.at_most(&format!("logits of the merged folder of {of} in transformers and here"), difference, LOGITS);
        let folder = self.folder.clone();
        let expected = self.ours("exports.py", &["transformers", &text(&folder), &answers])?;
        self.at_least(&format!("its tokenizer gives the base's ids: {of}"), f64::from(ids.trim() == expected.trim()), 1.0);
        std::fs::remove_dir_all(output)?;
        Ok(())
    }

    /// PEFT's logits of its own adapter, after it went through here.
    fn peft_folder(&mut self, base: &Path, adapter: &Path) -> Result<()> {
        let (output, _) = self.export(base, adapter, "peft", &[])?;
        let logits = |adapter: &Path, name: &str| -> Result<Vec<u8>> {
            let answers = self.work.join(name);
            self.ours("exports.py", &["transformers", &text(base), &text(&answers), &text(adapter)])?;
            Ok(std::fs::read(answers)?)
        };
        let same = logits(adapter, "export-before.safetensors")? == logits(&output, "export-after.safetensors")?;
        self.at_least(&format!("PEFT gives the same logits after the way through here: {}", file_name(adapter)), f64::from(same), 1.0);
        Ok(())
    }

    /// llama.cpp with the adapter as a GGUF file beside the base.
    fn adapter_file(&mut self, base: &Path, adapter: &Path) -> Result<()> {
        let unpacked = self.work.join("unpacked.gguf");
        if !unpacked.exists() {
            self.ours("quantised.py", &[&text(&self.gguf), &text(&self.work)])?;
        }
        let (output, _) = self.export(base, adapter, "gguf-lora", &[])?;
        let said = json(&self.ours("exports.py", &["llama.cpp", &text(&unpacked), &text(&output)])?)?;
        let mean = self.distance(&said, base, Some(adapter))?;
        let alone = self.distance(&said, base, None)?;
        let of = file_name(adapter);
        self.at_most(&format!("mean |difference of ln p|, {of} as a GGUF file in llama.cpp"), mean, MERGED[0].1);
        self.at_least(&format!("how far llama.cpp with {of} is from the base alone"), alone, 100.0 * MERGED[0].1);
        Ok(())
    }

    /// llama.cpp with merged GGUF files.
    fn merged_files(&mut self, base: &Path, adapter: &Path) -> Result<()> {
        let ids = json(&self.ours("exports.py", &["ids", &text(base)])?)?;
        for (format, bound) in MERGED {
            let (output, proof) = self.export(base, adapter, format, &[])?;
            let said = json(&self.ours("exports.py", &["llama.cpp", &text(&output)])?)?;
            if format == MERGED[0].0 {
                self.at_least(&format!("llama.cpp's ids are transformers': {}", file_name(base)), f64::from(said["ids"] == ids), 1.0);
            }
            let whole = self.distance(&said, base, Some(adapter))?;
            let theirs = self.distance(&said, &output, None)?;
            let here = &proof["log_prob_difference_mean"];
            println!(
                "     {format} of {}: {:.0} MB; llama.cpp is {whole:.2e} from the adapter on its base, of which the file itself in our \
                 own engine is {here}",
                file_name(base),
                output.metadata()?.len() as f64 / 1e6
            );
            let bound = if *base == self.gemma { bound.max(GELU_TABLE) } else { bound };
            self.at_most(&format!("mean |difference of ln p|, {format} of {}, llama.cpp and here", file_name(base)), theirs, bound);
            std::fs::remove_file(output)?;
        }
        Ok(())
    }

    /// Mean |Δ ln p| of a token between what llama.cpp said and the base here, with or without an adapter.
    fn distance(&self, said: &Value, base: &Path, adapter: Option<&Path>) -> Result<f64> {
        let expected: Vec<f64> = serde_json::from_value(said["log_probs"].clone())?;
        let count = said["ids"].as_array().context("ids")?.len();
        let records = self.work.join("export-records.jsonl");
        let line = |at: usize| {
            let weights: Vec<u8> = (0..count).map(|i| u8::from(i == at)).collect();
            json!({"id": at, "ids": said["ids"], "loss_weights": weights}).to_string() + "\n"
        };
        std::fs::write(&records, (1..count).map(line).collect::<String>())?;
        let (records, model) = (text(&records), text(base));
        let folder = adapter.map(text);
        let mut command = vec!["score", &records, "--model", &model, "--tokens", "--json"];
        command.extend(folder.iter().flat_map(|folder| ["--adapter", folder]));
        let given = lines(&self.tunesmith(&command, None)?)?;
        ensure!(given.len() == expected.len(), "{} scores of {} tokens", given.len(), expected.len());
        let distance = |(expected, id): (&f64, usize)| (given[&id.to_string()] - expected).abs();
        Ok(expected.iter().zip(1..).map(distance).sum::<f64>() / expected.len() as f64)
    }
}
