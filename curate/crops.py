"""From pixels to an encoder's input: resized and cut, in any process, without the encoder."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from curate_kernels.arrays import I32, I64
from curate_kernels.resize import resize_rgb, resize_taps

U8 = NDArray[np.uint8]
Taps = tuple[I64, I64, I32]

RESIZES = ("squash", "shortest", "cover", "longest")


@dataclass(frozen=True, slots=True)
class Crop:
    """How the (height, width, 3) uint8 input of an encoder is made of an image; a call makes it. Deterministic.

    resize: `squash` to height x width; `shortest`: the shorter side to `scale`, then the middle; `cover`: as small as
        covers height x width, then the middle; `longest`: as large as fits into it, then bordered with `fill`, a grey
    scale: pixels of the shorter side, at least height and width; of no meaning for the others
    interpolation: `bicubic` or `bilinear`, with antialiasing: pixels are those of PIL, sizes and places torchvision's

    An encoder that has one under the name `crop` gives the same from `prepare`, and can be decoded for in processes.
    """

    height: int
    width: int
    resize: str = "squash"
    scale: int = 0
    interpolation: str = "bicubic"
    fill: int = 0

    def __post_init__(self) -> None:
        if self.resize not in RESIZES:
            raise ValueError(f"resize is {self.resize!r}; there are: {', '.join(RESIZES)}")
        if self.resize == "shortest" and self.scale < max(self.height, self.width):
            raise ValueError(f"the shorter side is scaled to {self.scale}, and {self.height} x {self.width} is cut out")

    @property
    def least(self) -> int:
        """Pixels that a side of an image must have so that nothing is enlarged."""
        return self.scale if self.resize == "shortest" else max(self.height, self.width)

    def __call__(self, pixels: U8) -> U8:
        """Return the encoder's input for (H, W, 3) uint8 pixels."""
        height, width = self._size(pixels.shape[0], pixels.shape[1])
        rows, columns = min(height, self.height), min(width, self.width)
        # As torchvision rounds; a border's odd pixel goes to the right and below, as open_clip puts it.
        above, before = (round((size - cut) / 2.0) for size, cut in ((height, rows), (width, columns)))
        if (height, width) == pixels.shape[:2] and (rows, columns) == (self.height, self.width):
            return pixels[above : above + rows, before : before + columns].copy()
        x = _taps(pixels.shape[1], width, self.interpolation, (before, columns))
        y = _taps(pixels.shape[0], height, self.interpolation, (above, rows))
        # PIL's rule: y comes first where it shrinks by more than twice as many pixels.
        y_first = 0 < pixels.shape[0] - height > 2 * (pixels.shape[1] - width)
        out = np.empty((rows, columns, 3), dtype=np.uint8)
        resize_rgb(np.ascontiguousarray(pixels), *x, *y, y_first, out)
        if (rows, columns) == (self.height, self.width):
            return out
        framed = np.full((self.height, self.width, 3), self.fill, dtype=np.uint8)
        above, before = (self.height - rows) // 2, (self.width - columns) // 2
        framed[above : above + rows, before : before + columns] = out
        return framed

    def _size(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width after resizing, before anything is cut off or bordered."""
        if self.resize == "squash":
            return self.height, self.width
        if self.resize == "shortest":
            short, long = sorted((height, width))
            longer = int(self.scale * long / short)
            return (self.scale, longer) if height <= width else (longer, self.scale)
        choose = max if self.resize == "longest" else min
        ratio = choose(height / self.height, width / self.width)
        return max(1, round(height / ratio)), max(1, round(width / ratio))


@functools.lru_cache(maxsize=256)
def _taps(size: int, out_size: int, interpolation: str, wanted: tuple[int, int]) -> Taps:
    return resize_taps(size, out_size, interpolation, wanted=wanted)
