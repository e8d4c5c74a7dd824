"""Encoders of a few numbers, for tests that are about storage and decisions, not about photographs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from PIL import Image

DIM = 12


def _unit(rows: Any) -> Any:
    return (rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)).astype(np.float32)


class ToyImage:
    """Projects a thumbnail; the same bits for a row whatever its companions."""

    name, dim, fingerprint, nonnegative, epsilon, compute = "builtin", DIM, "1" * 32, False, 0.002, ""

    def __init__(self) -> None:
        self._plane = np.random.default_rng(0).normal(size=(6 * 6 * 3, DIM))

    def prepare(self, pixels: Any) -> Any:
        return np.asarray(Image.fromarray(pixels).resize((6, 6), Image.Resampling.BOX))

    def encode(self, prepared: Sequence[Any]) -> Any:
        rows = [(p.reshape(-1).astype(float) - 128.0) @ self._plane for p in prepared]
        return _unit(np.array(rows).reshape(-1, DIM))


class ToyText:
    """Adds up a random row for every word."""

    name, dim, fingerprint, epsilon, compute = "builtin", 8, "2" * 32, 0.02, ""

    def encode(self, texts: Sequence[str]) -> Any:
        return _unit(np.array([sum(map(self._word, text.split()), np.zeros(8)) for text in texts]).reshape(-1, 8))

    def _word(self, word: str) -> Any:
        seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "big")
        return np.random.default_rng(seed).normal(size=8)


@contextmanager
def toy_encoders() -> Iterator[None]:
    """Let pools be grown with the toys instead of the built-in networks."""
    import curate.engine.binding
    import curate.engine.grow

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(curate.engine.grow, "load_image_encoder", lambda name, *_: ToyImage())
        patch.setattr(curate.engine.binding, "load_text_encoder", lambda name, *_: ToyText())
        yield
