"""What fails below a pool loses nothing: calls that kill the process or find the disk full, and a disk that is full."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
# Of each operation's 12 to 256 calls below the pool's folder, so many are failed, evenly spread. All of them take
# 20 minutes: `python faultrun.py BASE grow_all:before:999`.
PLAN = [
    *("grow_all:before:1", "grow_all:after:2", "grow_all:torn:2", "grow_all:full:2", "grow_more:after:2"),
    *("grow_more:full:1", "forget:before:2", "forget:after:2", "forget:full:2", "score:after:1"),
    *("rollback:before:1", "tag:full:1"),
]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, object]]:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None or sys.platform != "linux":
        pytest.skip("faults below Python need Linux and a C compiler; tests/engine/test_resume.py has those above")
    base = tmp_path_factory.mktemp("faults")
    shim = base / "faults.so"
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", shim, HERE / "faults.c", "-ldl"], check=True)
    paths = [str(HERE.parents[1] / part) for part in (".", "kernels", "selectors", "tests")]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", HERE / "faultrun.py", base, *PLAN],
        env=os.environ | {"LD_PRELOAD": str(shim), "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {f"{line['operation']}:{line['mode']}": line for line in lines}


@pytest.mark.slow
@pytest.mark.parametrize("plan", PLAN)
def test_a_failed_call_loses_nothing_and_does_nothing_twice(plan: str, told: dict[str, dict[str, object]]) -> None:
    name, _, many = plan.rpartition(":")
    assert told[name]["wrong"] == {}
    assert told[name]["tried"] == int(many)
