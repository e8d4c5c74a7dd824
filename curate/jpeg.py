"""JPEG decoded at a half, a quarter or an eighth of its size, straight from its cosine coefficients."""

from __future__ import annotations

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from curate_kernels.resize import resize_rgb, resize_taps

U8 = NDArray[np.uint8]

# Other eighths have no vector code in libjpeg-turbo: 3/8 of a 1920 x 1281 photograph takes longer than a half.
_SCALES = (8, 4, 2)


def shrinkage(width: int, height: int, least: int) -> int:
    """Return the largest of 8, 4, 2 and 1 by which a picture can be shrunk so that no side is under `least` pixels."""
    return next((s for s in _SCALES if min(round(width / s), round(height / s)) >= least), 1)


def decode_reduced(data: bytes, width: int, height: int, least: int) -> U8 | None:
    """Return the pixels of a grey or YCbCr JPEG, as stored, at the smallest size whose sides are at least `least`.

    Each side is round(side / s) for s of `shrinkage`; s = 1 gives the pixels that PIL gives. None where the file is
    damaged or unusual in any way, or has not the size that was found in its header: PIL decides what it is.

    A side of 1281 at a quarter is 320.25 pixels, and the decoder gives 321, the last one mostly made up. They are
    resized to 320: taken as they are, everything would lie up to .75 pixels off, at a cosine of .9936 for .998.

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
    if pixels.shape != (*sides, 3):
        return None
    return (
        pixels if (height % scale, width % scale) == (0, 0) else _without_surplus(pixels, width / scale, height / scale)
    )


def _without_surplus(pixels: U8, width: float, height: float) -> U8:
    """Return the upper left `width` x `height` pixels as whole pixels, bicubic."""
    out = np.empty((round(height), round(width), 3), dtype=np.uint8)
    x = resize_taps(pixels.shape[1], out.shape[1], "bicubic", 0.0, width)
    y = resize_taps(pixels.shape[0], out.shape[0], "bicubic", 0.0, height)
    resize_rgb(pixels, *x, *y, True, out)
    return out
