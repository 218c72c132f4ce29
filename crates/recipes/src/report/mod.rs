//! The report of a run: facts as JSON, and one self-contained page drawn from them.

pub mod facts;
