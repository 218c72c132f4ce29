//! Keys and values as a cache keeps them: f32, bfloat16, or eight bits under one scale for 16 elements.
//!
//! A cache is made of f32 elements whatever it holds, so that it lies in the same memory as everything else: the bits of
//! one or two words of codes in each. What is read back is a function of the row alone, the same at every level.
//!
//! | type | a head of d elements |
//! |---|---|
//! | f32 | d numbers |
//! | bf16 | groups of 32, each 16 elements: element l in the low half of element l, l + 16 in the high half |
//! | int8 | groups of 64, each two elements of scales and 16 of codes: byte t of element l is 16 t + l; a number is code · scale t |
//!
//! bfloat16 is rounded to nearest, ties to even. int8 likewise, with scale = max |x| / 127 of its 16 elements, which is rounded up to
//! bfloat16; scales 0 and 1 are the halves of the first element, 2 and 3 those of the second. One scale for a whole head of 256 loses what
//! lies beside its largest: Gemma 3's mean KL was 0.02 so. Keys and values must be finite.

use crate::rows;
use crate::simd::{LANES, Simd};

/// Elements that a group of 64 codes and their four scales take.
const INT8_GROUP: usize = 2 + LANES;

/// How a cache holds keys and values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum KvType {
    /// As they were computed.
    #[default]
    F32,
    /// The upper halves.
    Bf16,
    /// Eight bits under one scale for 16 elements.
    Int8,
}

impl KvType {
    /// All of them.
    pub const ALL: [KvType; 3] = [KvType::F32, KvType::Bf16, KvType::Int8];

    /// Lower-case name.
    pub const fn name(self) -> &'static str {
        match self {
            KvType::F32 => "f32",
            KvType::Bf16 => "bf16",
            KvType::Int8 => "int8",
        }
    }

    /// The type of that name.
    pub fn from_name(name: &str) -> Option<KvType> {
        KvType::ALL.into_iter().find(|kv| kv.name() == name)
    }

    /// Elements that a head of `head_dim` takes.
    pub const fn head_len(self, head_dim: usize) -> usize {
        match self {
            KvType::F32 => head_dim,
            KvType::Bf16 => head_dim.div_ceil(2 * LANES) * LANES,
            KvType::Int8 => head_dim.div_ceil(4 * LANES) * INT8_GROUP,
        }
    }

    /// Elements that a row of `kv_heads` heads takes.
    pub const fn row_len(self, kv_heads: usize, head_dim: usize) -> usize {
        kv_heads * self.head_len(head_dim)
    }
}

/// Puts the rows of `x` at `places` of `cache`, which are distinct; rows that are not named keep their values.
///
/// # Shapes
/// `cache`: `[any, kv.row_len(kv_heads, head_dim)]`, `x`: `[places.len(), kv_heads, head_dim]`.
pub fn store_rows(cache: &mut [f32], x: &[f32], places: &[u32], kv: KvType, kv_heads: usize, head_dim: usize) {
    if kv == KvType::F32 {
        return rows::scatter(cache, x, places, kv_heads * head_dim);
    }
    let (row_len, head_len) = (kv.row_len(kv_heads, head_dim), kv.head_len(head_dim));
    assert_eq!(x.len(), places.len() * kv_heads * head_dim);
    assert_eq!(cache.len() % row_len, 0);
    for (&place, x) in places.iter().zip(x.chunks_exact(kv_heads * head_dim)) {
        let row = &mut cache[place as usize * row_len..][..row_len];
        for (head, x) in row.chunks_exact_mut(head_len).zip(x.chunks_exact(head_dim)) {
            match kv {
                KvType::F32 => head.copy_from_slice(x),
                KvType::Bf16 => store_bf16(head, x),
                KvType::Int8 => store_int8(head, x),
            }
        }
    }
}

