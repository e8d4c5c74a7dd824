"""A plain function over many parts: order, named errors, workers that die, rows brought to their owners."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from curate.distributed.bulk import each, shuffled
from curate.distributed.cluster import connected
from curate.errors import ClusterError, UsageError

pytestmark = pytest.mark.usefixtures("cluster")


def _doubled(part: dict[str, Any]) -> dict[str, Any]:
    return {"twice": 2 * part["x"]}


def _named(part: dict[str, Any]) -> dict[str, Any]:
    raise UsageError(f"part {part['x'][0]} makes no sense")


def _broken(part: dict[str, Any]) -> dict[str, Any]:
    raise ZeroDivisionError(f"in part {part['x'][0]}")


def _parts(n: int) -> list[dict[str, Any]]:
    return [{"x": np.full(i + 1, i, dtype=np.int64)} for i in range(n)]


def test_results_come_in_the_order_of_parts() -> None:
    with connected("ray") as ray:
        found = list(each(ray, partial(partial, _doubled), _parts(6)))
    assert [part["twice"].tolist() for part in found] == [[2 * i] * (i + 1) for i in range(6)]


def test_a_named_error_of_a_worker_is_raised_as_it_is_and_any_other_is_a_cluster_error() -> None:
    with connected("ray") as ray:
        with pytest.raises(UsageError, match=r"^part 0 makes no sense$"):
            list(each(ray, partial(partial, _named), _parts(1)))
        with pytest.raises(ClusterError, match="in part 0"):
            list(each(ray, partial(partial, _broken), _parts(1)))


def _read(part: dict[str, Any]) -> dict[str, Any]:
    row = np.arange(50, dtype=np.int64) + 50 * part["x"][0]
    return {"owner": row % 7, "row": row, "vector": np.stack([row, row], axis=1).astype(np.float16)}


def _own(marks: Path, group: dict[str, Any]) -> dict[str, Any]:
    mark = marks / str(int(group["owner"][0]))
    if group["owner"][0] == 3 and not mark.exists():
        mark.touch()
        os._exit(1)
    return {"row": np.sort(group["row"]), "same": (group["vector"][:, 0] == group["row"]).all(keepdims=True)}


def test_rows_reach_their_owners_once_each_though_a_worker_dies(tmp_path: Path) -> None:
    with connected("ray") as ray:
        found = list(shuffled(ray, partial(partial, _read), _parts(4), partial(partial, _own, tmp_path)))
    assert Counter(owner for owner, _ in found) == Counter(range(7))
    assert all(part["row"].tolist() == list(range(owner, 200, 7)) and part["same"] for owner, part in found)


_ALONE = """
import ray
ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False, object_store_memory=10**8)
from curate.distributed.pipeline import stream
def read():
    return lambda part: iter([{"x": part}])
def make():
    return lambda values: {"twice": 2 * values["x"]}
print([int(part["twice"]) for part in stream(ray, 3, read, make)])
"""


def test_one_processor_does_for_both_steps() -> None:
    env = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(
        [sys.executable, "-c", _ALONE], env=env, timeout=120, check=True, stdout=subprocess.PIPE, text=True
    )
    assert done.stdout.split("\n")[-2] == "[0, 2, 4]"
