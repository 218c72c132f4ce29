//! Model, adapters, optimiser, training step, generation: knows no text, disk, clock, HTTP, nor any family by name.
//!
//! Integers and floats in, floats out. Read in this order: [`config`] (what a model is), [`batch`] (what goes
//! in), [`device`] (the operations), [`memory`] (where everything lies), [`block`] (forward, and backward in
//! reverse), [`model`], [`adapter`], [`trainer`]; then what a trained model is asked: [`score`], [`choose`],
//! [`generate`].
#![forbid(unsafe_code)]

pub mod adapter;
pub mod batch;
pub mod block;
pub mod budget;
pub mod choose;
pub mod compute;
pub mod config;
pub mod cpu;
pub mod device;
pub mod error;
mod fresh;
pub mod full;
pub mod generate;
pub mod memory;
pub mod merge;
pub mod model;
pub mod moments;
pub mod random;
pub mod schedule;
pub mod score;
pub mod storage;
pub mod trainer;
pub mod trie;

pub use error::EngineError;
