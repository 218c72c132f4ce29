//! Two tables describe all memory: parameters and activations, laid out before the first step.
//!
//! [`plan`] makes both from sizes alone, without weights and without allocating; [`crate::model::Model`]
//! allocates exactly that. Every activation has a place in one arena. Training, scoring and generation never
//! overlap in time, so each has its own table over the same arena; and within one table, tensors whose
//! lifetimes do not meet share a place.

use std::ops::Range;

use crate::{
    adapter::LoraConfig,
    batch::PassLimits,
    block::{ACTIVATIONS, Activation, ActivationSet, GradientSlots, Learned, Parts, Slots},
    compute::{Compute, ComputePath, KvType},
    config::{Linear, LinearSet, ModelConfig, TensorName},
    device::{Device, Limits, Slot, Storage, Stored},
    error::EngineError,
    full::{FullConfig, FullPlaces},
    model::AdapterPlaces,
    moments::{MomentLayout, MomentStorage},
};

/// Places are multiples of this many elements: 64 bytes, a cache line and an AVX-512 register.
const ALIGNMENT: usize = 16;

/// What the backward finds saved, and what it computes again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Everything but what is cheap to make again: what norms and act(gate) · up put into linear layers, and what norms make of
    /// saved tensors.
    Keep,
    /// Only the block inputs: every block runs again in the backward.
    Recompute,
    /// These tensors, by layer.
    Custom(Vec<ActivationSet>),
}

impl Policy {
    /// The tensors saved in `layer`, of those that its block has.
    pub fn saved(&self, layer: usize) -> ActivationSet {
        use Activation::*;
        match self {
            Policy::Keep => ActivationSet::of(&[
                RstdAttention,
                QueryRaw,
                RstdQuery,
                Query,
                KeyRaw,
                RstdKey,
                Key,
                Value,
                Mixed,
                LogSum,
                AttentionOut,
                RstdAttentionOut,
                Middle,
                RstdMlp,
                Gate,
                Up,
                MlpOut,
                RstdMlpOut,
                Low(Linear::Query),
                Low(Linear::Key),
                Low(Linear::Value),
                Low(Linear::Output),
                Low(Linear::Gate),
                Low(Linear::Up),
                Low(Linear::Down),
                Unscaled(Linear::Query),
                Unscaled(Linear::Key),
                Unscaled(Linear::Value),
                Unscaled(Linear::Output),
                Unscaled(Linear::Gate),
                Unscaled(Linear::Up),
                Unscaled(Linear::Down),
            ]),
            Policy::Recompute => ActivationSet::EMPTY,
            Policy::Custom(layers) => layers[layer],
        }
    }
}

/// Training passes and the optimiser.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainingUse {
    /// Largest micro-batch.
    pub pass: PassLimits,
    /// Saved tensors.
    pub policy: Policy,
    /// Whether a micro-batch may come in several passes, see [`crate::batch::Batch::passes`]: keys and values are then saved
    /// whatever the policy says, and their gradients have a place in every layer.
    pub several_passes: bool,
    /// Leaves of the fixed tree in which gradients are summed; 4 lets 1, 2 or 4 ranks divide them. Part of
    /// what determines the bits.
    pub reduction_leaves: usize,
    /// Most micro-batches of one step.
    pub micro_batches: usize,
    /// How the optimiser's moments are held.
    pub moments: MomentStorage,
}

impl TrainingUse {
    /// Gradient sums alive at once: one for each level of the tree that can be open.
    pub fn gradient_sums(&self) -> usize {
        let levels = self.reduction_leaves.max(1).ilog2() as usize + 1;
        levels.min(self.micro_batches.max(1))
    }
}

/// Forward passes that only want log-probabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScoringUse {
    /// Largest pass; `chain` counts the prefix too.
    pub pass: PassLimits,
    /// Rows of a beginning that many passes share and that is kept as keys and values.
    pub prefix: usize,
}

/// Generation with a key/value cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GenerationUse {
    /// New rows of one pass: prompts longer than this are read in several passes.
    pub rows: usize,
    /// Sequences that grow at the same time.
    pub sequences: usize,
    /// Rows of the cache: the shared beginning, and each sequence's prompt and answer.
    pub cache_rows: usize,
}

/// What memory is laid out for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Uses {
    /// Training.
    pub training: Option<TrainingUse>,
    /// Scoring and choosing.
    pub scoring: Option<ScoringUse>,
    /// Generation.
    pub generation: Option<GenerationUse>,
    /// How scoring and generation compute; beside training everything is exact.
    pub compute: Compute,
}

impl Uses {
    /// Refuses sizes of zero: a pass over no rows would never come to an end.
    pub fn validate(&self) -> Result<(), EngineError> {
        let training = self.training.iter().flat_map(|t| {
            [("rows of training", t.pass.rows), ("reduction leaves", t.reduction_leaves), ("micro-batches of a step", t.micro_batches)]
        });
        let scoring = self.scoring.iter().map(|s| ("rows of scoring", s.pass.rows));
        let generation = self.generation.iter().flat_map(|g| {
            [("rows of generation", g.rows), ("sequences of generation", g.sequences), ("cache rows of generation", g.cache_rows)]
        });
        match training.chain(scoring).chain(generation).find(|&(_, size)| size == 0) {
            Some((what, _)) => Err(EngineError::PlannedZero { what }),
            None => Ok(()),
        }
    }

