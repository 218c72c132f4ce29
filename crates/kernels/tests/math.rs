//! Our transcendental functions against std's, and bit-equal at every level.

use kernels::math::{self, scalar};
use kernels::simd::{LANES, Level, Simd, WithSimd};

/// The vector functions, applied to a slice of whole vectors.
#[derive(Clone, Copy, Debug)]
enum Function {
    Exp,
    Ln,
    Tanh,
    Sigmoid,
}

struct Map<'a> {
    function: Function,
    x: &'a [f32],
    y: &'a mut [f32],
}

impl WithSimd for Map<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (x, y) in self.x.chunks_exact(LANES).zip(self.y.chunks_exact_mut(LANES)) {
            let x = s.load(x);
            s.store(
                y,
                match self.function {
                    Function::Exp => math::exp(s, x),
                    Function::Ln => math::ln(s, x),
                    Function::Tanh => math::tanh(s, x),
                    Function::Sigmoid => math::sigmoid(s, x),
                },
            );
        }
    }
}

fn apply(level: Level, function: Function, x: &[f32]) -> Vec<f32> {
    let mut padded = x.to_vec();
    padded.resize(x.len().next_multiple_of(LANES), 0.0);
    let mut y = vec![0.0; padded.len()];
    level.dispatch(Map { function, x: &padded, y: &mut y });
    y.truncate(x.len());
    y
}

/// Every 997th bit pattern that is a number between the bounds in size, with either sign.
fn sweep(smallest: f32, largest: f32, negative: bool) -> Vec<f32> {
    let positive = (smallest.to_bits()..=largest.to_bits()).step_by(997).map(f32::from_bits);
    if negative { positive.flat_map(|v| [v, -v]).collect() } else { positive.collect() }
}

/// Distance in units of the last place of the f32 nearest to `want`.
fn ulps(got: f32, want: f64) -> f64 {
    let nearest = (want as f32).abs().clamp(f32::MIN_POSITIVE, f32::MAX);
    let ulp = f64::from(f32::from_bits(nearest.to_bits() + 1)) - f64::from(nearest);
    (f64::from(got) - want).abs() / ulp
}

fn check(function: Function, x: &[f32], want: impl Fn(f64) -> f64, limit: f64) {
    let y = apply(Level::detect(), function, x);
    let worst = x.iter().zip(&y).map(|(&x, &y)| (ulps(y, want(f64::from(x))), x, y)).max_by(|a, b| a.0.total_cmp(&b.0)).unwrap();
    assert!(worst.0 <= limit, "{function:?}({}) = {}: {} ulp", worst.1, worst.2, worst.0);
    for &level in Level::available() {
        // The portable level calls a software fma where the build has no instruction for it: every 16th number.
        let x: Vec<f32> = x.iter().copied().step_by(16).collect();
        let bits = |y: Vec<f32>| y.into_iter().map(f32::to_bits).collect::<Vec<_>>();
        assert!(
            bits(apply(level, function, &x)) == y.iter().step_by(16).map(|y| y.to_bits()).collect::<Vec<_>>(),
            "{function:?} on {level:?}"
        );
    }
}

#[test]
fn exp_is_within_a_few_ulp() {
    check(Function::Exp, &sweep(1e-10, 88.72, true).into_iter().filter(|&x| x > -87.3).collect::<Vec<_>>(), f64::exp, 1.1);
    check(Function::Exp, &sweep(87.3, 103.9, false).into_iter().map(|x| -x).collect::<Vec<_>>(), f64::exp, 1.1); // subnormal results
}

#[test]
fn ln_is_within_a_few_ulp() {
    check(Function::Ln, &sweep(f32::from_bits(1), f32::MAX, false), f64::ln, 1.0);
}

#[test]
fn tanh_is_within_a_few_ulp() {
    check(Function::Tanh, &sweep(1e-30, 20.0, true), f64::tanh, 2.0);
}

#[test]
fn sigmoid_is_within_a_few_ulp() {
    check(Function::Sigmoid, &sweep(1e-10, 87.0, true), |x| 1.0 / (1.0 + (-x).exp()), 2.5);
}

