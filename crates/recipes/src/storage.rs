//! How a base's weights are held in memory: as the file has them, or quantised (or expanded) as `[model] storage` says.
//!
//! | storage | linear layers | embedding and head | rows that are not whole blocks |
//! |---|---|---|---|
//! | none | as the file has them | as the file has them | – |
//! | `f32`, `bf16`, `f16`, `q8_0`, `q6_k` | that | that | Q6_K: Q8_0; else F16 |
//! | `q4_0`, `q4_k`, `q5_k` | that | Q6_K | Q4_K: Q5_0; Q5_K: Q5_1; Q6_K: Q8_0; else F16 |
//! | `nf4` | NF4 with double quantisation | as the file has them | Q8_0; else F16 |
//!
//! Embedding and head follow whom users know each storage from: llama.cpp keeps `output.weight` (and an embedding that is
//! tied to it) in six bits beside layers of four or five, because every token's probability goes through it; bitsandbytes
//! quantises linear layers only. Gains and biases are f32 always. What is quantised in the file is not quantised again:
//! errors would add up; expanding it to f32 is exact.

use engine::config::TensorName;
use engine::storage::{Storage, blockwise};
use store::Dtype;
use store::bitsandbytes::{Nested, Parts, Quantized, Scales};

use crate::error::{Error, Result};

/// What `[model] storage` and `--storage` may say.
pub const CHOICES: &[&str] = &["f32", "bf16", "f16", "q8_0", "q6_k", "q5_k", "q4_k", "q4_0", "nf4"];

/// The storage of that name, which is one of [`CHOICES`]; nothing for an empty text: as the file has it.
pub(crate) fn parse(given: &str) -> Result<Option<Storage>> {
    if given.is_empty() {
        return Ok(None);
    }
    crate::spec::known("storage", given, CHOICES)?;
    Ok(Storage::ALL.into_iter().find(|storage| storage.name() == given))
}

/// How tensor `name` (`source` in the file, with rows of `cols`) is held where the file stores it as `file`.
pub(crate) fn held(choice: Option<Storage>, name: TensorName, source: &str, cols: usize, file: Storage) -> Result<Storage> {
    let outside = matches!(name, TensorName::Embedding | TensorName::Head);
    let wanted = match choice {
        None => return Ok(file),
        Some(_) if !outside && !matches!(name, TensorName::Linear(..)) => return Ok(file),
        Some(Storage::Nf4) if outside => return Ok(file),
        Some(Storage::Q4_0 | Storage::Q4K | Storage::Q5K) if outside => Storage::Q6K,
        Some(choice) => choice,
    };
    let fits = |storage: Storage| cols.is_multiple_of(storage.block_len());
    let instead = match wanted {
        Storage::Q4K => Storage::Q5_0,
        Storage::Q5K => Storage::Q5_1,
        Storage::Q6K | Storage::Nf4 => Storage::Q8_0,
        _ => Storage::F16,
    };
    let held = [wanted, instead].into_iter().find(|&storage| fits(storage)).unwrap_or(Storage::F16);
    if file == held || file.is_float() || held == Storage::F32 {
        return Ok(held);
    }
    Err(Error::Requantized { tensor: source.to_owned(), given: file.name().to_uppercase(), asked: held.name().to_uppercase() })
}

/// The engine's name for a file's coding.
pub(crate) fn of_file(dtype: Dtype, tensor: &str) -> Result<Storage> {
    Ok(match dtype {
        Dtype::F32 => Storage::F32,
        Dtype::F16 => Storage::F16,
        Dtype::BF16 => Storage::Bf16,
        Dtype::Q4_0 => Storage::Q4_0,
        Dtype::Q4_1 => Storage::Q4_1,
        Dtype::Q5_0 => Storage::Q5_0,
        Dtype::Q5_1 => Storage::Q5_1,
        Dtype::Q8_0 => Storage::Q8_0,
        Dtype::Q2K => Storage::Q2K,
        Dtype::Q3K => Storage::Q3K,
        Dtype::Q4K => Storage::Q4K,
        Dtype::Q5K => Storage::Q5K,
        Dtype::Q6K => Storage::Q6K,
        Dtype::Iq4Nl => Storage::Iq4Nl,
        Dtype::Iq4Xs => Storage::Iq4Xs,
        other => {
            let expected = "F32, F16, BF16, Q4_0 to Q8_0, Q2_K to Q6_K, IQ4_NL, IQ4_XS".into();
            return Err(Error::Storage { tensor: tensor.to_owned(), given: other.name().to_owned(), expected });
        }
    })
}

