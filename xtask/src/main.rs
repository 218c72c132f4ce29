//! The project's chores: `check` is exactly what CI runs.
#![forbid(unsafe_code)]
fn main() {}
