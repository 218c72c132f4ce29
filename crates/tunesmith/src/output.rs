//! Data to stdout, errors to stderr.

use std::io::Write;

use recipes::error::Error;
use serde::Serialize;

/// Writes a line of data. A reader that has gone away (`| head`) is no error.
pub(crate) fn emit(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.write_all(b"\n")).and_then(|()| stdout.flush());
}

/// Writes a piece of text as it comes.
pub(crate) fn emit_piece(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

/// One JSON object on one line.
pub(crate) fn emit_json(value: &impl Serialize) {
    match serde_json::to_string(value) {
        Ok(text) => emit(&text),
        Err(error) => eprintln!("error: {error}"),
    }
}

/// `error: …`, `Caused by: …`, blank line, `hint: …`.
pub(crate) fn error(error: &anyhow::Error) {
    eprintln!("error: {error}");
    let mut before = error.to_string();
    for cause in error.chain().skip(1) {
        let text = cause.to_string();
        if text != before {
            eprintln!("Caused by: {text}");
        }
        before = text;
    }
    if let Some(hint) = error.chain().find_map(|cause| cause.downcast_ref::<Error>()).and_then(Error::hint) {
        eprintln!("\nhint: {hint}");
    }
}
