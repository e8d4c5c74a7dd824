"""A small collection with known truth, for the tests of scores: what is dense, rare, swapped, mislabelled, strange."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from curate.scores.registry import make_score
from curate.scores.rows import Rows
from curate_kernels.arrays import unit_rows

N, D, T, CLASSES = 320, 24, 16, 4
WORDS = ("[PAD]", "[UNK]", "</s>", "a", "red", "blue", "circle", "square", "photo", "1", "2", "?", "yes", "no")
PROMPT = "{caption} ?"


@dataclass
class Collection:
    """Arrays of n rows, None or zero rows where something is lacking."""

    image: Any
    text: Any
    captions: list[str | None]
    label: list[str | None]
    columns: dict[str, list[Any]]
    pixels: list[Any]
    target: Any
    target_label: list[str]
    files: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.captions)

    def at(self, index: Any) -> Collection:
        """Return the rows of an index, in its order."""
        index = np.asarray(index, dtype=np.int64)

        def pick(values: list[Any]) -> list[Any]:
            return [values[i] for i in index]

        return Collection(
            self.image[index],
            self.text[index],
            pick(self.captions),
            pick(self.label),
            {name: pick(values) for name, values in self.columns.items()},
            pick(self.pixels),
            self.target,
            self.target_label,
            self.files,
        )

    def rows(self, **changes: Any) -> Rows:
        """Return the rows as scores read them; every row with an image embedding is kept and counted."""
        names = sorted({v for v in (*self.label, *self.target_label) if v is not None})
        number = {name: i for i, name in enumerate(names)} | {None: -1}
        valid = self.image.any(axis=1)
        given: dict[str, Any] = {
            "n": len(self),
            "image": unit_rows(self.image),
            "text": unit_rows(self.text),
            "caption": self.captions,
            "label": np.array([number[v] for v in self.label], dtype=np.int64),
            "classes": names,
            "valid": valid,
            "kept": valid,
            "counted": valid,
            "columns": self.columns,
            "target": Rows(
                n=len(self.target),
                image=unit_rows(self.target),
                label=np.array([number[v] for v in self.target_label], dtype=np.int64),
                valid=self.target.any(axis=1),
            ),
            "pixels": lambda: iter(self.pixels),
            "text_encoder": TextStub,
        }
        return Rows(**(given | changes))

    def compute(self, name: str, params: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
        """Return the columns of a score, with parameters that it needs from `params_of`."""
        if name == "negclip":  # image and captions in one space: their first T dimensions stand for one
            image = unit_rows(np.ascontiguousarray(self.image[:, :T]))
            changes = {"shared": True, "image": image, "valid": image.any(axis=1), **changes}
        return make_score(name, **(params_of(name, self.files) | (params or {}))).compute(self.rows(**changes))


class TextStub:
    """Text encoder in the space of the images: `like K` is the direction of class K."""

    name, fingerprint, dim, epsilon = "stub", "0" * 32, D, 0.1

    def encode(self, texts: list[str]) -> Any:
        return np.stack([centres()[int(text.split()[-1])] for text in texts]).astype(np.float32)


def params_of(name: str, files: dict[str, str]) -> dict[str, Any]:
    """Return what a score cannot do without."""
    return {
        "column": {"column": "age"},
        "head": {"file": files.get("head", "none.safetensors")},
        "prompts": {"positive": "like 0", "negative": "like 1 | like 2"},
        "ask": {"model": files.get("ask", "none"), "prompt": PROMPT, "device": "cpu"},
    }.get(name, {})


def centres() -> Any:
    return unit_rows(np.random.default_rng(7).normal(size=(CLASSES, D)).astype(np.float32))


def linear() -> Any:
    """Return the map (D, T) from images to captions."""
    return np.random.default_rng(11).normal(size=(D, T)).astype(np.float32)


def collection(seed: int = 0, n: int = N, lacking: bool = True) -> Collection:
    """Return n rows in four clusters, class 0 twice as tight; captions and age depend linearly on the image.

    lacking: every 20th row has no image embedding, others no caption, no label, no age
    """
    rng = np.random.default_rng(seed)
    own = np.arange(n) % CLASSES
    spread = np.where(own == 0, 0.09, 0.18)[:, None]
    image = unit_rows((centres()[own] + spread * rng.normal(size=(n, D))).astype(np.float32))
    text = unit_rows((image @ linear() + 0.3 * rng.normal(size=(n, T))).astype(np.float32))
    age = 50 + 100 * image[:, 3] + rng.normal(size=n)
    words = [("a red circle", "a RED square, 12 of 40", "photo", "a blue square a blue square")[k] for k in own]
    captions: list[str | None] = [f"{w} on {i % 7}" if i % 3 else w for i, w in enumerate(words)]
    # One label in sixteen is wrong: a probe that separates all classes puts every row at certainty.
    label: list[str | None] = [f"class {(k + (i % 16 == 1)) % CLASSES}" for i, k in enumerate(own)]
    ages: list[Any] = [round(float(v), 3) for v in age]
    pixels: list[Any] = [rng.integers(0, 256, (20, 24, 3), dtype=np.uint8) for _ in range(n)]
    if lacking:
        image[5::20] = 0
        text[7::20] = 0
        for i in range(7, n, 20):
            captions[i] = None
        for i in range(11, n, 20):
            label[i] = None
        for i in range(13, n, 20):
            ages[i] = math.nan if i % 40 == 13 else None
        for i in range(17, n, 20):
            pixels[i] = None
    inside = np.arange(60) % 2  # the target: rows like classes 0 and 1
    target = unit_rows((centres()[inside] + 0.06 * rng.normal(size=(60, D))).astype(np.float32))
    columns = {"age": ages, "site": [f"site {k % 2}" for k in own]}
    return Collection(image, text, captions, label, columns, pixels, target, [f"class {k}" for k in inside])


def make_files(folder: Path) -> dict[str, str]:
    """Write a linear head and a tiny random language model, and return their paths."""
    rng = np.random.default_rng(3)
    head = {"weight": rng.normal(size=(1, D)).astype(np.float32), "bias": np.zeros(1, np.float32)}
    save_file(head, folder / "head.safetensors")
    return {"head": str(folder / "head.safetensors"), "ask": _tiny_model(folder / "model")}


def _tiny_model(folder: Path) -> str:
    import torch
    import transformers as hf
    from tokenizers import Tokenizer, models, pre_tokenizers

    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    named = {"unk_token": "[UNK]", "pad_token": "[PAD]", "eos_token": "</s>"}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = hf.GPT2Config(vocab_size=len(WORDS), n_positions=32, n_embd=16, n_layer=1, n_head=2)
        model = hf.GPT2LMHeadModel(config)
        with torch.no_grad():
            for weight in model.parameters():
                weight.normal_(0, 0.3)
    model.eval().save_pretrained(folder)
    hf.PreTrainedTokenizerFast(tokenizer_object=inner, **named).save_pretrained(folder)
    return str(folder)
