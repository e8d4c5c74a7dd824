"""Exports that were killed, or found the disk full, end with the bytes of one that was not disturbed."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from exports.material import contents

HERE = Path(__file__).parent
FOLDERS = ["webdataset", "wds-index", "hf", "mds", "litdata", "lance", "open-clip-csv", "fiftyone", "copy"]
LISTS = ["datacomp", "jsonl", "csv", "txt"]
LIMITS = {"wds-index": 100, "open-clip-csv": 3000, "copy": 1500, "fiftyone": 1500, "datacomp": 300, "txt": 100}
LIMITS |= {"jsonl": 2000, "csv": 2000}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="kills and limits as Linux has them"),
]


def run(source: Path, base: Path, plans: list[str]) -> list[dict[str, object]]:
    paths = [str(HERE.parents[1] / part) for part in (".", "kernels", "selectors", "tests")]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", HERE / "killed.py", source, base, *plans],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "POLARS_MAX_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def result(folder: Path, form: str) -> object:
    """Return all that an export left, but for Lance, whose names are drawn: its rows."""
    if form != "lance":
        return {name.replace(str(folder), ""): data for name, data in contents(folder).items()}
    import lance

    files = [path.name for path in (folder / "out" / "data").iterdir()]
    table = lance.dataset(str(folder / "out"))
    named = [file.path for fragment in table.get_fragments() for file in fragment.metadata.files]
    assert sorted(files) == sorted(named)
    return table.to_table().to_pylist()


def without_place(found: object, base: Path) -> object:
    """Return files whose text names the folder that they are in, without that name."""
    if isinstance(found, dict):
        return {name: data.replace(str(base).encode(), b"") for name, data in found.items()}
    return found


@pytest.fixture(scope="module")
def whole(tars: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, int], dict[str, object], Path]:
    """How many things each export does to the disk, and what it leaves."""
    base = tmp_path_factory.mktemp("whole")
    plans = [f"{form}:count:0" for form in FOLDERS + LISTS]
    told = run(tars / "m", base, plans)
    assert [one["told"] for one in told] == ["done"] * len(plans)
    events = {form: int(str(one["events"])) for form, one in zip(FOLDERS + LISTS, told, strict=True)}
    left = {}
    for form in FOLDERS + LISTS:
        folder = base / f"{form}-count-0"
        left[form] = without_place(result(folder, form), folder)
    return events, left, tars / "m"


def test_a_killed_export_ends_with_the_same_bytes(
    whole: tuple[dict[str, int], dict[str, object], Path], tmp_path: Path
) -> None:
    events, left, source = whole
    draw = random.Random(7)
    plans = []
    for form in FOLDERS:
        assert events[form] > 20
        kills = 1 if form in ("litdata", "fiftyone") else 2  # which share most of their code with another
        plans += [f"{form}:kill:{n}" for n in sorted(draw.sample(range(2, events[form]), kills))]
    plans += [f"{form}:kill:{events[form] // 2}" for form in LISTS]
    told = run(source, tmp_path, plans)
    assert [one["told"] for one in told] == ["killed", "done"] * len(plans)
    for plan in plans:
        folder = tmp_path / plan.replace(":", "-")
        form = plan.partition(":")[0]
        assert without_place(result(folder, form), folder) == left[form], plan


def test_a_full_disk_is_named_and_the_same_command_goes_on(
    whole: tuple[dict[str, int], dict[str, object], Path], tmp_path: Path
) -> None:
    _, left, source = whole
    plans = [f"{form}:full:{LIMITS.get(form, 4000)}" for form in FOLDERS + LISTS]
    told = run(source, tmp_path, plans)
    for plan, first, again in zip(plans, told[::2], told[1::2], strict=True):
        form = plan.partition(":")[0]
        assert str(first["told"]).startswith("ExportError: "), (plan, first)
        assert "raise `ulimit -f`" in str(first["told"]), (plan, first)
        assert again["told"] == "done", (plan, again)
        folder = tmp_path / plan.replace(":", "-")
        assert without_place(result(folder, form), folder) == left[form], plan