fn store_bf16(head: &mut [f32], x: &[f32]) {
    let half = |x: Option<&f32>| {
        let bits = x.map_or(0, |x| x.to_bits());
        // Half of the last place, one less where that would be a tie to an odd number.
        bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16
    };
    for (group, x) in head.chunks_exact_mut(LANES).zip(x.chunks(2 * LANES)) {
        for (l, word) in group.iter_mut().enumerate() {
            *word = f32::from_bits(half(x.get(l)) | half(x.get(l + LANES)) << 16);
        }
    }
}

fn store_int8(head: &mut [f32], x: &[f32]) {
    for (group, x) in head.chunks_exact_mut(INT8_GROUP).zip(x.chunks(4 * LANES)) {
        let (mut scales, mut codes) = ([0u32; 4], [[0u8; 4]; LANES]);
        for (t, x) in x.chunks(LANES).enumerate() {
            let largest = x.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
            let bits = (largest / 127.0).to_bits();
            scales[t] = (bits >> 16) + u32::from(bits & 0xffff > 0);
            let inverse = 1.0 / f32::from_bits(scales[t] << 16);
            let inverse = if inverse.is_finite() { inverse } else { 0.0 };
            for (codes, x) in codes.iter_mut().zip(x) {
                codes[t] = (x * inverse).round_ties_even() as i8 as u8;
            }
        }
        group[0] = f32::from_bits(scales[0] | scales[1] << 16);
        group[1] = f32::from_bits(scales[2] | scales[3] << 16);
        group[2..].iter_mut().zip(codes).for_each(|(word, codes)| *word = f32::from_bits(u32::from_le_bytes(codes)));
    }
}

/// The scale of the elements whose codes are byte `t`.
#[inline(always)]
fn int8_scale(group: &[f32], t: usize) -> f32 {
    f32::from_bits(group[t / 2].to_bits() >> (16 * (t % 2)) << 16)
}

/// `out[head_dim]` = a head as it is read back, one number at a time: the oracle of `expand`.
pub fn read_head(head: &[f32], kv: KvType, out: &mut [f32]) {
    assert_eq!(head.len(), kv.head_len(out.len()));
    for (i, out) in out.iter_mut().enumerate() {
        *out = match kv {
            KvType::F32 => head[i],
            KvType::Bf16 => {
                let (group, half) = (i / (2 * LANES), i / LANES % 2);
                f32::from_bits(head[group * LANES + i % LANES].to_bits() >> (16 * half) << 16)
            }
            KvType::Int8 => {
                let (group, byte) = (&head[i / (4 * LANES) * INT8_GROUP..][..INT8_GROUP], i / LANES % 4);
                let code = group[2 + i % LANES].to_bits().to_le_bytes()[byte] as i8;
                f32::from(code) * int8_scale(group, byte)
            }
        };
    }
}

/// [`read_head`] into whole vectors: `out` is padded to a multiple of 16, with zeros. Not for f32.
#[inline(always)]
pub(crate) fn expand<S: Simd>(s: S, head: &[f32], kv: KvType, out: &mut [f32]) {
    match kv {
        KvType::F32 => unreachable!("f32 is read where it lies"),
        KvType::Bf16 => {
            for (out, group) in out.chunks_mut(2 * LANES).zip(head.chunks_exact(LANES)) {
                let words = s.to_bits(s.load(group));
                s.store(out, s.from_bits(s.shl_i(words, 16)));
                if out.len() > LANES {
                    s.store(&mut out[LANES..], s.from_bits(s.and_i(words, s.splat_i(0xffff_0000_u32 as i32))));
                }
            }
        }
        KvType::Int8 => {
            for (out, group) in out.chunks_mut(4 * LANES).zip(head.chunks_exact(INT8_GROUP)) {
                let words = s.to_bits(s.load(&group[2..]));
                for (t, out) in out.chunks_exact_mut(LANES).enumerate() {
                    let code = s.sar_i(s.shl_i(words, 24 - 8 * t as u32), 24);
                    s.store(out, s.mul(s.to_f(code), s.splat(int8_scale(group, t))));
                }
            }
        }
    }
}
