"""Growing on a cluster: its machines read, decode, encode and hold the kept rows; the driver decides and commits."""

from __future__ import annotations

import copy
import functools
import logging
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from curate.distributed.carried import once
from curate.distributed.cluster import connected
from curate.distributed.index import LostError, Owners
from curate.distributed.pipeline import stream
from curate.encoders import Compute, Settings
from curate.encoders.precomputed import is_precomputed
from curate.engine import far
from curate.engine.arrivals import Arrival, Entry, Row
from curate.engine.binding import one_device, settings, text_encoder_name
from curate.engine.examine import Examined, terms
from curate.engine.far import Column, Facts, Job, Task
from curate.engine.prepare import Prepared
from curate.engine.state import State
from curate.neighbors import KeptIndex
from curate_kernels.arrays import F16, F32, U8

if TYPE_CHECKING:
    from curate.engine.core import Engine
    from curate.engine.embedding import View
    from curate.pool import Pool

_TRIES = 3  # times that a commit is begun again after a loss
_FEWEST, _MOST = 128, 1024  # rows that one task reads: four tasks for each processor, if so many rows are known of


class FarImage:
    """An image encoder on the cluster. Rows of the images that are read come with them: here are the others encoded.

    What reaches it is the first batch of a new pool, for its near-duplicate distance, and evaluation sets.
    """

    def __init__(self, ray: Any, task: Task, known: Facts) -> None:
        self._ray, self.task = ray, task
        self.name, self.fingerprint, self.dim = known.name, known.fingerprint, known.dim
        self.nonnegative, self.compute = known.nonnegative, known.compute
        self.epsilon: float | None = known.epsilon
        self.own_crop = known.crop
        self._preparer = far.Preparer(task, known.crop)
        if known.crop is not None:
            self.crop = known.crop
        if known.patch_shape is not None:
            self.patch_shape = known.patch_shape
            self.patches = self._not_here

    def prepare(self, pixels: U8) -> U8:
        """Return what the encoder is given of an image."""
        return self._preparer.prepare(pixels)

    def encode(self, prepared: Sequence[U8]) -> F32:
        """Return (n, dim) float32 unit rows."""
        if not prepared:
            return np.zeros((0, self.dim), dtype=np.float32)
        rows: F32 = once(self._ray, far.encoded, self._as_computed(), list(prepared))
        return rows

    def _as_computed(self) -> Task:
        return _as_computed(self.task, self.compute)

    def _not_here(self, prepared: Sequence[U8]) -> F32:
        raise AssertionError("patch tokens come with the rows that are read")


class FarText:
    """A caption encoder on the cluster. Rows that came with a batch are looked up, others made: of mended captions."""

    def __init__(self, ray: Any, task: Task, known: Facts, rows: Mapping[str, F32]) -> None:
        """rows: of the captions of the batch under way, changed from outside."""
        self._ray, self._task, self._rows = ray, task, rows
        self.name, self.fingerprint, self.dim = known.name, known.fingerprint, known.dim
        self.epsilon, self.compute = known.epsilon, known.compute

    def encode(self, texts: Sequence[str]) -> F32:
        """Return (n, dim) float32 unit rows."""
        out = np.zeros((len(texts), self.dim), dtype=np.float32)
        missing = [i for i, text in enumerate(texts) if text not in self._rows]
        for i, text in enumerate(texts):
            if text in self._rows:
                out[i] = self._rows[text]
        if missing:
            task = _as_computed(self._task, self.compute)
            out[missing] = once(self._ray, far.encoded_texts, task, [texts[i] for i in missing])
        return out


class Carried:
    """In place of an `Embedder`: every row brings its vectors."""

    def __init__(self, views: Mapping[str, View]) -> None:
        self.views = dict(views)
        self.encoders: dict[str, Any] = {name: view.encoder for name, view in views.items()}

    @property
    def preparer(self) -> Any:
        """Return what prepares an image for all encoders at once."""
        encoders = list(dict.fromkeys(self.encoders.values()))
        return far.preparer([e.task for e in encoders], [e.own_crop for e in encoders])

    def embed(self, batch: Sequence[Prepared], pool: Pool | None) -> dict[str, F16]:
        """Return {"image": (b, width) float16} of a batch; zero rows where there is no image."""
        return self._columns(batch, ["image"])

    def beside(self, batch: Sequence[Prepared]) -> dict[str, F16]:
        """Return the columns beside `image` of a batch."""
        return self._columns(batch, [name for name in self.views if name != "image"])

    def _columns(self, batch: Sequence[Prepared], names: Sequence[str]) -> dict[str, F16]:
        out = {name: np.zeros((len(batch), self.views[name].width), dtype=np.float16) for name in names}
        for i, p in enumerate(batch):
            for name in out.keys() & p.arrival.found.image.keys():
                out[name][i] = p.arrival.found.image[name]
        return out

    def committed(self, table: Any) -> None:
        """Take note of nothing: nothing is looked up."""