    /// The sizes that the device's scratch is laid out for.
    pub fn device_limits(&self, config: &ModelConfig) -> Limits {
        let training = self.training.as_ref().map(|t| (t.pass.rows, t.pass.chain, t.pass.head_rows));
        let scoring = self.scoring.map(|s| (s.pass.rows.max(s.prefix), s.pass.chain.max(s.prefix), s.pass.head_rows));
        let generation = self.generation.map(|g| (g.rows, g.cache_rows, g.sequences));
        let all = [training, scoring, generation];
        let most = |size: fn((usize, usize, usize)) -> usize| all.iter().flatten().map(|&use_| size(use_)).max().unwrap_or(0);
        Limits {
            rows: most(|u| u.0),
            chain: most(|u| u.1),
            head_rows: most(|u| u.2),
            width: config.hidden.max(config.intermediate).max(config.heads * config.head_dim),
            vocab: config.vocab,
            hidden: config.hidden,
            rotaries: config.rotary.len(),
            compute: if self.training.is_some() { ComputePath::Exact } else { self.compute.path },
        }
    }
}

/// How long a tensor lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// As long as the model.
    Model,
    /// While an adapter is attached.
    Adapter,
    /// While a trainer exists.
    Training,
    /// From the forward to the backward of one pass.
    Pass,
    /// Within one block.
    Block,
    /// Within the head.
    Head,
    /// Across the passes of one generation or of one set of choices.
    Cache,
}

/// Where a tensor lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The device holds it in its own form.
    Device,
    /// In an arena of its own, from this byte on.
    Arena {
        /// First byte.
        offset: usize,
    },
    /// In the arena of activations, from this byte on; tables of different uses overlap.
    Activations {
        /// First byte.
        offset: usize,
    },
    /// In the program's memory, beside the device.
    Host,
}

/// One line of a memory table.
#[derive(Clone, Debug, PartialEq)]
pub struct MemoryEntry {
    /// Name; activations begin with their use.
    pub name: String,
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// How the numbers are stored in the source; the device may hold them otherwise.
    pub storage: Storage,
    /// Bytes that it takes.
    pub bytes: usize,
    /// How long it lives.
    pub lifetime: Lifetime,
    /// Where it lies.
    pub place: Place,
}

/// Both tables and the kernels' scratch.
#[derive(Clone, Debug, PartialEq)]
pub struct MemoryPlan {
    /// Weights, gains and biases, adapter, gradient sums, moments.
    pub parameters: Vec<MemoryEntry>,
    /// Everything of the passes.
    pub activations: Vec<MemoryEntry>,
    /// Size of the arena that holds the activations; less than their sum where they share places.
    pub activation_bytes: usize,
    /// Scratch of the device's kernels.
    pub scratch_bytes: usize,
}

impl MemoryPlan {
    /// Σ bytes of the parameter table.
    pub fn parameter_bytes(&self) -> usize {
        self.parameters.iter().map(|entry| entry.bytes).sum()
    }

    /// Bytes beside the device: sampled logits.
    pub fn host_bytes(&self) -> usize {
        self.activations.iter().filter(|entry| entry.place == Place::Host).map(|entry| entry.bytes).sum()
    }

    /// Everything.
    pub fn total_bytes(&self) -> usize {
        self.parameter_bytes() + self.activation_bytes + self.scratch_bytes + self.host_bytes()
    }
}

/// The memory that a model with these tensors, this adapter and these uses takes on `device`.
/// `storage` says how the source stores each tensor: a [`Storage`], or a [`Stored`] where bytes may stay there.
pub fn plan<D: Device, S: Into<Stored>>(
    device: &D,
    config: &ModelConfig,
    storage: impl Fn(TensorName) -> S,
    adapter: Option<&LoraConfig>,
    uses: &Uses,
) -> MemoryPlan {
    plan_trained(device, config, storage, Trained { lora: adapter, full: None }, uses)
}

/// The same where tensors of the model itself are trained: their matrices are held as f32 rows.
pub fn plan_full<D: Device, S: Into<Stored>>(
    device: &D,
    config: &ModelConfig,
    storage: impl Fn(TensorName) -> S,
    full: &FullConfig,
    uses: &Uses,
) -> MemoryPlan {
    plan_trained(device, config, storage, Trained { lora: None, full: Some(full) }, uses)
}

/// Both moments of `len` numbers.
fn moments_entry<D: Device>(device: &D, len: usize, tensors: impl Iterator<Item = Range<usize>>, storage: MomentStorage) -> MemoryEntry {
    let layout = MomentLayout::of(tensors, storage);
    let place = if storage == MomentStorage::F32 { Place::Arena { offset: 0 } } else { Place::Device };
    MemoryEntry {
        name: "moments".into(),
        shape: vec![2, len],
        storage: Storage::F32,
        bytes: layout.bytes(device),
        lifetime: Lifetime::Training,
        place,
    }
}

