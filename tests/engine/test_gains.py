"""Gains of a pool: frozen at arrival, corrected at the end of a run, and what the selectors read."""

from pathlib import Path

import numpy as np
import pytest
from pictures import jpeg, picture, write_folder

import curate
from curate_selectors.drift import Drift
from curate_selectors.infogrowth import gains_now, stream_gains

SMALL = {"limits": {"batch_size": 8}, "dedup": {"epsilon": 1e-4}}


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> curate.Pool:
    """Forty pictures without captions and labels: no gate has anything to fit."""
    base = tmp_path_factory.mktemp("gains")
    source = write_folder(base / "s", {f"{i:02d}.jpg": jpeg(picture(i)[0]) for i in range(40)})
    done = curate.grow(source, base / "pool", options=SMALL)
    assert done.admitted == 40
    return curate.Pool.open(base / "pool")


def test_gains_at_arrival_are_those_of_the_stream(pool: curate.Pool) -> None:
    table = pool.frame(["gain_arrival", "gain_kept"])
    assert table["gain_kept"].to_list() == list(range(40))
    expected = stream_gains(pool.embeddings("image"), 4)
    np.testing.assert_allclose(table["gain_arrival"].to_numpy(), expected, atol=1e-5)


def test_gains_are_corrected_without_captions_or_labels(pool: curate.Pool) -> None:
    table, x = pool.frame(["gain", "gain_arrival"]), pool.embeddings("image")
    frozen, size = table["gain_arrival"].to_numpy(), np.arange(40)
    at = np.arange(4, 40)
    expected = Drift.fit(at, frozen[at], gains_now(x, at, 4)).correct(size, frozen)
    np.testing.assert_allclose(table["gain"].to_numpy(), expected, rtol=1e-4)
    assert not np.allclose(expected, frozen, rtol=1e-3)


def test_a_finished_run_again_still_writes_nothing(pool: curate.Pool) -> None:
    source = pool.path.parent / "s"
    assert curate.grow(source, pool.path).version == pool.version


@pytest.mark.parametrize(("method", "column"), [("infogrowth", "gain"), ("infogrowth-reference", "gain_arrival")])
def test_each_method_reads_its_own_gain(pool: curate.Pool, method: str, column: str, tmp_path: Path) -> None:
    done = curate.select_from_pool(pool, tmp_path / "m", method=method, budget=10, seed=1)
    table = pool.frame(["uid", column]).sort("uid")
    chosen = curate.select(None, method=method, budget=10, seed=1, scores={column: table[column].to_numpy()})
    assert curate.read_manifest(done.manifest)["uid"].to_list() == table["uid"][chosen.index].to_list()


def test_why_tells_the_smallest_budget_that_takes_a_row(pool: curate.Pool, tmp_path: Path) -> None:
    for key in ("07.jpg", "31.jpg"):
        at = curate.why(pool, key)["selected_at"]
        assert at["budget"] == f"{100 * at['count'] / 40:g}%"
        for budget, inside in ((at["budget"], True), (at["count"] - 1, False)):
            out = tmp_path / f"{key}{inside}"
            done = curate.select_from_pool(pool, out, method=at["method"], budget=budget)
            assert (key in curate.read_manifest(done.manifest)["key"].to_list()) == inside
