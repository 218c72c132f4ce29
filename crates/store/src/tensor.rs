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
    /// GGUF block of 32: f16 scale, 32 signed bytes.
    Q8_0,
}

impl Dtype {
    /// (elements, bytes) of one block; one element for plain numbers.
    pub fn block(self) -> (usize, usize) {
        match self {
            Dtype::Bool | Dtype::U8 | Dtype::I8 => (1, 1),
            Dtype::U16 | Dtype::I16 | Dtype::F16 | Dtype::BF16 => (1, 2),
            Dtype::U32 | Dtype::I32 | Dtype::F32 => (1, 4),
            Dtype::U64 | Dtype::I64 | Dtype::F64 => (1, 8),
            Dtype::Q4_0 => (32, 18),
            Dtype::Q4_1 => (32, 20),
            Dtype::Q8_0 => (32, 34),
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
            Dtype::Q8_0 => "Q8_0",
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
