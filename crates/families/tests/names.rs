//! Names of tensors and of adapter tensors, there and back; what is missing or too much is named.
use std::collections::BTreeMap;

use engine::config::{Linear, ModelConfig, TensorName};
use families::FamilyError;
use families::adapters::{self, Half};
use families::tensors::{self, Naming};

fn config(tied_embeddings: bool) -> ModelConfig {
    ModelConfig {
        vocab: 128,
        hidden: 48,
        layers: 12,
        heads: 6,
        kv_heads: 2,
        head_dim: 8,
        intermediate: 80,
        norm_eps: 1e-5,
        rotary_inv_freq: vec![1.0; 4],
        window: None,
        context: 256,
        tied_embeddings,
    }
}

#[test]
fn every_name_goes_there_and_back() {
    for naming in [Naming::HuggingFace, Naming::Gguf] {
        let expected = tensors::expected(&config(false), naming);
        assert_eq!(expected.len(), 3 + 12 * 9);
        for placed in &expected {
            assert_eq!(tensors::source_name(placed.name, naming), placed.source);
            assert_eq!(tensors::engine_name(&placed.source, naming), Some(placed.name));
        }
        assert!(!tensors::expected(&config(true), naming).iter().any(|p| p.name == TensorName::Head));
    }
    assert_eq!(
        tensors::source_name(TensorName::Linear(11, Linear::Output), Naming::HuggingFace),
        "model.layers.11.self_attn.o_proj.weight"
    );
    assert_eq!(tensors::source_name(TensorName::Linear(11, Linear::Output), Naming::Gguf), "blk.11.attn_output.weight");
    assert_eq!(tensors::source_name(TensorName::Head, Naming::Gguf), "output.weight");
    for bad in [
        "",
        "model.layers.",
        "model.layers.0",
        "model.layers.00.mlp.up_proj.weight",
        "model.layers.-1.mlp.up_proj.weight",
        "model.layers.99999999999999999999.mlp.up_proj.weight",
        "model.layers.0.mlp.up_proj.bias",
        "blk.0.attn_q.weight",
        "model.layers.0.model.norm.weight",
    ] {
        assert_eq!(tensors::engine_name(bad, Naming::HuggingFace), None, "{bad}");
    }
}

/// The tensors of a model as a file would list them, with some changes.
fn place(tied: bool, naming: Naming, change: impl FnOnce(&mut BTreeMap<String, Vec<usize>>)) -> families::Result<usize> {
    let config = config(tied);
    let mut present: BTreeMap<String, Vec<usize>> = tensors::expected(&config, naming).into_iter().map(|p| (p.source, p.shape)).collect();
    change(&mut present);
    tensors::place(&config, naming, present.iter().map(|(name, shape)| (name.as_str(), shape.as_slice()))).map(|placed| placed.len())
}

#[test]
fn missing_unexpected_and_misshapen_tensors_are_named() {
    for naming in [Naming::HuggingFace, Naming::Gguf] {
        assert_eq!(place(false, naming, |_| ()).unwrap(), 111);
        assert_eq!(place(true, naming, |_| ()).unwrap(), 110);
    }
    let hf = Naming::HuggingFace;
    assert_eq!(
        place(true, hf, |p| {
            p.insert("lm_head.weight".into(), vec![128, 48]);
        })
        .unwrap(),
        110,
        "a head beside a tied embedding"
    );
    assert_eq!(
        place(false, hf, |p| {
            p.insert("model.layers.0.self_attn.rotary_emb.inv_freq".into(), vec![4]);
        })
        .unwrap(),
        111
    );
    assert_eq!(
        place(false, Naming::Gguf, |p| {
            p.insert("rope_freqs.weight".into(), vec![4]);
        })
        .unwrap(),
        111
    );
    let error = |change: fn(&mut BTreeMap<String, Vec<usize>>)| place(false, hf, change).unwrap_err().to_string();
    assert_eq!(
        error(|p| drop(p.remove("lm_head.weight"))),
        "of 111 tensors of the model, missing: lm_head.weight; in the file but not of the model: none"
    );
    let both = error(|p| {
        p.remove("model.norm.weight");
        p.insert("model.layers.12.mlp.up_proj.weight".into(), vec![80, 48]);
    });
    assert_eq!(
        both,
        "of 111 tensors of the model, missing: model.norm.weight; in the file but not of the model: model.layers.12.mlp.up_proj.weight"
    );
    assert!(error(|p| p.clear()).contains("missing: model.embed_tokens.weight, model.layers.0.input_layernorm.weight, model.layers.0.self_attn.q_proj.weight, model.layers.0.self_attn.k_proj.weight, model.layers.0.self_attn.v_proj.weight and 106 more"));
    assert_eq!(
        error(|p| {
            p.insert("model.norm.weight".into(), vec![47]);
        }),
        "tensor \"model.norm.weight\" has the shape [47]; [48] expected from the description"
    );
    assert!(
        error(|p| {
            p.insert("model.layers.3.self_attn.k_proj.weight".into(), vec![48, 16]);
        })
        .contains("has the shape [48, 16]; [16, 48] expected")
    );
    assert!(
        error(|p| {
            p.insert("model.layers.0.self_attn.q_proj.bias".into(), vec![48]);
        })
        .contains("not of the model: model.layers.0.self_attn.q_proj.bias")
    );
}

