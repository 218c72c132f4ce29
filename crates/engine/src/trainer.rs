//! The training step: micro-batches forward and backward, gradients summed in a fixed tree, clipped, AdamW.
//!
//! Loss of a step = Σ w · loss(ln p) / Σ w over all its micro-batches, so that the same records give the same
//! result (up to rounding) however they are split. Which micro-batches make a step is the caller's choice;
//! given them, the bits are fixed: see [`crate::memory::TrainingUse::reduction_leaves`].

use std::{collections::BTreeMap, ops::Range};

use crate::{
    adapter::Adapter,
    batch::{Batch, LossEntry},
    config::{Linear, TensorName},
    device::{AdamW, Device, Slot},
    error::EngineError,
    memory::Uses,
    model::{AdapterHalf, Kind, Model, PairOf, Prepared, TensorPlace},
    moments::{Moment, MomentLayout, Moments, ParameterGroup},
    schedule::Schedule,
};

/// AdamW's constants and clipping.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OptimizerConfig {
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub eps: f32,
    /// Decoupled weight decay.
    pub weight_decay: f32,
    /// The gradient is scaled down to this norm where it is larger.
    pub max_norm: Option<f32>,
    /// LoRA+ (Hayou et al. 2024): the learning rate of B is this many times that of A; 1 is LoRA.
    pub lora_plus_ratio: f32,
}

/// How a trainer trains.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrainerConfig {
    /// Optimiser.
    pub optimizer: OptimizerConfig,
    /// Learning rate by step.
    pub schedule: Schedule,
    /// Loss.
    pub objective: Objective,
}

/// From log-probabilities to a loss and its derivative by each of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Objective {
    /// Supervised fine-tuning: −ln p of every entry, weighted.
    Sft,
}

/// Sums over entries, not yet divided.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LossSum {
    /// Σ w · loss.
    pub loss: f64,
    /// Σ w.
    pub weight: f64,
}

impl LossSum {
    /// The mean loss.
    pub fn mean(self) -> f64 {
        self.loss / self.weight
    }

    fn add(self, other: LossSum) -> LossSum {
        LossSum { loss: self.loss + other.loss, weight: self.weight + other.weight }
    }
}

impl Objective {
    /// Loss of a micro-batch, and ∂ loss / ∂ ln p of each entry in `coefficients`.
    pub fn evaluate(self, entries: &[LossEntry], log_prob: &[f64], coefficients: &mut Vec<f32>) -> LossSum {
        coefficients.clear();
        match self {
            Objective::Sft => entries.iter().zip(log_prob).fold(LossSum::default(), |sum, (entry, log_prob)| {
                coefficients.push(-entry.weight);
                // 0 · (−∞) would poison the sum of an entry that does not count.
                let loss = if entry.weight == 0.0 { 0.0 } else { -f64::from(entry.weight) * log_prob };
                sum.add(LossSum { loss, weight: f64::from(entry.weight) })
            }),
        }
    }
}

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepReport {
    /// Which step, from 1.
    pub step: u32,
    /// Mean loss before the step's update.
    pub loss: f64,
    /// Σ of the entries' weights.
    pub loss_weight: f64,
    /// Norm of the whole gradient before clipping.
    pub grad_norm: f64,
    /// Rate used.
    pub learning_rate: f64,
    /// Rows that went through the model.
    pub tokens_computed: usize,
}

/// Everything that changes in training, as plain data.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainerState {
    /// Steps done.
    pub step: u32,
    /// The adapter.
    pub adapter: Adapter,
    /// AdamW's first and second moment of each of its tensors.
    pub moments: AdapterMoments,
}

/// First and second moment of an adapter's tensors by layer, linear layer and part.
pub type AdapterMoments = BTreeMap<(usize, Linear, AdapterHalf), [Moment; 2]>;

/// The gradient of a step, see [`Trainer::gradients`].
#[derive(Clone, Debug, PartialEq)]
pub struct Gradients {
    /// Mean loss.
    pub loss: f64,
    /// Σ of the entries' weights.
    pub loss_weight: f64,
    /// Of the mean loss by layer and linear layer, in the device's own precision.
    pub tensors: BTreeMap<(usize, Linear), PairOf<f64>>,
}