#[test]
fn specials() {
    let (inf, nan) = (f32::INFINITY, f32::NAN);
    let cases: [(Function, &[(f32, f32)]); 4] = [
        (
            Function::Exp,
            &[(0.0, 1.0), (-0.0, 1.0), (inf, inf), (-inf, 0.0), (nan, nan), (88.8, inf), (1e30, inf), (-104.0, 0.0), (-1e30, 0.0)],
        ),
        (Function::Ln, &[(1.0, 0.0), (0.0, -inf), (-0.0, -inf), (inf, inf), (-1.0, nan), (-inf, nan), (nan, nan)]),
        (Function::Tanh, &[(0.0, 0.0), (-0.0, -0.0), (inf, 1.0), (-inf, -1.0), (nan, nan), (50.0, 1.0), (-1e30, -1.0)]),
        (Function::Sigmoid, &[(0.0, 0.5), (inf, 1.0), (-inf, 0.0), (nan, nan), (-1e30, 0.0), (1e30, 1.0)]),
    ];
    for &level in Level::available() {
        for (function, cases) in cases {
            let x: Vec<f32> = cases.iter().map(|c| c.0).collect();
            for (&(x, want), got) in cases.iter().zip(apply(level, function, &x)) {
                assert!(
                    got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan(),
                    "{level:?} {function:?}({x}) = {got}, not {want}"
                );
            }
        }
    }
}

/// Numbers spread evenly over lo .. hi.
fn even(lo: f64, hi: f64) -> impl Iterator<Item = f64> {
    (0..20_000).map(move |i| lo + (hi - lo) * (f64::from(i) + 0.37) / 20_000.0)
}

fn assert_near(name: &str, x: f64, got: f64, want: f64, relative: f64, absolute: f64) {
    assert!((got - want).abs() <= relative * want.abs() + absolute, "{name}({x}) = {got}, not {want}");
}

#[test]
fn scalar_functions_agree_with_std() {
    for x in even(-700.0, 700.0).chain(even(-1.0, 1.0)) {
        assert_near("exp", x, scalar::exp(x), x.exp(), 1e-15, 0.0);
        assert_near("tanh", x, scalar::tanh(x / 30.0), (x / 30.0).tanh(), 1e-15, 0.0);
    }
    for x in even(-300.0, 300.0).map(|x| 10f64.powf(x)).chain(even(0.5, 2.0)).chain([5e-324, 1e-310, f64::MAX]) {
        assert_near("ln", x, scalar::ln(x), x.ln(), 1e-15, 0.0);
    }
    for x in even(-1e6, 1e6).chain(even(-10.0, 10.0)) {
        let (sin, cos) = scalar::sin_cos(x);
        assert_near("sin", x, sin, x.sin(), 0.0, 1e-15);
        assert_near("cos", x, cos, x.cos(), 0.0, 1e-15);
        assert_eq!((scalar::sin(x), scalar::cos(x)), (sin, cos));
    }
    for x in even(0.01, 20.0) {
        for y in [-3.5, -0.25, 0.5, 1.0 / 3.0, 7.0, 50.0, 99.9] {
            assert_near("pow", x, scalar::pow(x, y), x.powf(y), 1e-13, 0.0);
        }
    }
    for d in 0..64 {
        let y = -2.0 * f64::from(d) / 128.0;
        assert_near("pow", y, scalar::pow(1e6, y), 1e6f64.powf(y), 1e-14, 0.0);
    }
    assert_eq!(scalar::sqrt(2.0), std::f64::consts::SQRT_2);
}

#[test]
fn scalar_specials() {
    let (inf, nan) = (f64::INFINITY, f64::NAN);
    let same = |got: f64, want: f64| assert!(got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan(), "{got}, not {want}");
    for (x, want) in [(0.0, 1.0), (inf, inf), (-inf, 0.0), (nan, nan), (710.0, inf), (-746.0, 0.0)] {
        same(scalar::exp(x), want);
    }
    for (x, want) in [(1.0, 0.0), (0.0, -inf), (inf, inf), (-1.0, nan), (nan, nan)] {
        same(scalar::ln(x), want);
    }
    for (x, want) in [(0.0, 0.0), (-0.0, -0.0), (inf, 1.0), (-inf, -1.0), (nan, nan)] {
        same(scalar::tanh(x), want);
    }
    for (x, y, want) in
        [(2.0, 10.0, 1024.0), (-2.0, 3.0, -8.0), (2.0, -1.0, 0.5), (0.0, 0.5, 0.0), (0.0, -0.5, inf), (1.0, 1e9, 1.0), (5.0, 0.0, 1.0)]
    {
        same(scalar::pow(x, y), want);
    }
    for x in [inf, -inf, nan] {
        assert!(scalar::sin(x).is_nan() && scalar::cos(x).is_nan());
    }
    same(scalar::sin(-0.0), -0.0);
}
