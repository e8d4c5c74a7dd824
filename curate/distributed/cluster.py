"""Which Ray cluster a run uses, and that there is one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from curate.errors import UsageError


@contextlib.contextmanager
def connected(on: str) -> Iterator[Any]:
    """Yield the module `ray`, connected; a cluster that this call started ends with it, one that was there stays.

    on: `ray`, the cluster that $RAY_ADDRESS names or that runs on this machine, else one of this machine for this run;
        `ray://HOST[:PORT]`, a cluster elsewhere. curate must be installed on each of its machines.

    Raises UsageError where Ray is not installed, `on` names something else, or the cluster does not answer.
    """
    ray = _ray(on)
    if ray.is_initialized():
        yield ray
        return
    address = on if on.startswith("ray://") else os.environ.get("RAY_ADDRESS")
    try:
        ray.init(address=address, log_to_driver=False, include_dashboard=False if address is None else None)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UsageError(f"the Ray cluster {address or on!r} does not answer: {error}") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _ray(on: str) -> Any:
    if on != "ray" and not on.startswith("ray://"):
        raise UsageError(f"--on is {on!r}; it must be 'ray', or 'ray://HOST:PORT' of a cluster elsewhere")
    try:
        import ray
    except ImportError as error:
        raise UsageError("--on ray needs Ray; install it with: pip install 'curate-engine[ray]'") from error
    return ray
