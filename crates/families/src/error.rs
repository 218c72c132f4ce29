//! What can be wrong with a model's description or names: key, value given, value expected.

/// Everything that this crate can fail with.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum FamilyError {
    /// A family that is not supported.
    #[error("{key} is {given}; supported: {supported}{differences}")]
    Architecture {
        /// Where it stands.
        key: String,
        /// As the file says.
        given: String,
        /// What is supported.
        supported: String,
        /// The supported family that is nearest, and the keys in which the description differs from it; or empty.
        differences: String,
    },
    /// A key that must be there.
    #[error("the description has no {key}")]
    Missing {
        /// Key.
        key: String,
    },
    /// A value of the wrong kind.
    #[error("{key} is {given}; {expected} expected")]
    Kind {
        /// Key.
        key: String,
        /// As the file says.
        given: String,
        /// What should be there.
        expected: &'static str,
    },
    /// A number outside what makes sense.
    #[error("{key} is {given}; from {low} to {high} expected")]
    Range {
        /// Key.
        key: String,
        /// As the file says.
        given: String,
        /// Lowest.
        low: f64,
        /// Highest.
        high: f64,
    },
    /// A value that would change the arithmetic in a way that is not done here.
    #[error("{key} is {given}; supported: {supported}")]
    Unsupported {
        /// Key.
        key: String,
        /// As the file says.
        given: String,
        /// What is supported.
        supported: &'static str,
    },
    /// One number must divide another.
    #[error("{key} is {given}, which {by_key} = {by} does not divide")]
    NotDivisible {
        /// Key of the number.
        key: String,
        /// The number.
        given: usize,
        /// Key of the divisor.
        by_key: String,
        /// The divisor.
        by: usize,
    },
    /// Two values contradict each other.
    #[error("{key} is {given}, but {other_key} is {other}: they must be equal")]
    Disagree {
        /// Key.
        key: String,
        /// Its value.
        given: String,
        /// The other key.
        other_key: String,
        /// Its value.
        other: String,
    },
    /// The tensors are not the model's.
    #[error("of {expected} tensors of the model, missing: {}; in the file but not of the model: {}", list(missing), list(unexpected))]
    Tensors {
        /// How many the model has.
        expected: usize,
        /// Not in the file.
        missing: Vec<String>,
        /// Not of the model.
        unexpected: Vec<String>,
    },
    /// A tensor has another shape than the description asks for.
    #[error("tensor {name:?} has the shape {given:?}; {expected:?} expected from the description")]
    Shape {
        /// Tensor.
        name: String,
        /// Of the file.
        given: Vec<usize>,
        /// Of the model.
        expected: Vec<usize>,
    },
    /// A name of a linear layer that is not known.
    #[error("{given:?} is no linear layer of this model; known: {known}, and all-linear, attention, mlp")]
    Target {
        /// As given.
        given: String,
        /// The model's linear layers.
        known: String,
    },
    /// A part of what is one matrix in this model.
    #[error("{given:?} is a part of {module:?} in this model, which has one adapter: name {module:?}")]
    TargetFused {
        /// As given.
        given: String,
        /// The module that has it.
        module: String,
    },
    /// A bias.
    #[error("{given:?} is a bias: biases stay frozen, adapters are beside the linear layers: {known}")]
    TargetBias {
        /// As given.
        given: String,
        /// The model's linear layers.
        known: String,
    },
    /// No linear layer was named.
    #[error("no linear layer named; known: {known}, and all-linear, attention, mlp")]
    NoTarget {
        /// The model's linear layers.
        known: String,
    },
    /// An adapter tensor of another kind.
    #[error(
        "adapter tensor {name:?} is not a LoRA weight of a block's linear layer (base_model.model.model.layers.N.….lora_A.weight or lora_B.weight)"
    )]
    AdapterTensor {
        /// Tensor.
        name: String,
    },
    /// An adapter for a deeper model.
    #[error("adapter tensor {name:?} is for layer {layer}; the model has layers 0 to {}", layers - 1)]
    AdapterLayer {
        /// Tensor.
        name: String,
        /// Its layer.
        layer: usize,
        /// Layers of the model.
        layers: usize,
    },
    /// Only one half of a pair.
    #[error("adapter tensor {name:?} stands alone; {missing:?} expected beside it")]
    AdapterHalf {
        /// Tensor.
        name: String,
        /// The half that is not there.
        missing: String,
    },
    /// An adapter with nothing in it.
    #[error("the adapter has no tensors")]
    AdapterEmpty,
}

pub(crate) fn list(names: &[String]) -> String {
    const SHOWN: usize = 5;
    match names {
        [] => "none".into(),
        _ if names.len() > SHOWN => format!("{} and {} more", names[..SHOWN].join(", "), names.len() - SHOWN),
        _ => names.join(", "),
    }
}

/// Text of a file as it may stand in a message: not too long, nothing that a terminal obeys.
pub(crate) fn shown(text: &str) -> String {
    const LONGEST: usize = 120;
    let plain: String = text.chars().take(LONGEST).map(|c| if c.is_control() { '·' } else { c }).collect();
    if text.chars().nth(LONGEST).is_some() { plain + "…" } else { plain }
}