#[test]
fn adapter_names_go_there_and_back() {
    for layer in [0, 3, 11, 120] {
        for linear in Linear::ALL {
            assert_eq!(adapters::linear_of(adapters::module_name(linear)), Some(linear));
            for half in [Half::A, Half::B] {
                let name = adapters::tensor_name(layer, linear, half);
                assert_eq!(adapters::parse_tensor_name(&name).unwrap(), (layer, linear, half));
            }
        }
    }
    assert_eq!(adapters::tensor_name(3, Linear::Query, Half::A), "base_model.model.model.layers.3.self_attn.q_proj.lora_A.weight");
    for bad in [
        "base_model.model.model.layers.3.self_attn.q_proj.lora_A.default.weight",
        "base_model.model.model.layers.3.self_attn.q_proj.lora_magnitude_vector",
        "base_model.model.model.layers.3.self_attn.q_proj.lora_B.bias",
        "base_model.model.model.layers.3.self_attn.q_proj.base_layer.bias",
        "base_model.model.model.layers.3.mlp.q_proj.lora_A.weight",
        "base_model.model.model.embed_tokens.lora_embedding_A",
        "base_model.model.lm_head.weight",
        "model.layers.3.self_attn.q_proj.lora_a",
    ] {
        assert_eq!(adapters::parse_tensor_name(bad), Err(FamilyError::AdapterTensor { name: bad.into() }));
    }
}

#[test]
fn targets_are_named_in_several_ways() {
    let linears = |names: &[&str]| adapters::linears_of(&names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>());
    assert_eq!(linears(&["all-linear"]).unwrap(), Linear::ALL);
    assert_eq!(linears(&["attention"]).unwrap(), Linear::ALL[..4]);
    assert_eq!(linears(&["mlp", "v_proj", "v_proj"]).unwrap(), [Linear::Value, Linear::Gate, Linear::Up, Linear::Down]);
    assert_eq!(linears(&["model.layers.0.self_attn.o_proj", "model.layers.1.self_attn.o_proj"]).unwrap(), [Linear::Output]);
    assert_eq!(linears(&["q_porj"]), Err(FamilyError::Target { given: "q_porj".into() }));
    assert!(linears(&["lm_head"]).unwrap_err().to_string().contains("known: q_proj"));
    assert_eq!(linears(&[]), Err(FamilyError::NoTarget));
    assert_eq!(adapters::target_modules(&[Linear::Up, Linear::Query, Linear::Up]), ["q_proj", "up_proj"]);
}

#[test]
fn pairs_are_checked_against_the_model() {
    let config = config(true);
    let whole = || -> BTreeMap<String, Vec<usize>> {
        [(11, Linear::Key), (2, Linear::Down), (2, Linear::Query)]
            .into_iter()
            .flat_map(|(layer, linear)| {
                let (out, inner) = config.linear_shape(linear);
                [
                    (adapters::tensor_name(layer, linear, Half::A), vec![4, inner]),
                    (adapters::tensor_name(layer, linear, Half::B), vec![out, 4]),
                ]
            })
            .collect()
    };
    let pairs = adapters::pair(&config, 4, &whole()).unwrap();
    assert_eq!(pairs.iter().map(|p| (p.layer, p.linear)).collect::<Vec<_>>(), [(2, Linear::Query), (2, Linear::Down), (11, Linear::Key)]);
    assert_eq!(pairs[0].b, adapters::tensor_name(2, Linear::Query, Half::B));
    type Shapes = BTreeMap<String, Vec<usize>>;
    let error = |change: &dyn Fn(&mut Shapes)| {
        let mut tensors = whole();
        change(&mut tensors);
        adapters::pair(&config, 4, &tensors).unwrap_err().to_string()
    };
    let (a, b) = (adapters::tensor_name(2, Linear::Query, Half::A), adapters::tensor_name(2, Linear::Query, Half::B));
    assert_eq!(error(&|t| drop(t.remove(&a))), format!("adapter tensor {b:?} stands alone; {a:?} expected beside it"));
    assert!(error(&|t| drop(t.insert(a.clone(), vec![8, 48]))).contains("has the shape [8, 48]; [4, 48] expected"));
    assert!(error(&|t| drop(t.insert(b.clone(), vec![40, 4]))).contains("has the shape [40, 4]; [48, 4] expected"));
    assert!(
        error(&|t| drop(t.insert(adapters::tensor_name(12, Linear::Query, Half::A), vec![4, 48])))
            .contains("is for layer 12; the model has layers 0 to 11")
    );
    assert!(
        error(&|t| drop(t.insert("base_model.model.lm_head.weight".into(), vec![128, 48])))
            .contains("is not a LoRA weight of a block's linear layer")
    );
    assert_eq!(error(&|t| t.clear()), "the adapter has no tensors");
}
