"""A kept set of bounded size: never too large, a fair sample by gain, and the same after a crash."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from pictures import jpeg, picture, write_folder

import curate
from curate.engine import bound
from curate.errors import RecipeError
from curate.pool import Writer

OPTIONS = {"limits": {"batch_size": 8, "max_kept": 32}, "dedup": {"epsilon": 1e-4}}
COLUMNS = ["uid", "key", "decision", "reason", "duplicate_of", "gain", "gain_arrival", "history"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hundred pictures and ten copies, grown under a bound of 32."""
    base = tmp_path_factory.mktemp("bound")
    files = {f"{i:03d}.jpg": jpeg(picture(i)[0]) for i in range(100)}
    files |= {f"{i:03d}_copy.jpg": files[f"{i:03d}.jpg"] for i in range(0, 100, 10)}
    write_folder(base / "s", files)
    curate.grow(base / "s", base / "pool", options=OPTIONS)
    return base


def test_every_version_holds_a_subset_within_the_bound(base: Path) -> None:
    pool = curate.Pool.open(base / "pool")
    sizes = []
    for entry in pool.versions():
        rows = curate.Pool.open(base / "pool", version=entry["version"]).frame(["decision"])
        sizes.append((rows["decision"] == "admit").sum())
    assert max(sizes) <= 32
    assert max(sizes) > 24
    assert sizes[0 if pool.versions()[0]["version"] > 1 else -1] >= 24 - 8


def test_refusals_by_budget_and_copies_are_told_apart(base: Path) -> None:
    rows = curate.Pool.open(base / "pool").frame(COLUMNS)
    budget = rows.filter(pl.col("reason") == "budget")
    assert budget.height > 50
    assert budget["duplicate_of"].is_null().all()
    assert budget["gain_arrival"].is_not_null().all()
    evicted = budget.filter(pl.col("history").str.contains('"decision": "admit"'))
    never = budget.filter(~pl.col("history").str.contains('"decision": "admit"'))
    assert min(evicted.height, never.height) > 10


def test_a_crash_before_any_eviction_changes_nothing(base: Path, tmp_path: Path, monkeypatch) -> None:
    update, calls = Writer.update, []

    def crash(self, *args, **more):
        calls.append(1)
        if len(calls) % 2:
            raise KeyboardInterrupt
        return update(self, *args, **more)

    monkeypatch.setattr(Writer, "update", crash)
    for _ in range(40):
        try:
            curate.grow(base / "s", tmp_path / "pool", options=OPTIONS)
        except KeyboardInterrupt:
            continue
        break
    assert len(calls) > 4
    a, b = (curate.Pool.open(p / "pool").frame(COLUMNS) for p in (base, tmp_path))
    assert a.equals(b)


def test_without_the_bound_what_it_refused_is_judged_again(base: Path, tmp_path: Path) -> None:
    curate.grow(base / "s", tmp_path / "pool", options=OPTIONS)
    curate.grow(base / "s", tmp_path / "pool", options={"limits": {"max_kept": 0, "batch_size": 8}}, change_recipe=True)
    rows = curate.Pool.open(tmp_path / "pool").frame(["reason"])
    assert rows["reason"].value_counts(sort=True).rows() == [("admitted", 100), ("exact_duplicate", 10)]


def test_a_bound_below_two_batches_is_an_error() -> None:
    with pytest.raises(RecipeError, match="two batches"):
        curate.Recipe().replace({"limits": {"max_kept": 300}})


def test_reservoir_keeps_samples_in_proportion_to_their_gain() -> None:
    limits = SimpleNamespace(max_kept=1250, batch_size=8)
    engine = SimpleNamespace(recipe=SimpleNamespace(limits=limits))
    gain = np.where(np.arange(20_000) % 2, 0.1, 0.3).astype(np.float32)
    uids = [f"{value:032x}" for value in np.random.default_rng(0).integers(0, 2**62, 20_000).tolist()]
    uids = [uid[::-1] for uid in uids]
    stays, least, top = bound.reservoir(engine, gain, uids)
    assert stays.sum() == 1000
    assert 2.4 < stays[::2].sum() / stays[1::2].sum() < 3.6  # few are taken, so the odds are those of the weights
    key = np.log(np.minimum(gain.astype(np.float64), top)) + bound.luck(uids)
    assert ((key >= least) == stays).all()


def test_evictions_are_replayed(base: Path) -> None:
    told = curate.replay(base / "pool")
    assert told["equal"]
    assert told["repeated"]
