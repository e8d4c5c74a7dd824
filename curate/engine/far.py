"""What a worker of a cluster does for a run that grows: read and examine a part of a source, encode what it holds."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import islice
from typing import Any, NamedTuple, cast

import numpy as np

from curate.crops import Crop
from curate.encoders import ImageEncoder, Settings, load_image_encoder, load_text_encoder
from curate.engine.decoders import AVAILABLE, Decoders
from curate.engine.embedding import Embedder, View, folder
from curate.engine.examine import Examined, Terms, examine
from curate.engine.parts import Parts
from curate.samples import Sample, Source, content_hash, sample_uid
from curate_kernels.arrays import U8

_PORTION = 128  # rows that are carried and encoded together
_KEYS = np.dtype([("first", "<u8"), ("rest", "<u8")])


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of an encoder without having it. patch_shape: None where it gives no patch tokens."""

    name: str
    fingerprint: str
    dim: int
    epsilon: float | None
    compute: str
    nonnegative: bool = False
    crop: Any = None
    patch_shape: tuple[int, int] | None = None


class Task(NamedTuple):
    """An encoder, and how it is run."""

    name: str
    settings: Settings


class Column(NamedTuple):
    """A column of vectors: the encoder's number, and the rest of a `View`."""

    name: str
    encoder: int
    width: int
    patches: bool


@dataclass(frozen=True)
class Job:
    """What every worker of a run is told.

    parts: number of a source, first row, and the row behind the last or None; decided: uids of rows of each source that
    are decided, sorted, as `uid_keys` gives them, or None; seconds: an image may take; apart: a process decodes
    encoders: of images; text: of captions, None where none is to be encoded; cache: see `[encode] cache`
    """

    parts: Sequence[tuple[int, int, int | None]]
    sources: Sequence[Source]
    decided: Sequence[Any]
    terms: Terms
    seconds: float
    apart: bool
    encoders: Sequence[Task]
    crops: Sequence[Any]
    columns: Sequence[Column]
    text: Task | None
    cache: str


def facts(task: Task) -> Facts:
    """Return the facts of an image encoder as it is loaded here."""
    made = _image(task)
    shape = tuple(made.patch_shape) if hasattr(made, "patches") else None
    return Facts(
        made.name, made.fingerprint, made.dim, made.epsilon, made.compute, made.nonnegative,
        getattr(made, "crop", None), cast("tuple[int, int] | None", shape),
    )  # fmt: skip


def text_facts(task: Task) -> Facts:
    """Return the facts of a caption encoder as it is loaded here."""
    made = _text(task)
    return Facts(made.name, made.fingerprint, made.dim, made.epsilon, made.compute)


def encoded(task: Task, prepared: Sequence[Any]) -> Any:
    """Return the rows of prepared images."""
    return _image(task).encode(prepared)


def encoded_texts(task: Task, texts: Sequence[str]) -> Any:
    """Return the rows of captions."""
    return _text(task).encode(texts)


@functools.cache
def _image(task: Task) -> Any:
    return load_image_encoder(task.name, task.settings)


@functools.cache
def _text(task: Task) -> Any:
    return load_text_encoder(task.name, task.settings)


class Preparer:
    """Prepares images for an encoder that is elsewhere: by its crop, else by one that is loaded here."""

    def __init__(self, task: Task, crop: Any) -> None:
        self._task, self.crop, self.name = task, crop, task.name

    def prepare(self, pixels: U8) -> U8:
        """Return what the encoder is given of an image."""
        crop = self.crop or _image(self._task).prepare
        return cast("U8", crop(pixels))


def preparer(encoders: Sequence[Task], crops: Sequence[Any]) -> Any:
    """Return what prepares an image for all encoders at once."""
    made = [Preparer(task, crop) for task, crop in zip(encoders, crops, strict=True)]
    return Parts(cast("Sequence[ImageEncoder]", made)) if len(made) > 1 else made[0]


def uid_keys(pairs: Sequence[tuple[str, str]], source: str) -> Any:
    """Return the derived uids of (key, SHA-256) of a source's rows, sorted: 16 bytes each."""
    uids = b"".join(bytes.fromhex(sample_uid(source, key, sha256)) for key, sha256 in pairs)
    return np.sort(np.frombuffer(uids, dtype=_KEYS), order=("first", "rest"))


# Reading


