"""Two steps over parts of a collection, in order: tasks that read, and actors that hold a model; both by Ray Data.

Ray Data places and repeats them, adds actors while parts wait and machines have room, and holds reading back while what
was read is not fetched. Values are named arrays, carried as safetensors; functions are carried by Ray.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from curate.distributed.carried import Arrays, check, has_gpus, loaded, named, packed, quiet, unpacked

if TYPE_CHECKING:
    import pyarrow as pa

Read = Callable[[int], Iterator[Arrays]]
Work = Callable[[dict[str, Any]], Arrays]

_BLOCK = 16 << 20  # bytes that go from step to step together


def stream(
    ray: Any, count: int, read: Callable[[], Read], make: Callable[[], Work]
) -> Generator[dict[str, Any], None, None]:
    """Yield what the second step gives of all that the first gives of parts 0 … count - 1, in order; close it to end.

    read: makes the function that reads a part; make: makes the second, once in each actor, on a GPU if there are any

    A worker that dies is replaced, and its part is done again: functions must give the same however often they are
    called. Raises what they raised, where it is one of curate's errors, else ClusterError.
    """
    if not count:
        return
    from ray import data as ray_data

    check(ray)
    reading, making = ray.put(read), ray.put(make)  # held here until the end, for workers that are started later
    dataset = quiet(ray_data.range(count, override_num_blocks=count))
    dataset.context.execution_options.preserve_order = True
    dataset.context.target_max_block_size = _BLOCK
    dataset = dataset.map_batches(_read, fn_args=(reading,), batch_size=1, batch_format="numpy", num_cpus=1)
    several = ray.cluster_resources().get("CPU", 0) >= 2
    held = {"num_cpus": int(several)}  # a single CPU is left to the tasks
    if has_gpus(ray):
        held["num_gpus"] = 1
    pool = ray_data.ActorPoolStrategy(min_size=1, max_size=count if several else 1)
    dataset = dataset.map_batches(
        _Actor, fn_constructor_args=(making,), batch_size=1, batch_format="pyarrow", compute=pool, **held
    )
    try:
        for block in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1):
            for data in block.column("data"):
                yield unpacked(data)
    except ray.exceptions.RayError as error:
        raise named(error) from error


def _read(batch: dict[str, Any], reading: Any) -> Iterator[dict[str, Any]]:
    read = _made(reading)
    for part in batch["id"].tolist():
        for arrays in read(part):
            yield {"data": np.array([packed(arrays)], dtype=object)}


class _Actor:
    """The second step, made once."""

    def __init__(self, making: Any) -> None:
        self._work: Work = _made(making)

    def __call__(self, block: pa.Table) -> pa.Table:
        import pyarrow as pa

        out = [packed(self._work(unpacked(data))) for data in block.column("data")]
        return pa.table({"data": pa.array(out, pa.large_binary())})


_made_here: dict[str, Any] = {}  # the function that this process made last, by its reference


def _made(made: Any) -> Any:
    """Return the function that a reference leads to; a process makes it once, however many parts it does."""
    if made.hex() not in _made_here:
        _made_here.clear()
        _made_here[made.hex()] = loaded(made)
    return _made_here[made.hex()]
