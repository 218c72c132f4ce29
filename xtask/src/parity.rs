//! The slow proofs against what a user would pick instead: PyTorch with transformers and PEFT, and llama.cpp, on the
//! real SmolLM2-135M and Gemma 3 270M, and on the tiny models of every family. Every figure is printed beside its bound; a bound that is missed fails the whole.
//!
//! Needs a virtual environment with the peers, the models below it, and the peers' own parity.py and lora_dense.py; the
//! other scripts that run there are in xtask/parity. Times are ratios of runs that took turns, and mean
//! nothing on a busy machine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

const USAGE: &str = "\
usage: cargo xtask parity --peers DIR --scripts DIR [--only PART,…] [--rounds N]

  --peers DIR    virtual environment with torch, transformers, peft and llama-cpp-python, and models/ in it
  --scripts DIR  folder of the peers' parity.py and lora_dense.py
  --only PARTS   of engine, score, adapters, train, llama, gemma, families, exports, quantisers [default: all]
  --rounds N     turns of the speed comparison [default: 3]
";

/// Largest difference of logits over the largest logit.
pub(crate) const LOGITS: f64 = 1e-4;
/// Norm of the difference over norm, of every gradient.
const GRADIENTS: f64 = 1e-3;
/// Relative difference of every loss.
const LOSSES: f64 = 1e-4;
/// How many times as far from PyTorch's f64 as its own f32 our losses may be, where that is more than [`LOSSES`].
const AS_PYTORCH: f64 = 2.0;
/// Relative difference of a record's log-probability.
const LOG_PROB: f64 = 1e-5;
/// Mean |Δ ln p| a token between llama.cpp and us on the same weights, both in f32.
const UNPACKED: f64 = 1e-4;
/// The same on the quantised file, where llama.cpp rounds activations to 8 bits and we do not: all of it is theirs.
const QUANTISED: f64 = 0.06;
/// Our tokens per second over the peer's, at least.
const SPEED: f64 = 1.0;
/// Our peak memory over the peer's, at most.
const MEMORY: f64 = 1.0 / 3.0;
/// Root mean square error of our quantisers over llama.cpp's.
const QUANTISERS: f64 = 1.01;
/// Planned over measured peak memory.
const PLANNED: std::ops::RangeInclusive<f64> = 0.98..=1.05;
/// Tokens of the answer that `chat` and transformers write greedily.
const ANSWER_TOKENS: &str = "24";

const MODEL: &str = "smollm2-135m-instruct";
const GEMMA: &str = "gemma-3-270m";
const PARTS: [&str; 9] = ["engine", "score", "adapters", "train", "llama", "gemma", "families", "exports", "quantisers"];

struct Options {
    peers: PathBuf,
    scripts: PathBuf,
    parts: Vec<String>,
    rounds: usize,
}

/// Runs the proofs.
pub(crate) fn parity(arguments: &[String]) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask stands in the workspace")?;
    let options = parse(arguments)?;
    let mut proof = Proof::new(root, &options)?;
    for part in &options.parts {
        println!("\n== {part}");
        match part.as_str() {
            "engine" => proof.engine()?,
            "score" => proof.score()?,
            "adapters" => proof.adapters()?,
            "train" => proof.train(options.rounds)?,
            "llama" => proof.llama()?,
            "gemma" => proof.gemma()?,
            "families" => proof.families()?,
            "exports" => proof.exports()?,
            _ => proof.quantisers()?,
        }
    }
    let (held, missed) = (proof.held, proof.missed);
    ensure!(missed.is_empty(), "{} of {} figures miss their bound: {}", missed.len(), held + missed.len(), missed.join("; "));
    println!("\nparity: {held} figures within their bounds");
    Ok(())
}

