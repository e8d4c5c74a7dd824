"""What the engine asks of an image encoder and of a text encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]


class ImageEncoder(Protocol):
    """Photographs in, unit rows out.

    name: as the user wrote it, e.g. `builtin` or `open_clip:ViT-B-32/laion2b_s34b_b79k`.
    fingerprint: 32 hex digits over the weights, the preprocessing, the nominal batch shape, and the precision where it
        is not float32; neither a path, nor a library's version, nor the device is in it.
    compute: device, precision and batch, as `Compute` writes them, "" for what computes nothing: with equal ones the
        same machine gives the same bits; otherwise the last ones differ.
    nonnegative: no feature is ever negative (pooled after a ReLU), so that a score may take square roots.
    epsilon: near-duplicate distance (1 - cosine) calibrated for this encoder, None where only the user's own images
        can tell (`calibrate_epsilon`).
    """

    name: str
    dim: int
    fingerprint: str
    nonnegative: bool
    epsilon: float | None

    @property
    def compute(self) -> str:
        """Return what rows are computed with."""
        ...

    def prepare(self, pixels: U8) -> U8:
        """Return the (s, s, 3) uint8 input of the network for one (H, W, 3) uint8 RGB image; deterministic."""
        ...

    def encode(self, prepared: Sequence[U8]) -> F32:
        """Return (n, dim) f32 unit rows of prepared images; n may be 0.

        A row that the network gives as NaN, infinite or zero comes back as zeros: the engine refuses zero rows.

        Raises:
            EncoderError: an image has not the shape that `prepare` gives.
        """
        ...


class PatchEncoder(ImageEncoder, Protocol):
    """An image encoder that also gives features of places in the image."""

    @property
    def patch_shape(self) -> tuple[int, int]:
        """Return how many tokens there are, and their dimensions."""
        ...

    def patches(self, prepared: Sequence[U8]) -> F32:
        """Return (n, tokens, e) f32 features of prepared images, place by place in rows from the top left."""
        ...


class TextEncoder(Protocol):
    """Captions in, unit rows out; `name`, `fingerprint`, `compute` and `epsilon` as for images.

    epsilon: distance (1 - cosine) below which two captions say the same.
    """

    name: str
    dim: int
    fingerprint: str
    epsilon: float | None

    @property
    def compute(self) -> str:
        """Return what rows are computed with."""
        ...

    def encode(self, texts: Sequence[str]) -> F32:
        """Return (n, dim) f32 unit rows; a long text is truncated, the empty one is a text; zero rows as for images."""
        ...
