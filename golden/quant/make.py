"""Writes blocks.txt: what gguf-py makes of numbers and of blocks. Run with the `gguf` package: python make.py > blocks.txt

Each line: storage, `quantize` or `dequantize`, input bytes, output bytes (hex, little endian; numbers are f32)."""
import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, quants

rng = np.random.default_rng(20260101)
scales = np.array([[1.0], [0.01], [30.0], [1e-6]])
numbers = (rng.standard_normal((4, 64)) * scales).astype("<f4")
numbers[0, :6] = [0.0, -0.0, 3.0, -3.0, 3.0, -0.5]

# Places of the f16 scales of a block; the largest f16, the smallest, zeros and ordinary numbers are put there.
SCALES = {"F16": (0,), "BF16": (0,), "Q4_0": (0,), "Q4_1": (0, 2), "Q5_0": (0,), "Q5_1": (0, 2), "Q8_0": (0,), "IQ4_NL": (0,),
          "Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,), "IQ4_XS": (0,)}
EXTREME = [65504.0, -65504.0, 6e-8, -0.0]


def say(name, what, given, made):
    print(name.lower(), what, given.tobytes().hex(), made.tobytes().hex())


for name, places in SCALES.items():
    kind = GGMLQuantizationType[name]
    length, size = GGML_QUANT_SIZES[kind]
    if name in ("F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"):
        for row, block in zip(numbers, quants.quantize(numbers, kind)):
            say(name, "quantize", row, block)
    # Any bytes are a block; scales are made ordinary numbers.
    rows = rng.integers(0, 256, (4, max(1, 64 // length) * size), dtype=np.uint8)
    for start in range(0, rows.shape[1], size):
        for place in places:
            rows[:, start + place + 1] &= 0xBF  # exponents below all ones
    if length > 1:  # the last two rows have extreme scales, and the last is all ones beside them
        rows[3] = 255
        for row in (2, 3):
            for i, start in enumerate(range(0, rows.shape[1], size)):
                for j, place in enumerate(places):
                    rows[row, start + place : start + place + 2] = np.array([EXTREME[(i + j + 2 * row) % 4]], "<f2").view(np.uint8)
    for row in rows:
        view = row.view({"F16": np.float16, "BF16": np.uint8}.get(name, np.uint8))
        say(name, "dequantize", row, quants.dequantize(view[None], kind)[0].astype("<f4"))
