//! The program: arguments, commands, printing, exit codes.
#![forbid(unsafe_code)]
#![allow(clippy::print_stderr, reason = "talk goes to stderr from here and nowhere else; data goes through output::emit")]

mod args;
mod clock;
mod commands;
mod hub;
mod output;
mod progress;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Parser;

/// What the process says with its exit code (DESIGN, "Commands").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done, and the gate passed where there was one.
    Done = 0,
    /// Something the user can mend; usage errors too.
    UserError = 1,
    /// A bug of ours.
    Bug = 2,
    /// The gate refused: do not ship.
    Refused = 3,
    /// Not enough evidence.
    NotEnoughEvidence = 4,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

fn main() -> ExitCode {
    std::panic::set_hook(Box::new(|panic| {
        // Never the payload of user data: our assertions carry sizes and names only.
        eprintln!(
            "error: a bug in tunesmith: {panic}\n\nhint: please report it with the command and this message; nothing that was finished is lost"
        );
    }));
    match std::panic::catch_unwind(run) {
        Ok(exit) => exit.into(),
        Err(_) => Exit::Bug.into(),
    }
}

fn run() -> Exit {
    let arguments = match args::Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let help = !error.use_stderr();
            let _ = error.print();
            return if help { Exit::Done } else { Exit::UserError };
        }
    };
    let stop = Arc::new(AtomicBool::new(false));
    let asked = stop.clone();
    let handler = ctrlc::set_handler(move || {
        if asked.swap(true, Ordering::Relaxed) {
            // The second Ctrl-C does not wait for the step to end; checkpoints make that safe.
            #[expect(clippy::exit, clippy::disallowed_methods, reason = "the user asked twice")]
            std::process::exit(130);
        }
        eprintln!("\nstopping after this step; press Ctrl-C again to stop at once");
    });
    if let Err(error) = handler {
        eprintln!("warning: Ctrl-C will not save the state: {error}");
    }
    let ended = commands::run(arguments, stop);
    if let Some(error) = output::failure() {
        eprintln!("error: cannot write to the standard output: {error}");
        return Exit::UserError;
    }
    match ended {
        Ok(exit) => exit,
        Err(error) => {
            output::error(&error);
            Exit::UserError
        }
    }
}
