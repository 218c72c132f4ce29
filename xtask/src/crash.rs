//! The slow proof that nothing is lost: a project is tuned once undisturbed, then again and again with `kill -9` at
//! random instants and `runs resume` until it is done. Adapter, losses and measured arms must be the same, and the
//! audit clean. The same at other thread counts and under both memory policies.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

#[path = "../../crates/tunesmith/tests/program/tiny.rs"]
mod tiny;

const USAGE: &str = "\
usage: cargo xtask crash [--runs N] [--seed N] [--project DIR] [--release] [--whole]

  --runs N       runs that are killed [default: 25]
  --seed N       of the instants [default: 1]
  --project DIR  a project of your own instead of the tiny one; tuned, and with --whole measured too
  --release      builds and tests the release profile
  --whole        every run does all stages [default: the tiny project's runs take turns]
";

/// Kills of one run, at most.
const KILLS_MAX: u64 = 3;

struct Options {
    runs: u64,
    seed: u64,
    project: Option<PathBuf>,
    release: bool,
    whole: bool,
}

/// Runs the proof; fails loudly at the end if any run differed.
pub(crate) fn crash(arguments: &[String]) -> Result<()> {
    let options = parse(arguments)?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask stands in the workspace")?;
    let proof = Proof::new(root, &options)?;
    let mut random = Random(options.seed);
    let mut failed = 0;
    let modes: &[Mode] = match (&options.project, options.whole) {
        (_, true) => &[Mode::Whole],
        (Some(_), false) => &[Mode::Tuned],
        (None, false) => &[Mode::Tuned, Mode::Whole],
    };

    let mut undisturbed = Vec::new();
    for &mode in modes {
        let begun = Instant::now();
        let folder = proof.fresh(&format!("undisturbed-{}", mode.name()))?;
        let result = proof.result(mode, &folder, proof.begin(mode, &folder, &[]))?;
        let seconds = begun.elapsed().as_secs_f64();
        println!("{:<6} undisturbed: {seconds:.2} s, {} steps, adapter {} bytes", mode.name(), steps_done(&folder), result.adapter.len());
        undisturbed.push((mode, seconds, result));
    }

    println!("\n{:>4}  {:<6} {:<56} {:>7}  {:<9} audit", "run", "mode", "killed at (steps done)", "seconds", "adapter");
    let mut kills_in_all = 0;
    for run in 0..options.runs {
        let count = undisturbed.len();
        let (mode, pace, expected) = &mut undisturbed[run as usize % count];
        let begun = Instant::now();
        let (folder, kills) = proof.killed(*mode, pace, &mut random, &format!("run-{run}"))?;
        let verdict = proof.result(*mode, &folder, proof.go_on(*mode, &folder)).and_then(|result| result.is(expected));
        let audit = proof.audit(&folder);
        kills_in_all += kills.len();
        let word = if verdict.is_ok() { "same" } else { "DIFFERENT" };
        let (shown, seconds) = (kills.join(", "), begun.elapsed().as_secs_f64());
        println!("{run:>4}  {:<6} {shown:<56} {seconds:>7.2}  {word:<9} {}", mode.name(), if audit.is_ok() { "clean" } else { "FOUND" });
        let errors: Vec<_> = [verdict.err(), audit.err()].into_iter().flatten().collect();
        for error in &errors {
            println!("      {error:#}\n      see {}", folder.display());
        }
        failed += errors.len();
        if errors.is_empty() {
            std::fs::remove_dir_all(&folder)?;
        }
    }

    println!("\n{:<38} adapter", "options");
    let (mode, _, expected) = &undisturbed[0];
    for options in [
        "--threads 1",
        "--threads 2",
        "--threads 7",
        "--threads 1 --memory recompute",
        "--threads 2 --memory recompute",
        "--threads 7 --memory recompute",
    ] {
        let folder = proof.fresh("options")?;
        let words: Vec<&str> = options.split(' ').collect();
        let verdict = proof.result(*mode, &folder, proof.begin(*mode, &folder, &words)).and_then(|result| result.is(expected));
        println!("{options:<38} {}", if verdict.is_ok() { "same" } else { "DIFFERENT" });
        if let Err(error) = verdict {
            failed += 1;
            println!("      {error:#}");
        }
    }
    ensure!(failed == 0, "{failed} differences; the folders are kept in {}", proof.shelf.display());
    std::fs::remove_dir_all(&proof.shelf)?;
    println!("\ncrash: {} runs killed {kills_in_all} times, 3 thread counts, 2 memory policies: all the same bytes", options.runs);
    Ok(())
}

fn parse(arguments: &[String]) -> Result<Options> {
    let mut options = Options { runs: 25, seed: 1, project: None, release: false, whole: false };
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().with_context(|| format!("{word} needs a value\n\n{USAGE}"));
        match word.as_str() {
            "--runs" => options.runs = value()?.parse().context("--runs")?,
            "--seed" => options.seed = value()?.parse().context("--seed")?,
            "--project" => options.project = Some(std::path::absolute(value()?)?),
            "--release" => options.release = true,
            "--whole" => options.whole = true,
            other => bail!("unknown option {other}\n\n{USAGE}"),
        }
    }
    Ok(options)
}

/// How far a run goes.
#[derive(Clone, Copy)]
enum Mode {
    Tuned,
    Whole,
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Mode::Tuned => "tune",
            Mode::Whole => "run",
        }
    }
}

/// What must be the same.
struct Outcome {
    adapter: Vec<u8>,
    /// Losses of a tuned run; arms and difference of a whole one.
    measured: Value,
}

impl Outcome {
    fn is(&self, expected: &Outcome) -> Result<()> {
        ensure!(self.measured == expected.measured, "measured {} instead of {}", self.measured, expected.measured);
        ensure!(self.adapter == expected.adapter, "the adapter has other bytes");
        Ok(())
    }
}

