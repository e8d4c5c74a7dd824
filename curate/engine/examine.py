"""What one image's bytes give: everything between reading and encoding. The same in a thread and in a process."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from curate.cleaning import MEASURED_SIDE, Quality, measure, refusal
from curate.crops import Crop
from curate.errors import DecodeError
from curate.hashing import phash
from curate.images import decode, pixel_hash
from curate.recipe import CleanTable, Recipe
from curate_kernels.arrays import U8

# How many times the encoder's side a reduced JPEG has at least. Mean (least) cosine to the embedding of the full size,
# photographs of 450 to 900 pixels, the built-in encoder: 1.0 .9944 (.981), 1.25 .9974 (.990), 1.5 .9982 (.995).
_MARGIN = 1.25


@dataclass(frozen=True, slots=True)
class Examined:
    """What the bytes gave. `crop` is the encoder's input, None where they gave no image.

    reason: why the row is refused already, or ""; detail: the same in words
    width, height: as stored, upright; pixel_hash, phash: hex digits
    """

    reason: str = ""
    detail: str = ""
    width: int = 0
    height: int = 0
    format: str = ""
    pixel_hash: str = ""
    quality: Quality | None = None
    crop: U8 | None = None
    phash: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return all but the crop, as a JSON value."""
        fields = {name: getattr(self, name) for name in Examined.__slots__ if name not in ("crop", "quality")}
        return fields | {"quality": asdict(self.quality) if self.quality else None}

    @classmethod
    def from_dict(cls, value: dict[str, Any], crop: U8 | None) -> Examined:
        """Return what `as_dict` gave, with its crop."""
        quality = value["quality"]
        return cls(**value | {"quality": Quality(**quality) if quality else None, "crop": crop})


@dataclass(frozen=True, slots=True)
class Terms:
    """What an image is examined for. `least`: of `decode`; 0 where every image is decoded at its full size."""

    max_pixels: int
    least: int
    clean: CleanTable

    def as_dict(self) -> dict[str, Any]:
        """Return the terms as a JSON value."""
        return asdict(self)

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Terms:
        """Return what `as_dict` gave."""
        return cls(**value | {"clean": CleanTable(**value["clean"])})


def terms(recipe: Recipe, crop: Crop | None) -> Terms:
    """Return a recipe's terms for an encoder that cuts its input so, None where it does not say."""
    least = 0
    if recipe.encode.decode == "reduced" and crop is not None:
        least = math.ceil(_MARGIN * max(crop.least, MEASURED_SIDE))
    return Terms(recipe.limits.max_pixels, least, recipe.clean)


def examine(data: bytes, asked: Terms, crop: Callable[[U8], U8]) -> Examined:
    """Decode one image, hash its pixels, measure its quality, and cut the encoder's input."""
    try:
        image = decode(data, asked.max_pixels, asked.least)
    except DecodeError as error:
        return Examined(error.reason, str(error))
    quality = measure(image.pixels)
    return Examined(
        reason=refusal(image.width, image.height, quality, asked.clean),
        width=image.width,
        height=image.height,
        format=image.format,
        pixel_hash=pixel_hash(image.pixels, (image.width, image.height)),
        phash=f"{phash(image.pixels):016x}",
        quality=quality,
        crop=crop(image.pixels),
    )
