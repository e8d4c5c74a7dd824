"""A small world for tests of the engine: pictures that show eight numbers, captions that say them, quick encoders."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image

CLASSES = ("north", "east", "south", "west")
_AXES = np.random.default_rng(5).normal(size=(8, 64))


def numbers(seed: int) -> np.ndarray:
    """Return the eight numbers of a picture; those of a class (seed modulo 4) lie together."""
    centre = np.random.default_rng(1000 + seed % 4).normal(size=8)
    return 1.5 * centre + np.random.default_rng(seed).normal(size=8)


def shown(seed: int) -> np.ndarray:
    """Return (64, 64, 3) uint8: 8 x 8 blocks that are mixtures of the numbers, under noise."""
    blocks = (128 + 8 * numbers(seed) @ _AXES).reshape(8, 8).repeat(8, 0).repeat(8, 1)
    grey = blocks + np.random.default_rng(seed + 10**6).normal(0, 12, (64, 64))
    return np.clip(grey, 0, 255).astype(np.uint8)[:, :, None].repeat(3, 2)


def png(seed: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(shown(seed)).save(stream, "PNG")
    return stream.getvalue()


def said(seed: int) -> str:
    return " ".join(f"{value:.2f}" for value in numbers(seed))


def label(seed: int) -> str:
    return CLASSES[seed % 4]


def captioned(
    seeds: Iterable[int], shows: Mapping[int, int], says: Mapping[int, str], labels: Mapping[int, str]
) -> list[tuple[str, bytes]]:
    """Return pictures with captions and labels as members of a tar, true but for what is given by seed."""
    out = []
    for seed in seeds:
        true = shows.get(seed, seed)
        out += [(f"{seed:04d}.png", png(true)), (f"{seed:04d}.txt", says.get(seed, said(true)).encode())]
        out.append((f"{seed:04d}.cls", labels.get(seed, label(true)).encode()))
    return out


def read_numbers(pixels: np.ndarray) -> str:
    """Return the caption that a picture deserves, read off it."""
    values, *_ = np.linalg.lstsq(_AXES.T, (_blocks(pixels) - 128) / 8, rcond=None)
    return " ".join(f"{value:.2f}" for value in values)


def _blocks(pixels: np.ndarray) -> np.ndarray:
    return pixels[:, :, 0].astype(float).reshape(8, 8, 8, 8).mean(axis=(1, 3)).ravel()


def _units(rows: list[np.ndarray], dim: int) -> np.ndarray:
    out = np.array(rows, dtype=np.float32).reshape(-1, dim)
    return out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-6)


class BlockEncoder:
    name, dim, fingerprint, nonnegative, epsilon, compute = "blocks", 64, "b" * 32, False, 1e-6, ""

    def prepare(self, pixels: np.ndarray) -> np.ndarray:
        return pixels

    def encode(self, prepared: Sequence[np.ndarray]) -> np.ndarray:
        return _units([_blocks(pixels) - 128 for pixels in prepared], self.dim)


class NumberEncoder:
    name, dim, fingerprint, epsilon, compute = "numbers", 8, "c" * 32, 0.005, ""

    def __init__(self) -> None:
        self.read: list[str] = []

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        self.read += texts
        return _units([np.array([float(word) for word in text.split()[:8]]) for text in texts], self.dim)


@contextmanager
def encoders() -> Iterator[NumberEncoder]:
    """Let the engine use these encoders while the block runs; yields the one of captions, which knows what it read."""
    from curate.engine import binding, grow

    text = NumberEncoder()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grow, "load_image_encoder", lambda name, *_: BlockEncoder())
        patch.setattr(binding, "load_text_encoder", lambda name, *_: text)
        yield text
