//! The learning rate of each step: a warm-up, then constant, linear or cosine decay.

/// What happens after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decay {
    /// Stay at the peak.
    Constant,
    /// Straight down to zero at the last step.
    Linear,
    /// Half a cosine down to zero at the last step.
    Cosine,
}

/// Learning rate by step, as `transformers.get_scheduler` computes it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// Highest rate.
    pub peak: f64,
    /// Steps over which the rate rises linearly from zero.
    pub warmup_steps: u32,
    /// Steps of the whole run; where the decay reaches zero.
    pub total_steps: u32,
    /// After the warm-up.
    pub decay: Decay,
}

impl Schedule {
    /// The rate of step `step`, counted from 1. (PyTorch's schedulers count from 0: step 1 has their rate 0,
    /// so with a warm-up of w steps the first rate is 0 and step w + 1 has the peak.)
    pub fn at(&self, step: u32) -> f64 {
        let (done, warmup) = (f64::from(step.saturating_sub(1)), f64::from(self.warmup_steps));
        if done < warmup {
            return self.peak * done / warmup;
        }
        let span = (f64::from(self.total_steps) - warmup).max(1.0);
        let progress = ((done - warmup) / span).clamp(0.0, 1.0);
        match self.decay {
            Decay::Constant => self.peak,
            Decay::Linear => self.peak * (1.0 - progress),
            Decay::Cosine => self.peak * 0.5 * (1.0 + kernels::math::scalar::cos(std::f64::consts::PI * progress)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_those_of_transformers() {
        // transformers 4.57: get_cosine_schedule_with_warmup(AdamW(lr=1e-3), 2, 10), first ten rates
        let schedule = Schedule { peak: 1e-3, warmup_steps: 2, total_steps: 10, decay: Decay::Cosine };
        for (i, expected) in [0.0, 5e-4, 1e-3, 9.619_397_662_556_434e-4, 8.535_533_905_932_737e-4].into_iter().enumerate() {
            assert!((schedule.at(i as u32 + 1) - expected).abs() < 1e-15, "step {}", i + 1);
        }
        let linear = Schedule { decay: Decay::Linear, ..schedule };
        assert!((linear.at(7) - 1e-3 * 0.5).abs() < 1e-15);
        assert_eq!(linear.at(11), 0.0);
        assert_eq!(Schedule { decay: Decay::Constant, ..schedule }.at(900), 1e-3);
    }
}
