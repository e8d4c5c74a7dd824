"""A worker of the tests' own cluster that dies while it works."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_TASKS = (b"ray::_map_task", b"ray::MapWorker", b"ray::MapBatches", b"ray::reduce")


@contextlib.contextmanager
def a_worker_killed(cluster: Any) -> Iterator[None]:
    """Kill the first process that is found at work; fail where none was."""
    folder = cluster.head_node.get_temp_dir_path().encode()
    done, killed = threading.Event(), []

    def watch() -> None:
        while not done.wait(0.002) and not killed:
            killed.extend(_kill_one(folder))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
    assert killed, "no worker was found at work"


def _kill_one(folder: bytes) -> list[int]:
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            with contextlib.suppress(OSError):
                words = (process / "cmdline").read_bytes()
                if words.startswith(_TASKS) and folder in (Path("/proc") / _parent(process) / "cmdline").read_bytes():
                    os.kill(int(process.name), signal.SIGKILL)
                    return [int(process.name)]
    return []


def _parent(process: Path) -> str:
    return (process / "stat").read_text().rpartition(")")[2].split()[1]