pub(crate) fn plan_trained<D: Device, S: Into<Stored>>(
    device: &D,
    config: &ModelConfig,
    storage: impl Fn(TensorName) -> S,
    trained: Trained<'_>,
    uses: &Uses,
) -> MemoryPlan {
    let adapter = trained.lora;
    let mut parameters = Vec::new();
    let mut vector_offset = 0;
    for name in config.tensor_names() {
        let (rows, cols) = config.tensor_shape(name);
        let vector = name.is_vector();
        let (bytes, place, storage) = if vector {
            vector_offset += cols * 4;
            (cols * 4, Place::Arena { offset: vector_offset - cols * 4 }, Storage::F32)
        } else {
            let Stored { storage, shared } = storage(name).into();
            let bytes = if trained.full.is_some_and(|full| full.trains(name)) {
                device.trained_weight_bytes(rows, cols)
            } else if shared {
                device.shared_weight_bytes(storage, rows, cols)
            } else {
                device.weight_bytes(storage, rows, cols)
            };
            (bytes, Place::Device, storage)
        };
        let shape = if vector { vec![cols] } else { vec![rows, cols] };
        parameters.push(MemoryEntry { name: name.to_string(), shape, storage, bytes, lifetime: Lifetime::Model, place });
    }
    if let Some(lora) = adapter {
        let len = lora.parameters(config);
        let mut push = |name: &str, count: usize, lifetime| {
            let (bytes, place) = (count * len * 4, Place::Arena { offset: 0 });
            parameters.push(MemoryEntry { name: name.into(), shape: vec![count, len], storage: Storage::F32, bytes, lifetime, place });
        };
        push("adapter", 1, Lifetime::Adapter);
        let derived = lora.derived(config);
        if let Some(training) = &uses.training {
            push("gradient sums", training.gradient_sums(), Lifetime::Training);
            let tensors = AdapterPlaces::of(lora, config);
            let tensors = tensors.parts().map(|(_, range)| range);
            parameters.push(moments_entry(device, len, tensors, training.moments));
        }
        if derived > 0 {
            let (name, place) = ("adapter's derived numbers".into(), Place::Arena { offset: 0 });
            parameters.push(MemoryEntry {
                name,
                shape: vec![derived],
                storage: Storage::F32,
                bytes: derived * 4,
                lifetime: Lifetime::Adapter,
                place,
            });
        }
    }
    if let (Some(full), Some(training)) = (trained.full, &uses.training) {
        let len = full.parameters(config);
        let count = training.gradient_sums();
        let (shape, place) = (vec![count, len], Place::Arena { offset: 0 });
        let (name, bytes, lifetime) = ("gradient sums".into(), count * len * 4, Lifetime::Training);
        parameters.push(MemoryEntry { name, shape, storage: Storage::F32, bytes, lifetime, place });
        let tensors = FullPlaces::of(full, config);
        let tensors = tensors.iter().map(|(_, range)| range);
        parameters.push(moments_entry(device, len, tensors, training.moments));
    }
    let layouts = layouts(config, trained, uses);
    let mut activations: Vec<MemoryEntry> = layouts.iter().flat_map(Layout::entries).collect();
    if let Some(generation) = uses.generation {
        let shape = vec![generation.sequences, config.vocab];
        activations.push(MemoryEntry {
            name: "generation.sampled_logits".into(),
            bytes: shape.iter().product::<usize>() * 4,
            shape,
            storage: Storage::F32,
            lifetime: Lifetime::Head,
            place: Place::Host,
        });
    }
    MemoryPlan {
        parameters,
        activations,
        activation_bytes: arena_len(&layouts) * 4,
        scratch_bytes: device.scratch_bytes(&uses.device_limits(config)),
    }
}

/// The layouts of the uses that are asked for.
pub(crate) fn layouts(config: &ModelConfig, trained: Trained<'_>, uses: &Uses) -> Vec<Layout> {
    let training = uses.training.as_ref().map(|use_| Layout::training(config, trained, use_));
    let scoring = uses.scoring.as_ref().map(|use_| Layout::scoring(config, trained, use_));
    let generation = uses.generation.as_ref().map(|use_| Layout::generation(config, trained, use_, uses.compute.kv));
    [training, scoring, generation].into_iter().flatten().collect()
}

/// Elements of the arena in which all of them fit.
pub(crate) fn arena_len(layouts: &[Layout]) -> usize {
    layouts.iter().map(|layout| layout.len).max().unwrap_or(0)
}

// ---- lifetimes -------------------------------------------------------------------------------

/// The moments of a pass, one bit each, in time order: the eight stages of a block forward, the head, the
/// same eight stages run again, and the eight stages of a block backward (down first).
type Moments = u32;

const STAGES: u32 = 8;
const HEAD: u32 = STAGES;
const AGAIN: u32 = HEAD + 1;
const BACK: u32 = AGAIN + STAGES;
const END: u32 = BACK + STAGES;
const ALWAYS: Moments = (1 << END) - 1;

/// From moment `first` to `last`, both included.
const fn from_to(first: u32, last: u32) -> Moments {
    ((1 << (last + 1)) - 1) & !((1 << first) - 1)
}

/// The backward of stage `stage`.
const fn back(stage: u32) -> u32 {
    BACK + (STAGES - 1 - stage)
}

// Stages of a block, in the order of `block::forward`.
const NORM_ATTENTION: u32 = 0;
const QKV: u32 = 1;
const ATTENTION: u32 = 2;
const OUTPUT: u32 = 3;
const NORM_MLP: u32 = 4;
const GATE_UP: u32 = 5;
const SILU: u32 = 6;
const DOWN: u32 = 7;

