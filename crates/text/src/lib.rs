//! Text to token ids and back, chat templates: knows no files, no tensors.
#![forbid(unsafe_code)]
