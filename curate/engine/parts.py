"""One image prepared for several encoders at once: what each gets, end to end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from curate.encoders import ImageEncoder
from curate_kernels.arrays import U8


@dataclass(frozen=True, slots=True)
class Need:
    """How large an image must be decoded: `Crop.least` of the encoder by which everything is decided."""

    least: int


class Parts:
    """Prepares images for several encoders; equal preparations are made once.

    Images are decoded as for the first alone, so that its rows, and hashes of pixels, do not depend on the others.
    """

    def __init__(self, encoders: Sequence[ImageEncoder]) -> None:
        self._encoders = list(encoders)
        self._shapes: list[tuple[int, ...]] = []
        self.name = " and ".join(encoder.name for encoder in encoders)
        crop = getattr(encoders[0], "crop", None)
        self.crop = Need(crop.least) if crop is not None else None

    def __len__(self) -> int:
        return len(self._encoders)

    def prepare(self, pixels: U8) -> U8:
        """Return every encoder's input for one (H, W, 3) uint8 RGB image, flat and end to end."""
        made: list[tuple[object, U8]] = []
        for encoder in self._encoders:
            crop = getattr(encoder, "crop", None) or encoder
            twin = next((part for other, part in made if other == crop), None)
            made.append((crop, encoder.prepare(pixels) if twin is None else twin))
        return np.concatenate([part.ravel() for _, part in made])

    def split(self, prepared: U8) -> list[U8]:
        """Return the inputs of the encoders; of one encoder alone the image is its input as it is."""
        if len(self._encoders) == 1:
            return [prepared]
        if not self._shapes:
            probe = np.zeros((8, 8, 3), np.uint8)
            self._shapes = [encoder.prepare(probe).shape for encoder in self._encoders]
        stops = np.cumsum([int(np.prod(shape)) for shape in self._shapes])
        return [part.reshape(s) for part, s in zip(np.split(prepared, stops[:-1]), self._shapes, strict=True)]