/// The coding of a storage in GGUF and safetensors files, where it has one that needs no tensors beside it.
pub(crate) fn to_file(storage: Storage) -> Option<Dtype> {
    let known = [
        Dtype::F32,
        Dtype::F16,
        Dtype::BF16,
        Dtype::Q4_0,
        Dtype::Q4_1,
        Dtype::Q5_0,
        Dtype::Q5_1,
        Dtype::Q8_0,
        Dtype::Q2K,
        Dtype::Q3K,
        Dtype::Q4K,
        Dtype::Q5K,
        Dtype::Q6K,
        Dtype::Iq4Nl,
        Dtype::Iq4Xs,
    ];
    known.into_iter().find(|&dtype| of_file(dtype, "").is_ok_and(|found| found == storage))
}

/// How a tensor that bitsandbytes quantised is held as it is: in its own form where rows are whole blocks and the codes'
/// values are the known ones, with f32 scales where only the scales' form is another, else expanded to f32. The values are
/// the same in each.
pub(crate) fn of_quantized(quantized: &Quantized, dtype: Dtype, cols: usize, tensor: &str) -> Result<Storage> {
    let Quantized::FourBit { block, map, nested } = quantized else {
        return Ok(if cols.is_multiple_of(Storage::Int8.block_len()) { Storage::Int8 } else { Storage::F32 });
    };
    let (known, double, plain) = match dtype {
        Dtype::Nf4 => (&blockwise::NF4, Storage::Nf4, Storage::Nf4Plain),
        _ => (&blockwise::FP4, Storage::Fp4, Storage::Fp4Plain),
    };
    if **map != *known {
        let given = format!("{} with codes of its own", dtype.name());
        return Err(Error::Storage { tensor: tensor.to_owned(), given, expected: "NF4 and FP4 as bitsandbytes defines them".into() });
    }
    if !cols.is_multiple_of(blockwise::BLOCK) || !block.is_multiple_of(blockwise::BLOCK) {
        return Ok(Storage::F32);
    }
    Ok(match nested {
        Some(Nested { block: nested, map, .. })
            if *block == blockwise::BLOCK && *nested == blockwise::NESTED && **map == blockwise::DYNAMIC =>
        {
            double
        }
        _ => plain,
    })
}

