//! Data to stdout, errors to stderr.

use std::io::{ErrorKind, Write};
use std::sync::OnceLock;

use recipes::error::Error;
use serde::Serialize;

/// Why stdout takes no more.
static FAILED: OnceLock<std::io::Error> = OnceLock::new();

/// Writes a line of data.
pub(crate) fn emit(text: &str) {
    write(&[text.as_bytes(), b"\n"]);
}

/// Writes a piece of text as it comes.
pub(crate) fn emit_piece(text: &str) {
    write(&[text.as_bytes()]);
}

fn write(parts: &[&[u8]]) {
    let mut stdout = std::io::stdout().lock();
    let written = parts.iter().try_for_each(|part| stdout.write_all(part)).and_then(|()| stdout.flush());
    if let Err(error) = written {
        let _ = FAILED.set(error); // the first counts
    }
}

/// Whether nobody takes what is written: work that only writes can stop.
pub(crate) fn closed() -> bool {
    FAILED.get().is_some()
}

/// What was written has not arrived. A reader that has gone away (`| head`) has what it wants: that is no error.
pub(crate) fn failure() -> Option<&'static std::io::Error> {
    FAILED.get().filter(|error| error.kind() != ErrorKind::BrokenPipe)
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
