"""A Ray cluster of two nodes on loopback, which all tests of a process share."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

_ROOT = Path(__file__).parents[2]
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # of the driver, which would warn of arguments in the object store
    "PYTHONPATH": os.pathsep.join(str(_ROOT / part) for part in (".", "kernels", "selectors", "tests")),
}
_RAYS_OWN = (
    r"ignore:`\w+` is deprecated:DeprecationWarning:ray\.data\.context",
    r"ignore::ResourceWarning:ray\.",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let pass what Ray warns of in its own code."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            for words in _RAYS_OWN:
                item.add_marker(pytest.mark.filterwarnings(words))


@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    """Give the cluster, with `ray` connected to it; processes and files are gone afterwards."""
    before = {name: os.environ.get(name) for name in _ENVIRONMENT}
    os.environ.update(_ENVIRONMENT)
    import ray
    from ray.cluster_utils import Cluster

    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # short: sockets lie in it
    node = {"num_cpus": 2, "object_store_memory": 100_000_000, "include_dashboard": False, "temp_dir": folder}
    made = Cluster(initialize_head=True, head_node_args=node)
    made.add_node(**node)
    ray.init(address=made.address, log_to_driver=False)
    yield made
    ray.shutdown()
    made.shutdown()
    shutil.rmtree(folder, ignore_errors=True)
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})