struct Proof {
    program: PathBuf,
    /// Folder of the project, and the one that relative bases start from.
    project: PathBuf,
    shelf: PathBuf,
}

impl Proof {
    fn new(root: &Path, options: &Options) -> Result<Proof> {
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "-p", "tunesmith"]).args(options.release.then_some("--release")).current_dir(root);
        ensure!(build.status()?.success(), "cargo build -p tunesmith failed");
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
        let program = target.join(if options.release { "release" } else { "debug" }).join("tunesmith");
        let shelf = target.join("tmp").join(format!("crash-{}", std::process::id()));
        std::fs::create_dir_all(&shelf)?;
        let project = match &options.project {
            Some(project) => project.clone(),
            None => {
                let folder = shelf.join("tiny");
                tiny::base(&folder.join("base"), &root.join("golden/tokenizer/tiny.json"), tiny::CONTEXT, tiny::HIDDEN);
                tiny::tickets_project(&folder);
                // Long enough to be hit while it tunes, with several steps between two checkpoints, so that some are done again.
                let file = folder.join("tunesmith.toml");
                let longer = "epochs = 30\npatience = 0\ncheckpoint_seconds = 0.05\n";
                let text = std::fs::read_to_string(&file)?.replace("epochs = 4\n", longer);
                std::fs::write(&file, text)?;
                folder
            }
        };
        Ok(Proof { program, project, shelf })
    }

    /// An empty workspace.
    fn fresh(&self, name: &str) -> Result<PathBuf> {
        let folder = self.shelf.join(name);
        let _ = std::fs::remove_dir_all(&folder); // not there, mostly
        std::fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    fn command(&self, workspace: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).arg("--workspace").arg(workspace).stdin(Stdio::null());
        command
    }

    /// A new run.
    fn begin(&self, mode: Mode, workspace: &Path, options: &[&str]) -> Command {
        let mut command = self.command(workspace, &[mode.name(), "--json"]);
        command.args(options).arg(&self.project);
        command
    }

    /// The run that is there, or a new one.
    fn go_on(&self, mode: Mode, workspace: &Path) -> Command {
        match run_of(workspace) {
            Some(run) => self.command(workspace, &["runs", "resume", &run.display().to_string(), "--json"]),
            None => self.begin(mode, workspace, &[]),
        }
    }

    /// A run that was killed at least once, and when. `pace` is about how long one takes; it follows the machine's mood.
    fn killed(&self, mode: Mode, pace: &mut f64, random: &mut Random, name: &str) -> Result<(PathBuf, Vec<String>)> {
        loop {
            let folder = self.fresh(name)?;
            let mut kills = Vec::new();
            for _ in 0..1 + random.below(KILLS_MAX) {
                let mut child = self.go_on(mode, &folder).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
                let instant = *pace * random.uniform();
                if let Some(code) = ends_within(&mut child, Duration::from_secs_f64(instant))? {
                    ensure!(matches!(code, 0 | 3 | 4), "{} ended with {code}; see {}", mode.name(), folder.display());
                    if kills.is_empty() {
                        *pace = pace.min(instant); // it had ended before: the machine is faster now
                    }
                    break;
                }
                child.kill()?;
                child.wait()?;
                kills.push(format!("{instant:.2} s ({})", steps_done(&folder)));
            }
            if !kills.is_empty() {
                return Ok((folder, kills));
            }
        }
    }

    /// Runs a command to its end and reads what must be the same.
    fn result(&self, mode: Mode, workspace: &Path, mut command: Command) -> Result<Outcome> {
        let output = command.output().context("tunesmith did not start")?;
        let said = String::from_utf8_lossy(&output.stderr);
        let fine = matches!((mode, output.status.code()), (_, Some(0)) | (Mode::Whole, Some(3 | 4)));
        ensure!(fine, "{command:?} ended with {:?}:\n{}", output.status, said.trim());
        let json: Value = serde_json::from_slice(&output.stdout).context("stdout is no JSON")?;
        let run = run_of(workspace).context("no run folder")?;
        let adapter = std::fs::read(run.join("adapter/adapter_model.safetensors")).context("no adapter")?;
        let keys: &[&str] = match mode {
            Mode::Tuned => &["losses", "kept_step"],
            Mode::Whole => &["verdict", "metric", "arms", "difference"],
        };
        let measured = keys.iter().map(|key| ((*key).to_owned(), json[key].clone())).collect();
        Ok(Outcome { adapter, measured: Value::Object(measured) })
    }

    fn audit(&self, workspace: &Path) -> Result<()> {
        let output = self.command(workspace, &["audit"]).output()?;
        ensure!(output.status.success(), "audit: {}", String::from_utf8_lossy(&output.stdout).trim());
        Ok(())
    }
}

/// The one run folder of a workspace.
fn run_of(workspace: &Path) -> Option<PathBuf> {
    let folders = |path: &Path| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
        entries.filter(|path| path.is_dir() && path.file_name().is_some_and(|name| !name.to_string_lossy().starts_with('.'))).collect()
    };
    folders(&workspace.join("runs")).iter().flat_map(|name| folders(name)).next()
}

fn steps_done(workspace: &Path) -> usize {
    let lines = run_of(workspace).and_then(|run| std::fs::read_to_string(run.join("metrics.jsonl")).ok());
    lines.map_or(0, |text| text.lines().count())
}

fn ends_within(child: &mut Child, time: Duration) -> Result<Option<i32>> {
    let begun = Instant::now();
    while begun.elapsed() < time {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status.code().unwrap_or(2)));
        }
        std::thread::sleep(Duration::from_micros(500));
    }
    Ok(None)
}

/// splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}
