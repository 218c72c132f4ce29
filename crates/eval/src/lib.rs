//! Samples, scorers, statistics, verdicts: knows no engine, only a Subject.
#![forbid(unsafe_code)]
