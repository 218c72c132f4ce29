//! A loaded model on a device: its weights, perhaps an adapter, and the memory of its passes.

use std::{borrow::Cow, collections::BTreeMap, ops::Range};

use crate::{
    adapter::{Adapter, LoraConfig, LoraPair, LoraTensors},
    batch::{Batch, BatchError, HeadEntry, NeededRows, RunTable, head_entries, pass_table, run_table},
    block::{self, ActivationSet, Block, BlockGradients, DoraSlots, Gains, GradientSlots, Keys, LoraSlots, Pass},
    config::{Linear, ModelConfig, TensorName},
    device::{Device, SharedBytes, Slot, Storage, Stored, WeightId},
    error::EngineError,
    full::{FullConfig, FullPlaces},
    memory::{self, MemoryPlan, Trained, Uses, Workspace},
};

/// A base tensor as its source stores it.
#[derive(Clone, Debug)]
pub struct TensorView<'a> {
    /// How the numbers are stored.
    pub storage: Storage,
    /// Outputs of a linear layer, tokens of an embedding; 1 for gains and biases.
    pub rows: usize,
    /// Inputs, channels.
    pub cols: usize,
    /// Row-major numbers, little endian, or rows of blocks as [`Storage`] says.
    pub bytes: Cow<'a, [u8]>,
    /// Added to every number of a gain: 1 where the source holds what is added to 1. Of matrices it is 0.
    pub offset: f32,
}

/// Why a source does not give a tensor.
#[derive(Debug)]
pub enum SourceError {
    /// It has none of that name.
    Missing,
    /// It has, but cannot read it.
    Unreadable(std::io::Error),
}

/// A matrix whose bytes outlive the loading, for a device that reads them where they lie.
#[derive(Clone)]
pub struct SharedTensor {
    /// How the numbers are stored.
    pub storage: Storage,
    /// Outputs of a linear layer, tokens of an embedding.
    pub rows: usize,
    /// Inputs, channels.
    pub cols: usize,
    /// Rows one after the other, as [`TensorView::bytes`].
    pub bytes: SharedBytes,
}

/// Where base weights come from. A tensor is asked for once and may be read at that moment.
pub trait WeightSource {
    /// The tensor `name`. The head of a model with tied embeddings is never asked for.
    fn tensor(&self, name: TensorName) -> Result<TensorView<'_>, SourceError>;

    /// A matrix that is not trained, where its bytes may stay where they are; else `None`, and it is asked for by
    /// [`WeightSource::tensor`].
    fn shared(&self, _: TensorName) -> Result<Option<SharedTensor>, SourceError> {
        Ok(None)
    }
}

/// The frozen weights on the device.
struct Weights {
    embedding: WeightId,
    head: WeightId,
    linears: Vec<[WeightId; 7]>,
    /// Gains and biases.
    vectors: BTreeMap<TensorName, Slot>,
}

/// Which part of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AdapterHalf {
    /// `[rank, in]`.
    A,
    /// `[out, rank]`.
    B,
    /// DoRA's magnitudes, `[out]`.
    Magnitude,
}

/// Where the pairs of an adapter lie in an arena of adapter parameters, gradients or moments.
pub(crate) struct AdapterPlaces {
    places: BTreeMap<(usize, Linear), PairPlaces>,
    pub(crate) len: usize,
}

/// Where one pair lies.
#[derive(Clone)]
struct PairPlaces {
    a: Range<usize>,
    b: Range<usize>,
    /// Of no length without DoRA.
    magnitude: Range<usize>,
    /// Where the magnitudes' scales lie in an arena of scales, and as far behind all of them their inverses.
    scales: Range<usize>,
}

impl AdapterPlaces {
    pub(crate) fn of(lora: &LoraConfig, config: &ModelConfig) -> AdapterPlaces {
        let (mut places, mut len, mut scaled) = (BTreeMap::new(), 0, 0);
        for (layer, linear) in lora.places(config) {
            let (out, inner) = config.adapter_shape(linear);
            let magnitudes = lora.magnitudes(config, linear);
            let a = len..len + lora.rank * inner;
            let b = a.end..a.end + out * lora.rank;
            let magnitude = b.end..b.end + magnitudes;
            let scales = scaled..scaled + magnitudes;
            (len, scaled) = (magnitude.end, scales.end);
            places.insert((layer, linear), PairPlaces { a, b, magnitude, scales });
        }
        AdapterPlaces { places, len }
    }

