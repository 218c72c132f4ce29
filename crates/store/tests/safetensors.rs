//! safetensors: what PyTorch wrote is read and written back to the same bytes; every malformed file is refused by name.
#![allow(clippy::disallowed_methods, reason = "tests set files up by hand")]
mod scratch;

use std::collections::BTreeMap;
use std::path::Path;

use scratch::Scratch;
use store::safetensors::{self, SafetensorsFile, Sharded, TensorData};
use store::{Dtype, StoreError};

fn golden(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/models").join(name)
}

#[test]
fn pytorchs_file_is_read_and_written_back_to_the_same_bytes() {
    for name in ["llama/model.safetensors", "mistral/model.safetensors"] {
        let file = SafetensorsFile::open(&golden(name)).unwrap();
        let read: Vec<_> = file.tensors().iter().map(|t| (t, file.read(&t.name).unwrap())).collect();
        let mut views: Vec<_> =
            read.iter().map(|(t, bytes)| TensorData { name: &t.name, dtype: t.dtype, shape: &t.shape, bytes }).collect();
        views.reverse(); // the order given must not matter
        assert_eq!(safetensors::to_bytes(&views, file.metadata()).unwrap(), std::fs::read(golden(name)).unwrap(), "{name}");
        assert_eq!(file.metadata(), &safetensors::pytorch_metadata());
    }
}

#[test]
fn every_coding_comes_back() {
    let folder = Scratch::new("safetensors-codings");
    let path = folder.path().join("all.safetensors");
    let codings = [
        (Dtype::Bool, 1),
        (Dtype::U8, 1),
        (Dtype::I8, 1),
        (Dtype::I16, 2),
        (Dtype::U16, 2),
        (Dtype::F16, 2),
        (Dtype::BF16, 2),
        (Dtype::I32, 4),
        (Dtype::U32, 4),
        (Dtype::F32, 4),
        (Dtype::F64, 8),
        (Dtype::I64, 8),
        (Dtype::U64, 8),
    ];
    let bytes: Vec<u8> = (0..48).collect();
    let views: Vec<_> = codings
        .iter()
        .map(|(dtype, size)| TensorData { name: dtype.name(), dtype: *dtype, shape: &[2, 3], bytes: &bytes[..6 * size] })
        .collect();
    let empty = TensorData { name: "empty", dtype: Dtype::F32, shape: &[0, 7], bytes: &[] };
    let scalar = TensorData { name: "scalar", dtype: Dtype::F32, shape: &[], bytes: &1.5f32.to_le_bytes() };
    let all: Vec<_> = views.iter().copied().chain([empty, scalar]).collect();
    safetensors::write(&path, &all, &BTreeMap::new()).unwrap();
    let file = SafetensorsFile::open(&path).unwrap();
    for view in &all {
        let info = file.tensor(view.name).unwrap();
        assert_eq!((info.dtype, &info.shape[..]), (view.dtype, view.shape));
        assert_eq!(file.read(view.name).unwrap(), view.bytes);
    }
    assert_eq!(file.read_f32("scalar").unwrap(), [1.5]);
    assert_eq!(file.read_f32("empty").unwrap(), [0.0; 0]);
    assert!(matches!(file.read("none"), Err(StoreError::NoSuchTensor { .. })));
    assert!(file.read_f32("I64").unwrap_err().to_string().contains("floating point expected"));
    assert_eq!(folder.everything(), ["all.safetensors"]);
}

