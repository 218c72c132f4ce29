//! Every operation of every level against the portable one, bit for bit, on ordinary numbers and on specials.

use kernels::simd::disjoint::Tiles;
use kernels::simd::{LANES, Level, Simd, WithSimd};

/// The results of all operations on one set of operands, as bits.
struct Everything<'a> {
    a: &'a [f32; LANES],
    b: &'a [f32; LANES],
    c: &'a [f32; LANES],
    i: &'a [i32; LANES],
    bytes: &'a [u8; 4 * LANES],
}

impl WithSimd for Everything<'_> {
    type Output = Vec<(&'static str, Vec<u32>)>;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Self::Output {
        let (a, b, c) = (s.load(self.a), s.load(self.b), s.load(self.c));
        let (i, j) = (s.load_i(self.i), s.to_bits(a));
        let bits = |v: S::F| s.to_array_i(s.to_bits(v)).iter().map(|&v| v as u32).collect::<Vec<_>>();
        let ints = |v: S::I| s.to_array_i(v).iter().map(|&v| v as u32).collect::<Vec<_>>();
        let mask = |m: S::M| bits(s.select(m, s.splat(1.0), s.splat(2.0)));
        let in_range = s.select(s.lt(s.abs(a), s.splat(1e9)), a, s.splat(2.5));
        let half: &[u8; LANES] = self.bytes.first_chunk().unwrap();
        let mut out = vec![
            ("add", bits(s.add(a, b))),
            ("sub", bits(s.sub(a, b))),
            ("mul", bits(s.mul(a, b))),
            ("div", bits(s.div(a, b))),
            ("mul_add", bits(s.mul_add(a, b, c))),
            ("neg_mul_add", bits(s.neg_mul_add(a, b, c))),
            ("neg", bits(s.neg(a))),
            ("abs", bits(s.abs(a))),
            ("min", bits(s.min(a, b))),
            ("max", bits(s.max(a, b))),
            ("sqrt", bits(s.sqrt(a))),
            ("round", bits(s.round(a))),
            ("lt", mask(s.lt(a, b))),
            ("le", mask(s.le(a, b))),
            ("eq", mask(s.eq(a, b))),
            ("lt_i", mask(s.lt_i(i, j))),
            ("add_i", ints(s.add_i(i, j))),
            ("sub_i", ints(s.sub_i(i, j))),
            ("mul_i", ints(s.mul_i(i, j))),
            ("and_i", ints(s.and_i(i, j))),
            ("or_i", ints(s.or_i(i, j))),
            ("xor_i", ints(s.xor_i(i, j))),
            ("to_i", ints(s.to_i(in_range))),
            ("to_f", bits(s.to_f(i))),
            ("load_words", ints(s.load_words(self.bytes))),
            ("load_u8", ints(s.load_u8(half))),
            ("load_i8", ints(s.load_i8(half))),
            ("load_f16", bits(s.load_f16(self.bytes.first_chunk().unwrap()))),
            ("load_bf16", bits(s.load_bf16(self.bytes.first_chunk().unwrap()))),
            ("splat_f16", bits(s.splat_f16([self.bytes[0], self.bytes[1]]))),
            ("reduce_add", vec![s.reduce_add(a).to_bits()]),
            ("reduce_max", vec![s.reduce_max(a).to_bits()]),
        ];
        for n in [0, 1, 8, 31] {
            out.push(("shl_i", ints(s.shl_i(i, n))));
            out.push(("shr_i", ints(s.shr_i(i, n))));
            out.push(("sar_i", ints(s.sar_i(i, n))));
        }
        let rows: [S::F; LANES] = std::array::from_fn(|r| s.from_bits(s.add_i(i, s.splat_i(r as i32 * 1000))));
        for row in s.transpose(rows) {
            out.push(("transpose", bits(row)));
        }
        for n in 0..=LANES + 2 {
            let mut memory = [7.0; LANES + 4];
            s.store_partial(&mut memory[1..][..n], b);
            out.push(("store_partial", memory.iter().map(|v| v.to_bits()).collect()));
            out.push(("load_partial", bits(s.load_partial(&memory[..n], 3.0))));
        }
        out
    }
}

#[test]
fn levels_agree_on_every_operation() {
    let specials =
        [0.0, -0.0, 1.0, -1.0, 0.5, 1.5, 2.5, -2.5, 1e-40, -1e-45, 3e38, -3e38, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 8_388_609.5];
    let mut state = 88_172_645_463_325_252_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for round in 0..300 {
        let mut numbers = || -> [f32; LANES] {
            std::array::from_fn(|_| match random() {
                r if r % 8 == 0 && round % 2 == 0 => specials[(r >> 32) as usize % specials.len()],
                r => (r as i64 as f64 / f64::from(1u32 << 30) / f64::from(1u32 << 30)) as f32,
            })
        };
        let (a, b, c) = (numbers(), numbers(), numbers());
        let i = std::array::from_fn(|_| random() as i32);
        let bytes = std::array::from_fn(|_| random() as u8);
        let run = |level: Level| level.dispatch(Everything { a: &a, b: &b, c: &c, i: &i, bytes: &bytes });
        let want = run(Level::Portable);
        for &level in Level::available() {
            for ((name, want), (_, got)) in want.iter().zip(run(level)) {
                for (want, got) in want.iter().zip(got) {
                    let nan = f32::from_bits(*want).is_nan() && f32::from_bits(got).is_nan();
                    assert!(*want == got || nan, "{name} on {level:?}: {got:08x}, not {want:08x}; a {a:?} b {b:?} c {c:?} i {i:?}");
                }
            }
        }
    }
}

#[test]
fn reduce_add_follows_the_fixed_tree() {
    struct Sum([f32; LANES]);
    impl WithSimd for Sum {
        type Output = f32;
        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> f32 {
            s.reduce_add(s.load(&self.0))
        }
    }
    let x: [f32; LANES] = std::array::from_fn(|i| 1.0 / (i as f32 + 3.0));
    let mut tree = x.to_vec();
    while tree.len() > 1 {
        let half = tree.len() / 2;
        tree = (0..half).map(|i| tree[i] + tree[i + half]).collect();
    }
    for &level in Level::available() {
        assert_eq!(level.dispatch(Sum(x)).to_bits(), tree[0].to_bits(), "{level:?}");
    }
}

#[test]
fn tiles_cover_a_matrix_once() {
    for (rows, cols, row_step, col_step) in [(7, 33, 3, 16), (1, 5, 10, 2), (16, 16, 16, 16), (0, 4, 1, 1)] {
        let mut matrix = vec![0.0; rows * cols];
        let tiles = Tiles::new(&mut matrix, rows, cols, row_step, col_step);
        let mut taken = 0;
        while let Some(mut tile) = tiles.take() {
            taken += 1;
            let (row, col) = (tile.row(), tile.col());
            for i in 0..tile.rows() {
                for (j, v) in tile.slice(i).iter_mut().enumerate() {
                    *v += ((row + i) * cols + col + j) as f32 + 1.0;
                }
            }
        }
        assert_eq!(taken, tiles.count());
        assert!(tiles.take().is_none());
        assert!(matrix.iter().enumerate().all(|(i, &v)| v == i as f32 + 1.0));
    }
}
