//! What lies at a model's path, told by names and sizes alone: weights that are read, weights that are not (and how they are
//! converted), and what belongs to them.
use std::path::Path;

use crate::error::shown;
use crate::{Result, StoreError};

/// A folder of more files than this is no model.
pub const MAX_FILES: usize = 10_000;

/// What a file is to a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// Weights that are read.
    Safetensors,
    /// Weights, vocabulary and description in one, read.
    Gguf,
    /// Names the shards of safetensors.
    Index,
    /// Description, tokenizer, template, licence.
    Side,
    /// Weights as pickles, which can run code when they are loaded: `.bin`, `.pt`, `.pth`, `.ckpt`, `.pkl`.
    Pickle,
    /// A graph for ONNX runtimes.
    Onnx,
    /// TensorFlow, Keras and Flax: `.h5`, `.keras`, `.msgpack`, `.tflite`.
    OtherWeights,
    /// Programs, never run.
    Code,
    /// Anything else.
    Other,
}

impl FileKind {
    /// What a file of that name is.
    pub fn of(name: &str) -> Self {
        let lower = name.to_lowercase();
        let extension = lower.rsplit_once('.').map_or("", |(_, extension)| extension);
        match extension {
            "safetensors" => Self::Safetensors,
            "gguf" => Self::Gguf,
            _ if lower.ends_with(".safetensors.index.json") => Self::Index,
            "bin" | "pt" | "pth" | "ckpt" | "pkl" => Self::Pickle,
            "onnx" | "onnx_data" => Self::Onnx,
            "h5" | "keras" | "msgpack" | "tflite" => Self::OtherWeights,
            "py" | "sh" | "so" | "ipynb" => Self::Code,
            "json" | "jinja" | "model" | "txt" | "md" => Self::Side,
            _ => Self::Other,
        }
    }

    /// One or two words for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Safetensors => "safetensors",
            Self::Gguf => "GGUF",
            Self::Index => "index of shards",
            Self::Side => "side file",
            Self::Pickle => "pickle",
            Self::Onnx => "ONNX",
            Self::OtherWeights => "TensorFlow or Flax",
            Self::Code => "code",
            Self::Other => "other",
        }
    }

    /// Why it is not read, and what makes a readable file of it; nothing for what is read, or is no model's.
    pub fn refused(self) -> Option<&'static str> {
        match self {
            Self::Pickle => {
                Some("loading a pickle can run code; convert it once, where you trust it: transformers' save_pretrained writes safetensors")
            }
            Self::Onnx => Some("a graph for inference, without the model's own weights by name; take the safetensors it was made from"),
            Self::OtherWeights => {
                Some("convert it once: transformers' from_pretrained(…, from_tf=True or from_flax=True), then save_pretrained")
            }
            Self::Code => Some("never run; models that need their own code are not supported"),
            _ => None,
        }
    }
}

/// A file and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Surveyed {
    /// Its name.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// What it is.
    pub kind: FileKind,
}

/// The file at a path, or the files of the folder at a path, by name.
///
/// # Errors
/// A path that cannot be read, or a folder of too many files.
pub fn survey(path: &Path) -> Result<Vec<Surveyed>> {
    let failed = |e| StoreError::io("read", path, e);
    let found = std::fs::metadata(path).map_err(failed)?;
    let surveyed = |name: &std::ffi::OsStr, bytes| {
        let name = name.to_string_lossy();
        Surveyed { kind: FileKind::of(&name), name: shown(&name), bytes }
    };
    if !found.is_dir() {
        return Ok(path.file_name().map(|name| surveyed(name, found.len())).into_iter().collect());
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let Ok(found) = std::fs::metadata(entry.path()) else { continue }; // a link that leads nowhere
        if found.is_file() {
            files.push(surveyed(&entry.file_name(), found.len()));
        }
        if files.len() > MAX_FILES {
            return Err(StoreError::TooLarge { given: files.len() as u64, limit: MAX_FILES as u64, path: path.to_path_buf() });
        }
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_told_by_their_names() {
        let kinds = [
            ("model-00001-of-00002.safetensors", FileKind::Safetensors),
            ("model.safetensors.index.json", FileKind::Index),
            ("pytorch_model.bin", FileKind::Pickle),
            ("optimizer.PT", FileKind::Pickle),
            ("last.ckpt", FileKind::Pickle),
            ("weights.pkl", FileKind::Pickle),
            ("model.onnx", FileKind::Onnx),
            ("tf_model.h5", FileKind::OtherWeights),
            ("modeling_x.py", FileKind::Code),
            ("config.json", FileKind::Side),
            ("tiny.Q4_K.gguf", FileKind::Gguf),
            ("noextension", FileKind::Other),
        ];
        for (name, kind) in kinds {
            assert_eq!(FileKind::of(name), kind, "{name}");
        }
        assert!(FileKind::Pickle.refused().is_some() && FileKind::Safetensors.refused().is_none());
    }
}
