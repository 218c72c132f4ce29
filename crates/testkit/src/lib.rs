//! ReferenceDevice in f64, tolerances, gradient check, golden reader: for tests only.
#![forbid(unsafe_code)]

pub mod golden;
pub mod gradient;
pub mod parity;
pub mod reference;
pub mod tiny;
pub mod tolerance;

pub use reference::ReferenceDevice;
pub use tiny::TinyModel;
pub use tolerance::Tolerance;
