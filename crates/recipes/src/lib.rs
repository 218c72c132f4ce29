//! Plan, prepare, tune, evaluate, report: the only place where all crates meet.
#![forbid(unsafe_code)]

pub mod adapters;
pub mod base;
pub mod context;
pub mod error;
pub mod prepare;
mod records;
pub mod report;
pub mod spec;
