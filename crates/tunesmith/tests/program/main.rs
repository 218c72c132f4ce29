//! The real program on tiny projects: what a person types, what comes out, and what is left on disk.
#![allow(clippy::print_stderr, clippy::type_complexity, reason = "tests say what they skip; tables of cases are types enough")]
#![allow(clippy::disallowed_methods, reason = "tests stand outside: they make files, spoil them, and wait")]

mod audit;
mod bad_input;
mod commands;
mod help;
mod methods;
mod prepared;
mod project;
mod resume;
mod run;
mod steps;
mod texts;
mod tiny;
