"""File names made of keys: strangers' text, so nothing but letters, digits, `_` and `-`, short, and no two alike."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import polars as pl

from curate.exports.subset import Subset

_EXTENSION = r"(?i)\.(jpe?g|jpe|jfif|png|webp|gif|bmp|tiff?|p[bgp]m|avif|dcm|jp2|heic|jxl)$"
_RESERVED = r"(?i)^(con|prn|aux|nul|com\d|lpt\d)$"  # devices on Windows, whatever the extension
_OTHER = r"[^\p{L}\p{M}\p{N}_-]+"  # \w would let invisible joiners through
_BYTES, _CHARACTERS = 180, 45  # 45 characters take at most 180 bytes; file systems stop at 255 with what is added

_FORMATS = (
    (b"\xff\xd8\xff", 0, "jpg"),
    (b"\x89PNG", 0, "png"),
    (b"WEBP", 8, "webp"),
    (b"GIF8", 0, "gif"),
    (b"BM", 0, "bmp"),
    (b"II*\0", 0, "tif"),
    (b"MM\0*", 0, "tif"),
    (b"ftypavif", 4, "avif"),
    (b"DICM", 128, "dcm"),
    (b"P4", 0, "pbm"),
    (b"P5", 0, "pgm"),
    (b"P6", 0, "ppm"),
)


def extension(data: bytes) -> str:
    """Return the usual extension of an encoded image by its first bytes, `bin` where they tell nothing."""
    return next((name for mark, at, name in _FORMATS if data[at : at + len(mark)] == mark), "bin")


def clean(name: pl.Expr, is_file: bool = True) -> pl.Expr:
    """Return names of letters, digits, `_` and `-`, at most 180 bytes long; of a file's, the extension goes."""
    name = (_stem(name) if is_file else name).str.normalize("NFC").str.replace_all(_OTHER, "_")
    name = pl.when(name.str.len_bytes() > _BYTES).then(name.str.slice(0, _CHARACTERS)).otherwise(name)
    return name.str.replace(_RESERVED, "_${0}").str.replace(r"^(-|$)", "_${1}")


def _stem(name: pl.Expr) -> pl.Expr:
    return name.fill_null("").str.replace(_EXTENSION, "")


class Names:
    """One name for each row of a manifest, made of its key; `renamed` says how many are not the key itself.

    Names that would be alike, in a file system that ignores case too, end in `~` and the row's ordinal. No other name
    holds that sign, so no two are alike. Holds 35 bytes a row while it is made, one afterwards.
    """

    def __init__(self, subset: Subset) -> None:
        hashes = np.zeros(subset.rows, dtype=np.uint64)
        changed = np.zeros(subset.rows, dtype=bool)
        at = 0
        for frame in subset.frames(["key"]):
            pair = frame.select(clean(pl.col("key")).alias("name"), _stem(pl.col("key")).alias("was"))
            part = slice(at, at := at + frame.height)
            hashes[part] = pair["name"].str.to_lowercase().hash(0).to_numpy()
            changed[part] = (pair["name"] != pair["was"]).to_numpy()
        order = np.argsort(hashes)
        self._alike = np.zeros(subset.rows, dtype=bool)
        same = hashes[order[1:]] == hashes[order[:-1]]
        self._alike[order[1:][same]] = self._alike[order[:-1][same]] = True
        self.renamed = int((changed | self._alike).sum())

    def of(self, keys: Iterable[str | None], start: int) -> list[str]:
        """Return the names of consecutive rows from ordinal `start` on, given their keys."""
        frame = pl.DataFrame({"key": list(keys)}, schema={"key": pl.String}).select(clean(pl.col("key")))
        return [f"{name}~{i}" if self._alike[i] else name for i, name in enumerate(frame["key"], start)]


def folders(labels: Iterable[str]) -> dict[str, str]:
    """Return {label: folder name} of distinct labels; those that would be alike end in `~` and their number."""
    frame = pl.DataFrame({"label": sorted(labels)}, schema={"label": pl.String})
    names = frame.select(clean(pl.col("label"), is_file=False))["label"]
    alike = names.str.to_lowercase().is_duplicated()
    rows = zip(frame["label"], names, alike, strict=True)
    return {label: f"{name}~{i}" if same else name for i, (label, name, same) in enumerate(rows)}
