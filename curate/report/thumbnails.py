"""Thumbnails: stored bytes read again where the pool says they lie, small enough to be part of the report."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import Any

from curate.errors import DecodeError
from curate.images import Pixels, decode
from curate.report.text import clipped
from curate.samples import content_hash
from curate.stored import read_stored

_SIDE = 128
_QUALITIES = (82, 60, 40)
_MOST_EACH = 8_000  # bytes of one JPEG; a photograph of 128 pixels takes about 4,000
_MOST_WORDS = 90


class Thumbnails:
    """Makes data URIs of rows, until together they take `most_bytes`.

    roots: {source id: the folder that its paths are relative to}; max_pixels: larger images are not decoded
    """

    def __init__(self, roots: Mapping[str, str], max_pixels: int, most_bytes: int) -> None:
        self._roots, self._max_pixels, self._left = roots, max_pixels, most_bytes

    def picture(self, row: Mapping[str, Any]) -> tuple[str, str]:
        """Return (data URI, "") of a row of the pool, or ("", why there is no picture, in words)."""
        try:
            data = read_stored(row, self._roots)
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            return "", _words(error.strerror or "cannot be read" if isinstance(error, OSError) else "no such path")
        if content_hash(data) != row["sha256"]:
            return "", "the file has changed since it was decided"
        if not data:
            return "", "no bytes"
        try:
            thumbnail = _as_jpeg(decode(data, self._max_pixels).pixels)
        except DecodeError as error:
            return "", _words(str(error))
        uri = "data:image/jpeg;base64," + base64.b64encode(thumbnail).decode("ascii")
        if len(uri) > self._left:
            return "", "left out, to keep this file small"
        self._left -= len(uri)
        return uri, ""


def _as_jpeg(pixels: Pixels) -> bytes:
    """Return an image as JPEG of at most 128 pixels a side, at the best quality that keeps it small."""
    from PIL import Image

    image = Image.fromarray(pixels)
    image.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS, reducing_gap=3.0)
    data = b""
    for quality in _QUALITIES:
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=quality)
        data = stream.getvalue()
        if len(data) <= _MOST_EACH:
            break
    return data


def _words(problem: str) -> str:
    return clipped(problem[:1].lower() + problem[1:], _MOST_WORDS)
