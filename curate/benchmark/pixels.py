"""Images altered as a re-poster, a broken camera or a careless scraper leaves them."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageFilter

from curate.images import Pixels, decode
from curate_kernels.arrays import F32

_SIDE = 16


def altered(pixels: Pixels, change: str) -> Pixels:
    """Return an (H, W, 3) image after the changes `name:number|name|…`, first to last."""
    for one in change.split("|"):
        name, _, number = one.partition(":")
        pixels = _altered(pixels, name, float(number or 0))
    return pixels


def _altered(pixels: Pixels, name: str, number: float) -> Pixels:
    image = Image.fromarray(pixels)
    if name == "jpeg":
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=int(number))
        return decode(stream.getvalue()).pixels
    if name == "resize":
        size = (max(1, round(image.width * number)), max(1, round(image.height * number)))
        return np.asarray(image.resize(size, Image.Resampling.BICUBIC))
    if name == "crop":
        width, height = max(1, round(image.width * number)), max(1, round(image.height * number))
        left, top = (image.width - width) // 2, (image.height - height) // 2
        return np.asarray(image.crop((left, top, left + width, top + height)))
    if name == "flip":
        return np.ascontiguousarray(pixels[:, ::-1])
    if name == "blur":
        return np.asarray(image.filter(ImageFilter.GaussianBlur(number)))
    if name == "blank":
        return np.full_like(pixels, 120)
    raise ValueError(f"no change is called {name!r}")


class PixelEncoder:
    """Grey thumbnails as embeddings, (n, 256) unit rows about grey: an encoder that needs no weights."""

    name = "pixels"
    dim = _SIDE * _SIDE
    fingerprint = "grey thumbnails 16 x 16, 1"
    nonnegative = False
    epsilon: float | None = None

    def prepare(self, pixels: Pixels) -> Pixels:
        """Return the (16, 16) grey thumbnail."""
        return np.asarray(Image.fromarray(pixels).convert("L").resize((_SIDE, _SIDE), Image.Resampling.BOX))

    def encode(self, prepared: list[Pixels]) -> F32:
        """Return the thumbnails as rows; an even grey one is a zero row."""
        rows = np.array(prepared, dtype=np.float32).reshape(len(prepared), self.dim) - 128.0
        norm = np.linalg.norm(rows, axis=1, keepdims=True)
        return (rows / np.where(norm > 0, norm, 1)).astype(np.float32)
