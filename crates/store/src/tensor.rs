//! What a stored tensor is: its name, how its numbers are coded, its shape.

/// How the numbers of a tensor are coded in a file, little endian. In ascending order of alignment, as
/// the reference implementation of safetensors sorts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dtype {
    /// One byte, 0 or 1.
    Bool,
    /// Unsigned byte.
    U8,
    /// Signed byte.
    I8,
    /// 16-bit signed.
    I16,
    /// 16-bit unsigned.
    U16,
    /// IEEE half.
    F16,
    /// bfloat16.
    BF16,
    /// 32-bit signed.
    I32,
    /// 32-bit unsigned.
    U32,
    /// IEEE single.
    F32,
    /// IEEE double.
    F64,
    /// 64-bit signed.
    I64,
    /// 64-bit unsigned.
    U64,
    /// GGUF block of 32: f16 scale, 16 bytes of nibbles.
    Q4_0,
    /// GGUF block of 32: f16 scale, f16 minimum, 16 bytes of nibbles.
    Q4_1,
    /// GGUF block of 32: f16 scale, 32 fifth bits, 16 bytes of nibbles.
    Q5_0,
    /// GGUF block of 32: f16 scale, f16 minimum, 32 fifth bits, 16 bytes of nibbles.
    Q5_1,
    /// GGUF block of 32: f16 scale, 32 signed bytes.
    Q8_0,
    /// GGUF super-block of 256 with two bits a weight.
    Q2K,
    /// GGUF super-block of 256 with three bits a weight.
    Q3K,
    /// GGUF super-block of 256 with four bits a weight.
    Q4K,
    /// GGUF super-block of 256 with five bits a weight.
    Q5K,
    /// GGUF super-block of 256 with six bits a weight.
    Q6K,
    /// GGUF block of 32: f16 scale, 16 bytes of nibbles, codes of uneven steps.
    Iq4Nl,
    /// GGUF super-block of 256 with the codes of `Iq4Nl`.
    Iq4Xs,
    /// bitsandbytes' 4-bit codes of the normal distribution, two a byte; their scales are tensors of their own.
    Nf4,
    /// bitsandbytes' 4-bit floats, two a byte; their scales are tensors of their own.
    Fp4,
    /// bitsandbytes' signed bytes; their scales, one a row, are a tensor of its own.
    Int8,
}

impl Dtype {
    /// (elements, bytes) of one block; one element for plain numbers.
    pub fn block(self) -> (usize, usize) {
        match self {
            Dtype::Bool | Dtype::U8 | Dtype::I8 | Dtype::Int8 => (1, 1),
            Dtype::U16 | Dtype::I16 | Dtype::F16 | Dtype::BF16 => (1, 2),
            Dtype::U32 | Dtype::I32 | Dtype::F32 => (1, 4),
            Dtype::U64 | Dtype::I64 | Dtype::F64 => (1, 8),
            Dtype::Q4_0 | Dtype::Iq4Nl => (32, 18),
            Dtype::Q4_1 => (32, 20),
            Dtype::Q5_0 => (32, 22),
            Dtype::Q5_1 => (32, 24),
            Dtype::Q8_0 => (32, 34),
            Dtype::Q2K => (256, 84),
            Dtype::Q3K => (256, 110),
            Dtype::Q4K => (256, 144),
            Dtype::Q5K => (256, 176),
            Dtype::Q6K => (256, 210),
            Dtype::Iq4Xs => (256, 136),
            Dtype::Nf4 | Dtype::Fp4 => (2, 1),
        }
    }

    /// The name that safetensors and GGUF tools print.
    pub fn name(self) -> &'static str {
        match self {
            Dtype::Bool => "BOOL",
            Dtype::U8 => "U8",
            Dtype::I8 => "I8",
            Dtype::U16 => "U16",
            Dtype::I16 => "I16",
            Dtype::U32 => "U32",
            Dtype::I32 => "I32",
            Dtype::U64 => "U64",
            Dtype::I64 => "I64",
            Dtype::F16 => "F16",
            Dtype::BF16 => "BF16",
            Dtype::F32 => "F32",
            Dtype::F64 => "F64",
            Dtype::Q4_0 => "Q4_0",
            Dtype::Q4_1 => "Q4_1",
            Dtype::Q5_0 => "Q5_0",
            Dtype::Q5_1 => "Q5_1",
            Dtype::Q8_0 => "Q8_0",
            Dtype::Q2K => "Q2_K",
            Dtype::Q3K => "Q3_K",
            Dtype::Q4K => "Q4_K",
            Dtype::Q5K => "Q5_K",
            Dtype::Q6K => "Q6_K",
            Dtype::Iq4Nl => "IQ4_NL",
            Dtype::Iq4Xs => "IQ4_XS",
            Dtype::Nf4 => "NF4",
            Dtype::Fp4 => "FP4",
            Dtype::Int8 => "INT8",
        }
    }

    /// Bytes of a tensor of `shape` (rows of whole blocks), or `None` on overflow or a torn block.
    pub fn bytes(self, shape: &[usize]) -> Option<usize> {
        let (elements, bytes) = self.block();
        if elements > 1 && shape.last().is_none_or(|c| c % elements != 0) {
            return None;
        }
        let count = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))?;
        (count / elements).checked_mul(bytes)
    }
}

/// A tensor of a file, without its bytes. Shapes are row major, outermost first (`[out, in]` of a linear
/// layer), in GGUF files too, where the file lists them the other way round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name in the file.
    pub name: String,
    /// How its numbers are coded.
    pub dtype: Dtype,
    /// Its shape, outermost first.
    pub shape: Vec<usize>,
}