/// The stage that makes it, the last stage that reads it forward, and the last that reads it in backward.
fn life(activation: Activation) -> (u32, u32, u32) {
    use Activation::*;
    match activation {
        NormAttention => (NORM_ATTENTION, QKV, QKV),
        RstdAttention => (NORM_ATTENTION, NORM_ATTENTION, NORM_ATTENTION),
        Low(Linear::Query | Linear::Key | Linear::Value)
        | Unscaled(Linear::Query | Linear::Key | Linear::Value)
        | QueryRaw
        | RstdQuery
        | KeyRaw
        | RstdKey => (QKV, QKV, QKV),
        Query | Key | Value => (QKV, ATTENTION, ATTENTION),
        Mixed => (ATTENTION, OUTPUT, ATTENTION),
        LogSum => (ATTENTION, ATTENTION, ATTENTION),
        Low(Linear::Output) | Unscaled(Linear::Output) | AttentionOut | NormAttentionOut | RstdAttentionOut => (OUTPUT, OUTPUT, OUTPUT),
        Middle => (OUTPUT, DOWN, NORM_MLP),
        NormMlp => (NORM_MLP, GATE_UP, GATE_UP),
        RstdMlp => (NORM_MLP, NORM_MLP, NORM_MLP),
        Low(Linear::Gate | Linear::Up) | Unscaled(Linear::Gate | Linear::Up) => (GATE_UP, GATE_UP, GATE_UP),
        Gate | Up => (GATE_UP, SILU, SILU),
        Inner => (SILU, DOWN, DOWN),
        Low(Linear::Down) | Unscaled(Linear::Down) | MlpOut | NormMlpOut | RstdMlpOut | Output => (DOWN, DOWN, DOWN),
    }
}

/// Of what `saved` has, what a norm makes of the rest of it: queries and keys from before their norm, and the residual stream
/// between attention and MLP from the block's input and attention's output.
fn normed(saved: ActivationSet) -> ActivationSet {
    use Activation::*;
    let of = |source: Activation, made: &[Activation]| if saved.has(source) { ActivationSet::of(made) } else { ActivationSet::EMPTY };
    of(QueryRaw, &[Query, RstdQuery]).or(of(KeyRaw, &[Key, RstdKey])).or(of(AttentionOut, &[Middle, RstdMlp, RstdAttentionOut]))
}

/// Made by the same call, in a block that has it: written whenever the other is.
fn twin(activation: Activation) -> Option<Activation> {
    use Activation::*;
    match activation {
        Query => Some(RstdQuery),
        RstdQuery => Some(Query),
        Key => Some(RstdKey),
        RstdKey => Some(Key),
        NormAttentionOut => Some(RstdAttentionOut),
        RstdAttentionOut => Some(NormAttentionOut),
        NormMlpOut => Some(RstdMlpOut),
        RstdMlpOut => Some(NormMlpOut),
        NormAttention => Some(RstdAttention),
        RstdAttention => Some(NormAttention),
        NormMlp => Some(RstdMlp),
        RstdMlp => Some(NormMlp),
        Mixed => Some(LogSum),
        LogSum => Some(Mixed),
        _ => None,
    }
}

// ---- layout ----------------------------------------------------------------------------------

/// Places of two gradients in [`Layout::gradients`].
const D_KEY: usize = 7;
const D_VALUE: usize = 8;

/// A tensor that wants a place.
struct Draft {
    name: String,
    shape: Vec<usize>,
    moments: Moments,
    lifetime: Lifetime,
    offset: usize,
}

impl Draft {
    fn len(&self) -> usize {
        self.shape.iter().product()
    }
}

/// The activation table of one use. Indices point into `drafts`.
pub(crate) struct Layout {
    use_name: &'static str,
    drafts: Vec<Draft>,
    len: usize,
    limits: PassLimits,
    /// First layer whose input is saved; `layers` where nothing is.
    first_saved: usize,
    saved: Vec<ActivationSet>,
    streams: [usize; 2],
    inputs: Option<usize>,
    shared: [Option<usize>; ACTIVATIONS],
    kept: [Option<usize>; ACTIVATIONS],
    dropped: Option<usize>,
    /// Normed input of the last block's needed rows.
    needed: usize,
    gradients: Option<[usize; 11]>,
    /// Whether keys and values outlive a pass, for others to read.
    several_passes: bool,
    /// Whether the gradient goes on below the blocks, to the embedding.
    embedding: bool,
    /// Gradients of queries and keys before their norms.
    raw_gradients: Option<[usize; 2]>,
    /// Gradient of what DoRA scales.
    unscaled_gradient: Option<usize>,
    head: [Option<usize>; 9],
    cache: Option<[usize; 2]>,
}

/// What is trained: an adapter beside the model, or tensors of its own.
#[derive(Clone, Copy, Default)]
pub(crate) struct Trained<'a> {
    pub(crate) lora: Option<&'a LoraConfig>,
    pub(crate) full: Option<&'a FullConfig>,
}

impl Trained<'_> {
    /// Whether the gradient goes on below the blocks, to the embedding.
    fn embedding(self) -> bool {
        self.full.is_some_and(|full| full.embeddings)
    }

    /// The lowest block that the gradient reaches; `layers` where it reaches none.
    fn first_block(self, config: &ModelConfig) -> usize {
        let trained = |&layer: &usize| {
            let of_full = self.full.map_or(Learned::default(), |full| full.learned(config, layer));
            adapted(config, self.lora, layer) != LinearSet::default() || of_full != Learned::default()
        };
        if self.embedding() { 0 } else { (0..config.layers).find(trained).unwrap_or(config.layers) }
    }
}

/// Which linear layers of `layer` an adapter adapts.
pub(crate) fn adapted(config: &ModelConfig, lora: Option<&LoraConfig>, layer: usize) -> LinearSet {
    let Some(lora) = lora else { return LinearSet::default() };
    debug_assert!(layer < config.layers);
    if lora.layers.as_ref().is_some_and(|layers| !layers.contains(&layer)) {
        return LinearSet::default();
    }
    LinearSet::of(&lora.targets)
}

