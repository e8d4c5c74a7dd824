"""`curate embed --on ray`: the rows of one process, though workers and the driver die."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from killing import a_worker_killed
from pictures import jpeg, picture, write_folder

import curate
from curate.engine import embed as command
from curate.errors import EncoderError, UsageError
from curate.pool import Pool

pytestmark = pytest.mark.usefixtures("cluster")
_IMAGES = 36


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a pool of three fragments, one image of which is gone by now."""
    folder = tmp_path_factory.mktemp("grown")
    images = {f"{seed:03}.jpg": jpeg(picture(seed)[0]) for seed in range(_IMAGES)}
    source = write_folder(folder / "images", images)
    curate.grow([str(source)], folder / "pool", options={"limits": {"batch_size": 12}})
    (source / "020.jpg").unlink()
    return folder / "pool"


@pytest.fixture
def pool(grown: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(grown, tmp_path / "pool"))


@pytest.fixture(scope="module")
def expected(grown: Path, tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    path = Path(shutil.copytree(grown, tmp_path_factory.mktemp("one") / "pool"))
    assert curate.embed(path, "more", "builtin").embedded == _IMAGES - 1
    return Pool.open(path).embeddings("more")


def test_workers_write_the_rows_of_one_process_in_one_commit_though_one_is_killed(
    cluster: Any, pool: Path, expected: np.ndarray
) -> None:
    before = Pool.open(pool)
    assert len(before.dataset.get_fragments()) == 3
    with a_worker_killed(cluster):
        done = curate.embed(pool, "more", "builtin", on="ray")
    assert (done.embedded, done.unread) == (_IMAGES - 1, 1)
    after = Pool.open(pool)
    assert np.array_equal(after.embeddings("more"), expected)
    assert after.version == before.version + 3  # the encoder's name, its column, all rows
    assert after.event(after.version) == {"what": "embedded", "columns": ["more"], "rows": _IMAGES - 1}
    assert not list((pool / "embeddings").glob("fragment-*"))


def test_a_run_that_dies_between_commits_goes_on_where_it_was(
    pool: Path, expected: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Crash(BaseException):
        pass

    def crash(*_: object) -> None:
        raise Crash

    commits = command.commit
    with monkeypatch.context() as patch:
        patch.setattr(command, "_COMMIT_SECONDS", 0.0)
        patch.setattr(command, "commit", lambda *given: (patch.setattr(command, "commit", crash), commits(*given))[1])
        with pytest.raises(Crash):
            curate.embed(pool, "more", "builtin", on="ray")
    assert 0 < Pool.open(pool).dataset.count_rows(filter="more IS NOT NULL") < _IMAGES - 1
    curate.embed(pool, "more", on="ray")
    assert np.array_equal(Pool.open(pool).embeddings("more"), expected)


def test_named_errors_come_from_workers_as_they_are(pool: Path) -> None:
    with pytest.raises(UsageError, match="on a cluster each worker has one"):
        curate.embed(pool, "more", "builtin", run={"device": "cpu,cpu"}, on="ray")
    with pytest.raises(EncoderError, match="nothing"):
        curate.embed(pool, "more", "nothing", on="ray")
    with pytest.raises(UsageError, match="--on is 'spark'"):
        curate.embed(pool, "more", "builtin", on="spark")
