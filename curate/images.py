"""Encoded image bytes to pixels: any allowed format to 8-bit RGB, hostile bytes to one named error."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps

from curate.errors import DecodeError

Pixels = NDArray[np.uint8]

_PLUGINS = ("Jpeg", "Png", "WebP", "Gif", "Bmp", "Tiff", "Ppm", "Avif")
_PREFIX = 16  # bytes that the plugins ask for to recognise their format
_WHITE = (255, 255, 255, 255)

# What PIL's parsers raise on bytes that lie. Not MemoryError: that is the state of the machine, not of the image,
# and a refusal would outlive it.
_HOSTILE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    LookupError,
    EOFError,
    RuntimeError,
    struct.error,
    zlib.error,
)


@dataclass(frozen=True, slots=True)
class Decoded:
    """One decoded image.

    `pixels` is (height, width, 3) uint8 RGB, C-contiguous; `width` and `height` are those of the stored image, after
    its EXIF orientation; `format` is PIL's name of the format (`JPEG`, `PNG`, ...).
    """

    pixels: Pixels
    width: int
    height: int
    format: str


def decode(data: bytes, max_pixels: int = 100_000_000) -> Decoded:
    """Return the first frame of an encoded image as upright 8-bit RGB; equal bytes give equal pixels.

    Transparency is composited on white, 16-bit grey is scaled by 255/65535, other integer ranges and floats by their
    own minimum and maximum. Colour profiles are ignored.

    Raises DecodeError: `too_many_pixels` if the header says more than `max_pixels`, which is read before any pixel
    is decoded, or if PIL finds a tile or an animation's canvas beyond its own limit; `undecodable` if the bytes are no
    image of an allowed format, or are damaged or truncated.
    """
    try:
        with _quiet():
            name, image = _parse_header(data)
            with image:
                _check_size(image.size, max_pixels)
                image.load()
                pixels = _as_rgb(_upright(image))
    except DecodeError:
        raise
    except Image.DecompressionBombError as error:  # PIL's own check of a tile or an animation's canvas
        raise DecodeError("too_many_pixels", str(error)) from error
    except _HOSTILE as error:
        raise DecodeError("undecodable", f"the image does not decode: {type(error).__name__}: {error}") from error
    height, width, _ = pixels.shape
    return Decoded(pixels, width, height, name)


def pixel_hash(pixels: Pixels) -> str:
    """Return 32 hex digits over the shape and the values of an image, whatever it was encoded as."""
    digest = hashlib.blake2b(np.array(pixels.shape, dtype="<i8").tobytes(), digest_size=16)
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


class _Silence:
    """Ignores warnings from the first thread that begins to decode until the last has ended.

    `warnings.catch_warnings` alone swaps a process-wide list: two threads that overlap would leave the wrong one.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._threads = 0
        self._saved = contextlib.ExitStack()

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        with self._lock:
            if self._threads == 0:
                self._saved.enter_context(warnings.catch_warnings())
                warnings.simplefilter("ignore")
            self._threads += 1
        try:
            yield
        finally:
            with self._lock:
                self._threads -= 1
                if self._threads == 0:
                    self._saved.close()


_quiet = _Silence()


def _register_formats() -> tuple[str, ...]:
    """Import the plugins of the allowed formats, and no other, and return the formats that this PIL can open."""
    for plugin in _PLUGINS:
        try:
            importlib.import_module(f"PIL.{plugin}ImagePlugin")
        except ImportError:
            continue  # Pillow before 11.3 has no AVIF
    names = [plugin.upper() for plugin in _PLUGINS]
    return tuple(name for name in names if name in Image.OPEN)


_FORMATS = _register_formats()


def _parse_header(data: bytes) -> tuple[str, ImageFile.ImageFile]:
    """Return the format and the opened image, no pixel decoded.

    The plugins are called directly because `Image.open` compares the size with a process-wide limit, which would make
    a refusal depend on who else uses PIL.
    """
    prefix = data[:_PREFIX]
    for name in _FORMATS:
        factory, accepts = Image.OPEN[name]
        verdict = accepts is None or accepts(prefix)
        if isinstance(verdict, str):
            raise DecodeError("undecodable", verdict)  # built without this codec
        if verdict:
            return name, factory(io.BytesIO(data), "")
    found = f"bytes that begin with {prefix!r}" if data else "no bytes"
    raise DecodeError("undecodable", f"not an image of an allowed format ({', '.join(_FORMATS)}): {found}")


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise DecodeError("undecodable", f"the header says {width} x {height} pixels")
    if width * height > max_pixels:
        raise DecodeError("too_many_pixels", f"the header says {width} x {height} pixels, allowed are {max_pixels:,}")


def _upright(image: Image.Image) -> Image.Image:
    """Return the image turned as its EXIF orientation says; as stored where the EXIF block is damaged."""
    try:
        return ImageOps.exif_transpose(image)
    except _HOSTILE:
        return image


def _as_rgb(image: Image.Image) -> Pixels:
    if image.mode in {"I", "F"} or image.mode.startswith("I;16"):
        grey = _grey_levels(np.asarray(image))
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.has_transparency_data:
        paper = Image.new("RGBA", image.size, _WHITE)
        image = Image.alpha_composite(paper, image.convert("RGBA"))
    return np.array(image.convert("RGB"), dtype=np.uint8)


def _grey_levels(values: NDArray[np.generic]) -> Pixels:
    """Return grey values as 0..255: 0..65535 by its range, anything wider or fractional by its minimum and maximum."""
    if np.issubdtype(values.dtype, np.integer):
        wide = values.astype(np.int64)
        if wide.min() >= 0 and wide.max() <= 65_535:
            return ((wide * 255 + 32_767) // 65_535).astype(np.uint8)
    exact = values.astype(np.float64)
    finite = np.isfinite(exact)
    if not finite.any():
        return np.zeros(exact.shape, dtype=np.uint8)
    low, high = exact[finite].min(), exact[finite].max()
    exact = np.where(finite, exact, low)
    scale = 255.0 / (high - low) if high > low else 0.0
    levels: Pixels = np.rint((exact - low) * scale).astype(np.uint8)
    return levels