def reader(job: Job) -> Callable[[int], Iterator[dict[str, Any]]]:
    """Return the function that reads a part: it yields portions, what was told of the rows and the encoder's inputs."""
    prepare = preparer(job.encoders, job.crops)
    check: Callable[[bytes], Examined] = functools.partial(examine, asked=job.terms, crop=prepare.prepare)
    if job.apart and AVAILABLE and isinstance(prepare.crop, Crop):
        check = Decoders(1, job.terms, prepare.crop, job.seconds).examine

    def read(part: int) -> Iterator[dict[str, Any]]:
        number, start, stop = job.parts[part]
        source = job.sources[number]
        samples = source.rows(start) if stop is None else islice(source.rows(start), stop - start)
        while portion := list(islice(samples, _PORTION)):
            yield _portion(number, portion, job.decided[number], check)

    return read


def _portion(number: int, samples: Sequence[Sample], decided: Any, check: Callable[[bytes], Examined]) -> Any:
    told: list[dict[str, Any]] = []
    crops: list[U8] = []
    for sample in samples:
        sha256 = content_hash(sample.data)
        found = None
        if decided is None or not _holds(decided, sample_uid(sample.source, sample.key, sha256)):
            found = Examined(sample.problem) if sample.problem else check(sample.data)
        row = {"sample": _sample_values(sample), "sha256": sha256, "found": found and found.as_dict(), "crop": -1}
        if found is not None and found.crop is not None:
            row["crop"] = len(crops)
            crops.append(found.crop)
        told.append(row)
    arrays = {"crops": np.stack(crops)} if crops else {}
    return {"told": _bytes({"source": number, "rows": told}), **arrays}


def _holds(decided: Any, uid: str) -> bool:
    key = np.frombuffer(bytes.fromhex(uid), dtype=_KEYS)[0]
    at = int(np.searchsorted(decided["first"], key["first"]))
    return bool(at < decided.size and decided[at] == key)


def _sample_values(sample: Sample) -> dict[str, Any]:
    values = {field.name: getattr(sample, field.name) for field in fields(Sample)}
    return {name: value for name, value in values.items() if name not in ("data", "embedded")} | {
        "meta": dict(sample.meta)
    }


def sample_of(values: dict[str, Any]) -> Sample:
    """Return a sample as it was read elsewhere, but for its bytes."""
    return Sample(**values | {"data": b"", "alternatives": tuple(values["alternatives"])})


# Encoding


def encoder(job: Job) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Return the function that turns a portion's inputs into rows: a column each, and `captions` in float32."""
    made = [_image(task) for task in job.encoders]
    views = {c.name: View(made[c.encoder], c.width, c.encoder, c.patches) for c in job.columns}
    cache = folder(job.cache, None)[0] if job.cache else None
    embedder = Embedder(views, cache, False, job.terms.least)
    parts = Parts(made)

    def encode(portion: dict[str, Any]) -> dict[str, Any]:
        told = json.loads(bytes(portion["told"]))
        out: dict[str, Any] = {}
        rows = [row for row in told["rows"] if row["crop"] >= 0]
        if rows:
            crops = {row["sha256"]: parts.split(portion["crops"][row["crop"]]) for row in rows}
            for name, view in views.items():
                found = embedder.rows(name, {key: crop[view.part] for key, crop in crops.items()})
                out[name] = np.stack([found[row["sha256"]] for row in rows])
        told["compute"] = {name: view.encoder.compute for name, view in views.items()}
        texts = [row["sample"]["caption"] for row in told["rows"] if _is_captioned(row)]
        if texts and job.text is not None:
            out["captions"] = np.asarray(_text(job.text).encode(texts), dtype=np.float32)
            told["text"] = asdict(text_facts(job.text))
        return {"told": _bytes(told), **out}

    return encode


def _is_captioned(row: dict[str, Any]) -> bool:
    return row["found"] is not None and row["sample"]["caption"] is not None


class Found(NamedTuple):
    """What a worker found out about a row. image: vectors by column, none where it gave none; text: of its caption."""

    examined: dict[str, Any] | None
    image: dict[str, Any]
    text: Any


def unpack(portion: dict[str, Any]) -> tuple[dict[str, Any], list[tuple[Sample, str, Found]]]:
    """Return what was told of a portion, and its rows."""
    told = json.loads(bytes(portion.pop("told")))
    captions = iter(portion.pop("captions", ()))
    out = []
    for row in told["rows"]:
        image = {name: rows[row["crop"]] for name, rows in portion.items()} if row["crop"] >= 0 else {}
        text = next(captions, None) if _is_captioned(row) else None
        out.append((sample_of(row["sample"]), row["sha256"], Found(row["found"], image, text)))
    return told, out


def _bytes(value: Any) -> Any:
    return np.frombuffer(json.dumps(value).encode(), dtype=np.uint8)
