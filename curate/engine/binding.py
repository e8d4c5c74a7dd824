"""Which encoders a pool is bound to, and the near-duplicate distances calibrated for them."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from itertools import groupby, islice
from typing import TYPE_CHECKING, Any

import numpy as np

from curate.encoders import (
    Compute,
    Settings,
    TextEncoder,
    calibrate_epsilon,
    default_text_encoder,
    load_text_encoder,
    spread_epsilon,
)
from curate.encoders.precomputed import IMAGE_EPSILON, TEXT_EPSILON, Precomputed, is_precomputed
from curate.engine.examine import terms
from curate.engine.state import Encoder, State
from curate.errors import PoolMismatchError, UsageError
from curate.images import decode
from curate.recipe import EncodeTable, Recipe
from curate_kernels.arrays import U8

if TYPE_CHECKING:
    from curate.engine.core import Engine
    from curate.engine.prepare import Prepared

_LOG = logging.getLogger("curate")
_ENOUGH = 64
_TEXTS = 256
_FALLBACK_TEXT = 0.02


def check_bound(bound: Encoder, name: str, fingerprint: str, pool: object) -> None:
    """Raise PoolMismatchError unless an encoder is the one that the pool's embeddings came from."""
    if fingerprint != bound.fingerprint:
        raise PoolMismatchError(
            f"{pool} holds embeddings of {bound.name} with fingerprint {bound.fingerprint}, and {name} here has"
            f" {fingerprint}: other weights, preprocessing or precision; grow a new pool for it"
        )


def settings(table: EncodeTable, bound: Encoder | None = None) -> Settings:
    """Return how [encode] asks for an encoder to be run; what it leaves open, as the pool's rows were made."""
    like = Compute.parse(bound.compute) if bound else None
    if bound and like is None:
        like = Compute("")  # rows of before this was written down are in float32
    return Settings(table.device, table.precision, compile=table.compile, like=like)


def one_device(asked: Settings) -> Settings:
    """Return settings of an encoder in a cluster's worker. Raises UsageError where several devices are asked for."""
    if "," in asked.device:
        raise UsageError(f"the device is {asked.device!r}; on a cluster each worker has one: auto, cpu or cuda")
    return asked


def note_compute(state: State, what: str, bound: Encoder, compute: str) -> None:
    """Write down from which row on an encoder computes otherwise than before: last bits may differ from there."""
    if bound.compute and compute != bound.compute:
        change = f"embeddings of {what}: computed as {compute}, before as {bound.compute}"
        _LOG.warning("%s; equal images may differ in the last bits", change)
        state.changes.append({"rows": state.rows, "changes": [change]})
    bound.compute = compute


def text_encoder_name(recipe: Recipe) -> str:
    """Return the name of a recipe's caption encoder."""
    return recipe.encode.text or default_text_encoder(recipe.encode.image)


def bind_text_encoder(engine: Engine, captions: Sequence[Any]) -> TextEncoder:
    """Load the caption encoder; the pool is bound to it, and its distance calibrated, at the first captions."""
    name = text_encoder_name(engine.recipe)
    encoder: TextEncoder
    if is_precomputed(name):
        encoder = Precomputed(name, engine.state.text.dim if engine.state.text else len(captions[0]), TEXT_EPSILON)
    else:
        load = engine.load_text or load_text_encoder
        encoder = load(name, settings(engine.recipe.encode, engine.state.text))
    if engine.state.text is None:
        epsilon = engine.recipe.dedup.epsilon_text or encoder.epsilon or _caption_epsilon(encoder, captions)
        engine.state.text = Encoder(encoder.name, encoder.fingerprint, encoder.dim, epsilon, encoder.compute)
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
    if isinstance(engine.encoder, Precomputed):
        engine.state.image.epsilon = spread_epsilon(IMAGE_EPSILON, engine.encoder.encode([p.crop for p in shown]))
        return
    constant = engine.encoder.epsilon
    if constant is not None and len(shown) < _ENOUGH:
        engine.state.image.epsilon = constant
    else:
        asked = terms(engine.recipe, getattr(engine.encoder, "crop", None))
        data = _bytes_of(shown)
        full, seen = (_Decoded(data, asked.max_pixels, least) for least in (0, asked.least))
        known = engine.embedder.embed(batch, engine.pool)["image"] if engine.embedder else None
        if known is not None:  # so that no image is encoded twice
            known = known[[p.crop is not None for p in batch]]
        engine.state.image.epsilon = max(calibrate_epsilon(engine.encoder, full, seen, asked.least, known), 1e-6)


def _bytes_of(batch: Sequence[Prepared]) -> list[bytes]:
    """Return the images' bytes, read again where they were read on another machine."""
    out = []
    for _, group in groupby((p.arrival for p in batch), key=lambda arrival: arrival.source.id):
        arrivals = list(group)
        if arrivals[0].found is None:
            out += [arrival.sample.data for arrival in arrivals]
            continue
        wanted, first = {arrival.position for arrival in arrivals}, arrivals[0].position
        samples = islice(arrivals[0].source.rows(first - 1), arrivals[-1].position - first + 1)
        out += [sample.data for position, sample in enumerate(samples, first) if position in wanted]
    return out


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
