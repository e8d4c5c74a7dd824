"""Runs what writes to a pool while its system calls fail, one after the other; `test_faults.py` starts it.

The calls below a pool's folder, Lance's own among them, are counted and failed by `faults.c`, which is preloaded.
Each attempt is a forked process, so that nothing in memory survives it.

    LD_PRELOAD=faults.so python faultrun.py BASE OPERATION:MODE:HOW_MANY …

prints a JSON line for each: what was tried, and what went wrong.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import json
import os
import shutil
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lance  # noqa: F401  loaded once, before the forks
import numpy as np
import safetensors.numpy  # noqa: F401
import torch  # noqa: F401
from pictures import captioned_tar, jpeg, picture, write_folder
from toys import toy_encoders

import curate
import curate.engine.checkpoint
import curate.engine.forget
import curate.engine.grow
import curate.engine.timeline
import curate.pool.writer
import curate.scores.pools
import curate.selection
from curate.errors import CurateError, KeyNotFoundError, PoolError, UsageError
from curate.neighbors import KeptIndex
from curate_selectors.infogrowth import InfoGrowth
from curate_selectors.types import Batch

MODES = {"before": 2, "after": 3, "torn": 4, "full": 5}
COUNT, KILLED = 1, 77
OPTIONS = {"limits": {"batch_size": 24}, "clean": {"warmup": 64, "checkpoint_growth": 1.2}}
DECIDED = ["uid", "row", "batch", "decision", "reason", "duplicate_of", "history", "counted", "pvi", "gain"]


def grow_all(base: Path, pool: Path) -> None:
    curate.grow([base / "one.tar", base / "two"], pool, options=OPTIONS, guard=[base / "test"])


def grow_more(base: Path, pool: Path) -> None:
    curate.grow([base / "moved" / "one.tar", base / "two"], pool, guard=[base / "test"])


def move(base: Path, pool: Path) -> None:
    curate.grow(base / "moved" / "one.tar", pool)


def rollback(base: Path, pool: Path) -> None:
    curate.rollback(pool, "early")


def tag(base: Path, pool: Path) -> None:
    curate.tag(pool, "later")


def untag(base: Path, pool: Path) -> None:
    curate.tag(pool, "early", delete=True)


def forget(base: Path, pool: Path) -> None:
    curate.forget(pool, keys=["00004", "00005"], refill=True)


def score(base: Path, pool: Path) -> None:
    curate.score_pool(pool, ["novelty"])


OPERATIONS: dict[str, Callable[[Path, Path], None]] = {
    name.__name__: name for name in (grow_all, grow_more, move, rollback, tag, untag, forget, score)
}


def make(base: Path) -> None:
    """Make the sources and the pool that operations start from: captions, copies, a tag, and a few versions."""
    captioned_tar(base / "one.tar", range(72), frozenset(range(0, 40, 10)))
    captioned_tar(base / "moved" / "one.tar", range(72), frozenset(range(0, 40, 10)))
    files = {f"{i:02d}.jpg": jpeg(picture(i)[0]) for i in (5, *range(80, 100))}
    write_folder(base / "two", files)
    write_folder(base / "test", {"9.jpg": jpeg(picture(9)[0])})
    curate.grow(base / "one.tar", base / "start", options=OPTIONS)
    curate.tag(base / "start", "early")
    write_folder(base / "three", {f"{i}.jpg": jpeg(picture(i)[0]) for i in range(110, 114)})
    curate.grow(base / "three", base / "start")


def told(pool: Path) -> dict[str, Any]:
    """Return what a pool holds: rows, a manifest's bytes, the statistics, tags; nothing that depends on the clock."""
    opened = curate.Pool.open(pool)
    state = opened.state()
    out = pool.parent / f"{pool.name}-subset"
    curate.select_from_pool(pool, out, method="infogrowth", budget="30%")
    manifest = {path.name: path.read_bytes() for path in sorted(out.iterdir())}
    shutil.rmtree(out)
    rows = opened.frame(DECIDED + [c for c in opened.columns if c == "novelty"])
    sums = (state["checkpoint"] or {"sums": {}})["sums"]
    held = {name: {k: v.tobytes() for k, v in opened.sums(file).items()} for name, file in sums.items()}
    return {
        "rows": rows.rows(),
        "manifest": {k: v for k, v in manifest.items() if k != "manifest.json"},
        "info": _timeless(manifest["manifest.json"]),
        "state": {k: v for k, v in state.items() if k not in ("step", "checkpoint", "guards")} | {"sums": held},
        "tags": opened.tags(),
        "leftovers": leftovers(pool, taken_down=(pool / "receipts").exists()),
    }


def _timeless(data: bytes) -> Any:
    info = json.loads(data)
    info.pop("pool", None)
    return info


def leftovers(pool: Path, taken_down: bool) -> list[str]:
    """Return files that the next writer should have removed; what Lance left behind only matters in a takedown."""
    found = [p.relative_to(pool) for p in pool.rglob("*") if p.name.startswith(".") or p.name == "pending.json"]
    return sorted(str(p) for p in found if taken_down or p.parts[0] != "samples.lance")


