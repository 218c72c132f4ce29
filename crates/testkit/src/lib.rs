//! ReferenceDevice in f64, tolerances, gradient check, golden reader: for tests only.
#![forbid(unsafe_code)]
