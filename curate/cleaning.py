"""Image quality without a model: size, shape, near-blank, blurred, badly exposed, colourless."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from curate.recipe import CleanTable
from curate_kernels.arrays import I64, U8
from curate_kernels.quality import luma_counts, opponent_moments

MEASURED_SIDE = 224  # pixels of the longer side, at most


@dataclass(frozen=True, slots=True)
class Quality:
    """What the pixels of an image say, at no more than 224 pixels on the longer side: cameras do not differ by size.

    contrast: luminance range from the 1st to the 99th percentile, 0-255; low: near-blank
    sharpness: mean |Laplacian| of luminance, 0-2040; low: blurred or without detail
    brightness: mean luminance, 0-255; low: dark, high: light
    entropy: of the histogram of luminance, 0-8 bits; low: few tones, as in near-blank images and in drawings
    colourfulness: 0 where all is grey, about 15 slightly, 45 fairly and 82 highly colourful
    clipped: share of pixels, 0-1, with luminance 0 or 255; high: under- or over-exposed, or cut out on white
    The last four are NaN where an older pool stored only the first two.
    """

    contrast: float
    sharpness: float
    brightness: float = math.nan
    entropy: float = math.nan
    colourfulness: float = math.nan
    clipped: float = math.nan


def measure(pixels: U8) -> Quality:
    """Return the quality of an image, pixels (H, W, 3) uint8 RGB."""
    from PIL import Image

    picture = Image.fromarray(pixels).convert("L")
    if max(picture.size) > MEASURED_SIDE:
        scale = MEASURED_SIDE / max(picture.size)
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        picture = picture.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
    luma = np.asarray(picture)
    histogram = np.empty(256, dtype=np.int64)
    edges = luma_counts(luma, histogram)
    inside = (luma.shape[0] - 2) * (luma.shape[1] - 2) if min(luma.shape) > 2 else 0
    share = histogram / luma.size
    present = share[share > 0]
    return Quality(
        contrast=_percentile(histogram, 0.99) - _percentile(histogram, 0.01),
        sharpness=float(np.float32(edges) / np.float32(inside)) if inside else 0.0,
        brightness=float(share @ np.arange(256)),
        entropy=max(0.0, -float(present @ np.log2(present))),
        colourfulness=_colourfulness(pixels),
        clipped=float(share[0] + share[255]),
    )


def aspect(width: int, height: int) -> float:
    """Return the longer side over the shorter one, ≥ 1; high: a banner or a strip."""
    return max(width, height) / max(1, min(width, height))


def _percentile(histogram: I64, q: float) -> float:
    """Return the quantile of the counted values, with numpy's linear interpolation."""
    below = np.cumsum(histogram)
    place = q * (int(below[-1]) - 1)
    low, high = (float(np.searchsorted(below, rank, side="right")) for rank in (math.floor(place), math.ceil(place)))
    after = place - math.floor(place)
    # From the nearer end, as numpy does: the last digit of a stored contrast depends on it.
    return low + (high - low) * after if after < 0.5 else high - (high - low) * (1 - after)


def _colourfulness(pixels: U8) -> float:
    """Return M = sqrt(var rg + var yb) + .3 sqrt(mean rg² + mean yb²).

    Hasler & Süsstrunk, "Measuring colourfulness in natural images", SPIE 2003, equation 3 of its section on sRGB.
    """
    step = math.ceil(max(pixels.shape[:2]) / MEASURED_SIDE)
    moments = np.empty(4)
    opponent_moments(np.ascontiguousarray(pixels), step, moments)
    rg, yb, var_rg, var_yb = moments
    return math.sqrt(var_rg + var_yb) + 0.3 * math.hypot(rg, yb)


def refusal(width: int, height: int, quality: Quality, table: CleanTable) -> str:
    """Return why an image is refused before it is compared with anything: `too_small`, `low_quality`, or nothing."""
    if min(width, height) < table.min_side:
        return "too_small"
    shapeless = max(width, height) > table.max_aspect * min(width, height)
    blank = quality.contrast < table.min_contrast
    blurred = quality.sharpness < table.min_sharpness
    return "low_quality" if shapeless or blank or blurred else ""
