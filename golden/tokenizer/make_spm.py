"""Reference ids for SentencePiece vocabularies in GGUF files: from llama.cpp.

Writes beside itself
  spm.json        a tiny vocabulary as SentencePiece has them (pieces with scores, 256 bytes), trained on make.py's text, and llama.cpp's ids of
                  make.py's awkward strings with it: once in the form of Llama 2 (a space before every text), once in Gemma's (no such space,
                  and pieces of white space and of markup that are matched in the raw text; "</s>" is markup there, which llama.cpp
                  takes for a special token all the same)
and, with --gguf FILE,
  awkward_gemma3.json   llama.cpp's ids of the awkward strings with that model's vocabulary

    python golden/tokenizer/make_spm.py --gguf gemma-3-270m-q4_k_m.gguf

Made with llama-cpp-python 0.3.36, tokenizers 0.23.3, gguf 0.19.0.
"""

import argparse
import json
import re
import tempfile
from pathlib import Path

import llama_cpp
from gguf import GGUFWriter
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

HERE = Path(__file__).parent
# make.py's strings and text; importing it would run it.
SOURCE = (HERE / "make.py").read_text()
NAMES = {}
exec(re.search(r'^TEXT = """.*?^"""', SOURCE, re.M | re.S).group(), NAMES)
exec(re.search(r"^AWKWARD = \[.*?^\]", SOURCE, re.M | re.S).group(), NAMES)
STRINGS = NAMES["AWKWARD"] + ["<s>Hi</s>", "a </s> b", "<bos>x", "<start_of_turn>user\nHi<end_of_turn>\n", "<0x0A>", "▁", "a▁b", "a\n\nb  c   d", "<div>  x</div>"]
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6
RAW = ["\n\n", "\n\n\n", "  ", "   ", "\t\t", "<div>", "</div>"]  # Gemma's: matched before anything is merged


def train():
    """Pieces in the order of their merges, which SentencePiece turns into scores: -0, -1, …"""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    trainer = trainers.BpeTrainer(vocab_size=900, special_tokens=["<unk>"], show_progress=False, max_token_length=12)
    tokenizer.train_from_iterator(NAMES["TEXT"].splitlines() * 2, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    merged = [left + right for left, right in model["merges"]]
    letters = [piece for piece in model["vocab"] if len(piece) == 1]
    return list(dict.fromkeys(merged)), sorted(letters)


def vocabulary(gemma):
    merged, letters = train()
    pieces = [("<unk>", 0.0, UNKNOWN), ("<s>", 0.0, CONTROL), ("</s>", 0.0, USER_DEFINED if gemma else CONTROL)]
    pieces += [(f"<0x{byte:02X}>", 0.0, BYTE) for byte in range(256)]
    if gemma:
        pieces += [("<start_of_turn>", 0.0, CONTROL), ("<end_of_turn>", 0.0, CONTROL)]
        pieces += [(piece, 0.0, USER_DEFINED) for piece in RAW]
    pieces += [(piece, -float(rank), NORMAL) for rank, piece in enumerate(merged)]
    known = {piece for piece, _, _ in pieces}
    pieces += [(letter, -float(len(merged) + rank), NORMAL) for rank, letter in enumerate(letters) if letter not in known]
    return pieces


def ids_of(path):
    model = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)
    return [{"text": text, "as_text": model.tokenize(text.encode(), add_bos=False, special=False), "parse": model.tokenize(text.encode(), add_bos=False, special=True)}
            for text in STRINGS]


def write(name, value):
    lines = json.dumps(value, ensure_ascii=True, separators=(",", ":")).replace('},{"', '},\n{"')
    (HERE / name).write_text(lines + "\n")


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--gguf", type=Path)
    given = arguments.parse_args()
    forms = []
    with tempfile.TemporaryDirectory() as folder:
        for gemma in (False, True):
            pieces = vocabulary(gemma)
            path = Path(folder) / f"{gemma}.gguf"
            writer = GGUFWriter(path, "llama")
            writer.add_tokenizer_model("llama")
            writer.add_tokenizer_pre("default")
            writer.add_token_list([piece for piece, _, _ in pieces])
            writer.add_token_scores([score for _, score, _ in pieces])
            writer.add_token_types([kind for _, _, kind in pieces])
            writer.add_bos_token_id(1)
            writer.add_eos_token_id(2)
            writer.add_unk_token_id(0)
            writer.add_add_space_prefix(not gemma)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.close()
            tokens, scores, types = (list(column) for column in zip(*pieces))
            forms.append({"add_space_prefix": not gemma, "tokens": tokens, "scores": scores, "token_types": types, "strings": ids_of(path)})
    write("spm.json", forms)
    if given.gguf:
        write("awkward_gemma3.json", {"model": "gemma-3-270m", "strings": ids_of(given.gguf)})


main()
