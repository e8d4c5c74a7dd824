"""Real images out of installed packages: crops of photographs from both, and the digits of scikit-learn."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from importlib import resources
from types import ModuleType

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from curate.errors import UsageError
from curate.images import Pixels, decode

_INSTALL = "pip install 'curate-engine[demo]'"
_PHOTOGRAPHS = {
    "skimage.data": (
        "astronaut.png", "camera.png", "chelsea.png", "coffee.png", "coins.png", "ihc.png", "motorcycle_left.png",
        "rocket.jpg", "text.png",
    ),
    "sklearn.datasets.images": ("china.jpg", "flower.jpg"),
}  # fmt: skip
"""Scenes only. Crops of a texture (brick, grass, a star field) are near duplicates of each other to any encoder."""

_CROP = 96  # pixels a side
_MIN_DEVIATION = 16.0  # of luminance, 0-255; a crop below it shows sky or a wall
_DIGIT = 160  # pixels a side, from 8; at 64, JPEG of quality 70 changes a digit as much as another hand does
_INK = 8.0  # contrast of the strokes' edges: enlarged 20 times and left soft, every digit is refused as blurred


def photographs() -> list[Pixels]:
    """Return crops of photographs that do not overlap, (96, 96, 3) uint8 RGB each, those that show something."""
    return named_photographs()[0]


def named_photographs() -> tuple[list[Pixels], list[str]]:
    """Return the crops, and the name of the photograph that each was cut from."""
    named = [
        (crop, file.partition(".")[0])
        for name, files in _PHOTOGRAPHS.items()
        for file in files
        for crop in _crops(_read(name, file))
        if float(crop.mean(axis=2).std()) >= _MIN_DEVIATION
    ]
    return [crop for crop, _ in named], [name for _, name in named]


def digits() -> tuple[list[Pixels], list[str]]:
    """Return 1,797 handwritten digits, (160, 160, 3) uint8 RGB, black on white, and their classes `0` to `9`."""
    data = _installed("sklearn.datasets").load_digits()
    return [_as_ink(digit) for digit in data.images], [str(label) for label in data.target]


def _as_ink(digit: NDArray[np.float64]) -> Pixels:
    """Return an 8 x 8 digit with values 0-16 enlarged, its strokes with sharp edges."""
    small = Image.fromarray(np.rint(digit * (255 / 16)).astype(np.uint8))
    soft = np.asarray(small.resize((_DIGIT, _DIGIT), Image.Resampling.BICUBIC), dtype=np.float64)
    paper = np.clip(127.5 - _INK * (soft - 127.5), 0, 255).astype(np.uint8)
    return np.repeat(paper[:, :, None], 3, axis=2)


def _crops(image: Pixels) -> Iterator[Pixels]:
    height, width, _ = image.shape
    for top in range(0, height - _CROP + 1, _CROP):
        for left in range(0, width - _CROP + 1, _CROP):
            yield np.ascontiguousarray(image[top : top + _CROP, left : left + _CROP])


def _read(package: str, file: str) -> Pixels:
    try:
        return decode(resources.files(_installed(package)).joinpath(file).read_bytes()).pixels
    except OSError as error:
        raise UsageError(
            f"{package} comes without {file} here ({error.strerror}); reinstall it with {_INSTALL}"
        ) from error


def _installed(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UsageError(f"the demo takes its images from scikit-image and scikit-learn: {_INSTALL}") from error
