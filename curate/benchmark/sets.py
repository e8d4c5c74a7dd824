"""The collections of a benchmark: planted clusters, the demo's pictures, and any source by its path."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from curate.benchmark.definition import Set
from curate.benchmark.pixels import PixelEncoder
from curate.errors import DecodeError, UsageError
from curate.files import atomic_write, canonical_json, digest
from curate.images import Pixels, decode
from curate.samples import Source
from curate_kernels.arrays import F32, I64

Table = dict[str, list[Any]]
_BATCH = 32
_TEXTS = 256
_SKIP = 64  # rows that are read and passed over rather than a source opened anew


@dataclass(frozen=True, slots=True)
class Base:
    """A collection before anything is held out or corrupted: m images.

    x: (m, d) float32 unit rows; text: (m, t) or None; label: (m,) codes of `classes`, -1 none; group: (m,) codes
    columns: other values by name; read: yields the pixels of images, in the order asked; None of embeddings only
    digest: of content and encoders; dropped: images that did not decode
    """

    x: F32
    text: F32 | None
    label: I64
    classes: tuple[str, ...]
    group: I64
    digest: str
    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    captions: tuple[str, ...] | None = None
    read: Callable[[I64], Iterator[Pixels]] | None = None
    dropped: int = 0


def load_base(one: Set, seed: int, cache: Path) -> Base:
    """Return a collection; what encoders gave is kept in `cache`, by content. seed: of a synthetic one."""
    if one.kind == "synthetic":
        return synthetic(one, seed)
    if one.kind == "source":
        return _from_source(one, cache)
    from curate.demo import material

    made = material.digits() if one.kind == "digits" else material.named_photographs()
    pixels = made[0][: one.most or None]
    label = made[1][: one.most or None]

    def read(rows: I64) -> Iterator[Pixels]:
        return (pixels[i] for i in rows.tolist())

    told = {"kind": one.kind, "rows": len(pixels)}
    table = {"label": label, "group": [str(i) for i in range(len(pixels))]}
    return _embedded(one, told, cache, lambda: (table, iter(pixels)), read)


def synthetic(one: Set, seed: int) -> Base:
    """Return clusters on a sphere, their sizes by Zipf's law; captions are a rotation of the images with noise."""
    rng = np.random.default_rng([seed, 0])
    share = 1.0 / np.arange(1, one.classes + 1) ** one.zipf
    label = np.sort(rng.choice(one.classes, one.rows, p=share / share.sum()))
    label[: one.classes] = np.arange(one.classes)  # no class is empty
    label = rng.permutation(label).astype(np.int64)
    centre = _unit(rng.normal(size=(one.classes, one.dims)))
    x = _unit(centre[label] + one.spread * rng.normal(size=(one.rows, one.dims)))
    text = None
    if one.captions:
        turn = np.linalg.qr(rng.normal(size=(one.dims, one.dims)))[0]
        text = _unit(x @ turn + 0.1 * rng.normal(size=x.shape)).astype(np.float32)
    told = digest({"set": [getattr(one, key) for key in ("rows", "classes", "dims", "zipf", "spread")], "seed": seed})
    names = tuple(f"c{i}" for i in range(one.classes))
    columns = {"time": (label / one.classes + rng.random(one.rows)).tolist()}  # clusters come and go
    return Base(x.astype(np.float32), text, label, names, np.arange(one.rows, dtype=np.int64), told, columns)


