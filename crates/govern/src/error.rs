//! The errors of this crate: a closed list, each with both sides of the disagreement.

use thiserror::Error;

/// What can be wrong with what a caller hands in. What is wrong with evidence is an [`crate::audit::Finding`], not an error.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Error {
    /// Not a hash as this crate writes it.
    #[error("expected a hash like `blake3:` or `sha256:` and 64 lower-case hex digits, got `{got}`")]
    NotAHash {
        /// What was given, at most its first 80 letters.
        got: String,
    },
    /// A key of the wrong length.
    #[error("expected a key of {expected} bytes, got {got}")]
    KeyLength {
        /// Bytes wanted.
        expected: usize,
        /// Bytes given.
        got: usize,
    },
    /// A time in another form.
    #[error("expected an RFC 3339 time like `2026-07-01T12:00:00Z`, got `{got}`")]
    NotATime {
        /// What was given, at most its first 80 letters.
        got: String,
    },
    /// A value that has no JSON form (a map with keys that are no strings, a number that is not finite).
    #[error("{what} has no JSON form: {why}")]
    NotJson {
        /// The kind of value.
        what: &'static str,
        /// serde's reason; it names types, never contents.
        why: String,
    },
    /// The last complete line of a ledger is no entry, so nothing can be appended to it.
    #[error("ledger `{ledger}`, line {line}: not an intact entry, so nothing can be appended; run `tunesmith audit`")]
    CannotAppend {
        /// The ledger's name.
        ledger: String,
        /// Line, from 1.
        line: usize,
    },
    /// A manifest that can't be read.
    #[error("manifest, line {line}: {why}")]
    NotAManifest {
        /// Line, from 1.
        line: usize,
        /// serde's reason.
        why: String,
    },
    /// A manifest written by a newer program.
    #[error("manifest of format {got}, this program knows up to {known}")]
    ManifestFormat {
        /// The greatest format known.
        known: u32,
        /// The manifest's format.
        got: u32,
    },
    /// A name stands for two different files.
    #[error("`{name}` is in the manifest already, as {known}; now it would be {got}")]
    ArtefactDiffers {
        /// The name.
        name: String,
        /// The hash it has.
        known: String,
        /// The other hash.
        got: String,
    },
}

/// The beginning of what was given, for messages.
pub(crate) fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}
