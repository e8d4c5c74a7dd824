"""Which encoders a pool is bound to, and the near-duplicate distances calibrated for them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from curate.encoders import TextEncoder, calibrate_epsilon, default_text_encoder, load_text_encoder
from curate.engine.examine import terms
from curate.engine.state import Encoder
from curate.errors import PoolMismatchError
from curate.images import decode
from curate_kernels.arrays import U8

if TYPE_CHECKING:
    from curate.engine.core import Engine
    from curate.engine.prepare import Prepared

_ENOUGH = 64
_TEXTS = 256
_FALLBACK_TEXT = 0.02


def check_bound(bound: Encoder, name: str, fingerprint: str, pool: object) -> None:
    """Raise PoolMismatchError unless an encoder is the one that the pool's embeddings came from."""
    if fingerprint != bound.fingerprint:
        raise PoolMismatchError(
            f"{pool} holds embeddings of {bound.name} with fingerprint {bound.fingerprint}, and {name} here has"
            f" {fingerprint}: other weights or preprocessing; grow a new pool for it"
        )


def bind_text_encoder(engine: Engine, captions: Sequence[str]) -> TextEncoder:
    """Load the caption encoder; the pool is bound to it, and its distance calibrated, at the first captions."""
    name = engine.recipe.encode.text or default_text_encoder(engine.recipe.encode.image)
    encoder = load_text_encoder(name)
    if engine.state.text is None:
        epsilon = engine.recipe.dedup.epsilon_text or encoder.epsilon or _caption_epsilon(encoder, captions)
        engine.state.text = Encoder(encoder.name, encoder.fingerprint, encoder.dim, epsilon)
        if "text" not in engine.pool.columns:
            engine.pool = engine.writer.add_view(engine.pool, "text", encoder.dim)
    else:
        check_bound(engine.state.text, encoder.name, encoder.fingerprint, engine.pool.path)
    return encoder


def bind_epsilon(engine: Engine, batch: Sequence[Prepared]) -> None:
    """Set a new pool's near-duplicate distance: calibrated on its own first images, whatever they show.

    One constant does not fit: at the distance that finds re-encoded copies of photographs, one dermatoscopic
    photograph in seven has another patient's within reach. With few images it is the encoder's constant.
    """
    shown = [p for p in batch if p.crop is not None]
    if engine.state.image.epsilon > 0.0 or not shown:
        return
    constant = engine.encoder.epsilon
    if constant is not None and len(shown) < _ENOUGH:
        engine.state.image.epsilon = constant
    else:
        asked = terms(engine.recipe, getattr(engine.encoder, "crop", None))
        data = [p.arrival.sample.data for p in shown]
        full, seen = (_Decoded(data, asked.max_pixels, least) for least in (0, asked.least))
        engine.state.image.epsilon = max(calibrate_epsilon(engine.encoder, full, seen, asked.least), 1e-6)


class _Decoded(Sequence[U8]):
    """Images decoded one at a time, when they are looked at."""

    def __init__(self, data: list[bytes], max_pixels: int, least: int) -> None:
        self._data, self._max_pixels, self._least = data, max_pixels, least

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, i: Any) -> Any:
        return decode(self._data[i], self._max_pixels, self._least).pixels


def _caption_epsilon(encoder: TextEncoder, captions: Sequence[str]) -> float:
    """Return the distance that 95 % of captions keep to themselves in lower case and without punctuation."""
    texts = list(captions[:_TEXTS])
    plain = [" ".join(re.sub(r"[^\w\s]", " ", text.lower()).split()) for text in texts]
    pairs = [(text, other) for text, other in zip(texts, plain, strict=True) if text != other and other]
    if len(pairs) < 8:
        return _FALLBACK_TEXT
    own, others = (encoder.encode([pair[side] for pair in pairs]) for side in (0, 1))
    return float(np.quantile(1.0 - np.einsum("ij,ij->i", own, others), 0.95))
