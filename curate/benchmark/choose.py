"""Selectors as a benchmark runs them: scores first, then a gate, then a method; each part timed."""

from __future__ import annotations

import contextlib
import io
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from curate.benchmark.definition import CALIBRATED, EVERYTHING, Chooser, Gate
from curate.benchmark.world import World
from curate.errors import CurateError, UsageError
from curate.files import atomic_write, digest
from curate.version import __version__
from curate_kernels.arrays import B1, F32, I64
from curate_selectors.errors import SelectorError

Columns = dict[str, F32]


@dataclass(frozen=True, slots=True)
class Chosen:
    """What a selector chose: index (m,) rows of the world, in order; seconds of its scores and of itself.

    problem: why it could not choose, or ""
    """

    index: I64
    score_seconds: float
    seconds: float
    problem: str = ""


class Scores:
    """Scores of a world, each computed once by a version of this program and kept on disk with its time."""

    def __init__(self, world: World, seed: int, folder: Path) -> None:
        self._world, self._seed, self._folder = world, seed, folder
        self._kept: dict[str, tuple[Columns, float]] = {}

    def of(self, name: str) -> tuple[Columns, float]:
        """Return a score's columns, and the seconds that it took."""
        if name not in self._kept:
            file = self._folder / f"score-{digest([name, self._world.digest, __version__])[:32]}.npz"
            if not file.is_file():
                file.parent.mkdir(parents=True, exist_ok=True)
                self._compute(name, file)
            with np.load(file, allow_pickle=False) as found:
                columns = {key: found[key] for key in found.files if key != "_seconds"}
                self._kept[name] = columns, float(found["_seconds"])
        return self._kept[name]

    def _compute(self, name: str, file: Path) -> None:
        from curate.scores.arrays import score

        world, start = self._world, time.perf_counter()
        if name == CALIBRATED:
            columns = _gated(world)
        else:
            columns = score(world.x, name, text=world.text, labels=world.labels, captions=captions(world))
        arrays: dict[str, Any] = {**columns, "_seconds": np.float64(time.perf_counter() - start)}
        stream = io.BytesIO()
        np.savez(stream, **arrays)
        atomic_write(file, stream.getvalue())


def _gated(world: World) -> Columns:
    from curate.benchmark.gates import calibrated

    return {CALIBRATED: calibrated(world).astype(np.float32)}


def captions(world: World) -> list[str] | None:
    """Return the captions that the rows bear."""
    if world.base.captions is None:
        return None
    return [world.base.captions[i] for i in world.plan.caption.tolist()]


def choose(world: World, chooser: Chooser, budget: float, seed: int, scores: Scores) -> Chosen:
    """Return what a selector chooses. A gate that leaves fewer rows than the budget gives all that it leaves.

    What cannot be done with this world is told as a problem: nothing else of the benchmark stops for it.
    """
    spent = 0.0
    given: Columns = {}
    none = np.zeros(0, dtype=np.int64)
    try:
        for name in sorted(_score_names(chooser)):
            columns, seconds = scores.of(name)
            given |= columns
            spent += seconds
        for name in sorted(_welcome(chooser) - _score_names(chooser)):
            with contextlib.suppress(UsageError):  # the method does without
                columns, seconds = scores.of(name)
                given |= columns
                spent += seconds
        passed = np.flatnonzero(_passed(world, chooser.gate, given)).astype(np.int64)
        start = time.perf_counter()
        count = min(int(world.n * budget + 1e-9), passed.size)
        index = _pick(world, chooser, passed, count, seed, {k: v for k, v in given.items() if k in _wanted(chooser)})
        return Chosen(index, spent, time.perf_counter() - start)
    except (CurateError, SelectorError) as error:
        return Chosen(none, spent, 0.0, str(error))


def _wanted(chooser: Chooser) -> set[str]:
    """Return the columns that the method itself may read: those of a gate are not given to it."""
    from curate.scores.table import SCORES

    names = _score_names(Chooser(method=chooser.method, params=chooser.params, scores=chooser.scores))
    return {column for name in names | _welcome(chooser) for column, _, _ in SCORES[name].columns}


def _welcome(chooser: Chooser) -> set[str]:
    """Return the scores that a method reads where they can be had."""
    from curate.selection.needs import score_name, score_of

    wanted = [need[:-1] for need in _needs(chooser) if need.endswith("?")]
    return {score_of(score_name(word)) for word in wanted if word.startswith("score:")}