def _unit(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    out: np.ndarray[Any, Any] = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    return out


def _from_source(one: Set, cache: Path) -> Base:
    from curate.sources import Columns, open_sources

    columns = Columns(label=one.label or None, caption=one.caption or None, group=one.group or None)
    sources = open_sources([expanded(one.path)], columns)
    told: dict[str, Any] = {"sources": [[source.id, source.fingerprint] for source in sources], "most": one.most}
    told |= {"columns": [one.label, one.caption, one.group]}

    def stream() -> tuple[Table, Iterator[Pixels]]:
        table: Table = {name: [] for name in ("label", "caption", "group", "place", "meta", "dropped")}
        return table, _decoded(sources, one.most, table)

    def read(rows: I64) -> Iterator[Pixels]:
        return _read_again(sources, [base.columns["_place"][i] for i in rows.tolist()])

    base = _embedded(one, told, cache, stream, read)
    return base


def _decoded(sources: Sequence[Source], most: int, table: Table) -> Iterator[Pixels]:
    """Yield the images of sources, and write into the table what is known of each; those that do not decode apart."""
    for number, source in enumerate(sources):
        for ordinal, sample in enumerate(source.rows()):
            if most and len(table["place"]) >= most:
                return
            reason = sample.problem
            if not reason:
                try:
                    pixels = decode(sample.data).pixels
                except DecodeError as error:
                    reason = error.reason
            if reason:
                table["dropped"].append(reason)
                continue
            table["label"].append(sample.label)
            table["caption"].append(sample.caption)
            table["group"].append(sample.group or f"{number}/{sample.key}")
            table["place"].append([number, ordinal])
            table["meta"].append({k: v for k, v in sample.meta.items() if isinstance(v, (str, int, float))})
            yield pixels


def _read_again(sources: Sequence[Source], places: Sequence[Sequence[int]]) -> Iterator[Pixels]:
    """Yield the images at (source, ordinal), in the order given; neighbours are read in one go."""
    at, samples = (-1, 0), iter(sources[0].rows())
    for number, ordinal in places:
        if number != at[0] or not 0 <= ordinal - at[1] < _SKIP:
            at, samples = (number, ordinal), iter(sources[number].rows(ordinal))
        sample = next(itertools.islice(samples, ordinal - at[1], None))
        at = (number, ordinal + 1)
        yield decode(sample.data).pixels


def expanded(path: str) -> str:
    """Return a definition's path with `$NAME` and `~` filled in. Raises UsageError where the variable is not set."""
    found = os.path.expanduser(os.path.expandvars(path))
    if "$" in found and not os.path.exists(found):
        raise UsageError(f"the path {path} names a variable that is not set; export it before `curate bench`")
    return found


def _embedded(
    one: Set,
    told: dict[str, Any],
    cache: Path,
    stream: Callable[[], tuple[Table, Iterator[Pixels]]],
    read: Callable[[I64], Iterator[Pixels]],
) -> Base:
    """Return a collection of images, encoded unless it was before."""
    from curate.encoders import default_text_encoder

    encoder = image_encoder(one.encoder)
    text_name = one.text_encoder or ("builtin" if one.encoder == "pixels" else default_text_encoder(one.encoder))
    told |= {"encoder": encoder.fingerprint, "text": text_name}
    folder = cache / digest(told)[:32]
    if not (folder / "table.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        table, pixels = stream()
        save(folder / "image.npy", encode(encoder, pixels))
        if any(table.get("caption", [])):
            save(folder / "text.npy", _encode_texts(text_name, table["caption"]))
        atomic_write(folder / "table.json", canonical_json(table))  # last: what it stands beside is whole
    return _base(folder, digest(told), read)


def _base(folder: Path, told: str, read: Callable[[I64], Iterator[Pixels]]) -> Base:
    import json

    table = json.loads((folder / "table.json").read_bytes())
    x: F32 = np.load(folder / "image.npy", allow_pickle=False).astype(np.float32)
    if x.shape[0] < 20:
        raise UsageError(f"the collection has {x.shape[0]} images that decode; a benchmark needs 20 at least")
    text = None
    if (folder / "text.npy").is_file():
        text = np.load(folder / "text.npy", allow_pickle=False).astype(np.float32)
    classes = tuple(sorted({value for value in table["label"] if value is not None}))
    number = {name: i for i, name in enumerate(classes)}
    groups = {name: i for i, name in enumerate(dict.fromkeys(table["group"]))}
    meta = table.get("meta", [])
    columns = {name: [row.get(name) for row in meta] for name in sorted({key for row in meta for key in row})}
    if "place" in table:
        columns["_place"] = table["place"]
    return Base(
        x=x,
        text=text,
        label=np.array([number.get(value, -1) for value in table["label"]], dtype=np.int64),
        classes=classes,
        group=np.array([groups[value] for value in table["group"]], dtype=np.int64),
        digest=told,
        columns=columns,
        captions=tuple(value or "" for value in table["caption"]) if text is not None else None,
        read=read,
        dropped=len(table.get("dropped", [])),
    )


def image_encoder(name: str) -> Any:
    """Return the encoder of a name: `pixels`, or one of curate's."""
    from curate.encoders import load_image_encoder

    return PixelEncoder() if name == "pixels" else load_image_encoder(name)


def encode(encoder: Any, pixels: Iterable[Pixels]) -> F32:
    """Return the unit rows of images, rounded to float16 as a pool rounds them."""
    parts = []
    prepared = (encoder.prepare(one) for one in pixels)
    while batch := list(itertools.islice(prepared, _BATCH)):
        parts.append(encoder.encode(batch).astype(np.float16))
    return np.concatenate(parts) if parts else np.zeros((0, encoder.dim), np.float16)


def _encode_texts(name: str, captions: Sequence[str | None]) -> F32:
    from curate.encoders import load_text_encoder

    encoder = load_text_encoder(name)
    texts = [caption or "" for caption in captions]
    rows = [encoder.encode(texts[i : i + _TEXTS]) for i in range(0, len(texts), _TEXTS)]
    out = np.concatenate(rows)
    out[[not text for text in texts]] = 0.0
    return out.astype(np.float16)


def save(path: Path, array: np.ndarray[Any, Any]) -> None:
    """Write an array whole or not at all."""
    import io

    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    atomic_write(path, stream.getvalue())
