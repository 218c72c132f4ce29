//! config.json, GGUF keys, tensor and PEFT names to and from the engine's ModelConfig: pure functions.
#![forbid(unsafe_code)]