    /// Every pair's parts, in the order in which they lie.
    pub(crate) fn parts(&self) -> impl Iterator<Item = ((usize, Linear, AdapterHalf), Range<usize>)> {
        let parts = |(&(layer, linear), p): (&(usize, Linear), &PairPlaces)| {
            let parts = [(AdapterHalf::A, p.a.clone()), (AdapterHalf::B, p.b.clone()), (AdapterHalf::Magnitude, p.magnitude.clone())];
            parts.map(|(half, range)| ((layer, linear, half), range))
        };
        self.places.iter().flat_map(parts).filter(|(_, range)| !range.is_empty())
    }

    /// The numbers of an arena by name.
    pub(crate) fn split<T: Copy>(&self, flat: &[T]) -> BTreeMap<(usize, Linear), PairOf<T>> {
        let of = |range: &Range<usize>| flat[range.clone()].to_vec();
        self.places.iter().map(|(&place, p)| (place, PairOf { a: of(&p.a), b: of(&p.b), magnitude: of(&p.magnitude) })).collect()
    }

    fn tensors(&self, flat: &[f32]) -> LoraTensors {
        let pair = |PairOf { a, b, magnitude }| LoraPair { a, b, magnitude };
        self.split(flat).into_iter().map(|(place, parts)| (place, pair(parts))).collect()
    }

    fn flat(&self, tensors: &LoraTensors) -> Vec<f32> {
        let mut flat = vec![0.0; self.len];
        for (place, p) in &self.places {
            let pair = &tensors[place];
            for (range, values) in [(&p.a, &pair.a), (&p.b, &pair.b), (&p.magnitude, &pair.magnitude)] {
                flat[range.clone()].copy_from_slice(values);
            }
        }
        flat
    }
}

/// The parts of a pair, or of its gradient, in any precision.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PairOf<T> {
    /// `[rank, in]`.
    pub a: Vec<T>,
    /// `[out, rank]`.
    pub b: Vec<T>,
    /// `[out]` with DoRA, else empty.
    pub magnitude: Vec<T>,
}

/// An adapter on the device.
pub(crate) struct Attached {
    pub(crate) config: LoraConfig,
    pub(crate) places: AdapterPlaces,
    pub(crate) parameters: Slot,
    /// DoRA's scales and then their inverses, or PiSSA's start, laid out as the parameters are; of no length without either.
    derived: Slot,
}

impl Attached {
    fn lora(&self, config: &ModelConfig, layer: usize, gradient: Option<Slot>) -> [Option<LoraSlots>; 7] {
        Linear::ALL.map(|linear| {
            // Fused layers have one A, and each its rows of B.
            let members = config.fused_with(linear);
            let places = self.places.places.get(&(layer, members[0]))?;
            let before: usize = members.iter().take_while(|&&member| member != linear).map(|&m| config.linear_shape(m).0).sum();
            let (rows, rank) = (config.linear_shape(linear).0, self.config.rank);
            let part = |slot: Slot, range: &Range<usize>| slot.part(range.start, range.len());
            let of_rows = |slot: Slot, range: &Range<usize>, width: usize| slot.part(range.start + before * width, rows * width);
            let (a, b) = (&places.a, &places.b);
            let dora = self.config.dora.then(|| {
                let inverses = self.derived.part(self.derived.len / 2, self.derived.len / 2);
                DoraSlots {
                    magnitude: of_rows(self.parameters, &places.magnitude, 1),
                    dmagnitude: gradient.map(|slot| of_rows(slot, &places.magnitude, 1)),
                    gain: of_rows(self.derived, &places.scales, 1),
                    inverse: of_rows(inverses, &places.scales, 1),
                }
            });
            Some(LoraSlots {
                a: part(self.parameters, a),
                b: of_rows(self.parameters, b, rank),
                da: gradient.map(|slot| part(slot, a)),
                db: gradient.map(|slot| of_rows(slot, b, rank)),
                start: self.config.pissa.then(|| (part(self.derived, a), of_rows(self.derived, b, rank))),
                dora,
                rank,
                scale: self.config.scale(),
            })
        })
    }
}

/// Where a tensor of the model lies.
#[derive(Clone, Copy, Debug)]
pub(crate) enum TensorPlace {
    Matrix(WeightId),
    Vector(Slot),
}

/// Which use's memory a pass works in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Training,
    Scoring,
    Generation,
}

/// A model on a device.
///
/// The base weights never change, but for those of a model that was loaded with [`Model::load_trained`]. [`Model::reserve`] lays out
/// memory for what will be asked; asking for more is an error that names the limit.
pub struct Model<D: Device> {
    pub(crate) device: D,
    config: ModelConfig,
    weights: Weights,
    /// Which of its own tensors are trained.
    full: Option<(FullConfig, FullPlaces)>,
    storages: BTreeMap<TensorName, Stored>,
    adapter: Option<Attached>,
    uses: Uses,
    arena: Option<Slot>,
    training: Option<Workspace>,
    scoring: Option<Workspace>,
    generation: Option<Workspace>,
}