fn parse(arguments: &[String]) -> Result<Options> {
    let (mut peers, mut scripts, mut rounds) = (None, None, 3);
    let mut parts: Vec<String> = PARTS.map(str::to_owned).to_vec();
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().with_context(|| format!("{word} needs a value\n\n{USAGE}"));
        match word.as_str() {
            "--peers" => peers = Some(std::path::absolute(value()?)?),
            "--scripts" => scripts = Some(std::path::absolute(value()?)?),
            "--only" => parts = value()?.split(',').map(str::to_owned).collect(),
            "--rounds" => rounds = value()?.parse().context("--rounds")?,
            other => bail!("unknown option {other}\n\n{USAGE}"),
        }
    }
    ensure!(parts.iter().all(|part| PARTS.contains(&part.as_str())), "the parts are {}\n\n{USAGE}", PARTS.join(", "));
    ensure!(rounds > 0, "at least one round\n\n{USAGE}");
    let peers = peers.with_context(|| format!("--peers is missing\n\n{USAGE}"))?;
    let scripts = scripts.with_context(|| format!("--scripts is missing\n\n{USAGE}"))?;
    Ok(Options { peers, scripts, parts, rounds })
}

pub(crate) struct Proof {
    root: PathBuf,
    python: PathBuf,
    /// The peers' own scripts.
    scripts: PathBuf,
    /// SmolLM2 as a Hugging Face folder in f32.
    pub(crate) folder: PathBuf,
    /// The same, quantised.
    pub(crate) gguf: PathBuf,
    /// Gemma 3 as a Hugging Face folder in f32; beside it, the same quantised.
    pub(crate) gemma: PathBuf,
    /// Where everything is left.
    pub(crate) work: PathBuf,
    target: PathBuf,
    held: usize,
    missed: Vec<String>,
}

impl Proof {
    fn new(root: &Path, options: &Options) -> Result<Proof> {
        let models = options.peers.join("models");
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
        let work = target.join("parity");
        std::fs::create_dir_all(&work)?;
        let proof = Proof {
            root: root.to_owned(),
            python: options.peers.join("bin/python"),
            scripts: options.scripts.clone(),
            folder: models.join(MODEL),
            gguf: models.join(format!("{MODEL}-q4_1.gguf")),
            gemma: models.join(GEMMA),
            work,
            target,
            held: 0,
            missed: Vec::new(),
        };
        for path in [&proof.python, &proof.folder, &proof.gguf, &proof.scripts.join("parity.py")] {
            ensure!(path.exists(), "{} is missing\n\n{USAGE}", path.display());
        }
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--release", "--quiet", "-p", "tunesmith", "-p", "recipes", "-p", "text", "-p", "kernels"]);
        build.args(["--bin", "tunesmith", "--example", "parity", "--example", "awkward", "--example", "quantise"]).current_dir(root);
        ensure!(build.status()?.success(), "cargo build failed");
        Ok(proof)
    }

    // ---- the proofs ------------------------------------------------------------------------------

    /// Logits, gradients and ten steps, element by element, on the peer's own file and on a longer one.
    fn engine(&mut self) -> Result<()> {
        self.engine_on(&self.folder.clone(), "parity", false)
    }

    /// The same on any folder; files of the peer's answers begin with `name`. Where PyTorch's f32 has not enough digits, what
    /// counts is its f64 (`exact`), and losses may be as far from that as [`AS_PYTORCH`] times its own f32 is.
    fn engine_on(&mut self, folder: &Path, name: &str, exact: bool) -> Result<()> {
        for length in ["24", "48"] {
            let mut file = self.work.join(format!("{name}-{length}.safetensors"));
            if !file.exists() {
                self.peer(&self.scripts.join("parity.py"), &[&text(folder), &text(&file), length])?;
            }
            let mut losses_at_most = LOSSES;
            if exact {
                let in_f64 = self.work.join(format!("{name}-{length}-f64.safetensors"));
                let theirs = json(&self.ours("exact.py", &[&text(folder), &text(&file), &text(&in_f64)])?)?;
                println!("     PyTorch's f32 against its f64: losses {}, gradients {}", theirs["losses"], theirs["gradients"]);
                losses_at_most = LOSSES.max(AS_PYTORCH * theirs["losses"].as_f64().context("a figure")?);
                file = in_f64;
            }
            let figures = json(&self.example("parity", &[&text(folder), &text(&file)])?)?;
            let figure = |path: &str| figures.pointer(path).and_then(Value::as_f64).with_context(|| format!("no {path} in {figures}"));
            let of = file_name(folder);
            self.at_most(&format!("{of}: logits of the base, 2 x {length}"), figure("/base.logits")?, LOGITS);
            self.at_most(&format!("{of}: logits with adapter, 2 x {length}"), figure("/adapter.logits")?, LOGITS);
            self.at_most(&format!("{of}: the worst of all gradients, 2 x {length}"), figure("/gradients/figure")?, GRADIENTS);
            self.at_most(&format!("{of}: the worst of ten losses, 2 x {length}"), figure("/losses")?, losses_at_most);
        }
        Ok(())
    }

