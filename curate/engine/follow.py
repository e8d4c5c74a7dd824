"""`curate grow --follow`: a folder where shards appear, taken in as they become complete, until told to stop."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from curate.distributed.cluster import connected
from curate.engine.grow import Grown, grow
from curate.engine.guard import open_sets
from curate.errors import PoolLockedError, SourceError, UsageError
from curate.remote import Place, Remote, place
from curate.sources.records import TABLES

Status = Callable[[dict[str, Any]], None]
Mark = tuple[int | str, ...]
_ARRAYS = (".npz", ".npy")
_SUFFIXES = (".tar", ".arrow", *TABLES, *_ARRAYS)
_LOG = logging.getLogger("curate")


class Shards:
    """The complete shards of a folder or prefix: files whose size and time did not change between two looks.

    With tars in the folder, tables beside them are read with their tar, and are no shards of their own.
    """

    def __init__(self, folder: Place) -> None:
        self._folder, self._told = folder, False
        self._last: dict[Place, Mark] = {}

    def complete(self) -> dict[Place, Mark]:
        """Return {shard: size and stamp, of a tar's table too} of what is the same since the last call, by name.

        Raises SourceError when the folder is gone.
        """
        try:
            there: list[Place] = list(self._folder.iterdir())
        except OSError as error:
            raise SourceError(f"cannot follow {self._folder}: {error.strerror}; give a folder that exists") from error
        items = [path for path in there if path.suffix.lower() in _SUFFIXES]
        if there and not items and not self._told:
            self._told = True
            _LOG.warning(
                "%s holds no shard (%s) yet, and nothing else is followed; `curate grow` without --follow takes images",
                self._folder, ", ".join(sorted(_SUFFIXES)),
            )  # fmt: skip
        files = {path: path for path in sorted(items, key=lambda path: path.name)}
        tars = [path for path in files if path.suffix.lower() == ".tar"]
        arrays = {path.with_suffix("") for path in files if path.suffix.lower() in _ARRAYS}
        own = [path for path in files if path.suffix.lower() in _ARRAYS or path.with_suffix("") not in arrays]
        now = {path: mark for path in tars or own if (mark := _mark(path, files))}
        same = {path: mark for path, mark in now.items() if self._last.get(path) == mark}
        self._last = now
        return same


def follow(
    folder: str | Place,
    pool: str | Place,
    *,
    every: float = 10.0,
    stop: threading.Event | None = None,
    status: Status | None = None,
    metrics_port: int | None = None,
    **options: Any,
) -> Grown | None:
    """Grow a pool from a folder of tars or tables as they appear; return what the last round did, None if none ran.

    A shard is taken once it is complete: unchanged for `every` seconds. Between two rounds the pool is free for others.
    A shard that cannot be read is logged and left out until it changes. Rounds do not end the warm-up of the caption
    gate; a `grow` afterwards does.
    stop: set it to end after the round in progress. status: called after each round and each look.
    metrics_port: serve Prometheus text there, on 127.0.0.1 only. options: as for `grow`.

    Raises:
        SourceError: the folder is gone. Whatever `grow` raises.
    """
    stop = stop or threading.Event()
    shards, last = Shards(place(folder)), None
    done: dict[Place, Mark] = {}
    figures: dict[str, Any] = {
        "rounds": 0, "shards": 0, "failed_shards": 0, "rows": 0, "admitted": 0, "refused": 0, "seconds": 0.0,
    }  # fmt: skip
    on = options.get("on")
    cluster = connected(on) if on else contextlib.nullcontext()  # one for all rounds
    with _metrics(metrics_port) as publish, cluster:
        while not stop.is_set():
            complete = shards.complete()
            new = [path for path, mark in complete.items() if done.get(path) != mark]
            try:
                for path, grown in _round(new, pool, options):
                    done[path] = complete[path]
                    figures["failed_shards"] += grown is None
                    last = grown or last
                if new:
                    options.pop("guard", None)  # registered with the pool
                    figures = _added(figures, last, len(done))
            except PoolLockedError as error:
                _LOG.warning("%s; trying again in %g seconds", error, every)
                new = []
            publish(figures)
            if status is not None:
                status(figures)
            if not new:
                stop.wait(every)
    return last


def _round(new: Sequence[Place], pool: str | Place, options: dict[str, Any]) -> Iterator[tuple[Place, Grown | None]]:
    """Yield each new shard with what growing by it did, None where it cannot be read; all at once if all can be."""
    if not new:
        return
    try:
        grown = grow(list(new), pool, finish=False, **options)
    except SourceError:
        if options.get("guard"):
            open_sets(options["guard"])  # raises if the evaluation set is what cannot be read
    else:
        yield from ((path, grown) for path in new)
        return
    for path in new:
        try:
            yield path, grow(path, pool, finish=False, **options)
        except SourceError as error:
            _LOG.warning("shard left out until it changes: %s", error)
            yield path, None


def _mark(path: Place, files: Mapping[Place, Place]) -> Mark:
    """Return size and stamp of a shard and of the table beside it; nothing while it is empty or just renamed."""
    suffixes = {".tar": (".parquet",), **dict.fromkeys(_ARRAYS, TABLES)}.get(path.suffix.lower(), ())
    parts = [path, *(files[item] for suffix in suffixes if (item := path.with_suffix(suffix)) in files)]
    try:
        mark = tuple(part for item in parts for part in _status(item))
    except FileNotFoundError:
        return ()
    return mark if mark[0] else ()


def _status(path: Place) -> tuple[int | str, ...]:
    if isinstance(path, Remote):
        return path.status()
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


def _added(figures: dict[str, Any], done: Grown | None, shards: int) -> dict[str, Any]:
    figures = figures | {"rounds": figures["rounds"] + 1, "shards": shards, "last_round_timestamp_seconds": time.time()}
    if done is None:
        return figures
    total = done.total
    return figures | {
        "rows": total["rows"],
        "admitted": total["admitted"],
        "refused": sum(total["refused"].values()),
        "seconds": round(figures["seconds"] + done.seconds, 3),
    }


@contextlib.contextmanager
def _metrics(port: int | None) -> Iterator[Status]:
    """Yield what publishes figures as gauges `curate_<name>`, served on loopback while the block runs."""
    if port is None:
        yield lambda figures: None
        return
    from prometheus_client import CollectorRegistry, Gauge, start_http_server

    registry = CollectorRegistry()
    gauges: dict[str, Gauge] = {}
    try:
        server, thread = start_http_server(port, addr="127.0.0.1", registry=registry)
    except OSError as error:
        raise UsageError(f"metrics cannot be served on port {port}: {error.strerror}; give another") from error

    def publish(figures: dict[str, Any]) -> None:
        for name, value in figures.items():
            if name not in gauges:
                gauges[name] = Gauge(
                    f"curate_{name}", f"{name.replace('_', ' ')} of the pool that is grown", registry=registry
                )
            gauges[name].set(value)

    try:
        yield publish
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
