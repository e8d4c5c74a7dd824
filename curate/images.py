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
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile

from curate.dicom import decode_dicom, is_dicom
from curate.errors import DecodeError
from curate.jpeg import decode_reduced

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

    `pixels` is (h, w, 3) uint8 RGB, C-contiguous; `width` and `height` are those of the stored image, after its EXIF
    orientation, and larger than w and h where it was decoded at a reduced size; `format` is PIL's name of the format
    (`JPEG`, `PNG`, ...), or `DICOM`.
    """

    pixels: Pixels
    width: int
    height: int
    format: str


def decode(data: bytes, max_pixels: int = 100_000_000, least: int = 0) -> Decoded:
    """Return the first frame of an encoded image as upright 8-bit RGB; equal bytes give equal pixels.

    Transparency is composited on white, 16-bit grey is scaled by 255/65535, other integer ranges and floats by their
    own minimum and maximum; DICOM as `decode_dicom` says. Colour profiles are ignored.

    least: a JPEG whose shorter side has at least twice as many pixels may be decoded at a half, a quarter or an eighth
        of its size, no side below `least`; 0: everything at its full size

    Raises DecodeError: `too_many_pixels` if the header says more than `max_pixels`, which is read before any pixel
    is decoded, or if PIL finds a tile or an animation's canvas beyond its own limit; `undecodable` if the bytes are no
    image of an allowed format, or are damaged or truncated.
    """
    try:
        with _quiet():
            if is_dicom(data):
                pixels = decode_dicom(data, max_pixels)
                return Decoded(pixels, pixels.shape[1], pixels.shape[0], "DICOM")
            name, image = _parse_header(data)
            with image:
                _check_size(image.size, max_pixels)
                if least and name == "JPEG" and (reduced := _reduced(data, image, least)):
                    return reduced
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


def pixel_hash(pixels: Pixels, size: tuple[int, int] | None = None) -> str:
    """Return 32 hex digits over the size and the values of an image, whatever it was encoded as.

    size: stored (width, height) of an image that was decoded at a reduced size. The hash then identifies this size and
        what is left of the pixels, which is all that is looked at: images that differ in finer detail only are equal.
    """
    width, height = size or pixels.shape[1::-1]
    digest = hashlib.blake2b(np.array((height, width, pixels.shape[2]), dtype="<i8").tobytes(), digest_size=16)
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


def _reduced(data: bytes, image: ImageFile.ImageFile, least: int) -> Decoded | None:
    """Return a JPEG at a reduced size; None where PIL must decode it: CMYK, or something is unusual or damaged."""
    if image.mode not in {"RGB", "L"}:
        return None
    width, height = image.size
    pixels = decode_reduced(data, width, height, least)
    if pixels is None:
        return None
    turned = _orientation(image)
    if turned >= 5:
        width, height = height, width
    return Decoded(np.ascontiguousarray(_TURNS[turned](pixels)), width, height, "JPEG")


_TURNS: dict[int, Callable[[Pixels], Pixels]] = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.swapaxes(0, 1),
    6: lambda p: p[::-1].swapaxes(0, 1),
    7: lambda p: p[::-1, ::-1].swapaxes(0, 1),
    8: lambda p: p[:, ::-1].swapaxes(0, 1),
}


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 where there is none or the EXIF block is damaged."""
    try:
        found = image.getexif().get(ExifTags.Base.Orientation)
        return int(found) if found in _TURNS else 1
    except _HOSTILE:
        return 1


def _upright(image: Image.Image) -> Image.Image:
    """Return a loaded image turned as its EXIF orientation says."""
    method = _METHODS.get(_orientation(image))
    return image if method is None else image.transpose(method)


_METHODS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


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
