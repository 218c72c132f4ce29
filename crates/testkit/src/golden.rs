//! Reads the committed reference tensors: safetensors files, from bytes.

use std::collections::BTreeMap;

use serde_json::Value;

/// One tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct GoldenTensor {
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// `F32`, `F64`, `I32` or `I64`.
    pub dtype: String,
    bytes: Vec<u8>,
}

impl GoldenTensor {
    /// As f32; F32 or F64.
    pub fn f32(&self) -> Vec<f32> {
        self.f64().into_iter().map(|x| x as f32).collect()
    }

    /// As f64; F32 or F64.
    pub fn f64(&self) -> Vec<f64> {
        match self.dtype.as_str() {
            "F32" => self.bytes.chunks_exact(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().expect("4 bytes")))).collect(),
            "F64" => self.bytes.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().expect("8 bytes"))).collect(),
            other => panic!("{other} is not a float"),
        }
    }

    /// As token ids; I32 or I64.
    pub fn ids(&self) -> Vec<u32> {
        match self.dtype.as_str() {
            "I32" => self.bytes.chunks_exact(4).map(|b| i32::from_le_bytes(b.try_into().expect("4 bytes")) as u32).collect(),
            "I64" => self.bytes.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().expect("8 bytes")) as u32).collect(),
            other => panic!("{other} is not an integer"),
        }
    }

    /// The same with other numbers of the same kind.
    pub fn with_bytes(&self, bytes: Vec<u8>) -> GoldenTensor {
        assert_eq!(bytes.len(), self.bytes.len(), "as many numbers");
        GoldenTensor { bytes, ..self.clone() }
    }

    /// The stored bytes, little endian.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// A file of reference tensors and its string metadata.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Golden {
    /// By name.
    pub tensors: BTreeMap<String, GoldenTensor>,
    /// `__metadata__`.
    pub metadata: BTreeMap<String, String>,
}

impl Golden {
    /// Parses a safetensors file. Golden files are ours: whatever is wrong with one panics.
    pub fn parse(file: &[u8]) -> Golden {
        let length = u64::from_le_bytes(file[..8].try_into().expect("8 bytes")) as usize;
        let header: Value = serde_json::from_slice(&file[8..8 + length]).expect("a JSON header");
        let data = &file[8 + length..];
        let mut golden = Golden::default();
        for (name, value) in header.as_object().expect("an object") {
            if name == "__metadata__" {
                let pairs = value.as_object().expect("an object").iter();
                golden.metadata = pairs.map(|(k, v)| (k.clone(), v.as_str().expect("a string").to_string())).collect();
                continue;
            }
            let numbers = |key: &str| -> Vec<usize> {
                value[key].as_array().expect("an array").iter().map(|n| n.as_u64().expect("a number") as usize).collect()
            };
            let offsets = numbers("data_offsets");
            let dtype = value["dtype"].as_str().expect("a string").to_string();
            let bytes = data[offsets[0]..offsets[1]].to_vec();
            golden.tensors.insert(name.clone(), GoldenTensor { shape: numbers("shape"), dtype, bytes });
        }
        golden
    }

    /// A tensor that must be there.
    #[track_caller]
    pub fn tensor(&self, name: &str) -> &GoldenTensor {
        self.tensors.get(name).unwrap_or_else(|| panic!("no tensor {name:?} among {:?}", self.tensors.keys().collect::<Vec<_>>()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_names_shapes_and_numbers() {
        let header = br#"{"__metadata__":{"by":"hand"},"x":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]},"i":{"dtype":"I32","shape":[1],"data_offsets":[8,12]}}"#;
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend_from_slice(header);
        for x in [1.5f32, -2.0] {
            file.extend_from_slice(&x.to_le_bytes());
        }
        file.extend_from_slice(&7i32.to_le_bytes());
        let golden = Golden::parse(&file);
        assert_eq!(golden.tensor("x").f32(), [1.5, -2.0]);
        assert_eq!(golden.tensor("x").shape, [1, 2]);
        assert_eq!(golden.tensor("i").ids(), [7]);
        assert_eq!(golden.metadata["by"], "hand");
    }
}