/// The parts of `layer` in training.
fn parts(config: &ModelConfig, trained: Trained<'_>, layer: usize) -> Parts {
    let learned = trained.full.map_or(Learned::default(), |full| full.learned(config, layer));
    Parts::of(config, adapted(config, trained.lora, layer), trained.lora.is_some_and(|lora| lora.dora), learned)
}

impl Layout {
    fn training(config: &ModelConfig, trained: Trained<'_>, use_: &TrainingUse) -> Layout {
        let (first_saved, embedding) = (trained.first_block(config), trained.embedding());
        let saved = (0..config.layers).map(|layer| {
            let parts = parts(config, trained, layer);
            let read = ActivationSet::read_by_backward(parts, layer > first_saved || embedding);
            let saved = if layer < first_saved { ActivationSet::EMPTY } else { use_.policy.saved(layer).and(read) };
            let saved = saved.without(normed(saved));
            if use_.several_passes { saved.or(ActivationSet::of(&[Activation::Key, Activation::Value])) } else { saved }
        });
        let mut layout = Layout::forward("training", config, trained, use_.pass, 0, first_saved, saved.collect(), use_.several_passes);
        layout.embedding = embedding;
        if trained.lora.is_some_and(|lora| lora.dropout > 0.0) {
            let width = config.hidden.max(config.intermediate).max(config.heads * config.head_dim);
            layout.dropped = Some(layout.push("dropped", vec![use_.pass.rows, width], ALWAYS & !(1 << HEAD), Lifetime::Block));
        }
        layout.backward(config, trained);
        layout.placed()
    }

    fn scoring(config: &ModelConfig, trained: Trained<'_>, use_: &ScoringUse) -> Layout {
        let rows = use_.pass.rows.max(use_.prefix);
        let pass = PassLimits { rows, ..use_.pass };
        let mut layout =
            Layout::forward("scoring", config, trained, pass, use_.prefix, config.layers, vec![ActivationSet::EMPTY; config.layers], false);
        layout.limits = use_.pass;
        layout.head(config, &use_.pass, false, None);
        if use_.prefix > 0 {
            layout.cache(config, "prefix", use_.prefix, KvType::F32);
        }
        layout.placed()
    }

    fn generation(config: &ModelConfig, trained: Trained<'_>, use_: &GenerationUse, kv: KvType) -> Layout {
        let pass = PassLimits { rows: use_.rows, chain: use_.cache_rows, head_rows: use_.sequences, entries: 0 };
        let saved = vec![ActivationSet::EMPTY; config.layers];
        let mut layout = Layout::forward("generation", config, trained, pass, 0, config.layers, saved, false);
        layout.head(config, &pass, false, Some(use_.sequences));
        layout.cache(config, "cache", use_.cache_rows, kv);
        layout.placed()
    }

    fn push(&mut self, name: &str, shape: Vec<usize>, moments: Moments, lifetime: Lifetime) -> usize {
        self.drafts.push(Draft { name: format!("{}.{name}", self.use_name), shape, moments, lifetime, offset: 0 });
        self.drafts.len() - 1
    }

    /// The residual stream, the saved block inputs, and the tensors of the blocks.
    fn forward(
        use_name: &'static str,
        config: &ModelConfig,
        trained: Trained<'_>,
        limits: PassLimits,
        prefix: usize,
        first_saved: usize,
        saved: Vec<ActivationSet>,
        several_passes: bool,
    ) -> Layout {
        let mut layout = Layout {
            use_name,
            drafts: Vec::new(),
            len: 0,
            limits,
            first_saved,
            saved,
            streams: [0; 2],
            inputs: None,
            shared: [None; ACTIVATIONS],
            kept: [None; ACTIVATIONS],
            dropped: None,
            needed: 0,
            gradients: None,
            several_passes,
            embedding: false,
            raw_gradients: None,
            unscaled_gradient: None,
            head: [None; 9],
            cache: None,
        };
        let m = limits.rows;
        // The first pass's output waits until the others are done.
        let stream = if several_passes { ALWAYS } else { from_to(0, HEAD) };
        layout.streams = ["stream_even", "stream_odd"].map(|name| layout.push(name, vec![m, config.hidden], stream, Lifetime::Block));
        if first_saved < config.layers {
            layout.inputs = Some(layout.push("input", vec![config.layers - first_saved, m, config.hidden], ALWAYS, Lifetime::Pass));
        }
        let training = if first_saved < config.layers { 1 << (AGAIN + QKV) | 1 << back(QKV) } else { 0 };
        layout.needed = layout.push("needed", vec![m, config.hidden], 1 << QKV | training, Lifetime::Block);
        let lora = trained.lora;
        let low = lora.map_or(0, LoraConfig::low_width);
        // An adapter may leave layers out, but the parts of what is made in any layer have a place.
        let targets = lora.map_or(LinearSet::EMPTY, |lora| LinearSet::of(&lora.targets));
        let any = Parts::of(config, targets, lora.is_some_and(|lora| lora.dora), Learned::default());
        for (index, activation) in Activation::ALL.into_iter().enumerate().filter(|(_, a)| *a != Activation::Output && a.exists(any)) {
            let rows = if matches!(activation, Activation::Key | Activation::Value) { prefix + m } else { m };
            let width = activation.width(config, low);
            let layers = layout.saved.iter().filter(|saved| saved.has(activation)).count();
            if layers > 0 {
                layout.kept[index] = Some(layout.push(activation.name(), vec![layers, rows, width], ALWAYS, Lifetime::Pass));
            }
            let moments = layout.shared_moments(config, trained, activation);
            if moments != 0 {
                layout.shared[index] = Some(layout.push(activation.name(), vec![rows, width], moments, Lifetime::Block));
            }
        }
        layout
    }

