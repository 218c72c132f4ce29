//! How weights are stored, and their way from one storage to another: what a [`WeightSource`](crate::model::WeightSource)
//! needs beside bytes.

pub use kernels::quant::{Storage, blockwise, dequantize_row, finite};

use crate::device::DeviceError;
use kernels::quant::quantize;
use kernels::simd::Level;

/// The `rows x cols` matrix `name`, stored as `from`, in storage `to`, computed on `threads` threads (their number changes
/// no bit). `to` must have a writer, and a row be whole blocks of it.
pub fn convert(
    name: &str,
    from: Storage,
    to: Storage,
    rows: usize,
    cols: usize,
    bytes: &[u8],
    threads: usize,
) -> Result<Vec<u8>, DeviceError> {
    let needed = to.bytes(rows, cols).unwrap_or(0);
    let out_of_memory = || DeviceError::OutOfMemory { name: name.to_owned(), needed };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.max(1)).build().map_err(|_| out_of_memory())?;
    pool.install(|| quantize::convert(Level::detect(), from, to, rows, cols, bytes)).map_err(|_| out_of_memory())
}
