//! The block of every family: the forward calls, and below them the backward calls in reverse, names mirrored.
//!
//! ```text
//! n1 = rms_norm(x)                      NormAttention, RstdAttention
//! q, k, v = Wq n1, Wk n1, Wv n1         Query, Key, Value      (q and k after rotary)
//! o = attention(q, k, v)                Mixed, LogSum
//! x2 = x + Wo o                         Middle
//! n2 = rms_norm(x2)                     NormMlp, RstdMlp
//! gate, up = Wg n2, Wu n2               Gate, Up
//! h = act(gate) · up                    Inner
//! y = x2 + Wd h                         Output
//! ```
//! Each `W x` is `W x + s · B (A drop(x))` where the layer carries an adapter, and `+ b` where it has a bias;
//! `A drop(x)` is `Low`. With DoRA it is `g · u` with u = W x + s · B (A x), which is `Unscaled`, and `W (x − drop(x)) + g · u` with
//! u = (W + s · B A) drop(x) under dropout, as `peft` has it. Where the family norms more, what goes into the norm has a place of its own:
//!
//! ```text
//! q = rms_norm(Wq n1), k alike          QueryRaw, RstdQuery, KeyRaw, RstdKey
//! x2 = x + rms_norm(Wo o)               AttentionOut, NormAttentionOut, RstdAttentionOut
//! y = x2 + rms_norm(Wd h)               MlpOut, NormMlpOut, RstdMlpOut
//! ```
//!
//! In the last block only the rows that the head reads are needed: [`Pass::needed`]. The first norm, keys and values are of all rows of
//! the pass, everything after them of the needed ones, `Query` included.
//!
//! What the backward needs is a *set of saved tensors*. What is needed and not saved is computed again by
//! the same calls on the same shapes, so that a policy never changes a bit.

use crate::{
    batch::{NeededRows, RunTable},
    compute::KvType,
    config::{Linear, LinearSet, ModelConfig},
    device::{AttentionShape, Device, Product, Slot, WeightId},
};

/// Activations that there are.
pub const ACTIVATIONS: usize = 38;

/// A tensor of a block's forward pass; rows of the pass by [`Activation::width`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// Normed block input.
    NormAttention,
    /// 1 / rms of the block input.
    RstdAttention,
    /// Queries before their norm.
    QueryRaw,
    /// 1 / rms of every head's query.
    RstdQuery,
    /// Queries after rotary.
    Query,
    /// Keys before their norm.
    KeyRaw,
    /// 1 / rms of every head's key.
    RstdKey,
    /// Keys after rotary.
    Key,
    /// Values.
    Value,
    /// Output of attention, heads side by side.
    Mixed,
    /// Log-sum-exp of every query's scores.
    LogSum,
    /// Output projection of attention, before its norm.
    AttentionOut,
    /// Normed `AttentionOut`.
    NormAttentionOut,
    /// 1 / rms of `AttentionOut`.
    RstdAttentionOut,
    /// Residual stream between attention and MLP.
    Middle,
    /// Normed `Middle`.
    NormMlp,
    /// 1 / rms of `Middle`.
    RstdMlp,
    /// Gate before its activation.
    Gate,
    /// Up projection.
    Up,
    /// act(gate) · up.
    Inner,
    /// A drop(x) of an adapted linear layer.
    Low(Linear),
    /// (W + s · B A) drop(x) of a layer with magnitudes.
    Unscaled(Linear),
    /// Down projection, before its norm.
    MlpOut,
    /// Normed `MlpOut`.
    NormMlpOut,
    /// 1 / rms of `MlpOut`.
    RstdMlpOut,
    /// Block output.
    Output,
}

/// What of a block itself is trained (full fine-tuning).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Learned {
    /// Linear layers with a gradient.
    pub weights: LinearSet,
    /// Biases with a gradient, of those that there are.
    pub biases: LinearSet,
    /// Whether the norms' gains have gradients.
    pub gains: bool,
}

/// Which of the optional parts a block has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts {
    /// Linear layers with adapters.
    pub adapted: LinearSet,
    /// The adapters have magnitudes (DoRA).
    pub dora: bool,
    /// What of the block itself is trained.
    pub learned: Learned,
    /// Norms of queries and keys.
    pub qk_norms: bool,
    /// Norms of what is added to the residual stream.
    pub post_norms: bool,
}

impl Parts {
    /// Of a model's block that carries `adapted`, with magnitudes or without, and is trained itself as `learned` says.
    pub fn of(config: &ModelConfig, adapted: LinearSet, dora: bool, learned: Learned) -> Parts {
        Parts { adapted, dora, learned, qk_norms: config.qk_norms, post_norms: config.post_norms }
    }
}

impl Activation {
    /// All of them, in the order in which the forward makes them.
    pub const ALL: [Activation; ACTIVATIONS] = {
        use Activation::*;
        [
            NormAttention,
            RstdAttention,
            Low(Linear::Query),
            Unscaled(Linear::Query),
            QueryRaw,
            RstdQuery,
            Query,
            Low(Linear::Key),
            Unscaled(Linear::Key),
            KeyRaw,
            RstdKey,
            Key,
            Low(Linear::Value),
            Unscaled(Linear::Value),
            Value,
            Mixed,
            LogSum,
            Low(Linear::Output),
            Unscaled(Linear::Output),
            AttentionOut,
            NormAttentionOut,
            RstdAttentionOut,
            Middle,
            NormMlp,
            RstdMlp,
            Low(Linear::Gate),
            Unscaled(Linear::Gate),
            Gate,
            Low(Linear::Up),
            Unscaled(Linear::Up),
            Up,
            Inner,
            Low(Linear::Down),
            Unscaled(Linear::Down),
            MlpOut,
            NormMlpOut,
            RstdMlpOut,
            Output,
        ]
    };

    /// Place in [`Activation::ALL`].
    pub fn index(self) -> usize {
        Activation::ALL.iter().position(|&a| a == self).expect("ALL has every activation")
    }

    /// Elements per row, with adapters whose `Low` is so wide.
    pub fn width(self, config: &ModelConfig, low: usize) -> usize {
        use Activation::*;
        match self {
            NormAttention | NormMlp | Middle | Output | AttentionOut | NormAttentionOut | MlpOut | NormMlpOut => config.hidden,
            RstdAttention | RstdMlp | RstdAttentionOut | RstdMlpOut => 1,
            QueryRaw | Query | Mixed => config.heads * config.head_dim,
            KeyRaw | Key | Value => config.kv_heads * config.head_dim,
            LogSum | RstdQuery => config.heads,
            RstdKey => config.kv_heads,
            Gate | Up | Inner => config.intermediate,
            Low(_) => low,
            Unscaled(linear) => config.linear_shape(linear).0,
        }
    }

