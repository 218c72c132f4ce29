"""Our quantisers beside llama.cpp's and bitsandbytes' on matrices of a real model, as JSON.

quantisers.py MODEL_FOLDER EXAMPLE WORK: EXAMPLE is the built example `quantise` of the crate kernels, WORK a folder for
files. For each GGUF type the root mean square error of ours and of ggml's own quantiser without an importance matrix
(both read back by gguf-py), over the numbers' root mean square; for NF4 with double quantisation the share of numbers
that are not bitsandbytes' own, bit for bit.
"""
import ctypes, json, os, subprocess, sys
import gguf, llama_cpp, numpy, torch
from gguf import GGMLQuantizationType as T
from safetensors import safe_open

TYPES = {"q4_0": T.Q4_0, "q4_1": T.Q4_1, "q5_0": T.Q5_0, "q5_1": T.Q5_1, "q8_0": T.Q8_0, "q4_k": T.Q4_K, "q5_k": T.Q5_K, "q6_k": T.Q6_K}
# Rows of 1536 numbers: whole blocks of every type.
MATRICES = ["model.layers.0.mlp.down_proj.weight", "model.layers.15.mlp.down_proj.weight", "model.layers.29.mlp.down_proj.weight"]

folder, example, work = sys.argv[1:]
ggml = ctypes.CDLL(os.path.join(os.path.dirname(llama_cpp.__file__), "lib", "libggml-base.so"))
ggml.ggml_quantize_chunk.restype = ctypes.c_size_t
ggml.ggml_quantize_chunk.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p]

with safe_open(os.path.join(folder, "model.safetensors"), "pt") as file:
    x = torch.cat([file.get_tensor(name).float() for name in MATRICES]).contiguous().numpy()
rows, cols = x.shape
path = os.path.join(work, "numbers.f32")
x.tofile(path)
subprocess.run([example, path, str(rows), str(cols), *TYPES, "nf4"], check=True)


def error(blocks, kind):
    values = gguf.quants.dequantize(blocks.reshape(rows, -1), kind)
    return float(numpy.sqrt(numpy.mean((values.astype(numpy.float64) - x) ** 2) / numpy.mean(x.astype(numpy.float64) ** 2)))


figures = {}
for name, kind in TYPES.items():
    ours = numpy.fromfile(f"{path}.{name}", dtype=numpy.uint8)
    theirs = numpy.zeros_like(ours)
    written = ggml.ggml_quantize_chunk(int(kind), x.ctypes.data, theirs.ctypes.data, 0, rows, cols, None)
    assert written == ours.size, f"{name}: {ours.size} bytes of ours, {written} of ggml's"
    figures[name] = {"ours": error(ours, kind), "theirs": error(theirs, kind)}

# bitsandbytes' own codes and scales; a row of ours is: offset, a count, scales of groups of blocks, then the blocks.
import bitsandbytes.functional as bnb

packed, state = bnb.quantize_4bit(torch.from_numpy(x), blocksize=64, quant_type="nf4", compress_statistics=True)
want = bnb.dequantize_4bit(packed, state).numpy()
blocks = cols // 64
ours = numpy.fromfile(f"{path}.nf4", dtype=numpy.uint8).reshape(rows, -1)
header = ours.shape[1] - blocks * 33
words = ours[:, :header].copy().view(numpy.float32)
offset, start = words[:, 0], ours[:, 4:8].copy().view(numpy.uint32)[:, 0]
body = ours[:, header:].reshape(rows, blocks, 33)
code, dynamic = bnb.get_4bit_type("nf4", device="cpu").numpy(), state.state2.code.numpy()
block = numpy.arange(blocks)[None, :]
group = block // 256
before = numpy.take_along_axis(words[:, 2:], numpy.broadcast_to(group, (rows, blocks)), 1)
after = numpy.take_along_axis(words[:, 3:], numpy.minimum(numpy.broadcast_to(group, (rows, blocks)), words.shape[1] - 4), 1)
nested = numpy.where(block % 256 < start[:, None], before, after)
scale = dynamic[body[:, :, 0]] * nested + offset[:, None]
nibbles = numpy.stack([body[:, :, 1:] >> 4, body[:, :, 1:] & 15], -1).reshape(rows, blocks, 64)
values = (code[nibbles] * scale[:, :, None]).astype(numpy.float32).reshape(rows, cols)
figures["nf4"] = {"differ": float(numpy.mean(values.view(numpy.uint32) != want.view(numpy.uint32)))}
print(json.dumps(figures))
