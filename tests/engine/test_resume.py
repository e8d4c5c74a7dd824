"""A run that dies anywhere is resumed to the same pool: crashes at every commit step, and kill -9 at random moments."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from pictures import captioned_tar, jpeg, picture, write_folder

import curate
import curate.pool.writer
from curate.errors import PoolError
from curate.pool import Writer

OPTIONS = {"limits": {"batch_size": 16}, "clean": {"warmup": 64, "checkpoint_growth": 1.3}}
ROWS = 120
DECIDED = ["uid", "row", "batch", "decision", "reason", "duplicate_of", "history", "counted"]
DECIDED += ["pvi", "pvi_arrival", "gain"]


class Crash(BaseException):
    """Stands for a process that stops at once: nothing catches it."""


def mixed_table(folder: Path) -> None:
    """Write a table of what makes trouble together: captions or none, labels, own uids, repeats, broken files."""
    rows, files = [], {}
    for i in range(90):
        seed = 1000 + (i if i % 9 else 7)  # every ninth row shows the same picture
        files[f"{i:03d}.jpg"] = b"no picture" if i % 40 == 3 else jpeg(picture(seed)[0])
        caption = picture(seed)[1] if i % 3 else None
        label = picture(seed)[2] if i % 2 else None
        rows.append({"path": f"{i:03d}.jpg", "caption": caption, "label": label, "uid": f"{i:032x}" if i % 5 else None})
    rows += [{"path": "004.jpg", "caption": "again", "label": None, "uid": None}] * 3
    rows.append({"path": "missing.jpg", "caption": "a picture that is not there", "label": None, "uid": "f" * 32})
    write_folder(folder, files)
    pl.DataFrame(rows).write_parquet(folder / "table.parquet")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    base = tmp_path_factory.mktemp("resume")
    folder = base / "s"
    mixed_table(base / "mixed")
    captioned_tar(folder / "0.tar", range(0, ROWS, 2), frozenset(range(0, 40, 10)))
    captioned_tar(folder / "1.tar", range(1, ROWS, 2), frozenset(range(1, 41, 10)))
    return [base / "mixed" / "table.parquet", folder]


@pytest.fixture(scope="module")
def straight(source: list[Path]) -> tuple[pl.DataFrame, dict[str, bytes]]:
    """Return the rows and the manifest's files of a run that was never interrupted."""
    pool = source[1].parent / "straight"
    curate.grow(source, pool, options=OPTIONS)
    return rows_of(pool), manifest_of(pool)


def rows_of(pool: Path) -> pl.DataFrame:
    return curate.Pool.open(pool).frame(DECIDED)


def manifest_of(pool: Path) -> dict[str, bytes]:
    out = pool.parent / f"{pool.name}-subset"
    curate.select_from_pool(pool, out, method="infogrowth", budget="30%")
    return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


def crash_at(monkeypatch: pytest.MonkeyPatch, target: object, name: str, call: int, after: bool) -> None:
    """Make the call-th call of target.name crash, before it does anything or after it has done it all."""
    original: Callable[..., object] = getattr(target, name)
    count = 0

    def wrapped(*args: object, **kwargs: object) -> object:
        nonlocal count
        count += 1
        if count == call and not after:
            raise Crash
        result = original(*args, **kwargs)
        if count == call:
            raise Crash
        return result

    monkeypatch.setattr(target, name, wrapped)


STEPS = [
    ("append", Writer, [1, 4, 8, 12]),
    ("update", Writer, [1, 2]),
    ("create", Writer, [1]),
    ("_save", Writer, [1, 2, 7]),
    ("atomic_write", curate.pool.writer, [3, 6]),
]


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("name", "target", "call"), [(n, t, c) for n, t, calls in STEPS for c in calls])
def test_a_crash_at_any_commit_step_changes_nothing(
    source: list[Path],
    straight: tuple[pl.DataFrame, dict[str, bytes]],
    tmp_path: Path,
    name: str,
    target: object,
    call: int,
    after: bool,
) -> None:
    pool = tmp_path / "pool"
    options = OPTIONS | {"encode": {"cache": str(source[1].parent / "cache")}}  # images are encoded once
    with pytest.MonkeyPatch.context() as patch:
        crash_at(patch, target, name, call, after)
        with pytest.raises(Crash):
            curate.grow(source, pool, options=options)
    curate.grow(source, pool, options=options)
    assert rows_of(pool).equals(straight[0])
    assert manifest_of(pool) == straight[1]