    /// When the place that blocks share for `activation` is in use.
    fn shared_moments(&self, config: &ModelConfig, trained: Trained<'_>, activation: Activation) -> Moments {
        let (made, last, last_back) = life(activation);
        let mut moments = 0;
        for layer in (0..config.layers).filter(|&layer| !self.saved[layer].has(activation)) {
            moments |= from_to(made, last);
            if layer < self.first_saved {
                continue;
            }
            let parts = parts(config, trained, layer);
            let read = ActivationSet::read_by_backward(parts, layer > self.first_saved || trained.embedding());
            let again = ActivationSet::needed_for(read, self.saved[layer], parts);
            if again.has(activation) {
                moments |= from_to(AGAIN + made, AGAIN + last);
                if read.has(activation) {
                    moments |= from_to(AGAIN + made, back(last_back));
                }
            }
            if twin(activation).is_some_and(|twin| again.has(twin)) {
                moments |= 1 << (AGAIN + made);
            }
        }
        moments
    }

    /// The gradients, and the head with what its backward needs.
    fn backward(&mut self, config: &ModelConfig, trained: Trained<'_>) {
        let (m, q, kv) = (self.limits.rows, config.heads * config.head_dim, config.kv_heads * config.head_dim);
        let lora = trained.lora;
        let low = lora.map_or(0, LoraConfig::low_width);
        let limits = self.limits;
        self.head(config, &limits, true, None);
        let post_norms = if config.post_norms { 1 << back(DOWN) | 1 << back(OUTPUT) } else { 0 };
        let norms = from_to(back(GATE_UP), back(NORM_MLP)) | from_to(back(QKV), back(NORM_ATTENTION)) | post_norms;
        let (layers, several_passes) = (config.layers - self.first_saved, self.several_passes);
        let mut push = |name, width, moments| self.push(name, vec![m, width], moments, Lifetime::Block);
        let gradients = [
            push("d_stream", config.hidden, from_to(HEAD, END - 1)),
            push("d_norm", config.hidden, norms),
            push("d_inner", config.intermediate, from_to(back(DOWN), back(SILU))),
            push("d_gate", config.intermediate, from_to(back(SILU), back(GATE_UP))),
            push("d_up", config.intermediate, from_to(back(SILU), back(GATE_UP))),
            push("d_mixed", q, from_to(back(OUTPUT), back(ATTENTION))),
            push("d_query", q, from_to(back(ATTENTION), back(QKV))),
            push("d_key", kv, from_to(back(ATTENTION), back(QKV))),
            push("d_value", kv, from_to(back(ATTENTION), back(QKV))),
            push("d_low", low, from_to(back(DOWN), back(QKV))),
            push("d_needed", config.hidden, from_to(back(QKV), back(NORM_ATTENTION))),
        ];
        if several_passes {
            for i in [gradients[D_KEY], gradients[D_VALUE]] {
                let draft = &mut self.drafts[i];
                (draft.shape, draft.moments, draft.lifetime) = (vec![layers, m, kv], ALWAYS, Lifetime::Pass);
            }
        }
        let mut push = |name, width, moments| self.push(name, vec![m, width], moments, Lifetime::Block);
        let unscaled = lora.filter(|lora| lora.dora).map(|lora| {
            let widest = lora.targets.iter().map(|&linear| config.linear_shape(linear).0).max().unwrap_or(0);
            push("d_unscaled", widest, from_to(back(DOWN), back(QKV)))
        });
        let of_norms = [("d_query_raw", q), ("d_key_raw", kv)];
        let raw_gradients = config.qk_norms.then(|| of_norms.map(|(name, width)| push(name, width, 1 << back(QKV))));
        (self.gradients, self.raw_gradients, self.unscaled_gradient) = (Some(gradients), raw_gradients, unscaled);
    }

    /// The head: gathered rows, their norm, log-probabilities or logits, and gradients of the gathered rows.
    fn head(&mut self, config: &ModelConfig, limits: &PassLimits, backward: bool, logits: Option<usize>) {
        let (m, c) = (limits.head_rows, config.hidden);
        let mut push = |name, shape| Some(self.push(name, shape, 1 << HEAD, Lifetime::Head));
        let x = push("head_input", vec![m, c]);
        let rstd = push("head_rstd", vec![m]);
        let norm = push("head_norm", vec![m, c]);
        let log_prob = if logits.is_none() { push("log_prob", vec![limits.entries]) } else { None };
        let logits = logits.and_then(|sequences| push("logits", vec![sequences, config.vocab]));
        let slope = if backward && config.logit_softcap.is_some() { push("head_slope", vec![limits.entries]) } else { None };
        let mut gradient = |name| if backward { push(name, vec![m, c]) } else { None };
        self.head = [x, rstd, norm, log_prob, logits, gradient("head_expected"), gradient("d_head_norm"), gradient("d_head_input"), slope];
    }

