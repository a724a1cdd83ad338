#!/usr/bin/env python3
"""A tiny encoder of invented weights, and what an implementation that shares nothing with the product makes of some texts.

    make.py            writes tiny.model (by packaging/convert-model) and expected.json beside this file
    make.py --check    fails unless both are what it would write

`encode` below reads the model file by its description in src/embed/model.rs and computes in Python's own floats.
"""
import importlib.machinery
import importlib.util
import json
import math
import os
import struct
import sys
import tempfile
import unicodedata

HERE = os.path.dirname(os.path.abspath(__file__))
WIDTH, LAYERS, HEADS, INNER, TOKENS, PLACES = 16, 2, 4, 32, 24, 32
PIECES = (
    ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    + list("abcdefghijklmnopqrstuvwxyz0123456789")
    + ["##" + c for c in "abcdefghijklmnopqrstuvwxyz0123456789"]
    + ["penicillin", "allerg", "##y", "##ic", "rash", "the", "##ing", "cough", "患", "者", ".", ",", "?", "!", "-", "/", "(", ")", "’", "mg", "ward"]
)
TEXTS = [
    "",
    "penicillin allergy",
    "The patient is ALLERGIC to Penicillin!",
    "coughing, coughing… (ward 3)",
    "Ångström naïve résumé",
    "患者 has a rash",
    "500mg/day — E11.9?",
    "z\u0301\u200b\u00adq\u0000 w\ufffd",
    "a" * 101 + " rash",
    "☃ rash",
    "the " * 40,
    "İSTANBUL ǅ ß ﬁ",
]


def converter():
    path = os.path.join(HERE, "..", "..", "..", "packaging", "convert-model")
    sys.dont_write_bytecode = True
    loader = importlib.machinery.SourceFileLoader("convert_model", path)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("convert_model", loader))
    loader.exec_module(module)
    return module


def tensors():
    """Invented weights by name: a fixed sequence, no chance."""
    state = 12345

    def draw(count, by, around=0.0):
        nonlocal state
        numbers = []
        for _ in range(count):
            state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
            numbers.append(around + by * ((state >> 33) / 2**30 - 1))
        return numbers

    shapes = {
        "embeddings.word_embeddings.weight": (len(PIECES), WIDTH),
        "embeddings.position_embeddings.weight": (PLACES, WIDTH),
        "embeddings.token_type_embeddings.weight": (2, WIDTH),
    }
    norms = ["embeddings.LayerNorm"]
    for n in range(LAYERS):
        layer = f"encoder.layer.{n}."
        for name in ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"):
            shapes[layer + name + ".weight"] = (WIDTH, WIDTH)
        shapes[layer + "intermediate.dense.weight"] = (INNER, WIDTH)
        shapes[layer + "output.dense.weight"] = (WIDTH, INNER)
        norms += [layer + "attention.output.LayerNorm", layer + "output.LayerNorm"]
    all_of_them = {}
    for name, shape in shapes.items():
        all_of_them[name] = (shape, draw(shape[0] * shape[1], 0.7))
        if ".dense." in name or ".self." in name:
            all_of_them[name.replace("weight", "bias")] = (shape[:1], draw(shape[0], 0.2))
    for name in norms:
        all_of_them[name + ".weight"] = ((WIDTH,), draw(WIDTH, 0.3, 1.0))
        all_of_them[name + ".bias"] = ((WIDTH,), draw(WIDTH, 0.2))
    return all_of_them


