//! Tensors that bitsandbytes quantised: its own files are read, and every part that is not as it should be is refused by name.
#![allow(clippy::disallowed_methods, reason = "tests set files up by hand")]
mod scratch;

use std::path::Path;

use scratch::Scratch;
use store::bitsandbytes::{Quantized, Scales};
use store::safetensors::{self, SafetensorsFile, TensorData};
use store::{BaseModel, Dtype};

fn golden(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/bitsandbytes").join(name)
}

const WEIGHT: &str = "model.layers.0.mlp.down_proj.weight";

#[test]
fn what_transformers_saved_is_shown_as_whole_tensors() {
    let model = BaseModel::open(&golden("nf4")).unwrap();
    assert_eq!(model.tensors().len(), 11, "seven linear layers, embedding and three norms");
    let info = model.tensors().iter().find(|t| t.name == WEIGHT).unwrap();
    assert_eq!((info.dtype, &info.shape[..]), (Dtype::Nf4, &[64, 576][..]));
    let Some(Quantized::FourBit { block: 64, nested: Some(nested), .. }) = model.quantized(WEIGHT) else { panic!("{info:?}") };
    assert_eq!((nested.block, nested.map[127], nested.map[255]), (256, 0.0, 1.0));
    let parts = model.read_quantized(WEIGHT).unwrap();
    let Scales::Nested { codes, nested } = parts.scales else { panic!("plain scales") };
    assert_eq!((parts.codes.len(), codes.len(), nested.len()), (64 * 576 / 2, 576, 3));

    let model = BaseModel::open(&golden("int8")).unwrap();
    let info = model.tensors().iter().find(|t| t.name == WEIGHT).unwrap();
    assert_eq!((info.dtype, &info.shape[..], model.quantized(WEIGHT)), (Dtype::Int8, &[64, 128][..], Some(&Quantized::Int8)));
    assert!(matches!(model.read_quantized(WEIGHT).unwrap().scales, Scales::Plain(scales) if scales.len() == 64));
    assert!(model.read_quantized("model.norm.weight").is_err());
}

/// A tensor as it stands in a file: name, coding, shape, bytes.
type Owned = (String, Dtype, Vec<usize>, Vec<u8>);

/// The golden model `name` with its tensors changed.
fn changed(scratch: &Scratch, name: &str, change: impl Fn(&mut Vec<Owned>)) -> String {
    let file = SafetensorsFile::open(&golden(name).join("model.safetensors")).unwrap();
    let mut tensors: Vec<Owned> =
        file.tensors().iter().map(|t| (t.name.clone(), t.dtype, t.shape.clone(), file.read(&t.name).unwrap())).collect();
    change(&mut tensors);
    let views: Vec<_> = tensors.iter().map(|(name, dtype, shape, bytes)| TensorData { name, dtype: *dtype, shape, bytes }).collect();
    let bytes = safetensors::to_bytes(&views, &safetensors::pytorch_metadata()).unwrap();
    std::fs::write(scratch.path().join("model.safetensors"), bytes).unwrap();
    std::fs::copy(golden(name).join("config.json"), scratch.path().join("config.json")).unwrap();
    BaseModel::open(scratch.path()).map_or_else(|error| error.to_string(), |_| "nothing was refused".into())
}

#[test]
fn parts_that_are_not_as_they_should_be_are_refused_by_name() {
    let scratch = Scratch::new("bitsandbytes-bad");
    let of = |part: &str| format!("{WEIGHT}.{part}");
    let set = |part: String, to: (Dtype, Vec<usize>, Vec<u8>)| {
        move |tensors: &mut Vec<Owned>| {
            let tensor = tensors.iter_mut().find(|t| t.0 == part).unwrap();
            (tensor.1, tensor.2, tensor.3) = to.clone();
        }
    };
    let without = |part: String| move |tensors: &mut Vec<Owned>| tensors.retain(|t| t.0 != part);
    let state = |json: &str| set(of("quant_state.bitsandbytes__nf4"), (Dtype::U8, vec![json.len()], json.into()));
    let good = r#"{"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [64, 576], "nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 0.01}"#;
    let nan = [f32::NAN.to_le_bytes(); 16].concat();
    assert_eq!(changed(&scratch, "nf4", state(good)), "nothing was refused");
    type Change = Box<dyn Fn(&mut Vec<Owned>)>;
    let cases: Vec<(&str, Change, &str)> = vec![
        ("nf4", Box::new(without(of("absmax"))), "down_proj.weight.absmax\" is missing"),
        ("nf4", Box::new(without(of("quant_map"))), "quant_map\" is missing"),
        ("nf4", Box::new(without(of("nested_quant_map"))), "nested_quant_map\" is missing"),
        ("nf4", Box::new(without(of("nested_absmax"))), "absmax\" has 576 numbers of U8, 576 of F32 expected"),
        ("nf4", Box::new(without(WEIGHT.into())), "down_proj.weight\" is missing"),
        ("nf4", Box::new(set(of("absmax"), (Dtype::U8, vec![575], vec![0; 575]))), "575 numbers of U8, 576 of U8 expected"),
        ("nf4", Box::new(set(of("nested_absmax"), (Dtype::F32, vec![2], vec![0; 8]))), "2 numbers of F32, 3 of F32 expected"),
        ("nf4", Box::new(set(of("quant_map"), (Dtype::F32, vec![16], nan))), "quant_map\" has no finite number at 0"),
        ("nf4", Box::new(set(WEIGHT.into(), (Dtype::U8, vec![7], vec![0; 7]))), "7 numbers of U8, 18432 of U8 expected"),
        ("nf4", Box::new(state("{")), "quant_state is not a short JSON object"),
        ("nf4", Box::new(state(&good.replace("nf4", "fp4"))), "quant_type is \"fp4\" under the name of \"nf4\""),
        ("nf4", Box::new(state(&good.replace(": 64,", ": 63,"))), "blocks of 63, a power of two up to 4096 expected"),
        ("nf4", Box::new(state(&good.replace("[64, 576]", "[0, 576]"))), "shape [0, 576]"),
        ("nf4", Box::new(state(&good.replace("[64, 576]", "[4294967295, 4294967295, 4294967295]"))), "shape [4294967295"),
        ("nf4", Box::new(state(&good.replace("[64, 576]", "[64, 512]"))), "18432 numbers of U8, 16384 of U8 expected"),
        ("nf4", Box::new(state(&good.replace("\"nested_offset\": 0.01", "\"x\": 0"))), "no nested_blocksize or nested_offset"),
        ("int8", Box::new(without(WEIGHT.into())), "down_proj.weight\" is missing"),
        ("int8", Box::new(set(WEIGHT.into(), (Dtype::I8, vec![64 * 128], vec![0; 64 * 128]))), "shape [8192]"),
        (
            "int8",
            Box::new(set("model.layers.0.mlp.down_proj.weight_format".into(), (Dtype::U8, vec![1], vec![2]))),
            "weight_format is 2, 0 (row after row) expected",
        ),
    ];
    for (name, change, expected) in cases {
        let error = changed(&scratch, name, change);
        assert!(error.contains(expected), "{error}\ninstead of: {expected}");
    }
}
