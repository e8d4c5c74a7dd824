"""Image quality without a model: size, shape, near-blank, blurred."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from curate.recipe import CleanTable
from curate_kernels.arrays import U8

_SIDE = 224


@dataclass(frozen=True, slots=True)
class Quality:
    """contrast: luminance range from the 1st to the 99th percentile (0-255); sharpness: mean |Laplacian| of luminance.

    Both are measured at no more than 224 pixels on the longer side, so that they do not depend on the camera.
    """

    contrast: float
    sharpness: float


def measure(pixels: U8) -> Quality:
    """Return the quality of an image, pixels (H, W, 3) uint8 RGB."""
    from PIL import Image

    picture = Image.fromarray(pixels).convert("L")
    if max(picture.size) > _SIDE:
        scale = _SIDE / max(picture.size)
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        picture = picture.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
    luma = np.asarray(picture, dtype=np.float32)
    low, high = np.percentile(luma, (1, 99))
    if min(luma.shape) < 3:
        return Quality(float(high - low), 0.0)
    centre = luma[1:-1, 1:-1]
    laplacian = 4 * centre - luma[:-2, 1:-1] - luma[2:, 1:-1] - luma[1:-1, :-2] - luma[1:-1, 2:]
    return Quality(float(high - low), float(np.abs(laplacian).mean()))


def refusal(width: int, height: int, quality: Quality, table: CleanTable) -> str:
    """Return why an image is refused before it is compared with anything: `too_small`, `low_quality`, or nothing."""
    if min(width, height) < table.min_side:
        return "too_small"
    shapeless = max(width, height) > table.max_aspect * min(width, height)
    blank = quality.contrast < table.min_contrast
    blurred = quality.sharpness < table.min_sharpness
    return "low_quality" if shapeless or blank or blurred else ""
