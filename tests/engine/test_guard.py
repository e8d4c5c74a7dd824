"""Evaluation images are kept out of a pool, before and after they are registered."""

from pathlib import Path

import numpy as np
import pytest
from pictures import jpeg, picture, write_folder
from PIL import Image

import curate
from curate.engine.guard import Guard
from curate.errors import SourceError

SMALL = {"limits": {"batch_size": 8}, "dedup": {"epsilon": 0.002}, "clean": {"captions": False, "labels": False}}


def images(path: Path, seeds: range | list[int], quality: int = 92) -> Path:
    return write_folder(path, {f"{i:02d}.jpg": jpeg(picture(i)[0], quality) for i in seeds})


def decisions(pool: Path) -> dict[str, tuple[str, str, str]]:
    rows = curate.Pool.open(pool).frame(["key", "decision", "reason", "detail"])
    return {key: (decision, reason, detail) for key, decision, reason, detail in rows.iter_rows()}


def test_a_sample_of_the_evaluation_set_is_refused_and_says_which(tmp_path: Path) -> None:
    scrape, test = images(tmp_path / "scrape", range(10)), images(tmp_path / "test", [3, 30])
    done = curate.grow(scrape, tmp_path / "pool", options=SMALL, guard=[test])
    assert done.refused == {"eval_leak": 1}
    decision, reason, detail = decisions(tmp_path / "pool")["03.jpg"]
    assert (decision, reason) == ("refuse", "eval_leak")
    assert "test:03.jpg" in detail
    assert "evaluation" in curate.why(tmp_path / "pool", "03.jpg")["because"]


def test_a_guard_stays_with_the_pool(tmp_path: Path) -> None:
    test = images(tmp_path / "test", [12])
    curate.grow(images(tmp_path / "one", range(4)), tmp_path / "pool", options=SMALL, guard=[test])
    done = curate.grow(images(tmp_path / "two", range(10, 14)), tmp_path / "pool")
    assert done.refused == {"eval_leak": 1}
    again = curate.grow(tmp_path / "two", tmp_path / "pool", guard=[test])  # registered already
    assert (again.known, again.version) == (4, done.version)


def test_kept_rows_near_a_new_evaluation_set_are_refused(tmp_path: Path) -> None:
    scrape = images(tmp_path / "scrape", range(10))
    curate.grow(scrape, tmp_path / "pool", options=SMALL)
    assert decisions(tmp_path / "pool")["03.jpg"][0] == "admit"
    done = curate.grow(scrape, tmp_path / "pool", guard=[images(tmp_path / "test", [3])])
    assert done.total["refused"] == {"eval_leak": 1}
    assert decisions(tmp_path / "pool")["03.jpg"][1] == "eval_leak"


def test_a_pool_can_be_the_evaluation_set(tmp_path: Path) -> None:
    curate.grow(images(tmp_path / "test", [5, 6]), tmp_path / "evaluation", options=SMALL)
    done = curate.grow(
        images(tmp_path / "s", range(8)), tmp_path / "pool", options=SMALL, guard=[tmp_path / "evaluation"]
    )
    assert done.refused == {"eval_leak": 2}


def test_an_evaluation_set_without_images_is_a_named_error(tmp_path: Path) -> None:
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "a.jpg").write_bytes(b"no image")
    with pytest.raises(SourceError, match="holds no image"):
        curate.grow(images(tmp_path / "s", range(3)), tmp_path / "pool", options=SMALL, guard=[tmp_path / "test"])


def test_a_leak_does_not_come_in_when_its_twin_leaves(tmp_path: Path) -> None:
    """A row between a kept one and an evaluation image, near to both, which are far from each other."""
    kept, other = picture(3)[0], picture(10)[0]
    between, test = (jpeg(Image.blend(kept, other, share)) for share in (0.15, 0.3))
    options = SMALL | {"dedup": {"epsilon": 0.12}}
    guard = [write_folder(tmp_path / "test", {"e.jpg": test})]
    curate.grow(write_folder(tmp_path / "s", {"kept.jpg": jpeg(kept)}), tmp_path / "pool", options=options, guard=guard)
    curate.grow(write_folder(tmp_path / "t", {"between.jpg": between}), tmp_path / "pool")
    assert decisions(tmp_path / "pool")["kept.jpg"][0] == "admit"
    assert decisions(tmp_path / "pool")["between.jpg"][1] == "near_duplicate"
    curate.forget(tmp_path / "pool", keys=["kept.jpg"], refill=True)
    decision, reason, detail = decisions(tmp_path / "pool")["between.jpg"]
    assert (decision, reason) == ("refuse", "eval_leak")
    assert "test:e.jpg" in detail


def test_a_guard_that_cannot_be_opened_leaves_no_pool(tmp_path: Path) -> None:
    with pytest.raises(SourceError):
        curate.grow(images(tmp_path / "s", range(3)), tmp_path / "pool", guard=[tmp_path / "nothing"])
    assert not (tmp_path / "pool").exists()


def test_a_guard_is_kept_when_a_run_brings_nothing(tmp_path: Path) -> None:
    scrape, test = images(tmp_path / "s", range(4)), images(tmp_path / "test", [12])
    curate.grow(scrape, tmp_path / "pool", options=SMALL)
    curate.grow(scrape, tmp_path / "pool", guard=[test])
    assert len(curate.Pool.open(tmp_path / "pool").state()["guards"]) == 1


def test_what_is_near_by_pixels_or_by_embedding() -> None:
    guard = Guard()
    assert guard.leaks(np.eye(2, dtype=np.float32), ["", ""], 0.1) == ["", ""]
    guard.add(np.eye(3, dtype=np.float16)[:2], ["a", ""], ["first", "second"])
    near = np.float32([0, np.cos(0.1), np.sin(0.1)])
    asked = np.stack([near, np.float32([0, 0, 1]), np.float32([0, 0, 1]), np.zeros(3, np.float32)])
    told = guard.leaks(asked, ["", "a", "b", ""], 0.01)
    assert told == ["second is 0.0050 away", "its pixels equal those of first", "", ""]