    /// Gemma 3 at full size: the engine, and the ids of its SentencePiece vocabulary from GGUF.
    fn gemma(&mut self) -> Result<()> {
        let gguf = self.gemma.with_file_name(format!("{GEMMA}-q4_k_m.gguf"));
        for path in [&self.gemma, &gguf] {
            ensure!(path.exists(), "{} is missing\n\n{USAGE}", path.display());
        }
        self.engine_on(&self.gemma.clone(), "gemma", true)?;
        self.awkward(&gguf, "awkward_gemma3.json")
    }

    /// Each tiny model of golden/models as a GGUF file that llama.cpp reads: its logits are PyTorch's, so that what we take for its
    /// conventions (names, row order, what is added to gains, what a file does not say) are.
    fn families(&mut self) -> Result<()> {
        let models = text(&self.root.join("golden/models"));
        let figures = json(&self.ours("gguf_families.py", &[&models, &text(&self.work)])?)?;
        for (name, figure) in figures.as_object().context("an object")? {
            self.at_most(&format!("logits of tiny {name} in llama.cpp and in PyTorch"), figure.as_f64().context("a figure")?, LOGITS);
        }
        Ok(())
    }

    /// Matrices of the real model as we quantise them and as llama.cpp and bitsandbytes do.
    fn quantisers(&mut self) -> Result<()> {
        let example = text(&self.target.join("release/examples/quantise"));
        let figures = json(&self.ours("quantisers.py", &[&text(&self.folder), &example, &text(&self.work)])?)?;
        for (name, figure) in figures.as_object().context("an object")? {
            let number = |key: &str| figure[key].as_f64().with_context(|| format!("{key} of {name}"));
            if figure.get("differ").is_some() {
                self.at_most(&format!("share of {name} numbers that are not bitsandbytes' own"), number("differ")?, 0.0);
                continue;
            }
            let (ours, theirs) = (number("ours")?, number("theirs")?);
            // The folder's weights are what a Q4_1 file said: both give them back without an error.
            let over = if ours == theirs { 1.0 } else { ours / theirs };
            self.at_most(&format!("{name}: error of {ours:.5} over llama.cpp's {theirs:.5}"), over, QUANTISERS);
        }
        Ok(())
    }

    /// Ids of the awkward strings with a GGUF file's vocabulary.
    fn awkward(&mut self, gguf: &Path, strings: &str) -> Result<()> {
        let vocabulary = text(&self.work.join(format!("{}.json", file_name(gguf))));
        self.ours("vocabulary.py", &[&text(gguf), &vocabulary])?;
        let said = self.example("awkward", &[&vocabulary, &text(&self.root.join("golden/tokenizer").join(strings))]);
        println!("     {}", said.as_ref().map_or_else(|error| format!("{error:#}"), |said| said.trim().to_owned()));
        self.at_least(&format!("ids of awkward strings are llama.cpp's: {}", file_name(gguf)), f64::from(said.is_ok()), 1.0);
        Ok(())
    }

    /// `score --tokens` against PyTorch, with and without adapters, and a text that must not change it.
    fn score(&mut self) -> Result<()> {
        let adapters = self.peft_adapters()?;
        let mut arguments = vec![text(&self.folder), text(&self.work)];
        arguments.extend(adapters.iter().map(|folder| text(folder)));
        self.ours("log_probs.py", &arguments.iter().map(String::as_str).collect::<Vec<_>>())?;
        let records = text(&self.work.join("records.jsonl"));
        let cases = [None].into_iter().chain(adapters.iter().map(Some)).enumerate();
        for (number, adapter) in cases {
            let model = text(&self.folder);
            let mut command = vec!["score", &records, "--model", &model, "--tokens", "--json"];
            let folder = adapter.map(|folder| text(folder));
            command.extend(folder.iter().flat_map(|folder| ["--adapter", folder]));
            let given = lines(&self.tunesmith(&command, None)?)?;
            let name = if number == 0 { "expected.jsonl".to_owned() } else { format!("expected-{}.jsonl", number - 1) };
            let expected = lines(&std::fs::read_to_string(self.work.join(name))?)?;
            ensure!(given.keys().eq(expected.keys()), "score answers other records than it was asked");
            let worst = expected.iter().map(|(id, e)| (given[id] / e - 1.0).abs()).fold(0.0, f64::max);
            let what = adapter.map_or_else(String::new, |folder| format!(" with PEFT's {}", file_name(folder)));
            self.at_most(&format!("the worst of {} records' log-probabilities{what}", expected.len()), worst, LOG_PROB);
        }
        Ok(())
    }