    /// Keys and values that outlive a pass, a row of as many f32 as `kv` takes for it.
    fn cache(&mut self, config: &ModelConfig, name: &str, rows: usize, kv: KvType) {
        let shape = vec![config.layers, rows, kv.row_len(config.kv_heads, config.head_dim)];
        self.cache = Some(["key", "value"].map(|part| self.push(&format!("{name}_{part}"), shape.clone(), ALWAYS, Lifetime::Cache)));
    }

    /// Gives every draft the lowest place that nothing alive at the same moment holds, large ones first.
    fn placed(mut self) -> Layout {
        let mut order: Vec<usize> = (0..self.drafts.len()).collect();
        order.sort_by_key(|&i| (std::cmp::Reverse(self.drafts[i].len()), i));
        let mut placed: Vec<(Range<usize>, Moments)> = Vec::with_capacity(order.len()); // by start
        for i in order {
            let (len, moments) = (self.drafts[i].len().next_multiple_of(ALIGNMENT), self.drafts[i].moments);
            let mut offset = 0;
            for (range, _) in placed.iter().filter(|(_, other)| other & moments != 0) {
                if offset + len <= range.start {
                    break;
                }
                offset = offset.max(range.end);
            }
            self.drafts[i].offset = offset;
            self.len = self.len.max(offset + len);
            let at = placed.partition_point(|(range, _)| range.start <= offset);
            placed.insert(at, (offset..offset + len, moments));
        }
        self
    }

    fn entries(&self) -> Vec<MemoryEntry> {
        let entry = |draft: &Draft| MemoryEntry {
            name: draft.name.clone(),
            shape: draft.shape.clone(),
            storage: Storage::F32,
            bytes: draft.len() * 4,
            lifetime: draft.lifetime,
            place: Place::Activations { offset: draft.offset * 4 },
        };
        self.drafts.iter().map(entry).collect()
    }

    /// The same as slots in `arena`.
    pub(crate) fn workspace(&self, config: &ModelConfig, arena: Slot) -> Workspace {
        let slot = |i: usize| arena.part(self.drafts[i].offset, self.drafts[i].len());
        let layer_of = |i: usize, place: usize| {
            let one = self.drafts[i].len() / self.drafts[i].shape[0];
            slot(i).part(place * one, one)
        };
        let blocks = (0..config.layers).map(|layer| {
            let mut slots =
                Slots { dropped: self.dropped.map(slot), needed: Some(slot(self.needed)), saved: self.saved[layer], ..Slots::default() };
            for (index, activation) in Activation::ALL.into_iter().enumerate() {
                slots.forward[index] = if self.saved[layer].has(activation) {
                    let place = self.saved[..layer].iter().filter(|saved| saved.has(activation)).count();
                    self.kept[index].map(|i| layer_of(i, place))
                } else {
                    self.shared[index].map(slot)
                };
            }
            slots
        });
        let [x, rstd, norm, log_prob, logits, expected, dnorm, dx, slope] = self.head.map(|i| i.map(slot));
        let always = "every use has a head";
        Workspace {
            limits: self.limits,
            first_saved: self.first_saved,
            saved: self.saved.clone(),
            streams: self.streams.map(slot),
            inputs: (0..config.layers)
                .map(|layer| self.inputs.filter(|_| layer >= self.first_saved).map(|i| layer_of(i, layer - self.first_saved)))
                .collect(),
            blocks: blocks.collect(),
            gradients: self.gradients.map_or(Vec::new(), |gradients| {
                let of_layer = |layer: usize| {
                    let [dx, dnorm, dinner, dgate, dup, dmixed, dquery, .., dlow, dneeded] = gradients.map(slot);
                    let own = |i: usize| if self.several_passes { layer_of(i, layer - self.first_saved) } else { slot(i) };
                    let (dkey, dvalue) = (own(gradients[D_KEY]), own(gradients[D_VALUE]));
                    let [dquery_raw, dkey_raw] = self.raw_gradients.map_or([None; 2], |raw| raw.map(|i| Some(slot(i))));
                    let read_by_others = false;
                    GradientSlots {
                        dx,
                        dnorm,
                        dinner,
                        dgate,
                        dup,
                        dmixed,
                        dquery,
                        dkey,
                        dvalue,
                        read_by_others,
                        dlow,
                        dunscaled: self.unscaled_gradient.map(slot),
                        dquery_raw,
                        dkey_raw,
                        dneeded,
                    }
                };
                (self.first_saved..config.layers).map(of_layer).collect()
            }),
            several_passes: self.several_passes,
            embedding: self.embedding,
            head: HeadSlots {
                x: x.expect(always),
                rstd: rstd.expect(always),
                norm: norm.expect(always),
                log_prob,
                logits,
                expected,
                dnorm,
                dx,
                slope,
            },
            cache: self.cache.map_or(Vec::new(), |[key, value]| {
                (0..config.layers).map(|layer| (layer_of(key, layer), layer_of(value, layer))).collect()
            }),
        }
    }
}

