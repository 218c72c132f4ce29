//! How far two computations of the same numbers may differ, as a type with a reason.

/// A bound on |actual − expected| for each element: `relative · max |expected| + absolute`.
///
/// The scale is the tensor's largest element: rounding of a sum is relative to its terms, not to what
/// remains of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    /// Factor on the largest expected element.
    pub relative: f64,
    /// Floor for tensors of zeros.
    pub absolute: f64,
}

impl Tolerance {
    /// The same numbers.
    pub const fn exact() -> Tolerance {
        Tolerance { relative: 0.0, absolute: 0.0 }
    }

    /// A few dozen f32 roundings of sums of some hundred terms.
    pub const fn f32() -> Tolerance {
        Tolerance { relative: 1e-5, absolute: 1e-7 }
    }

    /// Inputs rounded to 8 bits of mantissa.
    pub const fn bf16() -> Tolerance {
        Tolerance { relative: 1e-2, absolute: 1e-4 }
    }

    /// Inputs rounded to 16 levels.
    pub const fn nf4() -> Tolerance {
        Tolerance { relative: 1e-1, absolute: 1e-3 }
    }

    /// Two ways through the same sums in f64.
    pub const fn f64() -> Tolerance {
        Tolerance { relative: 1e-10, absolute: 1e-13 }
    }

    /// This tolerance times `factor`; the caller says why.
    pub const fn times(self, factor: f64) -> Tolerance {
        Tolerance { relative: self.relative * factor, absolute: self.absolute * factor }
    }

    /// Panics with the worst element where one is beyond the bound.
    #[track_caller]
    pub fn check<A: Copy + Into<f64>, E: Copy + Into<f64>>(self, name: &str, actual: &[A], expected: &[E]) {
        assert_eq!(actual.len(), expected.len(), "{name}: lengths");
        let largest = expected.iter().map(|&e| e.into().abs()).fold(0.0, f64::max);
        let bound = self.relative * largest + self.absolute;
        let worst = actual.iter().zip(expected).enumerate().map(|(i, (&a, &e))| (i, a.into(), e.into()));
        let worst = worst.max_by(|x, y| difference(x.1, x.2).total_cmp(&difference(y.1, y.2)));
        if let Some((i, a, e)) = worst {
            let d = difference(a, e);
            assert!(d <= bound, "{name}[{i}]: {a} instead of {e}, {d:e} apart, {bound:e} allowed");
        }
    }
}

/// |a − e|; infinite where either is not a number.
fn difference(a: f64, e: f64) -> f64 {
    if a == e {
        return 0.0;
    }
    let d = (a - e).abs();
    if d.is_nan() { f64::INFINITY } else { d }
}
