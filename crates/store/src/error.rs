//! What can go wrong with files, with both sides of the disagreement and the path last.
use std::path::PathBuf;

/// A safetensors file breaks the format.
#[derive(Debug, thiserror::Error)]
pub enum SafetensorsFault {}
/// A GGUF file breaks the format or uses what is not read here.
#[derive(Debug, thiserror::Error)]
pub enum GgufFault {}
/// An adapter folder asks for what is not done here.
#[derive(Debug, thiserror::Error)]
pub enum PeftFault {}

/// Everything that this crate can fail with.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system said no.
    #[error("cannot {action} {}", path.display())]
    Io { /// What was tried.
        action: &'static str, /// Where.
        path: PathBuf, /// Why.
        #[source] source: std::io::Error },
}