    /// Adapters there and back.
    fn adapters(&mut self) -> Result<()> {
        // Ours, trained on the example, in PEFT.
        let (project, workspace) = (self.work.join("project"), self.work.join("workspace"));
        let _ = std::fs::remove_dir_all(&workspace); // not there, the first time
        std::fs::create_dir_all(&project)?;
        let example = self.root.join("examples/support-tickets");
        for entry in std::fs::read_dir(&example)?.collect::<std::io::Result<Vec<_>>>()? {
            if entry.path().extension().is_some_and(|extension| extension == "csv") {
                std::fs::copy(entry.path(), project.join(entry.file_name()))?;
            }
        }
        let run_file = std::fs::read_to_string(example.join("tunesmith.toml"))?;
        let base = format!("base = {:?}", text(&self.folder));
        let run_file = run_file.replace(&format!("base = \"{MODEL}\""), &base);
        ensure!(run_file.contains(&base), "the example has another base than {MODEL}");
        std::fs::write(project.join("tunesmith.toml"), run_file)?;
        let tuned = ["tune", &text(&project), "--max-steps", "6", "--json", "--workspace", &text(&workspace)];
        let tuned = json(&self.tunesmith(&tuned, None)?)?;
        let adapter = tuned["adapter"].as_str().context("tune prints the adapter")?.to_owned();
        let file = text(&self.work.join("adapter-logits.safetensors"));
        let moved: f64 = self.ours("adapter_logits.py", &[&text(&self.folder), &adapter, &file])?.trim().parse()?;
        let figures = json(&self.example("parity", &[&text(&self.folder), &file, &adapter])?)?;
        let difference = figures["adapter.logits"].as_f64().context("a figure")?;
        self.at_least("how far six steps moved the logits in PEFT", moved, 100.0 * LOGITS);
        self.at_most("logits of our adapter in PEFT and here", difference, LOGITS);

        // PEFT's, in `chat`; `score` reads them in its own part.
        for folder in self.peft_adapters()? {
            let (model, folder) = (text(&self.folder), text(&folder));
            let message = "Where is my parcel?";
            let expected = self.ours("chat.py", &[&model, &folder, message, ANSWER_TOKENS])?;
            let command = ["chat", &model, "--adapter", &folder, "--max-tokens", ANSWER_TOKENS, "--json"];
            let given = json(&self.tunesmith(&command, Some(message))?)?;
            let same = given["text"].as_str().map(str::trim) == Some(expected.trim());
            println!("     transformers says {:?}", expected.trim());
            self.at_least(&format!("greedy answer with PEFT's {} is transformers'", file_name(Path::new(&folder))), f64::from(same), 1.0);
        }
        Ok(())
    }

