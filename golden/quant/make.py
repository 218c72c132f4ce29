"""Writes blocks.txt: what gguf-py makes of numbers and of blocks. Run with the `gguf` package: python make.py > blocks.txt

Each line: storage, `quantize` or `dequantize`, input bytes, output bytes (hex, little endian; numbers are f32)."""
import numpy as np
from gguf import GGMLQuantizationType, quants

rng = np.random.default_rng(20260101)
scales = np.array([[1.0], [0.01], [30.0], [1e-6]])
numbers = (rng.standard_normal((4, 64)) * scales).astype("<f4")
numbers[0, :6] = [0.0, -0.0, 3.0, -3.0, 3.0, -0.5]

for name in ("F16", "BF16", "Q4_0", "Q4_1", "Q8_0"):
    kind = GGMLQuantizationType[name]
    blocks = quants.quantize(numbers, kind)
    for row, block in zip(numbers, blocks):
        print(name.lower(), "quantize", row.tobytes().hex(), block.tobytes().hex())
    # Any bytes are a block; scales are made ordinary numbers.
    random = rng.integers(0, 256, (4, blocks.view(np.uint8).shape[1]), dtype=np.uint8)
    size = {"F16": 2, "BF16": 2, "Q4_0": 18, "Q4_1": 20, "Q8_0": 34}[name]
    for start in range(0, random.shape[1], size):
        for offset in (0, 2) if name == "Q4_1" else (0,):
            random[:, start + offset + 1] &= 0xBF  # exponents below all ones
    for row in random:
        numbers_of_row = quants.dequantize(row.view(blocks.dtype)[None], kind)[0]
        print(name.lower(), "dequantize", row.tobytes().hex(), numbers_of_row.astype("<f4").tobytes().hex())
