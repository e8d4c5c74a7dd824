"""`curate score --on ray`: the columns of one process, though a worker dies."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from killing import a_worker_killed
from pictures import jpeg, picture, write_folder
from toys import toy_encoders

import curate
from curate.distributed.cluster import connected
from curate.errors import UsageError
from curate.pool import Pool
from curate.pool.fill import fragments
from curate.scores import on_ray
from curate.scores.pools import pool_rows
from curate.scores.summed import merged, pair_sums
from curate.scoring.moments import PairMoments

pytestmark = pytest.mark.usefixtures("cluster")
_ROWS = 200
_NAMES = ("vinfo", "density", "leverage", "align", "quality")


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a pool of four fragments with captions and labels, some missing, and copies that count in no sum."""
    folder = tmp_path_factory.mktemp("grown")
    rows, files = [], {}
    for number in range(_ROWS):
        image, caption, shape = picture(number if number % 25 else 0)
        files[f"{number:03}.jpg"] = jpeg(image)
        told = {"file_name": f"{number:03}.jpg", "words": caption, "shape": shape}
        rows.append(
            told | ({"words": None} if number % 30 == 29 else {}) | ({"shape": None} if number % 9 == 8 else {})
        )
    write_folder(folder / "images", files)
    pl.DataFrame(rows).write_parquet(folder / "images" / "rows.parquet")
    options: dict[str, Any] = {"source": {"label": "shape", "caption": "words"}, "limits": {"batch_size": 50}}
    with toy_encoders():
        curate.grow([str(folder / "images" / "rows.parquet")], folder / "pool", options=options)
    return folder / "pool"


@pytest.fixture(scope="module")
def expected(grown: Path, tmp_path_factory: pytest.TempPathFactory) -> pl.DataFrame:
    path = Path(shutil.copytree(grown, tmp_path_factory.mktemp("one") / "pool"))
    curate.score_pool(path, _NAMES)
    return Pool.open(path).frame()


@pytest.fixture
def pool(grown: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(grown, tmp_path / "pool"))


def _same(path: Path, expected: pl.DataFrame, columns: list[str]) -> None:
    found = Pool.open(path).frame()
    assert found["uid"].to_list() == expected["uid"].to_list()
    for name in columns:
        assert found[name].is_null().to_list() == expected[name].is_null().to_list(), name
        ours, theirs = (frame[name].drop_nulls().to_numpy() for frame in (found, expected))
        assert ours.size
        assert np.allclose(ours, theirs, rtol=2e-5, atol=2e-5), name


def test_columns_are_those_of_one_process_and_one_commit_though_a_worker_is_killed(
    cluster: Any, pool: Path, expected: pl.DataFrame
) -> None:
    before = Pool.open(pool)
    assert len(fragments(before)) == 4
    with a_worker_killed(cluster):
        done = curate.score_pool(pool, _NAMES, on="ray")
    columns = list(done.columns)
    assert {"pvi", "s1_label", "density", "leverage", "align", "quality_sharpness"} <= set(columns)
    _same(pool, expected, columns)
    after = Pool.open(pool)
    assert after.event(after.version) == {"what": "scores", "columns": sorted(columns)}
    assert after.version <= before.version + 2  # new columns of nulls, then all values
    assert done.columns["pvi"]["rows"] == expected["pvi"].drop_nulls().len()
    assert done.columns["pvi"]["mean"] == pytest.approx(expected["pvi"].mean(), abs=2e-5)


def test_square_roots_labels_alone_and_a_target_are_as_in_one_process(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    label = rng.integers(0, 4, 240)
    x = np.abs(rng.normal(size=(4, 16))[label] + 0.3 * rng.normal(size=(240, 16)))  # not negative: Hellinger's map
    np.save(tmp_path / "x.npy", x.astype(np.float32))
    np.save(tmp_path / "target.npy", x[:9].astype(np.float32))
    pl.DataFrame({"kind": [f"kind {c}" for c in label]}).write_parquet(tmp_path / "x.parquet")
    options: dict[str, Any] = {"source": {"label": "kind"}, "limits": {"batch_size": 80}}
    curate.grow([str(tmp_path / "x.npy")], tmp_path / "pool", options=options)
    shutil.copytree(tmp_path / "pool", tmp_path / "one")
    given: dict[str, Any] = {"names": ["vinfo", "normsim", "vas"], "target": tmp_path / "target.npy"}
    curate.score_pool(tmp_path / "one", **given)
    done = curate.score_pool(tmp_path / "pool", **given, on="ray")
    assert {"s1_label", "normsim_2", "vas"} <= set(done.columns)
    _same(tmp_path / "pool", Pool.open(tmp_path / "one").frame(), list(done.columns))


def test_sums_of_parts_count_the_same_bits_and_add_to_one_in_a_billion(grown: Path) -> None:
    with connected("ray") as ray:
        over = on_ray.Fragments(ray, on_ray.Reading(str(grown), Pool.open(grown).version, frozenset({"image", "text"})))
        found, masks = merged(over.each(pair_sums))
    rows = pool_rows(Pool.open(grown), {"image", "text"})
    image, text, at = rows.pairs()
    seen = at & rows.counted
    assert np.array_equal(np.concatenate(masks), seen)
    whole = PairMoments.zeros(image.shape[1], text.shape[1])
    whole.add(image[seen], text[seen])
    assert found.pairs is not None
    assert found.pairs.n == whole.n
    for name, sums in whole.arrays().items():
        assert np.allclose(found.pairs.arrays()[name], sums, rtol=1e-9, atol=1e-12), name


def test_a_score_that_is_no_sum_is_refused_with_those_that_are(pool: Path) -> None:
    with pytest.raises(UsageError, match=r"'novelty' .*these are: align, density, .*vinfo"):
        curate.score_pool(pool, ["vinfo", "novelty"], on="ray")
    assert "novelty" not in Pool.open(pool).columns
