"""Images of a pool for the page: read where they lie, checked, decoded and encoded anew."""

from __future__ import annotations

import io
from collections.abc import Mapping

from curate.errors import DecodeError
from curate.images import decode
from curate.pool import Pool
from curate.samples import content_hash
from curate.stored import PLACE, read_stored

_LARGEST = 1600


def picture(pool: Pool, row: int, side: int, roots: Mapping[str, str], max_pixels: int) -> bytes | None:
    """Return a row's image as JPEG of at most `side` pixels a side, None where it cannot be shown.

    Only bytes that the pool has decided on are ever served: their SHA-256 must be the stored one.
    """
    from PIL import Image

    stored = pool.take([row], [*PLACE, "embedded"]).to_pylist()[0]
    if not stored["embedded"]:
        return None
    try:
        data = read_stored(stored, roots)
        if content_hash(data) != stored["sha256"]:
            return None
        image = Image.fromarray(decode(data, max_pixels).pixels)
    except (OSError, ValueError, DecodeError):
        return None
    side = max(16, min(side, _LARGEST))
    image.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=3.0)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=85)
    return stream.getvalue()