def _needs(chooser: Chooser) -> tuple[str, ...]:
    from curate.selection.needs import needs_of

    if chooser.method == EVERYTHING or chooser.method.startswith("peer:"):
        return ()
    return needs_of(chooser.method, dict(chooser.params))


def _score_names(chooser: Chooser) -> set[str]:
    """Return the scores that a selector's gate and method must read."""
    from curate.selection.needs import score_name, score_of

    names = set(chooser.scores)
    if chooser.gate == CALIBRATED:
        names.add(CALIBRATED)
    if isinstance(chooser.gate, Gate):
        names.add(score_of(chooser.gate.column))
    for need in _needs(chooser):
        word = need.split(" else ")[0].split(" or ")[0]
        if word.startswith("score:") and not word.endswith("?"):
            names.add(score_of(score_name(word)))
    return names


def _passed(world: World, gate: str | Gate, given: Columns) -> B1:
    if gate == "":
        return np.ones(world.n, dtype=np.bool_)
    if gate == "oracle":
        return ~world.plan.bad()
    if gate == CALIBRATED:
        kept: B1 = given[CALIBRATED] > 0
        return kept
    assert isinstance(gate, Gate)
    if gate.column not in given:
        raise UsageError(f"the gate reads {gate.column}, which its score does not give on this data")
    values = given[gate.column].astype(np.float64)
    passed: B1 = np.isfinite(values)
    if gate.least is not None:
        passed &= values >= gate.least
    if gate.most is not None:
        passed &= values <= gate.most
    order = np.argsort(values, kind="stable")  # NaN last: they have not passed anyway
    n = int(np.isfinite(values).sum())
    passed[order[: int(gate.drop_lowest * n)]] = False
    if gate.drop_highest:
        passed[order[n - int(gate.drop_highest * n) : n]] = False
    return passed


def _pick(world: World, chooser: Chooser, passed: I64, count: int, seed: int, given: Columns) -> I64:
    """Return `count` of the rows that passed, as the method ranks them."""
    from curate.selection import select

    if chooser.method == EVERYTHING:
        return passed
    if chooser.method.startswith("peer:"):
        from curate.benchmark.peers import run_peer

        return run_peer(chooser.method.removeprefix("peer:"), world, passed, count, seed)
    labels, texts, borne = world.labels, world.text, captions(world)
    rows = passed.tolist()
    chosen = select(
        world.x[passed],
        method=chooser.method,
        budget=count,
        text=None if texts is None else texts[passed],
        captions=None if borne is None else [borne[i] for i in rows],
        labels=None if labels is None else [labels[i] for i in rows],
        scores={name: values[passed] for name, values in given.items()},
        seed=seed,
        **chooser.params,
    )
    return passed[chosen.index]


def save_chosen(path: Path, chosen: Chosen) -> None:
    """Write a selection whole or not at all."""
    told = {"index": chosen.index.tolist(), "score_seconds": chosen.score_seconds, "seconds": chosen.seconds}
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, json.dumps(told | {"problem": chosen.problem}).encode())


def load_chosen(path: Path) -> Chosen:
    """Read a selection."""
    told: dict[str, Any] = json.loads(path.read_bytes())
    index = np.array(told["index"], dtype=np.int64)
    return Chosen(index, told["score_seconds"], told["seconds"], told["problem"])


def checked(chosen: Chosen, n: int, budget: float) -> I64:
    """Return the rows of a selection, in order, if it keeps its word: distinct ones that exist, within the budget.

    Raises UsageError otherwise, or with the selection's own problem: what a selector says of itself is not believed.
    """
    if chosen.problem:
        raise UsageError(chosen.problem)
    index = chosen.index
    rows = np.unique(index)
    if rows.size != index.size:
        raise UsageError(f"the selector named {index.size - rows.size} rows twice")
    if rows.size and (rows[0] < 0 or rows[-1] >= n):
        raise UsageError(f"the selector named row {rows[-1] if rows[-1] >= n else rows[0]} of {n}")
    if rows.size > int(n * budget + 1e-9):
        raise UsageError(f"the selector took {rows.size} rows of a budget of {int(n * budget + 1e-9)}")
    if not rows.size:
        raise UsageError("the selector chose nothing")
    return rows