def write_folder(folder):
    """The tiny model as models are published."""
    head, data = {}, b""
    for name, (shape, numbers) in tensors().items():
        raw = struct.pack(f"<{len(numbers)}f", *numbers)
        head[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(head).encode()
    with open(os.path.join(folder, "model.safetensors"), "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + data)
    config = {
        "model_type": "bert", "hidden_act": "gelu", "hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
        "intermediate_size": INNER, "max_position_embeddings": PLACES, "type_vocab_size": 2, "vocab_size": len(PIECES), "layer_norm_eps": 1e-12,
    }
    for name, value in (("config.json", config), ("sentence_bert_config.json", {"max_seq_length": TOKENS})):
        with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
            json.dump(value, file)
    with open(os.path.join(folder, "vocab.txt"), "w", encoding="utf-8", newline="\n") as file:
        file.write("\n".join(PIECES) + "\n")


def words(text):
    """As BERT's basic tokenizer has it."""
    kept = []
    for c in text:
        category = unicodedata.category(c)
        if c in "\t\n\r" or category == "Zs":
            kept.append(" ")
        elif c == "\ufffd" or category in ("Cc", "Cf"):
            continue
        elif any(low <= ord(c) <= high for low, high in ((0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0xF900, 0xFAFF))):
            kept.append(f" {c} ")
        else:
            kept.append(c)
    found = []
    for word in "".join(kept).split():
        word = "".join(c for c in unicodedata.normalize("NFD", word) if unicodedata.category(c) != "Mn").lower()
        word = "".join(c for c in word if unicodedata.category(c) != "Mn")
        part = ""
        for c in word:
            if unicodedata.category(c).startswith("P") or (c.isascii() and not c.isalnum()):
                found += [part, c]
                part = ""
            else:
                part += c
        found.append(part)
    return [word for word in found if word]


def pieces_of(text, known, most):
    numbers = {piece: number for number, piece in reversed(list(enumerate(known)))}
    out = []
    for word in words(text):
        at, parts = 0, []
        while at < len(word) and len(word) <= 100:
            ends = [end for end in range(len(word), at, -1) if ("##" if at else "") + word[at:end] in numbers]
            if not ends:
                break
            parts.append(numbers[("##" if at else "") + word[at : ends[0]]])
            at = ends[0]
        out += parts if at == len(word) else [numbers["[UNK]"]]
    return [numbers["[CLS]"]] + out[: most - 2] + [numbers["[SEP]"]]


class File:
    """The model file, read by its description."""

    def __init__(self, raw):
        assert raw[:8] == b"RMEMBED1"
        self.raw, self.at = raw, 8
        self.tokens, self.width, self.layers, self.heads, self.inner, count, self.flags = self.unpack("7I")
        (self.epsilon,) = self.unpack("f")
        self.known = [self.unpack(f"{self.unpack('H')[0]}s")[0].decode() for _ in range(count)]
        self.pieces, self.places, self.first = self.matrix(count, self.width), self.matrix(self.tokens, self.width), self.norm()
        width, inner = self.width, self.inner
        self.all = [
            [self.linear(width, width) for _ in range(4)] + [self.norm(), self.linear(inner, width), self.linear(width, inner), self.norm()]
            for _ in range(self.layers)
        ]
        assert self.at == len(raw)

    def unpack(self, form):
        form = "<" + form
        found = struct.unpack_from(form, self.raw, self.at)
        self.at += struct.calcsize(form)
        return found

    def matrix(self, rows, columns):
        scales = self.unpack(f"{rows}f")
        return [[step * scale for step in self.unpack(f"{columns}b")] for scale in scales]

    def linear(self, rows, columns):
        return self.matrix(rows, columns), self.unpack(f"{rows}f")

    def norm(self):
        return self.unpack(f"{self.width}f"), self.unpack(f"{self.width}f")


def times(linear, row):
    weights, bias = linear
    return [sum(w * x for w, x in zip(line, row)) + b for line, b in zip(weights, bias)]


def normal(norm, row, epsilon):
    mean = sum(row) / len(row)
    spread = math.sqrt(sum((x - mean) ** 2 for x in row) / len(row) + epsilon)
    return [(x - mean) / spread * w + b for x, w, b in zip(row, *norm)]


def encode(model, numbers):
    rows = [[a + b for a, b in zip(model.pieces[number], place)] for number, place in zip(numbers, model.places)]
    rows = [normal(model.first, row, model.epsilon) for row in rows]
    head = model.width // model.heads
    for query, key, value, output, attended, widen, narrow, last in model.all:
        asked, keys, values = ([times(part, row) for row in rows] for part in (query, key, value))
        for place, row in enumerate(asked):
            mixed = []
            for begin in range(0, model.width, head):
                cut = slice(begin, begin + head)
                fits = [math.exp(sum(a * b for a, b in zip(row[cut], other[cut])) / math.sqrt(head)) for other in keys]
                mixed += [sum(f * v[i] for f, v in zip(fits, values)) / sum(fits) for i in range(begin, begin + head)]
            rows[place] = normal(attended, [a + b for a, b in zip(rows[place], times(output, mixed))], model.epsilon)
        for place, row in enumerate(rows):
            wide = [x * 0.5 * (1 + math.erf(x / math.sqrt(2))) for x in times(widen, row)]
            rows[place] = normal(last, [a + b for a, b in zip(row, times(narrow, wide))], model.epsilon)
    mean = [sum(column) for column in zip(*rows)]
    length = math.sqrt(sum(x * x for x in mean))
    return [x / length for x in mean]


def made():
    with tempfile.TemporaryDirectory() as folder:
        write_folder(folder)
        raw = converter().converted(folder)
    model = File(raw)
    expected = []
    for text in TEXTS:
        numbers = pieces_of(text, model.known, model.tokens)
        expected.append({"text": text, "pieces": numbers, "vector": [round(x, 6) for x in encode(model, numbers)]})
    lines = ",\n".join(json.dumps(one) for one in expected)
    return {"tiny.model": raw, "expected.json": f"[\n{lines}\n]\n".encode()}


def main():
    for name, content in made().items():
        path = os.path.join(HERE, name)
        if sys.argv[1:] == ["--check"]:
            with open(path, "rb") as file:
                if file.read() != content:
                    sys.exit(f"{path} is not what make.py writes; run it and review the change")
        else:
            with open(path, "wb") as file:
                file.write(content)
    print("embedding: an independent encoder agrees with its vectors")


if __name__ == "__main__":
    main()
