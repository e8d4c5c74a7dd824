"""Rows as items: bytes checked and decoded, crops cut out and tiled, with the columns that training needs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from PIL import Image

from curate.errors import DecodeError, RemoteError, SampleError, UsageError
from curate.images import Pixels, decode
from curate.loaders.store import Bytes, Store
from curate.loaders.subset import Subset
from curate.loaders.tally import Tally
from curate.samples import content_hash

_LOG = logging.getLogger("curate")

Item = dict[str, Any]
COLUMNS = ("uid", "key", "caption", "label", "weight")
_BOX = ("crop_x", "crop_y", "crop_w", "crop_h")
_HOPELESS = 100  # samples that fail, none being read before, until skipping ends with an error


class Items:
    """Makes items of a subset's images.

    decode: "pil" (RGB, upright), "array" ((height, width, 3) uint8), "raw" (the stored bytes, uncropped),
        or a function of the bytes, which handles crops itself; its OSError, ValueError and SyntaxError are a sample
        that does not decode
    transform: a function of the decoded image, or of the raw bytes
    columns: what of the manifest goes into an item; each item has `row`, its number, and crops have `crop`, their box
        (left, top, width, height)
    tiles: side in pixels; the crops of a tile are scaled to cells of half of it and become one image, whose columns
        are lists
    verify: compare each image's SHA-256 with the manifest's
    on_error: "raise" a SampleError for an image that is gone, has changed or does not decode, or "skip" and count it
    max_pixels: more are refused before they are decoded

    Raises UsageError for what makes no sense, or the manifest cannot give.
    """

    def __init__(
        self,
        subset: Subset,
        *,
        decode: str | Callable[[bytes], Any] = "pil",
        transform: Callable[[Any], Any] | None = None,
        columns: Sequence[str] = COLUMNS,
        tiles: int | None = None,
        verify: bool = False,
        on_error: Literal["raise", "skip"] = "raise",
        max_pixels: int = 100_000_000,
        tally: Tally | None = None,
    ) -> None:
        if not callable(decode) and decode not in ("pil", "array", "raw"):
            raise UsageError(f"decode={decode!r} must be 'pil', 'array', 'tensor', 'raw' or a function of bytes")
        if on_error not in ("raise", "skip"):
            raise UsageError(f"on_error={on_error!r} must be 'raise' or 'skip'")
        if unknown := sorted(set(columns) - set(subset.columns)):
            raise UsageError(f"the manifest has no column {', '.join(unknown)}; it has {', '.join(subset.columns)}")
        if tiles is not None and (subset.tile != 4 or decode not in ("pil", "array") or tiles < 2 or tiles % 2):
            raise UsageError(
                f"tiles={tiles} needs a manifest of crops, four to a tile, decode='pil' or 'array', and an even side"
            )
        self.subset = subset
        self.tally = tally or Tally()
        self._store = Store(subset)
        self._decode, self._transform, self._columns = decode, transform, tuple(columns)
        self._tiles, self._verify, self._skip, self._max_pixels = tiles, verify, on_error == "skip", max_pixels

    @property
    def step(self) -> int:
        """Return the rows of an item: 1, or the crops of a tile."""
        return 1 if self._tiles is None else self.subset.tile

    def is_far(self, row: int) -> bool:
        """Tell whether a row is read best together with its neighbours."""
        return self._store.is_far(row)

    def read(self, rows: Sequence[int]) -> list[Bytes]:
        """Return the stored bytes of the items that begin at these rows: `step` answers for each."""
        return self._store.read(self._each(rows))

    def make(self, rows: Sequence[int], answers: Sequence[Bytes], skip: bool | None = None) -> list[Item | None]:
        """Return the items that begin at these rows, None for one that is skipped. answers: what `read` returned

        skip: instead of `on_error`. Raises SampleError for what cannot be given, unless it is skipped.
        """
        step, each = self.step, self._each(rows)
        fixed = {name: self.subset.values(name, each) for name in self._columns}
        crops = self._crops(each)
        sums = self.subset.values("sha256", each) if self._verify else [None] * len(each)
        items: list[Item | None] = []
        for i in range(0, len(each), step):
            try:
                images = [self._image(answers[j], sums[j], crops[j]) for j in range(i, i + step)]
            except SampleError as error:
                self._fail(each[i], error, self._skip if skip is None else skip)
                items.append(None)
                continue
            item: Item = {"row": each[i], "image": images[0] if self._tiles is None else self._tiled(images)}
            if self._transform is not None:
                item["image"] = self._transform(item["image"])
            columns = fixed | {"crop": crops} if self.subset.has_crops else fixed
            item |= {name: found[i] if step == 1 else found[i : i + step] for name, found in columns.items()}
            self.tally.count_read()
            items.append(item)
        return items

    def _each(self, rows: Sequence[int]) -> Sequence[int]:
        return rows if self.step == 1 else [row + slot for row in rows for slot in range(self.step)]

    def _crops(self, rows: Sequence[int]) -> Sequence[tuple[int, ...] | None]:
        if not self.subset.has_crops:
            return [None] * len(rows)
        return list(zip(*(self.subset.values(name, rows) for name in _BOX), strict=True))

    def _image(self, data: Bytes, sha256: str | None, crop: tuple[int, ...] | None) -> Any:
        if isinstance(data, SampleError):
            raise data
        if sha256 is not None and content_hash(data) != sha256:
            raise SampleError("its bytes are not those that were chosen (another SHA-256)", "changed")
        if callable(self._decode):
            return self._decoded(self._decode, data)
        if self._decode == "raw":
            return data
        try:
            pixels = decode(data, self._max_pixels).pixels
        except DecodeError as error:
            raise SampleError(str(error), error.reason) from None
        if crop is not None:
            pixels = _cut(pixels, crop)
        return Image.fromarray(pixels) if self._decode == "pil" else pixels

    def _decoded(self, decode: Callable[[bytes], Any], data: bytes) -> Any:
        """Return what a user's function makes of bytes. Raises SampleError for what decoders raise over bad ones."""
        try:
            return decode(data)
        except (SampleError, RemoteError):
            raise
        except DecodeError as error:
            raise SampleError(str(error), error.reason) from error
        except (OSError, ValueError, SyntaxError) as error:
            raise SampleError(f"decode failed with {type(error).__name__}: {error}", "undecodable") from error

    def _tiled(self, images: list[Any]) -> Any:
        """Return the crops of a tile as one image: left to right, then top to bottom."""
        assert self._tiles is not None
        half = self._tiles // 2
        cells = [image if isinstance(image, Image.Image) else Image.fromarray(image) for image in images]
        whole = Image.new("RGB", (self._tiles, self._tiles))
        for slot, cell in enumerate(cells):
            at = (slot % 2 * half, slot // 2 * half)
            whole.paste(cell.resize((half, half), Image.Resampling.BICUBIC), at)
        return whole if self._decode == "pil" else np.asarray(whole)

    def _fail(self, row: int, error: SampleError, skip: bool) -> None:
        source, path, uid = (self.subset.values(name, [row])[0] for name in ("source", "path", "uid"))
        message = f"row {row} (uid {uid}, {path} of source {source}): {error}"
        if not skip:
            raise SampleError(f"{message}; on_error='skip' leaves such samples out, counted", error.reason)
        self.tally.count_skipped(error.reason)
        skipped = self.tally.skipped_here
        if skipped <= 5:
            _LOG.warning("skipped %s", message)
        if skipped >= _HOPELESS and not self.tally.read_here:
            raise SampleError(f"none of {skipped} samples could be read; the last: {message}", error.reason)


def _cut(pixels: Pixels, crop: tuple[int, ...]) -> Pixels:
    """Return a part of an image. Raises SampleError where it is not inside."""
    if None in crop:
        raise SampleError("its crop has no box", "changed")
    left, top, width, height = crop
    tall, wide = pixels.shape[:2]
    if min(left, top) < 0 or min(width, height) < 1 or left + width > wide or top + height > tall:
        raise SampleError(f"its crop {crop} is not inside the image of {wide} x {tall}", "changed")
    return np.ascontiguousarray(pixels[top : top + height, left : left + width])