    /// Its name in the memory tables.
    pub fn name(self) -> &'static str {
        match self {
            Activation::NormAttention => "norm_attention",
            Activation::RstdAttention => "rstd_attention",
            Activation::QueryRaw => "query_raw",
            Activation::RstdQuery => "rstd_query",
            Activation::Query => "query",
            Activation::KeyRaw => "key_raw",
            Activation::RstdKey => "rstd_key",
            Activation::Key => "key",
            Activation::Value => "value",
            Activation::Mixed => "mixed",
            Activation::LogSum => "log_sum",
            Activation::AttentionOut => "attention_out",
            Activation::NormAttentionOut => "norm_attention_out",
            Activation::RstdAttentionOut => "rstd_attention_out",
            Activation::Middle => "middle",
            Activation::NormMlp => "norm_mlp",
            Activation::RstdMlp => "rstd_mlp",
            Activation::Gate => "gate",
            Activation::Up => "up",
            Activation::Inner => "inner",
            Activation::MlpOut => "mlp_out",
            Activation::NormMlpOut => "norm_mlp_out",
            Activation::RstdMlpOut => "rstd_mlp_out",
            Activation::Output => "output",
            Activation::Low(Linear::Query) => "low_query",
            Activation::Low(Linear::Key) => "low_key",
            Activation::Low(Linear::Value) => "low_value",
            Activation::Low(Linear::Output) => "low_output",
            Activation::Low(Linear::Gate) => "low_gate",
            Activation::Low(Linear::Up) => "low_up",
            Activation::Low(Linear::Down) => "low_down",
            Activation::Unscaled(Linear::Query) => "unscaled_query",
            Activation::Unscaled(Linear::Key) => "unscaled_key",
            Activation::Unscaled(Linear::Value) => "unscaled_value",
            Activation::Unscaled(Linear::Output) => "unscaled_output",
            Activation::Unscaled(Linear::Gate) => "unscaled_gate",
            Activation::Unscaled(Linear::Up) => "unscaled_up",
            Activation::Unscaled(Linear::Down) => "unscaled_down",
        }
    }

    /// What the forward reads to make it, of what exists; the block input is always there.
    fn inputs(self, parts: Parts) -> &'static [Activation] {
        use Activation::*;
        match self {
            NormAttention | RstdAttention => &[],
            Low(Linear::Query | Linear::Key | Linear::Value) => &[NormAttention],
            Query | RstdQuery if parts.qk_norms => &[QueryRaw],
            Key | RstdKey if parts.qk_norms => &[KeyRaw],
            Unscaled(Linear::Query) => &[NormAttention, Low(Linear::Query)],
            Unscaled(Linear::Key) => &[NormAttention, Low(Linear::Key)],
            Unscaled(Linear::Value) => &[NormAttention, Low(Linear::Value)],
            QueryRaw | RstdQuery | Query => &[NormAttention, Low(Linear::Query), Unscaled(Linear::Query)],
            KeyRaw | RstdKey | Key => &[NormAttention, Low(Linear::Key), Unscaled(Linear::Key)],
            Value => &[NormAttention, Low(Linear::Value), Unscaled(Linear::Value)],
            Mixed | LogSum => &[Query, Key, Value],
            Low(Linear::Output) => &[Mixed],
            Unscaled(Linear::Output) => &[Mixed, Low(Linear::Output)],
            AttentionOut => &[Mixed, Low(Linear::Output), Unscaled(Linear::Output)],
            NormAttentionOut | RstdAttentionOut => &[AttentionOut],
            Middle if parts.post_norms => &[NormAttentionOut],
            Middle => &[Mixed, Low(Linear::Output), Unscaled(Linear::Output)],
            NormMlp | RstdMlp => &[Middle],
            Low(Linear::Gate | Linear::Up) => &[NormMlp],
            Unscaled(Linear::Gate) => &[NormMlp, Low(Linear::Gate)],
            Unscaled(Linear::Up) => &[NormMlp, Low(Linear::Up)],
            Gate => &[NormMlp, Low(Linear::Gate), Unscaled(Linear::Gate)],
            Up => &[NormMlp, Low(Linear::Up), Unscaled(Linear::Up)],
            Inner => &[Gate, Up],
            Low(Linear::Down) => &[Inner],
            Unscaled(Linear::Down) => &[Inner, Low(Linear::Down)],
            MlpOut => &[Inner, Low(Linear::Down), Unscaled(Linear::Down)],
            NormMlpOut | RstdMlpOut => &[MlpOut],
            Output if parts.post_norms => &[Middle, NormMlpOut],
            Output => &[Middle, Inner, Low(Linear::Down), Unscaled(Linear::Down)],
        }
    }

    /// Whether blocks with these parts have it.
    pub fn exists(self, parts: Parts) -> bool {
        use Activation::*;
        match self {
            Low(linear) => parts.adapted.has(linear),
            Unscaled(linear) => parts.dora && parts.adapted.has(linear),
            QueryRaw | RstdQuery | KeyRaw | RstdKey => parts.qk_norms,
            AttentionOut | NormAttentionOut | RstdAttentionOut | MlpOut | NormMlpOut | RstdMlpOut => parts.post_norms,
            _ => true,
        }
    }
}

/// A set of activations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ActivationSet(u64);

impl ActivationSet {
    /// None.
    pub const EMPTY: ActivationSet = ActivationSet(0);

    /// The given ones.
    pub fn of(activations: &[Activation]) -> ActivationSet {
        ActivationSet(activations.iter().fold(0, |set, a| set | 1 << a.index()))
    }
    /// Every tensor of the forward.
    pub fn all(parts: Parts) -> ActivationSet {
        ActivationSet(Activation::ALL.iter().enumerate().filter(|(_, a)| a.exists(parts)).fold(0, |set, (i, _)| set | 1 << i))
    }
    /// Whether `activation` is in it.
    pub fn has(self, activation: Activation) -> bool {
        self.0 & (1 << activation.index()) != 0
    }
    /// In both.
    pub fn and(self, other: ActivationSet) -> ActivationSet {
        ActivationSet(self.0 & other.0)
    }
    /// In one of both.
    pub fn or(self, other: ActivationSet) -> ActivationSet {
        ActivationSet(self.0 | other.0)
    }
    /// In this, not in `other`.
    pub fn without(self, other: ActivationSet) -> ActivationSet {
        ActivationSet(self.0 & !other.0)
    }