/// A pass of a batch, checked and indexed.
pub(crate) struct Prepared {
    /// Its rows of the batch.
    pub(crate) rows: Range<usize>,
    /// Rows in memory before them.
    pub(crate) first: usize,
    pub(crate) runs: RunTable,
    /// Its rows that the head asks for.
    pub(crate) needed: NeededRows,
    /// Which of the batch's entries are on its rows.
    pub(crate) of_batch: Range<usize>,
    /// Where those with entries are among them.
    pub(crate) head_rows: Vec<u32>,
    pub(crate) entries: Vec<HeadEntry>,
}

impl Prepared {
    /// `asked`: rows of the pass with entries.
    pub(crate) fn new(
        rows: Range<usize>,
        first: usize,
        runs: RunTable,
        positions: &[u32],
        draw_keys: &[u64],
        of_batch: Range<usize>,
        asked: &[u32],
        entries: Vec<HeadEntry>,
    ) -> Prepared {
        let needed = NeededRows::of(&runs, positions, draw_keys, asked);
        let head_rows = needed.places(asked);
        Prepared { rows, first, runs, needed, of_batch, head_rows, entries }
    }

    /// The needed rows, where those are not all.
    pub(crate) fn fewer(&self) -> Option<&NeededRows> {
        Some(&self.needed).filter(|needed| needed.rows.len() < self.rows.len())
    }
}

impl<D: Device> Model<D> {
    /// Loads every tensor of `config` from `source`; shapes are checked against the configuration.
    pub fn load(device: D, config: ModelConfig, source: &dyn WeightSource) -> Result<Model<D>, EngineError> {
        Model::load_with(device, config, source, None)
    }

    /// The same for full fine-tuning: the tensors that `full` names can be trained.
    ///
    /// # Errors
    /// [`EngineError::TrainedStorage`] where one of them is stored in blocks.
    pub fn load_trained(device: D, config: ModelConfig, source: &dyn WeightSource, full: &FullConfig) -> Result<Model<D>, EngineError> {
        full.validate(&config)?;
        Model::load_with(device, config, source, Some(full))
    }

    fn load_with(
        mut device: D,
        config: ModelConfig,
        source: &dyn WeightSource,
        full: Option<&FullConfig>,
    ) -> Result<Model<D>, EngineError> {
        config.validate()?;
        let names = config.tensor_names();
        let of_vectors = names.iter().filter(|name| name.is_vector()).map(|&name| config.tensor_shape(name).1);
        let arena = device.allocate("gains and biases", of_vectors.sum())?;
        let (mut vectors, mut vectors_len) = (BTreeMap::new(), 0);
        let mut storages = BTreeMap::new();
        let mut matrices: BTreeMap<TensorName, WeightId> = BTreeMap::new();
        for name in names {
            let failed = |error| match error {
                SourceError::Missing => EngineError::Missing { name },
                SourceError::Unreadable(source) => EngineError::Unreadable { name, source },
            };
            let (rows, cols) = config.tensor_shape(name);
            let check = |given_rows, given_cols| {
                let same = (given_rows, given_cols) == (rows, cols);
                if same { Ok(()) } else { Err(EngineError::Shape { name, given_rows, given_cols, rows, cols }) }
            };
            let frozen = !name.is_vector() && !full.is_some_and(|full| full.trains(name));
            if frozen && let Some(shared) = source.shared(name).map_err(failed)? {
                check(shared.rows, shared.cols)?;
                let id = device.shared_weight(&name.to_string(), shared.storage, rows, cols, shared.bytes)?;
                matrices.insert(name, id);
                storages.insert(name, Stored { storage: shared.storage, shared: true });
                continue;
            }
            let view = source.tensor(name).map_err(failed)?;
            check(view.rows, view.cols)?;
            if name.is_vector() {
                let slot = arena.part(vectors_len, cols);
                vectors_len += cols;
                device.upload(slot, &vector_values(name, &view)?);
                vectors.insert(name, slot);
            } else {
                let trained = full.is_some_and(|full| full.trains(name));
                if trained && !matches!(view.storage, Storage::F32 | Storage::F16 | Storage::Bf16) {
                    return Err(EngineError::TrainedStorage { name, storage: view.storage });
                }
                let id = if trained {
                    device.trained_weight(&name.to_string(), view.storage, rows, cols, &view.bytes)?
                } else {
                    device.weight(&name.to_string(), view.storage, rows, cols, &view.bytes)?
                };
                matrices.insert(name, id);
            }
            storages.insert(name, view.storage.into());
        }
        let linears = |layer| Linear::ALL.map(|linear| matrices[&TensorName::Linear(layer, linear)]);
        let embedding = matrices[&TensorName::Embedding];
        let weights = Weights {
            embedding,
            head: matrices.get(&TensorName::Head).copied().unwrap_or(embedding),
            linears: (0..config.layers).map(linears).collect(),
            vectors,
        };
        let full = full.map(|full| (full.clone(), FullPlaces::of(full, &config)));
        Ok(Model {
            device,
            config,
            weights,
            full,
            storages,
            adapter: None,
            uses: Uses::default(),
            arena: None,
            training: None,
            scoring: None,
            generation: None,
        })
    }

