//! Gradients against central differences.

/// Step of the differences. A device in f64 loses 1e-16 / STEP to rounding and STEP² to curvature.
const STEP: f32 = 1.0 / 32768.0;

/// Compares `gradient` with (loss(p + ε) − loss(p − ε)) / 2ε for every element of `parameters`.
///
/// # Panics
/// Where one differs by more than `tolerance` times the largest gradient.
#[track_caller]
pub fn gradient_check(name: &str, parameters: &[f32], gradient: &[f64], tolerance: f64, mut loss: impl FnMut(&[f32]) -> f64) {
    assert_eq!(parameters.len(), gradient.len(), "{name}: lengths");
    let bound = tolerance * gradient.iter().fold(1e-3, |largest: f64, g| largest.max(g.abs()));
    let mut moved = parameters.to_vec();
    for (i, &g) in gradient.iter().enumerate() {
        let (up, down) = (parameters[i] + STEP, parameters[i] - STEP);
        moved[i] = up;
        let above = loss(&moved);
        moved[i] = down;
        let below = loss(&moved);
        moved[i] = parameters[i];
        let expected = (above - below) / (f64::from(up) - f64::from(down));
        assert!((g - expected).abs() <= bound, "{name}[{i}]: gradient {g}, difference quotient {expected}, {bound:e} allowed");
    }
}
