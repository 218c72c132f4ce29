//! `bench gemm`: the rate of the matrix product on the five f32 shapes that dominate SmolLM2-135M at 1,024 rows.
//!
//! A product of m × k with k × n counts 2·m·k·n operations. Of 13 repetitions the fastest counts, as in the
//! peer's script; the mean is over the shapes. The weight is held as the engine holds it, which its loading pays for,
//! not the product.

use engine::compute::ComputePath;
use engine::cpu::CpuDevice;
use engine::device::{Device, Limits, Storage};
use engine::random::{self, Purpose};
use serde::Serialize;

use crate::context::{Context, Event, Observer};
use crate::error::{Error, Result};

/// Rows of every product.
const ROWS: usize = 1024;
/// (in, out): query and output, key and value, gate and up, down, head.
const SHAPES: [(usize, usize); 5] = [(576, 576), (576, 192), (576, 1536), (1536, 576), (576, 49_152)];
/// Repetitions of each.
const ROUNDS: usize = 13;

/// The rate of one shape.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Shape {
    /// Rows of the product.
    pub rows: usize,
    /// Inner size.
    pub inner: usize,
    /// Columns of the product.
    pub outer: usize,
    /// 10⁹ operations per second, fastest repetition.
    pub gflops: f64,
}

/// What was measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BenchGemm {
    /// Mean over the shapes.
    pub mean_gflops: f64,
    /// Each shape.
    pub shapes: Vec<Shape>,
    /// Threads computed with.
    pub threads: usize,
}

/// Multiplies and times it.
pub fn gemm(context: &Context<'_>, observer: &mut dyn Observer) -> Result<BenchGemm> {
    let mut device = CpuDevice::new(context.threads);
    let width = SHAPES.iter().map(|&(inner, outer)| inner.max(outer)).max().unwrap_or(0);
    let limits = Limits { rows: ROWS, chain: 1, width, head_rows: 1, vocab: width, hidden: 576, rotaries: 0, compute: ComputePath::Exact };
    let failed = |error| Error::Engine(engine::EngineError::Device(error));
    device.reserve(&limits).map_err(failed)?;
    observer.event(Event::Start { what: "products".into(), total: (SHAPES.len() * ROUNDS) as u64, unit: "products" });
    let mut shapes = Vec::new();
    for (index, (inner, outer)) in SHAPES.into_iter().enumerate() {
        let drawn = |count: usize, which: u64| -> Vec<f32> {
            let key = random::key(which, Purpose::Sampling, &[index as u64]);
            (0..count).map(|i| random::uniform(key, i as u64) - 0.5).collect()
        };
        let bytes: Vec<u8> = drawn(inner * outer, 0).iter().flat_map(|value| value.to_le_bytes()).collect();
        let weight = device.weight("weight", Storage::F32, outer, inner, &bytes).map_err(failed)?;
        let x = device.allocate("x", ROWS * inner).map_err(failed)?;
        let y = device.allocate("y", ROWS * outer).map_err(failed)?;
        device.upload(x, &drawn(ROWS * inner, 1));
        let mut best = f64::INFINITY;
        for round in 0..ROUNDS {
            if observer.stopped() {
                return Err(Error::Interrupted);
            }
            let started = context.clock.seconds();
            device.scope(|device| device.linear(y, x, weight, ROWS, false));
            best = best.min(context.clock.seconds() - started);
            observer.event(Event::Progress { done: (index * ROUNDS + round + 1) as u64, loss: None, validation: None });
        }
        device.release(y);
        device.release(x);
        shapes.push(Shape { rows: ROWS, inner, outer, gflops: 2e-9 * (ROWS * inner * outer) as f64 / best.max(1e-9) });
    }
    observer.event(Event::End);
    let mean_gflops = shapes.iter().map(|shape| shape.gflops).sum::<f64>() / shapes.len() as f64;
    Ok(BenchGemm { mean_gflops, shapes, threads: context.threads })
}