    /// Sizes.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The device, for reading its counters.
    pub fn device(&self) -> &D {
        &self.device
    }

    /// What memory is laid out for.
    pub fn uses(&self) -> &Uses {
        &self.uses
    }

    /// The memory tables of what is held now; equal to [`memory::plan`] made before.
    pub fn memory(&self) -> MemoryPlan {
        memory::plan_trained(&self.device, &self.config, |name| self.storages[&name], self.trained(), &self.uses)
    }

    /// Lays out memory for `uses`; memory of earlier uses is given back.
    pub fn reserve(&mut self, uses: &Uses) -> Result<(), EngineError> {
        uses.validate()?;
        if let Some(arena) = self.arena.take() {
            self.device.release(arena);
        }
        (self.training, self.scoring, self.generation) = (None, None, None);
        self.uses = Uses::default();
        self.device.reserve(&uses.device_limits(&self.config))?;
        let layouts = memory::layouts(&self.config, self.trained(), uses);
        let arena = self.device.allocate("activations", memory::arena_len(&layouts))?;
        self.arena = Some(arena);
        let mut workspaces = layouts.iter().map(|layout| layout.workspace(&self.config, arena));
        self.training = uses.training.as_ref().and_then(|_| workspaces.next());
        self.scoring = uses.scoring.as_ref().and_then(|_| workspaces.next());
        self.generation = uses.generation.as_ref().and_then(|_| workspaces.next());
        self.uses = uses.clone();
        Ok(())
    }

    /// Attaches an adapter, in place of the one attached before; memory is laid out again for the same uses
    /// where the adapter's shape asks for it.
    pub fn attach(&mut self, adapter: &Adapter) -> Result<(), EngineError> {
        adapter.validate(&self.config)?;
        if self.adapter.as_ref().is_none_or(|attached| attached.config != adapter.config) {
            self.remove_adapter();
            let places = AdapterPlaces::of(&adapter.config, &self.config);
            let parameters = self.device.allocate("adapter", places.len)?;
            let derived = self.device.allocate("adapter's derived numbers", adapter.config.derived(&self.config))?;
            self.adapter = Some(Attached { config: adapter.config.clone(), places, parameters, derived });
            self.reserve(&self.uses.clone())?;
        }
        let attached = self.adapter.as_ref().expect("attached above");
        self.device.upload(attached.parameters, &attached.places.flat(&adapter.tensors));
        if adapter.config.pissa {
            self.device.upload(attached.derived, &attached.places.flat(&adapter.start));
        }
        self.adapter_changed();
        Ok(())
    }

    /// Brings up to date what follows from the adapter's parameters: DoRA's scales.
    pub(crate) fn adapter_changed(&mut self) {
        let Model { device, config, weights, adapter: Some(attached), .. } = self else { return };
        if !attached.config.dora {
            return;
        }
        device.scope(|device| {
            for layer in 0..config.layers {
                for (lora, w) in attached.lora(config, layer, None).iter().zip(weights.linears[layer]) {
                    if let Some(LoraSlots { a, b, scale, dora: Some(dora), .. }) = *lora {
                        device.weight_norms(dora.inverse, w, a, b, scale);
                        device.dora_scales(dora.gain, dora.inverse, dora.magnitude);
                    }
                }
            }
        });
    }

    /// Takes the adapter off: the base answers again.
    pub fn detach(&mut self) -> Result<(), EngineError> {
        if self.remove_adapter() {
            self.reserve(&self.uses.clone())?;
        }
        Ok(())
    }

    fn remove_adapter(&mut self) -> bool {
        let attached = self.adapter.take();
        if let Some(attached) = &attached {
            self.device.release(attached.parameters);
            self.device.release(attached.derived);
        }
        attached.is_some()
    }

    /// A copy of the adapter as it is now.
    pub fn adapter(&self) -> Option<Adapter> {
        let attached = self.adapter.as_ref()?;
        let start = if attached.config.pissa { self.read_tensors(attached.derived) } else { LoraTensors::new() };
        Some(Adapter { config: attached.config.clone(), tensors: self.read_tensors(attached.parameters), start })
    }