    /// Speed, memory and losses of training steps, taking turns.
    fn train(&mut self, rounds: usize) -> Result<()> {
        let shared = self.work.join("dense");
        let (model, ids, start) = (text(&self.folder), text(&shared.join("ids.json")), text(&shared.join("adapter-start")));
        let dense = ["bench", "train", "--batch", "2", "--length", "512", "--method", "lora", "--rank", "16", "--steps", "5", "--json"];
        let (mut theirs, mut ours) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            let said = self.peer(&self.scripts.join("lora_dense.py"), &[&model, "2", "512", "lora", "5", &text(&shared)])?;
            let peer = Peer::parse(&said)?;
            let files = ["--model", &model, "--ids", &ids, "--adapter-start", &start];
            let bench = json(&self.tunesmith(&[&dense[..], &files[..]].concat(), None)?)?;
            let bench = Bench::of(&bench)?;
            println!(
                "     round {}: {:.1} and the peer's {:.1} tokens/s; {:.0} and {:.0} MB",
                round + 1,
                bench.speed,
                peer.speed,
                bench.peak / 1e6,
                peer.peak / 1e6
            );
            if round == 0 {
                ensure!(bench.losses.len() == peer.losses.len(), "{} losses and the peer's {}", bench.losses.len(), peer.losses.len());
                let worst = bench.losses.iter().zip(&peer.losses).map(|(a, e)| (a / e - 1.0).abs()).fold(0.0, f64::max);
                self.at_most("the worst of five losses, dense 2 x 512", worst, LOSSES);
                self.within("planned over measured memory, f32", bench.planned / bench.peak, PLANNED);
            }
            theirs.push(peer);
            ours.push(bench);
        }
        let ratios = |of: fn((&Bench, &Peer)) -> f64| median(ours.iter().zip(&theirs).map(of).collect());
        self.at_least("tokens per second over PyTorch + PEFT's", ratios(|(ours, theirs)| ours.speed / theirs.speed), SPEED);
        self.at_most("peak memory over PyTorch + PEFT's", ratios(|(ours, theirs)| ours.peak / theirs.peak), MEMORY);
        for (what, more) in [("Q4_1", &[][..]), ("Q4_1, recomputing", &["--memory", "recompute"])] {
            let files = ["--model", &text(&self.gguf)];
            let bench = Bench::of(&json(&self.tunesmith(&[&dense[..], &files[..], more].concat(), None)?)?)?;
            println!("     {what}: {:.1} tokens/s, {:.0} MB", bench.speed, bench.peak / 1e6);
            self.within(&format!("planned over measured memory, {what}"), bench.planned / bench.peak, PLANNED);
        }
        Ok(())
    }

    /// The quantised file: log-probabilities and token ids.
    fn llama(&mut self) -> Result<()> {
        self.ours("quantised.py", &[&text(&self.gguf), &text(&self.work)])?;
        let expected = json(&std::fs::read_to_string(self.work.join("llama_cpp.json"))?)?;
        let records = text(&self.work.join("llama_cpp.jsonl"));
        let given = lines(&self.tunesmith(&["score", &records, "--model", &text(&self.gguf), "--tokens", "--json"], None)?)?;
        for (key, what, bound) in [("exact", "its weights in f32", UNPACKED), ("quantised", "as it is", QUANTISED)] {
            let expected: Vec<f64> = serde_json::from_value(expected[key].clone())?;
            ensure!(given.len() == expected.len(), "{} scores of {} tokens", given.len(), expected.len());
            let distance = |(expected, id): (&f64, u64)| (given[&id.to_string()] - expected).abs();
            let mean = expected.iter().zip(1..).map(distance).sum::<f64>() / expected.len() as f64;
            self.at_most(&format!("mean |difference of ln p| over 199 tokens, llama.cpp with Q4_1 {what}"), mean, bound);
        }
        let unpacked = lines(&self.tunesmith(&["score", &records, "--model", &text(&self.folder), "--tokens", "--json"], None)?)?;
        let farthest = unpacked.iter().map(|(id, e)| (given[id] - e).abs()).fold(0.0, f64::max);
        self.at_most("Q4_1 here against the f32 folder made of it", farthest, 0.0);

        self.awkward(&self.gguf.clone(), "awkward.json")
    }

    /// Two adapters trained by PEFT: everything, and a part with another factor.
    pub(crate) fn peft_adapters(&self) -> Result<[PathBuf; 2]> {
        let folders = ["peft-all-linear", "peft-attention-rslora"].map(|name| self.work.join(name));
        let forms: [&[&str]; 2] = [&["8", "all-linear"], &["6", "q_proj,v_proj,o_proj", "rslora"]];
        for (folder, form) in folders.iter().zip(forms) {
            if !folder.exists() {
                self.ours("peft_adapter.py", &[&[text(&self.folder).as_str(), &text(folder)], form].concat())?;
            }
        }
        Ok(folders)
    }

    // ---- programs --------------------------------------------------------------------------------

    pub(crate) fn tunesmith(&self, arguments: &[&str], stdin: Option<&str>) -> Result<String> {
        let mut command = Command::new(self.target.join("release/tunesmith"));
        if !arguments.contains(&"--workspace") {
            command.arg("--workspace").arg(&self.work);
        }
        output(command.args(arguments), stdin)
    }

    pub(crate) fn example(&self, name: &str, arguments: &[&str]) -> Result<String> {
        output(Command::new(self.target.join("release/examples").join(name)).args(arguments), None)
    }

    /// A script of xtask/parity.
    pub(crate) fn ours(&self, script: &str, arguments: &[&str]) -> Result<String> {
        self.peer(&self.root.join("xtask/parity").join(script), arguments)
    }

    /// A script in the peers' environment.
    fn peer(&self, script: &Path, arguments: &[&str]) -> Result<String> {
        output(Command::new(&self.python).arg(script).args(arguments).env("HF_HUB_OFFLINE", "1"), None)
    }

    // ---- figures ---------------------------------------------------------------------------------

    pub(crate) fn at_most(&mut self, what: &str, figure: f64, bound: f64) {
        self.hold(what, figure, figure <= bound, &format!("at most {bound:.3e}"));
    }

    pub(crate) fn at_least(&mut self, what: &str, figure: f64, bound: f64) {
        self.hold(what, figure, figure >= bound, &format!("at least {bound:.3}"));
    }

    fn within(&mut self, what: &str, figure: f64, bounds: std::ops::RangeInclusive<f64>) {
        self.hold(what, figure, bounds.contains(&figure), &format!("from {} to {}", bounds.start(), bounds.end()));
    }

    fn hold(&mut self, what: &str, figure: f64, holds: bool, bound: &str) {
        let shown = if figure.abs() < 0.01 { format!("{figure:.2e}") } else { format!("{figure:.3}") };
        println!("{} {what}: {shown} ({bound})", if holds { "ok  " } else { "MISS" });
        if holds {
            self.held += 1;
        } else {
            self.missed.push(format!("{what} {shown}"));
        }
    }
}

