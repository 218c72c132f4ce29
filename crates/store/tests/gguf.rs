//! GGUF: what we write is read back; every malformed file is refused by name before anything is allocated for it.
#![allow(clippy::disallowed_methods, reason = "tests set files up by hand")]
mod scratch;

use std::collections::BTreeMap;

use scratch::Scratch;
use store::gguf::{self, GgufFile, GgufTensor, GgufValue};
use store::{Dtype, StoreError};

#[test]
fn what_is_written_comes_back() {
    let folder = Scratch::new("gguf-round");
    let metadata = BTreeMap::from([
        ("general.architecture".to_owned(), GgufValue::Text("llama".into())),
        ("a.small".into(), GgufValue::Unsigned(7)),
        ("a.large".into(), GgufValue::Unsigned(1 << 40)),
        ("a.negative".into(), GgufValue::Signed(-7)),
        ("a.float".into(), GgufValue::Float(0.5)),
        ("a.flag".into(), GgufValue::Bool(true)),
        ("a.texts".into(), GgufValue::Texts(["ä", ""].into_iter().collect())),
        ("a.numbers".into(), GgufValue::Array(vec![GgufValue::Unsigned(1), GgufValue::Unsigned(1 << 40)])),
        (
            "a.nested".into(),
            GgufValue::Array(vec![
                GgufValue::Array(vec![GgufValue::Signed(-1 << 40)]),
                GgufValue::Integers(vec![-1, 7]),
                GgufValue::Floats(vec![0.5]),
                GgufValue::Texts(std::iter::empty::<&str>().collect()),
            ]),
        ),
    ]);
    let bytes: Vec<u8> = (0..=255).collect();
    let tensors = [
        GgufTensor { name: "f32", dtype: Dtype::F32, shape: &[2, 3], bytes: &bytes[..24] },
        GgufTensor { name: "q4_0", dtype: Dtype::Q4_0, shape: &[2, 32], bytes: &bytes[..36] },
        GgufTensor { name: "q4_1", dtype: Dtype::Q4_1, shape: &[1, 64], bytes: &bytes[..40] },
        GgufTensor { name: "q8_0", dtype: Dtype::Q8_0, shape: &[64], bytes: &bytes[..68] },
        GgufTensor { name: "bf16", dtype: Dtype::BF16, shape: &[5], bytes: &bytes[..10] },
    ];
    let path = folder.put("x.gguf", gguf::to_bytes(&metadata, &tensors).unwrap());
    let file = GgufFile::open(&path).unwrap();
    assert_eq!(file.metadata(), &metadata);
    for (info, tensor) in file.tensors().iter().zip(&tensors) {
        assert_eq!((info.name.as_str(), info.dtype, &info.shape[..]), (tensor.name, tensor.dtype, tensor.shape));
        assert_eq!(file.read(&info.name).unwrap(), tensor.bytes);
    }
    assert!(matches!(file.read("none"), Err(StoreError::NoSuchTensor { .. })));
    let torn = GgufTensor { name: "torn", dtype: Dtype::Q8_0, shape: &[33], bytes: &bytes[..34] };
    assert!(gguf::to_bytes(&metadata, &[torn]).unwrap_err().to_string().contains("34 bytes given, whole blocks expected"));
}

/// Builds a file piece by piece, so that any piece can be wrong.
#[derive(Clone)]
struct Raw(Vec<u8>);

impl Raw {
    fn new(version: u32, tensors: u64, keys: u64) -> Self {
        Self([&b"GGUF"[..], &version.to_le_bytes(), &tensors.to_le_bytes(), &keys.to_le_bytes()].concat())
    }
    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }
    fn u32(self, n: u32) -> Self {
        self.bytes(&n.to_le_bytes())
    }
    fn u64(self, n: u64) -> Self {
        self.bytes(&n.to_le_bytes())
    }
    fn text(self, text: &str) -> Self {
        self.u64(text.len() as u64).bytes(text.as_bytes())
    }
    fn tensor(self, name: &str, dimensions: &[u64], kind: u32, offset: u64) -> Self {
        let mut raw = self.text(name).u32(dimensions.len() as u32);
        for &d in dimensions {
            raw = raw.u64(d);
        }
        raw.u32(kind).u64(offset)
    }
    fn aligned(mut self, data: usize) -> Vec<u8> {
        self.0.resize(self.0.len().next_multiple_of(32) + data, 0);
        self.0
    }
}