    /// Which of its own tensors are trained, and where they lie in gradients and moments.
    pub(crate) fn full(&self) -> Option<&(FullConfig, FullPlaces)> {
        self.full.as_ref()
    }

    fn trained(&self) -> Trained<'_> {
        Trained { lora: self.adapter.as_ref().map(|a| &a.config), full: self.full.as_ref().map(|(full, _)| full) }
    }

    /// Where a tensor lies: a matrix, or a gain or bias.
    pub(crate) fn place(&self, name: TensorName) -> TensorPlace {
        match name {
            TensorName::Embedding => TensorPlace::Matrix(self.weights.embedding),
            TensorName::Head => TensorPlace::Matrix(self.weights.head),
            TensorName::Linear(layer, linear) => TensorPlace::Matrix(self.linear(layer, linear)),
            vector => TensorPlace::Vector(self.weights.vectors[&vector]),
        }
    }

    /// A tensor of the model as it is now, row by row.
    pub fn tensor_values(&self, name: TensorName) -> Vec<f32> {
        let (rows, cols) = self.config.tensor_shape(name);
        let mut values = vec![0.0; rows * cols];
        match self.place(name) {
            TensorPlace::Vector(slot) => self.device.download(slot, &mut values),
            TensorPlace::Matrix(w) => {
                values.chunks_exact_mut(cols).enumerate().for_each(|(row, values)| self.device.read_weight_row(w, row, values));
            }
        }
        values
    }

    /// A weight of a block.
    pub(crate) fn linear(&self, layer: usize, linear: Linear) -> WeightId {
        self.weights.linears[layer][linear as usize]
    }

    pub(crate) fn attached(&self) -> Option<&Attached> {
        self.adapter.as_ref()
    }

    /// An arena of the adapter's form, by name.
    pub(crate) fn read_tensors(&self, slot: Slot) -> LoraTensors {
        let places = &self.adapter.as_ref().expect("an adapter is attached").places;
        let mut flat = vec![0.0; places.len];
        self.device.download(slot, &mut flat);
        places.tensors(&flat)
    }

    pub(crate) fn workspace(&self, kind: Kind) -> Result<&Workspace, EngineError> {
        let (workspace, what) = match kind {
            Kind::Training => (&self.training, "training"),
            Kind::Scoring => (&self.scoring, "scoring"),
            Kind::Generation => (&self.generation, "generation"),
        };
        workspace.as_ref().ok_or(EngineError::NotPlanned { what })
    }

    /// Checks `batch`, a single pass, against the sizes of its use. `index` stands in the error.
    pub(crate) fn prepare(&self, kind: Kind, batch: &Batch<'_>, index: usize) -> Result<Prepared, EngineError> {
        let mut passes = self.prepare_passes(kind, batch, index)?;
        match passes.len() {
            1 => Ok(passes.remove(0)),
            given => Err(EngineError::Batch { index, source: BatchError::Passes { given } }),
        }
    }

    /// Checks `batch` against the sizes of its use. `index` stands in the error.
    pub(crate) fn prepare_passes(&self, kind: Kind, batch: &Batch<'_>, index: usize) -> Result<Vec<Prepared>, EngineError> {
        let workspace = self.workspace(kind)?;
        let refuse = |source| EngineError::Batch { index, source };
        batch.validate(self.config.vocab, &workspace.limits).map_err(refuse)?;
        if batch.passes.len() > 1 && !workspace.several_passes {
            return Err(refuse(BatchError::Passes { given: batch.passes.len() }));
        }
        if batch.entries.is_empty() {
            return Err(refuse(BatchError::NoEntries { rows: batch.tokens.len() }));
        }
        let dropout = self.adapter.as_ref().map_or(0.0, |a| a.config.dropout);
        if kind == Kind::Training && dropout > 0.0 && batch.draw_keys.is_empty() {
            return Err(refuse(BatchError::Lengths { tokens: batch.tokens.len(), positions: batch.positions.len(), keys: 0 }));
        }
        let passes = batch.pass_rows();
        let prepare = |rows: &Range<usize>| {
            let of_batch = batch.entries_of(rows);
            let (mut head_rows, entries) = head_entries(&batch.entries[of_batch.clone()]);
            head_rows.iter_mut().for_each(|row| *row -= rows.start as u32);
            let first = if rows.start == 0 { 0 } else { passes[0].len() };
            let keys = if batch.draw_keys.is_empty() { &[] } else { &batch.draw_keys[rows.clone()] };
            let runs = pass_table(batch.segments, rows, &passes[0]);
            Prepared::new(rows.clone(), first, runs, &batch.positions[rows.clone()], keys, of_batch, &head_rows, entries)
        };
        Ok(passes.iter().map(prepare).collect())
    }

    /// All blocks forward; returns where the last block's output of the needed rows lies. `keys` says where each layer's keys are.
    pub(crate) fn forward_blocks<'a>(
        &mut self,
        kind: Kind,
        tokens: &[u32],
        pass: Pass<'a>,
        keys: impl Fn(usize) -> Keys<'a> + Sync,
    ) -> Slot {
        let Model { device, config, weights, adapter, training, scoring, generation, .. } = self;
        let workspace = match kind {
            Kind::Training => training,
            Kind::Scoring => scoring,
            Kind::Generation => generation,
        };
        let workspace = workspace.as_ref().expect("prepared before");
        let rows = |slot: Slot| slot.part(pass.first * config.hidden, pass.m * config.hidden);
        device.scope(|device| {
            device.embed(rows(workspace.input(0)), weights.embedding, tokens);
            if let Some(factor) = config.embedding_scale {
                device.scale(rows(workspace.input(0)), factor);
            }
            for layer in 0..config.layers {
                let block = block_of(config, weights, adapter.as_ref(), layer, None);
                let needed = pass.needed.filter(|_| layer + 1 == config.layers);
                let pass = Pass { keys: keys(layer), needed, ..pass };
                let (x, y) = (rows(workspace.input(layer)), rows(workspace.input(layer + 1)));
                block::forward(device, &block, &pass, &workspace.blocks[layer], x, y, ActivationSet::all(block.parts()));
            }
        });
        rows(workspace.input(config.layers))
    }

    /// The head on `prepared`'s rows of `stream`: log-probabilities, and what the backward needs where training.
    pub(crate) fn forward_head(&mut self, kind: Kind, stream: Slot, prepared: &Prepared) {
        self.forward_final_norm(kind, stream, &prepared.head_rows);
        let (m, c) = (prepared.head_rows.len(), self.config.hidden);
        let head = &self.workspace(kind).expect("prepared before").head;
        let (norm, log_prob) =
            (head.norm.part(0, m * c), head.log_prob.expect("this use has log-probabilities").part(0, prepared.entries.len()));
        let expected = head.expected.map(|slot| slot.part(0, m * c));
        let slope = head.slope.map(|slot| slot.part(0, prepared.entries.len()));
        self.device.head(log_prob, expected, slope, norm, self.weights.head, &prepared.entries, m, self.config.logit_softcap);
    }

    /// Gathers `rows` of the stream and norms them.
    fn forward_final_norm(&mut self, kind: Kind, stream: Slot, rows: &[u32]) {
        let (m, c) = (rows.len(), self.config.hidden);
        let head = &self.workspace(kind).expect("prepared before").head;
        let (x, norm, rstd) = (head.x.part(0, m * c), head.norm.part(0, m * c), head.rstd.part(0, m));
        let gain = self.weights.vectors[&TensorName::FinalNorm];
        self.device.gather(x, stream, rows, c);
        self.device.rms_norm(norm, rstd, x, gain, m, c, self.config.norm_eps);
    }

    /// Logits of `rows` of the stream, `[rows, vocab]`, appended nowhere: `logits` is overwritten.
    pub(crate) fn forward_logits(&mut self, stream: Slot, rows: &[u32], logits: &mut Vec<f32>) {
        self.forward_final_norm(Kind::Generation, stream, rows);
        let (m, c, v) = (rows.len(), self.config.hidden, self.config.vocab);
        let head = &self.workspace(Kind::Generation).expect("prepared before").head;
        let (norm, slot) = (head.norm.part(0, m * c), head.logits.expect("generation has logits").part(0, m * v));
        self.device.linear(slot, norm, self.weights.head, m, false);
        if let Some(cap) = self.config.logit_softcap {
            self.device.softcap(slot, cap);
        }
        logits.resize(m * v, 0.0);
        self.device.download(slot, logits);
    }

    /// ln p of each entry of the last head, in the device's own precision.
    pub(crate) fn read_log_probs(&self, kind: Kind, entries: usize) -> Vec<f64> {
        let head = &self.workspace(kind).expect("prepared before").head;
        let slot = head.log_prob.expect("this use has log-probabilities").part(0, entries);
        let mut values = vec![0.0; entries];
        self.device.download_exact(slot, &mut values);
        values
    }

    /// The blocks of one pass of a micro-batch forward, with everything saved that the backward needs.
    pub(crate) fn train_blocks(&mut self, batch: &Batch<'_>, prepared: &Prepared) {
        let pass = self.training_pass(batch, prepared);
        self.forward_blocks(Kind::Training, &batch.tokens[prepared.rows.clone()], pass, |_| Keys::Own);
    }

    /// ln p per entry of a pass that [`Model::train_blocks`] saw.
    pub(crate) fn train_head(&mut self, prepared: &Prepared) -> Vec<f64> {
        if prepared.entries.is_empty() {
            return Vec::new();
        }
        let c = self.config.hidden;
        let workspace = self.training.as_ref().expect("prepared before");
        let stream = workspace.input(self.config.layers).part(prepared.first * c, prepared.rows.len() * c);
        self.forward_head(Kind::Training, stream, prepared);
        self.read_log_probs(Kind::Training, prepared.entries.len())
    }

    /// Before the backward of several passes: nothing has been added yet to the gradients of the keys and values of `first`.
    pub(crate) fn zero_key_gradients(&mut self, first: &Prepared) {
        let workspace = self.training.as_ref().expect("prepared before");
        let len = first.rows.len() * self.config.kv_heads * self.config.head_dim;
        for gradients in &workspace.gradients {
            self.device.zero(gradients.dkey.part(0, len));
            self.device.zero(gradients.dvalue.part(0, len));
        }
    }

    /// The backward of the pass whose head was the last: adds the gradient of Σ coefficient · ln p to `gradient`, an arena
    /// of the adapter's form, and what it asks of an earlier pass's keys and values to theirs. `read_by_others`: later
    /// passes have done so to this one's.
    pub(crate) fn train_backward(
        &mut self,
        batch: &Batch<'_>,
        prepared: &Prepared,
        coefficients: &[f32],
        gradient: Slot,
        read_by_others: bool,
    ) {
        let pass = self.training_pass(batch, prepared);
        let Model { device, config, weights, full, adapter, training, .. } = self;
        let workspace = training.as_ref().expect("prepared before");
        let full = full.as_ref().map(|(_, places)| places);
        let place = |name| full.and_then(|places| places.part(gradient, name));
        let (m, head_m, c) = (pass.m, prepared.head_rows.len(), config.hidden);
        let Some(of_stream) = workspace.gradients.first() else { return };

        device.scope(|device| {
            let dstream = of_stream.dx.part(0, m * c);
            if head_m > 0 {
                // head: log_prob = head(rms_norm(gathered rows))
                let head = &workspace.head;
                let of_rows = |slot: Option<Slot>| slot.expect("training has a head's backward").part(0, head_m * c);
                let (dnorm, dx, expected) = (of_rows(head.dnorm), of_rows(head.dx), of_rows(head.expected));
                let slope = head.slope.map(|slot| slot.part(0, prepared.entries.len()));
                device.head_backward(dnorm, expected, slope, weights.head, &prepared.entries, coefficients, head_m);
                device.zero(dx);
                let gain = weights.vectors[&TensorName::FinalNorm];
                let (x, rstd) = (head.x.part(0, head_m * c), head.rstd.part(0, head_m));
                device.rms_norm_backward(dx, dnorm, x, gain, rstd, head_m, c);
                if let Some(dgain) = place(TensorName::FinalNorm) {
                    device.column_sums(dgain, dnorm, Some(x), Some(rstd), None);
                }
                // A tied head is the embedding, whose rows add to the same gradient at the end.
                if let Some(dw) = place(TensorName::Head).or_else(|| place(TensorName::Embedding).filter(|_| config.tied_embeddings)) {
                    let (norm, entries) = (head.norm.part(0, head_m * c), &prepared.entries);
                    let log_prob = head.log_prob.expect("training has log-probabilities").part(0, entries.len());
                    let (w, cap) = (weights.head, config.logit_softcap);
                    device.head_weight_backward(dw, norm, w, entries, log_prob, slope, coefficients, head_m, cap);
                }
                let dneeded = dstream.part(0, prepared.needed.rows.len() * c);
                device.zero(dneeded);
                device.scatter_add(dneeded, dx, &prepared.head_rows, c);
            }

            // blocks, last first, down to the lowest adapter
            for layer in (workspace.first_saved..config.layers).rev() {
                let mut block = block_of(config, weights, adapter.as_ref(), layer, Some(gradient).filter(|_| full.is_none()));
                if let Some(places) = full {
                    block.gradients = places.block(gradient, layer);
                }
                let (slots, x) = (&workspace.blocks[layer], workspace.input(layer).part(pass.first * c, m * c));
                let pass = Pass { needed: pass.needed.filter(|_| layer + 1 == config.layers), ..pass };
                let (parts, dx) = (block.parts(), layer > workspace.first_saved || workspace.embedding);
                let again = ActivationSet::needed_for(ActivationSet::read_by_backward(parts, dx), workspace.saved[layer], parts);
                block::forward(device, &block, &pass, slots, x, x, again);
                let gradients = GradientSlots { read_by_others, ..workspace.gradients[layer - workspace.first_saved] };
                block::backward(device, &block, &pass, slots, &gradients, x, dx);
            }
            if let Some(dembedding) = place(TensorName::Embedding) {
                if let Some(factor) = config.embedding_scale {
                    device.scale(dstream, factor);
                }
                device.scatter_add(dembedding, dstream, &batch.tokens[prepared.rows.clone()], c);
            }
        });
    }

    fn training_pass<'a>(&self, batch: &Batch<'a>, prepared: &'a Prepared) -> Pass<'a> {
        let dropout = self.adapter.as_ref().map_or(0.0, |a| a.config.dropout);
        Pass {
            m: prepared.rows.len(),
            first: prepared.first,
            positions: &batch.positions[prepared.rows.clone()],
            runs: &prepared.runs,
            dropout: (dropout > 0.0).then(|| (&batch.draw_keys[prepared.rows.clone()], dropout)),
            keys: Keys::Own,
            needed: prepared.fewer(),
        }
    }

    /// Logits `[rows.len(), vocab]` of some rows of a batch, in generation's memory: at most as many rows as
    /// it has sequences. For comparison with other programs; training and scoring never hold logits.
    pub fn logits(&mut self, batch: &Batch<'_>, rows: &[u32]) -> Result<Vec<f32>, EngineError> {
        let limits = self.workspace(Kind::Generation)?.limits;
        let without = Batch { entries: &[], ..*batch };
        without.validate(self.config.vocab, &limits).map_err(|source| EngineError::Batch { index: 0, source })?;
        if let Some(&row) = rows.iter().find(|&&row| row as usize >= batch.tokens.len()) {
            return Err(EngineError::Limit { what: "row of logits", given: row as usize, limit: batch.tokens.len() });
        }
        let runs = run_table(batch.segments, 0);
        let mut asked = rows.to_vec();
        asked.sort_unstable();
        let needed = NeededRows::of(&runs, batch.positions, &[], &asked);
        let pass = Pass {
            m: batch.tokens.len(),
            first: 0,
            positions: batch.positions,
            runs: &runs,
            dropout: None,
            keys: Keys::Own,
            needed: Some(&needed),
        };
        let stream = self.forward_blocks(Kind::Generation, batch.tokens, pass, |_| Keys::Own);
        let mut logits = Vec::new();
        let mut part = Vec::new();
        for rows in needed.places(rows).chunks(limits.head_rows) {
            self.forward_logits(stream, rows, &mut part);
            logits.extend_from_slice(&part);
        }
        Ok(logits)
    }
}