#[test]
fn halves_and_doubles_become_singles_and_nan_is_refused() {
    let folder = Scratch::new("safetensors-floats");
    let path = folder.path().join("f.safetensors");
    let half: Vec<u8> = [0x3c00u16, 0xc000].iter().flat_map(|x| x.to_le_bytes()).collect();
    let brain: Vec<u8> = [0x3f80u16, 0xc000].iter().flat_map(|x| x.to_le_bytes()).collect();
    let double: Vec<u8> = [1f64, -2.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    let bad: Vec<u8> = [1f32, f32::NAN].iter().flat_map(|x| x.to_le_bytes()).collect();
    let huge: Vec<u8> = [1f64, 1e300].iter().flat_map(|x| x.to_le_bytes()).collect();
    let view = |name, dtype, bytes| TensorData { name, dtype, shape: &[2], bytes };
    let all = [
        view("half", Dtype::F16, &half),
        view("brain", Dtype::BF16, &brain),
        view("double", Dtype::F64, &double),
        view("bad", Dtype::F32, &bad),
        view("huge", Dtype::F64, &huge),
    ];
    safetensors::write(&path, &all, &BTreeMap::new()).unwrap();
    let file = SafetensorsFile::open(&path).unwrap();
    for name in ["half", "brain", "double"] {
        assert_eq!(file.read_f32(name).unwrap(), [1.0, -2.0], "{name}");
    }
    for name in ["bad", "huge"] {
        let message = file.read_f32(name).unwrap_err().to_string();
        assert!(message.contains("element 1: not a usable weight"), "{message}");
    }
}

#[test]
fn bytes_that_do_not_fit_their_shape_are_not_written() {
    let folder = Scratch::new("safetensors-misfit");
    let path = folder.path().join("x.safetensors");
    let misfit = TensorData { name: "x", dtype: Dtype::F32, shape: &[2, 2], bytes: &[0; 15] };
    let message = safetensors::write(&path, &[misfit], &BTreeMap::new()).unwrap_err().to_string();
    assert!(message.contains("15 bytes given, 16 expected for F32 [2, 2]"), "{message}");
    assert!(folder.everything().is_empty());
}

/// A file with this header and so many bytes of data.
fn file(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

#[test]
fn hostile_files_are_refused_with_both_sides() {
    let folder = Scratch::new("safetensors-hostile");
    let t = |dtype: &str, shape: &str, offsets: &str| format!(r#"{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}"#);
    let one = |dtype: &str, shape: &str, offsets: &str| format!(r#"{{"a":{}}}"#, t(dtype, shape, offsets));
    let two = |a: &str, b: &str| format!(r#"{{"a":{},"b":{}}}"#, t("U8", "[4]", a), t("U8", "[4]", b));
    let with_length = |n: u64| n.to_le_bytes().into_iter().chain(*b"{}").collect::<Vec<u8>>();
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("empty file", vec![], "0 bytes are too few"),
        ("seven bytes", vec![0; 7], "7 bytes are too few"),
        ("header longer than the file", with_length(3), "header of 3 bytes in a file of 10"),
        ("header of 100 MB and more", with_length(100_000_001), "at most 100000000 are read"),
        ("header of 2^64-1", with_length(u64::MAX), "at most 100000000 are read"),
        ("header empty", file("", 0), "'{' expected"),
        ("header not JSON", file("{nonsense}", 0), "header is not valid"),
        ("header an array", file("[]", 0), "'{' expected"),
        ("header with blanks first", file("  {}", 0), "'{' expected"),
        (
            "header not UTF-8",
            {
                let mut f = file(r#"{"xx":1}"#, 0);
                f[10] = 0xff;
                f
            },
            "header is not valid",
        ),
        ("header nested deep", file(&format!(r#"{{"a":{deep}}}"#), 0), "header is not valid"),
        ("unknown key", file(r#"{"a":{"dtype":"U8","shape":[],"data_offsets":[0,1],"code":"x"}}"#, 1), "unknown field `code`"),
        ("missing key", file(r#"{"a":{"dtype":"U8","shape":[]}}"#, 1), "missing field `data_offsets`"),
        ("metadata not text", file(r#"{"__metadata__":{"a":1}}"#, 0), "header is not valid"),
        ("metadata twice", file(r#"{"__metadata__":{},"__metadata__":{}}"#, 0), "stands twice"),
        ("unknown dtype", file(&one("F4", "[2]", "[0,1]"), 1), "coded as \"F4\""),
        ("a name twice", file(&format!(r#"{{"a":{0},"a":{0}}}"#, t("U8", "[4]", "[0,4]")), 4), "\"a\" stands twice"),
        ("negative offset", file(&one("U8", "[4]", "[-1,3]"), 4), "header is not valid"),
        ("negative dimension", file(&one("U8", "[-4]", "[0,4]"), 4), "header is not valid"),
        ("fractional dimension", file(&one("U8", "[4.0]", "[0,4]"), 4), "header is not valid"),
        ("reversed offsets", file(&one("U8", "[4]", "[4,0]"), 4), "bytes 4..0 given, 4 bytes expected"),
        (
            "offsets at the end of u64",
            file(&one("U8", "[4]", "[18446744073709551611,18446744073709551615]"), 4),
            "starts at byte 18446744073709551611, 0 expected",
        ),
        ("too few bytes for the shape", file(&one("F32", "[2,2]", "[0,15]"), 15), "16 bytes expected for F32 [2, 2]"),
        ("shape product overflows to 0", file(&one("F32", "[4294967296,4294967296]", "[0,0]"), 0), "more elements than can be addressed"),
        (
            "shape product overflows behind a zero",
            file(&one("F32", "[0,4294967296,4294967296]", "[0,0]"), 0),
            "more elements than can be addressed",
        ),
        ("byte count overflows", file(&one("F64", "[2305843009213693952]", "[0,0]"), 0), "more elements than can be addressed"),
        ("gap", file(&two("[0,4]", "[5,9]"), 9), "\"b\" starts at byte 5, 4 expected"),
        ("gap at the start", file(&one("U8", "[4]", "[1,5]"), 5), "starts at byte 1, 0 expected"),
        ("overlap", file(&two("[0,4]", "[3,7]"), 7), "\"b\" starts at byte 3, 4 expected"),
        ("the same bytes twice", file(&two("[0,4]", "[0,4]"), 4), "starts at byte 0, 4 expected"),
        ("cut short", file(&one("U8", "[4]", "[0,4]"), 3), "tensors end at byte 4 of the data, the data has 3"),
        ("something appended", file(&one("U8", "[4]", "[0,4]"), 5), "tensors end at byte 4 of the data, the data has 5"),
    ];
    for (what, bytes, expected) in cases {
        let path = folder.put("x.safetensors", bytes);
        let message = SafetensorsFile::open(&path).map(|_| ()).expect_err(what).to_string();
        assert!(message.contains(expected), "{what}: {message}");
        assert!(message.ends_with("x.safetensors") && !message.contains('\n'), "{what}: path last, one line: {message}");
    }
}

#[test]
fn a_million_tensors_are_refused() {
    let folder = Scratch::new("safetensors-million");
    let lines: Vec<String> = (0..100_001).map(|i| format!(r#""{i}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#)).collect();
    let path = folder.put("many.safetensors", file(&format!("{{{}}}", lines.join(",")), 0));
    let message = SafetensorsFile::open(&path).unwrap_err().to_string();
    assert!(message.contains("at most 100000 are read"), "{message}");
}

#[test]
fn names_in_messages_are_short_and_harmless() {
    let folder = Scratch::new("safetensors-names");
    let long = "x".repeat(10_000);
    let header = format!(r#"{{"\u001b[31m{long}":{{"dtype":"U8","shape":[4],"data_offsets":[0,3]}}}}"#);
    let message = SafetensorsFile::open(&folder.put("x.safetensors", file(&header, 3))).unwrap_err().to_string();
    assert!(!message.contains('\u{1b}') && message.len() < 600, "{message}");
}

#[test]
fn a_file_cut_while_open_is_an_error() {
    let folder = Scratch::new("safetensors-cut");
    let path = folder.put("x.safetensors", file(r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#, 4));
    let open = SafetensorsFile::open(&path).unwrap();
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(9).unwrap();
    assert!(open.read("a").unwrap_err().to_string().contains("cannot read"));
}

/// Where the file has them, tensors are what reading gives; of a file that was cut off nothing is given.
#[test]
fn mapped_tensors_are_those_that_are_read() {
    let file = SafetensorsFile::open(&golden("llama/model.safetensors")).unwrap();
    for tensor in file.tensors() {
        assert_eq!(file.map(&tensor.name).unwrap().as_ref(), file.read(&tensor.name).unwrap(), "{}", tensor.name);
    }
    assert!(matches!(file.map("none"), Err(StoreError::NoSuchTensor { .. })));
    let bytes = file.map(&file.tensors()[0].name).unwrap();
    assert_eq!(bytes.part(4, 8).unwrap().as_ref(), &bytes.as_ref()[4..12]);
    assert!(bytes.part(1, bytes.as_ref().len()).is_none() && bytes.part(usize::MAX, 2).is_none());
    drop(file); // what is held keeps the mapping
    assert!(!bytes.as_ref().is_empty());

    let folder = Scratch::new("safetensors-mapped");
    let path = folder.put("x.safetensors", self::file(r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#, 4));
    let open = SafetensorsFile::open(&path).unwrap();
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(9).unwrap();
    assert!(open.map("a").unwrap_err().to_string().contains("cannot map"));
}

#[test]
fn what_is_no_plain_file_is_refused() {
    let folder = Scratch::new("safetensors-kind");
    let error = |path: &Path| SafetensorsFile::open(path).unwrap_err().to_string();
    assert!(error(folder.path()).starts_with("a folder where a plain file is expected"));
    assert!(error(&folder.path().join("none")).starts_with("there is no "));
    #[cfg(unix)]
    assert!(error(Path::new("/dev/zero")).starts_with("a device or pipe where"));
}

#[test]
fn shards_are_read_through_their_index() {
    let folder = Scratch::new("shards");
    let shard = |name: &str, tensor: &str| {
        let bytes = safetensors::to_bytes(
            &[TensorData { name: tensor, dtype: Dtype::U8, shape: &[3], bytes: tensor[..1].repeat(3).as_bytes() }],
            &BTreeMap::new(),
        )
        .unwrap();
        folder.put(name, bytes);
    };
    shard("model-1.safetensors", "a");
    shard("model-2.safetensors", "b");
    let index = |map: &str| folder.put("model.safetensors.index.json", format!(r#"{{"metadata":{{"total_size":6}},"weight_map":{map}}}"#));
    let good = Sharded::open(&index(r#"{"b":"model-2.safetensors","a":"model-1.safetensors"}"#)).unwrap();
    assert_eq!(good.tensors().iter().map(|t| t.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(good.shard_of("b").unwrap().read("b").unwrap(), b"bbb");
    for (map, expected) in [
        (r#"{"a":"../../etc/passwd"}"#, "plain file name"),
        (r#"{"a":"/etc/model.safetensors"}"#, "plain file name"),
        (r#"{"a":"sub/model.safetensors"}"#, "plain file name"),
        (r#"{"a":"..\\model.safetensors"}"#, "plain file name"),
        (r#"{"a":"pytorch_model.bin"}"#, "plain file name"),
        (r#"{"a":"model-1.safetensors","b":"model-3.safetensors"}"#, "\"model-3.safetensors\", which is not beside it"),
        (r#"{"a":"model-1.safetensors","a":"model-2.safetensors"}"#, "\"a\" stands twice"),
        (
            r#"{"a":"model-1.safetensors","c":"model-1.safetensors"}"#,
            "puts tensor \"c\" into \"model-1.safetensors\", which does not hold it",
        ),
        (r#"{"a":"model-2.safetensors"}"#, "holds tensor \"b\", which the index does not put there"),
        (r#"{"a":1}"#, "not valid JSON"),
        (r#"[]"#, "not valid JSON"),
    ] {
        let message = Sharded::open(&index(map)).expect_err(map).to_string();
        assert!(message.contains(expected), "{map}: {message}");
    }
    assert!(
        Sharded::open(&folder.put("model.safetensors.index.json", "{}")).unwrap_err().to_string().contains("missing field `weight_map`")
    );
}