@pytest.mark.slow
def test_kill_9_at_random_moments_changes_nothing(
    source: list[Path], straight: tuple[pl.DataFrame, dict[str, bytes]], tmp_path: Path
) -> None:
    pool, kills = tmp_path / "pool", 0
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("[limits]\nbatch_size = 16\n[clean]\nwarmup = 64\ncheckpoint_growth = 1.3\n")
    command = [sys.executable, "-m", "curate", "grow", *map(str, source), "--pool", str(pool), "--recipe", str(recipe)]
    rng = np.random.default_rng(7)
    for _ in range(10):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        started, before = time.monotonic(), _committed(pool)
        # Aim at the part of the run that writes: wait for a commit of this run, then for a random moment.
        while process.poll() is None and _committed(pool) == before and time.monotonic() - started < 60:
            time.sleep(0.01)
        time.sleep(float(rng.uniform(0, 0.4)))
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        process.wait()
    curate.grow(source, pool, options=OPTIONS)
    assert kills >= 3
    assert rows_of(pool).equals(straight[0])
    assert manifest_of(pool) == straight[1]


def _committed(pool: Path) -> int:
    versions = pool / "samples.lance" / "_versions"
    return len(list(versions.glob("*.manifest"))) if versions.is_dir() else 0


def test_state_that_no_version_names_is_removed(source: list[Path], straight: object, tmp_path: Path) -> None:
    pool = tmp_path / "pool"
    with pytest.MonkeyPatch.context() as patch:
        crash_at(patch, Writer, "append", 2, after=False)
        with pytest.raises(Crash):
            curate.grow(source, pool, options=OPTIONS)
    orphan = pool / "state" / "00000099-00000000000000000000000000000000.json"
    orphan.write_bytes(b"{}")
    curate.grow(source, pool, options=OPTIONS)
    assert not orphan.exists()
    named = curate.Pool.open(pool).state_name()
    steps = [int(path.name.partition("-")[0]) for path in (pool / "state").iterdir()]
    assert max(steps) == int(named.partition("-")[0])


def test_a_damaged_state_is_a_named_error(source: list[Path], tmp_path: Path) -> None:
    pool = tmp_path / "pool"
    with pytest.MonkeyPatch.context() as patch:
        crash_at(patch, Writer, "append", 2, after=True)
        with pytest.raises(Crash):
            curate.grow(source, pool, options=OPTIONS)
    path = pool / "state" / f"{curate.Pool.open(pool).state_name()}.json"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(PoolError, match="damaged"):
        curate.grow(source, pool, options=OPTIONS)
    path.unlink()
    with pytest.raises(PoolError, match="cannot be read"):
        curate.grow(source, pool, options=OPTIONS)


def test_a_finished_run_again_writes_nothing(source: list[Path], straight: object) -> None:
    pool = source[1].parent / "straight"
    before = curate.Pool.open(pool)
    again = curate.grow(source, pool)
    assert (again.admitted, again.refused, again.seen) == (0, {}, again.known)
    assert again.known == again.total["rows"] == before.rows
    assert curate.Pool.open(pool).version == before.version


def test_repeated_rows_of_a_table_are_stored_and_counted(source: list[Path], straight: object) -> None:
    rows = curate.Pool.open(source[1].parent / "straight").frame(["key", "reason", "caption"])
    again = rows.filter(pl.col("key") == "004.jpg")
    assert again["reason"].to_list()[1:] == ["duplicate_key"] * 3
    assert again["caption"].to_list()[1:] == ["again"] * 3


@pytest.mark.slow
def test_a_changed_recipe_survives_a_crash(source: list[Path], tmp_path: Path) -> None:
    changed = {**OPTIONS, "clean": {**OPTIONS["clean"], "caption_loss": 0.2, "label_loss": 0.2}}
    for pool in (tmp_path / "straight", tmp_path / "crashed"):
        curate.grow(source[0], pool, options=OPTIONS)
    curate.grow(source, tmp_path / "straight", options=changed, change_recipe=True)
    with pytest.MonkeyPatch.context() as patch:
        crash_at(patch, Writer, "append", 2, after=True)
        with pytest.raises(Crash):
            curate.grow(source, tmp_path / "crashed", options=changed, change_recipe=True)
    curate.grow(source, tmp_path / "crashed", options=changed, change_recipe=True)
    assert rows_of(tmp_path / "crashed").equals(rows_of(tmp_path / "straight"))


@pytest.mark.parametrize("name", ["thesis.txt", "state/thesis.txt"])
def test_a_folder_of_other_things_is_left_alone(tmp_path: Path, name: str) -> None:
    source = write_folder(tmp_path / "s", {"0.jpg": jpeg(picture(0)[0])})
    pool = write_folder(tmp_path / "pool", {name: b"years of work"})
    if "/" in name:
        curate.grow(source, pool)
    else:
        with pytest.raises(PoolError, match="holds other things"):
            curate.grow(source, pool)
    assert (pool / name).read_bytes() == b"years of work"
