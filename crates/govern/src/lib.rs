//! Manifest, hash-chained ledger, audit: knows no machine learning, no clock.
//!
//! What a run was made of, and that nobody changed it afterwards, must be checkable by somebody who trusts neither the program nor its user:
//!
//! ```text
//! hashes of all files ─manifest→ Manifest ─its hash→ run ledger ─its head→ project ledger ─its head→ printed in the report
//! Manifest + both ledgers + recomputed hashes ─audit→ findings in plain sentences
//! ```
//!
//! - [`canonical`]: one byte form of a JSON value, and hashes of it,
//! - [`manifest`]: the hashes of everything that made a run,
//! - [`ledger`]: a file that only grows, each line hashed with the one before it,
//! - [`audit`]: what was changed, from the recomputed hashes,
//! - [`policy`]: what is asked of a source and of a release.
//!
//! **What this proves and what not.** Any edit of a file, the manifest or a line of a ledger is found, and so is a run's ledger that was cut or rewritten as a
//! whole, because the project ledger holds its head. Somebody who can rewrite *all* of them can forge a consistent history; against that, the
//! head of the project ledger is printed in each report and can be given to [`audit::audit`] from a copy kept elsewhere. Times are claims of
//! the computer that wrote them.
//!
//! Pure functions throughout: times are RFC 3339 strings given by the caller, files are read by `store`.
#![forbid(unsafe_code)]

pub mod audit;
pub mod canonical;
pub mod ledger;
pub mod manifest;
pub mod policy;

mod error;

pub use audit::{Audit, Evidence, Finding};
pub use canonical::{Hash, Hasher, Key};
pub use error::Error;
pub use ledger::{Entry, Event, Ledger};
pub use manifest::{Artefact, Manifest, Role};
