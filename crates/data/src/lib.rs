//! Bytes to documents, records and packed batches: knows no model, no disk.
#![forbid(unsafe_code)]
