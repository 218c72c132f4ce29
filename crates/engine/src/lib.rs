//! Model, adapters, optimiser, training step, generation: knows no text, disk, clock, HTTP, nor any family by name.
#![forbid(unsafe_code)]
pub mod batch;
pub mod config;
pub mod device;