    /// What [`backward`] reads of the forward, when the block has `parts` and must give `dx` or not.
    pub fn read_by_backward(parts: Parts, dx: bool) -> ActivationSet {
        use Activation::*;
        let adapted = parts.adapted;
        // Inputs of these are read for the gradients of their weights.
        let read = adapted.union(parts.learned.weights);
        let mut list = Vec::with_capacity(ACTIVATIONS);
        let reach = Reach::of(parts, dx);
        list.extend(Linear::ALL.into_iter().filter(|&l| adapted.has(l)).map(Low));
        list.extend(Linear::ALL.into_iter().filter(|&l| parts.dora && adapted.has(l)).map(Unscaled));
        if parts.post_norms {
            list.extend([MlpOut, RstdMlpOut]);
        }
        if read.has(Linear::Down) {
            list.push(Inner);
        }
        if reach.gate_up {
            list.extend([Gate, Up]);
        }
        if read.has_any(&[Linear::Gate, Linear::Up]) {
            list.push(NormMlp);
        }
        if reach.middle {
            list.extend([Middle, RstdMlp]);
        }
        if parts.post_norms && reach.middle {
            list.extend([AttentionOut, RstdAttentionOut]);
        }
        if read.has(Linear::Output) || reach.attention {
            list.push(Mixed);
        }
        if reach.attention {
            list.extend([Query, Key, Value, LogSum]);
        }
        if parts.qk_norms && reach.key {
            list.extend([KeyRaw, RstdKey]);
        }
        if parts.qk_norms && reach.query {
            list.extend([QueryRaw, RstdQuery]);
        }
        if read.has_any(&[Linear::Query, Linear::Key, Linear::Value]) {
            list.push(NormAttention);
        }
        if reach.norm_attention {
            list.push(RstdAttention);
        }
        ActivationSet::of(&list)
    }

    /// What must be computed so that all of `goal` is there, when `saved` is there already.
    pub fn needed_for(goal: ActivationSet, saved: ActivationSet, parts: Parts) -> ActivationSet {
        let mut needed = goal.without(saved);
        for activation in Activation::ALL.iter().rev() {
            if needed.has(*activation) {
                for input in activation.inputs(parts).iter().filter(|input| input.exists(parts) && !saved.has(**input)) {
                    needed = ActivationSet(needed.0 | 1 << input.index());
                }
            }
        }
        needed
    }
}

/// Which parts of a block the gradient must pass on its way down.
#[derive(Clone, Copy)]
struct Reach {
    /// dgate and dup are needed.
    gate_up: bool,
    /// d middle is needed.
    middle: bool,
    /// dq, dk, dv are needed.
    attention: bool,
    /// The gradient of queries goes on to what they are made of.
    query: bool,
    /// The same of keys.
    key: bool,
    /// The gradient of the first norm's output is needed.
    norm_attention: bool,
}

impl Reach {
    fn of(parts: Parts, dx: bool) -> Reach {
        let learned = parts.learned;
        // Trained here in some way, so that the gradient of its output is needed.
        let trained = parts.adapted.union(learned.weights).union(learned.biases);
        let norm_attention = dx || learned.gains;
        let attention = norm_attention || trained.has_any(&[Linear::Query, Linear::Key, Linear::Value]);
        let middle = attention || trained.has(Linear::Output);
        Reach {
            norm_attention,
            attention,
            query: norm_attention || trained.has(Linear::Query),
            key: norm_attention || trained.has(Linear::Key),
            middle,
            gate_up: middle || trained.has_any(&[Linear::Gate, Linear::Up]),
        }
    }
}

/// Where the gradients of a block's own tensors go; `None` for frozen ones.
#[derive(Clone, Copy, Debug, Default)]
pub struct BlockGradients {
    /// By `Linear as usize`, `[out, in]`.
    pub linears: [Option<Slot>; 7],
    /// By `Linear as usize`, `[out]`.
    pub biases: [Option<Slot>; 7],
    /// Of the gain before attention.
    pub attention: Option<Slot>,
    /// Of the gain before the MLP.
    pub mlp: Option<Slot>,
    /// Of the gain of queries.
    pub query: Option<Slot>,
    /// Of the gain of keys.
    pub key: Option<Slot>,
    /// Of the gain after attention.
    pub post_attention: Option<Slot>,
    /// Of the gain after the MLP.
    pub post_mlp: Option<Slot>,
}

impl BlockGradients {
    fn learned(&self) -> Learned {
        let of = |slots: &[Option<Slot>; 7]| {
            Linear::ALL.into_iter().filter(|&linear| slots[linear as usize].is_some()).fold(LinearSet::EMPTY, LinearSet::with)
        };
        Learned { weights: of(&self.linears), biases: of(&self.biases), gains: self.attention.is_some() }
    }
}

/// The adapter of one linear layer: its numbers and where their gradients go.
#[derive(Clone, Copy, Debug)]
pub struct LoraSlots {
    /// `[rank, in]`.
    pub a: Slot,
    /// `[out, rank]`.
    pub b: Slot,
    /// Gradient of `a`, where training.
    pub da: Option<Slot>,
    /// Gradient of `b`, where training.
    pub db: Option<Slot>,
    /// PiSSA's A₀ and B₀, which are frozen and taken off.
    pub start: Option<(Slot, Slot)>,
    /// DoRA's magnitudes.
    pub dora: Option<DoraSlots>,
    /// Inner size.
    pub rank: usize,
    /// Factor s.
    pub scale: f32,
}

/// The magnitudes of one linear layer, all `[out]`.
#[derive(Clone, Copy, Debug)]
pub struct DoraSlots {
    /// Trained.
    pub magnitude: Slot,
    /// Its gradient, where training.
    pub dmagnitude: Option<Slot>,
    /// magnitude / ‖V‖.
    pub gain: Slot,
    /// 1 / ‖V‖.
    pub inverse: Slot,
}

/// One block: its frozen weights and its adapters.
pub struct Block<'a> {
    /// Sizes.
    pub config: &'a ModelConfig,
    /// Which block; names the dropout masks.
    pub layer: usize,
    /// By `Linear as usize`.
    pub linears: [WeightId; 7],
    /// By `Linear as usize`; where the layer has a bias.
    pub biases: [Option<Slot>; 7],
    /// Gains of the norms.
    pub gains: Gains,
    /// By `Linear as usize`.
    pub lora: [Option<LoraSlots>; 7],
    /// Where the gradients of the block's own tensors go, in the backward.
    pub gradients: BlockGradients,
}

/// Gains of a block's norms; those that the family does not have are `None`.
#[derive(Clone, Copy, Debug)]
pub struct Gains {
    /// Before attention.
    pub attention: Slot,
    /// Before the MLP.
    pub mlp: Slot,
    /// Of queries.
    pub query: Option<Slot>,
    /// Of keys.
    pub key: Option<Slot>,
    /// After attention.
    pub post_attention: Option<Slot>,
    /// After the MLP.
    pub post_mlp: Option<Slot>,
}

