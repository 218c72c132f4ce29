//! The program: arguments, commands, printing, exit codes.
#![forbid(unsafe_code)]
fn main() {}
