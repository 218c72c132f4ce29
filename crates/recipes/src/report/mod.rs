//! The report of a run: facts as JSON, and one self-contained page drawn from them.

pub(crate) mod assemble;
pub mod facts;

mod escape;
mod html;
mod numbers;
mod svg;
mod text;
mod words;

pub use html::page;
pub use text::summary;
pub use words::value;

#[cfg(test)]
mod samples;