/// What every norm that a configuration asks for has.
const GAIN: &str = "the model's configuration asks for this norm";

/// Where keys and values come from.
#[derive(Clone, Copy, Debug)]
pub enum Keys<'a> {
    /// The pass's own rows.
    Own,
    /// A cached prefix of `rows` rows, copied before the pass's own rows.
    Prefix {
        /// Rows of the prefix.
        rows: usize,
        /// Its keys in this layer.
        key: Slot,
        /// Its values in this layer.
        value: Slot,
    },
    /// A cache: the pass's rows are put at `rows` of it, and attention reads it.
    Cache {
        /// Cache row of each row of the pass.
        rows: &'a [u32],
        /// Keys of this layer.
        key: Slot,
        /// Values of this layer.
        value: Slot,
        /// How it holds both.
        kv: KvType,
    },
}

/// What a pass gives to every block.
#[derive(Clone, Copy)]
pub struct Pass<'a> {
    /// Rows.
    pub m: usize,
    /// Rows in memory before the pass's own: those of an earlier pass whose keys and values this one reads.
    pub first: usize,
    /// Position of each row.
    pub positions: &'a [u32],
    /// Chains.
    pub runs: &'a RunTable,
    /// Keys of the random draws, and the probability of dropping, where dropout is on.
    pub dropout: Option<(&'a [u64], f32)>,
    /// Keys and values.
    pub keys: Keys<'a>,
    /// Rows whose output is asked for, where those are not all.
    pub needed: Option<&'a NeededRows>,
}

impl<'a> Pass<'a> {
    /// What goes on after keys and values.
    fn after_keys(&self) -> Pass<'a> {
        let Some(needed) = self.needed else { return *self };
        let dropout = self.dropout.map(|(_, p)| (&needed.draw_keys[..], p));
        Pass { m: needed.rows.len(), positions: &needed.positions, runs: &needed.runs, dropout, needed: None, ..*self }
    }
}

/// Places of a block's forward tensors, for as many rows as planned.
#[derive(Clone, Debug)]
pub struct Slots {
    /// By [`Activation::index`].
    pub forward: [Option<Slot>; ACTIVATIONS],
    /// `drop(x)`, as wide as the widest input; where dropout is on.
    pub dropped: Option<Slot>,
    /// Normed input of the needed rows, `[m, hidden]`.
    pub needed: Option<Slot>,
    /// Which of them have a place for every row in memory; the others belong to the pass at work.
    pub saved: ActivationSet,
}

impl Default for Slots {
    fn default() -> Slots {
        Slots { forward: [None; ACTIVATIONS], dropped: None, needed: None, saved: ActivationSet::EMPTY }
    }
}

impl Slots {
    /// The place of `activation`, of `width` elements a row, for the rows of `pass`.
    fn at(&self, activation: Activation, pass: &Pass<'_>, width: usize) -> Slot {
        let before = if self.saved.has(activation) { pass.first } else { 0 };
        self.whole(activation, (before + pass.m) * width).part(before * width, pass.m * width)
    }

    /// The needed rows of the normed block input.
    fn gather_needed<D: Device>(&self, device: &mut D, needed: &NeededRows, norm: Slot, hidden: usize) -> Slot {
        let place = self.needed.expect("uses have a place for it").part(0, needed.rows.len() * hidden);
        device.gather(place, norm, &needed.rows, hidden);
        place
    }

    /// The first `len` elements of the place of `activation`.
    fn whole(&self, activation: Activation, len: usize) -> Slot {
        self.forward[activation.index()].unwrap_or_else(|| panic!("{activation:?} has no place")).part(0, len)
    }
}

/// Places of the gradients of a block.
#[derive(Clone, Copy, Debug)]
pub struct GradientSlots {
    /// Gradient of the residual stream, `[m, hidden]`: of the block's output on entry, of its input on return.
    pub dx: Slot,
    /// Gradient of a norm's output, `[m, hidden]`; or of the input of a norm before the residual stream.
    pub dnorm: Slot,
    /// Gradient of `Inner`, `[m, intermediate]`.
    pub dinner: Slot,
    /// Gradient of `Gate`.
    pub dgate: Slot,
    /// Gradient of `Up`.
    pub dup: Slot,
    /// Gradient of `Mixed`.
    pub dmixed: Slot,
    /// Gradient of `Query`.
    pub dquery: Slot,
    /// Gradient of `Key`, of every row in memory.
    pub dkey: Slot,
    /// Gradient of `Value`, of every row in memory.
    pub dvalue: Slot,
    /// Whether later passes have added to `dkey` and `dvalue` already.
    pub read_by_others: bool,
    /// Gradient of `Low`, as wide as it.
    pub dlow: Slot,
    /// Gradient of `Unscaled`, as wide as the widest output; with DoRA.
    pub dunscaled: Option<Slot>,
    /// Gradient of `QueryRaw`, where there is one.
    pub dquery_raw: Option<Slot>,
    /// Gradient of `KeyRaw`, where there is one.
    pub dkey_raw: Option<Slot>,
    /// Gradients of needed rows on their way to their places, `[m, hidden]`.
    pub dneeded: Slot,
}

impl Block<'_> {
    /// Which linear layers carry adapters.
    pub fn adapted(&self) -> LinearSet {
        Linear::ALL.into_iter().filter(|&l| self.lora[l as usize].is_some()).fold(LinearSet::default(), LinearSet::with)
    }

    /// Which optional parts it has.
    pub fn parts(&self) -> Parts {
        let dora = self.lora.iter().flatten().any(|lora| lora.dora.is_some());
        Parts::of(self.config, self.adapted(), dora, self.gradients.learned())
    }

    fn attention_shape(&self) -> AttentionShape {
        AttentionShape {
            heads: self.config.heads,
            kv_heads: self.config.kv_heads,
            head_dim: self.config.head_dim,
            window: self.config.attention[self.layer].window,
            scale: self.config.attention_scale,
            softcap: self.config.attention_softcap,
            kv: KvType::F32,
        }
    }

    /// Turns `heads` heads by their rows' positions, where this layer does; the transpose of that in the backward.
    fn turn<D: Device>(&self, device: &mut D, x: Slot, pass: &Pass<'_>, heads: usize, transposed: bool) {
        if let Some(rotary) = self.config.attention[self.layer].rotary {
            device.rotary(x, pass.positions, heads, self.config.head_dim, &self.config.rotary[rotary], transposed);
        }
    }

    /// Names the dropout masks of one linear layer. Fused layers have one input and one A: one mask.
    fn module(&self, linear: Linear) -> u32 {
        (self.layer * Linear::ALL.len()) as u32 + self.config.fused_with(linear)[0] as u32
    }
}

