//! AdamW whose moments are held in 8 bits (Dettmers et al. 2022, 8-bit Optimizers via Block-wise Quantization).
//!
//! A moment is a byte a number and one f32 scale for every [`BLOCK`] of them, the block's largest size. The value of a number
//! is its code's value times the scale; codes are the *dynamic* maps of the paper, which spend up to seven bits on the decade
//! and the rest on the fraction, so that numbers a million times smaller than the block's largest are still told apart:
//!
//! | moment | codes | values |
//! |---|---|---|
//! | first | [`FIRST`], ascending | −0.993 … −5.5e-7, 0, 5.5e-7 … 0.993, 1 |
//! | second | [`SECOND`], ascending | 0, 3.25e-7 … 0.996, 1 |
//!
//! A step reads the codes, computes exactly what [`super::adamw`] computes, changes the parameters by the moments as they
//! are in f32, and then rounds the moments to the nearest codes. One thing differs from the paper and from bitsandbytes: a second
//! moment above zero never becomes zero. It would make the next step of a number of small gradients 1 / √(1 − beta2), some
//! thirty times, too large; rounded up to the smallest code it makes that step smaller.
//!
//! Blocks begin anew with each tensor, so that where a tensor lies changes nothing.

use super::{Factors, Step, update};
use crate::elementwise::load;
use crate::quant::blockwise::DYNAMIC;
use crate::simd::{LANES, Level, Simd, WithSimd};
use rayon::prelude::*;

/// Numbers under one scale, as in bitsandbytes; the paper's 2048 lets more of them share an outlier.
pub const BLOCK: usize = 256;
/// Blocks of a task.
const TASK_BLOCKS: usize = super::TASK / BLOCK;

/// Values of the first moment's codes: the signed dynamic map. There is no −1.
pub static FIRST: [f32; 256] = DYNAMIC;

/// Values of the second moment's codes: the dynamic map without a sign. In the decade that ends at 10^(i − 6), i from 0 to 6,
/// 2^(i + 1) codes stand in the middles of as many equal parts of its upper nine tenths.
pub static SECOND: [f32; 256] = {
    let mut map = [0.0; 256];
    let (mut place, mut parts, mut decade) = (1, 2, 1e-6f64);
    while parts <= 128 {
        let mut part = 0;
        while part < parts {
            map[place] = (decade * (0.1 + 0.9 * (2 * part + 1) as f64 / (2 * parts) as f64)) as f32;
            (place, part) = (place + 1, part + 1);
        }
        (parts, decade) = (2 * parts, decade * 10.0);
    }
    map[255] = 1.0;
    map
};

/// Blocks of `len` numbers, which is also how many scales they have.
pub const fn blocks(len: usize) -> usize {
    len.div_ceil(BLOCK)
}

/// One moment of a tensor.
pub struct Moment<'a> {
    /// A code each number.
    pub codes: &'a mut [u8],
    /// A scale each block.
    pub scales: &'a mut [f32],
}

/// One step of AdamW, see [`super::adamw`] and the module's documentation. `p`, `g` and the codes are of one length; the scales
/// are [`blocks`] of it.
pub fn adamw(level: Level, p: &mut [f32], first: Moment<'_>, second: Moment<'_>, g: &[f32], step: Step) {
    let n = p.len();
    assert!(first.codes.len() == n && second.codes.len() == n && g.len() == n);
    assert!(first.scales.len() == blocks(n) && second.scales.len() == blocks(n));
    assert!(step.step > 0, "steps count from 1");
    let factors = Factors::new(step);
    let codes = first.codes.par_chunks_mut(super::TASK).zip(second.codes.par_chunks_mut(super::TASK));
    let scales = first.scales.par_chunks_mut(TASK_BLOCKS).zip(second.scales.par_chunks_mut(TASK_BLOCKS));
    let parts = p.par_chunks_mut(super::TASK).zip(g.par_chunks(super::TASK)).zip(codes.zip(scales));
    parts.for_each(|((p, g), (codes, scales))| level.dispatch(Task { p, g, codes, scales, factors }));
}

struct Task<'a> {
    p: &'a mut [f32],
    g: &'a [f32],
    codes: (&'a mut [u8], &'a mut [u8]),
    scales: (&'a mut [f32], &'a mut [f32]),
    factors: Factors,
}

