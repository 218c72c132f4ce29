//! Plan, prepare, tune, evaluate, report: the only place where all crates meet.
#![forbid(unsafe_code)]

pub mod context;
pub mod error;
pub mod report;
pub mod spec;