/// The block forward: makes the tensors of `make` in `slots`, reading `x[m, hidden]` and whatever of
/// `slots` is not in `make`. `Output` goes to `y`, which may not be `x`: where not all rows are needed, those that are.
pub fn forward<D: Device>(device: &mut D, block: &Block<'_>, pass: &Pass<'_>, slots: &Slots, x: Slot, y: Slot, make: ActivationSet) {
    use Activation::*;
    let (c, m, after) = (block.config, pass.m, &pass.after_keys());
    let (q_width, kv_width) = (c.heads * c.head_dim, c.kv_heads * c.head_dim);
    let at_all = |activation: Activation| slots.at(activation, pass, activation.width(c, 0));
    let at = |activation: Activation| slots.at(activation, after, activation.width(c, 0));
    let project_all = Project { block, pass, slots, make, dunscaled: None };
    let project = Project { pass: after, ..project_all };
    let y = y.part(0, after.m * c.hidden);

    if make.has(NormAttention) || make.has(RstdAttention) {
        device.rms_norm(at_all(NormAttention), at_all(RstdAttention), x, block.gains.attention, m, c.hidden, c.norm_eps);
    }
    let before = match pass.keys {
        Keys::Prefix { rows, .. } => rows,
        Keys::Own | Keys::Cache { .. } => pass.first,
    };
    let (key, value) = (slots.whole(Key, (before + m) * kv_width), slots.whole(Value, (before + m) * kv_width));
    let (key_own, value_own) = (key.part(before * kv_width, m * kv_width), value.part(before * kv_width, m * kv_width));
    let parts = block.parts();
    if parts.qk_norms {
        project_all.forward(device, Linear::Key, KeyRaw, || (at_all(KeyRaw), at_all(NormAttention)), false);
        if make.has(Key) || make.has(RstdKey) {
            let gain = block.gains.key.expect(GAIN);
            device.rms_norm(key_own, at_all(RstdKey), at_all(KeyRaw), gain, m * c.kv_heads, c.head_dim, c.norm_eps);
        }
    } else {
        project_all.forward(device, Linear::Key, Key, || (key_own, at_all(NormAttention)), false);
    }
    if make.has(Key) || (parts.qk_norms && make.has(RstdKey)) {
        block.turn(device, key_own, pass, c.kv_heads, false);
    }
    project_all.forward(device, Linear::Value, Value, || (value_own, at_all(NormAttention)), false);
    let mut shape = block.attention_shape();
    let (key, value) = match pass.keys {
        Keys::Prefix { rows, key: prefix_key, value: prefix_value } if make.has(Mixed) || make.has(LogSum) => {
            device.copy(key.part(0, rows * kv_width), prefix_key.part(0, rows * kv_width));
            device.copy(value.part(0, rows * kv_width), prefix_value.part(0, rows * kv_width));
            (key, value)
        }
        Keys::Cache { rows, key: cache_key, value: cache_value, kv } if make.has(Key) && make.has(Value) => {
            shape.kv = kv;
            device.store_keys(cache_key, key, rows, shape);
            device.store_keys(cache_value, value, rows, shape);
            (cache_key, cache_value)
        }
        _ => (key, value),
    };
    if after.m == 0 {
        return;
    }
    let query_made = if parts.qk_norms { QueryRaw } else { Query };
    let query_input = match pass.needed {
        Some(needed) if [query_made, Low(Linear::Query), Unscaled(Linear::Query)].iter().any(|&made| make.has(made)) => {
            slots.gather_needed(device, needed, at_all(NormAttention), c.hidden)
        }
        _ => at(NormAttention),
    };
    project.forward(device, Linear::Query, query_made, || (at(query_made), query_input), false);
    if make.has(Query) || (parts.qk_norms && make.has(RstdQuery)) {
        if parts.qk_norms {
            let gain = block.gains.query.expect(GAIN);
            device.rms_norm(at(Query), at(RstdQuery), at(QueryRaw), gain, after.m * c.heads, c.head_dim, c.norm_eps);
        }
        block.turn(device, at(Query), after, c.heads, false);
    }
    if make.has(Mixed) || make.has(LogSum) {
        device.attention(at(Mixed), at(LogSum), at(Query), key, value, after.runs, shape);
    }
    debug_assert_eq!(q_width, Mixed.width(c, 0));
    if parts.post_norms {
        project.forward(device, Linear::Output, AttentionOut, || (at(AttentionOut), at(Mixed)), false);
        if make.has(NormAttentionOut) || make.has(RstdAttentionOut) {
            let gain = block.gains.post_attention.expect(GAIN);
            device.rms_norm(at(NormAttentionOut), at(RstdAttentionOut), at(AttentionOut), gain, after.m, c.hidden, c.norm_eps);
        }
    }
    if make.has(Middle) {
        match pass.needed {
            None => device.copy(at(Middle), x),
            Some(needed) => device.gather(at(Middle), x, &needed.rows, c.hidden),
        }
        if parts.post_norms {
            device.add(at(Middle), at(NormAttentionOut));
        }
    }
    if !parts.post_norms {
        project.forward(device, Linear::Output, Middle, || (at(Middle), at(Mixed)), true);
    }
    if make.has(NormMlp) || make.has(RstdMlp) {
        device.rms_norm(at(NormMlp), at(RstdMlp), at(Middle), block.gains.mlp, after.m, c.hidden, c.norm_eps);
    }
    project.forward(device, Linear::Gate, Gate, || (at(Gate), at(NormMlp)), false);
    project.forward(device, Linear::Up, Up, || (at(Up), at(NormMlp)), false);
    if make.has(Inner) {
        device.gate(at(Inner), at(Gate), at(Up), c.gate);
    }
    if parts.post_norms {
        project.forward(device, Linear::Down, MlpOut, || (at(MlpOut), at(Inner)), false);
        if make.has(NormMlpOut) || make.has(RstdMlpOut) {
            let gain = block.gains.post_mlp.expect(GAIN);
            device.rms_norm(at(NormMlpOut), at(RstdMlpOut), at(MlpOut), gain, after.m, c.hidden, c.norm_eps);
        }
    }
    if make.has(Output) {
        device.copy(y, at(Middle));
        if parts.post_norms {
            device.add(y, at(NormMlpOut));
        }
    }
    if !parts.post_norms {
        project.forward(device, Linear::Down, Output, || (y, at(Inner)), true);
    }
}

