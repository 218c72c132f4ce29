//! Everything that the engine can refuse, in one closed list. Bugs assert; inputs come back as these.

use crate::{
    batch::BatchError,
    config::{Linear, TensorName},
    device::{DeviceError, Storage},
};

/// Why the engine refuses.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The device has no room, or was given weights of the wrong size.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A batch that cannot be computed.
    #[error("micro-batch {index}: {source}")]
    Batch {
        /// Which of the batches given.
        index: usize,
        /// Why.
        source: BatchError,
    },
    /// Sizes of a model that do not go together.
    #[error("model configuration: {what} is {given}, must be {expected}")]
    Config {
        /// The size.
        what: &'static str,
        /// As given.
        given: usize,
        /// What it must be.
        expected: String,
    },
    /// A factor of a model that no arithmetic stands.
    #[error("model configuration: {what} is {given}, must be a finite number above 0")]
    ConfigFactor {
        /// The factor.
        what: &'static str,
        /// As given.
        given: f32,
    },
    /// The source does not have a tensor.
    #[error("the model has no tensor {name}")]
    Missing {
        /// Its name.
        name: TensorName,
    },
    /// The source could not read a tensor.
    #[error("tensor {name} cannot be read")]
    Unreadable {
        /// Its name.
        name: TensorName,
        /// Why.
        source: std::io::Error,
    },
    /// A tensor of another shape than the configuration says.
    #[error("tensor {name} is {given_rows} x {given_cols}, the configuration says {rows} x {cols}")]
    Shape {
        /// Its name.
        name: TensorName,
        /// Rows in the source.
        given_rows: usize,
        /// Columns in the source.
        given_cols: usize,
        /// Rows that the configuration asks for.
        rows: usize,
        /// Columns that the configuration asks for.
        cols: usize,
    },
    /// A norm's gain or a bias in a block format.
    #[error("tensor {name} is stored as {storage:?}, but gains and biases are stored as F32, F16 or BF16")]
    NormStorage {
        /// Its name.
        name: TensorName,
        /// Its storage.
        storage: Storage,
    },
    /// An adapter for a layer that the model does not have.
    #[error("the adapter has a pair for layer {layer}, but the model has {layers} layers")]
    AdapterLayer {
        /// Layer named.
        layer: usize,
        /// Layers of the model.
        layers: usize,
    },
    /// An adapter on a part of what is one matrix.
    #[error("the adapter has {given} but not {missing}, which is one matrix with it in this model and has one adapter with it")]
    AdapterFused {
        /// The layer named.
        given: Linear,
        /// The layer that goes with it.
        missing: Linear,
    },
    /// An adapter tensor of the wrong size.
    #[error("adapter tensor {part} of layer {layer} {linear}: {given} elements, expected {rows} x {cols}")]
    AdapterShape {
        /// Layer.
        layer: usize,
        /// Linear layer.
        linear: Linear,
        /// `"A"`, `"B"` or `"magnitude"`.
        part: &'static str,
        /// Elements given.
        given: usize,
        /// Rows expected.
        rows: usize,
        /// Columns expected.
        cols: usize,
    },
    /// An adapter that adapts something else than its configuration says.
    #[error("the adapter has {given} pairs of tensors, its configuration names {expected}")]
    AdapterTargets {
        /// Pairs given.
        given: usize,
        /// Pairs that targets and layers come to.
        expected: usize,
    },
    /// A block to be trained that the model does not have.
    #[error("block {layer} is to be trained, but the model has {layers} blocks")]
    TrainedLayer {
        /// Block named.
        layer: usize,
        /// Blocks of the model.
        layers: usize,
    },
    /// Everything is frozen.
    #[error("nothing is to be trained: every tensor of the model is frozen")]
    NothingTrained,
    /// A weight in a block format, which has no numbers that a small step could change.
    #[error("tensor {name} is stored as {}, but only F32, F16 and BF16 weights are trained themselves: an adapter (LoRA) trains beside any storage", storage.name().to_uppercase())]
    TrainedStorage {
        /// Its name.
        name: TensorName,
        /// Its storage.
        storage: Storage,
    },
    /// Full fine-tuning of a model that was loaded frozen.
    #[error("the model was loaded to stay as it is; it is trained itself only where it is loaded for that")]
    NotTrained,
    /// An adapter beside weights that are trained.
    #[error("the model was loaded to be trained itself, and trains no adapter beside that")]
    TrainedAndAdapted,
    /// Both of two ways to begin that exclude each other.
    #[error("the adapter is to be DoRA and to start as PiSSA, which are not built together: choose one of them")]
    AdapterTwoMethods,
    /// An adapter's setting out of range.
    #[error("adapter configuration: {what} is {given}, must be {expected}")]
    AdapterConfig {
        /// The setting.
        what: &'static str,
        /// As given.
        given: f64,
        /// What it must be.
        expected: &'static str,
    },
    /// An optimiser's or schedule's setting out of range.
    #[error("training configuration: {what} is {given}, must be {expected}")]
    TrainerConfig {
        /// The setting.
        what: &'static str,
        /// As given.
        given: f64,
        /// What it must be.
        expected: &'static str,
    },
    /// A state that was saved from another adapter, or from moments that were held otherwise.
    #[error("the saved state is of another adapter or model than the one being trained, or of another optimizer")]
    StateMismatch,
    /// Memory for this use was not laid out.
    #[error("no memory was planned for {what}")]
    NotPlanned {
        /// `training`, `scoring` or `generation`.
        what: &'static str,
    },
    /// A size with which nothing could ever be computed.
    #[error("planned {what} must be at least 1")]
    PlannedZero {
        /// The size.
        what: &'static str,
    },
    /// A request beyond the planned sizes.
    #[error("{what}: {given}, at most {limit} were planned for")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// How much.
        given: usize,
        /// The limit.
        limit: usize,
    },
    /// A prompt, item or list with nothing in it.
    #[error("{what} {index} is empty")]
    Empty {
        /// What.
        what: &'static str,
        /// Which, counted from 0.
        index: usize,
    },
    /// A token that the vocabulary does not have.
    #[error("token {token} in {what} {index}, but the vocabulary has {vocab}")]
    Token {
        /// Token.
        token: u32,
        /// What it stands in.
        what: &'static str,
        /// Which, counted from 0.
        index: usize,
        /// Vocabulary.
        vocab: usize,
    },
    /// A sampling parameter out of range.
    #[error("sampling: {what} is {given}, must be {expected}")]
    Sampling {
        /// The parameter.
        what: &'static str,
        /// As given.
        given: f64,
        /// What it must be.
        expected: &'static str,
    },
    /// Nothing in the whole step carries loss.
    #[error("step {step}: the loss weights sum to {weight}, must be above zero")]
    NoLoss {
        /// Step.
        step: u32,
        /// Sum of the weights.
        weight: f64,
    },
    /// The loss or the gradient is not a number; nothing was changed.
    #[error("step {step}: the {what} is not finite")]
    NotFinite {
        /// Step.
        step: u32,
        /// `loss` or `gradient`.
        what: &'static str,
    },
}
