//! A model with its adapter as one set of weights, a few rows at a time: W + s · B A (Hu et al. 2021, section 4.1), with DoRA
//! each row of that scaled to its magnitude (Liu et al. 2024, section 4.1).
//!
//! What is merged is the weight as it is held, so that the merged model is the one that was evaluated: a base that was
//! quantised when it was loaded is merged as quantised.

use kernels::low_rank::add_low_rank;
use kernels::quant::{Storage, dequantize_row, quantize::quantize};
use kernels::simd::Level;
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::adapter::Adapter;
use crate::config::{Linear, ModelConfig, TensorName};
use crate::device::DeviceError;
use crate::error::EngineError;
use crate::model::TensorView;

/// A model's adapter, ready to be added to its weights.
pub struct Merge<'a> {
    config: &'a ModelConfig,
    /// What started as PiSSA as plain LoRA.
    adapter: Adapter,
    pool: ThreadPool,
}

impl<'a> Merge<'a> {
    /// Works on `threads` threads; their number changes no bit.
    ///
    /// # Errors
    /// An adapter that is not this model's.
    pub fn new(config: &'a ModelConfig, adapter: &Adapter, threads: usize) -> Result<Merge<'a>, EngineError> {
        adapter.validate(config)?;
        let pool = ThreadPoolBuilder::new().num_threads(threads.max(1)).build();
        let pool = pool.map_err(|_| DeviceError::OutOfMemory { name: "threads".into(), needed: threads })?;
        Ok(Merge { config, adapter: adapter.folded(), pool })
    }

    /// Whether the adapter changes a tensor.
    pub fn changes(&self, name: TensorName) -> bool {
        matches!(name, TensorName::Linear(layer, linear) if self.adapter.tensors.contains_key(&(layer, self.config.fused_with(linear)[0])))
    }

    /// Some rows of matrix `name`, which `view` holds, with what the adapter adds to them, in storage `to`, which has a writer.
    /// Rows that nothing is added to and that are in that storage already stay as they are: nothing is rounded twice.
    ///
    /// # Panics
    /// If a row is not the view's, or its numbers are not whole blocks of `to`.
    pub fn rows(&self, name: TensorName, view: &TensorView<'_>, rows: &[usize], to: Storage) -> Result<Vec<u8>, EngineError> {
        let (cols, storage) = (view.cols, view.storage);
        let row_bytes = storage.row_bytes(cols).expect("a view holds whole rows");
        let row = |row: usize| &view.bytes[row * row_bytes..][..row_bytes];
        let changes = self.changes(name);
        if storage == to && !changes {
            return Ok(rows.iter().flat_map(|&index| row(index)).copied().collect());
        }
        let out_of_memory = |needed| DeviceError::OutOfMemory { name: name.to_string(), needed };
        let mut w: Vec<f32> = Vec::new();
        w.try_reserve_exact(rows.len() * cols).map_err(|_| out_of_memory(4 * rows.len() * cols))?;
        w.resize(rows.len() * cols, 0.0);
        self.pool.install(|| {
            w.par_chunks_exact_mut(cols).zip(rows).for_each(|(w, &index)| dequantize_row(storage, row(index), w));
            if let (true, TensorName::Linear(layer, linear)) = (changes, name) {
                self.add(layer, linear, rows, &mut w);
            }
            let bytes = quantize(Level::detect(), to, rows.len(), cols, &w);
            Ok(bytes.map_err(|_| out_of_memory(4 * rows.len() * cols))?)
        })
    }

    /// Adds the adapter's part to these rows of a layer.
    fn add(&self, layer: usize, linear: Linear, rows: &[usize], w: &mut [f32]) {
        let rank = self.adapter.config.rank;
        let members = self.config.fused_with(linear);
        let pair = &self.adapter.tensors[&(layer, members[0])];
        // Fused layers have one A, and each its rows of B.
        let before: usize = members.iter().take_while(|&&member| member != linear).map(|&member| self.config.linear_shape(member).0).sum();
        let b: Vec<f32> = rows.iter().flat_map(|row| &pair.b[(before + row) * rank..][..rank]).copied().collect();
        let cols = self.config.linear_shape(linear).1;
        add_low_rank(w, &b, &pair.a, rank, cols, self.adapter.config.scale());
        if self.adapter.config.dora {
            w.par_chunks_exact_mut(cols).zip(rows).for_each(|(w, row)| {
                let norm = w.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
                // A row of zeros has no direction to scale: it stays, as in training.
                let gain = if norm > 0.0 { f64::from(pair.magnitude[before + row]) / norm } else { 0.0 };
                w.iter_mut().for_each(|x| *x = (f64::from(*x) * gain) as f32);
            });
        }
    }
}