/// What lora_dense.py prints.
struct Peer {
    losses: Vec<f64>,
    speed: f64,
    peak: f64,
}

impl Peer {
    fn parse(said: &str) -> Result<Peer> {
        let words: Vec<&str> = said.split_whitespace().collect();
        let after = |name: &str| -> Result<f64> {
            let at = words.iter().position(|word| *word == name).with_context(|| format!("no {name} in {said}"))?;
            Ok(words.get(at + 1).context("a number")?.parse()?)
        };
        let losses = words.iter().skip_while(|word| **word != "losses").skip(1).map_while(|word| word.parse().ok()).collect();
        Ok(Peer { losses, speed: after("median")?, peak: after("peak_rss_mb")? * f64::from(1 << 20) })
    }
}

/// What `bench train --json` prints.
struct Bench {
    losses: Vec<f64>,
    speed: f64,
    peak: f64,
    planned: f64,
}

impl Bench {
    fn of(value: &Value) -> Result<Bench> {
        let number = |key: &str| value[key].as_f64().with_context(|| format!("no {key} in {value}"));
        let losses = value["losses"].as_array().into_iter().flatten().filter_map(Value::as_f64).collect();
        Ok(Bench { losses, speed: number("tokens_per_second")?, peak: number("peak_rss_bytes")?, planned: number("planned_bytes")? })
    }
}

/// Runs a program to its end and gives what it said on stdout.
fn output(command: &mut Command, stdin: Option<&str>) -> Result<String> {
    command.stdin(if stdin.is_some() { Stdio::piped() } else { Stdio::null() }).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("{command:?} did not start"))?;
    if let (Some(text), Some(mut pipe)) = (stdin, child.stdin.take()) {
        std::io::Write::write_all(&mut pipe, text.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{command:?} failed:\n{said}{}", String::from_utf8_lossy(&output.stderr));
    Ok(said)
}

pub(crate) fn json(said: &str) -> Result<Value> {
    serde_json::from_str(said.trim()).with_context(|| format!("no JSON: {said}"))
}

/// `log_prob` by `id` of JSON lines.
pub(crate) fn lines(said: &str) -> Result<BTreeMap<String, f64>> {
    let line = |line: &str| -> Result<(String, f64)> {
        let value = json(line)?;
        let id = value["id"].as_str().map_or_else(|| value["id"].to_string(), str::to_owned);
        Ok((id, value["log_prob"].as_f64().context("log_prob")?))
    };
    said.lines().map(line).collect()
}

pub(crate) fn text(path: &Path) -> String {
    path.display().to_string()
}

pub(crate) fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}