def forked(work: Callable[[], Any]) -> tuple[int, Any]:
    """Run work in a fork; return (exit status, what it returned or the error in words)."""
    import pickle

    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            answer: Any = work()
        except BaseException as error:
            answer = error if isinstance(error, CurateError) else "".join(traceback.format_exception(error)[-3:])
        shim.fault_arm(b"-", 0, 0)
        with os.fdopen(write, "wb") as file:
            pickle.dump(answer, file)
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as file:
        data = file.read()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return status, pickle.loads(data) if data else None


def warm_up() -> None:
    """Load the kernels once: a fork must not find threads running, so nothing here touches Lance or polars."""
    x = np.eye(4, 12, dtype=np.float32)
    text, has = np.eye(4, 8, dtype=np.float32), np.ones(4, dtype=np.bool_)
    index = KeptIndex()
    for part in (0, 1):
        names = [f"{part}{i}" for i in range(4)]
        found = index.search(x, text, has, names, 4, 0.01, 0.01)
        stage, alone = np.zeros(4, np.uint8), np.zeros((4, 4), np.bool_)
        seen = (found.twin, found.top_image, found.top_text)
        batch = Batch(stage, x, text, has, np.arange(4), alone, np.zeros(4), *seen)
        InfoGrowth(k=4, epsilon=0.01, epsilon_text=0.01).decide(batch)
        index.add(names, x, text, has, names)


def attempt(base: Path, name: str, mode: str, n: int, expected: Any) -> str:
    """Let the n-th call fail, do the same again undisturbed, and return what is wrong, or ""."""
    pool = base / f"work-{name}-{mode}"
    shutil.rmtree(pool, ignore_errors=True)
    if name != "grow_all":
        shutil.copytree(base / "start", pool)
    operation = OPERATIONS[name]

    def first() -> None:
        shim.fault_arm(str(pool).encode(), n, MODES[mode])
        operation(base, pool)

    def again() -> Any:
        with contextlib.suppress(KeyNotFoundError):  # what is to be forgotten was forgotten before the process died
            try:
                operation(base, pool)
            except UsageError as error:  # a tag that was given or taken before the process died
                if not ("cannot be called" in str(error) or "no version is called" in str(error)):
                    raise
        return told(pool)

    status, answer = forked(first)
    if mode == "full":
        named = isinstance(answer, PoolError) and "space" in str(answer)
        if status != 0 or (answer is not None and not named):
            return f"disk full: {status} {type(answer).__name__} {answer}"
    elif status not in (0, KILLED) or answer is not None:
        return f"not killed: {status} {answer}"
    status, found = forked(again)
    if not isinstance(found, dict):
        return f"resumed: {status} {type(found).__name__} {found}"
    wrong = [key for key in expected if found[key] != expected[key]]
    return f"differs in {', '.join(wrong)}: {[(found[k], expected[k]) for k in wrong][:1]}"[:1500] if wrong else ""


@functools.cache
def straight(base: Path, name: str) -> tuple[int, Any]:
    """Return how many calls an undisturbed run makes, and what it leads to."""
    pool = base / f"straight-{name}"
    shutil.rmtree(pool, ignore_errors=True)
    if name != "grow_all":
        shutil.copytree(base / "start", pool)

    def counted() -> Any:
        shim.fault_arm(str(pool).encode(), 0, COUNT)
        OPERATIONS[name](base, pool)
        count = shim.fault_count()
        shim.fault_arm(b"-", 0, 0)
        return count, told(pool)

    status, answer = forked(counted)
    assert isinstance(answer, tuple), (status, answer)
    if name == "forget":
        answer[1].pop("state")  # another order of subtraction gives other last bits
    return answer


def run(base: Path, name: str, mode: str, most: int) -> dict[str, Any]:
    count, expected = straight(base, name)
    most = min(count, most)
    numbers = [int((i + 0.5) * count / most) + 1 for i in range(most)]
    wrong = {n: problem for n in numbers if (problem := attempt(base, name, mode, n, expected))}
    return {"operation": name, "mode": mode, "calls": count, "tried": len(numbers), "wrong": wrong}


if __name__ == "__main__":
    shim = ctypes.CDLL(os.environ["LD_PRELOAD"])
    shim.fault_count.restype = ctypes.c_long
    shim.fault_arm.argtypes = [ctypes.c_char_p, ctypes.c_long, ctypes.c_int]
    folder = Path(sys.argv[1])
    with toy_encoders():
        if not (folder / "start").exists():
            status, answer = forked(lambda: make(folder))
            assert answer is None, answer
        curate.pool.writer._COMPACT_ABOVE = 3
        warm_up()
        for asked in sys.argv[2:]:
            word, how, most = asked.split(":")
            print(json.dumps(run(folder, word, how, int(most))), flush=True)
