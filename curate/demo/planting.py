"""Faults of known kind and place, planted among good images; the truth stays out of the folders that are curated."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from curate.images import Pixels, decode

GOOD, EXACT, NEAR, LABEL, BROKEN, POOR = (
    "good",
    "exact duplicate",
    "near duplicate",
    "wrong label",
    "broken",
    "blank or tiny",
)


@dataclass(frozen=True, slots=True)
class Planting:
    """How many of each kind to plant. Duplicates and wrong labels are of different images."""

    exact: int
    near: int
    labels: int
    broken: int
    poor: int


@dataclass(frozen=True, slots=True)
class Planted:
    """One file of a collection: its path below it, what it is, and the number of the image that it shows (or -1).

    Of a duplicate pair, both files have the same number; one is GOOD, the other EXACT or NEAR.
    """

    path: str
    kind: str
    group: int


@dataclass(frozen=True, slots=True)
class _File:
    folder: str
    suffix: str
    data: bytes
    kind: str
    group: int


def plant(
    folder: Path, images: Sequence[Pixels], labels: Sequence[str] | None, amounts: Planting, rng: np.random.Generator
) -> list[Planted]:
    """Write images as JPEG into a folder, or into one sub-folder a class, with faults among them; return the truth.

    File names are drawn at random, so that neither name nor order tells which is which.
    """
    classes = [""] * len(images) if labels is None else list(labels)
    order = [int(i) for i in rng.permutation(len(images))]
    exact, near = order[: amounts.exact], order[amounts.exact : amounts.exact + amounts.near]
    wrong = set(order[amounts.exact + amounts.near :][: amounts.labels])
    files = []
    for i, image in enumerate(images):
        shelf = _other(classes[i], classes, rng) if i in wrong else classes[i]
        files.append(_File(shelf, ".jpg", _jpeg(image, 90), LABEL if i in wrong else GOOD, i))
    stored = [file.data for file in files]
    files += [_copied(stored[i], classes[i], i, as_png=n % 2 == 1) for n, i in enumerate(exact)]
    files += [_File(classes[i], ".jpg", _reposted(stored[i]), NEAR, i) for i in near]
    files += [_broken(stored[n], n, str(rng.choice(classes))) for n in range(amounts.broken)]
    files += [_poor(images[n], n, str(rng.choice(classes)), rng) for n in range(amounts.poor)]
    return list(_write(folder, files, rng))


def _write(folder: Path, files: Sequence[_File], rng: np.random.Generator) -> Iterator[Planted]:
    for number, file in zip(rng.permutation(len(files)), files, strict=True):
        path = Path(file.folder, f"{int(number):05d}{file.suffix}")
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(file.data)
        yield Planted(path.as_posix(), file.kind, file.group)


def _other(label: str, labels: Sequence[str], rng: np.random.Generator) -> str:
    return str(rng.choice(sorted(set(labels) - {label})))


def _jpeg(image: Pixels, quality: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def _copied(data: bytes, folder: str, group: int, as_png: bool) -> _File:
    """Return the same pixels under another name: byte for byte, or as a lossless PNG."""
    if not as_png:
        return _File(folder, ".jpg", data, EXACT, group)
    stream = io.BytesIO()
    Image.fromarray(decode(data).pixels).save(stream, "PNG")
    return _File(folder, ".png", stream.getvalue(), EXACT, group)


def _reposted(data: bytes) -> bytes:
    """Return an image as a re-poster leaves it: scaled to .9, saved as JPEG of quality 70."""
    image = Image.fromarray(decode(data).pixels)
    size = (round(image.width * 0.9), round(image.height * 0.9))
    return _jpeg(np.asarray(image.resize(size, Image.Resampling.BICUBIC)), 70)


def _broken(data: bytes, number: int, folder: str) -> _File:
    """Return no bytes, text, a truncated JPEG or a PNG that claims 30,000 x 30,000 pixels, in turn."""
    kinds = (
        (".jpg", b""),
        (".jpg", b"<html>404 Not Found</html>\n"),
        (".jpg", data[: len(data) // 2]),
        (".png", _bomb()),
    )
    suffix, broken = kinds[number % len(kinds)]
    return _File(folder, suffix, broken, BROKEN, -1)


def _bomb() -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


def _poor(image: Pixels, number: int, folder: str, rng: np.random.Generator) -> _File:
    """Return an all but blank image or a tiny one, in turn."""
    if number % 2:
        side = int(rng.integers(8, 25))
        return _File(folder, ".jpg", _jpeg(np.asarray(Image.fromarray(image).resize((side, side))), 90), POOR, -1)
    level = int(rng.integers(40, 216))
    blank = rng.integers(level - 2, level + 3, size=image.shape, dtype=np.uint8)
    return _File(folder, ".jpg", _jpeg(blank, 90), POOR, -1)