/// The rows of a tensor that bitsandbytes quantised, in storage `held` of [`of_quantized`].
pub(crate) fn rows_of_quantized(quantized: &Quantized, dtype: Dtype, parts: Parts, rows: usize, cols: usize, held: Storage) -> Vec<u8> {
    let to_bytes = |values: Vec<f32>| values.into_iter().flat_map(f32::to_le_bytes).collect();
    match (quantized, parts) {
        (Quantized::FourBit { nested: Some(nested), .. }, Parts { codes, scales: Scales::Nested { codes: scales, nested: of_scales } })
            if matches!(held, Storage::Nf4 | Storage::Fp4) =>
        {
            blockwise::double_quantized(rows, cols, &codes, &scales, &of_scales, nested.offset)
        }
        (Quantized::FourBit { block, nested, .. }, Parts { codes, scales }) => {
            let scales = match (scales, nested) {
                (Scales::Nested { codes, nested: of_scales }, Some(nested)) => {
                    blockwise::scales(&codes, &nested.map, &of_scales, nested.block, nested.offset)
                }
                (Scales::Plain(scales), _) => scales,
                (Scales::Nested { .. }, None) => unreachable!("scales are read as the tensor was described"),
            };
            match (held, dtype) {
                (Storage::F32, Dtype::Nf4) => to_bytes(blockwise::expanded(Storage::Nf4, rows * cols, &codes, *block, &scales)),
                (Storage::F32, _) => to_bytes(blockwise::expanded(Storage::Fp4, rows * cols, &codes, *block, &scales)),
                _ => blockwise::plain(&codes, *block, &scales),
            }
        }
        (Quantized::Int8, Parts { codes, scales: Scales::Plain(scales) }) => match held {
            Storage::Int8 => blockwise::int8(cols, &codes, &scales),
            _ => to_bytes(blockwise::int8_expanded(cols, &codes, &scales)),
        },
        (Quantized::Int8, _) => unreachable!("scales are read as the tensor was described"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::config::Linear;
    use engine::storage::{dequantize_row, finite};
    use std::path::Path;

    fn fnv(values: &[f32]) -> String {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes());
        format!("{:016x}", bytes.fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)))
    }

    /// Every quantised tensor of bitsandbytes' own files has bitsandbytes' own values, bit for bit.
    #[test]
    fn values_are_bitsandbytes_s() {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/bitsandbytes");
        let mut met = std::collections::BTreeSet::new();
        for (name, count) in [("nf4", 7), ("fp4", 7), ("int8", 7)] {
            let files = store::BaseModel::open(&golden.join(name)).unwrap();
            let values = store::atomic::read_json(&golden.join(name).join("values.json"), 1 << 20).unwrap();
            let mut seen = 0;
            for info in files.tensors() {
                let Some(quantized) = files.quantized(&info.name) else {
                    assert_eq!(info.dtype, Dtype::BF16, "{}", info.name);
                    continue;
                };
                let [rows, cols] = info.shape[..] else { panic!("{:?}", info.shape) };
                let held = of_quantized(quantized, info.dtype, cols, &info.name).unwrap();
                let bytes = rows_of_quantized(quantized, info.dtype, files.read_quantized(&info.name).unwrap(), rows, cols, held);
                assert_eq!(held.bytes(rows, cols), Some(bytes.len()));
                assert!(finite(held, cols, &bytes));
                let mut numbers = vec![0.0; rows * cols];
                for (bytes, numbers) in bytes.chunks_exact(held.row_bytes(cols).unwrap()).zip(numbers.chunks_exact_mut(cols)) {
                    dequantize_row(held, bytes, numbers);
                }
                let want = &values[&info.name];
                assert_eq!(fnv(&numbers), want["fnv"], "{name} {}: {:?}, not {}", info.name, &numbers[..4], want["first"]);
                met.insert(held);
                seen += 1;
            }
            assert_eq!(seen, count, "{name}");
        }
        assert_eq!(met.into_iter().collect::<Vec<_>>(), [Storage::F32, Storage::Nf4, Storage::Fp4Plain, Storage::Int8]);
    }

    #[test]
    fn every_choice_is_a_storage_with_a_writer() {
        for given in CHOICES {
            let storage = parse(given).unwrap().unwrap();
            assert!(storage.has_writer() && storage.name() == *given);
        }
        assert_eq!(parse("").unwrap(), None);
        let error = parse("q4k").unwrap_err();
        assert_eq!(error.hint().unwrap(), "did you mean \"q4_k\"?");
    }

    #[test]
    fn embeddings_norms_and_odd_rows_are_held_as_the_table_says() {
        let linear = TensorName::Linear(0, Linear::Down);
        let held = |choice, name, cols, file| held(Some(choice), name, "t", cols, file);
        for (choice, name, cols, expected) in [
            (Storage::Q4K, linear, 1536, Storage::Q4K),
            (Storage::Q4K, linear, 576, Storage::Q5_0),
            (Storage::Q4K, linear, 40, Storage::F16),
            (Storage::Q5K, linear, 576, Storage::Q5_1),
            (Storage::Q6K, linear, 576, Storage::Q8_0),
            (Storage::Q4K, TensorName::Head, 2048, Storage::Q6K),
            (Storage::Q4_0, TensorName::Embedding, 576, Storage::Q8_0),
            (Storage::Nf4, TensorName::Embedding, 576, Storage::Bf16),
            (Storage::Nf4, linear, 576, Storage::Nf4),
            (Storage::Nf4, linear, 96, Storage::Q8_0),
            (Storage::Q8_0, TensorName::Embedding, 576, Storage::Q8_0),
            (Storage::F32, linear, 7, Storage::F32),
            (Storage::Q4K, TensorName::FinalNorm, 576, Storage::Bf16),
        ] {
            assert_eq!(held(choice, name, cols, Storage::Bf16).unwrap(), expected, "{choice:?} {name} {cols}");
        }
        assert_eq!(held(Storage::F32, linear, 256, Storage::Q4K).unwrap(), Storage::F32);
        assert_eq!(held(Storage::Q4K, linear, 256, Storage::Q4K).unwrap(), Storage::Q4K);
        let error = held(Storage::Nf4, linear, 256, Storage::Q4K).unwrap_err();
        assert!(error.to_string().contains("stored as Q4_K, NF4 is asked for"), "{error}");
        assert!(error.hint().unwrap().contains("\"f32\""));
    }
}