/// The block backward: `gradients.dx` holds dy of the needed rows on entry and, if `dx` is asked for, the gradient of the block
/// input on return. Gradients of the adapters are added to. Everything in
/// [`ActivationSet::read_by_backward`] must be in `slots`.
pub fn backward<D: Device>(
    device: &mut D,
    block: &Block<'_>,
    pass: &Pass<'_>,
    slots: &Slots,
    gradients: &GradientSlots,
    x: Slot,
    dx: bool,
) {
    use Activation::*;
    let (c, m, after) = (block.config, pass.m, &pass.after_keys());
    let kv_width = c.kv_heads * c.head_dim;
    let at_all = |activation: Activation| slots.at(activation, pass, activation.width(c, 0));
    let at = |activation: Activation| slots.at(activation, after, activation.width(c, 0));
    let parts = block.parts();
    let (reach, learned) = (Reach::of(parts, dx), &block.gradients);
    let project_all = Project { block, pass, slots, make: ActivationSet::EMPTY, dunscaled: gradients.dunscaled };
    let project = Project { pass: after, ..project_all };
    let dlow = gradients.dlow;
    let own = |slot: Slot| slot.part(pass.first * kv_width, m * kv_width);
    let (dkey, dvalue) = (own(gradients.dkey), own(gradients.dvalue));
    if after.m > 0 {
        backward_to_attention_out(device, &project, gradients, reach);
    }
    if !reach.attention {
        return;
    }
    if !gradients.read_by_others {
        device.zero(dkey);
        device.zero(dvalue);
    }
    // mixed = attention(q, k, v)
    let q_width = c.heads * c.head_dim;
    let dquery = gradients.dquery.part(0, after.m * q_width);
    if after.m > 0 {
        let keys = (pass.first + m) * kv_width;
        device.attention_backward(
            dquery,
            gradients.dkey.part(0, keys),
            gradients.dvalue.part(0, keys),
            gradients.dmixed.part(0, after.m * q_width),
            at(Mixed),
            at(LogSum),
            at(Query),
            slots.whole(Key, keys),
            slots.whole(Value, keys),
            after.runs,
            block.attention_shape(),
        );
    }
    // q, k, v = Wq n1, Wk n1, Wv n1
    let dnorm = gradients.dnorm.part(0, m * c.hidden);
    let dnorm_attention = reach.norm_attention.then_some(dnorm);
    project_all.backward(device, Linear::Value, dnorm_attention, dvalue, at_all(NormAttention), dlow, false);
    let dkey = if reach.key {
        block.turn(device, dkey, pass, c.kv_heads, true);
        // key = rms_norm(key_raw)
        let gain = block.gains.key.filter(|_| parts.qk_norms);
        gain.map_or(dkey, |gain| {
            let dkey_raw = gradients.dkey_raw.expect(GAIN).part(0, m * kv_width);
            device.zero(dkey_raw);
            device.rms_norm_backward(dkey_raw, dkey, at_all(KeyRaw), gain, at_all(RstdKey), m * c.kv_heads, c.head_dim);
            gain_gradient(device, learned.key, dkey, at_all(KeyRaw), at_all(RstdKey));
            dkey_raw
        })
    } else {
        dkey
    };
    project_all.backward(device, Linear::Key, dnorm_attention, dkey, at_all(NormAttention), dlow, true);
    if after.m > 0 {
        let dquery = if reach.query {
            block.turn(device, dquery, after, c.heads, true);
            // query = rms_norm(query_raw)
            let gain = block.gains.query.filter(|_| parts.qk_norms);
            gain.map_or(dquery, |gain| {
                let dquery_raw = gradients.dquery_raw.expect(GAIN).part(0, after.m * q_width);
                device.zero(dquery_raw);
                device.rms_norm_backward(dquery_raw, dquery, at(QueryRaw), gain, at(RstdQuery), after.m * c.heads, c.head_dim);
                gain_gradient(device, learned.query, dquery, at(QueryRaw), at(RstdQuery));
                dquery_raw
            })
        } else {
            dquery
        };
        match pass.needed {
            None => project.backward(device, Linear::Query, dnorm_attention, dquery, at(NormAttention), dlow, true),
            Some(needed) => {
                let input = slots.gather_needed(device, needed, at_all(NormAttention), c.hidden);
                let dneeded = gradients.dneeded.part(0, after.m * c.hidden);
                project.backward(device, Linear::Query, dnorm_attention.map(|_| dneeded), dquery, input, dlow, false);
                if let Some(dnorm) = dnorm_attention {
                    device.scatter_add(dnorm, dneeded, &needed.rows, c.hidden);
                }
            }
        }
    }
    // n1 = rms_norm(x): dstream becomes the gradient of x
    if reach.norm_attention {
        gain_gradient(device, learned.attention, dnorm, x, at_all(RstdAttention));
    }
    if dx {
        let dstream = gradients.dx.part(0, m * c.hidden);
        if let Some(needed) = pass.needed {
            // From side by side to their places.
            let dneeded = gradients.dneeded.part(0, after.m * c.hidden);
            device.copy(dneeded, dstream.part(0, after.m * c.hidden));
            device.zero(dstream);
            device.scatter_add(dstream, dneeded, &needed.rows, c.hidden);
        }
        device.rms_norm_backward(dstream, dnorm, x, block.gains.attention, at_all(RstdAttention), m, c.hidden);
    }
}

