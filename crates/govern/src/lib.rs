//! Manifest, hash-chained ledger, audit: knows no machine learning, no clock.
#![forbid(unsafe_code)]
