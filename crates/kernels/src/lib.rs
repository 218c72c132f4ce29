//! Arithmetic on slices, each forward beside its backward: knows no model.
//!
//! A kernel is a free function over slices: outputs, saved, inputs, sizes. Sizes are asserted;
//! nothing allocates and nothing can fail. Work is split over disjoint outputs on the current rayon
//! pool, so that the number of threads never changes a bit; every kernel is written once over
//! [`simd::Simd`] and gives the same bits at every [`simd::Level`].
//!
//! Legend (rows first): `m` rows (tokens), `n` outputs of a linear layer, `k` its inputs, `c` channels of
//! the residual stream, `h` heads, `g` key/value heads, `d` head size, `v` vocabulary, `r` LoRA rank.

#![deny(unsafe_code)]

pub mod math;
pub mod matmul;
pub mod quant;
pub mod simd;

pub mod attention;
pub mod cache;
pub mod columns;
pub mod dora;
pub mod dropout;
pub mod elementwise;
pub mod head;
pub mod integer;
pub mod low_rank;
pub mod norm;
pub mod optimizer;
pub mod rotary;
pub mod rows;
