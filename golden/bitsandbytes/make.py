"""Makes the tiny quantised models beside this file and what bitsandbytes makes of their weights.

Usage: python make.py           (torch 2.15, transformers 5.23, bitsandbytes 0.50, on a CPU with AVX2)

NAME/config.json, NAME/model.safetensors    a Llama with one block, quantised and saved by transformers
NAME/values.json                            for each quantised tensor its values as f32 under bitsandbytes' own
                                            dequantisation with a compute type of f32: FNV-1a (64 bits) of their bytes,
                                            little endian, and the first four

nf4: double quantisation; the MLP's rows of 9 blocks begin anywhere in the groups of 256 blocks.
fp4: plain scales; rows of 96 share blocks of 64 with their neighbours, those of 128 do not.
int8: a scale a row.
"""
import json
import pathlib
import tempfile

import bitsandbytes.functional as F
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM

HERE = pathlib.Path(__file__).parent


def fnv(data):
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{value:016x}"


def values(folder):
    out = {}
    with safe_open(folder / "model.safetensors", "pt") as file:
        names = list(file.keys())
        for name in names:
            if name.endswith(".SCB"):
                weight = name.removesuffix("SCB") + "weight"
                out[weight] = F.int8_vectorwise_dequant(file.get_tensor(weight), file.get_tensor(name))
            elif ".quant_state." in name:
                weight = name.split(".quant_state.")[0]
                parts = {n.removeprefix(weight + "."): file.get_tensor(n) for n in names if n.startswith(weight + ".")}
                state = F.QuantState.from_dict(parts, device="cpu")
                state.dtype = torch.float32
                # Blocks run through the whole matrix. bitsandbytes 0.50's kernel for CPUs counts them anew in each row, and so
                # gives other values (not those that were quantised) where rows are not whole blocks; shown as rows of one block
                # each, they are right.
                shape, state.shape = state.shape, torch.Size((state.shape.numel() // state.blocksize, state.blocksize))
                out[weight] = F.dequantize_4bit(file.get_tensor(weight), state).reshape(shape)
    data = {name: tensor.contiguous().numpy().astype("<f4") for name, tensor in out.items()}
    return {name: {"fnv": fnv(tensor.tobytes()), "first": tensor.flatten()[:4].tolist()} for name, tensor in sorted(data.items())}


def make(name, hidden, intermediate, seed, **how):
    torch.manual_seed(seed)
    config = LlamaConfig(vocab_size=32, hidden_size=hidden, intermediate_size=intermediate, num_hidden_layers=1, num_attention_heads=2,
                         num_key_value_heads=1, head_dim=32, max_position_embeddings=64, bos_token_id=1, eos_token_id=2, tie_word_embeddings=True)
    folder = HERE / name
    with tempfile.TemporaryDirectory() as scratch:
        LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(scratch)
        model = AutoModelForCausalLM.from_pretrained(scratch, quantization_config=BitsAndBytesConfig(**how), device_map="cpu", dtype=torch.bfloat16)
        model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    (folder / "values.json").write_text(json.dumps(values(folder), indent=1) + "\n")
    print(name, sum(f.stat().st_size for f in folder.iterdir()), "bytes")


make("nf4", 64, 576, 1, load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
make("fp4", 96, 128, 2, load_in_4bit=True, bnb_4bit_quant_type="fp4", bnb_4bit_use_double_quant=False)
make("int8", 64, 128, 3, load_in_8bit=True)
