"""One plain function over many parts of a collection: Ray Data places, repeats, holds back and grows the workers.

Parts and results are named values: arrays, carried as safetensors, and what JSON can say. The function itself is
carried by Ray. A worker that dies is replaced and its part is done again, so a function must give the same however
often it is called.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from curate.distributed.carried import check, has_gpus, loaded, named, packed, quiet, unpacked

if TYPE_CHECKING:
    import pyarrow as pa

Values = Mapping[str, Any]
Work = Callable[[dict[str, Any]], Values]


def each(
    ray: Any, make: Callable[[], Work], parts: Sequence[Values], *, kept: bool = False
) -> Iterator[dict[str, Any]]:
    """Yield what a function gives of each part, in the order of parts, as soon as all before are there.

    make: makes the function where it runs
    kept: it is dear to make, as it loads a model: once in a worker that stays (an actor, with a GPU where the cluster
        has one; Ray adds actors while parts wait), and not for every part

    Raises what the function raised, where it is one of curate's errors, else ClusterError.
    """
    if not parts:
        return
    from ray.data import ActorPoolStrategy, from_items

    check(ray)
    made = ray.put(make)  # held here until the end, as a worker that is started again needs it
    rows = [_packed(part) for part in parts]
    dataset = quiet(from_items(rows, override_num_blocks=len(rows)))
    dataset.context.execution_options.preserve_order = True
    if kept:
        pool = ActorPoolStrategy(min_size=1, max_size=len(rows))
        gpus: dict[str, Any] = {"num_gpus": 1, "batch_size": 1} if has_gpus(ray) else {}  # None is refused with GPUs
        dataset = dataset.map_batches(_Worker, fn_constructor_args=(made,), compute=pool, num_cpus=1, **(_BLOCK | gpus))
    else:
        dataset = dataset.map_batches(_once, fn_args=(made,), num_cpus=1, **_BLOCK)
    for block in _run(dataset):
        yield from _unpacked(block)


def shuffled(
    ray: Any, read: Callable[[], Work], parts: Sequence[Values], make: Callable[[], Work]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Bring rows to their owners; yield (owner, what a function gives of all its rows), in no order.

    read: makes the function that gives a part's rows: `owner` (m,) int64, and further arrays of m rows each
    make: makes the function of an owner's rows, which come in no order
    """
    from ray.data import from_items
    from ray.data.context import ShuffleStrategy

    check(ray)
    reading, made = ray.put(read), ray.put(make)
    rows = [_packed(part) for part in parts]
    dataset = quiet(from_items(rows, override_num_blocks=len(rows)))
    # Of tasks alone: what a dead worker held is computed again, where aggregating actors would have lost it.
    dataset.context.shuffle_strategy = ShuffleStrategy.SORT_SHUFFLE_PULL_BASED
    dataset = dataset.map_batches(_rows, fn_args=(reading,), num_cpus=1, **_BLOCK)
    dataset = dataset.groupby("owner").map_groups(_owned, fn_args=(made,), batch_format="numpy", num_cpus=1)
    for block in _run(dataset):
        yield from zip(block.column("owner").to_pylist(), _unpacked(block), strict=True)


def _packed(values: Values) -> dict[str, Any]:
    arrays = {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
    told = {name: value for name, value in values.items() if name not in arrays}
    return {"told": json.dumps(told), "data": packed(arrays)}


def _unpacked(block: pa.Table) -> Iterator[dict[str, Any]]:
    for told, data in zip(block.column("told").to_pylist(), block.column("data"), strict=True):
        yield json.loads(told) | unpacked(data)


_BLOCK: dict[str, Any] = {"batch_size": None, "batch_format": "pyarrow"}


class _Worker:
    """An actor's function, made once."""

    def __init__(self, made: Any) -> None:
        self._work = loaded(made)

    def __call__(self, block: pa.Table) -> pa.Table:
        return _applied(self._work, block)


def _once(block: pa.Table, made: Any) -> pa.Table:
    return _applied(loaded(made), block)


def _applied(work: Work, block: pa.Table) -> pa.Table:
    return _table([_packed(work(part)) for part in _unpacked(block)])


def _rows(block: pa.Table, made: Any) -> dict[str, Any]:
    (part,) = _unpacked(block)
    return dict(loaded(made)(part))


def _owned(group: dict[str, Any], made: Any) -> pa.Table:
    import pyarrow as pa

    owner = pa.array(group["owner"][:1])
    return _table([_packed(loaded(made)(group))]).append_column("owner", owner)


def _table(packed: Sequence[dict[str, Any]]) -> pa.Table:
    import pyarrow as pa

    data = pa.array([values["data"] for values in packed], pa.large_binary())
    return pa.table({"told": [values["told"] for values in packed], "data": data})


def _run(dataset: Any) -> Iterator[pa.Table]:
    import ray

    try:
        yield from dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1)
    except ray.exceptions.RayError as error:
        raise named(error) from error