fn block_of<'a>(config: &'a ModelConfig, weights: &Weights, adapter: Option<&Attached>, layer: usize, gradient: Option<Slot>) -> Block<'a> {
    let vector = |name| weights.vectors.get(&name).copied();
    let always = |name| weights.vectors[&name];
    Block {
        config,
        layer,
        linears: weights.linears[layer],
        biases: Linear::ALL.map(|linear| vector(TensorName::Bias(layer, linear))),
        gains: Gains {
            attention: always(TensorName::AttentionNorm(layer)),
            mlp: always(TensorName::MlpNorm(layer)),
            query: vector(TensorName::QueryNorm(layer)),
            key: vector(TensorName::KeyNorm(layer)),
            post_attention: vector(TensorName::PostAttentionNorm(layer)),
            post_mlp: vector(TensorName::PostMlpNorm(layer)),
        },
        lora: adapter.map_or([None; 7], |adapter| adapter.lora(config, layer, gradient)),
        gradients: BlockGradients::default(),
    }
}

/// A gain or a bias as f32, from any float storage.
fn vector_values(name: TensorName, view: &TensorView<'_>) -> Result<Vec<f32>, EngineError> {
    if !matches!(view.storage, Storage::F32 | Storage::F16 | Storage::Bf16) {
        return Err(EngineError::NormStorage { name, storage: view.storage });
    }
    let expected = view.storage.bytes(1, view.cols).expect("floats have no blocks");
    if view.bytes.len() != expected {
        let (rows, cols, storage, given) = (1, view.cols, view.storage, view.bytes.len());
        return Err(crate::device::DeviceError::WeightSize { name: name.to_string(), given, expected, rows, cols, storage }.into());
    }
    let mut values = vec![0.0; view.cols];
    kernels::quant::dequantize_row(view.storage, &view.bytes, &mut values);
    values.iter_mut().for_each(|value| *value += view.offset);
    Ok(values)
}
