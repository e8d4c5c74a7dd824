"""`curate grow --follow`: a folder where shards appear, taken in as they become complete, until told to stop."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from curate.engine.grow import Grown, grow
from curate.errors import SourceError

Status = Callable[[dict[str, Any]], None]
_SUFFIXES = (".tar", ".parquet", ".csv", ".tsv", ".jsonl")


class Shards:
    """The complete shards of a folder: files whose size and time did not change between two looks.

    With tars in the folder, tables beside them are read with their tar, and are no shards of their own.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._last: dict[Path, tuple[int, int]] = {}

    def complete(self) -> dict[Path, tuple[int, int]]:
        """Return {shard: (size, mtime in ns)} of what has been the same since the last call, by name.

        Raises SourceError when the folder is gone.
        """
        try:
            files = sorted(path for path in self._folder.iterdir() if path.suffix.lower() in _SUFFIXES)
        except OSError as error:
            raise SourceError(f"cannot follow {self._folder}: {error.strerror}; give a folder that exists") from error
        tars = [path for path in files if path.suffix.lower() == ".tar"]
        now = {}
        for path in tars or files:
            try:
                stat = path.stat()
            except FileNotFoundError:
                continue  # renamed between the two calls
            now[path] = (stat.st_size, stat.st_mtime_ns)
        same = {path: mark for path, mark in now.items() if self._last.get(path) == mark}
        self._last = now
        return same


def follow(
    folder: str | Path,
    pool: str | Path,
    *,
    every: float = 10.0,
    stop: threading.Event | None = None,
    status: Status | None = None,
    metrics_port: int | None = None,
    **options: Any,
) -> Grown | None:
    """Grow a pool from a folder of tars or tables as they appear; return what the last round did, None if none ran.

    A shard is taken once it is complete: unchanged for `every` seconds. Between two rounds the pool is free for others.
    stop: set it to end after the round in progress. status: called after each round and each look.
    metrics_port: serve Prometheus text there, on 127.0.0.1 only. options: as for `grow`.

    Raises:
        SourceError: the folder is gone. Whatever `grow` raises.
    """
    stop = stop or threading.Event()
    shards, last = Shards(Path(folder)), None
    done: dict[Path, tuple[int, int]] = {}
    figures: dict[str, Any] = {"rounds": 0, "shards": 0, "rows": 0, "admitted": 0, "refused": 0, "seconds": 0.0}
    with _metrics(metrics_port) as publish:
        while not stop.is_set():
            complete = shards.complete()
            new = [path for path, mark in complete.items() if done.get(path) != mark]
            if new:
                last = grow(new, pool, **options)
                done |= {path: complete[path] for path in new}
                figures = _added(figures, last, len(done))
            publish(figures)
            if status is not None:
                status(figures)
            if not new:
                stop.wait(every)
    return last


def _added(figures: dict[str, Any], done: Grown, shards: int) -> dict[str, Any]:
    total = done.total
    return {
        "rounds": figures["rounds"] + 1,
        "shards": shards,
        "rows": total["rows"],
        "admitted": total["admitted"],
        "refused": sum(total["refused"].values()),
        "seconds": round(figures["seconds"] + done.seconds, 3),
    }


@contextmanager
def _metrics(port: int | None) -> Iterator[Status]:
    """Yield what publishes figures as gauges `curate_<name>`, served on loopback while the block runs."""
    if port is None:
        yield lambda figures: None
        return
    from prometheus_client import CollectorRegistry, Gauge, start_http_server

    registry = CollectorRegistry()
    gauges: dict[str, Gauge] = {}
    server, thread = start_http_server(port, addr="127.0.0.1", registry=registry)

    def publish(figures: dict[str, Any]) -> None:
        for name, value in (figures | {"last_round_timestamp_seconds": time.time()}).items():
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