/// From the block's output to what attention mixed: the part of [`backward`] that is of the needed rows alone, which are
/// `project.pass`.
fn backward_to_attention_out<D: Device>(device: &mut D, project: &Project<'_>, gradients: &GradientSlots, reach: Reach) {
    use Activation::*;
    let Project { block, pass, slots, .. } = *project;
    let (c, m) = (block.config, pass.m);
    let q_width = c.heads * c.head_dim;
    let at = |activation: Activation| slots.at(activation, pass, activation.width(c, 0));
    let (parts, learned, dlow) = (block.parts(), &block.gradients, gradients.dlow);
    let dstream = gradients.dx.part(0, m * c.hidden);
    let dnorm = gradients.dnorm.part(0, m * c.hidden);

    // y = middle + mlp_out, perhaps normed
    let dmlp_out = if parts.post_norms {
        let gain = block.gains.post_mlp.expect(GAIN);
        device.zero(dnorm);
        device.rms_norm_backward(dnorm, dstream, at(MlpOut), gain, at(RstdMlpOut), m, c.hidden);
        gain_gradient(device, learned.post_mlp, dstream, at(MlpOut), at(RstdMlpOut));
        dnorm
    } else {
        dstream
    };
    // mlp_out = Wd inner
    let dinner = gradients.dinner.part(0, m * c.intermediate);
    project.backward(device, Linear::Down, reach.gate_up.then_some(dinner), dmlp_out, at(Inner), dlow, false);
    if !reach.gate_up {
        return;
    }
    // inner = act(gate) · up
    let (dgate, dup) = (gradients.dgate.part(0, m * c.intermediate), gradients.dup.part(0, m * c.intermediate));
    device.gate_backward(dgate, dup, dinner, at(Gate), at(Up), c.gate);
    // gate, up = Wg n2, Wu n2
    let dnorm_mlp = reach.middle.then_some(dnorm);
    project.backward(device, Linear::Up, dnorm_mlp, dup, at(NormMlp), dlow, false);
    project.backward(device, Linear::Gate, dnorm_mlp, dgate, at(NormMlp), dlow, true);
    if !reach.middle {
        return;
    }
    // n2 = rms_norm(middle): dstream becomes the gradient of middle
    device.rms_norm_backward(dstream, dnorm, at(Middle), block.gains.mlp, at(RstdMlp), m, c.hidden);
    gain_gradient(device, learned.mlp, dnorm, at(Middle), at(RstdMlp));
    // middle = x + attention_out, perhaps normed
    let dattention_out = if parts.post_norms {
        let gain = block.gains.post_attention.expect(GAIN);
        device.zero(dnorm);
        device.rms_norm_backward(dnorm, dstream, at(AttentionOut), gain, at(RstdAttentionOut), m, c.hidden);
        gain_gradient(device, learned.post_attention, dstream, at(AttentionOut), at(RstdAttentionOut));
        dnorm
    } else {
        dstream
    };
    // attention_out = Wo mixed
    let dmixed = gradients.dmixed.part(0, m * q_width);
    project.backward(device, Linear::Output, reach.attention.then_some(dmixed), dattention_out, at(Mixed), dlow, false);
}

/// dgain += Σ dy · x · rstd, where the gain is trained.
fn gain_gradient<D: Device>(device: &mut D, dgain: Option<Slot>, dy: Slot, x: Slot, rstd: Slot) {
    if let Some(dgain) = dgain {
        device.column_sums(dgain, dy, Some(x), Some(rstd), None);
    }
}

/// A linear layer with its adapter and its bias: y = W x + s · B (A drop(x)) + b, or with magnitudes as the module says.
#[derive(Clone, Copy)]
struct Project<'a> {
    block: &'a Block<'a>,
    pass: &'a Pass<'a>,
    slots: &'a Slots,
    make: ActivationSet,
    /// In the backward, with DoRA.
    dunscaled: Option<Slot>,
}

impl Project<'_> {
    /// Makes `Low(linear)`, `Unscaled(linear)` and `y`, those of them that are asked for.
    fn forward<D: Device>(
        &self,
        device: &mut D,
        linear: Linear,
        made: Activation,
        y_and_x: impl FnOnce() -> (Slot, Slot),
        accumulate: bool,
    ) {
        let make = |activation| self.make.has(activation);
        let (make_y, make_low, make_unscaled) = (make(made), make(Activation::Low(linear)), make(Activation::Unscaled(linear)));
        if !make_y && !make_low && !make_unscaled {
            return;
        }
        let (y, x) = y_and_x();
        let (m, (n, k)) = (self.pass.m, self.block.config.linear_shape(linear));
        let w = self.block.linears[linear as usize];
        let Some(lora) = self.block.lora[linear as usize] else {
            device.linear(y, x, w, m, accumulate);
            return self.add_bias(device, linear, y);
        };
        let low = self.slots.at(Activation::Low(linear), self.pass, lora.rank);
        if make_low {
            let x = self.dropped(device, linear, x, k);
            device.matmul(low, x, lora.a, product(m, lora.rank, k, false, true, 1.0, false));
        }
        if make_unscaled {
            let (x, u) = (self.dropped(device, linear, x, k), self.slots.at(Activation::Unscaled(linear), self.pass, n));
            device.linear(u, x, w, m, false);
            device.matmul(u, low, lora.b, product(m, n, lora.rank, false, true, lora.scale, true));
        }
        if !make_y {
            return;
        }
        if let Some(dora) = lora.dora {
            let u = self.slots.at(Activation::Unscaled(linear), self.pass, n);
            let rest = self.rest(device, linear, x, k);
            if let Some(rest) = rest {
                device.linear(y, rest, w, m, accumulate);
            }
            device.scale_columns(y, u, dora.gain, accumulate || rest.is_some());
        } else {
            device.linear(y, x, w, m, accumulate);
            device.matmul(y, low, lora.b, product(m, n, lora.rank, false, true, lora.scale, true));
        }
        if let Some((a, b)) = lora.start {
            // In the half of the place that no pass's `Low` lies in.
            let whole = self.slots.forward[Activation::Low(linear).index()].expect("an adapted layer has a place");
            let low = whole.part(whole.len / 2, m * lora.rank);
            device.matmul(low, x, a, product(m, lora.rank, k, false, true, 1.0, false));
            device.matmul(y, low, b, product(m, n, lora.rank, false, true, -lora.scale, true));
        }
        self.add_bias(device, linear, y);
    }

    fn add_bias<D: Device>(&self, device: &mut D, linear: Linear, y: Slot) {
        if let Some(bias) = self.block.biases[linear as usize] {
            device.add_rows(y, bias);
        }
    }

    /// Without an adapter: dW += dyᵀ x and db += Σ dy where they are trained, and dx = (or +=) dy W. With one:
    /// dB += s duᵀ low, dA += (s du B)ᵀ drop(x), and dx = (or +=) dy W + drop(s du B A), where du is dy without magnitudes. With
    /// them it is g · dy, dm += Σ dy · u / ‖V‖, and dx = (or +=) du W, or dy W + drop((du − dy) W) under dropout.
    fn backward<D: Device>(&self, device: &mut D, linear: Linear, dx: Option<Slot>, dy: Slot, x: Slot, dlow: Slot, accumulate: bool) {
        let (m, (n, k)) = (self.pass.m, self.block.config.linear_shape(linear));
        let w = self.block.linears[linear as usize];
        let Some(lora) = self.block.lora[linear as usize] else {
            if let Some(dw) = self.block.gradients.linears[linear as usize] {
                device.matmul(dw, dy, x, product(n, k, m, true, false, 1.0, true));
            }
            if let Some(dbias) = self.block.gradients.biases[linear as usize] {
                device.column_sums(dbias, dy, None, None, None);
            }
            if let Some(dx) = dx {
                device.linear_backward(dx, dy, w, m, accumulate);
            }
            return;
        };
        let (r, s) = (lora.rank, lora.scale);
        let (low, dlow, dlow_start) = (self.slots.at(Activation::Low(linear), self.pass, r), dlow.part(0, m * r), dlow);
        let (da, db) = lora.da.zip(lora.db).expect("an adapter in backward has gradients");
        let du = match lora.dora {
            None => dy,
            Some(dora) => {
                let du = self.dunscaled.expect("DoRA has a place").part(0, m * n);
                let dmagnitude = dora.dmagnitude.expect("an adapter in backward has gradients");
                device.column_sums(
                    dmagnitude,
                    dy,
                    Some(self.slots.at(Activation::Unscaled(linear), self.pass, n)),
                    None,
                    Some(dora.inverse),
                );
                device.scale_columns(du, dy, dora.gain, false);
                du
            }
        };
        device.matmul(db, du, low, product(n, r, m, true, false, s, true));
        device.matmul(dlow, du, lora.b, product(m, r, n, false, false, s, false));
        let x = self.dropped(device, linear, x, k);
        device.matmul(da, dlow, x, product(r, k, m, true, false, 1.0, true));
        let Some(dx) = dx else { return };
        match self.pass.dropout {
            None => {
                device.linear_backward(dx, du, w, m, accumulate);
                device.matmul(dx, dlow, lora.a, product(m, k, r, false, false, 1.0, true));
            }
            Some((keys, p)) => {
                device.linear_backward(dx, dy, w, m, accumulate);
                let through = self.slots.dropped.expect("dropout has a place").part(0, m * k);
                if lora.dora.is_some() {
                    // du becomes dy − du, and `through` the other sign.
                    device.scale(du, -1.0);
                    device.add(du, dy);
                    device.linear_backward(through, du, w, m, false);
                    device.scale(through, -1.0);
                }
                device.matmul(through, dlow, lora.a, product(m, k, r, false, false, 1.0, lora.dora.is_some()));
                device.dropout(dx, through, keys, self.block.module(linear), p, k, true);
            }
        }
        if let Some((a, b)) = lora.start {
            let dlow = dlow_start.part(dlow_start.len / 2, m * r);
            device.matmul(dlow, dy, b, product(m, r, n, false, false, -s, false));
            device.matmul(dx, dlow, a, product(m, k, r, false, false, 1.0, true));
        }
    }

    /// x − drop(x), in the place of drop(x); `None` where nothing is dropped.
    fn rest<D: Device>(&self, device: &mut D, linear: Linear, x: Slot, k: usize) -> Option<Slot> {
        let (keys, p) = self.pass.dropout?;
        let rest = self.slots.dropped.expect("dropout has a place").part(0, self.pass.m * k);
        device.copy(rest, x);
        device.scale(rest, -1.0);
        device.dropout(rest, x, keys, self.block.module(linear), p, k, true);
        device.scale(rest, -1.0);
        Some(rest)
    }

    /// drop(x), or x where nothing is dropped.
    fn dropped<D: Device>(&self, device: &mut D, linear: Linear, x: Slot, k: usize) -> Slot {
        let Some((keys, p)) = self.pass.dropout else { return x };
        let dropped = self.slots.dropped.expect("dropout has a place").part(0, self.pass.m * k);
        device.dropout(dropped, x, keys, self.block.module(linear), p, k, false);
        dropped
    }
}

