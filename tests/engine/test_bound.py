"""A kept set of bounded size: never too large, a fair sample by gain, and the same after a crash."""

import io
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from pictures import jpeg, picture, write_folder
from PIL import Image
from toys import toy_encoders

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
    assert 24 < max(sizes) <= 32
    assert sizes[-1] >= 32 - 8 - 6
    evictions = [entry for entry in curate.log(pool.path) if entry["what"] == "eviction"]
    assert 2 <= len(evictions) <= 8  # of 14 batches: each makes room for a fifth and a batch


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
    limits = SimpleNamespace(max_kept=1260, batch_size=8)
    engine = SimpleNamespace(recipe=SimpleNamespace(limits=limits))
    gain = np.where(np.arange(20_000) % 2, 0.1, 0.3).astype(np.float32)
    uids = [f"{value:032x}" for value in np.random.default_rng(0).integers(0, 2**62, 20_000).tolist()]
    uids = [uid[::-1] for uid in uids]
    stays, least, top = bound.reservoir(engine, gain, uids, bound.luck(uids), np.zeros(20_000, dtype=np.bool_))
    assert stays.sum() == 1000
    assert 2.4 < stays[::2].sum() / stays[1::2].sum() < 3.6  # few are taken, so the odds are those of the weights
    key = np.log(np.minimum(gain.astype(np.float64), top)) + bound.luck(uids)
    assert ((key >= least) == stays).all()


def test_evictions_are_replayed(base: Path) -> None:
    told = curate.replay(base / "pool")
    assert told["equal"]
    assert told["repeated"]


def png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bounded pool that prefers larger copies, after a larger copy of everything that it kept has come."""
    base = tmp_path_factory.mktemp("copied")
    options = {"limits": {"batch_size": 8, "max_kept": 64}, "dedup": {"epsilon": 1e-3, "keep": "largest"}}
    with toy_encoders():
        write_folder(base / "s", {f"{i:03d}.png": png(picture(i)[0]) for i in range(150)})
        curate.grow(base / "s", base / "pool", options=options)
        kept = curate.Pool.open(base / "pool").frame(["key"], where="decision = 'admit'")["key"].to_list()
        larger = {
            f"big_{key}": png(picture(int(key[:3]))[0].resize((384, 384), Image.Resampling.NEAREST)) for key in kept
        }
        write_folder(base / "s2", larger)
        curate.grow(base / "s2", base / "pool")
    return base


def test_a_better_copy_keeps_the_place_under_a_bound(copied: Path) -> None:
    rows = curate.Pool.open(copied / "pool").frame(COLUMNS)
    large = rows.filter(pl.col("key").str.starts_with("big_"))
    assert large["decision"].to_list() == ["admit"] * large.height
    small = rows.filter(pl.col("key").is_in(large["key"].str.strip_prefix("big_").to_list()))
    assert set(small["reason"]) == {"near_duplicate"}


def test_a_refill_admits_the_best_of_what_the_bound_refused(copied: Path, tmp_path: Path) -> None:
    shutil.copytree(copied / "pool", tmp_path / "pool")
    rows = curate.Pool.open(tmp_path / "pool").frame(COLUMNS)
    kept = rows.filter(pl.col("decision") == "admit")
    places = 64 - 8 - 12
    with toy_encoders():
        gone = kept["uid"].to_list()[: kept.height - places + 10]
        done = curate.forget(tmp_path / "pool", keys=gone, refill=True)
    after = curate.Pool.open(tmp_path / "pool").frame(COLUMNS)
    assert (after["decision"] == "admit").sum() == places
    back = after.filter(pl.col("decision") == "admit").join(kept, on="uid", how="anti")
    assert done.refilled >= back.height > 0
    assert back["history"].str.contains("budget").any()
