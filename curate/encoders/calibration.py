"""How near two photographs may be before one is a duplicate, measured on the user's own images."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from curate.encoders.protocols import F32, U8, ImageEncoder

F16 = NDArray[np.float16]

FALLBACK_EPSILON = 0.02  # too few images to measure: only what is all but identical is a duplicate

_SAMPLE = 256
_FEWEST = 8
_FOUND = 0.85  # share of re-encoded copies to find
_EQUAL = 1e-3  # equal images lie within this distance, after rounding to float16
_REFUSED = 0.02  # share of distinct photographs that may be refused for it


def calibrate_epsilon(
    encoder: ImageEncoder,
    images: Sequence[U8],
    seen: Sequence[U8] | None = None,
    least: int = 0,
    known: F16 | None = None,
) -> float:
    """Return the near-duplicate distance (1 - cosine) of an encoder, from up to 256 of the images given.

    It is the 85 % quantile of the distances between an image and itself re-encoded (`reencoded`). Where the images are
    so alike that this would refuse distinct ones, it is lowered until 2 % of the distinct ones have another within it.
    Alike means that most images have a neighbour within that distance, or that more have theirs just beyond it (up to
    half as far again) than within it; a minority of true duplicates makes a mode of its own below, and lowers nothing.
    With fewer than 8 images it is `FALLBACK_EPSILON`. Larger sets are sampled evenly: the same result on every run.

    images: (H, W, 3) uint8 RGB each; seen: the same as they are decoded where a JPEG may be `least` pixels small
    known: (n, d) float16 rows of what is seen, where it is encoded already
    """
    if len(images) < _FEWEST:
        return FALLBACK_EPSILON
    rows = np.linspace(0, len(images) - 1, min(len(images), _SAMPLE)).round().astype(np.int64)
    # Each image is looked at twice and dropped: `images` may decode them on the way, whatever their size.
    if known is not None:
        x = known[rows].astype(np.float32)
    else:
        shown = images if seen is None else seen
        x = _rounded(encoder.encode([encoder.prepare(shown[i]) for i in rows]))
    copies = _rounded(encoder.encode([encoder.prepare(reencoded(images[i], least)) for i in rows]))
    return _lowered(float(np.quantile(1 - np.einsum("nd,nd->n", x, copies), _FOUND)), x)


def spread_epsilon(epsilon: float, rows: F32) -> float:
    """Return a near-duplicate distance for given embeddings: `epsilon`, lowered where they lie close by nature.

    There are no images to re-encode, so nothing tells how far a copy lies; how near distinct rows lie is seen as in
    `calibrate_epsilon`, among up to 256 rows sampled evenly. With fewer than 8 it is at most `FALLBACK_EPSILON`.

    rows: (n, d) unit rows, or zero ones, which are left out.
    """
    x = _rounded(rows[rows.any(axis=1)])
    if x.shape[0] < _FEWEST:
        return min(epsilon, FALLBACK_EPSILON)
    return max(_lowered(epsilon, x[np.linspace(0, len(x) - 1, min(len(x), _SAMPLE)).round().astype(np.int64)]), _EQUAL)


def _lowered(epsilon: float, x: F32) -> float:
    """Return the distance at which no more than a fiftieth of distinct rows (n, d) has another within it."""
    sim = x @ x.T
    np.fill_diagonal(sim, -np.inf)
    nearest = 1 - sim.max(axis=1)
    within = float((nearest < epsilon).mean())
    beyond = float((nearest < 1.5 * epsilon).mean()) - within
    distinct = nearest[nearest > _EQUAL]
    if within > _REFUSED and (within > 0.5 or beyond > within) and distinct.size:
        epsilon = min(epsilon, float(np.quantile(distinct, _REFUSED, method="lower")))
    return epsilon


def reencoded(pixels: U8, least: int = 0) -> U8:
    """Return an image as a re-poster leaves it: scaled to .9 and saved as JPEG of quality 70. least: of `decode`"""
    from curate.images import decode  # its kernels take half a second to import

    image = Image.fromarray(pixels)
    size = (max(1, round(image.width * 0.9)), max(1, round(image.height * 0.9)))
    stream = io.BytesIO()
    image.resize(size, Image.Resampling.BICUBIC).save(stream, "JPEG", quality=70)
    return decode(stream.getvalue(), pixels.size, least).pixels


def _rounded(rows: F32) -> F32:
    """Return rows as the pool stores them: every decision reads the float16 values."""
    return rows.astype(np.float16).astype(np.float32)