fn product(m: usize, n: usize, k: usize, a_transposed: bool, b_transposed: bool, alpha: f32, accumulate: bool) -> Product {
    Product { m, n, k, a_transposed, b_transposed, alpha, accumulate }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(adapted: LinearSet) -> Parts {
        Parts { adapted, dora: false, learned: Learned::default(), qk_norms: false, post_norms: false }
    }

    #[test]
    fn every_activation_has_its_index() {
        for (i, activation) in Activation::ALL.iter().enumerate() {
            assert_eq!(activation.index(), i);
            for (qk_norms, post_norms, dora) in [(false, false, false), (false, true, true), (true, false, true), (true, true, false)] {
                let parts = Parts { dora, qk_norms, post_norms, ..parts(LinearSet::of(&Linear::ALL)) };
                let inputs = activation.inputs(parts);
                assert!(inputs.iter().all(|input| input.index() < i), "{activation:?} reads something later");
                let optional = |input: &Activation| matches!(input, Activation::Unscaled(_));
                let there = inputs.iter().all(|input| input.exists(parts) || optional(input));
                assert!(there || !activation.exists(parts), "{activation:?} reads what {parts:?} does not have");
            }
        }
    }

    #[test]
    fn gradients_stop_at_the_lowest_adapter() {
        let down = parts(LinearSet::of(&[Linear::Down]));
        assert_eq!(ActivationSet::read_by_backward(down, false), ActivationSet::of(&[Activation::Inner, Activation::Low(Linear::Down)]));
        let value = parts(LinearSet::of(&[Linear::Value]));
        assert!(ActivationSet::read_by_backward(value, false).has(Activation::LogSum));
        assert!(!ActivationSet::read_by_backward(value, false).has(Activation::RstdAttention));
        // Norms of queries and keys are passed only on the way to their adapters or to the block's input.
        let normed =
            |adapted: Linear, dx| ActivationSet::read_by_backward(Parts { qk_norms: true, ..parts(LinearSet::of(&[adapted])) }, dx);
        assert!(!normed(Linear::Value, false).has(Activation::QueryRaw) && normed(Linear::Value, true).has(Activation::QueryRaw));
        assert!(normed(Linear::Key, false).has(Activation::RstdKey) && !normed(Linear::Key, false).has(Activation::RstdQuery));
    }

    #[test]
    fn what_is_not_saved_is_made_with_all_it_reads() {
        let adapted = parts(LinearSet::of(&[Linear::Down]));
        let saved = ActivationSet::of(&[Activation::Gate, Activation::Up]);
        let goal = ActivationSet::of(&[Activation::Inner, Activation::Low(Linear::Down), Activation::Gate]);
        assert_eq!(ActivationSet::needed_for(goal, saved, adapted), ActivationSet::of(&[Activation::Inner, Activation::Low(Linear::Down)]));
        let all = ActivationSet::needed_for(goal, ActivationSet::EMPTY, adapted);
        assert!(all.has(Activation::NormAttention) && all.has(Activation::Mixed) && !all.has(Activation::Output));
        assert!(!all.has(Activation::QueryRaw) && !all.has(Activation::AttentionOut));
        let normed = Parts { qk_norms: true, post_norms: true, ..adapted };
        let all = ActivationSet::needed_for(goal, ActivationSet::EMPTY, normed);
        assert!(all.has(Activation::QueryRaw) && all.has(Activation::AttentionOut) && !all.has(Activation::MlpOut));
    }
}
