//! Numbers as our quantisers store them, for comparison with other programs':
//! `quantise FILE ROWS COLS STORAGE…` reads FILE, ROWS x COLS little-endian f32, and writes FILE.STORAGE for each.
#![allow(clippy::print_stderr, clippy::exit, clippy::disallowed_methods, reason = "an example is a program")]

use kernels::quant::{Storage, quantize};
use kernels::simd::Level;
use std::error::Error;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Err(error) = run(&arguments) {
        eprintln!("error: {error}");
        std::process::exit(1);
    }
}

fn run(arguments: &[String]) -> Result<(), Box<dyn Error>> {
    let [file, rows, cols, names @ ..] = arguments else { return Err("usage: quantise FILE ROWS COLS STORAGE…".into()) };
    let (rows, cols): (usize, usize) = (rows.parse()?, cols.parse()?);
    let bytes = std::fs::read(file)?;
    if Storage::F32.bytes(rows, cols) != Some(bytes.len()) {
        return Err(format!("{} bytes, not {rows} x {cols} numbers", bytes.len()).into());
    }
    let numbers: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|number| f32::from_le_bytes(*number)).collect();
    for name in names {
        let storage =
            Storage::ALL.into_iter().find(|storage| storage.name() == name).ok_or_else(|| format!("no storage is called {name}"))?;
        if !storage.has_writer() || storage.bytes(rows, cols).is_none() {
            return Err(format!("{name} cannot be written for rows of {cols}").into());
        }
        std::fs::write(format!("{file}.{name}"), quantize(Level::detect(), storage, rows, cols, &numbers)?)?;
    }
    Ok(())
}
