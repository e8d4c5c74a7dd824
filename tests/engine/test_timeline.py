"""A pool's past: log, diff, tags, rollback."""

import json
import shutil
from pathlib import Path

import pytest
from pictures import jpeg, picture, write_folder

import curate
from curate.errors import PoolLockedError, UsageError
from curate.pool import Pool, Writer

SMALL = {"limits": {"batch_size": 8}, "dedup": {"epsilon": 0.002}, "clean": {"captions": False, "labels": False}}


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A pool that saw 16 pictures, and then 4 more of which one is a copy."""
    root = tmp_path_factory.mktemp("timeline")
    write_folder(root / "first", {f"{i:02d}.jpg": jpeg(picture(i)[0]) for i in range(16)})
    write_folder(root / "second", {f"{i:02d}.jpg": jpeg(picture(i)[0]) for i in (3, 16, 17, 18)})
    curate.grow(root / "first", root / "pool", options=SMALL)
    curate.tag(root / "pool", "monday")
    curate.grow(root / "second", root / "pool", options=SMALL)
    return root, root / "pool"


def events(pool: Path) -> list[str]:
    return [entry["what"] for entry in curate.log(pool) if entry["what"] != "layout"]


def test_the_log_says_what_every_version_did(grown: tuple[Path, Path]) -> None:
    _, pool = grown
    entries = [entry for entry in curate.log(pool) if entry["what"] == "batch"]
    assert [entry["rows"] for entry in entries] == [4, 8, 8]
    assert entries[0]["admitted"] == 3
    assert events(pool)[-1] == "created"
    assert [entry["version"] for entry in curate.log(pool)] == sorted(
        (entry["version"] for entry in curate.log(pool)), reverse=True
    )


def test_the_difference_names_rows_and_decisions(grown: tuple[Path, Path]) -> None:
    _, pool = grown
    found = curate.diff(pool, "monday", Pool.open(pool).version)
    assert found["rows"] == [16, 20]
    assert found["added"] == {"admitted": 3, "refused": {"exact_duplicate": 1}, "rows": 4}
    assert (found["gone"], found["changed"], found["recipe"]) == (0, {}, [])
    assert json.dumps(found)


def test_a_difference_backwards_counts_what_is_gone(grown: tuple[Path, Path]) -> None:
    _, pool = grown
    assert curate.diff(pool, Pool.open(pool).version, "monday")["gone"] == 4


def copied(grown: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    root, pool = grown
    shutil.copytree(pool, tmp_path / "pool")
    return root, tmp_path / "pool"


def test_a_rollback_equals_the_old_version_and_loses_nothing(grown: tuple[Path, Path], tmp_path: Path) -> None:
    _, pool = copied(grown, tmp_path)
    newest = Pool.open(pool).version
    old = next(entry["version"] for entry in curate.log(pool) if "monday" in entry.get("tags", []))
    done = curate.rollback(pool, "monday")
    assert (done["rows"], done["equals"], done["version"]) == (16, old, newest + 1)
    back, then = Pool.open(pool), Pool.open(pool, old)
    assert back.frame().equals(then.frame())
    ours, theirs = back.state(), then.state()
    assert ours.pop("step") > theirs.pop("step")
    assert ours == theirs
    assert curate.rollback(pool, newest)["rows"] == 20  # a rollback can be rolled back
    assert Pool.open(pool).frame().equals(Pool.open(pool, newest).frame())


def test_growing_after_a_rollback_sees_the_lost_rows_again(grown: tuple[Path, Path], tmp_path: Path) -> None:
    root, pool = copied(grown, tmp_path)
    newest = Pool.open(pool).version
    curate.rollback(pool, "monday")
    done = curate.grow([root / "first", root / "second"], pool, options=SMALL)
    assert (done.known, done.seen, done.admitted) == (16, 20, 3)
    again, before = (Pool.open(pool, v).frame(["key", "decision", "reason", "gain"]) for v in (None, newest))
    assert again.equals(before)


def test_a_rolled_back_pool_keeps_the_states_of_its_other_versions(grown: tuple[Path, Path], tmp_path: Path) -> None:
    root, pool = copied(grown, tmp_path)
    newest = Pool.open(pool).version
    curate.rollback(pool, "monday")
    curate.grow(root / "second", pool, options=SMALL)  # removes orphans
    assert Pool.open(pool, newest).state()["rows"] == 20


@pytest.mark.parametrize("version", ["tuesday", 99, 0, -1])
def test_an_unknown_version_is_a_named_error(grown: tuple[Path, Path], version: object) -> None:
    _, pool = grown
    with pytest.raises(UsageError, match=r"no version .* tags monday"):
        curate.diff(pool, version, 1)


@pytest.mark.parametrize("name", ["monday", "7", "a b", "", "../x", "é", "²", "a..b", ".a", "a.lock"])
def test_a_tag_that_is_taken_or_no_name_is_refused(grown: tuple[Path, Path], name: str) -> None:
    _, pool = grown
    with pytest.raises(UsageError, match="cannot be called"):
        curate.tag(pool, name)


def test_a_tag_can_be_taken_away(grown: tuple[Path, Path], tmp_path: Path) -> None:
    _, pool = copied(grown, tmp_path)
    number = curate.tag(pool, "monday", delete=True)["version"]
    assert "tags" not in next(entry for entry in curate.log(pool) if entry["version"] == number)
    with pytest.raises(UsageError, match="no version is called"):
        curate.tag(pool, "monday", delete=True)
    assert curate.tag(pool, "early", number) == {"tag": "early", "version": number}


def test_a_locked_pool_is_not_rolled_back(grown: tuple[Path, Path], tmp_path: Path) -> None:
    _, pool = copied(grown, tmp_path)
    with Writer(pool), pytest.raises(PoolLockedError):
        curate.rollback(pool, "monday")
    assert Pool.open(pool).rows == 20
