//! Plan, prepare, tune, evaluate, report: the only place where all crates meet.
#![forbid(unsafe_code)]