impl WithSimd for Task<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (mut m, mut v) = ([0.0; BLOCK], [0.0; BLOCK]);
        let codes = self.codes.0.chunks_mut(BLOCK).zip(self.codes.1.chunks_mut(BLOCK));
        let scales = self.scales.0.iter_mut().zip(self.scales.1);
        for (((p, g), (first, second)), (first_scale, second_scale)) in
            self.p.chunks_mut(BLOCK).zip(self.g.chunks(BLOCK)).zip(codes).zip(scales)
        {
            let (m, v) = (&mut m[..p.len()], &mut v[..p.len()]);
            decode(m, first, &FIRST, *first_scale);
            decode(v, second, &SECOND, *second_scale);
            update(s, p, m, v, g, self.factors);
            *first_scale = to_shares(s, m);
            for (code, &share) in first.iter_mut().zip(&*m) {
                *code = first_code(share);
            }
            *second_scale = to_shares(s, v);
            for (code, &share) in second.iter_mut().zip(&*v) {
                *code = second_code(share);
            }
        }
    }
}

/// `x[i]` = value of code i.
#[inline(always)]
fn decode(x: &mut [f32], codes: &[u8], values: &[f32; 256], scale: f32) {
    for (x, &code) in x.iter_mut().zip(codes) {
        *x = values[usize::from(code)] * scale;
    }
}

/// Divides a block by its largest size, which it returns: at most the largest finite number, and 0 for a block of zeros.
#[inline(always)]
fn to_shares<S: Simd>(s: S, x: &mut [f32]) -> f32 {
    let mut most = s.splat(0.0);
    for x in x.chunks(LANES) {
        most = s.max(s.abs(load(s, x)), most);
    }
    let scale = s.reduce_max(most).min(f32::MAX);
    // Any divisor will do for zeros.
    let divisor = s.splat(if scale > 0.0 { scale } else { 1.0 });
    for x in x.chunks_mut(LANES) {
        crate::elementwise::store(s, x, s.div(load(s, x), divisor));
    }
    scale
}

/// The nearest code of [`FIRST`] to a share of the block's largest size, from −1 to 1; of two equally near ones that nearer to 0.
#[inline(always)]
pub fn first_code(share: f32) -> u8 {
    let size = SIZES.code(share.abs());
    // 127 is zero. Sizes go up to 128 for 1, which only positive numbers have.
    if share.is_sign_negative() { 127 - size.min(127) } else { 127 + size }
}

/// The nearest code of [`SECOND`] to a share of the block's largest size, from 0 to 1; of two equally near ones the smaller, and
/// not 0 for anything above.
#[inline(always)]
pub fn second_code(share: f32) -> u8 {
    SHARES.code(share).max(u8::from(share > 0.0))
}

/// Smallest number that is told from 0 by a [`Search`]: 2^-23, below half of the smallest code.
const LEAST: u32 = (127 - 23) << 23;
/// Mantissa bits of a bucket: at least two to every code wherever codes stand closest, so that none has more than one boundary.
const BUCKET_BITS: u32 = 7;
const BUCKETS: usize = (23 << BUCKET_BITS) + 1;

/// The nearest of ascending values in one step: a table by exponent and leading bits of the mantissa says the code at the
/// beginning of such a bucket, and at most one boundary lies in it.
struct Search {
    first: [u8; BUCKETS],
    /// Halfway to the next value.
    upper: [f32; 256],
}

/// Of the first moment's sizes: 0 and its positive values.
static SIZES: Search = Search::new(&FIRST, 127);
static SHARES: Search = Search::new(&SECOND, 0);

impl Search {
    /// Of `values[from..]`.
    const fn new(values: &[f32; 256], from: usize) -> Search {
        let (mut upper, mut code) = ([f32::INFINITY; 256], 0);
        while from + code + 1 < 256 {
            upper[code] = ((values[from + code] as f64 + values[from + code + 1] as f64) / 2.0) as f32;
            code += 1;
        }
        let (mut first, mut bucket, mut code) = ([0; BUCKETS], 0, 0);
        while bucket < BUCKETS {
            let start = f32::from_bits(LEAST + ((bucket as u32) << (23 - BUCKET_BITS)));
            while start > upper[code] {
                code += 1;
            }
            first[bucket] = code as u8;
            bucket += 1;
        }
        Search { first, upper }
    }

    #[inline(always)]
    fn code(&self, x: f32) -> u8 {
        let bucket = (x.to_bits().max(LEAST) - LEAST) >> (23 - BUCKET_BITS);
        let code = self.first[(bucket as usize).min(BUCKETS - 1)];
        code + u8::from(x > self.upper[usize::from(code)])
    }
}