/// The slots of one use.
pub(crate) struct Workspace {
    /// Largest pass.
    pub(crate) limits: PassLimits,
    /// First layer whose input is saved.
    pub(crate) first_saved: usize,
    /// Saved tensors by layer.
    pub(crate) saved: Vec<ActivationSet>,
    /// Block inputs that are not saved take turns here; the last block's output too.
    pub(crate) streams: [Slot; 2],
    /// Saved block inputs by layer.
    pub(crate) inputs: Vec<Option<Slot>>,
    /// Forward tensors by layer.
    pub(crate) blocks: Vec<Slots>,
    /// Gradients by layer, from `first_saved` on; where training.
    pub(crate) gradients: Vec<GradientSlots>,
    /// Whether batches may come in several passes.
    pub(crate) several_passes: bool,
    /// Whether the gradient goes on below the blocks, to the embedding.
    pub(crate) embedding: bool,
    /// The head.
    pub(crate) head: HeadSlots,
    /// Keys and values by layer that outlive a pass: the prefix, or the cache.
    pub(crate) cache: Vec<(Slot, Slot)>,
}

impl Workspace {
    /// Where the input of `layer` lies; of layer `layers`: the output of the last block.
    pub(crate) fn input(&self, layer: usize) -> Slot {
        self.inputs.get(layer).copied().flatten().unwrap_or(self.streams[layer % 2])
    }
}

/// The head's slots, see [`crate::device::Device::head`].
pub(crate) struct HeadSlots {
    pub(crate) x: Slot,
    pub(crate) rstd: Slot,
    pub(crate) norm: Slot,
    pub(crate) log_prob: Option<Slot>,
    pub(crate) logits: Option<Slot>,
    pub(crate) expected: Option<Slot>,
    pub(crate) dnorm: Option<Slot>,
    pub(crate) dx: Option<Slot>,
    pub(crate) slope: Option<Slot>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Gate, LayerAttention, Rotary};

    fn config() -> ModelConfig {
        ModelConfig {
            vocab: 100,
            hidden: 32,
            layers: 4,
            heads: 4,
            kv_heads: 2,
            head_dim: 8,
            intermediate: 48,
            norm_eps: 1e-5,
            gate: Gate::Silu,
            biases: LinearSet::EMPTY,
            qk_norms: false,
            post_norms: false,
            embedding_scale: None,
            attention_scale: 0.35,
            attention_softcap: None,
            logit_softcap: None,
            rotary: vec![Rotary { inv_freq: vec![1.0; 4], scale: 1.0 }],
            attention: vec![LayerAttention { window: None, rotary: Some(0) }; 4],
            fused_qkv: false,
            fused_gate_up: false,
            context: 64,
            tied_embeddings: true,
        }
    }

    /// Every optional part.
    fn normed() -> ModelConfig {
        ModelConfig { qk_norms: true, post_norms: true, logit_softcap: Some(30.0), ..config() }
    }

    fn lora(layers: Option<Vec<usize>>) -> LoraConfig {
        LoraConfig { rank: 4, alpha: 8.0, rslora: false, dropout: 0.1, dora: false, pissa: false, targets: Linear::ALL.to_vec(), layers }
    }

    fn use_(policy: Policy) -> TrainingUse {
        TrainingUse {
            pass: PassLimits::dense(24),
            policy,
            several_passes: false,
            reduction_leaves: 4,
            micro_batches: 8,
            moments: MomentStorage::F32,
        }
    }

    #[test]
    fn tensors_alive_together_never_overlap() {
        for (config, policy) in [config(), normed()].into_iter().flat_map(|c| [(c.clone(), Policy::Keep), (c, Policy::Recompute)]) {
            for (layers, dora) in [(None, false), (Some(vec![1, 3]), false), (None, true)] {
                let lora = LoraConfig { dora, ..lora(layers) };
                let layout = Layout::training(&config, Trained { lora: Some(&lora), full: None }, &use_(policy.clone()));
                for (i, a) in layout.drafts.iter().enumerate() {
                    assert!(a.offset + a.len() <= layout.len);
                    for b in &layout.drafts[..i] {
                        let together = a.moments & b.moments != 0;
                        assert!(!together || a.offset + a.len() <= b.offset || b.offset + b.len() <= a.offset, "{} and {}", a.name, b.name);
                    }
                }
            }
        }
    }

    #[test]
    fn layers_below_the_lowest_adapter_save_nothing() {
        let all = Layout::training(&config(), Trained { lora: Some(&lora(None)), full: None }, &use_(Policy::Keep));
        let top = Layout::training(&config(), Trained { lora: Some(&lora(Some(vec![3]))), full: None }, &use_(Policy::Keep));
        assert_eq!(top.first_saved, 3);
        assert!(top.len < all.len);
        let shape = |layout: &Layout| layout.drafts.iter().find(|d| d.name == "training.input").map(|d| d.shape.clone());
        assert_eq!(shape(&all), Some(vec![4, 24, 32]));
        assert_eq!(shape(&top), Some(vec![1, 24, 32]));
    }

    #[test]
    fn recomputing_takes_less_than_keeping() {
        let config = ModelConfig { layers: 12, attention: [config().attention[0]; 12].to_vec(), ..config() };
        let keep = Layout::training(&config, Trained { lora: Some(&lora(None)), full: None }, &use_(Policy::Keep)).len;
        let recompute = Layout::training(&config, Trained { lora: Some(&lora(None)), full: None }, &use_(Policy::Recompute)).len;
        assert!(2 * recompute < keep, "{recompute} against {keep}");
    }

    #[test]
    fn gradient_sums_follow_the_tree() {
        let sums = |reduction_leaves, micro_batches| TrainingUse { reduction_leaves, micro_batches, ..use_(Policy::Keep) }.gradient_sums();
        assert_eq!([sums(1, 9), sums(2, 9), sums(3, 9), sums(4, 9), sums(4, 1), sums(8, 3)], [1, 2, 2, 3, 1, 3]);
    }
}