class Machines:
    """A cluster at the service of one run."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self._owners = Owners(ray)
        self.index = self._owners.index
        self._captions: dict[str, F32] = {}
        self._text: Facts | None = None
        self._text_encoder: FarText | None = None

    def close(self) -> None:
        """End what the run started."""
        self._owners.close()

    def load_image(self, name: str, asked: Settings) -> FarImage:
        """Return an image encoder; its facts are those that it has where rows are encoded."""
        task = Task(name, one_device(asked))
        return FarImage(self._ray, task, once(self._ray, far.facts, task, gpu=True))

    def load_text(self, name: str, asked: Settings) -> FarText:
        """Return a caption encoder: the one whose rows have come, or one that is loaded somewhere."""
        task = Task(name, one_device(asked))
        known = self._text or once(self._ray, far.text_facts, task)
        self._text_encoder = FarText(self._ray, task, known, self._captions)
        return self._text_encoder

    def read(self, engine: Engine, entries: Sequence[Entry]) -> Iterator[Iterator[Row]]:
        """Read, decode and encode the rows of sources on the cluster: the rows of each entry, one after the other."""
        known = sum(max((entry.source.count or 0) - entry.start, 0) for entry in entries)
        each = int(known / (4 * self._ray.cluster_resources().get("CPU", 1)))
        job = _job(engine, entries, min(max(each, _FEWEST), _MOST))
        portions = stream(
            self._ray,
            len(job.parts),
            functools.partial(_make, far.reader, job),
            functools.partial(_make, far.encoder, job),
        )
        assert isinstance(engine.embedder, Carried)
        rows = self._rows(portions, engine.embedder)
        ahead = next(rows, None)

        def of(number: int) -> Iterator[Row]:
            nonlocal ahead
            while ahead is not None and ahead[0] == number:
                yield ahead[1]
                ahead = next(rows, None)

        for number in range(len(entries)):
            yield of(number)

    def _rows(self, portions: Iterator[dict[str, Any]], carried: Carried) -> Iterator[tuple[int, Row]]:
        for portion in portions:
            told, rows = far.unpack(portion)
            for name, compute in told["compute"].items():
                carried.encoders[name].compute = compute
            if "text" in told:
                self._text = Facts(**told["text"])
                if self._text_encoder is not None:
                    self._text_encoder.compute = self._text.compute
            for row in rows:
                yield told["source"], Row(*row)

    def prepared(self, batches: Iterator[list[Arrival]]) -> Generator[list[Prepared], None, None]:
        """Yield batches of rows that were prepared and encoded elsewhere."""
        for batch in batches:
            self._captions.clear()
            for arrival in batch:
                if arrival.found.text is not None:
                    self._captions[str(arrival.sample.caption)] = arrival.found.text
            yield [_prepared(arrival) for arrival in batch]


@contextmanager
def machines(on: str | None) -> Iterator[Machines | None]:
    """Yield the cluster that `on` names for the length of a run, None for this process alone."""
    if on is None:
        yield None
        return
    with connected(on) as ray:
        made = Machines(ray)
        try:
            yield made
        finally:
            made.close()


def repeated(engine: Engine, action: Callable[[], Any]) -> Any:
    """Do what ends in a commit; where a part of the kept set is lost on the way, open the pool anew and repeat it."""
    if engine.make_index is KeptIndex:
        return action()
    before = engine.state.as_dict()  # a copy
    for _ in range(_TRIES):
        try:
            return action()
        except LostError as error:
            logging.getLogger("curate").warning("%s; it is made again from the pool", error)
        pool = engine.writer.pool() or engine.pool
        now = pool.state()
        engine.open(pool, State.from_dict(now if now["step"] > before["step"] else copy.deepcopy(before)))
    return action()


def _prepared(arrival: Arrival) -> Prepared:
    found = arrival.found
    assert found.examined is not None  # else it was decided, and is not here
    examined = Examined.from_dict(found.examined, found.image.get("image"))
    return Prepared(**{name: getattr(examined, name) for name in Examined.__slots__}, arrival=arrival)


def _job(engine: Engine, entries: Sequence[Entry], size: int) -> Job:
    recipe, carried = engine.recipe, engine.embedder
    assert isinstance(carried, Carried)
    encoders = list(dict.fromkeys(carried.encoders.values()))
    columns = [
        Column(name, encoders.index(carried.encoders[name]), view.width, view.patches)
        for name, view in carried.views.items()
    ]
    text = text_encoder_name(recipe)
    asked = one_device(settings(recipe.encode, engine.state.text))
    decided = [
        None if entry.entered or not entry.decided.pairs else far.uid_keys(sorted(entry.decided.pairs), entry.source.id)
        for entry in entries
    ]
    return Job(
        parts=list(_parts(entries, size)),
        sources=[entry.source for entry in entries],
        decided=decided,
        terms=terms(recipe, encoders[0].own_crop),
        seconds=recipe.limits.decode_seconds,
        apart=recipe.encode.workers != 0,
        encoders=[encoder.task for encoder in encoders],
        crops=[encoder.own_crop for encoder in encoders],
        columns=columns,
        text=None if is_precomputed(text) else Task(text, asked),
        cache=recipe.encode.cache,
    )


def _parts(entries: Sequence[Entry], size: int) -> Iterator[tuple[int, int, int | None]]:
    """Yield number of source, first row and last of each part; a source that cannot count its rows is one part."""
    for number, (source, start, _, _) in enumerate(entries):
        if source.count is None:
            yield number, start, None
            continue
        for first in range(start, source.count, size):
            yield number, first, min(first + size, source.count)


def _as_computed(task: Task, compute: str) -> Task:
    """Return an encoder to be run as the rows were that have come, whatever the machine would take else."""
    return task._replace(settings=Settings("auto", "auto", like=Compute.parse(compute)))


def _make(make: Any, job: Job) -> Any:
    return make(job)
