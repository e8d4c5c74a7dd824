"""Which Ray cluster a run uses, and that there is one."""

from __future__ import annotations

import contextlib
import os
import socket
import warnings
from collections.abc import Iterator
from typing import Any

from curate.errors import UsageError

_SECONDS = 10.0


@contextlib.contextmanager
def connected(on: str) -> Iterator[Any]:
    """Yield the module `ray`, connected; a cluster that this call started ends with it, one that was there stays.

    on: `ray`, the cluster that $RAY_ADDRESS names or that runs on this machine, else one of this machine for this run;
        `ray://HOST[:PORT]`, the cluster whose head is there (PORT as `ray start` told it, 6379 if left out); this
        machine must be one of it (`ray start --address=HOST:PORT`): Ray Data does not run through Ray's client.
        curate must be installed on each machine.

    Raises UsageError where Ray is not installed, `on` names something else, or the cluster does not answer.
    """
    ray = _ray(on)
    if ray.is_initialized():
        yield ray
        return
    address = _head(on) if on.startswith("ray://") else os.environ.get("RAY_ADDRESS")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # what concerns a run comes as exceptions
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "lance is not fork-safe")  # Ray's processes are programs of their own
            ray.init(
                address=address,
                log_to_driver=False,
                logging_level="error",
                include_dashboard=False if address is None else None,
            )
    except (ConnectionError, RuntimeError, ValueError) as error:
        advice = "is it running, and this machine one of its nodes (ray start --address=HOST:PORT)?"
        raise UsageError(f"the Ray cluster {address or on!r} does not answer, {advice} {error}") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _head(on: str) -> str:
    """Return HOST:PORT of a cluster's head. Raises UsageError where nothing listens: Ray would try for many minutes."""
    host, colon, port = on.removeprefix("ray://").rstrip("/").rpartition(":")
    host, port = (host, port) if colon else (port, "6379")
    try:
        socket.create_connection((host, int(port)), _SECONDS).close()
    except (OSError, ValueError, OverflowError) as error:
        raise UsageError(
            f"no Ray cluster answers at {host}:{port} ({error}); `ray start --head` tells where"
        ) from error
    return f"{host}:{port}"


def _ray(on: str) -> Any:
    if on != "ray" and not on.startswith("ray://"):
        raise UsageError(f"--on is {on!r}; it must be 'ray', or 'ray://HOST:PORT' of a cluster elsewhere")
    try:
        import ray
    except ImportError as error:
        raise UsageError("--on ray needs Ray; install it with: pip install 'curate-engine[ray]'") from error
    return ray