#[test]
fn hostile_files_are_refused_with_both_sides() {
    let folder = Scratch::new("gguf-hostile");
    let one = |dimensions: &[u64], kind: u32, offset: u64| Raw::new(3, 1, 0).tensor("t", dimensions, kind, offset);
    let key = |name: &str, kind: u32| Raw::new(3, 0, 1).text(name).u32(kind);
    let alignment = |n: u32| key("general.alignment", 4).u32(n).0;
    let mut nested = key("k", 9);
    for _ in 0..5 {
        nested = nested.u32(9).u64(1);
    }
    let huge = 1u64 << 33;
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("empty", vec![], "ends inside the magic"),
        ("another file", b"PK\x03\x04abcdefghijkl".to_vec(), "starts with \"PK\\\\x03\\\\x04\", \"GGUF\" expected"),
        ("cut in the head", b"GGUF\x03\0\0\0\x01".to_vec(), "ends inside the number of tensors"),
        ("version 1", Raw::new(1, 0, 0).0, "version 1; 2 and 3 are read"),
        ("version 4", Raw::new(4, 0, 0).0, "version 4; 2 and 3 are read"),
        ("big endian", Raw::new(3u32.swap_bytes(), 0, 0).0, "big-endian"),
        ("tensors beyond the limit", Raw::new(3, huge, 0).0, "8589934592 tensors; at most 100000"),
        ("keys beyond the limit", Raw::new(3, 0, u64::MAX).0, "18446744073709551615 keys; at most 65536"),
        ("keys beyond the file", Raw::new(3, 0, 10).0, "ends inside"),
        ("key's length beyond the limit", Raw::new(3, 0, 1).u64(huge).0, "bytes of a name or text; at most 65535"),
        ("key's length beyond the file", Raw::new(3, 0, 1).u64(100).0, "a key, which needs 100 bytes"),
        ("key not UTF-8", Raw::new(3, 0, 1).u64(2).bytes(&[0xff, 0xfe]).u32(4).u32(1).0, "a key is not UTF-8"),
        ("text's length beyond the limit", key("k", 8).u64(huge).0, "bytes of a name or text; at most 16777216"),
        ("text's length beyond the file", key("k", 8).u64(1 << 20).0, "a text, which needs 1048576 bytes"),
        ("text not UTF-8", key("k", 8).u64(1).bytes(&[0xff]).0, "the text of key \"k\" is not UTF-8"),
        ("value type 13", key("k", 13).u32(0).0, "value type 13; 0 to 12 exist"),
        ("negative value type", key("k", u32::MAX).u32(0).0, "value type 4294967295"),
        ("boolean 2", key("k", 7).bytes(&[2]).0, "the boolean 2"),
        ("key twice", Raw::new(3, 0, 2).text("k").u32(4).u32(1).text("k").u32(4).u32(1).0, "\"k\" stands twice"),
        ("array's length beyond the limit", key("k", 9).u32(0).u64(u64::MAX).0, "array elements in all; at most"),
        ("array's length beyond the file", key("k", 9).u32(10).u64(1000).0, "an array, which needs 8000 bytes"),
        ("array of an unknown type", key("k", 9).u32(77).u64(1).0, "value type 77"),
        ("arrays nested deep", nested.0, "nests arrays more than 4 deep"),
        ("alignment 0", alignment(0), "general.alignment is 0; a power of two"),
        ("alignment 24", alignment(24), "general.alignment is 24; a power of two"),
        ("alignment 2^31", alignment(1 << 31), "general.alignment is 2147483648; a power of two from 1 to 65536"),
        ("alignment a text", key("general.alignment", 8).text("x").0, "general.alignment is a text"),
        ("no dimensions", one(&[], 0, 0).aligned(0), "0 dimensions; 1 to 4"),
        ("five dimensions", one(&[1; 5], 0, 0).aligned(4), "5 dimensions; 1 to 4"),
        ("dimension 0", one(&[0, 4], 0, 0).aligned(0), "are zero or more than can be addressed"),
        ("product overflows", one(&[1 << 32, 1 << 32], 0, 0).aligned(0), "are zero or more than can be addressed"),
        ("product overflows in bits", one(&[1 << 61], 0, 0).aligned(0), "are zero or more than can be addressed"),
        ("IQ3_S", one(&[256], 21, 0).aligned(110), "tensor \"t\" is IQ3_S: not read (F32, F16"),
        ("a removed type", one(&[256], 4, 0).aligned(144), "type number 4, which does not exist"),
        ("negative type", one(&[4], u32::MAX, 0).aligned(16), "type number -1, which does not exist"),
        ("torn block", one(&[33, 32], 8, 0).aligned(4096), "rows of 33 elements, a multiple of 32 expected for Q8_0"),
        ("tensor twice", Raw::new(3, 2, 0).tensor("t", &[4], 0, 0).tensor("t", &[4], 0, 32).aligned(48), "\"t\" stands twice"),
        ("offset in the middle", one(&[4], 0, 4).aligned(32), "starts at byte 4 of the data, 0 expected"),
        (
            "overlap",
            Raw::new(3, 2, 0).tensor("t", &[16], 0, 0).tensor("u", &[4], 0, 32).aligned(96),
            "\"u\" starts at byte 32 of the data, 64 expected",
        ),
        (
            "offset at the end of u64",
            Raw::new(3, 2, 0).tensor("t", &[4], 0, 0).tensor("u", &[4], 0, u64::MAX).aligned(48),
            "18446744073709551615",
        ),
        ("data cut short", one(&[16], 0, 0).aligned(63), "tensors end at byte 64 of the data, the data has 63"),
        ("no data at all", one(&[16], 0, 0).0, "tensors end at byte 64 of the data, the data has 0"),
        ("something appended", one(&[16], 0, 0).aligned(65), "tensors end at byte 64 of the data, the data has 65"),
    ];
    for (what, bytes, expected) in cases {
        let path = folder.put("x.gguf", bytes);
        let message = GgufFile::open(&path).map(|_| ()).expect_err(what).to_string();
        assert!(message.contains(expected), "{what}: {message}");
        assert!(message.ends_with("x.gguf") && !message.contains('\n'), "{what}: {message}");
    }
}

#[test]
fn version_two_and_padding_at_the_end_are_read() {
    let folder = Scratch::new("gguf-two");
    for data in [16, 32] {
        let path = folder.put("x.gguf", Raw::new(2, 1, 0).tensor("t", &[4], 0, 0).aligned(data));
        assert_eq!(GgufFile::open(&path).unwrap().read("t").unwrap().len(), 16);
    }
}
