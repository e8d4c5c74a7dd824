"""JPEG decoded at a half, a quarter or an eighth of its size, straight from its cosine coefficients."""

from __future__ import annotations

import numpy as np
import simplejpeg
from numpy.typing import NDArray

U8 = NDArray[np.uint8]

# Other eighths have no vector code in libjpeg-turbo: 3/8 of a 1920 x 1281 photograph takes longer than a half.
_SCALES = (8, 4, 2)


def shrinkage(width: int, height: int, least: int) -> int:
    """Return the largest of 8, 4, 2 and 1 by which a picture can be shrunk so that no side is under `least` pixels."""
    return next((s for s in _SCALES if min(-(-width // s), -(-height // s)) >= least), 1)


def decode_reduced(data: bytes, width: int, height: int, least: int) -> U8 | None:
    """Return the pixels of a grey or YCbCr JPEG, as stored, at the smallest size whose sides are at least `least`.

    Each side is ceil(side / s) for s of `shrinkage`; s = 1 gives the pixels that PIL gives. None where the file is
    damaged or unusual in any way, or has not the size that was found in its header: PIL decides what it is.

    width, height: as PIL reads them from the header; returns (h, w, 3) uint8 RGB
    """
    scale = shrinkage(width, height, least)
    sides = (-(-height // scale), -(-width // scale))
    try:
        if simplejpeg.decode_jpeg_header(data)[:2] != (height, width):
            return None
        asked = {} if scale == 1 else {"min_height": sides[0], "min_width": sides[1]}
        pixels: U8 = simplejpeg.decode_jpeg(data, "RGB", **asked)
    except (ValueError, RuntimeError):  # strict: a warning of the decoder, too, is an error
        return None
    return pixels if pixels.shape == (*sides, 3) else None