/// The gradient of a step of full fine-tuning, see [`Trainer::full_gradients`].
#[derive(Clone, Debug, PartialEq)]
pub struct FullGradients {
    /// Mean loss.
    pub loss: f64,
    /// Σ of the entries' weights.
    pub loss_weight: f64,
    /// Of the mean loss by trained tensor, in the device's own precision.
    pub tensors: BTreeMap<TensorName, Vec<f64>>,
}

/// A model in training: its adapter or its own trained tensors, gradient sums and moments.
pub struct Trainer<D: Device> {
    model: Model<D>,
    config: TrainerConfig,
    step: u32,
    moments: Moments,
    /// Of an adapter; none in full fine-tuning, whose parameters are no arena.
    groups: Vec<ParameterGroup>,
    /// Gradient sums alive at once; the first ends up with the whole.
    sums: Vec<Slot>,
    reduction_leaves: usize,
    micro_batches: usize,
}

impl<D: Device> Trainer<D> {
    /// Attaches `adapter` to `model` and lays out memory for `uses`, which include training.
    pub fn new(mut model: Model<D>, adapter: &Adapter, config: TrainerConfig, uses: &Uses) -> Result<Trainer<D>, EngineError> {
        if model.full().is_some() {
            return Err(EngineError::TrainedAndAdapted);
        }
        model.reserve(&Uses::default())?;
        model.attach(adapter)?;
        let places = &model.attached().expect("attached above").places;
        let parts = places.parts().map(|((_, _, half), range)| match half {
            AdapterHalf::A => (range, 1.0),
            // As peft's create_loraplus_optimizer, whose faster group has B and all vectors.
            AdapterHalf::B | AdapterHalf::Magnitude => (range, config.optimizer.lora_plus_ratio),
        });
        let parts: Vec<_> = parts.collect();
        let len = places.len;
        let mut trainer = Trainer::with(model, config, uses, len, parts.iter().map(|(range, _)| range.clone()))?;
        trainer.groups = trainer.moments.groups(parts.into_iter());
        Ok(trainer)
    }

    /// Trains the model's own tensors: those that [`Model::load_trained`] was told.
    pub fn full(mut model: Model<D>, config: TrainerConfig, uses: &Uses) -> Result<Trainer<D>, EngineError> {
        model.detach()?;
        let places = &model.full().ok_or(EngineError::NotTrained)?.1;
        let (len, tensors) = (places.len, places.iter().map(|(_, range)| range).collect::<Vec<_>>());
        Trainer::with(model, config, uses, len, tensors.into_iter())
    }

    fn with(
        mut model: Model<D>,
        config: TrainerConfig,
        uses: &Uses,
        len: usize,
        tensors: impl Iterator<Item = Range<usize>>,
    ) -> Result<Trainer<D>, EngineError> {
        config.validate()?;
        let training = uses.training.clone().ok_or(EngineError::NotPlanned { what: "training" })?;
        model.reserve(uses)?;
        let moments = MomentLayout::of(tensors, training.moments).allocate(&mut model.device)?;
        let sums = model.device.allocate("gradient sums", training.gradient_sums() * len)?;
        Ok(Trainer {
            model,
            config,
            step: 0,
            moments,
            groups: Vec::new(),
            sums: (0..training.gradient_sums()).map(|i| sums.part(i * len, len)).collect(),
            reduction_leaves: training.reduction_leaves.max(1),
            micro_batches: training.micro_batches,
        })
    }

    /// Steps done.
    pub fn step_count(&self) -> u32 {
        self.step
    }

    /// The model, to be asked between steps: scoring and generation do not disturb training. The adapter must
    /// stay attached; memory may be laid out anew if it includes training.
    pub fn model(&mut self) -> &mut Model<D> {
        &mut self.model
    }

    /// The trained adapter as it is now.
    pub fn adapter(&self) -> Adapter {
        self.model.adapter().expect("a trainer has an adapter")
    }

    /// Ends training: moments and gradients are given back, the adapter stays attached.
    pub fn into_model(mut self) -> Model<D> {
        self.moments.release(&mut self.model.device);
        self.model.device.release(whole(&self.sums));
        self.model
    }

