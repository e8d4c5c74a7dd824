"""A decode process whose decoder dies, hangs or fails on marked bytes: what a library's bug would do, on request."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import curate.engine.examine as product
from curate.engine import worker

_decode = product.decode


def decode(data: bytes, *given: Any) -> Any:
    """Decode, but do what the bytes say first: `!KILL`, `!HANG`, `!ERROR`; `!ONCE<path>`: die if no such file."""
    if data.startswith(b"!KILL"):
        os.kill(os.getpid(), signal.SIGKILL)
    if data.startswith(b"!HANG"):
        while True:
            time.sleep(0.01)
    if data.startswith(b"!ERROR"):
        raise NotImplementedError("a bug")
    if data.startswith(b"!ONCE"):
        name, _, data = data[5:].partition(b"\n")
        if not os.path.exists(name):
            Path(os.fsdecode(name)).touch()
            os.kill(os.getpid(), signal.SIGSEGV)
    return _decode(data, *given)


def main() -> None:
    product.decode = decode
    worker.main()
