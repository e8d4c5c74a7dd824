"""From decoded pixels to a network's input: resized and cropped as the network's own preprocessing does, with PIL only.

What is here imports no network library, so that a process that only decodes stays light.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from curate.encoders.protocols import U8

_LARGE = 16  # times the crop's area: beyond, only what the crop shows is resized (a strip of 1 x 10,000,000 pixels)


@dataclass(frozen=True, slots=True)
class Crop:
    """The centre of a resized image, by torchvision's rules, bit for bit.

    height, width: of the crop; scale: (rows, columns) that the image is resized to if `squash`, else its first number
    is what the shortest side becomes; resample: of PIL, in words
    """

    height: int
    width: int
    scale: tuple[int, int]
    squash: bool = False
    resample: str = "bicubic"

    def __call__(self, pixels: U8) -> U8:
        """Return (height, width, 3) uint8 of one (H, W, 3) uint8 RGB image."""
        image = Image.fromarray(pixels)
        resample = Image.Resampling[self.resample.upper()]
        rows, columns = self.scale if self.squash else _shortest(pixels.shape[0], pixels.shape[1], self.scale[0])
        top, left = round((rows - self.height) / 2.0), round((columns - self.width) / 2.0)
        if rows * columns > _LARGE * self.height * self.width:
            y, x = pixels.shape[0] / rows, pixels.shape[1] / columns
            box = (left * x, top * y, (left + self.width) * x, (top + self.height) * y)
            return np.asarray(image.resize((self.width, self.height), resample, box=box))
        image = image.resize((columns, rows), resample)
        return np.asarray(image.crop((left, top, left + self.width, top + self.height)))


def _shortest(height: int, width: int, side: int) -> tuple[int, int]:
    if width <= height:
        return int(side * height / width), side
    return side, int(side * width / height)


@dataclass(frozen=True, slots=True)
class LibraryCrop:
    """Resizing and padding that `Crop` does not know, by a library's own steps on PIL images."""

    steps: Sequence[Callable[[Any], Any]]

    def __call__(self, pixels: U8) -> U8:
        """Return (height, width, 3) uint8 of one (H, W, 3) uint8 RGB image."""
        image = Image.fromarray(pixels)
        for step in self.steps:
            image = step(image)
        return np.asarray(image)


def library_steps(transforms: Sequence[Any]) -> LibraryCrop:
    """Return the part of a library's transforms that comes before pixels become a tensor."""
    names = [type(step).__name__ for step in transforms]
    end = next(i for i, name in enumerate(names) if "ToTensor" in name)
    return LibraryCrop(tuple(transforms[:end]))