    /// One optimiser step on the mean loss of `micro_batches`.
    ///
    /// # Errors
    /// A batch beyond the planned sizes, no loss weight at all, or a loss or gradient that is not finite; the
    /// trainer is then as before.
    pub fn step(&mut self, micro_batches: &[Batch<'_>]) -> Result<StepReport, EngineError> {
        let step = self.step + 1;
        let (sum, norm) = self.accumulate(micro_batches, step)?;
        let grad_norm = norm / sum.weight;
        let clip = match self.config.optimizer.max_norm {
            Some(max_norm) => (f64::from(max_norm) / (grad_norm + 1e-6)).min(1.0),
            None => 1.0,
        };
        let (o, learning_rate) = (self.config.optimizer, self.config.schedule.at(step));
        let adamw = AdamW {
            learning_rate: learning_rate as f32,
            beta1: o.beta1,
            beta2: o.beta2,
            eps: o.eps,
            weight_decay: o.weight_decay,
            step,
            gradient_scale: (clip / sum.weight) as f32,
        };
        if self.model.full().is_some() {
            self.update_model(adamw);
        } else {
            self.update_adapter(adamw, learning_rate);
        }
        self.step = step;
        let tokens_computed = micro_batches.iter().map(|batch| batch.tokens.len()).sum();
        Ok(StepReport { step, loss: sum.mean(), loss_weight: sum.weight, grad_norm, learning_rate, tokens_computed })
    }

    fn update_adapter(&mut self, adamw: AdamW, learning_rate: f64) {
        let parameters = self.model.attached().expect("a trainer has an adapter").parameters;
        for group in &self.groups {
            let adamw = AdamW { learning_rate: (learning_rate * f64::from(group.rate)) as f32, ..adamw };
            self.moments.step_group(&mut self.model.device, parameters, self.sums[0], group, adamw);
        }
        self.model.adapter_changed();
    }

    /// Gains and biases do not decay, as in transformers' Trainer.
    fn update_model(&mut self, adamw: AdamW) {
        let tensors: Vec<_> = self.model.full().expect("a model that is trained").1.iter().collect();
        for (name, range) in tensors {
            let (place, device, sum) = (self.model.place(name), &mut self.model.device, self.sums[0]);
            match place {
                TensorPlace::Matrix(w) => self.moments.step_weight(device, w, sum, &range, adamw),
                TensorPlace::Vector(p) => self.moments.step_vector(device, p, sum, &range, AdamW { weight_decay: 0.0, ..adamw }),
            }
        }
    }

    /// The tensors that full fine-tuning trains, in the model's order.
    pub fn full_names(&self) -> Vec<TensorName> {
        self.model.full().map_or(Vec::new(), |(full, _)| full.names(self.model.config()))
    }

    /// A trained tensor as it is now.
    ///
    /// # Panics
    /// If the tensor is not trained.
    pub fn full_tensor(&self, name: TensorName) -> Vec<f32> {
        self.full_range(name);
        self.model.tensor_values(name)
    }

    /// First and second moment of a trained tensor as they are now.
    ///
    /// # Panics
    /// If the tensor is not trained.
    pub fn full_moments(&self, name: TensorName) -> [Moment; 2] {
        self.moments.read(&self.model.device, &self.full_range(name))
    }

    /// Puts a trained tensor back where it was: with [`Trainer::set_full_moments`] and [`Trainer::set_step_count`] the next steps
    /// are those that would have followed, bit for bit.
    ///
    /// # Panics
    /// If the tensor is not trained or has another size.
    pub fn set_full_tensor(&mut self, name: TensorName, values: &[f32]) {
        self.full_range(name);
        match self.model.place(name) {
            TensorPlace::Vector(slot) => self.model.device.upload(slot, values),
            TensorPlace::Matrix(w) => self.model.device.write_weight(w, values),
        }
    }

    /// Puts the moments of a trained tensor back.
    ///
    /// # Errors
    /// [`EngineError::StateMismatch`] where they are of another size or held otherwise.
    ///
    /// # Panics
    /// If the tensor is not trained.
    pub fn set_full_moments(&mut self, name: TensorName, moments: &[Moment; 2]) -> Result<(), EngineError> {
        let range = self.full_range(name);
        self.moments.write(&mut self.model.device, &range, moments)
    }

    /// Goes on as after so many steps.
    pub fn set_step_count(&mut self, step: u32) {
        self.step = step;
    }

    /// Where the gradient of a trained tensor lies.
    fn full_range(&self, name: TensorName) -> Range<usize> {
        let places = &self.model.full().expect("a model that is trained").1;
        places.range(name).expect("a tensor that is trained")
    }

    /// Loss and gradient of full fine-tuning that [`Trainer::step`] would use, before clipping; nothing is changed.
    pub fn full_gradients(&mut self, micro_batches: &[Batch<'_>]) -> Result<FullGradients, EngineError> {
        let (sum, _) = self.accumulate(micro_batches, self.step + 1)?;
        let (_, places) = self.model.full().ok_or(EngineError::NotTrained)?;
        let mut tensors = BTreeMap::new();
        for (name, range) in places.iter() {
            let mut gradient = vec![0.0; range.len()];
            self.model.device.download_exact(self.sums[0].part(range.start, range.len()), &mut gradient);
            gradient.iter_mut().for_each(|g| *g /= sum.weight);
            tensors.insert(name, gradient);
        }
        Ok(FullGradients { loss: sum.mean(), loss_weight: sum.weight, tensors })
    }

    /// Loss and gradient that [`Trainer::step`] would use, before clipping; nothing is changed.
    pub fn gradients(&mut self, micro_batches: &[Batch<'_>]) -> Result<Gradients, EngineError> {
        let (sum, _) = self.accumulate(micro_batches, self.step + 1)?;
        let places = &self.model.attached().expect("a trainer has an adapter").places;
        let mut flat = vec![0.0; places.len];
        self.model.device.download_exact(self.sums[0], &mut flat);
        flat.iter_mut().for_each(|g| *g /= sum.weight);
        Ok(Gradients { loss: sum.mean(), loss_weight: sum.weight, tensors: places.split(&flat) })
    }

    /// Mean loss of `batches`, without dropout, in scoring's memory. Its micro-batches may be of any number.
    pub fn evaluate_loss(&mut self, batches: &[Batch<'_>]) -> Result<f64, EngineError> {
        self.model.evaluate_loss(self.config.objective, batches)
    }

    /// The adapter's tensors, in the order in which they lie.
    pub fn adapter_parts(&self) -> Vec<(usize, Linear, AdapterHalf)> {
        self.model.attached().expect("a trainer has an adapter").places.parts().map(|(part, _)| part).collect()
    }

    /// Everything that the next step depends on, beside the caller's batches.
    pub fn state(&self) -> TrainerState {
        let places = &self.model.attached().expect("a trainer has an adapter").places;
        let moments = places.parts().map(|(part, range)| (part, self.moments.read(&self.model.device, &range))).collect();
        TrainerState { step: self.step, adapter: self.adapter(), moments }
    }

    /// Continues from a state: the next steps are those that would have followed it, bit for bit.
    ///
    /// # Errors
    /// A state of another adapter, or whose moments are of another size or held otherwise; nothing is changed then.
    pub fn restore(&mut self, state: &TrainerState) -> Result<(), EngineError> {
        if self.model.attached().is_none_or(|attached| attached.config != state.adapter.config) {
            return Err(EngineError::StateMismatch);
        }
        state.adapter.validate(self.model.config())?;
        let parts: Vec<_> = self.model.attached().expect("a trainer has an adapter").places.parts().collect();
        let fit = |(part, range): &(_, Range<usize>)| state.moments.get(part).is_some_and(|moments| self.moments.fits(range, moments));
        if state.moments.len() != parts.len() || !parts.iter().all(fit) {
            return Err(EngineError::StateMismatch);
        }
        self.model.attach(&state.adapter)?;
        for (part, range) in parts {
            self.moments.write(&mut self.model.device, &range, &state.moments[&part])?;
        }
        self.step = state.step;
        Ok(())
    }

    /// Gradient of Σ w · loss in `sums[0]`; its norm.
    fn accumulate(&mut self, micro_batches: &[Batch<'_>], step: u32) -> Result<(LossSum, f64), EngineError> {
        if micro_batches.len() > self.micro_batches {
            return Err(EngineError::Limit { what: "micro-batches of a step", given: micro_batches.len(), limit: self.micro_batches });
        }
        let prepare = |(index, batch)| self.model.prepare_passes(Kind::Training, batch, index);
        let prepared = micro_batches.iter().enumerate().map(prepare).collect::<Result<Vec<_>, _>>()?;
        let weight: f64 = micro_batches.iter().map(Batch::loss_weight).sum();
        if weight.is_nan() || weight <= 0.0 {
            return Err(EngineError::NoLoss { step, weight });
        }
        let sum = self.sum_leaves(micro_batches, &prepared, 0..self.reduction_leaves, 0).unwrap_or_default();
        if !sum.loss.is_finite() {
            return Err(EngineError::NotFinite { step, what: "loss" });
        }
        let norm = kernels::math::scalar::sqrt(self.model.device.squared_norm(self.sums[0]));
        if !norm.is_finite() {
            return Err(EngineError::NotFinite { step, what: "gradient" });
        }
        Ok((sum, norm))
    }

    /// Gradients of the micro-batches of `leaves` in `sums[level]`; `None` where these leaves have none.
    ///
    /// Leaf l of L has the micro-batches from l·n/L to (l+1)·n/L. They are added in order; sums of leaves meet
    /// in a tree that depends on L alone, so that ranks which divide the leaves add the same pairs.
    fn sum_leaves(&mut self, batches: &[Batch<'_>], prepared: &[Vec<Prepared>], leaves: Range<usize>, level: usize) -> Option<LossSum> {
        if leaves.len() > 1 {
            let middle = leaves.start + leaves.len().next_power_of_two() / 2;
            let left = self.sum_leaves(batches, prepared, leaves.start..middle, level);
            let right = self.sum_leaves(batches, prepared, middle..leaves.end, level + usize::from(left.is_some()));
            return match (left, right) {
                (Some(left), Some(right)) => {
                    self.model.device.add(self.sums[level], self.sums[level + 1]);
                    Some(left.add(right))
                }
                (left, right) => left.or(right),
            };
        }
        let boundary = |leaf: usize| leaf * batches.len() / self.reduction_leaves;
        let range = boundary(leaves.start)..boundary(leaves.end);
        if range.is_empty() {
            return None;
        }
        self.model.device.zero(self.sums[level]);
        let (mut sum, mut coefficients) = (LossSum::default(), Vec::new());
        for (batch, passes) in batches[range.clone()].iter().zip(&prepared[range]) {
            // Forward first to last; backward the other way round, so that all have added to the first one's keys before it.
            let (first, others) = passes.split_first().expect("a batch has a pass");
            self.model.train_blocks(batch, first);
            if !others.is_empty() {
                self.model.zero_key_gradients(first);
            }
            for pass in others {
                self.model.train_blocks(batch, pass);
                sum = sum.add(self.head_and_backward(batch, pass, &mut coefficients, level, false));
            }
            sum = sum.add(self.head_and_backward(batch, first, &mut coefficients, level, !others.is_empty()));
        }
        Some(sum)
    }

    /// Loss of a pass whose blocks were computed, and its gradient added to `sums[level]`.
    fn head_and_backward(
        &mut self,
        batch: &Batch<'_>,
        pass: &Prepared,
        coefficients: &mut Vec<f32>,
        level: usize,
        read_by_others: bool,
    ) -> LossSum {
        let log_prob = self.model.train_head(pass);
        let loss = self.config.objective.evaluate(&batch.entries[pass.of_batch.clone()], &log_prob, coefficients);
        self.model.train_backward(batch, pass, coefficients, self.sums[level], read_by_others);
        loss
    }
}

/// The arena that these neighbours fill.
fn whole(parts: &[Slot]) -> Slot {
    Slot { len: parts.iter().map(|part| part.len).sum(), ..parts[0] }
}

impl TrainerConfig {
    /// Refuses numbers with which no step is sound.
    pub fn validate(&self) -> Result<(), EngineError> {
        let o = self.optimizer;
        let positive = |x: f64| x.is_finite() && x > 0.0;
        let checks = [
            ("learning rate", self.schedule.peak, self.schedule.peak.is_finite() && self.schedule.peak >= 0.0, "a number of at least 0"),
            ("beta1", f64::from(o.beta1), (0.0..1.0).contains(&o.beta1), "at least 0 and below 1"),
            ("beta2", f64::from(o.beta2), (0.0..1.0).contains(&o.beta2), "at least 0 and below 1"),
            ("eps", f64::from(o.eps), positive(f64::from(o.eps)), "a number above 0"),
            ("weight decay", f64::from(o.weight_decay), o.weight_decay.is_finite() && o.weight_decay >= 0.0, "a number of at least 0"),
            ("LoRA+ ratio", f64::from(o.lora_plus_ratio), positive(f64::from(o.lora_plus_ratio)), "a number above 0"),
            ("clipping norm", f64::from(o.max_norm.unwrap_or(1.0)), positive(f64::from(o.max_norm.unwrap_or(1.0))), "a number above 0"),
        ];
        match checks.into_iter().find(|(_, _, sound, _)| !sound) {
            Some((what, given, _, expected)) => Err(EngineError::TrainerConfig { what, given, expected }),
            None => Ok(()),
        }
    }
}
