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
from pictures import captioned_tar

import curate
import curate.pool.writer
from curate.pool import Writer

OPTIONS = {"limits": {"batch_size": 16}, "clean": {"warmup": 64, "checkpoint_growth": 1.3}}
ROWS = 144
DECIDED = ["uid", "row", "batch", "decision", "reason", "duplicate_of", "history", "counted"]
DECIDED += ["pvi", "pvi_arrival", "gain"]


class Crash(BaseException):
    """Stands for a process that stops at once: nothing catches it."""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("resume") / "s"
    captioned_tar(folder / "0.tar", range(0, ROWS, 2), frozenset(range(0, 40, 10)))
    captioned_tar(folder / "1.tar", range(1, ROWS, 2), frozenset(range(1, 41, 10)))
    return folder


@pytest.fixture(scope="module")
def straight(source: Path) -> tuple[pl.DataFrame, dict[str, bytes]]:
    """Return the rows and the manifest's files of a run that was never interrupted."""
    pool = source.parent / "straight"
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
    ("append", Writer, [1, 4, 9]),
    ("update", Writer, [1, 2]),
    ("create", Writer, [1]),
    ("_save", Writer, [1, 2, 7]),
    ("atomic_write", curate.pool.writer, [3, 6]),
]


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("name", "target", "call"), [(n, t, c) for n, t, calls in STEPS for c in calls])
def test_a_crash_at_any_commit_step_changes_nothing(
    source: Path,
    straight: tuple[pl.DataFrame, dict[str, bytes]],
    tmp_path: Path,
    name: str,
    target: object,
    call: int,
    after: bool,
) -> None:
    pool = tmp_path / "pool"
    with pytest.MonkeyPatch.context() as patch:
        crash_at(patch, target, name, call, after)
        with pytest.raises(Crash):
            curate.grow(source, pool, options=OPTIONS)
    curate.grow(source, pool, options=OPTIONS)
    assert rows_of(pool).equals(straight[0])
    assert manifest_of(pool) == straight[1]


@pytest.mark.slow
def test_kill_9_at_random_moments_changes_nothing(
    source: Path, straight: tuple[pl.DataFrame, dict[str, bytes]], tmp_path: Path
) -> None:
    pool, kills = tmp_path / "pool", 0
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("[limits]\nbatch_size = 16\n[clean]\nwarmup = 64\ncheckpoint_growth = 1.3\n")
    command = [sys.executable, "-m", "curate", "grow", str(source), "--pool", str(pool), "--recipe", str(recipe)]
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


def test_state_that_no_version_names_is_removed(source: Path, straight: object, tmp_path: Path) -> None:
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


def test_a_damaged_state_is_a_named_error(source: Path, tmp_path: Path) -> None:
    pool = tmp_path / "pool"
    with pytest.MonkeyPatch.context() as patch:
        crash_at(patch, Writer, "append", 2, after=True)
        with pytest.raises(Crash):
            curate.grow(source, pool, options=OPTIONS)
    path = pool / "state" / f"{curate.Pool.open(pool).state_name()}.json"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(curate.errors.PoolError, match="damaged"):
        curate.grow(source, pool, options=OPTIONS)
    path.unlink()
    with pytest.raises(curate.errors.PoolError, match="cannot be read"):
        curate.grow(source, pool, options=OPTIONS)
