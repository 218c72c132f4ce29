//! How far the engine is from PyTorch on a real model, as JSON: `parity MODEL FILE.safetensors [ADAPTER]`.
//!
//! FILE comes from peers/parity.py: everything in it is computed again and compared. With a PEFT folder ADAPTER only
//! `ids` and `adapter.logits` are read, which xtask/parity/adapter_logits.py wrote. `cargo xtask parity` holds the
//! figures against their bounds.
#![allow(clippy::print_stdout, clippy::print_stderr, clippy::exit, clippy::disallowed_methods, reason = "an example is a program")]

use std::error::Error;
use std::path::{Path, PathBuf};

use engine::cpu::CpuDevice;
use families::adapters::{Half, tensor_name};
use recipes::base::Base;
use recipes::context::{Clock, Context, HubSettings, MemoryPolicy, Silent};
use serde_json::{Value, json};
use testkit::golden::Golden;
use testkit::parity::{adapter_logits, answers, max_difference, norm_difference};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.as_slice() {
        [model, file] => compare(model, file, None),
        [model, file, adapter] => compare(model, file, Some(Path::new(adapter))),
        _ => Err("usage: parity MODEL FILE.safetensors [ADAPTER]".into()),
    };
    match result {
        Ok(figures) => println!("{figures}"),
        Err(error) => {
            eprintln!("error: {error}");
            std::process::exit(1);
        }
    }
}

fn compare(model: &str, file: &str, adapter: Option<&Path>) -> Result<Value, Box<dyn Error>> {
    let expected = Golden::parse(&std::fs::read(file)?);
    let threads = std::thread::available_parallelism()?.get();
    let base = Base::open_offline(&context(threads), &mut Silent, model, "")?;
    let device = CpuDevice::new(threads);
    if let Some(folder) = adapter {
        let adapter = recipes::adapters::read(folder, base.config())?;
        let logits = adapter_logits(device, base.config(), &base, &expected, &adapter)?;
        return Ok(json!({"adapter.logits": max_difference(&logits, &expected.tensor("adapter.logits").f64())}));
    }

    let names = |layer, linear| [Half::A, Half::B, Half::Magnitude].map(|half| tensor_name(base.config(), layer, linear, half));
    let answers = answers(device, base.config(), &base, &expected, &names)?;
    let of = |name: &str| (&answers[name], expected.tensor(name).f64());
    let largest = |name: &str| max_difference(of(name).0, &of(name).1);
    let worst = |beginning: &str, measure: fn(&[f64], &[f64]) -> f64| {
        let each = answers.keys().filter(|name| name.starts_with(beginning)).map(|name| (measure(of(name).0, &of(name).1), name));
        let (figure, name) = each.max_by(|a, b| a.0.total_cmp(&b.0)).expect("the file has adapters");
        json!({"figure": figure, "of": name})
    };
    let (given, losses) = of("losses");
    Ok(json!({
        "base.logits": largest("base.logits"),
        "adapter.logits": largest("adapter.logits"),
        "gradients": worst("adapter.grad.", norm_difference),
        "gradients_elements": worst("adapter.grad.", max_difference),
        "losses": given.iter().zip(&losses).map(|(a, e)| (a / e - 1.0).abs()).fold(0.0, f64::max),
        "adapter.end": worst("adapter.end.", norm_difference),
        "tensors": answers.len(),
    }))
}

fn context(threads: usize) -> Context<'static> {
    let (workspace, cache, python) = (PathBuf::from("."), PathBuf::from("."), Vec::new());
    let hub = HubSettings::cache_only(PathBuf::from("."));
    Context { workspace, cache, python, hub, threads, memory: MemoryPolicy::Keep, entropy: [0; 32], clock: &Stopped }
}

/// Nothing here depends on the time.
struct Stopped;

impl Clock for Stopped {
    fn now(&self) -> String {
        "2000-01-01T00:00:00Z".into()
    }

    fn seconds(&self) -> f64 {
        0.0
    }
}
